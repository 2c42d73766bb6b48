"""Vectors, their nearest centroids and their near duplicates agree with plain numpy, bit for bit."""

from collections import Counter

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from cuvee.kernels.embedding import (
    MAX_DIMENSIONS,
    UNIT,
    count_features,
    near_kept,
    near_kept_reference,
    nearest,
    nearest_reference,
    project,
    project_reference,
    to_unit,
)

SEEDS = st.integers(0, 2**32 - 1)


def _features(random, n_docs, n_ids):
    lengths = random.integers(0, 12, n_docs)
    ids, offsets = random.integers(0, n_ids, lengths.sum()), np.cumsum([0, *lengths])
    return ids, offsets, count_features(ids, offsets, n_ids)


def _vectors(random, n, d=5):
    return to_unit(random.normal(size=(n, d)).round(random.integers(0, 3)))  # rounded, so that some are equal


@given(seed=SEEDS, n_docs=st.integers(0, 6))
def test_features_count_the_ids_of_each_document(seed, n_docs):
    ids, offsets, features = _features(np.random.default_rng(seed), n_docs, 7)
    for d in range(n_docs):
        counted = Counter(ids[offsets[d] : offsets[d + 1]].tolist())
        here = slice(features.offsets[d], features.offsets[d + 1])
        assert sorted(counted.items()) == list(
            zip(features.ids[here].tolist(), features.counts[here].tolist(), strict=True)
        )


@given(seed=SEEDS, n_docs=st.integers(0, 6), d=st.integers(1, 9))
def test_vectors_agree_with_the_reference(seed, n_docs, d):
    random = np.random.default_rng(seed)
    features = _features(random, n_docs, 16)[2]
    projection = random.normal(size=(16, d)).astype(np.float32)
    weights = np.sqrt(features.counts)
    for origin in (None, random.normal(size=d)):
        vectors = project(features, weights, projection, origin)
        np.testing.assert_array_equal(vectors, project_reference(features, weights, projection, origin))
        assert not vectors[np.diff(features.offsets) == 0].any()
    lengths = np.linalg.norm(vectors[np.diff(features.offsets) > 0].astype(float), axis=1)
    assert (np.abs(lengths - UNIT) <= 0.5 * d**0.5).all(), "rounding moves each of d numbers by 1/2 at most"


@given(seed=SEEDS, n=st.integers(0, 9), n_centroids=st.integers(1, 4), max_price=st.integers(0, 2 * UNIT**2))
def test_the_nearest_centroid_is_that_of_the_reference(seed, n, n_centroids, max_price):
    random = np.random.default_rng(seed)
    columns = (_vectors(random, n), _vectors(random, n_centroids))
    prices = random.integers(0, max_price + 1, n_centroids)
    for given_prices in (None, prices):
        results = nearest(*columns, given_prices), nearest_reference(*columns, given_prices)
        for ours, expected in zip(*results, strict=True):
            np.testing.assert_array_equal(ours, expected)


def test_products_are_exact_in_float32_in_any_order_up_to_the_most_dimensions():
    random = np.random.default_rng(0)
    same_sign = np.abs(random.normal(size=(20, MAX_DIMENSIONS)))
    vectors = to_unit(np.concatenate([same_sign, np.eye(1, MAX_DIMENSIONS), np.ones((1, MAX_DIMENSIONS))]))
    exact = vectors.astype(np.int64) @ vectors.T.astype(np.int64)
    assert exact.max() <= 2**24
    order = random.permutation(MAX_DIMENSIONS)
    for columns in (vectors, vectors[:, order]):
        floats = columns.astype(np.float32)
        np.testing.assert_array_equal(floats @ floats.T, exact)
        np.testing.assert_array_equal(np.cumsum(floats * floats, axis=1)[:, -1], np.diag(exact))


@given(seed=SEEDS, n=st.integers(0, 20), cosine=st.floats(-1, 1))
def test_what_is_kept_agrees_with_the_reference(seed, n, cosine):
    columns = (_vectors(np.random.default_rng(seed), n), int(cosine * UNIT * UNIT))
    for ours, expected in zip(near_kept(*columns), near_kept_reference(*columns), strict=True):
        np.testing.assert_array_equal(ours, expected)

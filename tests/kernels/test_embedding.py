"""Vectors, their nearest centroids and their near duplicates agree with plain numpy, bit for bit."""

from collections import Counter

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from cuvee.kernels.embedding import (
    UNIT,
    near_kept,
    near_kept_reference,
    nearest,
    nearest_reference,
    project,
    project_reference,
    word_features,
)

SEEDS = st.integers(0, 2**32 - 1)


def _features(random, n_docs, n_buckets):
    lengths = random.integers(0, 12, n_docs)
    words = random.integers(0, 30, lengths.sum()).astype(np.uint64)
    return words, np.cumsum([0, *lengths]), word_features(words, np.cumsum([0, *lengths]), n_buckets)


def _vectors(random, n, d=5):
    vectors = random.normal(size=(n, d)).round(random.integers(0, 3))  # rounded, so that some are equal
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
    return np.rint(UNIT * vectors / lengths).astype(np.int16)


@given(seed=SEEDS, n_docs=st.integers(0, 6))
def test_features_count_the_words_of_each_document(seed, n_docs):
    words, offsets, features = _features(np.random.default_rng(seed), n_docs, 7)
    for d in range(n_docs):
        counted = Counter((words[offsets[d] : offsets[d + 1]] % np.uint64(7)).tolist())
        here = slice(features.offsets[d], features.offsets[d + 1])
        assert sorted(counted.items()) == list(
            zip(features.buckets[here].tolist(), features.counts[here].tolist(), strict=True)
        )


@given(seed=SEEDS, n_docs=st.integers(0, 6), d=st.integers(1, 9))
def test_vectors_agree_with_the_reference(seed, n_docs, d):
    random = np.random.default_rng(seed)
    features = _features(random, n_docs, 16)[2]
    projection = random.normal(size=(16, d)).astype(np.float32)
    vectors = project(features, projection)
    np.testing.assert_array_equal(vectors, project_reference(features, projection))
    lengths = np.linalg.norm(vectors[np.diff(features.offsets) > 0].astype(float), axis=1)
    assert (np.abs(lengths - UNIT) <= 0.5 * d**0.5).all(), "rounding moves each of d numbers by 1/2 at most"


@given(seed=SEEDS, n=st.integers(0, 9), n_centroids=st.integers(1, 4))
def test_the_nearest_centroid_is_that_of_the_reference(seed, n, n_centroids):
    random = np.random.default_rng(seed)
    columns = (_vectors(random, n), _vectors(random, n_centroids))
    for ours, expected in zip(nearest(*columns), nearest_reference(*columns), strict=True):
        np.testing.assert_array_equal(ours, expected)


@given(seed=SEEDS, n=st.integers(0, 20), cosine=st.floats(-1, 1))
def test_what_is_kept_agrees_with_the_reference(seed, n, cosine):
    columns = (_vectors(np.random.default_rng(seed), n), int(cosine * UNIT * UNIT))
    for ours, expected in zip(near_kept(*columns), near_kept_reference(*columns), strict=True):
        np.testing.assert_array_equal(ours, expected)

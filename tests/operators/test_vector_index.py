"""faiss gives the answers of our kernels, ties included."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from cuvee.kernels.embedding import UNIT, near_kept, nearest, to_unit
from cuvee.kernels.kmeans import spherical_kmeans
from cuvee.operators import files, vector_index
from cuvee.operators.cluster import Cluster
from cuvee.operators.semantic_dedup import SemanticDedup
from cuvee.operators.vector_index import near_kept_by, nearest_by_faiss, search_by

pytest.importorskip("faiss")


def _vectors(seed, n, d=8):
    """Some of them equal, some nearly so, one of no length."""
    random = np.random.default_rng(seed)
    few = to_unit(random.standard_normal((max(n // 3, 1), d)))
    vectors = few[random.integers(0, len(few), n)]
    near = to_unit(vectors + random.normal(0, UNIT / 50, vectors.shape) * (random.random((n, 1)) < 0.5))
    near[n // 2 :][:1] = 0
    return near


@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), n=st.integers(1, 60), k=st.integers(1, 20))
def test_faiss_finds_the_centroids_that_the_kernel_finds(seed, n, k):
    vectors, centroids = _vectors(seed, n), _vectors(seed, k)
    for ours, theirs in zip(nearest(vectors, centroids), nearest_by_faiss(vectors, centroids), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_price_is_not_left_to_faiss():
    vectors, centroids = _vectors(0, 30), _vectors(1, 5)
    prices = np.array([0, UNIT**2, 0, 0, 0])
    which, _ = search_by("faiss")(vectors, centroids, prices)
    np.testing.assert_array_equal(which, nearest(vectors, centroids, prices)[0])
    assert 1 not in which


def test_k_means_by_faiss_has_the_centroids_of_ours():
    vectors = _vectors(3, 300)
    runs = [
        spherical_kmeans(vectors, 12, np.random.default_rng(0), search=search_by(index))
        for index in ("exact", "faiss")
    ]
    np.testing.assert_array_equal(runs[0].centroids, runs[1].centroids)
    np.testing.assert_array_equal(runs[0].which, runs[1].which)


@pytest.mark.parametrize("block", [1, 7, 1024])
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), n=st.integers(1, 80), cosine=st.sampled_from([0.9, 0.99, 1.0]))
def test_faiss_names_the_kept_vector_that_the_kernel_names(block, seed, n, cosine):
    vectors, least = _vectors(seed, n), int(cosine * UNIT**2) - 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vector_index, "_BLOCK", block)
        which, best = near_kept_by("faiss", vectors, least)
    expected, product = near_kept(vectors, least)
    above = product > least
    np.testing.assert_array_equal(best > least, above)
    np.testing.assert_array_equal(which[above], expected[above])
    np.testing.assert_array_equal(best[above], product[above])


@pytest.mark.parametrize("operator", [Cluster, SemanticDedup])
def test_faiss_is_asked_for_only_where_it_is_installed(operator, monkeypatch):
    assert operator(index="faiss").identity() == operator().identity()
    monkeypatch.setattr(files, "find_spec", lambda _: None)
    with pytest.raises(ValidationError, match=r"'faiss' is not installed: pip install 'cuvee\[faiss\]'"):
        operator(index="faiss")

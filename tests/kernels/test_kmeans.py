"""Clusters of vectors: found again, balanced on demand, and judged as by their definitions."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from cuvee.kernels.cluster_quality import (
    adjusted_rand,
    best_jaccard,
    contingency,
    silhouettes,
    silhouettes_reference,
)
from cuvee.kernels.embedding import nearest, to_unit
from cuvee.kernels.kmeans import (
    balancing_prices,
    centroids_of,
    cluster_sums,
    cluster_sums_reference,
    spherical_kmeans,
)

SEEDS = st.integers(0, 2**32 - 1)


def _clouds(random, sizes, spread=0.2, d=8):
    """Vectors around orthogonal directions, and which direction each has."""
    which = np.repeat(np.arange(len(sizes)), sizes)
    return to_unit(np.eye(d)[which] + spread * random.normal(size=(len(which), d))), which


def test_clouds_are_found_the_largest_first():
    vectors, truth = _clouds(np.random.default_rng(0), [30, 80, 50])
    found = spherical_kmeans(vectors, 3, np.random.default_rng(1), n_restarts=3)
    assert adjusted_rand(contingency(truth, found.which, 3, 3)) == 1
    assert np.bincount(found.which).tolist() == [80, 50, 30]
    np.testing.assert_array_equal(found.which, nearest(vectors, found.centroids, found.prices)[0])


def test_a_seed_gives_the_same_centroids_and_each_is_its_clusters_mean_direction():
    vectors, _ = _clouds(np.random.default_rng(0), [40, 40], spread=0.8)
    first, second = (spherical_kmeans(vectors, 5, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first.centroids, second.centroids)
    for cluster, centroid in enumerate(first.centroids):
        mean = vectors[first.which == cluster].astype(float).sum(axis=0)
        assert mean @ centroid / np.linalg.norm(mean) / np.linalg.norm(centroid) > 0.9999


@pytest.mark.parametrize("n_clusters", [1, 4, 9])
def test_there_are_no_more_clusters_than_different_vectors(n_clusters):
    vectors = to_unit(np.repeat(np.eye(4), 3, axis=0))
    found = spherical_kmeans(vectors, n_clusters, np.random.default_rng(0))
    assert len(found.centroids) == min(n_clusters, 4)
    assert spherical_kmeans(vectors[:0], n_clusters, np.random.default_rng(0)).centroids.shape == (0, 4)


@given(seed=SEEDS, n=st.integers(0, 12), k=st.integers(1, 4))
def test_sums_are_those_of_the_reference(seed, n, k):
    random = np.random.default_rng(seed)
    vectors, which = to_unit(random.normal(size=(n, 3))), random.integers(0, k, n)
    np.testing.assert_array_equal(cluster_sums(vectors, which, k), cluster_sums_reference(vectors, which, k))


def test_an_empty_cluster_stays_where_it_was():
    vectors, _ = _clouds(np.random.default_rng(0), [5])
    before = to_unit(np.eye(8)[:2])
    np.testing.assert_array_equal(centroids_of(vectors, np.zeros(5, np.int64), before)[1], before[1])


def test_small_clusters_are_dissolved():
    vectors, _ = _clouds(np.random.default_rng(0), [50, 50, 2], spread=0.05)
    sizes = [
        np.bincount(spherical_kmeans(vectors, 3, np.random.default_rng(1), 3, min_size=n).which).tolist()
        for n in (1, 3)
    ]
    assert sizes[0] == [50, 50, 2]
    assert len(sizes[1]) == 2
    assert sum(sizes[1]) == 102


@settings(max_examples=25)
@given(seed=SEEDS, k=st.integers(1, 5), slack=st.integers(1, 5))
def test_prices_leave_no_cluster_above_its_capacity(seed, k, slack):
    random = np.random.default_rng(seed)
    vectors, centroids = (to_unit(random.normal(size=(n, 6))) for n in (60, k))
    capacity = -(-60 // k) + slack
    prices = balancing_prices(vectors, centroids, capacity)
    assert np.bincount(nearest(vectors, centroids, prices)[0], minlength=k).max() <= capacity
    if k == 1 or np.bincount(nearest(vectors, centroids)[0], minlength=k).max() <= capacity:
        assert not prices.any(), "nobody pays where there is room"


def test_balance_holds_for_vectors_that_the_prices_never_saw():
    random = np.random.default_rng(0)
    vectors, _ = _clouds(random, [900, 60, 40], spread=0.5)
    order = random.permutation(1000)
    half, other = vectors[order[:500]], vectors[order[500:]]
    found = spherical_kmeans(half, 4, np.random.default_rng(0), max_imbalance=1.1)
    assert np.bincount(found.which).max() <= 1.1 * 500 / 4
    sizes = np.bincount(nearest(other, found.centroids, found.prices)[0], minlength=4)
    # A cluster of the other half has 137 of 500 expected: 5 standard errors of a binomial are 50.
    assert sizes.max() <= 137 + 50


@given(seed=SEEDS, n=st.integers(1, 12), k=st.integers(1, 4))
def test_silhouettes_are_those_of_all_pairs(seed, n, k):
    random = np.random.default_rng(seed)
    vectors, which = to_unit(random.normal(size=(n, 3))), random.integers(0, k, n)
    np.testing.assert_allclose(
        silhouettes(vectors, which, k), silhouettes_reference(vectors, which, k), atol=1e-9
    )


def test_the_rand_index_is_one_for_renamed_labels_and_zero_for_chance():
    random = np.random.default_rng(0)
    a, b = random.integers(0, 4, (2, 20_000))
    assert adjusted_rand(contingency(a, (a + 1) % 4, 4, 4)) == 1
    # Of independent labels its mean is 0 and its standard deviation about 1 / n (Hubert and Arabie).
    assert abs(adjusted_rand(contingency(a, b, 4, 4))) < 5e-3
    assert best_jaccard(contingency(a, (a + 1) % 4, 4, 4)).tolist() == [1, 1, 1, 1]

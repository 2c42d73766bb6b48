"""Spherical k-means over integer vectors: the same centroids on every machine, for the same seed.

Dot products, sums and comparisons are exact (embedding.py); a centroid is its cluster's sum, scaled to length
`UNIT` and rounded, from correctly rounded operations alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .embedding import UNIT, nearest, to_unit
from .jit import kernel

MAX_ITERATIONS = 50
MAX_AUCTION_ROUNDS = 100
"""For each cluster: rounds of raising prices until no cluster is too large."""
LEAST_RISE = UNIT
"""Of a price, 0.00025 in cosine: so that two clusters do not pass one vector to and fro."""

Vectors = NDArray[np.int16]
Ints = NDArray[np.int64]
Search = Callable[[Vectors, Vectors, Ints | None], tuple[Ints, Ints]]
"""What `nearest` does."""


class Clustering(NamedTuple):
    """Clusters, the largest first.

    centroids: int16, (k, d); prices: int64, (k,), what `nearest` takes; which: int64, (n,), each vector's.
    """

    centroids: Vectors
    prices: Ints
    which: Ints


def spherical_kmeans(
    vectors: Vectors,
    n_clusters: int,
    random: np.random.Generator,
    n_restarts: int = 1,
    max_imbalance: float | None = None,
    min_size: int = 1,
    search: Search = nearest,
) -> Clustering:
    """The tightest of some runs of k-means: that with the largest sum of dot products.

    Args:
        vectors: int16, (n, d), of length `UNIT`.
        n_clusters: how many; fewer come back where the vectors are fewer, or alike.
        max_imbalance: the largest cluster's size by the mean size. Full clusters get a price that `nearest`
            subtracts, so vectors not seen here are spread likewise. Equal vectors are never parted.
        min_size: a smaller cluster is dissolved, and its vectors join others.
        search: finds the nearest centroids with the answers of `nearest`.
    Source: Dhillon and Modha 2001 (spherical k-means); Arthur and Vassilvitskii 2007 (k-means++, greedy);
        prices as
        in Bertsekas 1988, "The auction algorithm", where clusters ask instead of vectors bidding.
    """
    runs = [
        _run(vectors, n_clusters, random, max_imbalance, search)
        for _ in range(n_restarts if len(vectors) else 0)
    ]
    if not runs:
        empty = np.empty(0, np.int64)
        return Clustering(np.empty((0, vectors.shape[1]), np.int16), empty, empty)
    best = max(runs, key=lambda run: _tightness(vectors, run))
    while len(best.centroids) > 1:
        sizes = np.bincount(best.which, minlength=len(best.centroids))
        if sizes.min() >= min_size:
            break
        best = _assign(vectors, np.delete(best.centroids, sizes.argmin(), axis=0), max_imbalance, search)
    order = np.argsort(-np.bincount(best.which, minlength=len(best.centroids)), kind="stable")
    return Clustering(best.centroids[order], best.prices[order], np.argsort(order)[best.which])


def _run(
    vectors: Vectors,
    n_clusters: int,
    random: np.random.Generator,
    max_imbalance: float | None,
    search: Search,
) -> Clustering:
    """Lloyd's iterations until nothing moves."""
    run = _assign(vectors, _seeds(vectors, n_clusters, random), max_imbalance, search)
    for _ in range(MAX_ITERATIONS):
        moved = _assign(vectors, centroids_of(vectors, run.which, run.centroids), max_imbalance, search)
        settled = np.array_equal(moved.which, run.which)
        run = moved
        if settled:
            break
    return run


def _tightness(vectors: Vectors, run: Clustering) -> int:
    products = np.einsum("nd,nd->n", vectors.astype(np.int64), run.centroids[run.which].astype(np.int64))
    return int(products.sum())


def _seeds(vectors: Vectors, n_seeds: int, random: np.random.Generator) -> Vectors:
    """Greedy k-means++: some candidates are drawn with probability proportional to their distance, 1 -
    cosine, from the seeds before; that one stays that leaves the smallest sum of distances."""
    floats = vectors.astype(np.float32)
    n_candidates = 2 + int(np.log(n_seeds))
    seeds = [int(random.integers(len(vectors)))]
    distances = _distances(floats, seeds)[0]
    while len(seeds) < n_seeds and distances.any():
        ends = np.cumsum(distances)
        drawn = np.searchsorted(ends, random.integers(ends[-1], size=n_candidates), side="right")
        left = np.minimum(distances, _distances(floats, drawn))
        best = int(left.sum(axis=1).argmin())
        seeds.append(int(drawn[best]))
        distances = left[best]
    return vectors[seeds]


def _distances(floats: NDArray[np.float32], chosen: Ints | list[int]) -> Ints:
    """int64, (n_chosen, n): ``UNIT**2`` less the dot products; 0 where rounding alone parts two vectors."""
    distances = UNIT * UNIT - (floats[chosen] @ floats.T).astype(np.int64)
    return np.where(distances < UNIT, 0, distances)


def centroids_of(vectors: Vectors, which: Ints, before: Vectors) -> Vectors:
    """int16, (k, d): the clusters' sums at length `UNIT`; of an empty one, what it was."""
    sums = cluster_sums(vectors, which, len(before))
    return np.where(sums.any(axis=1, keepdims=True), to_unit(sums.astype(np.float64)), before)


def cluster_sums(vectors: Vectors, which: Ints, n_clusters: int) -> Ints:
    """int64, (k, d): the sum of each cluster's vectors."""
    return _cluster_sums(np.ascontiguousarray(vectors), which, n_clusters)


def cluster_sums_reference(vectors: Vectors, which: Ints, n_clusters: int) -> Ints:
    """`cluster_sums` in numpy."""
    sums = np.zeros((n_clusters, vectors.shape[1]), np.int64)
    np.add.at(sums, which, vectors)
    return sums


@kernel
def _cluster_sums(vectors: Vectors, which: Ints, n_clusters: int) -> Ints:
    sums = np.zeros((n_clusters, vectors.shape[1]), np.int64)
    for i in range(len(vectors)):
        for j in range(vectors.shape[1]):
            sums[which[i], j] += vectors[i, j]
    return sums


def _assign(vectors: Vectors, centroids: Vectors, max_imbalance: float | None, search: Search) -> Clustering:
    prices = np.zeros(len(centroids), np.int64)
    if max_imbalance is not None:
        capacity = max(1, int(max_imbalance * len(vectors) / len(centroids)))
        prices = balancing_prices(vectors, centroids, capacity)
    return Clustering(centroids, prices, search(vectors, centroids, prices)[0])


def balancing_prices(vectors: Vectors, centroids: Vectors, capacity: int) -> Ints:
    """int64, (k,): prices under which no cluster is nearest to more than `capacity` vectors.

    In each round the fullest cluster raises its price until those beyond its capacity, the ones that lose
    least, prefer another. Equal vectors move together, so with many of them it may end above the capacity.
    """
    scores = (vectors.astype(np.float32) @ centroids.astype(np.float32).T).astype(np.int64)
    prices = np.zeros(len(centroids), np.int64)
    for _ in range(MAX_AUCTION_ROUNDS * len(centroids) if len(centroids) > 1 else 0):
        which = scores.argmax(axis=1)
        sizes = np.bincount(which, minlength=len(centroids))
        full = int(sizes.argmax())
        if sizes[full] <= capacity:
            break
        members = scores[which == full]
        mine = members[:, full].copy()
        members[:, full] = np.iinfo(np.int64).min
        losses = mine - members.max(axis=1)
        n_over = len(losses) - capacity
        rise = int(np.partition(losses, n_over - 1)[n_over - 1]) + LEAST_RISE
        prices[full] += rise
        scores[:, full] -= rise
    return prices

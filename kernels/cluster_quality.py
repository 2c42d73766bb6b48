"""How good clusters are: how well they are apart, and whether other samples and seeds find them again."""

import numpy as np
from numpy.typing import NDArray

from .embedding import UNIT
from .kmeans import cluster_sums

Ints = NDArray[np.int64]


def silhouettes(vectors: NDArray[np.int16], which: Ints, n_clusters: int) -> NDArray[np.float64]:
    """Each vector's silhouette under the distance 1 - cosine: near 1 amid its cluster, below 0 outside.

    ``(b - a) / max(a, b)``, with the mean distance a to the others of its cluster and b to the nearest other
    cluster; 0 in a cluster of one. A mean distance needs the cluster's sum of vectors alone, so this is
    exact in n * k dot products, without any pair of vectors.

    Args:
        vectors: int16, (n, d), of length `UNIT`; which: int64, (n,), in [0, n_clusters).
    Returns:
        float64, (n,).
    Source: Rousseeuw 1987.
    """
    sizes = np.bincount(which, minlength=n_clusters)
    if (sizes > 0).sum() < 2:
        return np.zeros(len(vectors))
    sums = cluster_sums(vectors, which, n_clusters)
    # Products stay below 2**53: exact in float64 whatever the order of summation.
    cosines = vectors.astype(np.float64) @ sums.T.astype(np.float64) / UNIT**2
    rows = np.arange(len(vectors))
    to_itself = np.einsum("nd,nd->n", *[vectors.astype(np.int64)] * 2) / UNIT**2
    others = np.maximum(sizes[which] - 1, 1)
    inside = 1 - (cosines[rows, which] - to_itself) / others
    distances = np.where(sizes > 0, 1 - cosines / np.maximum(sizes, 1), np.inf)
    distances[rows, which] = np.inf
    outside = distances.min(axis=1)
    scale = np.maximum(np.maximum(inside, outside), 1e-12)
    return np.where(sizes[which] > 1, (outside - inside) / scale, 0.0)


def silhouettes_reference(vectors: NDArray[np.int16], which: Ints, n_clusters: int) -> NDArray[np.float64]:
    """`silhouettes` by all pairs."""
    distances = 1 - vectors.astype(np.float64) @ vectors.T.astype(np.float64) / UNIT**2
    result = np.zeros(len(vectors))
    for i in range(len(vectors)):
        mates = (which == which[i]) & (np.arange(len(vectors)) != i)
        others = [distances[i, which == c].mean() for c in range(n_clusters) if c != which[i] and c in which]
        if mates.any() and others:
            a, b = distances[i, mates].mean(), min(others)
            result[i] = (b - a) / max(a, b, 1e-12)
    return result


def contingency(a: Ints, b: Ints, n_a: int, n_b: int) -> Ints:
    """int64, (n_a, n_b): how many have label i in `a` and j in `b`."""
    return np.bincount(a * n_b + b, minlength=n_a * n_b).reshape(n_a, n_b)


def adjusted_rand(table: Ints) -> float:
    """Agreement of two labellings over pairs: 1 the same, 0 as by chance.

    Args:
        table: int64, (n_a, n_b), as `contingency` gives it.
    Source: Hubert and Arabie 1985, equation 5.

    >>> adjusted_rand(np.array([[2, 0], [0, 2]])), round(adjusted_rand(np.array([[1, 1], [1, 1]])), 9)
    (1.0, -0.5)
    """
    pairs, rows, columns = (
        float((counts * (counts - 1) // 2).sum()) for counts in (table, table.sum(axis=1), table.sum(axis=0))
    )
    n = int(table.sum())
    expected = rows * columns / max(n * (n - 1) / 2, 1)
    highest = (rows + columns) / 2
    return (pairs - expected) / (highest - expected) if highest != expected else 1.0


def best_jaccard(table: Ints) -> NDArray[np.float64]:
    """float64, (n_a,): for each label of `a`, its Jaccard similarity with the label of `b` most like it.

    Source: Hennig 2007, "Cluster-wise assessment of cluster stability": 0.75 and more is a stable cluster.

    >>> best_jaccard(np.array([[3, 1], [0, 4]])).tolist()
    [0.75, 0.8]
    """
    union = table.sum(axis=1, keepdims=True) + table.sum(axis=0) - table
    best: NDArray[np.float64] = (table / np.maximum(union, 1)).max(axis=1)
    return best

"""Documents as short vectors in integers, so that every machine, shard and order of summation agrees.

A vector has length `UNIT` and integer coordinates. By Cauchy and Schwarz every partial sum of a dot product
is an integer of at most ``(UNIT + d**0.5 / 2)**2 < 2**24``, which float32 holds exactly: dot products come
out the same from any BLAS, library or GPU. Their quotient by ``UNIT**2`` is the cosine, with a standard error
of ``6**-0.5 / UNIT`` = 0.0001 from rounding.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .jit import kernel

UNIT = 4000
"""The length of a vector: the largest round number with exact products up to `MAX_DIMENSIONS`."""
MAX_DIMENSIONS = 4096


class Features(NamedTuple):
    """The words, or tokens, of documents, counted.

    offsets: int64, (n_docs + 1,), document d's features are those of offsets[d] to offsets[d + 1].
    ids: int64, (n_features,), ascending within a document, each once.
    counts: int64, (n_features,).
    """

    offsets: NDArray[np.int64]
    ids: NDArray[np.int64]
    counts: NDArray[np.int64]


def count_features(ids: NDArray[np.int64], id_offsets: NDArray[np.int64], n_ids: int) -> Features:
    """How often each id occurs in each document.

    Args:
        ids: int64, (n,), each in [0, n_ids); document d has ids[id_offsets[d]:id_offsets[d + 1]].
        id_offsets: int64, (n_docs + 1,).
    """
    document = np.repeat(np.arange(len(id_offsets) - 1), np.diff(id_offsets))
    cells, counts = np.unique(document * n_ids + ids[id_offsets[0] : id_offsets[-1]], return_counts=True)
    offsets = np.searchsorted(cells, np.arange(len(id_offsets)) * n_ids)
    return Features(offsets.astype(np.int64), cells % n_ids, counts.astype(np.int64))


def project(
    features: Features,
    weights: NDArray[np.float64],
    projection: NDArray[np.float32],
    origin: NDArray[np.float64] | None = None,
) -> NDArray[np.int16]:
    """Each document's weighed sum of its features' rows, less `origin`, scaled to length `UNIT` and rounded.

    Args:
        weights: float64, (n_features,).
        projection: float32, (n_ids, d).
        origin: float64, (d,), 0 unless given.
    Returns:
        int16, (n_docs, d); 0 where a document has no features, or they project to `origin`.
    """
    origin = np.zeros(projection.shape[1]) if origin is None else origin
    return _project(features.offsets, features.ids, weights, projection, origin)


def project_reference(
    features: Features,
    weights: NDArray[np.float64],
    projection: NDArray[np.float32],
    origin: NDArray[np.float64] | None = None,
) -> NDArray[np.int16]:
    """`project` in plain numpy, one feature after another."""
    vectors = np.zeros((len(features.offsets) - 1, projection.shape[1]))
    if origin is not None:
        vectors[np.diff(features.offsets) > 0] -= origin
    document = np.repeat(np.arange(len(vectors)), np.diff(features.offsets))
    for d, row, weight in zip(document, features.ids, weights, strict=True):
        vectors[d] += weight * projection[row].astype(np.float64)
    for vector in vectors:
        square = 0.0
        for value in vector:
            square += value * value
        if square > 0:
            vector *= UNIT / np.sqrt(square)
    return np.rint(vectors).astype(np.int16)


@kernel
def _project(
    offsets: NDArray[np.int64],
    ids: NDArray[np.int64],
    weights: NDArray[np.float64],
    projection: NDArray[np.float32],
    origin: NDArray[np.float64],
) -> NDArray[np.int16]:
    # One document at a time and one sum after another: no sharding changes a bit.
    n_docs, d = len(offsets) - 1, projection.shape[1]
    vectors = np.zeros((n_docs, d), np.int16)
    total = np.empty(d, np.float64)
    for doc in range(n_docs):
        if offsets[doc] == offsets[doc + 1]:
            continue
        for j in range(d):
            total[j] = 0.0 - origin[j]
        for f in range(offsets[doc], offsets[doc + 1]):
            row = projection[ids[f]]
            for j in range(d):
                total[j] += weights[f] * np.float64(row[j])
        square = 0.0
        for j in range(d):
            square += total[j] * total[j]
        if square > 0:
            scale = UNIT / np.sqrt(square)
            for j in range(d):
                vectors[doc, j] = np.int16(np.rint(total[j] * scale))
    return vectors


def to_unit(vectors: NDArray[np.floating]) -> NDArray[np.int16]:
    """Any vectors, (n, d), as integers of length `UNIT`; 0 stays 0.

    >>> to_unit(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[2400, 3200], [0, 0]]
    """
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    return np.rint(vectors * (UNIT / np.where(lengths > 0, lengths, 1))).astype(np.int16)


def nearest(
    vectors: NDArray[np.int16], centroids: NDArray[np.int16], prices: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The centroid of largest dot product less its price for each vector, the first of equals.

    Args:
        vectors: int16, (n, d); centroids: int16, (k, d), k at least 1; all of length `UNIT` or 0.
        prices: int64, (k,), 0 unless given.
    Returns:
        int64, (n,), which centroid; int64, (n,), the dot product with it.
    """
    prices = np.zeros(len(centroids), np.int64) if prices is None else prices
    return _nearest(np.ascontiguousarray(vectors), np.ascontiguousarray(centroids.T, np.float32), prices)


def nearest_reference(
    vectors: NDArray[np.int16], centroids: NDArray[np.int16], prices: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`nearest` in numpy."""
    products = vectors.astype(np.int64) @ centroids.astype(np.int64).T
    which = (products - (0 if prices is None else prices)).argmax(axis=1)
    return which, products[np.arange(len(vectors)), which]


@kernel
def _nearest(
    vectors: NDArray[np.int16], columns: NDArray[np.float32], prices: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    n, (d, k) = len(vectors), columns.shape
    which, best = np.zeros(n, np.int64), np.empty(n, np.int64)
    products = np.empty(k, np.float32)
    for i in range(n):
        products[:] = 0
        for j in range(d):
            value, column = np.float32(vectors[i, j]), columns[j]
            for c in range(k):
                products[c] += value * column[c]
        least = np.int64(0)
        for c in range(k):
            score = np.int64(products[c]) - prices[c]
            if c == 0 or score > least:
                which[i], best[i], least = c, np.int64(products[c]), score
    return which, best


def near_kept(vectors: NDArray[np.int16], least: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each vector in turn, the kept one before it that is nearest; it is kept if none exceeds `least`.

    Args:
        vectors: int16, (n, d), of length `UNIT`, in order of priority.
        least: the dot product above which a vector is a duplicate.
    Returns:
        int64, (n,), the nearest vector kept before, -1 for the first; int64, (n,), the dot product with it,
        -UNIT**2 for the first.
    Cost: n times the number kept.
    """
    return _near_kept(np.ascontiguousarray(vectors), least)


def near_kept_reference(
    vectors: NDArray[np.int16], least: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`near_kept` in plain Python."""
    kept: list[int] = []
    which, best = [], []
    for i, vector in enumerate(vectors.astype(np.int64)):
        products = [(int(vector @ vectors[j].astype(np.int64)), -j) for j in kept]
        product, j = max(products, default=(-UNIT * UNIT, 1))
        which.append(-j)
        best.append(product)
        if product <= least:
            kept.append(i)
    return np.array(which, np.int64), np.array(best, np.int64)


@kernel
def _near_kept(vectors: NDArray[np.int16], least: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    n, d = vectors.shape
    which, best = np.full(n, -1), np.full(n, -UNIT * UNIT)
    kept = np.empty(n, np.int64)
    n_kept = 0
    for i in range(n):
        for k in range(n_kept):
            other = vectors[kept[k]]
            product = np.int32(0)
            for j in range(d):
                product += np.int32(vectors[i, j]) * np.int32(other[j])
            if product > best[i] or which[i] < 0:
                which[i], best[i] = kept[k], product
        if best[i] <= least:
            kept[n_kept] = i
            n_kept += 1
    return which, best

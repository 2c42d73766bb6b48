"""Documents as short vectors: hashed words, weighed and projected, in integers so that every machine agrees.

A document's features are its words' hashes, folded into `n_buckets`; a word that occurs c times counts
``1 + log(c)``. The projection holds one row of d numbers for each bucket, its weight included. A vector is
the sum of its features' rows, scaled to length `UNIT` and rounded: dot products of such vectors are exact
integers, and their quotient by ``UNIT**2`` is the cosine within ``d**0.5 / UNIT``.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .jit import kernel

UNIT = 1 << 14
"""The length of a vector: products of two fit into 32 bits."""


class Features(NamedTuple):
    """The words of documents, counted.

    offsets: int64, (n_docs + 1,), document d's features are those of offsets[d] to offsets[d + 1].
    buckets: int64, (n_features,), ascending within a document, each once.
    counts: int64, (n_features,).
    """

    offsets: NDArray[np.int64]
    buckets: NDArray[np.int64]
    counts: NDArray[np.int64]


def word_features(words: NDArray[np.uint64], word_offsets: NDArray[np.int64], n_buckets: int) -> Features:
    """The documents' words, folded into buckets and counted.

    Args:
        words: uint64, (n_words,), and word_offsets: int64, (n_docs + 1,), as `word_hashes` gives them.
        n_buckets: how many; two words share a bucket with probability 1 / n_buckets.
    """
    buckets = (words[word_offsets[0] : word_offsets[-1]] % np.uint64(n_buckets)).astype(np.int64)
    document = np.repeat(np.arange(len(word_offsets) - 1), np.diff(word_offsets))
    cells, counts = np.unique(document * n_buckets + buckets, return_counts=True)
    offsets = np.searchsorted(cells, np.arange(len(word_offsets)) * n_buckets)
    return Features(offsets.astype(np.int64), cells % n_buckets, counts.astype(np.int64))


def project(features: Features, projection: NDArray[np.float32]) -> NDArray[np.int16]:
    """The documents' vectors.

    Args:
        projection: float32, (n_buckets, d).
    Returns:
        int16, (n_docs, d), of length `UNIT` but for rounding; 0 where all features project to 0.
    """
    return _project(features.offsets, features.buckets, np.log1p(features.counts - 1.0) + 1, projection)


def project_reference(features: Features, projection: NDArray[np.float32]) -> NDArray[np.int16]:
    """`project` in plain numpy, one feature after another."""
    vectors = np.zeros((len(features.offsets) - 1, projection.shape[1]))
    document = np.repeat(np.arange(len(vectors)), np.diff(features.offsets))
    for d, bucket, count in zip(document, features.buckets, features.counts, strict=True):
        vectors[d] += (np.log1p(count - 1.0) + 1) * projection[bucket].astype(np.float64)
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
    buckets: NDArray[np.int64],
    weights: NDArray[np.float64],
    projection: NDArray[np.float32],
) -> NDArray[np.int16]:
    # One document at a time and one sum after another: no sharding changes a bit.
    n_docs, d = len(offsets) - 1, projection.shape[1]
    vectors = np.zeros((n_docs, d), np.int16)
    total = np.empty(d, np.float64)
    for doc in range(n_docs):
        total[:] = 0
        for f in range(offsets[doc], offsets[doc + 1]):
            row = projection[buckets[f]]
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


def nearest(
    vectors: NDArray[np.int16], centroids: NDArray[np.int16]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The centroid of largest dot product for each vector, the first of equals.

    Args:
        vectors: int16, (n_docs, d); centroids: int16, (n_centroids, d); of length `UNIT`.
    Returns:
        int64, (n_docs,), which centroid; int64, (n_docs,), the dot product.
    """
    return _nearest(vectors, centroids)


def nearest_reference(
    vectors: NDArray[np.int16], centroids: NDArray[np.int16]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`nearest` in numpy."""
    products = vectors.astype(np.int64) @ centroids.astype(np.int64).T
    return products.argmax(axis=1), products.max(axis=1)


@kernel
def _nearest(
    vectors: NDArray[np.int16], centroids: NDArray[np.int16]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    which = np.zeros(len(vectors), np.int64)
    best = np.empty(len(vectors), np.int64)
    for i in range(len(vectors)):
        for c in range(len(centroids)):
            product = _dot(vectors[i], centroids[c])
            if c == 0 or product > best[i]:
                which[i], best[i] = c, product
    return which, best


@kernel
def _dot(a: NDArray[np.int16], b: NDArray[np.int16]) -> np.int32:
    product = np.int32(0)
    for j in range(len(a)):
        product += np.int32(a[j]) * np.int32(b[j])
    return product


def near_kept(vectors: NDArray[np.int16], least: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each vector in turn, the kept one before it that is nearest; it is kept if none reaches `least`.

    Args:
        vectors: int16, (n, d), of length `UNIT`, in order of priority.
        least: the dot product above which a vector is a duplicate.
    Returns:
        int64, (n,), the nearest vector kept before, -1 for the first; int64, (n,), the dot product with it,
        -UNIT**2 for the first.
    Cost: n times the number kept.
    """
    return _near_kept(vectors, least)


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
    which = np.full(len(vectors), -1)
    best = np.full(len(vectors), -UNIT * UNIT)
    kept = np.empty(len(vectors), np.int64)
    n_kept = 0
    for i in range(len(vectors)):
        for k in range(n_kept):
            product = _dot(vectors[i], vectors[kept[k]])
            if product > best[i] or which[i] < 0:
                which[i], best[i] = kept[k], product
        if best[i] <= least:
            kept[n_kept] = i
            n_kept += 1
    return which, best

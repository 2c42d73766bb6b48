"""Which documents survive when each one that is like a better one must leave: a greedy walk by priority."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .jit import kernel

BUCKET_DEPTH = 1000
"""How many survivors a bucket remembers. With more of them the walk would no longer take linear time."""


def survivors(
    buckets: NDArray[np.int64],
    sketches: NDArray[np.uint8],
    sets: NDArray[np.uint32],
    set_offsets: NDArray[np.int64],
    set_of: NDArray[np.int64],
    is_settled: NDArray[np.bool_],
    threshold: float,
    min_agreement: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each document the survivor that it is like, in order of priority.

    A document is compared with the survivors so far that share a bucket with it, the best first. It leaves
    for the first whose Jaccard similarity ``|A & B| / |A | B|`` is at least `threshold`; if there is none,
    it survives. So each document that leaves has a survivor at the threshold, and no two survivors that
    share a bucket are at the threshold.

    Args:
        buckets: int64, (n_docs, n_bands), the bucket of each band, numbered from 0; -1 for one of its own.
            Documents stand in order of priority, best first.
        sketches: uint8, (n_docs, n_perm), the low bytes of the signatures. A pair that agrees in fewer than
            `min_agreement` of them is not compared any further.
        sets, set_offsets: distinct shingles, ascending, as `shingle_sets` gives them; uint32 and int64,
            (n_sets + 1,). With no sets at all, the sketches alone decide: similarity is `sketch_similarity`.
        set_of: int64, (n_docs,), each document's set; documents of one set have similarity 1.
        is_settled: bool, (n_docs,), survives whatever it is like.
    Returns:
        survivor: int64, (n_docs,), the document's own number if it survives.
        similarity: float64, (n_docs,), 1.0 for a survivor.
    Cost: linear in the documents. A bucket remembers its first `BUCKET_DEPTH` survivors; a document is not
        compared with later ones of that bucket alone.
    """
    n_buckets = int(buckets.max(initial=-1)) + 1
    return _survivors(
        buckets, n_buckets, sketches, sets, set_offsets, set_of, is_settled, threshold, min_agreement
    )


def survivors_reference(
    buckets: NDArray[np.int64],
    sketches: NDArray[np.uint8],
    sets: NDArray[np.uint32],
    set_offsets: NDArray[np.int64],
    set_of: NDArray[np.int64],
    is_settled: NDArray[np.bool_],
    threshold: float,
    min_agreement: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """`survivors` in plain Python."""
    shingles = [set(sets[a:b].tolist()) for a, b in pairwise(set_offsets)]
    kept: dict[int, list[int]] = {}
    survivor, similarity = np.arange(len(buckets)), np.ones(len(buckets))
    for d, own in enumerate(buckets.tolist()):
        candidates = {c for bucket in own for c in kept.get(bucket, [])} if not is_settled[d] else set()
        for c in sorted(candidates):
            n_agree = int((sketches[c] == sketches[d]).sum())
            if n_agree < min_agreement:
                continue
            if set_of[c] == set_of[d]:
                alike = 1.0
            elif shingles:
                a, b = shingles[set_of[c]], shingles[set_of[d]]
                alike = len(a & b) / len(a | b)
            else:
                alike = sketch_similarity(n_agree, sketches.shape[1])
            if alike >= threshold:
                survivor[d], similarity[d] = c, alike
                break
        if survivor[d] == d:
            for bucket in {bucket for bucket in own if bucket >= 0}:
                if len(kept.setdefault(bucket, [])) < BUCKET_DEPTH:
                    kept[bucket].append(d)
    return survivor, similarity


@kernel
def sketch_similarity(n_agree: int, n_perm: int) -> float:
    """The similarity at which `n_agree` of `n_perm` bytes are expected to agree: 1 in 256 does so by chance.

    Source: Li and König 2010, "b-Bit Minwise Hashing", equation 1 for sparse sets, b = 8.

    >>> sketch_similarity(1, 256), sketch_similarity(100, 100)
    (0.0, 1.0)
    """
    return max(0.0, (n_agree / n_perm - 1 / 256) / (1 - 1 / 256))


@kernel
def _survivors(
    buckets: NDArray[np.int64],
    n_buckets: int,
    sketches: NDArray[np.uint8],
    sets: NDArray[np.uint32],
    set_offsets: NDArray[np.int64],
    set_of: NDArray[np.int64],
    is_settled: NDArray[np.bool_],
    threshold: float,
    min_agreement: int,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    n_docs, n_bands = buckets.shape
    n_perm = sketches.shape[1]
    survivor, similarity = np.arange(n_docs), np.ones(n_docs)
    # A bucket's survivors, first to last, as a linked list; entry d * n_bands + band stands for document d.
    first, last = np.full(n_buckets, -1), np.full(n_buckets, -1)
    n_listed = np.zeros(n_buckets, np.int64)
    following = np.full(n_docs * n_bands, -1)
    seen_by = np.full(n_docs, -1)
    candidates = np.empty(n_docs, np.int64)
    for d in range(n_docs):
        n = 0 if is_settled[d] else _candidates(d, buckets[d], first, following, n_bands, seen_by, candidates)
        for c in candidates[:n]:
            n_agree = _n_agree(sketches[c], sketches[d])
            if n_agree < min_agreement:
                continue
            if set_of[c] == set_of[d]:
                alike = 1.0
            elif len(set_offsets) > 1:
                a = sets[set_offsets[set_of[c]] : set_offsets[set_of[c] + 1]]
                b = sets[set_offsets[set_of[d]] : set_offsets[set_of[d] + 1]]
                alike = _jaccard(a, b, threshold)
            else:
                alike = sketch_similarity(n_agree, n_perm)
            if alike >= threshold:
                survivor[d], similarity[d] = c, alike
                break
        if survivor[d] == d:
            _list(d, buckets[d], first, last, n_listed, following, n_bands)
    return survivor, similarity


@kernel
def _candidates(
    d: int,
    own: NDArray[np.int64],
    first: NDArray[np.int64],
    following: NDArray[np.int64],
    n_bands: int,
    seen_by: NDArray[np.int64],
    candidates: NDArray[np.int64],
) -> int:
    """Writes the survivors that share a bucket with d, ascending, and returns how many there are."""
    n = 0
    for bucket in own:
        entry = first[bucket] if bucket >= 0 else -1
        while entry >= 0:
            c = entry // n_bands
            if seen_by[c] != d:
                seen_by[c] = d
                candidates[n] = c
                n += 1
            entry = following[entry]
    candidates[:n].sort()
    return n


@kernel
def _list(
    d: int,
    own: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    n_listed: NDArray[np.int64],
    following: NDArray[np.int64],
    n_bands: int,
) -> None:
    """Enters the survivor d in its buckets."""
    for band in range(n_bands):
        bucket, entry = own[band], d * n_bands + band
        if bucket < 0 or n_listed[bucket] == BUCKET_DEPTH:
            continue
        if first[bucket] < 0:
            first[bucket] = entry
        elif last[bucket] // n_bands == d:
            continue  # the same bucket in two bands
        else:
            following[last[bucket]] = entry
        last[bucket] = entry
        n_listed[bucket] += 1


@kernel
def _n_agree(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> int:
    n = 0
    for k in range(len(a)):
        n += a[k] == b[k]
    return n


@kernel
def _jaccard(a: NDArray[np.uint32], b: NDArray[np.uint32], threshold: float) -> float:
    """Jaccard similarity of two ascending sets that are not empty; 0 once it cannot reach `threshold`."""
    # With m shingles that only one of the two holds, it is (|a| + |b| - m) / (|a| + |b| + m).
    n_total = len(a) + len(b)
    max_alone = n_total * (1 - threshold) / (1 + threshold) + 1e-9 * n_total
    i, j, n_alone = 0, 0, 0
    while i < len(a) and j < len(b) and n_alone <= max_alone:
        x, y = a[i], b[j]
        i += x <= y
        j += y <= x
        n_alone += x != y
    if n_alone > max_alone:
        return 0.0
    n_alone += len(a) - i + len(b) - j
    n_shared = (n_total - n_alone) // 2
    return n_shared / (n_total - n_shared)

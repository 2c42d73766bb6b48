"""Rows drawn in blocks by their scores, each block unlike the blocks before."""

import numpy as np
from numpy.typing import NDArray

from .jit import inlined, kernel
from .permutation import mix64, mix64_of
from .sampling import checked_scores, gumbel_top_k

Floats = NDArray[np.float64]
Float32s = NDArray[np.float32]
N_LANES = 8  # sums side by side in a product of two rows


def blocked_sequential_sampling(
    scores: Floats,
    features: NDArray[np.floating],
    k: int,
    *,
    key: int,
    n_blocks: int = 16,
    redundancy: float = 1.0,
    beta: float = 1.0,
) -> NDArray[np.int64]:
    """k rows drawn in blocks: each block by its scores, less its likeness to the rows of the blocks before.

    The logit of row j is beta (scores[j] - redundancy · sum over rows i drawn before of 2 cos(i, j) / k), so
    that rows that say the same are not all drawn. O(n_blocks (n d + n log n)).

    Args:
        scores: (n,), finite, learner minus reference loss for one; standardise them, or choose beta by hand.
        features: (n, d), whose cosines say how alike rows are, read as float32; a row of zeros is like none.
        k: 0 <= k <= n.
        key: of the random numbers, 0 <= key < 2**64.
        n_blocks: of the k rows, as even as can be.
        redundancy: >= 0; with 0 this is `gumbel_top_k` in blocks.
        beta: sharpness of the draw, >= 0.
    Returns:
        int64, (k,), as drawn.
    Raises:
        ValueError: names the argument, what was found and what is allowed.
    Source: Evans et al. 2024, "Data curation via joint example selection" (arXiv 2406.17711), algorithm 1,
        where pairs' scores come from a contrastive loss. Language models' losses have no pairs: the cosine
        takes their place, its sum divided by k so that redundancy means the same for every k.

    >>> alike = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> sorted(blocked_sequential_sampling(np.zeros(3), alike, 2, key=2, n_blocks=2, beta=99).tolist())
    [1, 2]
    """
    scores, rows = _checked(scores, features, k, n_blocks, redundancy, beta)
    sizes, drawn = _sizes(k, n_blocks), np.empty(k, np.int64)
    _draw(scores, rows, sizes, _keys(key, sizes.size), redundancy * 2 / max(k, 1), beta, drawn)
    return drawn


def blocked_sequential_sampling_reference(
    scores: Floats,
    features: NDArray[np.floating],
    k: int,
    *,
    key: int,
    n_blocks: int = 16,
    redundancy: float = 1.0,
    beta: float = 1.0,
) -> NDArray[np.int64]:
    """`blocked_sequential_sampling` by matrix products, one `gumbel_top_k` for each block."""
    scores, rows = _checked(scores, features, k, n_blocks, redundancy, beta)
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    directions = rows / np.where(lengths > 0, lengths, 1)
    sizes, drawn, logits = _sizes(k, n_blocks), np.empty(0, np.int64), scores.copy()
    for size, its_key in zip(sizes.tolist(), _keys(key, sizes.size).tolist(), strict=True):
        likeness = directions @ directions[drawn].sum(axis=0) if redundancy else 0.0
        logits = scores - redundancy * 2 / k * likeness
        logits[drawn] = -np.inf
        drawn = np.concatenate([drawn, gumbel_top_k(logits, size, key=its_key, beta=beta)])
    return drawn


def _checked(
    scores: Floats, features: NDArray[np.floating], k: int, n_blocks: int, redundancy: float, beta: float
) -> tuple[Floats, Float32s]:
    scores = checked_scores(scores, k, beta)
    rows = np.ascontiguousarray(features, np.float32)
    if rows.ndim != 2 or len(rows) != scores.size:
        raise ValueError(
            f"features have shape {rows.shape}; for {scores.size} scores ({scores.size}, d) is needed"
        )
    if not (np.isfinite(rows).all() and np.isfinite(scores).all()):
        raise ValueError("a score or a feature is not finite; all must be, and a row without features zeros")
    if n_blocks < 1 or not 0 <= redundancy < np.inf:
        raise ValueError(
            f"n_blocks is {n_blocks} and redundancy {redundancy}; at least 1 and 0 are needed, both finite"
        )
    return scores, rows


def _sizes(k: int, n_blocks: int) -> NDArray[np.int64]:
    """Rows of each block, none of them 0."""
    n_blocks = min(n_blocks, k)
    return np.diff(np.arange(n_blocks + 1) * k // max(n_blocks, 1))


def _keys(key: int, n_blocks: int) -> NDArray[np.uint64]:
    return mix64(np.arange(n_blocks, dtype=np.uint64), key)


@inlined
def _inner(a: Float32s, b: Floats, lanes: Floats) -> float:
    """The sum of products, in one fixed order: lane l sums items l, l + N_LANES, ..."""
    lanes[:] = 0.0
    n_whole = a.size - a.size % N_LANES
    for i in range(0, n_whole, N_LANES):
        for lane in range(N_LANES):
            lanes[lane] += a[i + lane] * b[i + lane]
    for lane in range(a.size - n_whole):
        lanes[lane] += a[n_whole + lane] * b[n_whole + lane]
    found = 0.0
    for lane in range(N_LANES):
        found += lanes[lane]
    return found


@kernel
def _draw(
    scores: Floats,
    rows: Float32s,
    sizes: NDArray[np.int64],
    keys: NDArray[np.uint64],
    cost: float,
    beta: float,
    drawn: NDArray[np.int64],
) -> None:
    n, d = rows.shape
    scale, total, wide, lanes = np.zeros(n), np.zeros(d), np.empty(d), np.empty(N_LANES)
    for j in range(n):
        wide[:] = rows[j]
        length = np.sqrt(_inner(rows[j], wide, lanes))
        scale[j] = 1 / length if length > 0 else 0.0
    is_left, noisy = np.ones(n, np.bool_), np.empty(n)
    begin = 0
    for block in range(sizes.size):
        end = begin + sizes[block]
        for j in range(n):
            if not is_left[j]:
                noisy[j] = np.inf  # the last of all
                continue
            logit = scores[j]
            if cost > 0 and begin > 0:
                logit -= cost * scale[j] * _inner(rows[j], total, lanes)
            u = np.float64(mix64_of(np.uint64(j), keys[block]) >> np.uint64(11)) * 2.0**-53 + 2.0**-54
            noisy[j] = np.log(-np.log(u)) - beta * logit  # the least is drawn first
        order = np.argsort(noisy, kind="mergesort")
        for place in range(begin, end):
            row = order[place - begin]
            drawn[place], is_left[row] = row, False
            for i in range(d):
                total[i] += rows[row, i] * scale[row]
        begin = end

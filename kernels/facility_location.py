"""Few rows that stand for many: the greatest sum of each item's similarity to its nearest chosen row.

f(S) = sum over items j of max(0, max over i in S of similarity[i, j]) is monotone and submodular, so choosing
the row of the greatest gain, k times, gives at least 1 - 1/e of the best f (Nemhauser, Wolsey & Fisher 1978).

Gains are sums of float32 in one fixed order (N_LANES sums side by side). Such a sum never grows when a term
falls, rounding included; so a gain from an earlier step bounds today's, and the lazy algorithms below choose
what the naive one chooses, bit for bit, on every machine.

Reading the matrix is what they cost. A copy in bytes, similarities rounded up, beside the cover rounded down,
bounds today's gain from a quarter of the reading, and few rows are left whose gain has to be known.

Few similar items for each row: facility_location_sparse.py; over a stream: sieve.py.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .instructions import BYTES_AT_ONCE, MAX_EXCESS, byte_excess
from .jit import inlined, kernel
from .permutation import mix64

N_LANES = 32
TOP_BYTE = np.float32(254.9)  # of the greatest similarity: 255 when it is rounded up
ROOM = np.float32(1 + 1 / 64)  # above the greatest similarity so far
SMALLEST_TOP = np.float32(1e-35)  # whose scale is finite
UP, DOWN = np.float32(1 + 2.0**-20), np.float32(1 - 2.0**-20)
"""Factors by which a product is surely not below, or above, the true one."""
Float32s = NDArray[np.float32]


class Selection(NamedTuple):
    """Rows in the order in which they were chosen; fewer than asked for only where budgets end first."""

    indices: NDArray[np.int64]  # (k,)
    gains: Float32s  # (k,), by how much each raised f, its bonus included
    sizes: NDArray[np.int64]  # (k,), items that are most similar to it; of equals the one chosen first


def facility_location(
    similarity: NDArray[np.floating[Any]],
    k: int,
    *,
    groups: NDArray[np.integer[Any]] | None = None,
    budgets: NDArray[np.integer[Any]] | None = None,
    bonus: NDArray[np.floating[Any]] | None = None,
) -> Selection:
    """The greedy choice of k rows; of equal gains the first row.

    Lazily: a row is worked out again only if the last gain that is known of it, and then a bound from the
    copy in bytes, exceed today's best so far. O(n_rows · n_items) once, and then for each choice a few rows
    of n_items; the copy takes a quarter of the matrix's memory.

    Args:
        similarity: (n_rows, n_items), finite; negative counts as 0. Copied unless float32 in C order.
        k: 1 <= k <= n_rows.
        groups: (n_rows,), 0 to n_groups - 1. Of group g at most budgets[g] rows are chosen.
        budgets: (n_groups,), >= 0.
        bonus: (n_rows,), finite and >= 0, added to a row's gain: f plus a modular term.
    Raises:
        ValueError: names the argument, what was found and what is allowed.
    Source: Minoux 1978 (lazy evaluation). Groups are a partition matroid, for which greedy keeps 1/2 of the
        best f.

    >>> points = np.array([0.0, 0.1, 0.2, 5.0, 5.1])
    >>> found = facility_location(6 - abs(points[:, None] - points), 2)
    >>> found.indices.tolist(), found.gains.round(3).tolist(), found.sizes.tolist()
    ([2, 3], [20.0, 9.600000381469727], [3, 2])
    """
    rows, group_of, left, extra = _checked(similarity, k, groups, budgets, bonus, is_finite=True)
    n_rows, n_items = rows.shape
    # Made here and not in a kernel: numpy asks for huge pages.
    coarse = np.zeros((n_rows, -(-n_items // BYTES_AT_ONCE) * BYTES_AT_ONCE), np.uint8)
    bound = np.empty(n_rows)
    scale = _coarsen(rows, extra, coarse, bound)
    if scale < 0:
        check_finite("similarity", rows)
        raise ValueError("similarity has a row whose sum is beyond float32; divide all by a number")
    bound[left[group_of] <= 0] = -1
    indices, gains = np.empty(k, np.int64), np.empty(k, np.float32)
    best = np.full(n_items, -1, np.int64)
    n = _greedy(rows, coarse, scale, bound, group_of, left, extra, indices, gains, best)
    return selection_of(indices[:n], gains[:n], best)


def facility_location_reference(
    similarity: NDArray[np.floating[Any]],
    k: int,
    *,
    groups: NDArray[np.integer[Any]] | None = None,
    budgets: NDArray[np.integer[Any]] | None = None,
    bonus: NDArray[np.floating[Any]] | None = None,
) -> Selection:
    """`facility_location`, working out every row's gain for every choice."""
    rows, group_of, left, extra = _checked(similarity, k, groups, budgets, bonus)
    cover, best = np.zeros(rows.shape[1], np.float32), np.full(rows.shape[1], -1)
    indices, gains = list[int](), list[np.float32]()
    while len(indices) < k:
        allowed = [i for i in range(len(rows)) if i not in indices and left[group_of[i]] > 0]
        if not allowed:
            break
        found = {i: np.float32(gain_reference(rows[i], cover) + extra[i]) for i in allowed}
        chosen = max(allowed, key=lambda i: (found[i], -i))
        best[rows[chosen] > cover] = len(indices)
        np.maximum(cover, rows[chosen], out=cover)
        indices.append(chosen)
        gains.append(found[chosen])
        left[group_of[chosen]] -= 1
    return selection_of(np.array(indices, np.int64), np.array(gains, np.float32), best)


def gain_reference(row: Float32s, cover: Float32s) -> np.float32:
    """By how much a row raises f when items are covered so far: lane l sums items l, l + N_LANES, ..."""
    terms = np.zeros(-(-row.size // N_LANES) * N_LANES, np.float32)
    terms[: row.size] = np.maximum(row - cover, 0)
    total = np.float32(0)
    for lane in terms.reshape(-1, N_LANES).T:
        part = np.float32(0)
        for term in lane:
            part += term
        total += part
    return total


def facility_location_stochastic(
    similarity: NDArray[np.floating[Any]], k: int, *, epsilon: float = 0.01, seed: int = 0
) -> Selection:
    """As `facility_location`, with each choice from a random sample of the rows that are left.

    Samples have n_rows / k · ln(1 / epsilon) rows, so the cost is O(n_rows · n_items · ln(1 / epsilon)),
    whatever k; f is at least 1 - 1/e - epsilon of the best, in expectation.

    Args:
        epsilon: in (0, 1).
        seed: of the samples; the same gives the same choice.
    Source: Mirzasoleiman et al. 2015, "Lazier than lazy greedy" (arXiv 1409.7938), algorithm 1.
    """
    if not 0 < epsilon < 1:
        raise ValueError(f"epsilon is {epsilon}; it must lie in (0, 1)")
    rows, *_ = _checked(similarity, k, None, None, None)
    n_sampled = min(len(rows), math.ceil(len(rows) / k * math.log(1 / epsilon)))
    numbers = mix64(np.arange(k * n_sampled, dtype=np.uint64), seed).reshape(k, n_sampled)
    indices, gains = np.empty(k, np.int64), np.empty(k, np.float32)
    best = np.full(rows.shape[1], -1, np.int64)
    _stochastic(rows, numbers, indices, gains, best)
    return selection_of(indices, gains, best)


def _checked(
    similarity: NDArray[np.floating[Any]],
    k: int,
    groups: NDArray[np.integer[Any]] | None,
    budgets: NDArray[np.integer[Any]] | None,
    bonus: NDArray[np.floating[Any]] | None,
    *,
    is_finite: bool = False,
) -> tuple[Float32s, NDArray[np.int64], NDArray[np.int64], Float32s]:
    """Rows, each row's group, what is left of each group's budget, each row's bonus.

    Args:
        is_finite: the kernel finds out whether all similarities are, on its first pass.
    """
    rows = np.ascontiguousarray(similarity, np.float32)
    limits = checked_limits(rows.shape, k, groups, budgets, bonus)
    if not is_finite:
        check_finite("similarity", rows)
    return rows, *limits


def checked_limits(
    shape: tuple[int, ...],
    k: int,
    groups: NDArray[np.integer[Any]] | None,
    budgets: NDArray[np.integer[Any]] | None,
    bonus: NDArray[np.floating[Any]] | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64], Float32s]:
    """What limits the choice, of a similarity of this shape: `_checked` without the rows."""
    if len(shape) != 2 or not all(shape):
        raise ValueError(f"similarity has shape {shape}; it must be (n_rows, n_items), neither of them 0")
    n_rows = shape[0]
    if not 1 <= k <= n_rows:
        raise ValueError(f"k is {k}; of {n_rows} rows 1 to {n_rows} can be chosen")
    if (groups is None) != (budgets is None):
        raise ValueError("groups and budgets come together; one of the two is missing")
    group_of, left = np.zeros(n_rows, np.int64), np.array([k])
    if groups is not None and budgets is not None:
        group_of, left = np.asarray(groups, np.int64), np.array(budgets, np.int64)
        if group_of.shape != (n_rows,) or group_of.min() < 0 or group_of.max() >= left.size:
            raise ValueError(
                f"groups have shape {group_of.shape} and run from {group_of.min()} to {group_of.max()}; one "
                f"of 0 to {left.size - 1} is needed for each of {n_rows} rows"
            )
    extra = np.zeros(n_rows, np.float32)
    if bonus is not None:
        extra = np.ascontiguousarray(bonus, np.float32)
        if extra.shape != (n_rows,) or not (extra >= 0).all():
            raise ValueError(
                f"bonus has shape {extra.shape} and minimum {extra.min()}; each row needs one >= 0"
            )
        check_finite("bonus", extra)
    return group_of, left, extra


def gains_of(rows: Float32s, cover: Float32s) -> Float32s:
    """By how much each of some rows raises f when items are covered so far: float32, (n_rows,)."""
    found = np.empty(len(rows), np.float32)
    _gains(rows, cover, found)
    return found


def check_finite(name: str, values: Float32s) -> None:
    if not np.isfinite(values.sum(dtype=np.float64)):
        at = np.argwhere(~np.isfinite(values))[0].tolist()
        raise ValueError(f"{name}{at} is {values[tuple(at)]}; all values must be finite")


def selection_of(indices: NDArray[np.int64], gains: Float32s, best: NDArray[np.int64]) -> Selection:
    """Rows with the items whose best row, by its place among them, they are; -1: nobody's."""
    return Selection(indices, gains, np.bincount(best[best >= 0], minlength=indices.size).astype(np.int64))


@inlined
def rounding(n_items: int) -> float:
    """Twice the relative error that a sum of float32 in the fixed order can have."""
    return (n_items // N_LANES + N_LANES + 8) * 2.0**-23


@inlined
def _gain(row: Float32s, cover: Float32s, lanes: Float32s) -> np.float32:
    lanes[:] = np.float32(0)
    n_whole = row.size - row.size % N_LANES
    for j in range(0, n_whole, N_LANES):
        for lane in range(N_LANES):
            more = row[j + lane] - cover[j + lane]
            lanes[lane] += more if more > 0 else np.float32(0)
    for lane in range(row.size - n_whole):
        more = row[n_whole + lane] - cover[n_whole + lane]
        lanes[lane] += more if more > 0 else np.float32(0)
    total = np.float32(0)
    for lane in range(N_LANES):
        total += lanes[lane]
    return total


@inlined
def _first_gain(row: Float32s, lanes: Float32s) -> np.float32:
    """While nothing is covered; infinite or NaN if a similarity is, or is above half of float32's range."""
    lanes[:] = np.float32(0)
    n_whole = row.size - row.size % N_LANES
    for j in range(0, n_whole, N_LANES):
        for lane in range(N_LANES):
            lanes[lane] += (row[j + lane] + abs(row[j + lane])) * np.float32(0.5)
    for lane in range(row.size - n_whole):
        lanes[lane] += (row[n_whole + lane] + abs(row[n_whole + lane])) * np.float32(0.5)
    total = np.float32(0)
    for lane in range(N_LANES):
        total += lanes[lane]
    return total


@inlined
def _cover(row: Float32s, cover: Float32s, best: NDArray[np.int64], number: int) -> None:
    for j in range(row.size):
        if row[j] > cover[j]:
            cover[j] = row[j]
            best[j] = number


@kernel
def _gains(rows: Float32s, cover: Float32s, found: Float32s) -> None:
    lanes = np.empty(N_LANES, np.float32)
    for i in range(rows.shape[0]):
        found[i] = _gain(rows[i], cover, lanes)


@inlined
def _coarsened(row: Float32s, scale: np.float32, coarse: NDArray[np.uint8]) -> None:
    for j in range(row.size):
        coarse[j] = np.uint8(np.ceil(max(row[j], np.float32(0)) * scale * UP))


@inlined
def _coarse_gain(row: NDArray[np.uint8], cover: NDArray[np.uint8]) -> int:
    total, ours, theirs = 0, np.int64(row.ctypes.data), np.int64(cover.ctypes.data)
    for at in range(0, row.size, MAX_EXCESS):
        total += byte_excess(ours + at, theirs + at, min(MAX_EXCESS, row.size - at))
    return total


@inlined
def _is_ahead(bound: float, row: int, gain: float, top: int) -> bool:
    """Whether a row of this bound may be chosen before the top one: of equals the first is."""
    return bound > gain or (bound == gain and row < top)


@kernel
def _coarsen(rows: Float32s, extra: Float32s, coarse: NDArray[np.uint8], bound: NDArray[np.float64]) -> float:
    """Fill `coarse` and each row's gain of the first choice; the scale, or -1 if a value may not be finite.

    The greatest value is not known before the last row: a greater one than so far begins anew, with room.
    """
    lanes = np.empty(N_LANES, np.float32)
    top, scale, i = np.float32(0), np.float32(1), 0
    while i < rows.shape[0]:
        gain = _first_gain(rows[i], lanes)
        if not np.isfinite(gain):
            return -1.0
        greatest = np.float32(0)
        for value in rows[i]:
            greatest = max(greatest, value)
        if greatest > top:
            top = max(greatest * ROOM, SMALLEST_TOP)
            scale, i = TOP_BYTE / top, 0
            continue
        _coarsened(rows[i], scale, coarse[i])
        bound[i] = gain + extra[i]
        i += 1
    return float(scale)


@kernel
def _greedy(
    rows: Float32s,
    coarse: NDArray[np.uint8],
    scale: float,
    bound: NDArray[np.float64],
    group_of: NDArray[np.int64],
    left: NDArray[np.int64],
    extra: Float32s,
    indices: NDArray[np.int64],
    gains: Float32s,
    best: NDArray[np.int64],
) -> int:
    """Rows chosen. A bound below 0 is of a row that cannot be."""
    n_rows, n_items = rows.shape
    cover, lanes = np.zeros(n_items, np.float32), np.empty(N_LANES, np.float32)
    coarse_cover = np.zeros(coarse.shape[1], np.uint8)
    above = 1 + rounding(n_items)
    rival = int(np.argmax(bound))
    for step in range(indices.size):
        top = rival if bound[rival] >= 0 else int(np.argmax(bound))
        if bound[top] < 0:
            return step
        gain = np.float64(_gain(rows[top], cover, lanes) + extra[top])
        bound[top], rival = gain, top
        for i in range(n_rows):
            if not _is_ahead(bound[i], i, gain, top):
                continue
            most = _coarse_gain(coarse[i], coarse_cover) / scale
            bound[i] = min(bound[i], (most + extra[i]) * above)
            if not _is_ahead(bound[i], i, gain, top):
                continue
            bound[i] = _gain(rows[i], cover, lanes) + extra[i]
            if _is_ahead(bound[i], i, gain, top):
                top, gain, rival = i, bound[i], top
            elif rival == top or bound[i] > bound[rival]:
                rival = i
        for j in range(n_items):
            if rows[top, j] > cover[j]:
                cover[j], best[j] = rows[top, j], step
                coarse_cover[j] = np.uint8(cover[j] * scale * DOWN)
        indices[step], gains[step] = top, gain
        bound[top] = -1
        left[group_of[top]] -= 1
        if left[group_of[top]] == 0:
            bound[group_of == group_of[top]] = -1
    return indices.size


@kernel
def _stochastic(
    rows: Float32s,
    numbers: NDArray[np.uint64],
    indices: NDArray[np.int64],
    gains: Float32s,
    best: NDArray[np.int64],
) -> None:
    n_rows, n_items = rows.shape
    cover, lanes = np.zeros(n_items, np.float32), np.empty(N_LANES, np.float32)
    left = np.arange(n_rows)
    for step in range(indices.size):
        n_left = n_rows - step
        chosen, chosen_gain = -1, np.float32(-1)
        # The sample goes to the front of `left`, one swap for each of its rows.
        for i in range(min(numbers.shape[1], n_left)):
            j = i + np.int64(numbers[step, i] % np.uint64(n_left - i))
            left[i], left[j] = left[j], left[i]
            found = _gain(rows[left[i]], cover, lanes)
            if found > chosen_gain or (found == chosen_gain and left[i] < left[chosen]):
                chosen, chosen_gain = i, found
        row = left[chosen]
        _cover(rows[row], cover, best, step)
        indices[step], gains[step] = row, chosen_gain
        left[chosen] = left[n_left - 1]

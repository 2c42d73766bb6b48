"""Pieces of documents into rows of a fixed length, as few as can be had in one pass."""

from bisect import bisect_left, insort

import numpy as np
from numpy.typing import NDArray

from .instructions import first_bit
from .jit import kernel

BITS, LEVELS = 64, 4  # of a word; of words over words


def best_fit_decreasing(
    lengths: NDArray[np.int64], capacity: int, *, compiled: bool = True
) -> tuple[NDArray[np.int64], int]:
    """Which row each piece goes to: longest pieces first, each to the row with the least room that takes it.

    Of equal pieces the first is placed first; of rows with equal room the one that came to it last is taken;
    a row is opened when none takes the piece. O(n log n).

    Args:
        lengths: int64, (n_pieces,), tokens of each piece, 1 to capacity.
        capacity: tokens of a row, >= 1.
        compiled: False for `best_fit_decreasing_reference`, which needs no compiled code.
    Returns:
        int64, (n_pieces,), rows 0, 1, ... in the order of opening; and the number of rows: at most
        11/9 of the fewest possible, plus 6/9.
    Raises:
        ValueError: a length is out of range.
    Source: Ding et al. 2024, "Fewer truncations improve language modeling" (arXiv 2404.10830): best-fit
        decreasing with a tree over the room that is left, here of 64 branches; the bound is Dosa's (2007) for
        first-fit decreasing, which best-fit decreasing shares.

    >>> best_fit_decreasing(np.array([3, 5, 2, 8, 5]), 8)
    (array([2, 1, 1, 0, 2]), 3)
    """
    if not compiled:
        return best_fit_decreasing_reference(lengths, capacity)
    lengths = _checked(lengths, capacity)
    rows = np.empty(lengths.size, np.int64)
    # numpy sorts 16 bits by radix, ten times faster than 64.
    room = capacity - lengths
    order = np.argsort(room.astype(np.uint16) if capacity < 2**16 else room, kind="stable")
    return rows, int(_best_fit(lengths, order, capacity, rows))


def best_fit_decreasing_reference(lengths: NDArray[np.int64], capacity: int) -> tuple[NDArray[np.int64], int]:
    """`best_fit_decreasing` with a sorted list of the rooms that are left and a stack of rows for each."""
    lengths = _checked(lengths, capacity)
    rows, n_rows = [0] * lengths.size, 0
    rooms: list[int] = []
    with_room: dict[int, list[int]] = {}
    sizes = lengths.tolist()
    for piece in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        k = bisect_left(rooms, sizes[piece])
        if k < len(rooms):
            room = rooms[k]
            row = with_room[room].pop()
            if not with_room[room]:
                del rooms[k]
        else:
            room, row, n_rows = capacity, n_rows, n_rows + 1
        rows[piece] = row
        left = room - sizes[piece]
        if left:
            stack = with_room.setdefault(left, [])
            if not stack:
                insort(rooms, left)
            stack.append(row)
    return np.array(rows, np.int64), n_rows


def _checked(lengths: NDArray[np.int64], capacity: int) -> NDArray[np.int64]:
    lengths = np.ascontiguousarray(lengths, np.int64)
    if lengths.size and (lengths.min() < 1 or lengths.max() > capacity):
        raise ValueError(
            f"lengths run from {lengths.min()} to {lengths.max()}; "
            f"a row takes pieces of 1 to {capacity} tokens"
        )
    return lengths


@kernel
def _best_fit(
    lengths: NDArray[np.int64], order: NDArray[np.int64], capacity: int, rows: NDArray[np.int64]
) -> int:
    # Which rooms some row has: bits[0] has one for each room, every other level one for each word of the one
    # below it that is not 0. Three levels are enough for 2**18 tokens, four for any row.
    n_words = capacity // BITS + 1
    firsts = np.zeros(LEVELS + 1, np.int64)  # of each level, in `bits`
    for level in range(LEVELS):
        firsts[level + 1] = firsts[level] + n_words
        n_words = (n_words - 1) // BITS + 1
    bits = np.zeros(firsts[LEVELS], np.uint64)
    top = np.full(capacity + 1, -1, np.int64)  # of the stack of rows with that room
    below = np.empty(lengths.shape[0], np.int64)  # the row under this one in its stack
    n_rows = 0
    for piece in order:
        length = lengths[piece]
        room, row = _least_room(bits, firsts, length), n_rows
        if room == 0:
            room = capacity
            n_rows += 1
        else:
            row = top[room]
            top[room] = below[row]
            if top[room] == -1:
                _unmark(bits, firsts, room)
        rows[piece] = row
        left = room - length
        if left > 0:
            if top[left] == -1:
                _mark(bits, firsts, left)
            below[row] = top[left]
            top[left] = row
    return n_rows


@kernel
def _least_room(bits: NDArray[np.uint64], firsts: NDArray[np.int64], length: int) -> int:
    """The least room >= length that a row has; 0 for none."""
    at = length
    for level in range(LEVELS):
        word = firsts[level] + at // BITS
        if word >= firsts[level + 1]:
            return 0
        found = bits[word] >> np.uint64(at % BITS) << np.uint64(at % BITS)
        if found != 0:
            room = at // BITS * BITS + int(first_bit(found))
            for lower in range(level - 1, -1, -1):
                room = room * BITS + int(first_bit(bits[firsts[lower] + room]))
            return room
        at = at // BITS + 1
    return 0


@kernel
def _mark(bits: NDArray[np.uint64], firsts: NDArray[np.int64], room: int) -> None:
    at = room
    for level in range(LEVELS):
        word = firsts[level] + at // BITS
        was_empty = bits[word] == 0
        bits[word] |= np.uint64(1) << np.uint64(at % BITS)
        if not was_empty:
            return
        at //= BITS


@kernel
def _unmark(bits: NDArray[np.uint64], firsts: NDArray[np.int64], room: int) -> None:
    at = room
    for level in range(LEVELS):
        word = firsts[level] + at // BITS
        bits[word] ^= np.uint64(1) << np.uint64(at % BITS)
        if bits[word] != 0:
            return
        at //= BITS

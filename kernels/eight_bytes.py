"""Searches that look at eight bytes at a time, as one number: for kernels that skip over most of a text."""

import numpy as np
from numpy.typing import NDArray

from .jit import inlined
from .short_hash import load8

_ONES = np.uint64(0x0101010101010101)
_HIGH = np.uint64(0x8080808080808080)
_CASE, _FROM_A, _BEYOND_Z = _ONES * np.uint64(0x20), _ONES * np.uint64(0x1F), _ONES * np.uint64(0x05)
_PLACES = np.uint64(0x0001020304050607)


@inlined
def first_below(data: NDArray[np.uint8], i: int, end: int, bound: int) -> int:
    """The first byte of data[i:end] that is below `bound` (at most 0x80) or not ASCII; `end` if there is
    none."""
    marks = np.uint64(0)
    limit = np.uint64(bound) * _ONES
    while marks == 0 and i < end and i + 8 <= len(data):
        word = load8(data, i)
        # A byte below the bound borrows; what that does to bytes behind it is not looked at.
        marks = ((word - limit) | word) & _HIGH
        i += 8
    if marks:
        return min(i - 8 + _first_mark(marks), end)
    while i < end and bound <= data[i] < 0x80:
        i += 1
    return min(i, end)


@inlined
def first_equal(data: NDArray[np.uint8], i: int, end: int, byte: int) -> int:
    """The first byte of data[i:end] that is `byte`; `end` if there is none."""
    marks = np.uint64(0)
    pattern = np.uint64(byte) * _ONES
    while marks == 0 and i < end and i + 8 <= len(data):
        word = load8(data, i) ^ pattern
        marks = (word - _ONES) & ~word & _HIGH
        i += 8
    if marks:
        return min(i - 8 + _first_mark(marks), end)
    while i < end and data[i] != byte:
        i += 1
    return min(i, end)


@inlined
def first_beyond_ascii(data: NDArray[np.uint8], i: int, end: int) -> int:
    """The first byte of data[i:end] that is not ASCII; `end` if there is none."""
    return first_below(data, i, end, 0)


@inlined
def first_no_letter(data: NDArray[np.uint8], i: int, end: int) -> int:
    """The first byte of data[i:end] that is no ASCII letter; `end` if there is none."""
    marks = np.uint64(0)
    while marks == 0 and i < end and i + 8 <= len(data):
        word = load8(data, i)
        lower = word | _CASE
        # The highest bit says: at least "a", and beyond "z"; what is not ASCII carries behind itself only.
        is_letter = (lower + _FROM_A) & ~(lower + _BEYOND_Z)
        marks = (~is_letter | word) & _HIGH
        i += 8
    if marks:
        return min(i - 8 + _first_mark(marks), end)
    while i < end and 0x61 <= data[i] | 0x20 <= 0x7A:
        i += 1
    return min(i, end)


@inlined
def _first_mark(marks: np.uint64) -> int:
    """Which of eight bytes is the first with its highest bit set; one has."""
    lowest = (marks & (~marks + np.uint64(1))) >> np.uint64(7)
    return np.int64((lowest * _PLACES) >> np.uint64(56))  # type: ignore[return-value]

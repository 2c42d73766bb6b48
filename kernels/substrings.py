"""Repeated substrings, found without an index of the whole text.

A *window* is `length` bytes in a row of one document. Two equal windows hold the same k-grams, so the
smallest hash among a window's k-grams, its *key*, is the same in both: windows that are equal meet when text
is brought together by key, and only there they have to be compared, byte by byte. Neighbouring windows mostly
share their smallest k-gram, so a *run* of windows with one key is sent as one piece of text.

For "byte" read "token" where `data` holds tokens, as uint64: a window is so many of them, compared one by
one.
"""

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .hashing import avalanche, avalanche_reference
from .jit import kernel, read_only

_B = np.uint64(0x9E3779B97F4A7C15)  # base of the polynomial hashes; odd, so no byte is ever shifted out
_MASK = (1 << 64) - 1

Text = NDArray[np.uint8] | NDArray[np.uint64]

ALONE, FIRST, AGAIN = 0, 1, 2
"""A window that occurs once; that is the first of several; that occurred before."""


class WindowRuns(NamedTuple):
    """Maximal runs of consecutive windows of one document that have the same key, in the order of the text.

    keys: uint64, (n_runs,).
    documents: int64, (n_runs,).
    starts: int64, (n_runs,), the byte of `data` at which a run's first window begins.
    n_windows: int64, (n_runs,), the windows begin at consecutive bytes.
    repeats: bool, (n_runs,), whether the key's k-gram stands in the run's text more than once. Only then two
        windows of the run itself can be equal.
    """

    keys: NDArray[np.uint64]
    documents: NDArray[np.int64]
    starts: NDArray[np.int64]
    n_windows: NDArray[np.int64]
    repeats: NDArray[np.bool_]


def window_runs(data: Text, offsets: NDArray[np.int64], length: int, k: int) -> WindowRuns:
    """The runs of windows of all documents.

    A run has ``(length - k + 2) / 2`` windows on average in text without repetition (Schleimer et al. 2003,
    section 3.1, density of winnowing).

    Args:
        data: uint8 or uint64, (n_bytes,).
        offsets: int64, (n_docs + 1,), document d is data[offsets[d]:offsets[d + 1]].
        length: bytes of a window.
        k: bytes of a k-gram, 1 to `length`.
    Raises:
        ValueError: k is not in 1..length.
    Source: Schleimer, Wilkerson and Aiken 2003, "Winnowing: Local Algorithms for Document Fingerprinting". It
        departs in making the smallest hash a partition of the windows instead of a fingerprint: nothing is
        sampled. Sliding minima after van Herk 1992.
    Cost: linear in the bytes; 16 bytes of memory for each of the longest document.
    """
    if not 1 <= k <= length:
        raise ValueError(f"k is {k} and a window has {length} bytes: k must lie in 1..{length}")
    data, offsets = read_only(data, offsets)
    return WindowRuns(*_window_runs(data, offsets, length, k))


def window_runs_reference(data: Text, offsets: NDArray[np.int64], length: int, k: int) -> WindowRuns:
    """`window_runs` in plain Python."""
    runs = []
    for d, (begin, end) in enumerate(pairwise(offsets.tolist())):
        text = data[begin:end].tolist()
        hashes = [_kgram_hash_reference(text[i : i + k]) for i in range(len(text) - k + 1)]
        starts = range(len(text) - length + 1)
        minima = [min(hashes[s : s + length - k + 1]) for s in starts]
        for key, windows in groupby(starts, minima.__getitem__):
            first, *others = windows
            places = hashes[first : first + len(others) + length - k + 1].count(key)
            runs.append((key, d, begin + first, len(others) + 1, places > 1))
    keys, documents, firsts, counts, repeats = zip(*runs, strict=True) if runs else [()] * 5
    return WindowRuns(
        np.array(keys, np.uint64),
        np.array(documents, np.int64),
        np.array(firsts, np.int64),
        np.array(counts, np.int64),
        np.array(repeats, np.bool_),
    )


def _kgram_hash_reference(kgram: Sequence[int]) -> int:
    h = 0
    for byte in kgram:
        h = (h * int(_B) + byte) & _MASK
    return avalanche_reference(h)


@kernel
def _window_runs(
    data: Text, offsets: NDArray[np.int64], length: int, k: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    longest = 0
    for d in range(len(offsets) - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    hashes = np.empty(longest, np.uint64)
    minima = np.empty(longest, np.uint64)
    room = 2 * (offsets[-1] - offsets[0]) // (length - k + 2) + len(offsets)
    keys = np.empty(room, np.uint64)
    documents = np.empty(room, np.int64)
    starts = np.empty(room, np.int64)
    n_windows = np.empty(room, np.int64)
    repeats = np.empty(room, np.bool_)
    n = 0
    for d in range(len(offsets) - 1):
        text = data[offsets[d] : offsets[d + 1]]
        if len(text) < length:
            continue
        _kgram_hashes(text, k, hashes)
        _sliding_minima(hashes[: len(text) - k + 1], length - k + 1, minima)
        start, stop = 0, 0
        n_all = len(text) - length + 1
        while start < n_all:
            while stop < n_all and minima[stop] == minima[start]:
                stop += 1
            if n == len(keys):
                keys, documents, starts = _doubled(keys), _doubled(documents), _doubled(starts)
                n_windows, repeats = _doubled(n_windows), _doubled(repeats)
            places = 0
            for i in range(start, stop + length - k):
                places += hashes[i] == minima[start]
            keys[n], documents[n], starts[n] = minima[start], d, offsets[d] + start
            n_windows[n], repeats[n] = stop - start, places > 1
            n += 1
            start = stop
    return keys[:n], documents[:n], starts[:n], n_windows[:n], repeats[:n]


@kernel
def _doubled(values: np.ndarray) -> np.ndarray:
    larger = np.empty(2 * len(values) + 1, values.dtype)
    larger[: len(values)] = values
    return larger


@kernel
def _kgram_hashes(text: Text, k: int, hashes: NDArray[np.uint64]) -> None:
    leaving = np.uint64(1)  # _B ** k, the weight of the byte that leaves the window
    for _ in range(k):
        leaving *= _B
    h = np.uint64(0)
    for i in range(k):
        h = h * _B + np.uint64(text[i])
    hashes[0] = h
    for i in range(k, len(text)):
        h = h * _B + np.uint64(text[i]) - np.uint64(text[i - k]) * leaving
        hashes[i - k + 1] = h
    for i in range(len(text) - k + 1):
        hashes[i] = avalanche(hashes[i])


@kernel
def _sliding_minima(values: NDArray[np.uint64], width: int, minima: NDArray[np.uint64]) -> None:
    """minima[i] = min(values[i:i + width]): the rest of one block of `width`, and the begin of the next."""
    n = len(values)
    for block in range(0, n, width):
        stop = min(block + width, n)
        minima[stop - 1] = values[stop - 1]
        for i in range(stop - 2, block - 1, -1):
            minima[i] = min(values[i], minima[i + 1])
    for block in range(width, n, width):
        begin = values[block]
        for i in range(block, min(block + width - 1, n)):
            begin = min(begin, values[i])
            minima[i - width + 1] = min(minima[i - width + 1], begin)


def repeated_windows(
    data: Text,
    keys: NDArray[np.uint64],
    starts: NDArray[np.int64],
    n_windows: NDArray[np.int64],
    length: int,
) -> NDArray[np.uint8]:
    """Which windows occurred before, in this order of the runs.

    Args:
        data: uint8 or uint64, (n_bytes,).
        keys: uint64, (n_runs,), such that equal windows are in runs of equal keys; runs of a key stand next
            to each other.
        starts, n_windows: int64, (n_runs,), run r's windows are data[s:s + length] for the n_windows[r] bytes
            s from starts[r] on.
        length: bytes of a window.
    Returns:
        uint8, (sum of n_windows,), `ALONE`, `FIRST` or `AGAIN` for each window. Windows are compared byte by
        byte: hashes only say where to look.
    Cost: linear in the windows; memory for the different windows of one key at a time.
    """
    data, keys, starts, n_windows = read_only(data, keys, starts, n_windows)
    return _repeated_windows(data, keys, starts, n_windows, length)


def repeated_windows_reference(
    data: Text,
    keys: NDArray[np.uint64],
    starts: NDArray[np.int64],
    n_windows: NDArray[np.int64],
    length: int,
) -> NDArray[np.uint8]:
    """`repeated_windows` with a dictionary of all windows."""
    text = tuple(data.tolist())
    windows = [text[s + i : s + i + length] for s, n in zip(starts, n_windows, strict=True) for i in range(n)]
    first: dict[tuple[int, ...], int] = {}
    occurs = np.full(len(windows), ALONE, np.uint8)
    for i, window in enumerate(windows):
        if window in first:
            occurs[i], occurs[first[window]] = AGAIN, FIRST
        else:
            first[window] = i
    return occurs


@kernel
def _repeated_windows(
    data: Text,
    keys: NDArray[np.uint64],
    starts: NDArray[np.int64],
    n_windows: NDArray[np.int64],
    length: int,
) -> NDArray[np.uint8]:
    occurs = np.zeros(n_windows.sum(), np.uint8)
    leaving = np.uint64(1)
    for _ in range(length):
        leaving *= _B
    # An open-addressed table of the windows of one key: the byte where the first of its kind begins, its
    # hash, and its number among all windows.
    places, hashes, numbers = np.full(64, -1), np.empty(64, np.uint64), np.empty(64, np.int64)
    bits, n_entries = 6, 0
    number = 0
    for r in range(len(keys)):
        if r and keys[r] != keys[r - 1]:
            bits, n_entries = 6, 0
            places[:64] = -1
        h = np.uint64(0)
        before = -1  # where the first of the window before this one begins
        for s in range(starts[r], starts[r] + n_windows[r]):
            if s == starts[r]:
                for i in range(s, s + length):
                    h = h * _B + np.uint64(data[i])
            else:
                h = h * _B + np.uint64(data[s + length - 1]) - np.uint64(data[s - 1]) * leaving
            if 2 * n_entries >= 1 << bits:
                places, hashes, numbers = _grown(places, hashes, numbers, bits)
                bits += 1
            mask = (1 << bits) - 1
            slot = np.int64(avalanche(h) >> np.uint64(64 - bits))
            while places[slot] >= 0:
                if hashes[slot] == h:
                    p = places[slot]
                    # If it goes on where the window before it was found, all bytes but the last are known.
                    known = length - 1 if before >= 0 and p == before + 1 else 0
                    if _equal(data, p, s, known, length):
                        break
                slot = (slot + 1) & mask
            before = places[slot]
            if before < 0:
                places[slot], hashes[slot], numbers[slot] = s, h, number
                n_entries += 1
            else:
                occurs[number], occurs[numbers[slot]] = AGAIN, FIRST
            number += 1
    return occurs


@kernel
def _equal(data: Text, a: int, b: int, known: int, length: int) -> bool:
    # A sum instead of an early return: one vector instruction for each 32 bytes, and hashes agree already.
    n_different = 0
    for i in range(known, length):
        n_different += data[a + i] != data[b + i]
    return n_different == 0


@kernel
def _grown(
    places: NDArray[np.int64], hashes: NDArray[np.uint64], numbers: NDArray[np.int64], bits: int
) -> tuple[NDArray[np.int64], NDArray[np.uint64], NDArray[np.int64]]:
    """The table of 2**bits slots with twice as many, in the same arrays if they have room."""
    n = 1 << bits
    old_places, old_hashes, old_numbers = places[:n].copy(), hashes[:n].copy(), numbers[:n].copy()
    if len(places) < 2 * n:
        places = np.empty(2 * n, np.int64)
        hashes, numbers = np.empty(2 * n, np.uint64), np.empty(2 * n, np.int64)
    places[: 2 * n] = -1
    for i in range(n):
        if old_places[i] >= 0:
            slot = np.int64(avalanche(old_hashes[i]) >> np.uint64(63 - bits))
            while places[slot] >= 0:
                slot = (slot + 1) & (2 * n - 1)
            places[slot], hashes[slot], numbers[slot] = old_places[i], old_hashes[i], old_numbers[i]
    return places, hashes, numbers

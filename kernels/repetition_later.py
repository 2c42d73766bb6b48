"""datatrove's counting rule for repeated n-grams (`repetition`, `later`).

Its walks take n-grams for the same if their characters without spaces are, wherever words end in them: an
n-gram may come again though no shorter one at its place does. So the document's words are joined, and places
are left out by windows of bytes, which know no words: where a window does not come again, no n-gram does that
holds it. N-grams at places that are left have one hash if their first sixteen bytes, their last eight and
their length are the same; the rest is compared byte by byte.
"""

import numpy as np
from numpy.typing import NDArray

from .frequent_ngrams import count, empty_cells, longer, most_frequent, pairs
from .grouping import n_slots_for
from .jit import uncounted
from .short_hash import copy, load8, store8

_K1, _K2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_K3, _K4 = np.uint64(0x165667B19E3779F9), np.uint64(0x27D4EB2F165667C5)
_UNLIMITED = np.int32(0x7FFFFFFF)
_LONGER_WINDOWS = (8, 16)
"""Bytes more than the first window has; one yet longer would leave out little more."""
_FRONT = 8
"""Bytes before the first word, so that eight can be read in front of any byte behind it."""
MARGIN = _FRONT + 32
"""Bytes that the joined words need beside their own: as many as the longest window are read from any on."""


@uncounted
def repetition_later(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    n_bytes: NDArray[np.int32],
    n_characters: NDArray[np.int32],
    offsets: NDArray[np.int64],
    characters: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    places: NDArray[np.int32],
    cells: NDArray[np.uint8],
    top_keys: NDArray[np.uint64],
    top_places: NDArray[np.int32],
    table: NDArray[np.int32],
    first: NDArray[np.int32],
    tally: NDArray[np.int32],
    joined: NDArray[np.uint8],
    positions: NDArray[np.int64],
    found: NDArray[np.int64],
    totals: NDArray[np.int64],
) -> None:
    """Fill the columns of `repetition.ngram_repetition`; the other arrays are `repetition.Room`'s."""
    for d in range(len(totals)):
        begin, n_words = offsets[d], offsets[d + 1] - offsets[d]
        n_places, most, shift = pairs(
            data, starts, n_bytes, n_characters, begin, n_words, characters, hashes, keys, places, cells
        )
        totals[d] = characters[n_words]
        for n in range(2, min(n_words, 4) + 1):
            if n > 2:
                n_places, most, shift = longer(keys, places, n_places, hashes, n_words, n, cells)
            times, length = most_frequent(
                characters, keys, places, n_places, cells, shift, most,
                top_keys, top_places, table, first, tally, n, False,
            )  # fmt: skip
            found[d, n - 2] = (length + n - 1) * times
        if n_words < 5:
            continue
        _join(data, starts, n_bytes, begin, n_words, joined, positions)
        # Long enough to be rare, and so short that few 5-grams are shorter.
        window = min(max(3 * (positions[n_words] - _FRONT) // n_words, 8), 16)
        limits = first
        n_places = _candidates(joined, positions, n_words, window, keys, cells, places, limits)
        for more in _LONGER_WINDOWS:
            _narrow(joined, positions, places, limits, n_places, window + more, keys, cells)
        for n in range(5, 11):
            n_places = _outlines(joined, positions, places, limits, n_places, n_words, n, keys)
            if not n_places:
                break
            found[d, n - 2] = _walk(joined, positions, characters, keys, places, n_places, cells, table, n)


@uncounted
def most_bytes(n_bytes: NDArray[np.int32], offsets: NDArray[np.int64]) -> int:
    """The bytes of the words of the document that has most of them."""
    most = 0
    for d in range(len(offsets) - 1):
        total = 0
        for word in range(offsets[d], offsets[d + 1]):
            total += n_bytes[np.uint64(word)]
        most = max(most, total)
    return most


@uncounted
def _join(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    n_bytes: NDArray[np.int32],
    begin: int,
    n_words: int,
    joined: NDArray[np.uint8],
    positions: NDArray[np.int64],
) -> None:
    """Write the words one after another, and where each begins there, and where the last one ends."""
    at = _FRONT
    for i in range(n_words):
        word = np.uint64(begin + i)
        start, length = starts[word], n_bytes[word]
        positions[i] = at
        if length <= 16 and start + 16 <= len(data):
            # Nearly all words; what is written behind a word, the next one overwrites.
            low, high = load8(data, start), load8(data, start + 8)
            store8(joined, at, low)
            store8(joined, at + 8, high)
        else:
            copy(data, start, length, joined, at)
        at += length
    positions[n_words] = at


@uncounted
def _candidates(
    joined: NDArray[np.uint8],
    positions: NDArray[np.int64],
    n_words: int,
    window: int,
    keys: NDArray[np.uint64],
    cells: NDArray[np.uint8],
    places: NDArray[np.int32],
    limits: NDArray[np.int32],
) -> int:
    """The words that an n-gram of five words or more may begin at which comes again: the `window` bytes from
    there on do, or the 5-gram has fewer.

    Args:
        keys: become the hashes of the windows.
        limits: no n-gram from the place on that has so many bytes comes again.
    Two that share a cell by chance only make a place too many, and so do bytes behind the last word.
    """
    n_keys = n_words - 4
    shift = empty_cells(cells, n_keys)
    for i in range(n_keys):
        at = positions[i]
        key = (load8(joined, at) * _K1 ^ load8(joined, at + window - 8)) * _K2
        keys[i] = key
        count(cells, key >> shift)
    kept = 0
    for i in range(n_keys):
        key = keys[i]
        comes_again = cells[key >> shift] > 1
        keys[kept], places[kept], limits[kept] = key, i, _UNLIMITED if comes_again else window
        kept += comes_again | (positions[i + 5] - positions[i] < window)
    return kept


@uncounted
def _narrow(
    joined: NDArray[np.uint8],
    positions: NDArray[np.int64],
    places: NDArray[np.int32],
    limits: NDArray[np.int32],
    n_places: int,
    window: int,
    keys: NDArray[np.uint64],
    cells: NDArray[np.uint8],
) -> None:
    """Limit the places to `window` where so many bytes do not come again; `keys` are those of eight less."""
    shift = empty_cells(cells, n_places)
    for k in range(n_places):
        at = positions[np.uint64(places[k])]
        key = (keys[k] ^ load8(joined, at + window - 8)) * _K2
        keys[k] = key
        count(cells, key >> shift)
    for k in range(n_places):
        limits[k] = limits[k] if cells[keys[k] >> shift] > 1 else min(limits[k], window)


@uncounted
def _outlines(
    joined: NDArray[np.uint8],
    positions: NDArray[np.int64],
    places: NDArray[np.int32],
    limits: NDArray[np.int32],
    n_places: int,
    n_words: int,
    n: int,
    keys: NDArray[np.uint64],
) -> int:
    """Set the keys of the n-grams at `places`: hashes of their first sixteen bytes, last eight, and length.

    Places are left out that no n-gram may come again at any more.
    """
    kept = 0
    for k in range(n_places):
        i, limit = np.uint64(places[k]), limits[k]
        at, end = positions[i], positions[np.uint64(min(places[k] + n, n_words))]
        n_bytes = end - at
        others = np.uint64(64 - 8 * min(n_bytes, 8))  # bits of bytes that are not the n-gram's
        first, last = load8(joined, at) << others, load8(joined, end - 8) >> others
        second = load8(joined, at + max(min(n_bytes, 16) - 8, 0)) << others
        places[kept], limits[kept] = i, limit
        keys[kept] = (first * _K1 ^ second) * _K2 + last * _K3 + np.uint64(n_bytes) * _K4
        kept += (n_bytes < limit) & (places[k] + n <= n_words)
    return kept


@uncounted
def _walk(
    joined: NDArray[np.uint8],
    positions: NDArray[np.int64],
    characters: NDArray[np.int64],
    keys: NDArray[np.uint64],
    places: NDArray[np.int32],
    n_places: int,
    cells: NDArray[np.uint8],
    table: NDArray[np.int32],
    n: int,
) -> int:
    """Characters of n-grams that were met before, in a walk that goes on behind each."""
    shift = empty_cells(cells, n_places)
    for k in range(n_places):
        count(cells, keys[k] >> shift)
    last_slot = n_slots_for(n_places) - 1
    table[: last_slot + 1] = 0
    n_duplicated, free = 0, 0
    for k in range(n_places):
        i = places[k]
        if i < free or cells[keys[k] >> shift] < 2:
            continue
        slot = np.int64(keys[k] >> np.uint64(32)) & last_slot
        while table[slot]:
            other = table[slot] - 1
            j = places[other]
            if keys[other] == keys[k] and _same(
                joined, positions[i], positions[i + n], positions[j], positions[j + n]
            ):
                break
            slot = (slot + 1) & last_slot
        if table[slot]:
            n_duplicated += characters[i + n] - characters[i]
            free = i + n
        else:
            table[slot] = k + 1
    return n_duplicated


@uncounted
def _same(joined: NDArray[np.uint8], start: int, end: int, other_start: int, other_end: int) -> bool:
    """Whether two n-grams have the same bytes."""
    if end - start != other_end - other_start:
        return False
    ahead = other_start - start
    others = np.uint64(64 - 8 * min(end - start, 8))
    differ = (load8(joined, end - 8) ^ load8(joined, other_end - 8)) >> others
    while differ == np.uint64(0) and start + 8 < end:
        differ = load8(joined, start) ^ load8(joined, start + ahead)
        start += 8
    return bool(differ == np.uint64(0))

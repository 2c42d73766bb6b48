"""The n-grams of one document's words level by level: which may come again, and how often the most frequent
does.

An n-gram is known by a key, the number to the base `_K`, modulo 2**64, that has its words' hashes for digits.
How often keys come is counted by cells first, which the highest bits of a key name: unlike a table of keys,
this needs no branch, and all of it is in the nearest caches. A key comes no more often than its cell says.
"""

import numpy as np
from numpy.typing import NDArray

from .grouping import group
from .jit import inlined, uncounted
from .short_hash import SEED, first_sixteen, mix, short_hash

_K = np.uint64(0x9E3779B97F4A7C15)
_K3 = np.uint64(0x165667B19E3779F9)


@inlined
def word_hash(data: NDArray[np.uint8], start: int, n_bytes: int) -> np.uint64:
    """64 bits of a word; those of up to sixteen bytes, which nearly all are, take no branch."""
    low, high = first_sixteen(data, start, n_bytes)
    found = mix(np.uint64(n_bytes) * SEED + high * _K3, low)
    return found if n_bytes <= 16 else _with_rest(found, data, start + 16, n_bytes - 16)


@uncounted
def _with_rest(found: np.uint64, data: NDArray[np.uint8], start: int, n_bytes: int) -> np.uint64:
    return mix(found, short_hash(data, start, n_bytes))


@uncounted
def pairs(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    n_bytes: NDArray[np.int32],
    n_characters: NDArray[np.int32],
    begin: int,
    n_words: int,
    characters: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    places: NDArray[np.int32],
    cells: NDArray[np.uint8],
) -> tuple[int, int, np.uint64]:
    """Hash the words from `begin` on, and keep the keys of the 2-grams that may come more than once.

    Args:
        characters: becomes the code points before each word, and after the last one.
        hashes: becomes those of the words.
        keys, places: become the 2-grams' keys, and the words that they begin at.
        cells: becomes how many keys each has.
    Returns: how many 2-grams are kept, what the fullest cell has, and the shift from a key to its cell.
    """
    n_before = 0
    for i in range(n_words):
        word = np.uint64(begin + i)
        hashes[i] = word_hash(data, starts[word], n_bytes[word])
        characters[i] = n_before
        n_before += n_characters[word]
    characters[n_words] = n_before
    shift, most = empty_cells(cells, n_words), 0
    for i in range(n_words - 1):
        key = hashes[i] * _K + hashes[np.uint64(i + 1)]
        keys[i] = key
        most = max(most, count(cells, key >> shift))
    kept = 0
    for i in range(n_words - 1):
        key = keys[i]
        keys[kept], places[kept] = key, i
        kept += cells[key >> shift] > 1
    return kept, most, shift


@uncounted
def longer(
    keys: NDArray[np.uint64],
    places: NDArray[np.int32],
    n_places: int,
    hashes: NDArray[np.uint64],
    n_words: int,
    n: int,
    cells: NDArray[np.uint8],
) -> tuple[int, int, np.uint64]:
    """Turn the kept (n-1)-grams into n-grams, and keep those that may come more than once, as `pairs` does.

    An n-gram can come again only where both (n-1)-grams in it do.
    """
    n_both = 0
    for k in range(n_places - 1):
        i = places[k]
        keys[n_both], places[n_both] = keys[k] * _K + hashes[np.uint64(min(i + n, n_words) - 1)], i
        n_both += (places[k + 1] == i + 1) & (i + n <= n_words)
    shift, most = empty_cells(cells, n_both), 0
    for k in range(n_both):
        most = max(most, count(cells, keys[k] >> shift))
    kept = 0
    for k in range(n_both):
        key, place = keys[k], places[k]
        keys[kept], places[kept] = key, place
        kept += cells[key >> shift] > 1
    return kept, most, shift


@uncounted
def cell_bits(n_keys: int) -> int:
    """How many bits name a cell, so that few different keys share one."""
    bits = 6
    while 1 << bits < 8 * n_keys:
        bits += 1
    return bits


@uncounted
def empty_cells(cells: NDArray[np.uint8], n_keys: int) -> np.uint64:
    """Cells for so many keys, all empty; a key shifted so far names its cell."""
    bits = cell_bits(n_keys)
    cells[: 1 << bits] = 0
    return np.uint64(64 - bits)


@inlined
def count(cells: NDArray[np.uint8], cell: np.uint64) -> int:
    """One more key in this cell: how many it has now, 255 standing for more."""
    n = int(cells[cell])
    n += n < 255
    cells[cell] = n
    return n


@uncounted
def most_frequent(
    characters: NDArray[np.int64],
    keys: NDArray[np.uint64],
    places: NDArray[np.int32],
    n_places: int,
    cells: NDArray[np.uint8],
    shift: np.uint64,
    most: int,
    top_keys: NDArray[np.uint64],
    top_places: NDArray[np.int32],
    table: NDArray[np.int32],
    first: NDArray[np.int32],
    tally: NDArray[np.int32],
    n: int,
    longest: bool,
) -> tuple[int, int]:
    """How often the most frequent n-gram comes, and its characters: the first one's, if none comes twice.

    Only n-grams in cells as full as `most` are counted one by one. If the best of them comes less often,
    different ones share its cell; then all are counted that lie in cells as full as that one is frequent.

    Args:
        longest: of equally frequent ones, the longest one; else the one that comes first.
    """
    least = most
    best, length = 1, int(characters[n])
    while least > 1:
        n_top = 0
        for k in range(n_places):
            top_keys[n_top], top_places[n_top] = keys[k], places[k]
            n_top += cells[keys[k] >> shift] >= least
        group(top_keys, n_top, table, first, tally)
        best, length = 1, int(characters[n])
        for k in range(n_top):
            if first[k] == k and tally[k] >= best and tally[k] > 1:
                this = int(characters[top_places[k] + n] - characters[top_places[k]])
                if tally[k] > best or (longest and this > length):
                    best, length = int(tally[k]), this
        if best >= least or least == 2:
            break
        least = max(best, 2)
    return best, length

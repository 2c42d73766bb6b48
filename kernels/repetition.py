"""How much of a document its repeated word n-grams are.

Two counting rules are in use for the same thresholds.

`later`
    datatrove's. The most frequent n-gram counts with its words and the spaces between them, times its
    occurrences, even if that is one. Duplicated n-grams are found in one walk: an n-gram whose characters
    (without spaces) have been met adds its length and the walk goes on behind it, any other is noted and the
    walk goes on one word later; so no character counts twice.
`all`
    DCLM's. Only the words' characters count, and only if an n-gram occurs twice; of equally frequent ones the
    longest. Each word in any repeated n-gram counts once.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .grouping import group, n_slots_for
from .jit import uncounted
from .short_hash import SEED, copy, load8, load_few, mix, short_hash, store8
from .words import Words

Counting = Literal["later", "all"]

TOP = (2, 3, 4)
"""n of the n-grams of which the most frequent one counts."""
DUPLICATED = (5, 6, 7, 8, 9, 10)
"""n of the n-grams that count where they are repeated."""
_PREFIX_BYTES = ((12, 21, 8), (24, 25, 8), (28, 29, 8))
_K = np.uint64(0x9E3779B97F4A7C15)


def ngram_repetition(
    data: NDArray[np.uint8], words: Words, counting: Counting
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Characters in the most frequent 2-, 3- and 4-gram and in duplicated 5- to 10-grams of each document.

    Args:
        data: uint8, (n_bytes,), UTF-8.
        words: the words of its documents.
        counting: see the module.
    Returns: n_characters: int64, (n_docs, 9), one column for each n of `TOP` and `DUPLICATED`; 0 where there
        is no n-gram. n_word_characters: int64, (n_docs,), of all words.

    An n-gram is known by 64 bits of its hash. Memory: about 60 bytes for each word of the longest document.
    """
    n_docs = len(words.offsets) - 1
    found, totals = np.zeros((n_docs, len(TOP) + len(DUPLICATED)), np.int64), np.zeros(n_docs, np.int64)
    _ngram_repetition(
        data,
        words.starts,
        words.n_bytes,
        words.n_characters,
        words.offsets,
        counting == "later",
        *_room(words),
        found,
        totals,
    )
    return found, totals


def ngram_repetition_reference(
    data: NDArray[np.uint8], words: Words, counting: Counting
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`ngram_repetition` in plain Python."""
    rows, totals = [], []
    for first, last in pairwise(words.offsets):
        document = [
            bytes(data[start : start + n_bytes]).decode("utf-8", "replace")
            for start, n_bytes in zip(words.starts[first:last], words.n_bytes[first:last], strict=True)
        ]
        if counting == "later":
            top = [_top_later(document, n) for n in TOP]
            duplicated = [_duplicated_later(document, n) for n in DUPLICATED]
        else:
            top = [_top_all(document, n) for n in TOP]
            duplicated = [_duplicated_all(document, n) for n in DUPLICATED]
        rows.append([*top, *duplicated])
        totals.append(sum(map(len, document)))
    n_columns = len(TOP) + len(DUPLICATED)
    return np.array(rows, np.int64).reshape(-1, n_columns), np.array(totals, np.int64)


def _ngrams(words: Sequence[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def _top_later(words: Sequence[str], n: int) -> int:
    if len(words) < n:
        return 0
    ngram, count = Counter(_ngrams(words, n)).most_common(1)[0]
    return len(" ".join(ngram)) * count


def _duplicated_later(words: Sequence[str], n: int) -> int:
    met: set[str] = set()
    n_characters, i = 0, 0
    while i + n <= len(words):
        ngram = "".join(words[i : i + n])
        if ngram in met:
            n_characters += len(ngram)
            i += n
        else:
            met.add(ngram)
            i += 1
    return n_characters


def _top_all(words: Sequence[str], n: int) -> int:
    counts = Counter(_ngrams(words, n))
    best = max(counts.values(), default=1)
    longest = max((sum(map(len, ngram)) for ngram, count in counts.items() if count == best), default=0)
    return longest * best if best > 1 else 0


def _duplicated_all(words: Sequence[str], n: int) -> int:
    ngrams = _ngrams(words, n)
    counts = Counter(ngrams)
    covered = {j for i, ngram in enumerate(ngrams) if counts[ngram] > 1 for j in range(i, i + n)}
    return sum(len(words[j]) for j in covered)


class _Room(NamedTuple):
    """What the kernel writes to on its way: room for the longest document."""

    joined: NDArray[np.uint8]
    """The words one after another, without spaces."""
    positions: NDArray[np.int64]
    """Where each begins there, and where the last one ends."""
    characters: NDArray[np.int64]
    """Code points before each word."""
    hashes: NDArray[np.uint64]
    keys: NDArray[np.uint64]
    """Hashes of n-grams, which begin at the words `places`."""
    places: NDArray[np.int32]
    table: NDArray[np.int32]
    first: NDArray[np.int32]
    tally: NDArray[np.int32]
    cells: NDArray[np.uint8]
    """How many keys have the same lowest bits."""
    top_keys: NDArray[np.uint64]
    top_places: NDArray[np.int32]


def _room(words: Words) -> _Room:
    longest = int(np.diff(words.offsets).max(initial=0))
    ends = np.concatenate([[0], words.n_bytes.cumsum(dtype=np.int64)])[words.offsets]
    return _Room(
        joined=np.empty(int(np.diff(ends).max(initial=0)) + 16, np.uint8),
        positions=np.empty(longest + 1, np.int64),
        characters=np.empty(longest + 1, np.int64),
        hashes=np.empty(longest, np.uint64),
        keys=np.empty(longest, np.uint64),
        places=np.empty(longest, np.int32),
        table=np.empty(n_slots_for(longest), np.int32),
        first=np.empty(longest, np.int32),
        tally=np.empty(longest, np.int32),
        cells=np.empty(_n_cells_for(longest), np.uint8),
        top_keys=np.empty(longest + 1, np.uint64),
        top_places=np.empty(longest + 1, np.int32),
    )


@uncounted
def _ngram_repetition(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    n_bytes: NDArray[np.int32],
    n_characters: NDArray[np.int32],
    offsets: NDArray[np.int64],
    later: bool,
    joined: NDArray[np.uint8],
    positions: NDArray[np.int64],
    characters: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    places: NDArray[np.int32],
    table: NDArray[np.int32],
    first: NDArray[np.int32],
    count: NDArray[np.int32],
    cells: NDArray[np.uint8],
    top_keys: NDArray[np.uint64],
    top_places: NDArray[np.int32],
    found: NDArray[np.int64],
    totals: NDArray[np.int64],
) -> None:
    for d in range(len(totals)):
        begin, n_words = offsets[d], offsets[d + 1] - offsets[d]
        characters[0], positions[0] = 0, 0
        for i in range(n_words):
            word = begin + i
            characters[i + 1] = characters[i] + n_characters[word]
            positions[i + 1] = positions[i] + n_bytes[word]
            if n_bytes[word] <= 8 and starts[word] + 8 <= len(data):
                # Most words: one load, one store.
                eight = load_few(data, starts[word], n_bytes[word])
                hashes[i] = mix(np.uint64(n_bytes[word]) * SEED, eight)
                store8(joined, positions[i], eight)
            else:
                hashes[i] = short_hash(data, starts[word], n_bytes[word])
                copy(data, starts[word], n_bytes[word], joined, positions[i])
            places[i] = i
        totals[d] = characters[n_words]
        n_places = n_words
        # Level by level: an n-gram can be repeated only where both (n-1)-grams in it are.
        for n in range(2, 5 if later else 11):
            n_places = _lengthen(keys, places, n_places, hashes, n_words, n)
            n_cells = _n_cells_for(n_places)
            most = _count(keys, n_places, cells, n_cells)
            n_places = _sieve(keys, places, n_places, cells, n_cells)
            if n > 4:
                group(keys, n_places, table, first, count)
                found[d, n - 2] = _covered(characters, places, n_places, first, count, n)
                n_places = _repeated(keys, places, n_places, first, count)
            elif n <= n_words:
                times, length = _most_frequent(
                    characters, keys, places, n_places, cells, n_cells, most,
                    top_keys, top_places, table, first, count, n, later,
                )  # fmt: skip
                spaces = n - 1 if later else 0
                found[d, n - 2] = (length + spaces) * times if later or times > 1 else 0
        if later:
            n_places = max(n_words - 4, 0)
            for i in range(n_places):
                places[i] = i
            for n in range(5, 11):
                if n < 8:
                    for length in range(*_PREFIX_BYTES[n - 5]):
                        n_places = _candidates(
                            joined, positions, n_words, n, length, keys, cells, places, n_places
                        )
                found[d, n - 2] = _walk(
                    joined, positions, characters, places, n_places, n, n_words, keys, table
                )


@uncounted
def _lengthen(
    keys: NDArray[np.uint64],
    places: NDArray[np.int32],
    n_places: int,
    hashes: NDArray[np.uint64],
    n_words: int,
    n: int,
) -> int:
    """Turn the keys of the (n-1)-grams at `places` into those of the n-grams that may be repeated.

    A key is the number to the base `_K`, modulo 2**64, that has the words' hashes for digits.
    """
    if n == 2:
        for i in range(max(n_words - 1, 0)):
            keys[i] = hashes[i] * _K + hashes[np.uint64(i + 1)]
        return max(n_words - 1, 0)
    kept = 0
    for k in range(n_places - 1):
        i = places[k]
        keys[kept], places[kept] = keys[k] * _K + hashes[np.uint64(min(i + n, n_words) - 1)], i
        kept += (places[k + 1] == i + 1) & (i + n <= n_words)
    return kept


@uncounted
def _n_cells_for(n_keys: int) -> int:
    """A power of two, so large that few different keys share a cell."""
    n_cells = 64
    while n_cells < 8 * n_keys:
        n_cells *= 2
    return n_cells


@uncounted
def _count(keys: NDArray[np.uint64], n_keys: int, cells: NDArray[np.uint8], n_cells: int) -> int:
    """Count the keys of each cell, 255 standing for more; what the fullest one has.

    Unlike a table of keys, this needs no branch, and all of it is in the nearest caches. A key comes no more
    often than its cell says.
    """
    cells[:n_cells] = 0
    mask, most = np.uint64(n_cells - 1), 0
    for k in range(n_keys):
        cell = keys[k] & mask
        n = int(cells[cell])
        n += n < 255
        cells[cell] = n
        most = max(most, n)
    return most


@uncounted
def _sieve(
    keys: NDArray[np.uint64], places: NDArray[np.int32], n_places: int, cells: NDArray[np.uint8], n_cells: int
) -> int:
    """Keep the keys that may come more than once, as their cells say."""
    mask, kept = np.uint64(n_cells - 1), 0
    for k in range(n_places):
        key, place = keys[k], places[k]
        keys[kept], places[kept] = key, place
        kept += cells[key & mask] > 1
    return kept


@uncounted
def _repeated(
    keys: NDArray[np.uint64],
    places: NDArray[np.int32],
    n_places: int,
    first: NDArray[np.int32],
    count: NDArray[np.int32],
) -> int:
    kept = 0
    for k in range(n_places):
        if count[first[k]] > 1:
            keys[kept], places[kept] = keys[k], places[k]
            kept += 1
    return kept


@uncounted
def _most_frequent(
    characters: NDArray[np.int64],
    keys: NDArray[np.uint64],
    places: NDArray[np.int32],
    n_places: int,
    cells: NDArray[np.uint8],
    n_cells: int,
    most: int,
    top_keys: NDArray[np.uint64],
    top_places: NDArray[np.int32],
    table: NDArray[np.int32],
    first: NDArray[np.int32],
    count: NDArray[np.int32],
    n: int,
    later: bool,
) -> tuple[int, int]:
    """How often the most frequent n-gram comes, and its characters: the first one's, if none comes twice.

    Only n-grams in cells as full as `most` are counted one by one. If the best of them comes less often,
    different ones share its cell; then all are counted that lie in cells as full as that one is frequent.
    """
    mask, least = np.uint64(n_cells - 1), most
    best, length = 1, int(characters[n])
    while least > 1:
        n_top = 0
        for k in range(n_places):
            top_keys[n_top], top_places[n_top] = keys[k], places[k]
            n_top += cells[keys[k] & mask] >= least
        group(top_keys, n_top, table, first, count)
        best, length = 1, int(characters[n])
        for k in range(n_top):
            if first[k] == k and count[k] >= best and count[k] > 1:
                this = int(characters[top_places[k] + n] - characters[top_places[k]])
                if count[k] > best or (not later and this > length):
                    best, length = int(count[k]), this
        if best >= least or least == 2:
            break
        least = max(best, 2)
    return best, length


@uncounted
def _covered(
    characters: NDArray[np.int64],
    places: NDArray[np.int32],
    n_places: int,
    first: NDArray[np.int32],
    count: NDArray[np.int32],
    n: int,
) -> int:
    n_covered, end = 0, 0
    for k in range(n_places):
        if count[first[k]] > 1:
            n_covered += characters[places[k] + n] - characters[max(end, places[k])]
            end = places[k] + n
    return n_covered


@uncounted
def _candidates(
    joined: NDArray[np.uint8],
    positions: NDArray[np.int64],
    n_words: int,
    n: int,
    n_bytes: int,
    keys: NDArray[np.uint64],
    cells: NDArray[np.uint8],
    places: NDArray[np.int32],
    n_places: int,
) -> int:
    """Of `places`, those where an n-gram may be repeated: its first bytes are, or it has fewer of them.

    A walk looks at the joined characters, not at where words end, so levels of n-grams would not do here.
    Two that share a cell by chance only keep a place too many.
    """
    n_keys = 0
    while n_keys < n_places and positions[places[n_keys]] + n_bytes <= positions[n_words]:
        at = positions[places[n_keys]]
        key = load8(joined, at) * _K + load8(joined, at + n_bytes - 8)
        for k in range(8, n_bytes - 7, 8):
            key = key * _K + load8(joined, at + k)
        key *= _K
        keys[n_keys] = key ^ key >> np.uint64(32)  # a cell is told by the lowest bits
        n_keys += 1
    n_cells = _n_cells_for(n_keys)
    _count(keys, n_keys, cells, n_cells)
    mask, kept = np.uint64(n_cells - 1), 0
    for k in range(n_places):
        i = places[k]
        is_short = positions[min(i + n, n_words)] - positions[i] < n_bytes
        is_repeated = cells[keys[max(min(k, n_keys - 1), 0)] & mask] > 1
        places[kept] = i
        kept += ((k >= n_keys) | is_short | is_repeated) & (i + n <= n_words)
    return kept


@uncounted
def _walk(
    joined: NDArray[np.uint8],
    positions: NDArray[np.int64],
    characters: NDArray[np.int64],
    places: NDArray[np.int32],
    n_places: int,
    n: int,
    n_words: int,
    keys: NDArray[np.uint64],
    table: NDArray[np.int32],
) -> int:
    n_slots = n_slots_for(n_places)
    table[:n_slots] = 0
    n_duplicated, free = 0, 0
    for k in range(n_places):
        i = places[k]
        if i + n > n_words:
            break
        if i < free:
            continue
        keys[k] = short_hash(joined, positions[i], positions[i + n] - positions[i])
        slot = np.int64(keys[k] & np.uint64(n_slots - 1))
        while table[slot] and keys[table[slot] - 1] != keys[k]:
            slot = (slot + 1) & (n_slots - 1)
        if table[slot]:
            n_duplicated += characters[i + n] - characters[i]
            free = i + n
        else:
            table[slot] = k + 1
    return n_duplicated

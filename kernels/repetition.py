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
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .grouping import group, n_slots_for
from .jit import inlined, kernel
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
    longest = int(np.diff(words.offsets).max(initial=0))
    n_slots = n_slots_for(longest)
    byte_ends = words.n_bytes.cumsum(dtype=np.int64)
    ends = np.concatenate([[0], byte_ends])[words.offsets]
    joined_room = int(np.diff(ends).max(initial=0)) + 16
    return _ngram_repetition(
        data,
        words.starts,
        words.n_bytes,
        words.n_characters,
        words.offsets,
        counting == "later",
        n_slots,
        joined_room,
        longest,
    )


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


@kernel
def _ngram_repetition(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    n_bytes: NDArray[np.int32],
    n_characters: NDArray[np.int32],
    offsets: NDArray[np.int64],
    later: bool,
    n_slots: int,
    joined_room: int,
    longest: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    n_docs = len(offsets) - 1
    found, totals = np.zeros((n_docs, 9), np.int64), np.zeros(n_docs, np.int64)
    table = np.empty(n_slots, np.int32)
    hashes, keys = np.empty(longest, np.uint64), np.empty(longest, np.uint64)
    first, count = np.empty(longest, np.int32), np.empty(longest, np.int32)
    places = np.empty(longest, np.int32)
    characters, positions = np.empty(longest + 1, np.int64), np.empty(longest + 1, np.int64)
    joined = np.empty(joined_room, np.uint8)
    once, twice = np.empty(longest + 16, np.uint64), np.empty(longest + 16, np.uint64)
    for d in range(n_docs):
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
            keys[i], places[i] = hashes[i] * _K, i  # so that mixing in the next word is not symmetric
        totals[d] = characters[n_words]
        n_places = n_words
        # Level by level: an n-gram can be repeated only where both (n-1)-grams in it are.
        for n in range(2, 5 if later else 11):
            n_places = _lengthen(keys, places, n_places, hashes, n_words, n)
            n_places = _sieve(keys, places, n_places, once, twice)
            group(keys, n_places, table, first, count)
            if n > 4:
                found[d, n - 2] = _covered(characters, places, n_places, first, count, n)
            elif n <= n_words:
                found[d, n - 2] = _top(characters, places, n_places, first, count, n, later)
            n_places = _repeated(keys, places, n_places, first, count)
        if later:
            n_places = max(n_words - 4, 0)
            for i in range(n_places):
                places[i] = i
            for n in range(5, 11):
                if n < 8:
                    for length in range(*_PREFIX_BYTES[n - 5]):
                        n_places = _candidates(
                            joined, positions, n_words, n, length, keys, once, twice, places, n_places
                        )
                found[d, n - 2] = _walk(
                    joined, positions, characters, places, n_places, n, n_words, keys, table
                )
    return found, totals


@kernel
def _lengthen(
    keys: NDArray[np.uint64],
    places: NDArray[np.int32],
    n_places: int,
    hashes: NDArray[np.uint64],
    n_words: int,
    n: int,
) -> int:
    """Turn the keys of the (n-1)-grams at `places` into those of the n-grams that may be repeated."""
    kept = 0
    for k in range(n_places):
        i = places[k]
        if i + n <= n_words and (n == 2 or (k + 1 < n_places and places[k + 1] == i + 1)):
            keys[kept], places[kept] = mix(keys[k], hashes[i + n - 1]), i
            kept += 1
    return kept


@kernel
def _note(
    keys: NDArray[np.uint64], n_keys: int, once: NDArray[np.uint64], twice: NDArray[np.uint64]
) -> np.uint64:
    """Set a bit of `twice` for each key that comes more than once; the mask that makes a bit's number of one.

    Sixteen bits or more for each key: few different ones share a bit. Unlike a table, it needs no branch.
    """
    n_bits = 64
    while n_bits < 16 * n_keys:
        n_bits *= 2
    once[: n_bits // 64] = 0
    twice[: n_bits // 64] = 0
    mask = np.uint64(n_bits - 1)
    for k in range(n_keys):
        word, bit = (keys[k] & mask) >> np.uint64(6), np.uint64(1) << (keys[k] & np.uint64(63))
        twice[word] |= once[word] & bit
        once[word] |= bit
    return mask


@inlined
def _is_noted(twice: NDArray[np.uint64], number: np.uint64) -> bool:
    return bool(twice[number >> np.uint64(6)] >> (number & np.uint64(63)) & np.uint64(1))


@kernel
def _sieve(
    keys: NDArray[np.uint64],
    places: NDArray[np.int32],
    n_places: int,
    once: NDArray[np.uint64],
    twice: NDArray[np.uint64],
) -> int:
    """Keep the keys that may come more than once."""
    mask = _note(keys, n_places, once, twice)
    kept = 0
    for k in range(n_places):
        key, place = keys[k], places[k]
        keys[kept], places[kept] = key, place
        kept += _is_noted(twice, key & mask)
    return kept


@kernel
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


@kernel
def _top(
    characters: NDArray[np.int64],
    places: NDArray[np.int32],
    n_places: int,
    first: NDArray[np.int32],
    count: NDArray[np.int32],
    n: int,
    later: bool,
) -> int:
    best, length = 1, int(characters[n])
    for k in range(n_places):
        if first[k] == k and count[k] >= best and count[k] > 1:
            this = int(characters[places[k] + n] - characters[places[k]])
            if count[k] > best or (not later and this > length):
                best, length = int(count[k]), this
    if later:
        return (length + n - 1) * best
    return length * best if best > 1 else 0


@kernel
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


@kernel
def _candidates(
    joined: NDArray[np.uint8],
    positions: NDArray[np.int64],
    n_words: int,
    n: int,
    n_bytes: int,
    keys: NDArray[np.uint64],
    once: NDArray[np.uint64],
    twice: NDArray[np.uint64],
    places: NDArray[np.int32],
    n_places: int,
) -> int:
    """Of `places`, those where an n-gram may be repeated: its first bytes are, or it has fewer of them.

    A walk looks at the joined characters, not at where words end, so levels of n-grams would not do here.
    Bits stand for beginnings: two that share one by chance only keep a place too many.
    """
    n_keys = 0
    while n_keys < n_places and positions[places[n_keys]] + n_bytes <= positions[n_words]:
        at = positions[places[n_keys]]
        key = load8(joined, at) * _K
        for k in range(8, n_bytes - 7, 8):
            key = mix(key, load8(joined, at + k))
        keys[n_keys] = mix(key, load8(joined, at + n_bytes - 8))
        n_keys += 1
    mask = _note(keys, n_keys, once, twice)
    kept = 0
    for k in range(n_places):
        i = places[k]
        repeated = k >= n_keys or _is_noted(twice, keys[k] & mask)
        if i + n <= n_words and (repeated or positions[i + n] - positions[i] < n_bytes):
            places[kept] = i
            kept += 1
    return kept


@kernel
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

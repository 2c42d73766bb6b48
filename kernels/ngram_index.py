"""Where known word n-grams stand in documents: the inner loop of decontamination."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .hashing import avalanche, avalanche_reference
from .jit import kernel

_K = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio; see shingles.py
_MASK = (1 << 64) - 1
_BITS_PER_KEY = 16  # a word that is in no key passes the bitmap by chance 1 time in 16


def ngram_hashes(
    words: NDArray[np.uint64], word_offsets: NDArray[np.int64], n: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hash of each run of n words: all 64 bits of what `shingle_hashes` keeps 32 of.

    Args:
        words: uint64, (n_words,), and word_offsets: int64, (n_docs + 1,), as `word_hashes` gives them.
        n: words in an n-gram, at least 1.
    Returns:
        hashes: uint64, (n_ngrams,), and offsets: int64, (n_docs + 1,).
    """
    runs = np.maximum(np.diff(word_offsets) - n + 1, 0)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(runs, dtype=np.int64)])
    return _ngram_hashes(words, word_offsets, n, offsets), offsets


def ngram_hashes_reference(
    words: NDArray[np.uint64], word_offsets: NDArray[np.int64], n: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """`ngram_hashes` in plain Python."""
    hashes, counts = [], [0]
    for start, end in pairwise(word_offsets):
        document = [int(word) for word in words[start:end]]
        for i in range(len(document) - n + 1):
            h = 0
            for word in document[i : i + n]:
                h = (h * int(_K) + word) & _MASK
            hashes.append(avalanche_reference(h))
        counts.append(len(hashes))
    return np.array(hashes, np.uint64), np.array(counts, np.int64)


@kernel
def _ngram_hashes(
    words: NDArray[np.uint64], word_offsets: NDArray[np.int64], n: int, offsets: NDArray[np.int64]
) -> NDArray[np.uint64]:
    leaving = np.uint64(1)  # _K ** n, the weight of the word that leaves the window
    for _ in range(n):
        leaving *= _K
    hashes = np.empty(offsets[-1], np.uint64)
    for d in range(len(word_offsets) - 1):
        document = words[word_offsets[d] : word_offsets[d + 1]]
        found = hashes[offsets[d] : offsets[d + 1]]
        h = np.uint64(0)
        for i in range(len(document)):
            h = h * _K + document[i]
            if i >= n:
                h -= document[i - n] * leaving
            if i >= n - 1:
                found[i - n + 1] = avalanche(h)
    return hashes


@kernel
def ngram_hashes_at(words: NDArray[np.uint64], positions: NDArray[np.int64], n: int) -> NDArray[np.uint64]:
    """The hash of words[position:position + n] for each position, which must lie n words before the end.

    Args:
        words: uint64, (n_words,). positions: int64, (n_positions,).
    Returns:
        uint64, (n_positions,), as `ngram_hashes` gives them.
    """
    hashes = np.empty(len(positions), np.uint64)
    for i in range(len(positions)):
        h = np.uint64(0)
        for word in words[positions[i] : positions[i] + n]:
            h = h * _K + word
        hashes[i] = avalanche(h)
    return hashes


def find_ngrams(
    words: NDArray[np.uint64], word_offsets: NDArray[np.int64], n: int, keys: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Every place where one of the n-grams `keys` begins.

    Args:
        words: uint64, (n_words,), and word_offsets: int64, (n_docs + 1,), as `word_hashes` gives them.
        n: words in an n-gram, at least 1.
        keys: uint64, (n_keys,), ascending without repeats, as `ngram_hashes` gives them.
    Returns:
        positions: int64, (n_hits,), ascending, the n-gram is words[position:position + n] of one document.
        which: int64, (n_hits,), its index in `keys`. A false hit has probability n_keys / 2**64 a word.
    """
    if not len(keys):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    n_slots = 1 << (4 * len(keys) - 1).bit_length()
    bits = max((_BITS_PER_KEY * len(keys) - 1).bit_length(), 6)
    bitmap, slots = _index(keys, n_slots, bits)
    return _find(words, word_offsets, n, keys, bitmap, slots, bits)


def find_ngrams_reference(
    words: NDArray[np.uint64], word_offsets: NDArray[np.int64], n: int, keys: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`find_ngrams` in plain Python."""
    index = {int(key): i for i, key in enumerate(keys)}
    hashes, offsets = ngram_hashes_reference(words, word_offsets, n)
    hits = [
        (int(word_offsets[d]) + i, index[int(h)])
        for d in range(len(word_offsets) - 1)
        for i, h in enumerate(hashes[offsets[d] : offsets[d + 1]])
        if int(h) in index
    ]
    found = np.array(hits, np.int64).reshape(-1, 2)
    return found[:, 0].copy(), found[:, 1].copy()


@kernel
def _index(keys: NDArray[np.uint64], n_slots: int, bits: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """A bitmap over the keys' upper bits, small enough for the cache, and a hash table of their indices."""
    bitmap = np.zeros(1 << (bits - 6), np.uint64)
    slots = np.full(n_slots, -1, np.int64)
    for i in range(len(keys)):
        bit = keys[i] >> np.uint64(64 - bits)
        bitmap[bit >> np.uint64(6)] |= np.uint64(1) << (bit & np.uint64(63))
        slot = keys[i] & np.uint64(n_slots - 1)
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & np.uint64(n_slots - 1)
        slots[slot] = i
    return bitmap, slots


@kernel
def _find(
    words: NDArray[np.uint64],
    word_offsets: NDArray[np.int64],
    n: int,
    keys: NDArray[np.uint64],
    bitmap: NDArray[np.uint64],
    slots: NDArray[np.int64],
    bits: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    leaving = np.uint64(1)
    for _ in range(n):
        leaving *= _K
    shift, last_slot = np.uint64(64 - bits), np.uint64(len(slots) - 1)
    positions, which = np.empty(64, np.int64), np.empty(64, np.int64)
    n_hits = 0
    for d in range(len(word_offsets) - 1):
        h = np.uint64(0)
        for i in range(word_offsets[d], word_offsets[d + 1]):
            h = h * _K + words[i]
            if i - word_offsets[d] >= n:
                h -= words[i - n] * leaving
            if i - word_offsets[d] < n - 1:
                continue
            key = avalanche(h)
            bit = key >> shift
            if not bitmap[bit >> np.uint64(6)] >> (bit & np.uint64(63)) & np.uint64(1):
                continue
            slot = key & last_slot
            while slots[slot] >= 0 and keys[slots[slot]] != key:
                slot = (slot + np.uint64(1)) & last_slot
            if slots[slot] >= 0:
                if n_hits == len(positions):
                    positions = np.append(positions, np.empty(n_hits, np.int64))
                    which = np.append(which, np.empty(n_hits, np.int64))
                positions[n_hits], which[n_hits] = i - n + 1, slots[slot]
                n_hits += 1
    return positions[:n_hits], which[:n_hits]

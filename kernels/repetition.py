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

from .frequent_ngrams import cell_bits
from .grouping import n_slots_for
from .jit import read_only
from .repetition_all import repetition_all
from .repetition_later import MARGIN, most_bytes, repetition_later
from .words import Words

Counting = Literal["later", "all"]

TOP = (2, 3, 4)
"""n of the n-grams of which the most frequent one counts."""
DUPLICATED = (5, 6, 7, 8, 9, 10)
"""n of the n-grams that count where they are repeated."""


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

    An n-gram is known by 64 bits of its hash, in walks by its bytes. Memory: about 70 bytes for each word of
    the longest document.
    """
    n_docs = len(words.offsets) - 1
    found, totals = np.zeros((n_docs, len(TOP) + len(DUPLICATED)), np.int64), np.zeros(n_docs, np.int64)
    (data,) = read_only(data)
    given = (data, words.starts, words.n_bytes, words.n_characters, words.offsets, *_room(words))
    if counting == "later":
        joined, positions = _joined_room(words)
        repetition_later(*given, joined, positions, found, totals)
    else:
        repetition_all(*given, found, totals)
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


class Room(NamedTuple):
    """What the kernels write to on their way: room for the longest document."""

    characters: NDArray[np.int64]
    """Code points before each word."""
    hashes: NDArray[np.uint64]
    keys: NDArray[np.uint64]
    """Of n-grams, which begin at the words `places`."""
    places: NDArray[np.int32]
    cells: NDArray[np.uint8]
    """How many keys have the same highest bits."""
    top_keys: NDArray[np.uint64]
    top_places: NDArray[np.int32]
    table: NDArray[np.int32]
    first: NDArray[np.int32]
    tally: NDArray[np.int32]


def _room(words: Words) -> Room:
    longest = int(np.diff(words.offsets).max(initial=0))
    return Room(
        characters=np.empty(longest + 1, np.int64),
        hashes=np.empty(longest + 1, np.uint64),
        keys=np.empty(longest + 1, np.uint64),
        places=np.empty(longest + 1, np.int32),
        cells=np.empty(1 << cell_bits(longest), np.uint8),
        top_keys=np.empty(longest + 1, np.uint64),
        top_places=np.empty(longest + 1, np.int32),
        table=np.empty(n_slots_for(longest), np.int32),
        first=np.empty(longest, np.int32),
        tally=np.empty(longest, np.int32),
    )


def _joined_room(words: Words) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Room for the longest document's words one after another, and for where each begins there."""
    longest = int(np.diff(words.offsets).max(initial=0))
    n_bytes = most_bytes(words.n_bytes, words.offsets)
    return np.empty(n_bytes + MARGIN, np.uint8), np.empty(longest + 1, np.int64)

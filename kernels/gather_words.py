"""The words of documents that were cut into words before, as they were found in another column."""

import numpy as np
from numpy.typing import NDArray

from .jit import kernel
from .words import Words


def matching_documents(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    wanted_data: NDArray[np.uint8],
    wanted_offsets: NDArray[np.int64],
) -> NDArray[np.int64] | None:
    """For each wanted document, the document of the first column with the same bytes, in order; None if one
    has none.

    The wanted documents are looked for in their order, each behind the one before, as a filter leaves them:
    one pass over both columns at the speed of memory.

    >>> text, ends = np.frombuffer(b"aabcc", np.uint8), np.array([0, 2, 3, 5])
    >>> matching_documents(text, ends, text[2:], np.array([0, 1, 3])).tolist()
    [1, 2]
    """
    matches = np.empty(len(wanted_offsets) - 1, np.int64)
    return matches if _match(data, offsets, wanted_data, wanted_offsets, matches) else None


@kernel
def _match(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    wanted_data: NDArray[np.uint8],
    wanted_offsets: NDArray[np.int64],
    matches: NDArray[np.int64],
) -> bool:
    d = 0
    for w in range(len(matches)):
        start, length = wanted_offsets[w], wanted_offsets[w + 1] - wanted_offsets[w]
        while d < len(offsets) - 1 and not (
            offsets[d + 1] - offsets[d] == length and _equal(data, offsets[d], wanted_data, start, length)
        ):
            d += 1
        if d == len(offsets) - 1:
            return False
        matches[w] = d
        d += 1
    return True


@kernel
def _equal(one: NDArray[np.uint8], at: int, other: NDArray[np.uint8], other_at: int, length: int) -> bool:
    a, b = one[at : at + length], other[other_at : other_at + length]
    for block in range(0, length, 256):
        end = min(block + 256, length)
        difference = np.uint8(0)
        for i in range(block, end):
            difference |= a[i] ^ b[i]
        if difference:
            return False
    return True


def take_words(
    words: Words, offsets: NDArray[np.int64], documents: NDArray[np.int64], new_offsets: NDArray[np.int64]
) -> Words:
    """The words of `documents`, with their places in the column that has these documents at `new_offsets`.

    >>> from cuvee.kernels.words import words as cut
    >>> column = np.frombuffer(b"a b c d", np.uint8), np.array([0, 3, 7])
    >>> take_words(cut(*column, "whitespace"), column[1], np.array([1]), np.array([0, 4])).starts.tolist()
    [1, 3]
    """
    if len(documents) == len(offsets) - 1 and np.array_equal(offsets, new_offsets):
        return words
    found = words_of(words, documents)
    shift = np.repeat(new_offsets[:-1] - offsets[documents], np.diff(found.offsets))
    return found._replace(starts=found.starts + shift)


def words_of(words: Words, documents: NDArray[np.int64]) -> Words:
    """The words of `documents` where they are, these documents one after another.

    >>> from cuvee.kernels.words import words as cut
    >>> found = cut(np.frombuffer(b"a b c d", np.uint8), np.array([0, 3, 7]), "whitespace")
    >>> words_of(found, np.array([1])).starts.tolist()
    [4, 6]
    """
    first, n_words = words.offsets[documents], words.offsets[documents + 1] - words.offsets[documents]
    ends = np.concatenate([[0], np.cumsum(n_words)])
    chosen = np.arange(ends[-1]) + np.repeat(first - ends[:-1], n_words)
    starts, n_bytes, n_characters, kinds, _ = words
    return Words(starts[chosen], n_bytes[chosen], n_characters[chosen], kinds[chosen], ends)

"""The words of texts that were cut into words before, as they stand in another column."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .jit import uncounted
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
    one pass over both columns at the speed of memory. Bytes at one address are the same bytes: Arrow never
    changes what it has written.

    >>> text, ends = np.frombuffer(b"aabcc", np.uint8), np.array([0, 2, 3, 5])
    >>> matching_documents(text, ends, text[2:], np.array([0, 1, 3])).tolist()
    [1, 2]
    """
    same_place = (data.ctypes.data, offsets.ctypes.data) == (
        wanted_data.ctypes.data,
        wanted_offsets.ctypes.data,
    )
    if same_place and len(offsets) == len(wanted_offsets):
        return np.arange(len(offsets) - 1)
    matches = np.empty(len(wanted_offsets) - 1, np.int64)
    return matches if _match(data, offsets, wanted_data, wanted_offsets, matches) else None


@uncounted
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


@uncounted
def _equal(one: NDArray[np.uint8], at: int, other: NDArray[np.uint8], other_at: int, length: int) -> bool:
    for block in range(0, length, 256):
        end = min(block + 256, length)
        difference = np.uint8(0)
        for i in range(block, end):
            difference |= one[np.uint64(at + i)] ^ other[np.uint64(other_at + i)]
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


def words_of_lines(
    words: Words,
    changed: Words,
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    sources: NDArray[np.int64],
    offsets: NDArray[np.int64],
) -> Words:
    r"""The words of lines that were taken from texts whose words are known: no word lies across a line break.

    Args:
        words: of the texts that the lines were taken from.
        changed: of the lines with sources < 0, each a document of its own.
        starts, ends, sources: int64, (n_lines,), ascending: where each line stands, and where its first byte
            stood in those texts, or -1.
        offsets: int64, (n_docs + 1,), the lines from offsets[d] to offsets[d + 1] are those of document d.

    >>> from cuvee.kernels.words import words as cut
    >>> found = cut(np.frombuffer(b"a b\nc\nd e", np.uint8), np.array([0, 9]), "whitespace")
    >>> none = cut(np.empty(0, np.uint8), np.zeros(1, np.int64), "whitespace")
    >>> lines = np.array([0, 4]), np.array([3, 7]), np.array([0, 6])
    >>> words_of_lines(found, none, *lines, np.array([0, 7])).starts.tolist()
    [0, 2, 4, 6]
    """
    room = len(words.starts) + len(changed.starts)
    new_starts, new_kinds = np.empty(room, np.int64), np.empty(room, np.uint8)
    new_bytes, new_characters = np.empty(room, np.int32), np.empty(room, np.int32)
    new_offsets = np.zeros(len(offsets), np.int64)
    found = (new_starts, new_bytes, new_characters, new_kinds, new_offsets)
    arrays: tuple[Any, ...] = (*words[:4], *changed, starts, ends, sources, offsets, *found)
    n = _words_of_lines(*arrays)
    return Words(new_starts[:n], new_bytes[:n], new_characters[:n], new_kinds[:n], new_offsets)


@uncounted
def _words_of_lines(
    word_starts: NDArray[np.int64],
    word_bytes: NDArray[np.int32],
    word_characters: NDArray[np.int32],
    word_kinds: NDArray[np.uint8],
    changed_starts: NDArray[np.int64],
    changed_bytes: NDArray[np.int32],
    changed_characters: NDArray[np.int32],
    changed_kinds: NDArray[np.uint8],
    changed_offsets: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    sources: NDArray[np.int64],
    offsets: NDArray[np.int64],
    new_starts: NDArray[np.int64],
    new_bytes: NDArray[np.int32],
    new_characters: NDArray[np.int32],
    new_kinds: NDArray[np.uint8],
    new_offsets: NDArray[np.int64],
) -> int:
    line, w, n = 0, 0, 0
    n_changed, behind_changed = 0, 0  # changed lines so far, and their bytes
    for d in range(len(offsets) - 1):
        while line < len(starts) and starts[line] < offsets[d + 1]:
            source, n_bytes = sources[line], ends[line] - starts[line]
            if source < 0:
                for k in range(changed_offsets[n_changed], changed_offsets[n_changed + 1]):
                    new_starts[n] = starts[line] + changed_starts[k] - behind_changed
                    new_bytes[n], new_characters[n] = changed_bytes[k], changed_characters[k]
                    new_kinds[n] = changed_kinds[k]
                    n += 1
                n_changed, behind_changed = n_changed + 1, behind_changed + n_bytes
            else:
                while w < len(word_starts) and word_starts[w] < source:
                    w += 1
                while w < len(word_starts) and word_starts[w] < source + n_bytes:
                    new_starts[n] = starts[line] + word_starts[w] - source
                    new_bytes[n], new_characters[n] = word_bytes[w], word_characters[w]
                    new_kinds[n] = word_kinds[w]
                    n, w = n + 1, w + 1
            line += 1
        new_offsets[d + 1] = n
    return n

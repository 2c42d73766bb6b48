"""How often the lines or paragraphs of a document come again, and what they look like."""

import re
from collections import Counter
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .byte_masks import WIDTH, below, first_in_range, in_range, n_ones, wide
from .grouping import group
from .jit import inlined, read_only, uncounted
from .short_hash import line_hash
from .unicode_tables import decode
from .word_classes import TERMINAL, TERMINAL_PUNCTUATION, WHITE, word_classes

_LF = 10


class Cut(NamedTuple):
    """How a text is cut into pieces.

    n_breaks: newlines between two pieces: 1 for lines, 2 for paragraphs.
    greedy: more newlines than that are one cut too.
    strip_text, strip_pieces: white space at both ends is taken off first.
    skip_blank: pieces of white space alone are left out.
    """

    n_breaks: int
    greedy: bool = False
    strip_text: bool = False
    strip_pieces: bool = False
    skip_blank: bool = False


class Pieces(NamedTuple):
    """Counts of each document's pieces, all int64, (n_docs,)."""

    n_pieces: NDArray[np.int64]
    n_characters: NDArray[np.int64]
    """Code points of all pieces."""
    n_later: NDArray[np.int64]
    """Second and later occurrences of a piece."""
    n_later_characters: NDArray[np.int64]
    n_repeated: NDArray[np.int64]
    """All occurrences of the pieces that occur more than once."""
    n_repeated_characters: NDArray[np.int64]
    n_short: NDArray[np.int64]
    n_terminal: NDArray[np.int64]
    """Pieces whose last character ends a sentence."""


def pieces(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], cut: Cut, short_characters: int = 0
) -> Pieces:
    """The counts of each document's pieces. Pieces are the same when 64 bits of their hash are.

    Args:
        data: uint8, (n_bytes,), UTF-8; a byte that is not is read as U+FFFD.
        offsets: int64, (n_docs + 1,), document d is data[offsets[d]:offsets[d + 1]].
        short_characters: a piece of at most so many code points is short.
    """
    page, entries = word_classes()
    data, offsets = read_only(wide(data), offsets)
    how = (cut.n_breaks, cut.greedy, cut.strip_text, cut.strip_pieces, cut.skip_blank)
    room = _most_pieces(data, offsets)
    keys, characters = np.empty(room, np.uint64), np.empty(room, np.int64)
    groups = np.empty(4 * room + 16, np.int32), np.empty(room, np.int32), np.empty(room, np.int32)
    counts = np.zeros((len(offsets) - 1, len(Pieces._fields)), np.int64)
    _pieces(data, offsets, page, entries, *how, short_characters, keys, characters, *groups, counts)
    return Pieces(*counts.T)


def pieces_reference(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], cut: Cut, short_characters: int = 0
) -> Pieces:
    """`pieces` with Python's string methods."""
    rows = []
    for start, end in pairwise(offsets):
        text = data[start:end].tobytes().decode("utf-8", "replace")
        text = text.strip() if cut.strip_text else text
        found = re.split("\n" * cut.n_breaks + ("+" if cut.greedy else ""), text)
        found = [piece.strip() for piece in found] if cut.strip_pieces else found
        found = [piece for piece in found if piece.strip()] if cut.skip_blank else found
        counts = Counter(found)
        repeated = {piece: n for piece, n in counts.items() if n > 1}
        rows.append(
            (
                len(found),
                sum(map(len, found)),
                len(found) - len(counts),
                sum(len(piece) * (n - 1) for piece, n in repeated.items()),
                sum(repeated.values()),
                sum(len(piece) * n for piece, n in repeated.items()),
                sum(len(piece) <= short_characters for piece in found),
                sum(piece[-1:] in TERMINAL_PUNCTUATION for piece in found),
            )
        )
    return Pieces(*np.array(rows, np.int64).reshape(-1, len(Pieces._fields)).T)


@uncounted
def _most_pieces(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> int:
    """As many pieces as newlines leave room for in the document that has most of them."""
    most = 0
    for d in range(len(offsets) - 1):
        n_newlines = 0
        for i in range(offsets[d], offsets[d + 1], WIDTH):
            n_newlines += n_ones(in_range(data, i, _LF, _LF) & below(offsets[d + 1] - i))
        most = max(most, n_newlines)
    return most + 1


@uncounted
def _pieces(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    page: NDArray[np.uint16],
    entries: NDArray[np.uint16],
    n_breaks: int,
    greedy: bool,
    strip_text: bool,
    strip_pieces: bool,
    skip_blank: bool,
    short_characters: int,
    keys: NDArray[np.uint64],
    characters: NDArray[np.int64],
    table: NDArray[np.int32],
    first: NDArray[np.int32],
    count: NDArray[np.int32],
    counts: NDArray[np.int64],
) -> None:
    for d in range(len(counts)):
        low, high = offsets[d], offsets[d + 1]
        if strip_text:
            low, high = strip(data, low, high, page, entries)
        n, i = 0, low
        while i <= high:
            start = i
            i = _next_cut(data, i, high, n_breaks)
            a, b = start, i
            if strip_pieces:
                a, b = strip(data, a, b, page, entries)
            if not skip_blank or not is_blank(data, a, b, page, entries):
                keys[n] = line_hash(data, a, b - a)
                length, last = _length_and_last(data, a, b)
                characters[n] = length
                counts[d, 1] += length
                counts[d, 6] += length <= short_characters
                counts[d, 7] += last >= 0 and (entries[page[last >> 8] << 8 | (last & 0xFF)] & TERMINAL) != 0
                n += 1
            i += n_breaks
            while greedy and i < high and data[i] == _LF:
                i += 1
        counts[d, 0] = n
        group(keys, n, table, first, count)
        for k in range(n):
            if first[k] != k:
                counts[d, 2] += 1
                counts[d, 3] += characters[k]
            if count[first[k]] > 1:
                counts[d, 4] += 1
                counts[d, 5] += characters[k]


@inlined
def _next_cut(data: NDArray[np.uint8], i: int, end: int, n_breaks: int) -> int:
    """Where the next `n_breaks` newlines begin, or `end`."""
    i = first_in_range(data, i, end, _LF, _LF)
    while n_breaks == 2 and i < end and not (i + 1 < end and data[i + 1] == _LF):
        i = first_in_range(data, i + 1, end, _LF, _LF)
    return i


@uncounted
def _length_and_last(data: NDArray[np.uint8], start: int, end: int) -> tuple[int, int]:
    """The number of code points of a piece, and the last one, or -1."""
    text, n_extra, i = data[:end], 0, start
    last = int(data[end - 1]) if start < end else -1
    while i < end:
        i = first_in_range(data, i, end, 0x80, 0xFF)
        if i < end:
            code, following = decode(text, i)
            n_extra += following - i - 1
            last = code if following == end else last
            i = following
    return end - start - n_extra, last


@uncounted
def is_blank(
    data: NDArray[np.uint8], start: int, end: int, page: NDArray[np.uint16], entries: NDArray[np.uint16]
) -> bool:
    """Whether data[start:end] holds nothing but white space."""
    start, end = strip(data, start, end, page, entries)
    return start == end


@inlined
def strip(
    data: NDArray[np.uint8], start: int, end: int, page: NDArray[np.uint16], entries: NDArray[np.uint16]
) -> tuple[int, int]:
    """data[start:end] without the white space at both ends, as ``str.strip`` has it; equal if blank."""
    while start < end and data[start] < 0x80 and entries[data[start]] & WHITE:
        start += 1
    while end > start and data[end - 1] < 0x80 and entries[data[end - 1]] & WHITE:
        end -= 1
    if start < end and (data[start] >= 0x80 or data[end - 1] >= 0x80):
        start, end = _strip_any(data, start, end, page, entries)
    return start, end


@uncounted
def _strip_any(
    data: NDArray[np.uint8], start: int, end: int, page: NDArray[np.uint16], entries: NDArray[np.uint16]
) -> tuple[int, int]:
    text = data[:end]
    while start < end:
        code, following = decode(text, start)
        if not entries[page[code >> 8] << 8 | (code & 0xFF)] & WHITE:
            break
        start = following
    while end > start:
        # White space has at most three bytes.
        back = end - 1
        while back > start and back > end - 3 and data[back] & 0xC0 == 0x80:
            back -= 1
        code, following = decode(data[:end], back)
        if following != end or not entries[page[code >> 8] << 8 | (code & 0xFF)] & WHITE:
            break
        end = back
    return start, end

"""Byte spans of documents: narrowed to whole characters or words, copied out, or left out."""

import numpy as np
from numpy.typing import NDArray

from .jit import kernel, read_only
from .unicode_tables import (
    MARK,
    UNSPACED,
    WORD,
    UnicodeTables,
    decode,
    entry,
    flags_reference,
    unicode_tables,
)


def without_spans(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    span_offsets: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The documents with some of their bytes left out.

    Args:
        data: uint8, (n_bytes,).
        offsets: int64, (n_docs + 1,), document d is data[offsets[d]:offsets[d + 1]].
        span_offsets: int64, (n_docs + 1,), document d's spans are those of span_offsets[d] to
            span_offsets[d + 1].
        starts, stops: int64, (n_spans,), bytes counted from the document's first one; a document's spans lie
            in it, ascend and don't overlap.
    Returns:
        data: uint8, (n_bytes_left,), and offsets: int64, (n_docs + 1,).

    >>> data, offsets = np.frombuffer(b"abcdef", np.uint8), np.array([0, 4, 6])
    >>> left, ends = without_spans(data, offsets, np.array([0, 2, 2]), np.array([0, 3]), np.array([2, 4]))
    >>> left.tobytes(), ends
    (b'cef', array([0, 1, 3]))
    """
    return _without_spans(*read_only(data, offsets, span_offsets, starts, stops))


def without_spans_reference(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    span_offsets: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """`without_spans` in plain Python."""
    left = []
    for d in range(len(offsets) - 1):
        document = bytearray(data[offsets[d] : offsets[d + 1]].tobytes())
        for s in reversed(range(span_offsets[d], span_offsets[d + 1])):
            del document[starts[s] : stops[s]]
        left.append(bytes(document))
    return np.frombuffer(b"".join(left), np.uint8), np.cumsum([0, *map(len, left)], dtype=np.int64)


@kernel
def _without_spans(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    span_offsets: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    left = np.empty(offsets[-1] - offsets[0], np.uint8)
    left_offsets = np.zeros(len(offsets), np.int64)
    n_bytes = 0
    for d in range(len(offsets) - 1):
        at = offsets[d]
        for s in range(span_offsets[d], span_offsets[d + 1]):
            n_kept = offsets[d] + starts[s] - at
            left[n_bytes : n_bytes + n_kept] = data[at : at + n_kept]
            n_bytes += n_kept
            at = offsets[d] + stops[s]
        n_kept = offsets[d + 1] - at
        left[n_bytes : n_bytes + n_kept] = data[at : at + n_kept]
        n_bytes += n_kept
        left_offsets[d + 1] = n_bytes
    return left[:n_bytes], left_offsets


def copy_ranges(
    data: NDArray[np.uint8], starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Byte ranges, one after another.

    Args:
        data: uint8, (n_bytes,).
        starts, lengths: int64, (n_ranges,), range r is data[starts[r]:starts[r] + lengths[r]].
    Returns:
        data: uint8, (sum of lengths,), and offsets: int64, (n_ranges + 1,).
    """
    offsets = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return _copy_ranges(*read_only(data, starts, offsets)), offsets


def copy_ranges_reference(
    data: NDArray[np.uint8], starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """`copy_ranges` in plain Python."""
    ranges = [data[a : a + n].tobytes() for a, n in zip(starts, lengths, strict=True)]
    return np.frombuffer(b"".join(ranges), np.uint8), np.cumsum([0, *map(len, ranges)], dtype=np.int64)


@kernel
def _copy_ranges(
    data: NDArray[np.uint8], starts: NDArray[np.int64], offsets: NDArray[np.int64]
) -> NDArray[np.uint8]:
    copied = np.empty(offsets[-1], np.uint8)
    for r in range(len(starts)):
        n = offsets[r + 1] - offsets[r]
        copied[offsets[r] : offsets[r + 1]] = data[starts[r] : starts[r] + n]
    return copied


def narrow_spans(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    span_offsets: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    whole_words: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The longest spans within the given ones that begin and end between characters, or between words.

    Args:
        data, offsets, span_offsets, starts, stops: as in `without_spans`; the text is UTF-8.
        whole_words: split no word either, and let no two words meet that the span kept apart. Letters of
            scripts without spaces are words of their own.
    Returns:
        starts, stops: int64, (n_spans,); both are the same where nothing is left of a span.
    """
    data, offsets, span_offsets, starts, stops = read_only(data, offsets, span_offsets, starts, stops)
    return _narrow_spans(data, offsets, span_offsets, starts, stops, whole_words, unicode_tables())


def narrow_spans_reference(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    span_offsets: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    whole_words: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`narrow_spans` by a list of all borders of a document."""
    narrowed = np.stack([starts, stops])
    for d in range(len(offsets) - 1):
        text = data[offsets[d] : offsets[d + 1]].tobytes().decode()
        borders = [
            len(text[:i].encode())
            for i in range(len(text) + 1)
            if not (whole_words and _in_word_reference(text[:i][-1:], text[i:][:1]))
        ]
        for s in range(span_offsets[d], span_offsets[d + 1]):
            within = [border for border in borders if starts[s] <= border <= stops[s]]
            before = text.encode()[: within[0]].decode()[-1:] if within else ""
            apart = [
                border
                for border in within
                if not (whole_words and _in_word_reference(before, text.encode()[border:].decode()[:1]))
            ]
            narrowed[:, s] = (apart and (within[0], apart[-1])) or starts[s]
    return narrowed[0], narrowed[1]


def _in_word_reference(before: str, after: str) -> bool:
    if not before or not after:
        return False
    flags, following = flags_reference(before), flags_reference(after)
    if following & MARK:
        return bool(flags & WORD)
    return bool(flags & WORD and following & WORD and not (flags | following) & UNSPACED)


@kernel
def _narrow_spans(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    span_offsets: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    whole_words: bool,
    tables: UnicodeTables,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    page, flags = tables.page, tables.flags
    starts, stops = starts.copy(), stops.copy()
    for d in range(len(offsets) - 1):
        text = data[offsets[d] : offsets[d + 1]]
        for s in range(span_offsets[d], span_offsets[d + 1]):
            first, last = starts[s], stops[s]
            while first <= last and not _may_meet(text, first, first, whole_words, page, flags):
                first += 1
            while first <= last and not (
                _may_meet(text, last, last, whole_words, page, flags)
                and _may_meet(text, first, last, whole_words, page, flags)
            ):
                last -= 1
            starts[s], stops[s] = (first, last) if first <= last else (starts[s], starts[s])
    return starts, stops


@kernel
def _may_meet(
    text: NDArray[np.uint8],
    i: int,
    j: int,
    whole_words: bool,
    page: NDArray[np.uint16],
    flags: NDArray[np.uint8],
) -> bool:
    """Whether text[:i] may be followed by text[j:]; with i == j, whether a cut may begin or end there."""
    if j < len(text) and text[j] & 0xC0 == 0x80:
        return False
    if i == 0 or j == len(text) or not whole_words:
        return True
    start = i - 1
    while start > 0 and text[start] & 0xC0 == 0x80:
        start -= 1
    before = flags[entry(page, decode(text, start)[0])]
    after = flags[entry(page, decode(text, j)[0])]
    if after & MARK:
        return not before & WORD
    return not (before & WORD and after & WORD) or (before | after) & UNSPACED != 0

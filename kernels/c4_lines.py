"""The line rules of C4: which lines of a document stay, and why the others go."""

import re
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .byte_masks import first_in_range, wide
from .jit import inlined, read_only, uncounted
from .pieces import strip
from .short_hash import copy
from .unicode_tables import DECIMAL, LINE_BREAK, decode, entry, unicode_tables
from .word_classes import WHITE, word_classes

LOREM_IPSUM, JAVASCRIPT = "lorem ipsum", "javascript"
POLICIES = (
    "terms of use",
    "privacy policy",
    "cookie policy",
    "uses cookies",
    "use of cookies",
    "use cookies",
)
_PHRASES = tuple(phrase.encode() for phrase in (LOREM_IPSUM, JAVASCRIPT, *POLICIES))
_CITATION = re.compile(r"\[\d*]|\[edit]|\[citation needed]")
_TRIPLES = ((105, 112, 115), (106, 97, 118), (118, 97, 99), (114, 109, 115), (111, 107, 105))
"""Letters that no phrase is without: ips, jav, vac, rms, oki."""
_PHRASE_OFFSETS = np.cumsum([0, *map(len, _PHRASES)])
_PHRASE_BYTES = np.frombuffer(b"".join(_PHRASES), np.uint8)
_OPENINGS = tuple(np.frombuffer(text, np.uint8) for text in (b"[edit]", b"[citation needed]"))
_ENDINGS = tuple(b".?!\"'")
_LF, _CR, _DOT, _OPEN, _CLOSE, _CURLY = map(ord, "\n\r.[]{")
_IS_LOREM, _IS_JAVASCRIPT, _IS_POLICY = 1, 2, 4


class LineRules(NamedTuple):
    """The parameters of the line rules; 0 asks no such question."""

    max_word_length: int = 1000
    remove_citations: bool = True
    require_terminal_punctuation: bool = True
    min_words_per_line: int = 3


class KeptLines(NamedTuple):
    """The lines that stay, all int64, (n_kept_lines,), in order."""

    starts: NDArray[np.int64]
    """Where each begins in the text that stays."""
    ends: NDArray[np.int64]
    sources: NDArray[np.int64]
    """Where it began in the text that came, or -1 if it has lost a citation mark since."""


class LineCounts(NamedTuple):
    """Counts of each document, all int64, (n_docs,). The reasons are asked in this order, one for each
    line."""

    n_lines: NDArray[np.int64]
    n_long_word: NDArray[np.int64]
    n_no_terminal_punctuation: NDArray[np.int64]
    n_too_few_words: NDArray[np.int64]
    n_lorem_ipsum: NDArray[np.int64]
    """Lines that hold "lorem ipsum": they stay, their document goes."""
    n_javascript: NDArray[np.int64]
    n_curly_bracket: NDArray[np.int64]
    """Lines that hold "{": they stay, their document goes."""
    n_policy: NDArray[np.int64]
    n_citations: NDArray[np.int64]
    """Citation marks that were taken out."""


def c4_lines(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    rules: LineRules,
    word_starts: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.int64], KeptLines, LineCounts]:
    """The lines of each document that C4 keeps, and why the others go.

    Lines are those of ``str.splitlines``, words those of ``str.split``; a line loses the white space at both
    ends, then is asked for its longest word, loses its citation marks, and is asked for the rest. Phrases are
    compared in the lowercase of ASCII. The text that stays is its lines joined by newlines, without the white
    space at both ends.

    Args:
        data: uint8, (n_bytes,), UTF-8.
        offsets: int64, (n_docs + 1,), document d is data[offsets[d]:offsets[d + 1]].
        word_starts: int64, (n_words,), ascending: where words of another kind begin, of which a line needs
            `min_words_per_line`; none: those of ``str.split``.
    Returns:
        data: uint8, (n_kept_bytes,), offsets: int64, (n_docs + 1,), the lines in them, and the counts.
    Source: Raffel et al. 2020, section 2.2; the order of the rules and those that the paper does not name
    (long words,
        citations, policies) are those of its code in tensorflow_datasets, as datatrove has them.
    """
    data = wide(data)
    tables = unicode_tables()
    classes = word_classes()
    breaks = tables.flags[:256] & LINE_BREAK != 0
    breaks[0x80:] = False
    starts = np.empty(0, np.int64) if word_starts is None else word_starts
    data, offsets, starts = read_only(data, offsets, starts)
    arrays = (data, offsets, tables.page, tables.flags, classes.page, classes.entries, breaks)
    kept = np.empty(offsets[-1] - offsets[0] + 8, np.uint8)  # copy() may write seven bytes more
    kept_offsets, lines = (
        np.zeros(len(offsets), np.int64),
        np.empty((_most_lines(data, offsets), 3), np.int64),
    )
    counts = np.zeros((len(offsets) - 1, len(LineCounts._fields)), np.int64)
    given = (*arrays, starts, word_starts is not None, *rules)
    n_lines = _c4_lines(*given, kept, kept_offsets, lines, counts)
    return kept[: kept_offsets[-1]], kept_offsets, KeptLines(*lines[:n_lines].T), LineCounts(*counts.T)


def c4_lines_reference(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    rules: LineRules,
    word_starts: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.int64], KeptLines, LineCounts]:
    """`c4_lines` with Python's string methods. No line knows where it came from: all sources are -1."""
    texts, rows = [], []
    for start, end in pairwise(offsets):
        counts = dict.fromkeys(LineCounts._fields, 0)
        kept, behind = [], int(start)
        for line in data[start:end].tobytes().decode("utf-8").splitlines(keepends=True):
            first, behind = behind, behind + len(line.encode())
            n_words = len(line.split())
            if word_starts is not None:
                n_words = int(np.count_nonzero((first <= word_starts) & (word_starts < behind)))
            stays = _line_reference(line, n_words, rules, counts)
            kept += [] if stays is None else [stays]
        texts.append("\n".join(kept).strip().encode())
        rows.append([*counts.values()])
    columns = np.array(rows, np.int64).reshape(-1, len(LineCounts._fields)).T
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    bounds = []
    for begin, text in zip(offsets[:-1].tolist(), texts, strict=True):
        for encoded in text.split(b"\n") if text else ():
            bounds.append((begin, begin + len(encoded)))
            begin += len(encoded) + 1
    starts, ends = np.array(bounds, np.int64).reshape(-1, 2).T
    lines = KeptLines(starts, ends, np.full(starts.size, -1))
    return np.frombuffer(b"".join(texts), np.uint8), offsets, lines, LineCounts(*columns)


def _line_reference(line: str, n_words: int, rules: LineRules, counts: dict[str, int]) -> str | None:
    """What stays of one line, or None."""
    counts["n_lines"] += 1
    line = line.strip()
    if rules.max_word_length and any(len(word) > rules.max_word_length for word in line.split()):
        counts["n_long_word"] += 1
        return None
    if rules.remove_citations:
        line, n_citations = _CITATION.subn("", line)
        counts["n_citations"] += n_citations
    ends = line.endswith(tuple(map(chr, _ENDINGS))) and not line.endswith("...")
    if rules.require_terminal_punctuation and not ends:
        counts["n_no_terminal_punctuation"] += 1
        return None
    if n_words < rules.min_words_per_line:
        counts["n_too_few_words"] += 1
        return None
    folded = line.encode().lower()  # bytes.lower folds ASCII alone
    counts["n_lorem_ipsum"] += LOREM_IPSUM.encode() in folded
    if JAVASCRIPT.encode() in folded:
        counts["n_javascript"] += 1
        return None
    counts["n_curly_bracket"] += "{" in line
    if any(phrase.encode() in folded for phrase in POLICIES):
        counts["n_policy"] += 1
        return None
    return line


@uncounted
def _c4_lines(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    page: NDArray[np.uint16],
    flags: NDArray[np.uint8],
    word_page: NDArray[np.uint16],
    entries: NDArray[np.uint16],
    breaks: NDArray[np.bool_],
    word_starts: NDArray[np.int64],
    counts_words: bool,
    max_word_length: int,
    remove_citations: bool,
    require_terminal_punctuation: bool,
    min_words_per_line: int,
    kept: NDArray[np.uint8],
    kept_offsets: NDArray[np.int64],
    lines: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> int:
    n, n_lines, w = 0, 0, 0
    for d in range(len(counts)):
        begin, first_line, i, end = n, n_lines, offsets[d], offsets[d + 1]
        text = data[:end]
        while i < end:
            line = i
            i = _line_end(data, i, end, page, flags, breaks)
            start, stop = strip(text, line, i, word_page, entries)
            if i < end:
                is_pair = text[i] == _CR and i + 1 < end and text[i + 1] == _LF
                i = i + 2 if is_pair else decode(text, i)[1]
            counts[d, 0] += 1
            n_words, longest, has_bracket = _measure(text, start, stop, max_word_length, word_page, entries)
            if counts_words:
                n_words = 0
                while w < len(word_starts) and word_starts[w] < stop:
                    n_words += 1
                    w += 1
            if max_word_length and longest > max_word_length:
                counts[d, 1] += 1
                continue
            at = n + (n_lines > first_line)  # room for the newline before it
            length = stop - start
            lines[n_lines, 0], lines[n_lines, 2] = at, start
            if has_bracket and remove_citations:
                length, n_citations = _without_citations(text, start, stop, page, flags, kept, at)
                counts[d, 8] += n_citations
                lines[n_lines, 2] = -1 if n_citations else start
            else:
                copy(text, start, length, kept, at)
            reason = 0
            if require_terminal_punctuation and not _ends(kept, at, at + length):
                reason = 2
            elif n_words < min_words_per_line:
                reason = 3
            else:
                has_phrase, has_curly = _may_hold_phrase(kept, at, at + length)
                phrases = _phrases(kept[at : at + length]) if has_phrase else 0
                counts[d, 4] += phrases & _IS_LOREM
                if phrases & _IS_JAVASCRIPT:
                    reason = 5
                else:
                    counts[d, 6] += has_curly
                    reason = 7 if phrases & _IS_POLICY else 0
            if reason:
                counts[d, reason] += 1
                continue
            if n_lines > first_line:
                kept[n] = _LF
            n = at + length
            lines[n_lines, 1] = n
            n_lines += 1
        first, last = strip(kept, begin, n, word_page, entries)
        for k in range(last - first if first > begin else 0):
            kept[begin + k] = kept[first + k]
        n = begin + last - first
        for k in range(first_line, n_lines):
            for side in range(2):
                lines[k, side] = min(max(lines[k, side] - (first - begin), begin), n)
        kept_offsets[d + 1] = n
    return n_lines


@uncounted
def _most_lines(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> int:
    """No fewer than the lines of all documents: each ends with a document, a control character, or a byte of
    U+0085, U+2028 or U+2029."""
    n = len(offsets)
    for i in range(offsets[0], offsets[-1]):
        byte = data[np.uint64(i)]
        n += (byte < 0x20) | (byte == 0x85) | (byte == 0xA8) | (byte == 0xA9)
    return n


@inlined
def _line_end(
    data: NDArray[np.uint8],
    i: int,
    end: int,
    page: NDArray[np.uint16],
    flags: NDArray[np.uint8],
    breaks: NDArray[np.bool_],
) -> int:
    """The first byte of the line break that ends the line at byte i, or `end`."""
    i = first_in_range(data, i, end, 0x80, 0x1F)
    while i < end and not breaks[data[i]]:
        following = i + 1
        if data[i] >= 0x80:
            code, following = decode(data[:end], i)
            if flags[entry(page, code)] & LINE_BREAK:
                break
        i = first_in_range(data, following, end, 0x80, 0x1F)
    return i


@uncounted
def _measure(
    text: NDArray[np.uint8],
    start: int,
    end: int,
    max_word_length: int,
    page: NDArray[np.uint16],
    entries: NDArray[np.uint16],
) -> tuple[int, int, bool]:
    """The words of a stripped line, the code points of the longest (0: not too many), and whether it has
    brackets."""
    n_words, has_bracket, other_white, has_long = int(start < end), False, False, False
    for k in range(start + 1, end):
        n_words += _is_white(text[np.uint64(k - 1)]) & (not _is_white(text[np.uint64(k)]))
    # A word that is too long fills a block of half that length.
    n_block = max(max_word_length // 2, 1) if max_word_length else end - start
    block = start
    while block < end:
        stop, some_white = min(block + n_block, end), False
        for k in range(block, stop):
            byte = text[np.uint64(k)]
            some_white |= _is_white(byte)
            has_bracket |= byte == _OPEN
            # What white space beyond ASCII begins with.
            other_white |= (byte == 0xC2) | ((byte >= 0xE1) & (byte <= 0xE3))
        has_long |= not some_white
        block = stop
    if not other_white and not (has_long and end - start > max_word_length > 0):
        return n_words, 0, has_bracket
    n_words, longest, length, i = 0, 0, 0, start
    while i < end:
        if text[i] < 0x80:
            found, i = entries[text[i]], i + 1
        else:
            code, i = decode(text, i)
            found = entries[page[code >> 8] << 8 | (code & 0xFF)]
        if found & WHITE:
            length = 0
        else:
            n_words += length == 0
            length += 1
            longest = max(longest, length)
    return n_words, longest, has_bracket


@inlined
def _is_white(byte: int) -> bool:
    """White space of ASCII, without a branch: LLVM makes loops of vectors of what calls it."""
    return (byte == 0x20) | ((byte >= 9) & (byte <= 13)) | ((byte >= 28) & (byte <= 31))


@uncounted
def _without_citations(
    text: NDArray[np.uint8],
    start: int,
    end: int,
    page: NDArray[np.uint16],
    flags: NDArray[np.uint8],
    kept: NDArray[np.uint8],
    at: int,
) -> tuple[int, int]:
    """Copies a line without its citation marks; its length and the number of marks."""
    i, length, n_citations = start, 0, 0
    while i < end:
        mark = _citation(text[:end], i, page, flags) if text[i] == _OPEN else 0
        if mark:
            n_citations += 1
            i += mark
        else:
            kept[at + length] = text[i]
            length += 1
            i += 1
    return length, n_citations


@uncounted
def _citation(text: NDArray[np.uint8], start: int, page: NDArray[np.uint16], flags: NDArray[np.uint8]) -> int:
    """The bytes of the citation mark at `start`, or 0."""
    for k in range(len(_OPENINGS)):
        mark = _OPENINGS[k]
        same = start + len(mark) <= len(text)
        j = 0
        while same and j < len(mark):
            same = text[start + j] == mark[j]
            j += 1
        if same:
            return len(mark)
    i = start + 1
    while i < len(text):
        code, following = decode(text, i)
        if code == _CLOSE:
            return following - start
        if not flags[entry(page, code)] & DECIMAL:
            return 0
        i = following
    return 0


@inlined
def _ends(data: NDArray[np.uint8], start: int, end: int) -> bool:
    is_ellipsis = (
        end - start >= 3 and data[end - 1] == _DOT and data[end - 2] == _DOT and data[end - 3] == _DOT
    )
    return start < end and not is_ellipsis and data[end - 1] in _ENDINGS


@inlined
def _may_hold_phrase(data: NDArray[np.uint8], start: int, end: int) -> tuple[bool, bool]:
    """Whether a line may hold a phrase, and whether it has a curly bracket.

    Three letters stand for each phrase, which are rare elsewhere: the loop has no branch, so LLVM makes one
    of vectors of it.
    """
    found, has_curly = False, False
    for i in range(start, end):
        has_curly |= data[np.uint64(i)] == _CURLY
    for i in range(start, end - 2):
        # Indices without a sign spare the test for it, without which there are vectors.
        a, b, c = data[np.uint64(i)] | 0x20, data[np.uint64(i + 1)] | 0x20, data[np.uint64(i + 2)] | 0x20
        for letters in _TRIPLES:
            found |= (a == letters[0]) & (b == letters[1]) & (c == letters[2])
    return found, has_curly


@uncounted
def _phrases(line: NDArray[np.uint8]) -> int:
    """Which phrases a line holds, as flags."""
    found = 0
    for p in range(len(_PHRASE_OFFSETS) - 1):
        first, n_bytes = _PHRASE_OFFSETS[p], _PHRASE_OFFSETS[p + 1] - _PHRASE_OFFSETS[p]
        for i in range(len(line) - n_bytes + 1):
            j = 0
            while j < n_bytes and _lower(line[i + j]) == _PHRASE_BYTES[first + j]:
                j += 1
            if j == n_bytes:
                found |= _IS_LOREM if p == 0 else _IS_JAVASCRIPT if p == 1 else _IS_POLICY
    return found


@inlined
def _lower(byte: int) -> int:
    return byte + 32 if 0x41 <= byte <= 0x5A else byte

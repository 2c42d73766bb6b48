"""The line rules of C4: which lines of a document stay, and why the others go."""

import re
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .jit import inlined, kernel
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
# A letter that is rare in English stands for each phrase: where it is not, the phrase is not.
_ANCHORS = np.array([phrase.index(letter) for phrase, letter in zip(_PHRASES, b"mjmvkkkk", strict=True)])
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
) -> tuple[NDArray[np.uint8], NDArray[np.int64], LineCounts]:
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
        data: uint8, (n_kept_bytes,), offsets: int64, (n_docs + 1,), and the counts.
    Source: Raffel et al. 2020, section 2.2; the order of the rules and those that the paper does not name
    (long words,
        citations, policies) are those of its code in tensorflow_datasets, as datatrove has them.
    """
    tables = unicode_tables()
    classes = word_classes()
    look = np.array([bool(tables.flags[b] & LINE_BREAK) or b >= 0x80 for b in range(256)])
    anchors = np.zeros(256, np.bool_)
    for phrase, at in zip(_PHRASES, _ANCHORS, strict=True):
        anchors[[phrase[at], phrase[at] - 32]] = True
    starts = np.empty(0, np.int64) if word_starts is None else word_starts
    arrays = (data, offsets, tables.page, tables.flags, classes.page, classes.entries, look, anchors)
    kept, kept_offsets, counts = _c4_lines(*arrays, starts, word_starts is not None, *rules)
    return kept, kept_offsets, LineCounts(*counts.T)


def c4_lines_reference(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    rules: LineRules,
    word_starts: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.int64], LineCounts]:
    """`c4_lines` with Python's string methods."""
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
    return (
        np.frombuffer(b"".join(texts), np.uint8),
        np.cumsum([0, *map(len, texts)], dtype=np.int64),
        LineCounts(*columns),
    )


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


@kernel
def _c4_lines(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    page: NDArray[np.uint16],
    flags: NDArray[np.uint8],
    word_page: NDArray[np.uint16],
    entries: NDArray[np.uint16],
    look: NDArray[np.bool_],
    anchors: NDArray[np.bool_],
    word_starts: NDArray[np.int64],
    counts_words: bool,
    max_word_length: int,
    remove_citations: bool,
    require_terminal_punctuation: bool,
    min_words_per_line: int,
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    kept = np.empty(offsets[-1] - offsets[0] + 8, np.uint8)  # copy() may write seven bytes more
    kept_offsets = np.zeros(len(offsets), np.int64)
    counts = np.zeros((len(offsets) - 1, 9), np.int64)
    n, w = 0, 0
    for d in range(len(counts)):
        begin, i, end = n, offsets[d], offsets[d + 1]
        text, some = data[:end], False
        while i < end:
            line = i
            code, following = 0, i
            while i < end:
                while i < end and not look[text[i]]:
                    i += 1
                if i == end:
                    break
                code, following = decode(text, i)
                if flags[entry(page, code)] & LINE_BREAK:
                    break
                i = following
            stop = i
            if i < end:
                i = following
                i += code == _CR and i < end and text[i] == _LF
            counts[d, 0] += 1
            start, stop = strip(text, line, stop, word_page, entries)
            n_words, longest, has_bracket = _measure(text, start, stop, max_word_length, word_page, entries)
            if counts_words:
                n_words = 0
                while w < len(word_starts) and word_starts[w] < stop:
                    n_words += 1
                    w += 1
            if max_word_length and longest > max_word_length:
                counts[d, 1] += 1
                continue
            at = n + some  # room for the newline before it
            length = stop - start
            if has_bracket and remove_citations:
                length, n_citations = _without_citations(text, start, stop, page, flags, kept, at)
                counts[d, 8] += n_citations
            else:
                copy(text, start, length, kept, at)
            found = kept[at : at + length]
            reason = 0
            if require_terminal_punctuation and not _ends(found):
                reason = 2
            elif n_words < min_words_per_line:
                reason = 3
            else:
                phrases = _phrases(found, anchors)
                counts[d, 4] += phrases & _IS_LOREM
                if phrases & _IS_JAVASCRIPT:
                    reason = 5
                else:
                    counts[d, 6] += _has(found, _CURLY)
                    reason = 7 if phrases & _IS_POLICY else 0
            if reason:
                counts[d, reason] += 1
                continue
            if some:
                kept[n] = _LF
            some = True
            n = at + length
        first, last = strip(kept, begin, n, word_page, entries)
        for k in range(last - first):
            kept[begin + k] = kept[first + k]
        n = begin + last - first
        kept_offsets[d + 1] = n
    return kept[:n], kept_offsets, counts


@kernel
def _measure(
    text: NDArray[np.uint8],
    start: int,
    end: int,
    max_word_length: int,
    page: NDArray[np.uint16],
    entries: NDArray[np.uint16],
) -> tuple[int, int, bool]:
    """The words of a line, the code points of the longest (0: not too many), and whether it has brackets."""
    n_words, longest, length, has_bracket, high = 0, 0, 0, False, np.uint8(0)
    white = True
    for k in range(start, end):
        is_white = (entries[text[k]] & WHITE) != 0
        n_words += white and not is_white
        white = is_white
        has_bracket |= text[k] == _OPEN
        high |= text[k]
    if high < 0x80 and end - start <= max_word_length:
        return n_words, 0, has_bracket
    n_words = 0
    i = start
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


@kernel
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


@kernel
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
def _ends(line: NDArray[np.uint8]) -> bool:
    n = len(line)
    if n == 0 or (n >= 3 and line[n - 1] == _DOT and line[n - 2] == _DOT and line[n - 3] == _DOT):
        return False
    return line[n - 1] in _ENDINGS


@inlined
def _has(line: NDArray[np.uint8], byte: int) -> bool:
    found = False
    for i in range(len(line)):
        found |= line[i] == byte
    return found


@kernel
def _phrases(line: NDArray[np.uint8], anchors: NDArray[np.bool_]) -> int:
    """Which phrases a line holds, as flags."""
    found = 0
    for i in range(len(line)):
        if not anchors[line[i]]:
            continue
        letter = line[i] | 0x20
        for p in range(len(_ANCHORS)):
            if _PHRASE_BYTES[_PHRASE_OFFSETS[p] + _ANCHORS[p]] != letter:
                continue
            first, n_bytes = i - _ANCHORS[p], _PHRASE_OFFSETS[p + 1] - _PHRASE_OFFSETS[p]
            same = first >= 0 and first + n_bytes <= len(line)
            j = 0
            while same and j < n_bytes:
                byte = line[first + j]
                byte += 32 if 0x41 <= byte <= 0x5A else 0
                same = byte == _PHRASE_BYTES[_PHRASE_OFFSETS[p] + j]
                j += 1
            if same:
                found |= _IS_LOREM if p == 0 else _IS_JAVASCRIPT if p == 1 else _IS_POLICY
    return found

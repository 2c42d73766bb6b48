"""What the Gopher quality rules count in a document: symbols, lines, and kinds of words.

Two ways to cut lines and find ellipses are in use:

`universal`
    Lines are what ``str.splitlines`` gives, blank ones included, and an ellipsis is "..." or U+2026
    (datatrove).
`stripped`
    Lines end at a newline, blank ones are left out, and ". . ." is an ellipsis too (DCLM).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .byte_masks import WIDTH, below, in_range, n_ones, wide
from .jit import read_only, uncounted
from .pieces import strip
from .short_hash import N_OUTLINES, outline, short_hash
from .unicode_tables import LINE_BREAK, decode, entry, unicode_tables
from .word_classes import word_classes
from .word_kinds import ALNUM_FIRST, ALPHABETIC, SYMBOLIC
from .words import Words

Lines = Literal["universal", "stripped"]

MAX_STOP_WORDS = 64
_HASH, _DOT, _LF, _CR, _BLANK = map(ord, "#.\n\r ")
_ELLIPSIS = 0x2026


class LineStatistics(NamedTuple):
    """Counts of each document, all int64, (n_docs,)."""

    n_characters: NDArray[np.int64]
    """Code points."""
    n_hashes: NDArray[np.int64]
    n_ellipses: NDArray[np.int64]
    """Non-overlapping ellipses of each kind."""
    n_lines: NDArray[np.int64]
    n_bullet_lines: NDArray[np.int64]
    """Lines whose first character outside white space is a bullet."""
    n_ellipsis_lines: NDArray[np.int64]
    """Lines that end in an ellipsis, white space aside."""


class WordStatistics(NamedTuple):
    """Counts of each document, all int64, (n_docs,)."""

    n_words: NDArray[np.int64]
    n_characters: NDArray[np.int64]
    """Code points of all words."""
    n_alphabetic: NDArray[np.int64]
    """Words with at least one alphabetic code point."""
    n_symbolic: NDArray[np.int64]
    """Words of punctuation and control characters alone."""
    n_symbolic_characters: NDArray[np.int64]
    n_alnum_first: NDArray[np.int64]
    """Words that begin with a letter or a number."""
    n_stop_words: NDArray[np.int64]


def line_statistics(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], bullets: Sequence[str], lines: Lines
) -> LineStatistics:
    """The counts of each document's symbols and lines.

    Args:
        data: uint8, (n_bytes,), UTF-8; a byte that is not is read as U+FFFD.
        offsets: int64, (n_docs + 1,), document d is data[offsets[d]:offsets[d + 1]].
        bullets: single characters that open a bullet line.
    Raises:
        ValueError: a bullet is not one character.
    """
    if wrong := [bullet for bullet in bullets if len(bullet) != 1]:
        raise ValueError(f"bullet {wrong[0]!r} has {len(wrong[0])} characters, a bullet is one character")
    codes = np.array([ord(bullet) for bullet in bullets], np.int64)
    tables = unicode_tables()
    look = np.array([bool(tables.flags[b] & LINE_BREAK) or chr(b) in "#." or b >= 0x80 for b in range(256)])
    counts = np.zeros((len(offsets) - 1, len(LineStatistics._fields)), np.int64)
    arrays = (data, offsets, tables.page, tables.flags, *word_classes(), look, codes)
    _line_statistics(*arrays, lines == "universal", counts)
    return LineStatistics(*counts.T)


def line_statistics_reference(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], bullets: Sequence[str], lines: Lines
) -> LineStatistics:
    """`line_statistics` with Python's string methods."""
    ellipses = ("...", "\u2026") if lines == "universal" else ("...", "\u2026", ". . .")
    rows = []
    for start, end in pairwise(offsets):
        text = data[start:end].tobytes().decode("utf-8", "replace")
        found = text.splitlines() if lines == "universal" else list(filter(str.strip, text.split("\n")))
        rows.append(
            (
                len(text),
                text.count("#"),
                sum(map(text.count, ellipses)),
                len(found),
                sum(line.lstrip().startswith(tuple(bullets)) for line in found),
                sum(line.rstrip().endswith(ellipses) for line in found),
            )
        )
    return LineStatistics(*np.array(rows, np.int64).reshape(-1, len(LineStatistics._fields)).T)


def word_statistics(
    data: NDArray[np.uint8], words: Words, stop_words: Sequence[str], fold_and_repeat: bool = False
) -> WordStatistics:
    """The counts of each document's words.

    Args: data: uint8, (n_bytes,), UTF-8. words: the words of its documents. stop_words: at most 64 different
        words. Each counts once for a document, compared as it is written. fold_and_repeat: compare stop words
        with the lowercase (of ASCII) of each word, and count every occurrence.
    Raises:
        ValueError: more than 64 stop words.
    """
    if len(stop_words) > MAX_STOP_WORDS:
        raise ValueError(
            f"found {len(stop_words)} stop words, at most {MAX_STOP_WORDS} are allowed: shorten the list"
        )
    encoded = [np.frombuffer(word.encode(), np.uint8) for word in stop_words]
    hashes = np.unique(np.array([short_hash(word, 0, len(word)) for word in encoded], np.uint64))
    longest = max(map(len, encoded), default=0)
    outlines = np.zeros(N_OUTLINES, np.bool_)
    for word in filter(len, encoded):
        outlines[outline(word[0], word[-1], len(word))] = True
    counts = np.zeros((len(words.offsets) - 1, len(WordStatistics._fields)), np.int64)
    folded = np.empty(max(longest, 1), np.uint8)
    _word_statistics(data, *words, hashes, outlines, longest, fold_and_repeat, folded, counts)
    return WordStatistics(*counts.T)


def word_statistics_reference(
    data: NDArray[np.uint8], words: Words, stop_words: Sequence[str], fold_and_repeat: bool = False
) -> WordStatistics:
    """`word_statistics` in plain Python."""
    rows = []
    for first, last in pairwise(words.offsets):
        document = slice(first, last)
        kinds, lengths = words.kinds[document], words.n_characters[document]
        spans = zip(words.starts[document], words.n_bytes[document], strict=True)
        texts = [bytes(data[start : start + n_bytes]) for start, n_bytes in spans]
        known = {word.encode() for word in stop_words}
        found = len(known & set(texts))
        if fold_and_repeat:
            found = sum(text.lower() in known for text in texts)  # bytes.lower folds ASCII alone
        symbolic = kinds & SYMBOLIC != 0
        rows.append(
            (
                len(kinds),
                lengths.sum(),
                np.count_nonzero(kinds & ALPHABETIC),
                np.count_nonzero(symbolic),
                lengths[symbolic].sum(),
                np.count_nonzero(kinds & ALNUM_FIRST),
                found,
            )
        )
    return WordStatistics(*np.array(rows, np.int64).reshape(-1, len(WordStatistics._fields)).T)


@uncounted
def _line_statistics(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    page: NDArray[np.uint16],
    flags: NDArray[np.uint8],
    word_page: NDArray[np.uint16],
    entries: NDArray[np.uint16],
    look: NDArray[np.bool_],
    bullets: NDArray[np.int64],
    universal: bool,
    counts: NDArray[np.int64],
) -> None:
    for d in range(len(counts)):
        begin, end = offsets[d], offsets[d + 1]
        text = data[:end]
        i, line, n_extra, dots, free = begin, begin, 0, 0, begin  # free: behind the last ". . ."
        while i < end:
            while i < end and not look[text[i]]:
                dots = 0
                i += 1
            if i == end:
                break
            code, following = int(text[i]), i + 1
            if code >= 0x80:
                code, following = decode(text, i)
                n_extra += following - i - 1
            dots = dots + 1 if code == _DOT else 0
            counts[d, 1] += code == _HASH
            counts[d, 2] += code == _ELLIPSIS or (code == _DOT and dots % 3 == 0)
            if code == _DOT and not universal and i >= free and _is_spaced(text, i):
                counts[d, 2] += 1
                free = i + 5
            is_break = code == _LF or (universal and flags[entry(page, code)] & LINE_BREAK != 0)
            if is_break:
                if not (universal and code == _LF and i > begin and text[i - 1] == _CR):
                    _count_line(text, line, i, word_page, entries, bullets, universal, counts[d])
                line = following
            i = following
        if line < end:
            _count_line(text, line, end, word_page, entries, bullets, universal, counts[d])
        counts[d, 0] = end - begin - n_extra


@uncounted
def _count_line(
    text: NDArray[np.uint8],
    start: int,
    end: int,
    page: NDArray[np.uint16],
    entries: NDArray[np.uint16],
    bullets: NDArray[np.int64],
    universal: bool,
    counts: NDArray[np.int64],
) -> None:
    start, end = strip(text, start, end, page, entries)
    if start == end:
        counts[3] += universal
        return
    counts[3] += 1
    code, _ = decode(text, start)
    for bullet in bullets:
        if code == bullet:
            counts[4] += 1
            break
    n = end - start
    three_dots = n >= 3 and text[end - 1] == _DOT and text[end - 2] == _DOT and text[end - 3] == _DOT
    one_mark = n >= 3 and decode(text[:end], end - 3)[0] == _ELLIPSIS
    spaced = not universal and n >= 5 and _is_spaced(text[:end], end - 5)
    counts[5] += three_dots or one_mark or spaced


@uncounted
def _is_spaced(text: NDArray[np.uint8], i: int) -> bool:
    """Whether ". . ." stands at byte i."""
    return (
        i + 5 <= len(text)
        and text[i] == _DOT
        and text[i + 1] == _BLANK
        and text[i + 2] == _DOT
        and text[i + 3] == _BLANK
        and text[i + 4] == _DOT
    )


@uncounted
def _word_statistics(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    n_bytes: NDArray[np.int32],
    n_characters: NDArray[np.int32],
    kinds: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    stop_hashes: NDArray[np.uint64],
    outlines: NDArray[np.bool_],
    longest: int,
    fold_and_repeat: bool,
    folded: NDArray[np.uint8],
    counts: NDArray[np.int64],
) -> None:
    for d in range(len(counts)):
        total, alphabetic, symbolic, symbolic_characters, alnum_first, n_stop = 0, 0, 0, 0, 0, 0
        for k in range(offsets[d], offsets[d + 1]):
            is_symbolic = kinds[k] & SYMBOLIC != 0
            total += n_characters[k]
            alphabetic += kinds[k] & ALPHABETIC != 0
            alnum_first += kinds[k] & ALNUM_FIRST != 0
            symbolic += is_symbolic
            symbolic_characters += is_symbolic * n_characters[k]
        met = np.uint64(0)
        for k in range(offsets[d], offsets[d + 1]):
            start, length = starts[k], n_bytes[k]
            if length > longest or not outlines[outline(data[start], data[start + length - 1], length)]:
                continue
            if fold_and_repeat:
                for j in range(length):
                    byte = data[start + j]
                    folded[j] = byte + 32 if 0x41 <= byte <= 0x5A else byte
                n_stop += _stop_word(stop_hashes, short_hash(folded, 0, length)) != 0
            else:
                met |= _stop_word(stop_hashes, short_hash(data, start, length))
        counts[d, 0], counts[d, 1] = offsets[d + 1] - offsets[d], total
        counts[d, 2], counts[d, 3], counts[d, 4] = alphabetic, symbolic, symbolic_characters
        counts[d, 5], counts[d, 6] = alnum_first, n_stop if fold_and_repeat else n_ones(met)


@uncounted
def _stop_word(stop_hashes: NDArray[np.uint64], word_hash: np.uint64) -> np.uint64:
    """The bit of the stop word with this hash, or 0."""
    for k in range(len(stop_hashes)):
        if stop_hashes[k] == word_hash:
            return np.uint64(1) << np.uint64(k)
    return np.uint64(0)


def n_characters(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64, (n_docs,): the code points of each document, which must be UTF-8 (other bytes count as they
    come).

    >>> n_characters(np.frombuffer("aé".encode(), np.uint8), np.array([0, 1, 3])).tolist()
    [1, 1]
    """
    return newlines(data, offsets).sum(axis=0)  # type: ignore[no-any-return]


def newlines(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64, (2, n_docs): the newlines of each document, and its other code points (of UTF-8, as above).

    >>> newlines(np.frombuffer("a\\né".encode(), np.uint8), np.array([0, 4])).tolist()
    [[1], [2]]
    """
    counts = np.zeros((2, len(offsets) - 1), np.int64)
    data, offsets = read_only(wide(data), offsets)
    _newlines(data, offsets, counts)
    return counts


@uncounted
def _newlines(data: NDArray[np.uint8], offsets: NDArray[np.int64], counts: NDArray[np.int64]) -> None:
    for d in range(len(offsets) - 1):
        start, end = offsets[d], offsets[d + 1]
        n_newlines, n_others = 0, end - start
        for i in range(start, end, WIDTH):
            inside = below(end - i)
            n_newlines += n_ones(in_range(data, i, _LF, _LF) & inside)
            n_others -= n_ones(in_range(data, i, 0x80, 0xBF) & inside)  # bytes that continue a code point
        counts[0, d], counts[1, d] = n_newlines, n_others - n_newlines

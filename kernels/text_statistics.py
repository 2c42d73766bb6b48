"""What the Gopher quality rules count in a document, in one pass over its bytes.

Word profile ``paper``: words are what ``str.split()`` gives. Lines are what ``str.splitlines()`` gives, blank
ones included.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .hashing import hash_ranges, xxh64
from .jit import kernel
from .unicode_tables import (
    ALPHABETIC,
    LINE_BREAK,
    PUNCTUATION,
    SPACE,
    UnicodeTables,
    decode,
    entry,
    unicode_tables,
)

MAX_STOP_WORDS = 64
_HASH, _DOT, _LF, _CR, _ELLIPSIS = ord("#"), ord("."), ord("\n"), ord("\r"), 0x2026
_SEED = np.uint64(0)


class TextStatistics(NamedTuple):
    """Counts of each document, all int64, (n_docs,)."""

    n_characters: NDArray[np.int64]
    """Code points."""
    n_words: NDArray[np.int64]
    n_word_characters: NDArray[np.int64]
    """Code points outside white space: the sum of the words' lengths."""
    n_alpha_words: NDArray[np.int64]
    """Words with at least one alphabetic code point."""
    n_stop_words: NDArray[np.int64]
    """Different stop words among the words."""
    n_hashes: NDArray[np.int64]
    n_ellipses: NDArray[np.int64]
    """Non-overlapping "..." plus U+2026."""
    n_lines: NDArray[np.int64]
    n_bullet_lines: NDArray[np.int64]
    """Lines whose first character outside white space is a bullet."""
    n_ellipsis_lines: NDArray[np.int64]
    """Lines that end in "..." or U+2026, white space aside."""


def text_statistics(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], stop_words: Sequence[str], bullets: Sequence[str]
) -> TextStatistics:
    """The counts of each document.

    Args:
        data: uint8, (n_bytes,), UTF-8; a byte that is not is read as U+FFFD.
        offsets: int64, (n_docs + 1,), document d is data[offsets[d]:offsets[d + 1]].
        stop_words: at most 64 different words, compared as they are written.
        bullets: single characters that open a bullet line.
    Raises:
        ValueError: more than 64 stop words, or a bullet that is not one character.
    """
    if len(stop_words) > MAX_STOP_WORDS:
        raise ValueError(
            f"found {len(stop_words)} stop words, at most {MAX_STOP_WORDS} are allowed: shorten the list"
        )
    if wrong := [bullet for bullet in bullets if len(bullet) != 1]:
        raise ValueError(f"bullet {wrong[0]!r} has {len(wrong[0])} characters, a bullet is one character")
    encoded = [word.encode() for word in stop_words]
    stop_offsets = np.cumsum([0, *map(len, encoded)])
    stop_hashes = hash_ranges(np.frombuffer(b"".join(encoded), np.uint8), stop_offsets)
    longest = max(map(len, encoded), default=0)
    codes = np.array([ord(bullet) for bullet in bullets], np.int64)
    counts = _count(data, offsets, unicode_tables(), np.unique(stop_hashes), longest, codes)
    return TextStatistics(*counts.T)


def text_statistics_reference(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], stop_words: Sequence[str], bullets: Sequence[str]
) -> TextStatistics:
    """`text_statistics` with Python's string methods."""
    counts = []
    for start, end in pairwise(offsets):
        text = data[start:end].tobytes().decode("utf-8", "replace")
        words, lines = text.split(), text.splitlines()
        counts.append(
            (
                len(text),
                len(words),
                sum(map(len, words)),
                sum(any(map(str.isalpha, word)) for word in words),
                len(set(words) & set(stop_words)),
                text.count("#"),
                text.count("...") + text.count("\u2026"),
                len(lines),
                sum(line.lstrip().startswith(tuple(bullets)) for line in lines),
                sum(line.rstrip().endswith(("...", "\u2026")) for line in lines),
            )
        )
    return TextStatistics(*np.array(counts, np.int64).reshape(-1, len(TextStatistics._fields)).T)


@kernel
def _count(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    tables: UnicodeTables,
    stop_hashes: NDArray[np.uint64],
    longest_stop_word: int,
    bullets: NDArray[np.int64],
) -> NDArray[np.int64]:
    counts = np.empty((len(offsets) - 1, 10), np.int64)
    for d in range(len(counts)):
        text = data[offsets[d] : offsets[d + 1]]
        counts[d] = _count_document(text, tables.page, tables.flags, stop_hashes, longest_stop_word, bullets)
    return counts


@kernel
def _count_document(
    text: NDArray[np.uint8],
    page: NDArray[np.uint16],
    class_of: NDArray[np.uint8],
    stop_hashes: NDArray[np.uint64],
    longest_stop_word: int,
    bullets: NDArray[np.int64],
) -> tuple[int, int, int, int, int, int, int, int, int, int]:
    n_continuations, n_spaces, n_words, n_alpha_words, stop_words = 0, 0, 0, 0, np.uint64(0)
    n_hashes, n_ellipses, n_lines, n_bullet_lines, n_ellipsis_lines = 0, 0, 0, 0, 0
    line_start, line_is_blank = 0, True
    dots = 0  # that end the line so far, white space aside; U+2026 counts for three
    i = 0
    while i < len(text):
        # One round: a word, which may be empty, and the space that ends it.
        word_start, word_flags, code, following, flags, run = i, 0, 0, i, 0, 0
        while i < len(text):
            if text[i] < 0x80:
                code, following, flags = text[i], i + 1, class_of[text[i]]
            else:
                code, following = decode(text, i)
                flags = class_of[entry(page, code)]
                n_continuations += following - i - 1
            if flags & SPACE:
                break
            i = following
            word_flags |= flags
            if line_is_blank:
                line_is_blank = False
                n_bullet_lines += _contains(bullets, code)
            if flags & PUNCTUATION:
                run = run + 1 if code == _DOT else 0
                dots = 3 if code == _ELLIPSIS else run
                n_ellipses += code == _ELLIPSIS or (code == _DOT and run % 3 == 0)
                n_hashes += code == _HASH
            else:
                run = dots = 0
                while i < len(text) and text[i] < 0x80 and not class_of[text[i]] & (SPACE | PUNCTUATION):
                    word_flags |= class_of[text[i]]
                    i += 1
        if i > word_start:
            n_words += 1
            n_alpha_words += (word_flags & ALPHABETIC) != 0
            if i - word_start <= longest_stop_word:
                stop_words |= _stop_word(stop_hashes, xxh64(text[word_start:i], _SEED))
        if i < len(text):
            n_spaces += 1
            if flags & LINE_BREAK:
                if code != _LF or i == 0 or text[i - 1] != _CR:
                    n_lines += 1
                    n_ellipsis_lines += dots >= 3
                line_start, line_is_blank, dots = following, True, 0
            i = following
    if line_start < len(text):
        n_lines += 1
        n_ellipsis_lines += dots >= 3
    n_characters = len(text) - n_continuations
    n_word_characters = n_characters - n_spaces
    n_stop_words = _n_ones(stop_words)
    return (
        n_characters, n_words, n_word_characters, n_alpha_words, n_stop_words,
        n_hashes, n_ellipses, n_lines, n_bullet_lines, n_ellipsis_lines,
    )  # fmt: skip


@kernel
def _contains(codes: NDArray[np.int64], code: int) -> bool:
    for candidate in codes:  # noqa: SIM110, numba compiles no any()
        if candidate == code:
            return True
    return False


@kernel
def _stop_word(stop_hashes: NDArray[np.uint64], word_hash: np.uint64) -> np.uint64:
    """The bit of the stop word with this hash, or 0."""
    for k in range(len(stop_hashes)):
        if stop_hashes[k] == word_hash:
            return np.uint64(1) << np.uint64(k)
    return np.uint64(0)


@kernel
def _n_ones(bits: np.uint64) -> int:
    n = 0
    while bits:
        bits &= bits - np.uint64(1)
        n += 1
    return n

"""Word n-grams of paragraphs, and which paragraphs only repeat what earlier ones said.

A paragraph is a line of text with the ``\\n`` that ends it. Words are nearly those of Unicode's UAX 29: runs
of letters, digits, underscores and marks, held together by an apostrophe, full stop or colon between letters
("don't", "e.g") and by a full stop or comma between digits ("3.14"); each letter of a script without spaces;
each other visible character; every one with the marks that follow it. Letters keep their case.
"""

import re
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .hashing import avalanche, avalanche_reference
from .jit import kernel, read_only
from .unicode_tables import (
    ALPHABETIC,
    DECIMAL,
    MARK,
    SPACE,
    UNSPACED,
    WORD,
    UnicodeTables,
    decode,
    entry,
    flags_reference,
    unicode_tables,
)

_K = np.uint64(0x9E3779B97F4A7C15)  # see shingles.py
_MASK = (1 << 64) - 1
_NEWLINE = 10

_BETWEEN_LETTERS = ":\u00b7\u2027"  # UAX 29, property MidLetter
_BETWEEN_DIGITS = ",;\u066c"  # MidNum
_BETWEEN_BOTH = ".'\u2018\u2019\u2024"  # MidNumLet and Single_Quote

# What a character is to a word. The reference writes kinds as letters and looks for words in them.
_SPACE, _LETTER, _DIGIT, _OTHER_WORD, _MARK, _UNSPACED, _MID_LETTER, _MID_DIGIT, _MID_BOTH, _ALONE = range(10)
_KIND_LETTERS = " adwmulnbo"
_WORDS = re.compile(r"[uo]m*|[adwm](?:[adwm]|(?<=[am])[lb](?=a)|(?<=d)[nb](?=d))*|[lnb]m*")


class ParagraphNgrams(NamedTuple):
    """The paragraphs of some documents and their n-grams.

    offsets: int64, (n_docs + 1,), document d's paragraphs are those of offsets[d] to offsets[d + 1].
    ngram_offsets: int64, (n_paragraphs + 1,), paragraph p's n-grams are
        ngrams[ngram_offsets[p]:ngram_offsets[p + 1]].
    ngrams: uint64, (n_ngrams,), 64-bit hashes.
    """

    offsets: NDArray[np.int64]
    ngram_offsets: NDArray[np.int64]
    ngrams: NDArray[np.uint64]


def paragraph_ngrams(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], n: int, min_words: int
) -> ParagraphNgrams:
    """The hash of each run of n words of each paragraph.

    A paragraph of `min_words` to n - 1 words is one n-gram; one of fewer words has none.

    Args:
        data: uint8, (n_bytes,), UTF-8; a byte that is not is read as U+FFFD.
        offsets: int64, (n_docs + 1,), document d is data[offsets[d]:offsets[d + 1]].
        n, min_words: words, at least 1.
    Raises:
        ValueError: n or min_words is less than 1.
    Source: The Unicode Standard, annex 29, section 4.1. It departs in Katakana, whose letters are words of
        their own, in emoji, of which each code point is a word, and in the rarer rules (Hebrew quotes, format
        characters, marks before a joining stop).
    """
    _check(n, min_words)
    data, offsets = read_only(data, offsets)
    words, paragraphs, word_offsets = _paragraph_words(data, offsets, unicode_tables())
    return ParagraphNgrams(paragraphs, *_ngrams(words, word_offsets, n, min_words))


def paragraph_ngrams_reference(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], n: int, min_words: int
) -> ParagraphNgrams:
    """`paragraph_ngrams` in plain Python."""
    _check(n, min_words)
    counts, ngram_counts, ngrams = [0], [0], []
    for start, stop in pairwise(offsets):
        text = data[start:stop].tobytes().decode("utf-8", "replace")
        paragraphs = re.findall(r"[^\n]*\n|[^\n]+", text)
        counts.append(len(paragraphs))
        for paragraph in paragraphs:
            words = [_word_hash(word) for word in uax29_words_reference(paragraph)]
            runs = [words[i : i + n] for i in range(len(words) - n + 1)]
            runs = runs or [words] * (len(words) >= min_words)
            ngram_counts.append(len(runs))
            for run in runs:
                h = 0
                for word in run:
                    h = (h * int(_K) + word) & _MASK
                ngrams.append(avalanche_reference(h))
    return ParagraphNgrams(np.cumsum(counts), np.cumsum(ngram_counts), np.array(ngrams, np.uint64))


def uax29_words_reference(text: str) -> list[str]:
    """The words of a text, as this module cuts them.

    >>> uax29_words_reference("Don't pay 3.14, e.g. in 東京.")
    ["Don't", 'pay', '3.14', ',', 'e.g', '.', 'in', '東', '京', '.']
    """
    kinds = "".join(_KIND_LETTERS[_kind_reference(character)] for character in text)
    return [text[found.start() : found.end()] for found in _WORDS.finditer(kinds)]


def _kind_reference(character: str) -> int:
    for kind, characters in (
        (_MID_LETTER, _BETWEEN_LETTERS),
        (_MID_DIGIT, _BETWEEN_DIGITS),
        (_MID_BOTH, _BETWEEN_BOTH),
    ):
        if character in characters:
            return kind
    flags = flags_reference(character)
    kinds = (
        (_SPACE, SPACE),
        (_UNSPACED, UNSPACED),
        (_MARK, MARK),
        (_LETTER, ALPHABETIC),
        (_DIGIT, DECIMAL),
        (_OTHER_WORD, WORD),
    )
    return next((kind for kind, flag in kinds if flags & flag), _ALONE)


def _word_hash(word: str) -> int:
    h = 0
    for character in word:
        h = (h ^ ord(character)) * int(_K) & _MASK
    return avalanche_reference(h)


def _check(n: int, min_words: int) -> None:
    if min(n, min_words) < 1:
        raise ValueError(f"n is {n} and min_words is {min_words}: an n-gram has at least 1 word")


_MIDS = tuple(
    sorted((ord(c), _kind_reference(c)) for c in _BETWEEN_LETTERS + _BETWEEN_DIGITS + _BETWEEN_BOTH)
)
_MID_CODES = np.array([code for code, _ in _MIDS], np.int64)
_MID_KINDS = np.array([kind for _, kind in _MIDS], np.uint8)


@kernel
def _kind(code: int, flag: int) -> int:
    if flag & SPACE:
        return _SPACE
    if flag & UNSPACED:
        return _UNSPACED
    if flag & MARK:
        return _MARK
    if flag & ALPHABETIC:
        return _LETTER
    if flag & DECIMAL:
        return _DIGIT
    if flag & WORD:
        return _OTHER_WORD
    for i in range(len(_MID_CODES)):
        if code == _MID_CODES[i]:
            return int(_MID_KINDS[i])
    return _ALONE


@kernel
def _paragraph_words(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], tables: UnicodeTables
) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
    """The word hashes, each document's paragraphs and each paragraph's words."""
    ascii_kinds = np.empty(128, np.uint8)
    for byte in range(128):
        ascii_kinds[byte] = _kind(byte, tables.flags[byte])
    n_lines = len(offsets) - 1
    for i in range(offsets[0], offsets[-1]):
        n_lines += data[i] == _NEWLINE
    words = np.empty(offsets[-1] - offsets[0], np.uint64)
    word_offsets = np.zeros(n_lines + 1, np.int64)
    paragraphs = np.zeros(len(offsets), np.int64)
    n_words, n_paragraphs = 0, 0
    for d in range(len(offsets) - 1):
        start = offsets[d]
        while start < offsets[d + 1]:
            stop = start
            while stop < offsets[d + 1] and data[stop] != _NEWLINE:
                stop += 1
            text, found = data[start:stop], words[n_words:]
            n_words += _words(text, ascii_kinds, tables.page, tables.flags, found)
            n_paragraphs += 1
            word_offsets[n_paragraphs] = n_words
            start = stop + 1
        paragraphs[d + 1] = n_paragraphs
    return words[:n_words], paragraphs, word_offsets[: n_paragraphs + 1]


@kernel
def _words(
    text: NDArray[np.uint8],
    ascii_kinds: NDArray[np.uint8],
    page: NDArray[np.uint16],
    flags: NDArray[np.uint8],
    words: NDArray[np.uint64],
) -> int:
    n_words = 0
    in_word, in_run = False, False  # in_run: letters join the word; else it takes only marks
    h = np.uint64(0)
    before = _SPACE
    i = 0
    while i < len(text):
        code, kind, i = _next(text, i, ascii_kinds, page, flags)
        run = _LETTER <= kind <= _OTHER_WORD or (kind == _MARK and not in_word)
        joins = in_word and (kind == _MARK or (run and in_run))
        if in_run and _MID_LETTER <= kind <= _MID_BOTH and i < len(text):
            _, after, _ = _next(text, i, ascii_kinds, page, flags)
            letters = before in (_LETTER, _MARK) and after == _LETTER and kind != _MID_DIGIT
            digits = before == _DIGIT and after == _DIGIT and kind != _MID_LETTER
            joins = letters or digits
        if in_word and not joins:
            words[n_words] = avalanche(h)
            n_words += 1
            in_word = False
        if kind != _SPACE:
            if not in_word:
                in_word, in_run, h = True, run, np.uint64(0)
            h = (h ^ np.uint64(code)) * _K
        else:
            in_run = False
        before = kind
    if in_word:
        words[n_words] = avalanche(h)
        n_words += 1
    return n_words


@kernel
def _next(
    text: NDArray[np.uint8],
    i: int,
    ascii_kinds: NDArray[np.uint8],
    page: NDArray[np.uint16],
    flags: NDArray[np.uint8],
) -> tuple[int, int, int]:
    """The code point at byte i, its kind, and where the next one starts."""
    if text[i] < 0x80:
        return int(text[i]), int(ascii_kinds[text[i]]), i + 1
    code, following = decode(text, i)
    return code, _kind(code, flags[entry(page, code)]), following


@kernel
def _ngrams(
    words: NDArray[np.uint64], word_offsets: NDArray[np.int64], n: int, min_words: int
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    offsets = np.zeros(len(word_offsets), np.int64)
    for p in range(len(word_offsets) - 1):
        n_words = word_offsets[p + 1] - word_offsets[p]
        n_ngrams = max(n_words - n + 1, 0)
        offsets[p + 1] = offsets[p] + (n_ngrams if n_ngrams or n_words < min_words else 1)
    leaving = np.uint64(1)  # _K ** n, the weight of the word that leaves the window
    for _ in range(n):
        leaving *= _K
    ngrams = np.empty(offsets[-1], np.uint64)
    for p in range(len(word_offsets) - 1):
        paragraph = words[word_offsets[p] : word_offsets[p + 1]]
        found = ngrams[offsets[p] : offsets[p + 1]]
        if len(found) == 0:
            continue
        h = np.uint64(0)
        for i in range(len(paragraph)):
            h = h * _K + paragraph[i]
            if i >= n:
                h -= paragraph[i - n] * leaving
            if i >= n - 1:
                found[i - n + 1] = avalanche(h)
        if len(paragraph) < n:
            found[0] = avalanche(h)
    return offsets, ngrams


def repeating_paragraphs(
    document_offsets: NDArray[np.int64],
    document_ngrams: NDArray[np.int64],
    paragraph_offsets: NDArray[np.int64],
    paragraph_ngrams: NDArray[np.int64],
    groups: NDArray[np.int64],
    counts: NDArray[np.int64],
    threshold: float,
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which paragraphs repeat earlier ones that stay, one document after the other.

    A paragraph goes if more than `threshold` of its n-grams occur in earlier paragraphs that stay. A document
    goes if more than `threshold` of all its n-grams do, those of its own earlier paragraphs included; then
    none of its paragraphs stays, and none counts for the documents after it.

    Args:
        document_offsets: int64, (n_docs + 1,), document d's paragraphs are those of document_offsets[d] to
            document_offsets[d + 1].
        document_ngrams: int64, (n_docs,), all n-grams of a document, not only those of the paragraphs here.
        paragraph_offsets: int64, (n_paragraphs + 1,), paragraph p has groups[paragraph_offsets[p]:...].
        paragraph_ngrams: int64, (n_paragraphs,), all n-grams of a paragraph.
        groups: int64, (n_occurrences,), numbers from 0 of groups of n-grams that occur together.
        counts: int64, (n_occurrences,), how many n-grams of the group occur in the paragraph.
        threshold: 0 to 1.
    Returns:
        repeats: bool, (n_paragraphs,), the paragraphs that go.
        n_contained: int64, (n_docs,), n-grams of each document that were there before.
    Cost: O(n_occurrences), one byte of memory per group. Sequential, as the rule is.
    """
    n_groups = int(groups.max()) + 1 if len(groups) else 0
    return _repeating(
        document_offsets,
        document_ngrams,
        paragraph_offsets,
        paragraph_ngrams,
        groups,
        counts,
        threshold,
        np.zeros(n_groups, np.bool_),
    )


def repeating_paragraphs_reference(
    document_offsets: NDArray[np.int64],
    document_ngrams: NDArray[np.int64],
    paragraph_offsets: NDArray[np.int64],
    paragraph_ngrams: NDArray[np.int64],
    groups: NDArray[np.int64],
    counts: NDArray[np.int64],
    threshold: float,
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """`repeating_paragraphs` with sets."""
    repeats = np.zeros(len(paragraph_ngrams), np.bool_)
    n_contained = np.zeros(len(document_ngrams), np.int64)
    seen: set[int] = set()
    for d, (first, last) in enumerate(pairwise(document_offsets)):
        before = set(seen)
        for p in range(first, last):
            here = range(paragraph_offsets[p], paragraph_offsets[p + 1])
            contained = sum(int(counts[i]) for i in here if int(groups[i]) in seen)
            n_contained[d] += contained
            repeats[p] = contained > 0 and contained / paragraph_ngrams[p] > threshold
            if not repeats[p]:
                seen |= {int(groups[i]) for i in here}
        if n_contained[d] and n_contained[d] / document_ngrams[d] > threshold:
            seen = before
    return repeats, n_contained


@kernel
def _exceeds(n_contained: int, n_ngrams: int, threshold: float) -> bool:
    return n_contained > 0 and n_contained / n_ngrams > threshold


@kernel
def _repeating(
    document_offsets: NDArray[np.int64],
    document_ngrams: NDArray[np.int64],
    paragraph_offsets: NDArray[np.int64],
    paragraph_ngrams: NDArray[np.int64],
    groups: NDArray[np.int64],
    counts: NDArray[np.int64],
    threshold: float,
    seen: NDArray[np.bool_],
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    repeats = np.zeros(len(paragraph_ngrams), np.bool_)
    n_contained = np.zeros(len(document_ngrams), np.int64)
    new = np.empty(len(groups), np.int64)  # the groups that a document shows for the first time
    for d in range(len(document_ngrams)):
        n_new = 0
        for p in range(document_offsets[d], document_offsets[d + 1]):
            contained = 0
            for i in range(paragraph_offsets[p], paragraph_offsets[p + 1]):
                contained += counts[i] * seen[groups[i]]
            n_contained[d] += contained
            repeats[p] = _exceeds(contained, paragraph_ngrams[p], threshold)
            if not repeats[p]:
                for i in range(paragraph_offsets[p], paragraph_offsets[p + 1]):
                    if not seen[groups[i]]:
                        seen[groups[i]] = True
                        new[n_new] = groups[i]
                        n_new += 1
        if _exceeds(n_contained[d], document_ngrams[d], threshold):
            for i in range(n_new):
                seen[new[i]] = False
    return repeats, n_contained

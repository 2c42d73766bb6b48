"""Word or character n-grams of normalised text, as hashes.

Words are maximal runs of alphanumeric code points, underscores and marks (``\\w+``, and the vowel signs that
``\\w`` leaves out), in simple lowercase. A letter of a script written without spaces (Han, kana, Thai, Khmer,
...) is a word of its own, together with the marks that follow it, so a shingle there is five characters.
Nothing else is normalised: the composed and the decomposed form of a letter differ.
"""

import re
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .hashing import avalanche, avalanche_reference
from .jit import kernel, read_only
from .unicode_tables import (
    MARK,
    UNSPACED,
    WORD,
    UnicodeTables,
    decode,
    entry,
    flags_reference,
    lower_reference,
    unicode_tables,
)

# 2**64 / golden ratio: the products of code points with it lie as far apart as they can (Knuth, TAOCP 3,
# section 6.4), so no two short differences cancel. It also weighs the words within a shingle, where
# avalanche() has already mixed.
_K = np.uint64(0x9E3779B97F4A7C15)
_MASK = (1 << 64) - 1


def word_hashes(
    data: NDArray[np.uint8], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hash of each word of each document.

    Args:
        data: uint8, (n_bytes,), UTF-8; a byte that is not is read as U+FFFD, which is no word.
        offsets: int64, (n_docs + 1,), document d is data[offsets[d]:offsets[d + 1]].
    Returns:
        words: uint64, (n_words,).
        word_offsets: int64, (n_docs + 1,), document d's words are words[word_offsets[d]:word_offsets[d + 1]].
    """
    data, offsets = read_only(data, offsets)
    return _word_hashes(data, offsets, unicode_tables())


def word_hashes_reference(
    data: NDArray[np.uint8], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """`word_hashes` in plain Python."""
    docs = [words_reference(data[a:b].tobytes().decode("utf-8", "replace")) for a, b in pairwise(offsets)]
    hashes = []
    for word in (word for words in docs for word in words):
        h = 0
        for character in word:
            h = (h ^ ord(character)) * int(_K) & _MASK
        hashes.append(avalanche_reference(h))
    return np.array(hashes, np.uint64), np.cumsum([0, *map(len, docs)], dtype=np.int64)


def words_reference(text: str) -> list[str]:
    """The words of a text, in lowercase.

    >>> words_reference("Don't PANIC_2: 東京 ไม้")
    ['don', 't', 'panic_2', '東', '京', 'ไ', 'ม้']
    """
    lower = "".join(map(lower_reference, text))
    return [lower[start:end] for start, end in word_spans(text)]


def word_spans(text: str) -> list[tuple[int, int]]:
    """Where the words of a text begin and end, in characters. Plain Python, for the few texts of interest.

    >>> word_spans("Don't PANIC")
    [(0, 3), (4, 5), (6, 11)]
    """
    kinds = "".join(map(_kind, text))
    return [found.span() for found in re.finditer("um*|[wm]+", kinds)]


@cache
def _kind(character: str) -> str:
    flags = flags_reference(character)
    return "u" if flags & UNSPACED else "m" if flags & MARK else "w" if flags & WORD else " "


@kernel
def _word_hashes(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], tables: UnicodeTables
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    ascii_letters = np.zeros(256, np.uint8)  # the lowercase of each byte that is a word's, or 0
    for byte in range(0x80):
        if tables.flags[byte] & WORD:
            ascii_letters[byte] = byte + tables.lower[byte]
    # A word and the character that ends it take two bytes; an unspaced letter takes three.
    words = np.empty((offsets[-1] - offsets[0] + len(offsets)) // 2 + 1, np.uint64)
    word_offsets = np.zeros(len(offsets), np.int64)
    n_words = 0
    for d in range(len(offsets) - 1):
        text = data[offsets[d] : offsets[d + 1]]
        found = words[n_words:]
        n_words += _document_words(text, ascii_letters, tables.page, tables.flags, tables.lower, found)
        word_offsets[d + 1] = n_words
    return words[:n_words], word_offsets


@kernel
def _document_words(
    text: NDArray[np.uint8],
    ascii_letters: NDArray[np.uint8],
    page: NDArray[np.uint16],
    flags: NDArray[np.uint8],
    lower: NDArray[np.int32],
    words: NDArray[np.uint64],
) -> int:
    n_words = 0
    in_word, alone = False, False  # alone: the word is one letter of an unspaced script, and takes only marks
    h = np.uint64(0)
    i = 0
    while i < len(text):
        letter, unspaced, mark = ascii_letters[text[i]], False, False
        if text[i] < 0x80:
            i += 1
        else:
            code, i = decode(text, i)
            at = entry(page, code)
            letter = code + lower[at] if flags[at] & WORD else 0
            unspaced, mark = (flags[at] & UNSPACED) != 0, (flags[at] & MARK) != 0
        if in_word and (letter == 0 or unspaced or (alone and not mark)):
            words[n_words] = avalanche(h)
            n_words += 1
            in_word, h = False, np.uint64(0)
        if letter:
            h = (h ^ np.uint64(letter)) * _K
            alone = unspaced or (in_word and alone)
            in_word = True
            while not alone and i < len(text) and ascii_letters[text[i]]:
                h = (h ^ np.uint64(ascii_letters[text[i]])) * _K
                i += 1
    if in_word:
        words[n_words] = avalanche(h)
        n_words += 1
    return n_words


def character_hashes(
    data: NDArray[np.uint8], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """The hash of each code point of each document, for shingles of characters instead of words.

    Args:
        data: uint8, (n_bytes,), UTF-8, and offsets: int64, (n_docs + 1,), as `fold_whitespace_and_case` gives
            them; a byte that is not UTF-8 is read as U+FFFD.
    Returns:
        characters: uint64, (n_characters,).
        character_offsets: int64, (n_docs + 1,).
    """
    data, offsets = read_only(data, offsets)
    return _character_hashes(data, offsets)


def character_hashes_reference(
    data: NDArray[np.uint8], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """`character_hashes` in plain Python."""
    docs = [data[a:b].tobytes().decode("utf-8", "replace") for a, b in pairwise(offsets)]
    hashes = [avalanche_reference(ord(character) * int(_K) & _MASK) for text in docs for character in text]
    return np.array(hashes, np.uint64), np.cumsum([0, *map(len, docs)], dtype=np.int64)


@kernel
def _character_hashes(
    data: NDArray[np.uint8], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    characters = np.empty(offsets[-1] - offsets[0], np.uint64)
    character_offsets = np.zeros(len(offsets), np.int64)
    n = 0
    for d in range(len(offsets) - 1):
        text = data[offsets[d] : offsets[d + 1]]
        i = 0
        while i < len(text):
            code, following = int(text[i]), i + 1
            if code >= 0x80:
                code, following = decode(text, i)
            i = following
            characters[n] = avalanche(np.uint64(code) * _K)
            n += 1
        character_offsets[d + 1] = n
    return characters[:n], character_offsets


def shingle_hashes(
    words: NDArray[np.uint64], word_offsets: NDArray[np.int64], n: int
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The hash of each run of n words, duplicates included (a minimum does not mind).

    A document of fewer than n words has no shingle: it is like nothing else.

    Args:
        words: uint64, (n_words,), and word_offsets: int64, (n_docs + 1,), as `word_hashes` gives them, or
            characters as `character_hashes` does.
        n: words in a shingle, at least 1.
    Returns:
        shingles: uint32, (n_shingles,): the upper half of a 64-bit hash of the n word hashes in their order.
        shingle_offsets: int64, (n_docs + 1,).
    Raises:
        ValueError: n is less than 1.
    """
    _check_n(n)
    return _shingle_hashes(words, word_offsets, n)


def shingle_hashes_reference(
    words: NDArray[np.uint64], word_offsets: NDArray[np.int64], n: int
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """`shingle_hashes` in plain Python."""
    _check_n(n)
    shingles, counts = [], [0]
    for start, end in pairwise(word_offsets):
        document = [int(word) for word in words[start:end]]
        runs = [document[i : i + n] for i in range(len(document) - n + 1)]
        for run in runs:
            h = 0
            for word in run:
                h = (h * int(_K) + word) & _MASK
            shingles.append(avalanche_reference(h) >> 32)
        counts.append(len(runs))
    return np.array(shingles, np.uint32), np.cumsum(counts, dtype=np.int64)


def _check_n(n: int) -> None:
    if n < 1:
        raise ValueError(f"n is {n}: a shingle has at least 1 word")


@kernel
def _shingle_hashes(
    words: NDArray[np.uint64], word_offsets: NDArray[np.int64], n: int
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    n_docs = len(word_offsets) - 1
    offsets = np.zeros(n_docs + 1, np.int64)
    for d in range(n_docs):
        offsets[d + 1] = offsets[d] + max(word_offsets[d + 1] - word_offsets[d] - n + 1, 0)
    leaving = np.uint64(1)  # _K ** n, the weight of the word that leaves the window
    for _ in range(n):
        leaving *= _K
    shingles = np.empty(offsets[-1], np.uint32)
    for d in range(n_docs):
        document = words[word_offsets[d] : word_offsets[d + 1]]
        found = shingles[offsets[d] : offsets[d + 1]]
        h = np.uint64(0)
        for i in range(len(document)):
            h = h * _K + document[i]
            if i >= n:
                h -= document[i - n] * leaving
            if i >= n - 1:
                found[i - n + 1] = np.uint32(avalanche(h) >> np.uint64(32))
    return shingles, offsets

"""Where the words of a document are: one pass over its bytes, for all who look at words.

==============
==================================================================================================
`whitespace`   what ``str.split`` gives `uax29`        segments between the word boundaries of UAX #29 that
hold a letter, a number, kana or an ideograph `english`      the tokens of spaCy's blank English tokenizer,
punctuation marks included (`english_words`) ==============
==================================================================================================

A script without spaces: `whitespace` and `english` take a whole phrase for one word, as their models do;
`uax29` makes each letter of Thai, Lao, Khmer, Myanmar, Han, hiragana a word of its own, with its marks (UAX
#29 leaves those scripts to a dictionary), and a run of katakana one word.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .eight_bytes import first_below, first_no_letter
from .english_rules import english_words_reference
from .english_words import english_specials, special, tokenize_chunk
from .jit import inlined, kernel
from .uax29_words import uax29_words, uax29_words_reference
from .unicode_tables import decode
from .word_classes import ALPHA, WHITE, word_classes
from .word_kinds import ALNUM_FIRST, ALPHABETIC, kinds_of, kinds_reference

Segmentation = Literal["whitespace", "uax29", "english"]

_BLANK, _FULL_STOP, _COMMA, _SEMICOLON, _COLON, _QUESTION, _CLOSING, _LOWERCASE_A = map(ord, " .,;:?)a")


class Words(NamedTuple):
    """The words of all documents one after another.

    starts: int64, (n_words,), the word's first byte in the column's data.
    n_bytes, n_characters: int32, (n_words,), its lengths.
    kinds: uint8, (n_words,), the flags of `word_kinds` or-ed together.
    offsets: int64, (n_docs + 1,), document d has the words offsets[d] to offsets[d + 1].
    """

    starts: NDArray[np.int64]
    n_bytes: NDArray[np.int32]
    n_characters: NDArray[np.int32]
    kinds: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def alnum_first(self) -> "Words":
        """Those of them that begin with a letter or a number."""
        starts, n_bytes, n_characters, kinds, offsets = self
        chosen = (kinds & ALNUM_FIRST).astype(bool)
        before = np.concatenate([[0], np.cumsum(chosen)])
        return Words(starts[chosen], n_bytes[chosen], n_characters[chosen], kinds[chosen], before[offsets])


def words(data: NDArray[np.uint8], offsets: NDArray[np.int64], segmentation: Segmentation) -> Words:
    """The words of each document.

    Args:
        data: uint8, (n_bytes,), UTF-8; a byte that is not is read as U+FFFD.
        offsets: int64, (n_docs + 1,), document d is data[offsets[d]:offsets[d + 1]].
    """
    page, entries = word_classes()
    n_bytes = int(offsets[-1] - offsets[0])
    # A word of `whitespace` is followed by a space; others may be one byte. Untouched memory costs nothing.
    room = n_bytes if segmentation != "whitespace" else (n_bytes + len(offsets)) // 2 + 1
    starts, kinds = np.empty(room, np.int64), np.empty(room, np.uint8)
    lengths, characters = np.empty(room, np.int32), np.empty(room, np.int32)
    ends = np.zeros(len(offsets), np.int64)
    if segmentation == "english":
        specials = english_specials()
        _english(data, offsets, page, entries, *specials, starts, lengths, characters, kinds, ends)
    else:
        cut = _whitespace if segmentation == "whitespace" else uax29_words
        cut(data, offsets, page, entries, starts, lengths, characters, kinds, ends)
    n_words = ends[-1]
    return Words(starts[:n_words], lengths[:n_words], characters[:n_words], kinds[:n_words], ends)


def words_reference(data: NDArray[np.uint8], offsets: NDArray[np.int64], segmentation: Segmentation) -> Words:
    """`words` in plain Python; of invalid UTF-8 it knows only the words, not where they are."""
    cuts: dict[Segmentation, Callable[[str], list[str]]] = {
        "whitespace": str.split,
        "uax29": uax29_words_reference,
        "english": english_words_reference,
    }
    rows, ends = [], [0]
    for start, end in pairwise(offsets):
        text = data[start:end].tobytes().decode("utf-8", "replace")
        position = 0
        for word in cuts[segmentation](text):
            position = text.index(word, position)
            before = len(text[:position].encode())
            rows.append((start + before, len(word.encode()), len(word), kinds_reference(word)))
            position += len(word)
        ends.append(len(rows))
    starts, n_bytes, n_characters, kinds = np.array(rows, np.int64).reshape(-1, 4).T
    return Words(
        starts,
        n_bytes.astype(np.int32),
        n_characters.astype(np.int32),
        kinds.astype(np.uint8),
        np.array(ends, np.int64),
    )


@kernel
def _whitespace(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    page: NDArray[np.uint16],
    entries: NDArray[np.uint16],
    starts: NDArray[np.int64],
    n_bytes: NDArray[np.int32],
    n_characters: NDArray[np.int32],
    kinds: NDArray[np.uint8],
    word_offsets: NDArray[np.int64],
) -> None:
    n = 0
    for d in range(len(offsets) - 1):
        text = data[: offsets[d + 1]]
        i, end = offsets[d], offsets[d + 1]
        while i < end:
            start, n_extra, first, any_of, all_of = i, 0, 0, 0, 0xFFFF
            following = i + 1
            if text[i] < 0x80 and entries[text[i]] & ALPHA:
                # What begins with a letter is told by it; where it ends is all that is left to find.
                i = first_below(data, i, end, _BLANK + 1)
                first = any_of = all_of = entries[text[start]]
                following = i + 1
            while i < end and text[i] != _BLANK:
                if text[i] < 0x80:
                    found, following = entries[text[i]], i + 1
                else:
                    code, following = decode(text, i)
                    found = entries[page[code >> 8] << 8 | (code & 0xFF)]
                if found & WHITE:
                    break
                n_extra += following - i - 1
                first = found if i == start else first
                any_of |= found
                all_of &= found
                i = following
            if i > start:
                starts[n], n_bytes[n], n_characters[n] = start, i - start, i - start - n_extra
                kinds[n] = kinds_of(first, any_of, all_of, i - start - n_extra)
                n += 1
            i = max(i, following) if i < end else i
        word_offsets[d + 1] = n


@kernel
def _english(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    page: NDArray[np.uint16],
    entries: NDArray[np.uint16],
    hashes: NDArray[np.uint64],
    splits: NDArray[np.int64],
    ends: NDArray[np.bool_],
    starts: NDArray[np.int64],
    n_bytes: NDArray[np.int32],
    n_characters: NDArray[np.int32],
    kinds: NDArray[np.uint8],
    word_offsets: NDArray[np.int64],
) -> None:
    # One chunk can be a whole document; what is not touched costs nothing.
    longest = 0
    for d in range(len(offsets) - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    positions, cuts = np.empty(longest + 1, np.int64), np.empty(longest + 1, np.int64)
    codes, classes = np.empty(longest, np.int32), np.empty(longest, np.uint16)
    n = 0
    for d in range(len(offsets) - 1):
        text = data[: offsets[d + 1]]
        i, end = offsets[d], offsets[d + 1]
        while i < end:
            start = i
            i = first_no_letter(text, i, end)
            letters, mark = i - start, 0 if i == end or text[i] >= 0x80 else text[i]
            if letters and (i == end or entries[mark] & WHITE):
                # ASCII letters are one word unless special ("cannot").
                if special(text, start, letters, hashes, splits, ends) < 0:
                    starts[n], n_bytes[n], n_characters[n] = start, letters, letters
                    kinds[n] = ALNUM_FIRST | ALPHABETIC
                    n += 1
                    i += 1
                    continue
            elif letters and _cuts_off(text, i, letters, mark) and _chunk_ends(text, i + 1, entries):
                # ASCII letters and one mark are two words, unless special ("Mr.", "cannot,").
                whole = special(text, start, letters + 1, hashes, splits, ends)
                if whole < 0 and special(text, start, letters, hashes, splits, ends) < 0:
                    starts[n], n_bytes[n], n_characters[n] = start, letters, letters
                    kinds[n] = ALNUM_FIRST | ALPHABETIC
                    starts[n + 1], n_bytes[n + 1], n_characters[n + 1] = i, 1, 1
                    kinds[n + 1] = kinds_of(entries[mark], entries[mark], entries[mark], 1)
                    n += 2
                    i += 2
                    continue
            elif not letters and entries[mark] & WHITE:
                i += 1
                continue
            i = start
            length, has_digits = 0, False
            while i < end:
                if text[i] < 0x80:
                    code, following = int(text[i]), i + 1
                    found = entries[code]
                else:
                    code, following = decode(text, i)
                    found = entries[page[code >> 8] << 8 | (code & 0xFF)]
                if found & WHITE:
                    break
                positions[length], codes[length], classes[length] = i, code, found
                has_digits |= 0x30 <= code <= 0x39
                length += 1
                i = following
            if length:
                positions[length] = i
                n_tokens = tokenize_chunk(
                    text, positions, codes, classes, length, has_digits, hashes, splits, ends, cuts
                )
                cuts[n_tokens] = length
                for k in range(n_tokens):
                    first, last = cuts[k], cuts[k + 1]
                    starts[n], n_bytes[n] = positions[first], positions[last] - positions[first]
                    n_characters[n] = last - first
                    any_of, all_of = 0, 0xFFFF
                    for c in range(first, last):
                        any_of |= classes[c]
                        all_of &= classes[c]
                    kinds[n] = kinds_of(classes[first], any_of, all_of, last - first)
                    n += 1
            if i < end:
                i = following
        word_offsets[d + 1] = n


@inlined
def _cuts_off(text: NDArray[np.uint8], i: int, n_letters: int, mark: int) -> bool:
    """Whether the mark at byte i is a word of its own behind `n_letters` ASCII letters."""
    if mark == _FULL_STOP:
        return n_letters > 1 and (text[i - 1] >= _LOWERCASE_A or text[i - 2] < _LOWERCASE_A)
    return mark in (_COMMA, _SEMICOLON, _COLON, _QUESTION, _CLOSING)


@inlined
def _chunk_ends(text: NDArray[np.uint8], i: int, entries: NDArray[np.uint16]) -> bool:
    return i == len(text) or (text[i] < 0x80 and (entries[text[i]] & WHITE) != 0)

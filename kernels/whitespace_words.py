"""The words that ``str.split`` gives, found sixty-four bytes at a time."""

import numpy as np
from numpy.typing import NDArray

from .byte_masks import (
    NONE,
    ONE,
    WIDTH,
    below,
    first_one,
    first_white,
    in_range,
    letter_bytes,
    lowest,
    n_ones,
    white_bytes,
)
from .jit import uncounted
from .unicode_tables import decode
from .word_classes import WHITE
from .word_kinds import ALNUM_FIRST, ALPHABETIC, kinds_of


@uncounted
def whitespace_words(
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
    """Fill the columns of `words.Words` with the words of each document.

    Each window begins where the last word of the one before does, if that goes on behind it.
    """
    n = 0
    for d in range(len(offsets) - 1):
        i, end = offsets[d], offsets[d + 1]
        while i < end:
            solid = ~white_bytes(data, i) & below(end - i)
            letters, high = letter_bytes(data, i), in_range(data, i, 0x80, 0xFF)
            alnum = letters | in_range(data, i, 0x30, 0x39)
            begins, behinds = solid & ~(solid << ONE), ~solid & (solid << ONE)
            window, n_chunks = i, n_ones(behinds)
            i += WIDTH
            fills_window = n_chunks == 0 and (begins & ONE) != NONE
            if fills_window:
                n_chunks, i = 1, first_white(data, i, end)
            for _ in range(n_chunks):
                start, stop = window + first_one(begins), i if fills_window else window + first_one(behinds)
                first, chunk = lowest(begins), lowest(behinds) - lowest(begins)
                if (letters & chunk) != NONE and (high & chunk) == NONE and not fills_window:
                    # Of a word with a letter nothing else is asked but how it begins.
                    starts[n], n_bytes[n], n_characters[n] = start, stop - start, stop - start
                    kinds[n] = ALPHABETIC | ALNUM_FIRST * ((alnum & first) != NONE)
                    n += 1
                else:
                    while start < stop:
                        word_stop, length, kind, following = _next_word(data[:stop], start, page, entries)
                        if length:
                            starts[n], n_bytes[n], n_characters[n] = start, word_stop - start, length
                            kinds[n] = kind
                            n += 1
                        start = following
                begins, behinds = begins ^ first, behinds & (behinds - ONE)
            if begins != NONE:
                i = window + first_one(begins)
        word_offsets[d + 1] = n


@uncounted
def _next_word(
    text: NDArray[np.uint8], start: int, page: NDArray[np.uint16], entries: NDArray[np.uint16]
) -> tuple[int, int, int, int]:
    """The word at `start`, up to white space of any script: where it ends, its code points, its kinds, and
    where the next one may begin."""
    i, following, n_characters, first, any_of, all_of = start, start, 0, 0, 0, 0xFFFF
    while i < len(text):
        code, following = decode(text, i)
        found = entries[page[code >> 8] << 8 | (code & 0xFF)]
        if found & WHITE:
            break
        first = found if i == start else first
        any_of |= found
        all_of &= found
        n_characters += 1
        i = following
    return i, n_characters, kinds_of(first, any_of, all_of, n_characters), following

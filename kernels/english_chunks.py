"""The chunks between white space, each cut into the tokens of `english_words`: at a glance if it is letters,
or letters and one mark, and only once where the same one came a little while ago."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .byte_masks import (
    NONE,
    ONE,
    WIDTH,
    below,
    first_one,
    first_white,
    letter_bytes,
    n_ones,
    white_bytes,
)
from .english_words import special, tokenize_chunk
from .jit import inlined, uncounted
from .short_hash import SEED, load_few, mix
from .unicode_tables import decode
from .word_classes import AFFIX, WHITE
from .word_kinds import ALNUM_FIRST, ALPHABETIC, kinds_of

_FULL_STOP, _LOWERCASE_A = map(ord, ".a")
_N_REMEMBERED = 4096
_LONGEST_REMEMBERED = 16
"""Bytes of a chunk that two numbers hold."""


@uncounted
def english_words(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    page: NDArray[np.uint16],
    entries: NDArray[np.uint16],
    hashes: NDArray[np.uint64],
    splits: NDArray[np.int64],
    glances: NDArray[np.uint64],
    starts: NDArray[np.int64],
    n_bytes: NDArray[np.int32],
    n_characters: NDArray[np.int32],
    kinds: NDArray[np.uint8],
    word_offsets: NDArray[np.int64],
    positions: NDArray[np.int64],
    cuts: NDArray[np.int64],
    codes: NDArray[np.int32],
    classes: NDArray[np.uint16],
    keys: NDArray[np.uint64],
    places: NDArray[np.int64],
) -> None:
    """Fill the columns of `words.Words` with the tokens of each document.

    Windows are those of `whitespace_words`. What a short chunk was cut into is remembered by all its bytes,
    with the number of its first token: half of the chunks that need the rules came before.
    """
    n = 0
    for d in range(len(offsets) - 1):
        i, end = offsets[d], offsets[d + 1]
        while i < end:
            solid, letters = ~white_bytes(data, i) & below(end - i), letter_bytes(data, i)
            begins, behinds = solid & ~(solid << ONE), ~solid & (solid << ONE)
            window, n_chunks = i, n_ones(behinds)
            i += WIDTH
            fills_window = n_chunks == 0 and (begins & ONE) != NONE
            if fills_window:
                n_chunks, i = 1, first_white(data, i, end)
            for _ in range(n_chunks):
                low = first_one(begins)
                start, stop = window + low, i if fills_window else window + first_one(behinds)
                begins, behinds = begins & (begins - ONE), behinds & (behinds - ONE)
                length, n_letters = stop - start, min(first_one(~(letters >> np.uint64(low))), stop - start)
                if n_letters == length:
                    # ASCII letters are one word unless special ("cannot").
                    if special(data, start, length, hashes, splits, glances) < 0:
                        starts[n], n_bytes[n], n_characters[n] = start, length, length
                        kinds[n] = ALNUM_FIRST | ALPHABETIC
                        n += 1
                        continue
                elif 0 < n_letters == length - 1 and _cuts_off(data, stop - 1, n_letters, entries):
                    # ASCII letters and one mark are two words, unless special ("Mr.", "cannot,").
                    whole = special(data, start, length, hashes, splits, glances)
                    if whole < 0 and special(data, start, n_letters, hashes, splits, glances) < 0:
                        starts[n], n_bytes[n], n_characters[n] = start, n_letters, n_letters
                        kinds[n] = ALNUM_FIRST | ALPHABETIC
                        starts[n + 1], n_bytes[n + 1], n_characters[n + 1] = stop - 1, 1, 1
                        mark = entries[data[stop - 1]]
                        kinds[n + 1] = kinds_of(mark, mark, mark, 1)
                        n += 2
                        continue
                few = min(length, 8)
                front, back = load_few(data, start, few), load_few(data, stop - few, few)
                slot = np.int64(mix(np.uint64(length) * SEED ^ back, front) & np.uint64(_N_REMEMBERED - 1))
                if keys[slot, 0] == front and keys[slot, 1] == back and places[slot, 0] == length:
                    shift, first = start - places[slot, 1], places[slot, 2]
                    for k in range(first, first + places[slot, 3]):
                        starts[n], n_bytes[n], n_characters[n] = (
                            starts[k] + shift,
                            n_bytes[k],
                            n_characters[k],
                        )
                        kinds[n] = kinds[k]
                        n += 1
                    continue
                first, at = n, start
                while at < stop:
                    n_codes, has_digits = 0, False
                    while at < stop:
                        code, following = decode(data[:stop], at)
                        found = entries[page[code >> 8] << 8 | (code & 0xFF)]
                        if found & WHITE:
                            break
                        positions[n_codes], codes[n_codes], classes[n_codes] = at, code, found
                        has_digits |= 0x30 <= code <= 0x39
                        n_codes += 1
                        at = following
                    positions[n_codes] = at
                    n_tokens = 0
                    if n_codes:
                        n_tokens = tokenize_chunk(
                            data,
                            positions,
                            codes,
                            classes,
                            n_codes,
                            has_digits,
                            hashes,
                            splits,
                            glances,
                            cuts,
                        )
                    cuts[n_tokens] = n_codes
                    for k in range(n_tokens):
                        a, b = cuts[k], cuts[k + 1]
                        starts[n], n_bytes[n] = positions[a], positions[b] - positions[a]
                        n_characters[n] = b - a
                        any_of, all_of = 0, 0xFFFF
                        for c in range(a, b):
                            any_of |= classes[c]
                            all_of &= classes[c]
                        kinds[n] = kinds_of(classes[a], any_of, all_of, b - a)
                        n += 1
                    if at < stop:
                        at = following
                if length <= _LONGEST_REMEMBERED:
                    keys[slot, 0], keys[slot, 1] = front, back
                    places[slot, 0], places[slot, 1] = length, start
                    places[slot, 2], places[slot, 3] = first, n - first
            if begins != NONE:
                i = window + first_one(begins)
        word_offsets[d + 1] = n


@inlined
def _cuts_off(data: NDArray[np.uint8], i: int, n_letters: int, entries: NDArray[np.uint16]) -> bool:
    """Whether the byte at i is a mark that is a word of its own behind `n_letters` ASCII letters."""
    if data[i] == _FULL_STOP:
        return n_letters > 1 and bool(data[i - 1] >= _LOWERCASE_A or data[i - 2] < _LOWERCASE_A)
    return bool(data[i] < 0x80 and (entries[data[i]] & AFFIX) != 0)


class ChunkRoom(NamedTuple):
    """What `english_words` writes to on its way.

    positions, cuts, codes, classes: of the characters of one chunk, which can be a whole document.
    keys: uint64, (n_remembered, 2), the first and the last eight bytes of chunks.
    places: int64, (n_remembered, 4), their bytes, where they stood, their first token, the number of tokens.
    """

    positions: NDArray[np.int64]
    cuts: NDArray[np.int64]
    codes: NDArray[np.int32]
    classes: NDArray[np.uint16]
    keys: NDArray[np.uint64]
    places: NDArray[np.int64]


def chunk_room(offsets: NDArray[np.int64]) -> ChunkRoom:
    """Room for the longest document; what is not touched of it costs nothing."""
    longest = int(np.diff(offsets).max(initial=0)) + 1
    return ChunkRoom(
        np.empty(longest, np.int64),
        np.empty(longest, np.int64),
        np.empty(longest, np.int32),
        np.empty(longest, np.uint16),
        np.zeros((_N_REMEMBERED, 2), np.uint64),
        np.zeros((_N_REMEMBERED, 4), np.int64),
    )

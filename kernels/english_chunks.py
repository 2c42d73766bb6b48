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
    with the number of its first token.
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
                n_letters = min(first_one(~(letters >> np.uint64(low))), stop - start)
                n_tokens = _at_a_glance(
                    data, start, stop, n_letters, entries, hashes, splits, glances,
                    n, starts, n_bytes, n_characters, kinds,
                )  # fmt: skip
                if n_tokens:
                    n += n_tokens
                    continue
                few = min(stop - start, 8)
                front, back = load_few(data, start, few), load_few(data, stop - few, few)
                slot = _slot(front, back, stop - start)
                if keys[slot, 0] == front and keys[slot, 1] == back and places[slot, 0] == stop - start:
                    n += _again(places[slot], start, n, starts, n_bytes, n_characters, kinds)
                    continue
                n_tokens = _by_the_rules(
                    data, start, stop, page, entries, hashes, splits, glances, positions, cuts, codes,
                    classes, n, starts, n_bytes, n_characters, kinds,
                )  # fmt: skip
                if stop - start <= _LONGEST_REMEMBERED:
                    keys[slot, 0], keys[slot, 1] = front, back
                    places[slot, 0], places[slot, 1] = stop - start, start
                    places[slot, 2], places[slot, 3] = n, n_tokens
                n += n_tokens
            if begins != NONE:
                i = window + first_one(begins)
        word_offsets[d + 1] = n


@inlined
def _at_a_glance(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    n_letters: int,
    entries: NDArray[np.uint16],
    hashes: NDArray[np.uint64],
    splits: NDArray[np.int64],
    glances: NDArray[np.uint64],
    n: int,
    starts: NDArray[np.int64],
    n_bytes: NDArray[np.int32],
    n_characters: NDArray[np.int32],
    kinds: NDArray[np.uint8],
) -> int:
    """Write the tokens of a chunk that is ASCII letters, or letters and one mark; how many, 0: neither."""
    length = stop - start
    if n_letters == length:
        # One word unless special ("cannot").
        if special(data, start, length, hashes, splits, glances) >= 0:
            return 0
    elif 0 < n_letters == length - 1 and _cuts_off(data, stop - 1, n_letters, entries):
        # Two words, unless special ("Mr.", "cannot,").
        if special(data, start, length, hashes, splits, glances) >= 0:
            return 0
        if special(data, start, n_letters, hashes, splits, glances) >= 0:
            return 0
        mark = entries[data[stop - 1]]
        starts[n + 1], n_bytes[n + 1], n_characters[n + 1] = stop - 1, 1, 1
        kinds[n + 1] = kinds_of(mark, mark, mark, 1)
    else:
        return 0
    starts[n], n_bytes[n], n_characters[n] = start, n_letters, n_letters
    kinds[n] = ALNUM_FIRST | ALPHABETIC
    return 1 + length - n_letters


@inlined
def _slot(front: np.uint64, back: np.uint64, length: int) -> int:
    """Where a chunk is remembered, by its first and its last eight bytes."""
    return np.int64(mix(np.uint64(length) * SEED ^ back, front) & np.uint64(_N_REMEMBERED - 1))  # type: ignore[return-value]


@inlined
def _again(
    place: NDArray[np.int64],
    start: int,
    n: int,
    starts: NDArray[np.int64],
    n_bytes: NDArray[np.int32],
    n_characters: NDArray[np.int32],
    kinds: NDArray[np.uint8],
) -> int:
    """Write the tokens of a chunk as they were where it stood before; how many."""
    shift, first = start - place[1], place[2]
    for k in range(place[3]):
        starts[n + k], kinds[n + k] = starts[first + k] + shift, kinds[first + k]
        n_bytes[n + k], n_characters[n + k] = n_bytes[first + k], n_characters[first + k]
    return place[3]  # type: ignore[no-any-return]


@inlined
def _by_the_rules(
    data: NDArray[np.uint8],
    at: int,
    stop: int,
    page: NDArray[np.uint16],
    entries: NDArray[np.uint16],
    hashes: NDArray[np.uint64],
    splits: NDArray[np.int64],
    glances: NDArray[np.uint64],
    positions: NDArray[np.int64],
    cuts: NDArray[np.int64],
    codes: NDArray[np.int32],
    classes: NDArray[np.uint16],
    n: int,
    starts: NDArray[np.int64],
    n_bytes: NDArray[np.int32],
    n_characters: NDArray[np.int32],
    kinds: NDArray[np.uint8],
) -> int:
    """Write the tokens of data[at:stop], in which white space may be that is not ASCII; how many."""
    first = n
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
                data, positions, codes, classes, n_codes, has_digits, hashes, splits, glances, cuts
            )
        cuts[n_tokens] = n_codes
        for k in range(n_tokens):
            a, b = cuts[k], cuts[k + 1]
            starts[n], n_bytes[n], n_characters[n] = positions[a], positions[b] - positions[a], b - a
            any_of, all_of = 0, 0xFFFF
            for c in range(a, b):
                any_of |= classes[c]
                all_of &= classes[c]
            kinds[n] = kinds_of(classes[a], any_of, all_of, b - a)
            n += 1
        if at < stop:
            at = following
    return n - first


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

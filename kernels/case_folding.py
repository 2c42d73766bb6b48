"""Full case folding: text in which letters that differ only in case are equal.

Simple lowercase (`unicode_tables`) maps one code point to one; folding also makes "ß" "ss", "ﬁ" "fi" and both
small sigmas one. ``str.casefold``, bit for bit.
"""

import sys
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .jit import kernel, read_only
from .table_cache import cached_table
from .unicode_tables import decode, encode, entry

_BLOCK = 256


class FoldingTables(NamedTuple):
    """What each code point that changes becomes.

    page: uint16, (0x1100,), the block of code points c with c >> 8 == i.
    places: int32, (n_blocks * 256,), 8 times the place in `folded` plus the number of bytes; 0: unchanged.
    folded: uint8, UTF-8.
    growth: the most bytes that one byte becomes.
    """

    page: NDArray[np.uint16]
    places: NDArray[np.int32]
    folded: NDArray[np.uint8]
    growth: int


def casefold(
    data: NDArray[np.uint8], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Each document case-folded, as ``str.casefold`` does.

    Args:
        data: uint8, (n_bytes,), UTF-8; a byte that is not becomes U+FFFD.
        offsets: int64, (n_docs + 1,), document d is data[offsets[d]:offsets[d + 1]].
    Returns:
        data: uint8, (n_folded_bytes,), UTF-8, and offsets: int64, (n_docs + 1,).
    Source: The Unicode Standard, section 3.13, toCasefold.
    """
    tables = folding_tables()
    data, offsets = read_only(data, offsets)
    return _casefold(data, offsets, tables.page, tables.places, tables.folded, tables.growth)


def casefold_reference(
    data: NDArray[np.uint8], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """`casefold` with Python's strings."""
    texts = [data[a:b].tobytes().decode("utf-8", "replace").casefold().encode() for a, b in pairwise(offsets)]
    return np.frombuffer(b"".join(texts), np.uint8), np.cumsum([0, *map(len, texts)], dtype=np.int64)


@cached_table
def folding_tables() -> FoldingTables:
    """The tables of the interpreter's Unicode version, built on the first call."""
    page = np.zeros((sys.maxunicode + 1) // _BLOCK, np.uint16)
    blocks, pool, growth = [np.zeros(_BLOCK, np.int32)], bytearray(), 3  # a byte that is no UTF-8 makes 3
    for i in range(len(page)):
        if 0xD8 <= i < 0xE0:
            continue  # surrogates
        block = "".join(map(chr, range(i * _BLOCK, (i + 1) * _BLOCK)))
        if block.casefold() == block:
            continue
        page[i] = len(blocks)
        blocks.append(np.zeros(_BLOCK, np.int32))
        for j, character in enumerate(block):
            folded = character.casefold().encode()
            if folded != character.encode():
                blocks[-1][j] = len(pool) << 3 | len(folded)
                pool += folded
                growth = max(growth, -(-len(folded) // len(character.encode())))
    return FoldingTables(page, np.concatenate(blocks), np.frombuffer(bytes(pool), np.uint8), growth)


@kernel
def _casefold(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    page: NDArray[np.uint16],
    places: NDArray[np.int32],
    pool: NDArray[np.uint8],
    growth: int,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    folded = np.empty(growth * (offsets[-1] - offsets[0]), np.uint8)  # what is not touched costs nothing
    folded_offsets = np.zeros(len(offsets), np.int64)
    n = 0
    for d in range(len(offsets) - 1):
        i, end = offsets[d], offsets[d + 1]
        text = data[:end]
        while i < end:
            while i < end and text[i] < 0x80:
                byte = text[i]
                folded[n] = byte + 32 * (0x41 <= byte <= 0x5A)
                n += 1
                i += 1
            if i == end:
                break
            code, i = decode(text, i)
            place = places[entry(page, code)]
            if place:
                for k in range(place >> 3, (place >> 3) + (place & 7)):
                    folded[n] = pool[k]
                    n += 1
            else:
                n += encode(code, folded[n:])
        folded_offsets[d + 1] = n
    return folded[:n], folded_offsets

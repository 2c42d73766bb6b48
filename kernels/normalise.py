"""Text in the form in which two copies of one document are compared."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .jit import kernel, read_only
from .unicode_tables import SPACE, UnicodeTables, decode, encode, entry, lower_reference, unicode_tables

_SPACE = 0x20


def fold_whitespace_and_case(
    data: NDArray[np.uint8], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Each document in simple lowercase, each run of white space one space, none at either end.

    Args:
        data: uint8, (n_bytes,), UTF-8; a byte that is not becomes U+FFFD.
        offsets: int64, (n_docs + 1,), document d is data[offsets[d]:offsets[d + 1]].
    Returns:
        data: uint8, (n_folded_bytes,), UTF-8, and offsets: int64, (n_docs + 1,).
    """
    data, offsets = read_only(data, offsets)
    return _fold(data, offsets, unicode_tables())


def fold_whitespace_and_case_reference(
    data: NDArray[np.uint8], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """`fold_whitespace_and_case` with Python's string methods."""
    texts = [data[a:b].tobytes().decode("utf-8", "replace") for a, b in pairwise(offsets)]
    folded = ["".join(map(lower_reference, " ".join(text.split()))).encode() for text in texts]
    return np.frombuffer(b"".join(folded), np.uint8), np.cumsum([0, *map(len, folded)], dtype=np.int64)


@kernel
def _fold(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], tables: UnicodeTables
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    ascii_visible = np.zeros(
        256, np.uint8
    )  # the lowercase of each byte that is not white space, plus one, or 0
    for byte in range(0x80):
        if not tables.flags[byte] & SPACE:
            ascii_visible[byte] = byte + tables.lower[byte] + 1
    # A byte that is no UTF-8 grows to three; a lowercase letter is at most one byte longer than its capital.
    folded = np.empty(3 * (offsets[-1] - offsets[0]), np.uint8)
    folded_offsets = np.zeros(len(offsets), np.int64)
    n_bytes = 0
    for d in range(len(offsets) - 1):
        text = data[offsets[d] : offsets[d + 1]]
        room = folded[n_bytes:]
        n_bytes += _fold_document(text, ascii_visible, tables.page, tables.flags, tables.lower, room)
        folded_offsets[d + 1] = n_bytes
    return folded[:n_bytes], folded_offsets


@kernel
def _fold_document(
    text: NDArray[np.uint8],
    ascii_visible: NDArray[np.uint8],
    page: NDArray[np.uint16],
    flags: NDArray[np.uint8],
    lower: NDArray[np.int32],
    folded: NDArray[np.uint8],
) -> int:
    n = 0
    i = 0
    while i < len(text):
        code, following = text[i], i + 1
        if code >= 0x80:
            code, following = decode(text, i)
        at = entry(page, code)
        if flags[at] & SPACE:
            i = following
            if n > 0 and folded[n - 1] != _SPACE:
                folded[n] = _SPACE
                n += 1
        elif code < 0x80:
            while i < len(text) and ascii_visible[text[i]]:
                folded[n] = ascii_visible[text[i]] - 1
                n += 1
                i += 1
        else:
            i = following
            n += encode(code + lower[at], folded[n:])
    return n - 1 if n > 0 and folded[n - 1] == _SPACE else n

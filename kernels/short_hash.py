"""A quick hash of short byte ranges for tables that live no longer than a call: never stored, never compared
abroad."""

import numpy as np
from numpy.typing import NDArray

from .instructions import folded_product
from .jit import inlined, uncounted

_K1 = np.uint64(0x9E3779B97F4A7C15)
_K2 = np.uint64(0xC2B2AE3D27D4EB4F)
SEED = _K2
"""The hash of no bytes; `mix(n_bytes * SEED, word)` is that of eight bytes or fewer."""
N_OUTLINES = 1 << 15
_FIRST = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)
"""A number's first n bytes, all bits set."""


@inlined
def short_hash(data: NDArray[np.uint8], start: int, n_bytes: int) -> np.uint64:
    """64 bits of data[start:start + n_bytes], eight bytes at a time; nothing beyond the end of `data` is
    read.

    Two different ranges agree with a probability near 2**-64: multiply-xorshift rounds over all bytes and the
    length.
    """
    h = np.uint64(n_bytes) * SEED
    i, end = start, start + n_bytes
    if n_bytes >= 32:
        # Two chains of multiplications side by side take half the time of one.
        other = _K1
        while i + 16 <= end:
            h, other = mix(h, load8(data, i)), mix(other, load8(data, i + 8))
            i += 16
        h = mix(h, other)
    return _mix_rest(h, data, i, end)


@inlined
def line_hash(data: NDArray[np.uint8], start: int, n_bytes: int) -> np.uint64:
    """64 bits of data[start:start + n_bytes], as `short_hash` does; fewer steps for what is long.

    What two multiplications of 64 bits do there, the halves of one product of 128 bits do here.
    """
    h, other = np.uint64(n_bytes) * SEED, _K1
    i, end = start, start + n_bytes
    while i + 32 <= end:
        h = folded_product(load8(data, i) ^ _K1, load8(data, i + 8) ^ h)
        other = folded_product(load8(data, i + 16) ^ _K2, load8(data, i + 24) ^ other)
        i += 32
    return _mix_rest(mix(h, other), data, i, end)


@inlined
def _mix_rest(h: np.uint64, data: NDArray[np.uint8], i: int, end: int) -> np.uint64:
    """`h` mixed with data[i:end], eight bytes at a time."""
    while i + 8 <= end:
        h = mix(h, load8(data, i))
        i += 8
    return mix(h, load_few(data, i, end - i)) if i < end else h


@inlined
def outline(first: int, last: int, n_bytes: int) -> int:
    """What a word is like at a glance, below `N_OUTLINES`: five bits of its first and last byte and of its
    length.

    ASCII letters have the same five bits in either case.
    """
    return (int(first) & 31) << 10 | (int(last) & 31) << 5 | (n_bytes & 31)


@inlined
def load_few(data: NDArray[np.uint8], i: int, n_bytes: int) -> np.uint64:
    """data[i:i + n_bytes], one to eight bytes, as the low end of a little-endian number."""
    if i + 8 <= len(data):
        return load8(data, i) & (~np.uint64(0) >> np.uint64(64 - 8 * n_bytes))
    word = np.uint64(0)
    for k in range(n_bytes):
        word |= np.uint64(data[i + k]) << np.uint64(8 * k)
    return word


@inlined
def first_sixteen(data: NDArray[np.uint8], i: int, n_bytes: int) -> tuple[np.uint64, np.uint64]:
    """data[i:i + n_bytes], of which only the first sixteen bytes, as two little-endian numbers; without a
    branch, but at the end of `data`."""
    if i + 16 > len(data):
        return _last_bytes(data, i, n_bytes)
    n_low = np.uint64(min(n_bytes, 8))
    n_high = np.uint64(min(n_bytes, 16) - n_low)
    return load8(data, i) & _FIRST[n_low], load8(data, i + 8) & _FIRST[n_high]


@uncounted
def _last_bytes(data: NDArray[np.uint8], i: int, n_bytes: int) -> tuple[np.uint64, np.uint64]:
    low, high = np.uint64(0), np.uint64(0)
    for k in range(min(n_bytes, 8)):
        low |= np.uint64(data[i + k]) << np.uint64(8 * k)
    for k in range(8, min(n_bytes, 16)):
        high |= np.uint64(data[i + k]) << np.uint64(8 * k - 64)
    return low, high


@inlined
def mix(h: np.uint64, word: np.uint64) -> np.uint64:
    """One round: a bijection of `h` for each `word`, and of `word` for each `h`; the two may be exchanged."""
    h = (h ^ word) * _K1
    h = (h ^ (h >> np.uint64(32))) * _K2
    return h ^ (h >> np.uint64(29))


@inlined
def load8(data: NDArray[np.uint8], i: int) -> np.uint64:
    """Eight bytes, little-endian; LLVM makes one load of it."""
    # Indices that cannot be negative spare the test for it, without which the loads are merged.
    at = np.uint64(i)
    return _load4(data, at) | _load4(data, at + np.uint64(4)) << np.uint64(32)


@inlined
def _load4(data: NDArray[np.uint8], at: np.uint64) -> np.uint64:
    return (
        np.uint64(data[at])
        | np.uint64(data[at + np.uint64(1)]) << np.uint64(8)
        | np.uint64(data[at + np.uint64(2)]) << np.uint64(16)
        | np.uint64(data[at + np.uint64(3)]) << np.uint64(24)
    )


@inlined
def store8(target: NDArray[np.uint8], i: int, word: np.uint64) -> None:
    """Eight bytes, little-endian."""
    at = np.uint64(i)
    for j in range(8):
        target[at + np.uint64(j)] = np.uint8(word >> np.uint64(8 * j) & np.uint64(0xFF))


@inlined
def copy(data: NDArray[np.uint8], start: int, n_bytes: int, target: NDArray[np.uint8], at: int) -> None:
    """target[at:at + n_bytes] = data[start:start + n_bytes], quickly; up to seven bytes behind are
    overwritten too."""
    k = 0
    while k < n_bytes and start + k + 8 <= len(data):
        store8(target, at + k, load8(data, start + k))
        k += 8
    while k < n_bytes:
        target[at + k] = data[start + k]
        k += 1

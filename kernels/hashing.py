"""64-bit hashes of byte ranges: XXH64, so that anyone's `xxhash` package can check them.

Why XXH64: a frozen public specification with test vectors, full avalanche, a seed, 32 bytes per step, and
only 64-bit multiplications (wyhash and XXH3 want the 128-bit product, which numba lacks). It is no defence
against an adversary.
Source: Y. Collet, xxHash fast digest algorithm, specification 0.1.1, section "XXH64".
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .jit import inlined, kernel

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)
_MASK = (1 << 64) - 1


def hash_ranges(data: NDArray[np.uint8], offsets: NDArray[np.int64], seed: int = 0) -> NDArray[np.uint64]:
    """XXH64 of each byte range.

    Args:
        data: uint8, (n_bytes,).
        offsets: int64, (n_ranges + 1,), range r is data[offsets[r]:offsets[r + 1]].
        seed: 0 <= seed < 2**64; other seeds give independent hashes.
    Returns:
        uint64, (n_ranges,).

    >>> hex(hash_ranges(np.frombuffer(b"abc", np.uint8), np.array([0, 3]))[0])
    '0x44bc2cf5ad770999'
    """
    return _hash_ranges(data, offsets, np.uint64(seed))


def hash_ranges_reference(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], seed: int = 0
) -> NDArray[np.uint64]:
    """`hash_ranges` in plain Python."""
    ranges = pairwise(offsets)
    return np.array([xxh64_reference(data[a:b].tobytes(), seed) for a, b in ranges], np.uint64)


def xxh64_reference(text: bytes, seed: int = 0) -> int:
    """XXH64 of `text`, step by step as the specification has it.

    >>> hex(xxh64_reference(b""))
    '0xef46db3751d8e999'
    """
    p1, p2, p3, p4, p5 = map(int, (_P1, _P2, _P3, _P4, _P5))
    lanes = [seed + p1 + p2, seed + p2, seed, seed - p1]
    stripes = len(text) // 32 * 32
    for i in range(0, stripes, 8):
        word = int.from_bytes(text[i : i + 8], "little")
        lanes[i // 8 % 4] = _rotate(lanes[i // 8 % 4] + word * p2, 31) * p1
    h = seed + p5
    if stripes:
        h = sum(_rotate(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True))
        for lane in lanes:
            h = (h ^ _rotate(lane * p2, 31) * p1) * p1 + p4
    h += len(text)
    for i in range(stripes, len(text) - 7, 8):
        word = int.from_bytes(text[i : i + 8], "little")
        h = _rotate(h ^ _rotate(word * p2, 31) * p1, 27) * p1 + p4
    i = len(text) // 8 * 8
    if len(text) - i >= 4:
        h = _rotate(h ^ int.from_bytes(text[i : i + 4], "little") * p1, 23) * p2 + p3
        i += 4
    for byte in text[i:]:
        h = _rotate(h ^ byte * p5, 11) * p1
    return avalanche_reference(h & _MASK)


def _rotate(value: int, bits: int) -> int:
    value &= _MASK
    return (value << bits | value >> 64 - bits) & _MASK


@kernel
def _hash_ranges(data: NDArray[np.uint8], offsets: NDArray[np.int64], seed: np.uint64) -> NDArray[np.uint64]:
    hashes = np.empty(len(offsets) - 1, np.uint64)
    for r in range(len(hashes)):
        hashes[r] = xxh64(data[offsets[r] : offsets[r + 1]], seed)
    return hashes


@kernel
def xxh64(data: NDArray[np.uint8], seed: np.uint64) -> np.uint64:
    """XXH64 of all of `data`."""
    i, end = 0, len(data)
    h = seed + _P5
    if end >= 32:
        a, b, c, d = seed + _P1 + _P2, seed + _P2, seed, seed - _P1
        while i + 32 <= end:
            a, b = _round(a, _load8(data, i)), _round(b, _load8(data, i + 8))
            c, d = _round(c, _load8(data, i + 16)), _round(d, _load8(data, i + 24))
            i += 32
        h = _rotl(a, 1) + _rotl(b, 7) + _rotl(c, 12) + _rotl(d, 18)
        h = _merge(_merge(_merge(_merge(h, a), b), c), d)
    h += np.uint64(end)
    while i + 8 <= end:
        h = _rotl(h ^ _round(np.uint64(0), _load8(data, i)), 27) * _P1 + _P4
        i += 8
    if i + 4 <= end:
        h = _rotl(h ^ _load4(data, i) * _P1, 23) * _P2 + _P3
        i += 4
    while i < end:
        h = _rotl(h ^ np.uint64(data[i]) * _P5, 11) * _P1
        i += 1
    return avalanche(h)


@inlined
def avalanche(h: np.uint64) -> np.uint64:
    """XXH64's finalizer: a bijection of uint64 in which each input bit flips half of the output bits."""
    h = (h ^ (h >> np.uint64(33))) * _P2
    h = (h ^ (h >> np.uint64(29))) * _P3
    return h ^ (h >> np.uint64(32))


def avalanche_reference(h: int) -> int:
    """`avalanche` of a Python int.

    >>> avalanche_reference(1) == int(avalanche(np.uint64(1)))
    True
    """
    h = (h ^ h >> 33) * int(_P2) & _MASK
    h = (h ^ h >> 29) * int(_P3) & _MASK
    return h ^ h >> 32


@inlined
def _round(lane: np.uint64, word: np.uint64) -> np.uint64:
    return _rotl(lane + word * _P2, 31) * _P1


@inlined
def _merge(h: np.uint64, lane: np.uint64) -> np.uint64:
    return (h ^ _round(np.uint64(0), lane)) * _P1 + _P4


@inlined
def _rotl(value: np.uint64, bits: int) -> np.uint64:
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@inlined
def _load4(data: NDArray[np.uint8], i: int) -> np.uint64:
    return (
        np.uint64(data[i])
        | np.uint64(data[i + 1]) << np.uint64(8)
        | np.uint64(data[i + 2]) << np.uint64(16)
        | np.uint64(data[i + 3]) << np.uint64(24)
    )


@inlined
def _load8(data: NDArray[np.uint8], i: int) -> np.uint64:
    # Little-endian on any machine; LLVM makes one unaligned load of it.
    return _load4(data, i) | _load4(data, i + 4) << np.uint64(32)

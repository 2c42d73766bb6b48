"""A keyed shuffle of [0, n) that is computed, not stored: any position at once, in both directions."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .jit import kernel

# Four rounds are Luby and Rackoff's bound for large domains. In tiny ones round functions take few values,
# and eight rounds over 3 bits leave some orders of 5 rows likelier than others, 13 standard deviations of a
# chi-square test. From 6 bits on the test passes, hence MIN_BITS: small n walk a little longer instead.
N_ROUNDS, MIN_BITS = 8, 8

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
# numba turns uint64 mixed with a plain int into float64, so the kernel's constants are uint64.
_M1, _M2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_STEP = np.uint64(_GOLDEN)
_S30, _S27, _S31, _ONE = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(1)


def permute(indices: NDArray[np.int64], n: int, key: int, *, compiled: bool = True) -> NDArray[np.int64]:
    """Where a keyed bijection of [0, n) sends each index.

    A Feistel network over the smallest 2**bits >= n, walked until the value falls below n: fewer than two
    walks of N_ROUNDS rounds are expected for each index (for n > 2**MIN_BITS). O(1) memory, nothing prepared.

    Args:
        indices: int64, (n_indices,), each in [0, n).
        n: size of the shuffled range, 1 <= n < 2**63.
        key: 0 <= key < 2**64. Different keys give unrelated orders.
        compiled: False for the same in numpy, which needs no compiled code: 6 times slower.
    Returns:
        int64, (n_indices,). `permute(np.arange(n), n, key)` holds each of 0..n-1 once.
    Raises:
        ValueError: n, the key or an index is out of range.
    Source: Black & Rogaway 2002, "Ciphers with arbitrary finite domains" (cycle walking); the round function
        is splitmix64's finaliser (Steele et al. 2014). A shuffle, not a cipher.

    >>> permute(np.arange(5), 5, key=7).tolist()
    [2, 4, 3, 0, 1]
    """
    return (
        _run(indices, n, key, forward=True) if compiled else _permute_numpy(_checked(indices, n, key), n, key)
    )


def invert(indices: NDArray[np.int64], n: int, key: int) -> NDArray[np.int64]:
    """Which index `permute` sends to each of these: the inverse bijection, at the same cost.

    Args, Raises: as `permute`.
    Returns:
        int64, (n_indices,), with `invert(permute(i, n, key), n, key) == i`.

    >>> invert(np.array([2, 4, 3, 0, 1]), 5, key=7).tolist()
    [0, 1, 2, 3, 4]
    """
    return _run(indices, n, key, forward=False)


def permute_reference(indices: NDArray[np.int64], n: int, key: int) -> NDArray[np.int64]:
    """`permute`, one index at a time in Python's integers."""
    low_bits, high_bits = _halves(n)
    low_mask, high_mask = (1 << low_bits) - 1, (1 << high_bits) - 1
    keys = round_keys(key)

    def encrypt(x: int) -> int:
        high, low = x >> low_bits, x & low_mask
        for r in range(0, N_ROUNDS, 2):
            high ^= _mix_reference(low + keys[r]) & high_mask
            low ^= _mix_reference(high + keys[r + 1]) & low_mask
        return high << low_bits | low

    def walk(x: int) -> int:
        x = encrypt(x)
        while x >= n:
            x = encrypt(x)
        return x

    return np.array([walk(int(x)) for x in indices], np.int64)


def round_keys(key: int) -> list[int]:
    """The N_ROUNDS uint64 round keys of `key`: the first outputs of splitmix64 seeded with it."""
    return [_mix_reference(key + (r + 1) * _GOLDEN) for r in range(N_ROUNDS)]


def mix64(values: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    """Each value's hash: uint64, the values' shape. One to one for a key; other keys give unrelated hashes.

    Source: splitmix64's finaliser (Steele et al. 2014).

    >>> mix64(np.arange(2, dtype=np.uint64), key=1).tolist()
    [15916886550466581944, 16051188185124956539]
    """
    return _mix_numpy(values + np.array([_mix_reference(key + _GOLDEN)], np.uint64))


def _permute_numpy(indices: NDArray[np.int64], n: int, key: int) -> NDArray[np.int64]:
    low_bits, high_bits = map(np.uint64, _halves(n))
    low_mask, high_mask = (_ONE << low_bits) - _ONE, (_ONE << high_bits) - _ONE
    keys = [np.array([k], np.uint64) for k in round_keys(key)]  # arrays wrap around without a warning
    values = indices.astype(np.uint64)
    walking = np.arange(values.size)
    while walking.size:
        x = values[walking]
        high, low = x >> low_bits, x & low_mask
        for r in range(0, N_ROUNDS, 2):
            high ^= _mix_numpy(low + keys[r]) & high_mask
            low ^= _mix_numpy(high + keys[r + 1]) & low_mask
        values[walking] = x = (high << low_bits) | low
        walking = walking[x >= np.uint64(n)]
    return values.astype(np.int64)


def _mix_numpy(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> _S30)) * _M1
    x = (x ^ (x >> _S27)) * _M2
    return x ^ (x >> _S31)


def _checked(indices: NDArray[np.int64], n: int, key: int) -> NDArray[np.int64]:
    if not 1 <= n < 2**63:
        raise ValueError(f"n is {n}; a permutation needs 1 <= n < 2**63")
    if not 0 <= key < 2**64:
        raise ValueError(f"key is {key}; it must lie in [0, 2**64)")
    indices = np.ascontiguousarray(indices, np.int64)
    if indices.size and (indices.min() < 0 or indices.max() >= n):
        raise ValueError(f"indices run from {indices.min()} to {indices.max()}; they must lie in [0, {n})")
    return indices


def _run(indices: NDArray[np.int64], n: int, key: int, *, forward: bool) -> NDArray[np.int64]:
    indices = _checked(indices, n, key)
    low_bits, high_bits = map(np.uint64, _halves(n))
    out = np.empty_like(indices)
    _feistel(indices, np.uint64(n), _round_keys(key), low_bits, high_bits, forward, out)
    return out


@lru_cache(maxsize=1024)
def _round_keys(key: int) -> NDArray[np.uint64]:
    return np.array(round_keys(key), np.uint64)


def _halves(n: int) -> tuple[int, int]:
    """Bits of the low and high half of the smallest power of two >= n that has at least MIN_BITS."""
    bits = max(MIN_BITS, (n - 1).bit_length())
    return bits // 2, bits - bits // 2


def _mix_reference(x: int) -> int:
    x &= _MASK
    x = (x ^ x >> 30) * int(_M1) & _MASK
    x = (x ^ x >> 27) * int(_M2) & _MASK
    return x ^ x >> 31


@kernel
def _mix(x: np.uint64) -> np.uint64:
    x = (x ^ (x >> _S30)) * _M1
    x = (x ^ (x >> _S27)) * _M2
    return x ^ (x >> _S31)


@kernel
def mix64_of(value: np.uint64, key: np.uint64) -> np.uint64:
    """`mix64` of one value, for kernels.

    >>> int(mix64_of(np.uint64(1), np.uint64(1)))
    16051188185124956539
    """
    return _mix(value + _mix(key + _STEP))


@kernel
def _feistel(
    indices: NDArray[np.int64],
    n: np.uint64,
    keys: NDArray[np.uint64],
    low_bits: np.uint64,
    high_bits: np.uint64,
    forward: bool,
    out: NDArray[np.int64],
) -> None:
    low_mask, high_mask = (_ONE << low_bits) - _ONE, (_ONE << high_bits) - _ONE
    for i in range(indices.shape[0]):
        x = np.uint64(indices[i])
        while True:
            high, low = x >> low_bits, x & low_mask
            for step in range(N_ROUNDS):
                r = step if forward else N_ROUNDS - 1 - step
                if r % 2 == 0:
                    high ^= _mix(low + keys[r]) & high_mask
                else:
                    low ^= _mix(high + keys[r]) & low_mask
            x = (high << low_bits) | low
            if x < n:
                break
        out[i] = np.int64(x)

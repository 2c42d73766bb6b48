"""Which of many hashes occur more than once, without sorting those that don't."""

import numpy as np
from numpy.typing import NDArray

from .hashing import avalanche
from .jit import kernel


def recurring(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which keys occur more than once.

    A table of one byte per slot counts hits by the upper bits of the keys' hashes; only keys whose slot was
    hit twice are sorted. Where few recur this is linear, and several times as fast as a sort.

    Args:
        keys: uint64, (n_keys,).
    Returns:
        bool, (n_keys,).

    >>> recurring(np.array([3, 1, 3], np.uint64))
    array([ True, False,  True])
    """
    again = _share_a_slot(keys, max(len(keys) - 1, 1).bit_length() + 2)
    again[again] = recurring_reference(keys[again])
    return again


def recurring_reference(keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """`recurring` by sorting."""
    _, which, counts = np.unique(keys, return_inverse=True, return_counts=True)
    return np.asarray(counts[which] > 1)


@kernel
def _share_a_slot(keys: NDArray[np.uint64], bits: int) -> NDArray[np.bool_]:
    shift = np.uint64(64 - bits)
    hits = np.zeros(1 << bits, np.uint8)
    for key in keys:
        slot = avalanche(key) >> shift
        hits[slot] = min(hits[slot] + 1, 2)
    again = np.empty(len(keys), np.bool_)
    for i in range(len(keys)):
        again[i] = hits[avalanche(keys[i]) >> shift] > 1
    return again

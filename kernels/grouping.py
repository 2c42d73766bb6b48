"""Equal hashes of one document brought together, in a table that is small enough for the nearest cache."""

import numpy as np
from numpy.typing import NDArray

from .jit import uncounted


@uncounted
def group(
    keys: NDArray[np.uint64],
    n_keys: int,
    table: NDArray[np.int32],
    first: NDArray[np.int32],
    count: NDArray[np.int32],
) -> None:
    """first[k] becomes the first key that equals key k, and count[k] how many do, where first[k] == k.

    Args:
        keys: uint64, at least (n_keys,).
        table: int32, at least (n_slots_for(n_keys),), overwritten.
        first, count: int32, at least (n_keys,), overwritten.
    """
    n_slots = n_slots_for(n_keys)
    table[:n_slots] = 0
    for k in range(n_keys):
        slot = np.int64(keys[k] & np.uint64(n_slots - 1))
        while table[slot] and keys[table[slot] - 1] != keys[k]:
            slot = (slot + 1) & (n_slots - 1)
        if table[slot]:
            first[k] = table[slot] - 1
            count[first[k]] += 1
        else:
            table[slot] = k + 1
            first[k], count[k] = k, 1


@uncounted
def n_slots_for(n_keys: int) -> int:
    """A power of two, so large that the table is at most half full."""
    n_slots = 16
    while n_slots < 2 * n_keys:
        n_slots *= 2
    return n_slots

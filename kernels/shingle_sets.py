"""The distinct shingles of each document, so that two documents can be compared exactly."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .jit import kernel


def shingle_sets(
    shingles: NDArray[np.uint32], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """Each document's distinct shingles, ascending.

    Args:
        shingles: uint32, (n_shingles,), the documents' shingle hashes one after another.
        offsets: int64, (n_docs + 1,), document d is shingles[offsets[d]:offsets[d + 1]].
    Returns:
        sets: uint32, (n_distinct,), and set_offsets: int64, (n_docs + 1,).
    Cost: a radix sort of each document, or a comparison sort where it is short.

    >>> shingle_sets(np.array([7, 3, 7, 5], np.uint32), np.array([0, 3, 4]))
    (array([3, 7, 5], dtype=uint32), array([0, 2, 3]))
    """
    return _shingle_sets(shingles, offsets)


def shingle_sets_reference(
    shingles: NDArray[np.uint32], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """`shingle_sets` with Python's sets."""
    sets = [sorted(set(shingles[a:b].tolist())) for a, b in pairwise(offsets)]
    together = np.array([shingle for members in sets for shingle in members], np.uint32)
    return together, np.cumsum([0, *map(len, sets)], dtype=np.int64)


@kernel
def _shingle_sets(
    shingles: NDArray[np.uint32], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    sets = np.empty(offsets[-1] - offsets[0], np.uint32)
    set_offsets = np.zeros(len(offsets), np.int64)
    longest = 0
    for d in range(len(offsets) - 1):
        longest = max(longest, offsets[d + 1] - offsets[d])
    document, room = np.empty(longest, np.uint32), np.empty(longest, np.uint32)
    n_distinct = 0
    for d in range(len(offsets) - 1):
        n = offsets[d + 1] - offsets[d]
        document[:n] = shingles[offsets[d] : offsets[d + 1]]
        if n < _RADIX_FROM:
            document[:n].sort()
        else:
            _radix_sort(document[:n], room[:n])
        for i in range(n):
            if i == 0 or document[i] != document[i - 1]:
                sets[n_distinct] = document[i]
                n_distinct += 1
        set_offsets[d + 1] = n_distinct
    return sets[:n_distinct].copy(), set_offsets


_RADIX_FROM = 256  # shingles; below, four passes over 256 counts cost more than comparing


@kernel
def _radix_sort(values: NDArray[np.uint32], room: NDArray[np.uint32]) -> None:
    """Sorts `values` by byte, lowest first; after four passes they lie where they began."""
    for shift in range(0, 32, 8):
        counts = np.zeros(257, np.int64)
        for value in values:
            counts[((value >> np.uint32(shift)) & np.uint32(0xFF)) + 1] += 1
        for byte in range(256):
            counts[byte + 1] += counts[byte]
        for value in values:
            byte = (value >> np.uint32(shift)) & np.uint32(0xFF)
            room[counts[byte]] = value
            counts[byte] += 1
        values, room = room, values

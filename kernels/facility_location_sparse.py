"""Facility location where each row is similar to few items, as in a graph of nearest neighbours."""

import numpy as np
from numpy.typing import NDArray

from .facility_location import Float32s, Selection, check_finite, selection_of
from .jit import inlined, kernel


def facility_location_sparse(
    starts: NDArray[np.int64], items: NDArray[np.int64], similarity: Float32s, n_items: int, k: int
) -> Selection:
    """`facility_location` where each row is similar to few items, as in a graph of nearest neighbours.

    Args:
        starts: int64, (n_rows + 1,): row i is similar to items[starts[i]:starts[i + 1]], which are distinct.
        items: int64, (n_pairs,), in [0, n_items).
        similarity: float32, (n_pairs,), finite; negative counts as 0.
        k: 1 <= k <= n_rows.
    Returns:
        As `facility_location`; items that no chosen row is similar to are in no size.
    Raises:
        ValueError: the arrays disagree, or a value is out of range.

    >>> starts, items = np.array([0, 2, 4, 5]), np.array([0, 1, 1, 2, 3])
    >>> similarity = np.array([1.0, 0.5, 1.0, 0.8, 0.1], np.float32)
    >>> facility_location_sparse(starts, items, similarity, 4, 2).indices.tolist()
    [1, 0]
    """
    n_rows = starts.size - 1
    if not 1 <= k <= n_rows:
        raise ValueError(f"k is {k}; of {n_rows} rows 1 to {n_rows} can be chosen")
    if (
        starts[0] != 0
        or starts[-1] != items.size
        or items.size != similarity.size
        or (np.diff(starts) < 0).any()
    ):
        raise ValueError(
            f"starts run from {starts[0]} to {starts[-1]}; with {items.size} items and {similarity.size} "
            f"similarities they rise from 0 to {items.size}"
        )
    if items.size and (items.min() < 0 or items.max() >= n_items):
        raise ValueError(f"items run from {items.min()} to {items.max()}; they must lie in [0, {n_items})")
    values = np.ascontiguousarray(similarity, np.float32)
    check_finite("similarity", values)
    indices, gains = np.empty(k, np.int64), np.empty(k, np.float32)
    best = np.full(n_items, -1, np.int64)
    _lazy_sparse(np.asarray(starts, np.int64), np.asarray(items, np.int64), values, indices, gains, best)
    return selection_of(indices, gains, best)


@inlined
def _sink(heap: NDArray[np.int64], size: int, bound: Float32s) -> None:
    """Put the top of a heap where it belongs: the greatest bound on top, of equals the smallest row."""
    at, row = 0, heap[0]
    while 2 * at + 1 < size:
        child = 2 * at + 1
        left = heap[child]
        if child + 1 < size:
            right = heap[child + 1]
            if bound[right] > bound[left] or (bound[right] == bound[left] and right < left):
                child, left = child + 1, right
        if bound[row] > bound[left] or (bound[row] == bound[left] and row < left):
            break
        heap[at] = left
        at = child
    heap[at] = row


@kernel
def _lazy_sparse(
    starts: NDArray[np.int64],
    items: NDArray[np.int64],
    values: Float32s,
    indices: NDArray[np.int64],
    gains: Float32s,
    best: NDArray[np.int64],
) -> None:
    n_rows = starts.size - 1
    cover, bound = np.zeros(best.size, np.float32), np.zeros(n_rows, np.float32)
    step_of = np.zeros(n_rows, np.int64)
    for i in range(n_rows):
        for p in range(starts[i], starts[i + 1]):
            bound[i] += max(values[p], np.float32(0))
    heap, size = np.argsort(-bound, kind="mergesort"), n_rows
    n_chosen = 0
    while n_chosen < indices.size:
        top = heap[0]
        if step_of[top] < n_chosen:
            total = np.float32(0)
            for p in range(starts[top], starts[top + 1]):
                total += max(values[p] - cover[items[p]], np.float32(0))
            bound[top], step_of[top] = total, n_chosen
        else:
            for p in range(starts[top], starts[top + 1]):
                if values[p] > cover[items[p]]:
                    cover[items[p]] = values[p]
                    best[items[p]] = n_chosen
            indices[n_chosen], gains[n_chosen] = top, bound[top]
            n_chosen, size = n_chosen + 1, size - 1
            heap[0] = heap[size]
        _sink(heap, size, bound)

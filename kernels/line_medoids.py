"""The k points on a line that others are nearest to: k-medoids in one dimension, exactly."""

from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from .jit import inlined, kernel


def line_medoids(values: NDArray[np.float64], k: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The k values with the least sum of distances from each value to the nearest of them.

    Values in order fall into k runs, each with its median; the best last run of the first m values begins the
    further right the greater m is, so each of the k layers costs O(n log n) by halving.

    Args:
        values: float64, (n,), finite, in any order.
        k: 1 <= k <= n.
    Returns:
        indices: int64, (k,), into `values`, by rising value.
        sizes: int64, (k,), values in each run.
    Raises:
        ValueError: k or a value is out of range.
    Source: Grønlund et al. 2017, "Fast exact k-means, k-medians and Bregman divergence clustering in 1D"
        (arXiv 1701.07204), section 2.2, the divide and conquer of the layers.

    >>> line_medoids(np.array([9.0, 1.0, 8.0, 2.0, 3.0]), 2)
    (array([3, 2]), array([3, 2]))
    """
    values = np.ascontiguousarray(values, np.float64)
    if values.ndim != 1 or not 1 <= k <= values.size:
        raise ValueError(
            f"k is {k}; of values of shape {values.shape} one or more can be chosen, and at most all"
        )
    if not np.isfinite(values).all():
        at = int(np.argmax(~np.isfinite(values)))
        raise ValueError(f"values[{at}] is {values[at]}; all values must be finite")
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    # Distances do not change when all values move; small ones lose no digits in the sums.
    sums = np.concatenate([[0.0], np.cumsum(ordered - ordered[values.size // 2])])
    begins = np.empty((k, values.size + 1), np.int64)
    _layers(ordered - ordered[values.size // 2], sums, begins)
    bounds = [values.size]
    for layer in range(k - 1, 0, -1):
        bounds.append(int(begins[layer, bounds[-1]]))
    bounds = [0, *reversed(bounds)]
    medians = [(begin + end - 1) // 2 for begin, end in pairwise(bounds)]
    return order[medians], np.diff(bounds)


def line_medoids_reference(values: NDArray[np.float64], k: int) -> float:
    """The least sum of distances, over every choice of k values."""
    return min(
        float(np.abs(values[:, None] - values[list(chosen)]).min(axis=1).sum())
        for chosen in combinations(range(values.size), k)
    )


@inlined
def _cost(values: NDArray[np.float64], sums: NDArray[np.float64], begin: int, end: int) -> float:
    """Sum of the distances of values [begin, end) to their lower median."""
    middle = (begin + end - 1) // 2
    below = values[middle] * (middle - begin) - (sums[middle] - sums[begin])
    above = sums[end] - sums[middle + 1] - values[middle] * (end - middle - 1)
    return float(below + above)


@kernel
def _layers(values: NDArray[np.float64], sums: NDArray[np.float64], begins: NDArray[np.int64]) -> None:
    """begins[r, m]: where the last of r + 1 runs of the first m values begins; every run has a value."""
    k, n = begins.shape[0], begins.shape[1] - 1
    cost, before = np.empty(n + 1), np.empty(n + 1)
    for m in range(1, n + 1):
        begins[0, m], cost[m] = 0, _cost(values, sums, 0, m)
    stack = np.empty((130, 4), np.int64)  # halving 64-bit ranges leaves at most 64 pairs open
    for r in range(1, k):
        before[:] = cost
        stack[0, 0], stack[0, 1], stack[0, 2], stack[0, 3] = r + 1, n, r, n - 1
        n_open = 1
        while n_open:
            n_open -= 1
            low, high, first, last = stack[n_open]
            m = (low + high) // 2
            best, best_cost = -1, np.inf
            for begin in range(max(first, r), min(last, m - 1) + 1):
                found = before[begin] + _cost(values, sums, begin, m)
                if found < best_cost:
                    best, best_cost = begin, found
            begins[r, m], cost[m] = best, best_cost
            if low < m:
                stack[n_open, 0], stack[n_open, 1], stack[n_open, 2], stack[n_open, 3] = (
                    low,
                    m - 1,
                    first,
                    best,
                )
                n_open += 1
            if m < high:
                stack[n_open, 0], stack[n_open, 1], stack[n_open, 2], stack[n_open, 3] = (
                    m + 1,
                    high,
                    best,
                    last,
                )
                n_open += 1

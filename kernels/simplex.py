"""Weights that sum to one: from logits, and within bounds."""

import numpy as np
from numpy.typing import NDArray

from .jit import kernel

Floats = NDArray[np.float64]
TOLERANCE = 1e-12
"""By how much bounded weights may miss a sum of one."""


def softmax(logits: Floats) -> Floats:
    """float64, (n,), summing to one."""
    shifted = np.exp(logits - logits.max())
    found: Floats = shifted / shifted.sum()
    return found


def bounded_weights(weights: Floats, low: Floats, high: Floats) -> Floats:
    """The weights in proportion, each within its bounds: clip(factor · weight, low, high), summing to one.

    Args:
        weights: float64, (n_domains,), > 0.
        low, high: float64, (n_domains,), low <= high, whose sums have 1 between them.
    Returns:
        float64, (n_domains,). Within 1e-12 of `bounded_weights_reference`, whose sums are in another order.

    >>> bounded_weights(np.array([0.8, 0.1, 0.1]), np.zeros(3), np.array([0.5, 1, 1])).tolist()
    [0.5, 0.25, 0.25]
    """
    return _bounded(weights, low, high)


def bounded_weights_reference(weights: Floats, low: Floats, high: Floats) -> Floats:
    """`bounded_weights`, in numpy: those beyond their bounds are held there, until the others are within."""
    result: Floats = weights / weights.sum()
    held = np.zeros(weights.size, bool)
    while True:
        clipped: Floats = np.minimum(np.maximum(result, low), high)
        excess = clipped.sum() - 1
        if (clipped == result).all() or abs(excess) < TOLERANCE or held.all():
            return clipped
        held |= (result < low) if excess > 0 else (result > high)
        free = ~held
        if not free.any():
            return clipped
        result = np.where(held, clipped, result)
        result[free] = weights[free] * (1 - clipped[held].sum()) / weights[free].sum()


def bounded_softmax(logits: Floats, low: Floats, high: Floats) -> Floats:
    """`bounded_weights(softmax(logits), low, high)`: float64, (n_domains,); a microsecond or two."""
    return _bounded_softmax(logits, low, high)


def whole_weights(weights: Floats, total: int, unit: int) -> NDArray[np.int64]:
    """`total` in proportion to the weights, in multiples of `unit`, at least one each.

    Each has the multiple below its part, and what is left goes to the largest fractions (ties: the first).
    What `total` has beyond a multiple, and what was given to those that have none, is the greatest's.

    Args:
        weights: float64, (n_domains,), >= 0, summing to one.
        total: below 2**53, at least n_domains multiples of `unit`.
    Returns:
        int64, (n_domains,), > 0, summing to `total`.

    >>> whole_weights(np.array([0.6, 0.39, 0.01]), 21, 2).tolist()
    [11, 8, 2]
    """
    return _whole(weights, total, unit)


def whole_weights_reference(weights: Floats, total: int, unit: int) -> NDArray[np.int64]:
    """`whole_weights` in numpy."""
    exact = weights * (total // unit)
    whole = np.floor(exact)
    n_left = int(total // unit - whole.sum())
    whole[np.argsort(whole - exact, kind="stable")[: max(n_left, 0)]] += 1
    found: NDArray[np.int64] = np.maximum(whole.astype(np.int64), 1) * unit
    found[np.argmax(found)] += total - int(found.sum())
    return found


@kernel
def _whole(weights: Floats, total: int, unit: int) -> NDArray[np.int64]:
    n, n_left = weights.size, total // unit
    found, missing = np.empty(n, np.int64), np.empty(n)
    for k in range(n):
        exact = weights[k] * (total // unit)
        found[k] = np.int64(np.floor(exact))
        missing[k] = found[k] - exact
        n_left -= found[k]
    if n_left > 0:
        order = np.argsort(missing, kind="mergesort")
        for k in order[:n_left]:
            found[k] += 1
    greatest = 0
    for k in range(n):
        found[k] = max(found[k], 1) * unit
        total -= found[k]
        if found[k] > found[greatest]:
            greatest = k
    found[greatest] += total
    return found


@kernel
def _bounded(weights: Floats, low: Floats, high: Floats) -> Floats:
    n, total = weights.size, 0.0
    for k in range(n):
        total += weights[k]
    result, clipped, held = weights / total, np.empty(n), np.zeros(n, np.bool_)
    n_held = 0
    while True:
        total, is_within = 0.0, True
        for k in range(n):
            clipped[k] = min(max(result[k], low[k]), high[k])
            is_within = is_within and clipped[k] == result[k]
            total += clipped[k]
        excess = total - 1
        if is_within or abs(excess) < TOLERANCE or n_held == n:
            return clipped
        of_free, of_held, n_held = 0.0, 0.0, 0
        for k in range(n):
            held[k] = held[k] or (result[k] < low[k] if excess > 0 else result[k] > high[k])
            if held[k]:
                of_held += clipped[k]
                n_held += 1
            else:
                of_free += weights[k]
        if n_held == n:
            return clipped
        for k in range(n):
            result[k] = clipped[k] if held[k] else weights[k] * (1 - of_held) / of_free


@kernel
def _bounded_softmax(logits: Floats, low: Floats, high: Floats) -> Floats:
    greatest, total = logits.max(), 0.0
    shifted = np.empty(logits.size)
    for k in range(logits.size):
        shifted[k] = np.exp(logits[k] - greatest)
        total += shifted[k]
    for k in range(logits.size):
        shifted[k] /= total
    return _bounded(shifted, low, high)

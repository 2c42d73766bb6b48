"""Facility location over a stream: which rows to keep is decided as they pass by."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .facility_location import Float32s, check_finite


class Sieve:
    """Facility location over rows that pass by once: each is kept or not when it is seen.

    Several guesses of the best f, a factor 1 + epsilon apart, each keep their own choice: a row is taken by
    those guesses v that it raises by (v / 2 - f) / (rows still to choose). The best choice has at least
    1/2 - epsilon of the best f. Memory: O(log(k) / epsilon) covers of n_items.

    Args:
        k: rows to choose at most.
        n_items: of the fixed items that rows are compared with, a sample of the stream for one.
        epsilon: in (0, 1/2).
    Source: Badanidiyuru et al. 2014, "Streaming submodular maximization: massive data summarization on the
        fly", algorithm 3 (SieveStreaming++ would drop more guesses early).

    >>> sieve = Sieve(k=2, n_items=3)
    >>> for number, row in enumerate(np.eye(3)):
    ...     sieve.add(number, row)
    >>> sieve.chosen()
    [0, 1]
    """

    def __init__(self, k: int, n_items: int, epsilon: float = 0.1) -> None:
        if k < 1 or n_items < 1 or not 0 < epsilon < 0.5:
            raise ValueError(
                f"k, n_items and epsilon are {k}, {n_items}, {epsilon}; allowed are 1 or more, 1 or more, "
                "and what lies between 0 and 1/2"
            )
        self._k, self._n_items, self._base = k, n_items, 1 + epsilon
        self._largest = 0.0
        self._guesses: dict[int, tuple[list[int], Float32s]] = {}

    def add(self, number: int, row: NDArray[np.floating[Any]]) -> None:
        """See a row, which callers name by `number`: its similarity to each item, (n_items,)."""
        values = np.ascontiguousarray(row, np.float32)
        if values.shape != (self._n_items,):
            raise ValueError(f"row {number} has shape {values.shape}; it must be ({self._n_items},)")
        check_finite(f"row {number}", values)
        alone = float(np.maximum(values, 0).sum(dtype=np.float64))
        if alone > self._largest:
            self._largest = alone
            self._renew()
        for power, (chosen, cover) in self._guesses.items():
            if len(chosen) == self._k:
                continue
            f = float(cover.sum(dtype=np.float64))
            gain = float(np.maximum(values - cover, 0).sum(dtype=np.float64))
            if gain > 0 and gain >= (self._base**power / 2 - f) / (self._k - len(chosen)):
                chosen.append(number)
                np.maximum(cover, values, out=cover)

    def chosen(self) -> list[int]:
        """The rows of the best choice so far, in the order in which they came."""
        sums = {power: float(cover.sum(dtype=np.float64)) for power, (_, cover) in self._guesses.items()}
        return list(self._guesses[max(sums, key=lambda power: sums[power])][0]) if sums else []

    def _renew(self) -> None:
        """Guesses between the best single row and k of it; those below go, new ones start empty."""
        low = math.ceil(math.log(self._largest, self._base))
        high = math.floor(math.log(2 * self._k * self._largest, self._base))
        self._guesses = {
            power: self._guesses.get(power) or ([], np.zeros(self._n_items, np.float32))
            for power in range(low, high + 1)
        }

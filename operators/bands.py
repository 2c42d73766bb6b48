"""How many bands of how many values: the S-curve of MinHash, and the bands that suit a threshold."""

from functools import cache
from math import exp, lgamma, log
from typing import Any, NamedTuple

import numpy as np

MAX_CHOSEN_BANDS = 18
"""A band costs 16 bytes per document to exchange: 18 of them stay below 300."""
MISSED = 1 / 30_000
"""Share of the pairs at the threshold whose sketches may agree too little to be compared: four sigma."""
_N_POINTS = 512  # of the midpoint rule; the errors it yields are right to 1e-5


class Bands(NamedTuple):
    """A signature of `n_bands * rows_per_band` values, in bands."""

    n_bands: int
    rows_per_band: int

    def __str__(self) -> str:
        return f"{self.n_bands}x{self.rows_per_band}"

    def candidate_probability(self, similarity: Any) -> Any:
        """The chance ``1 - (1 - s**r)**b`` that documents of Jaccard similarity s share one of b bands of r.

        Source: Leskovec, Rajaraman and Ullman 2014, "Mining of Massive Datasets", section 3.4.2.

        >>> round(Bands(14, 8).candidate_probability(0.8), 4)
        0.9235
        """
        return 1 - (1 - similarity**self.rows_per_band) ** self.n_bands


@cache
def choose_bands(threshold: float, n_perm: int, false_negative_weight: float) -> Bands:
    """The bands with the least ``w * false negatives + (1 - w) * false positives``.

    w is `false_negative_weight`. Of pairs whose similarity is uniform in [0, 1], false negatives are the
    share that is at `threshold` or more and has no band in common, false positives the share that is below
    and has one. At most `n_perm` values and `MAX_CHOSEN_BANDS` bands; of equal choices the first.

    Source: Zhu et al. 2016, "LSH Ensemble", section 5.4, with weights as in datasketch's MinHashLSH.

    >>> choose_bands(0.8, 112, 0.995)
    Bands(n_bands=18, rows_per_band=6)
    >>> choose_bands(0.8, 112, 0.5)
    Bands(n_bands=9, rows_per_band=12)
    """
    middle = (np.arange(_N_POINTS) + 0.5) / _N_POINTS
    below, above = middle * threshold, threshold + middle * (1 - threshold)
    choices = [
        Bands(n_bands, rows)
        for n_bands in range(1, min(n_perm, MAX_CHOSEN_BANDS) + 1)
        for rows in range(1, n_perm // n_bands + 1)
    ]

    def error(bands: Bands) -> float:
        false_positives = threshold * bands.candidate_probability(below).mean()
        false_negatives = (1 - threshold) * (1 - bands.candidate_probability(above)).mean()
        return float(false_negative_weight * false_negatives + (1 - false_negative_weight) * false_positives)

    return min(choices, key=error)


def min_agreement(threshold: float, n_perm: int) -> int:
    """How many bytes of two sketches agree, but for `MISSED` of the pairs at `threshold`.

    A byte agrees with probability t + (1 - t) / 256, so their number is binomial; more similar pairs agree in
    more of them.

    >>> min_agreement(0.8, 112), min_agreement(1.0, 112)
    (72, 112)
    """
    p = threshold + (1 - threshold) / 256
    below, n_agree = 0.0, 0
    while n_agree < n_perm and (below := below + _binomial(n_agree, n_perm, p)) <= MISSED:
        n_agree += 1
    return n_agree


def _binomial(k: int, n: int, p: float) -> float:
    """The probability of k of n; p > 0."""
    if p == 1:
        return float(k == n)
    log_choices = lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
    return exp(log_choices + k * log(p) + (n - k) * log(1 - p))

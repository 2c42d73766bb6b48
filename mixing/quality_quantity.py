"""The quality-quantity trade-off: a law in which a domain's utility halves as it is repeated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from .laws import LawMixer, Pullback
from .mixer import Floats

TYPICAL_UTILITY = 0.1  # exponent of an ordinary domain: where the search starts and what the penalty pulls to
TYPICAL_HALF_LIFE = 10.0  # epochs, likewise
LOG_BOUND = 5.0  # of both, around what is typical
MAX_EPOCHS = 200  # later ones add nothing: utility has halved many times


@dataclass(eq=False, kw_only=True)
class QualityQuantityMixer(LawMixer):
    """loss = c + A exp(-sum_k w_k u_k G_k): domain k's utility u_k halves every tau_k / w_k epochs.

    With n tokens of training and T_k of domain k there are, epoch j of the domain lies between j T_k / w_k
    and (j + 1) T_k / w_k tokens of the run, and

        G_k = sum_j 2^(-j w_k / tau_k) log(end_j / start_j),   j = 0, 1, ..., both within n

    the logarithm of n where nothing is repeated: then the law is a power of n and an exponential law in w.
    Runs may have different `n_tokens`, and `predict` goes to others; several are needed to tell half-lives.

    Args:
        available_tokens: T_k by domain; a domain that is not named is never repeated.

    Source: Scaling Laws for Data Filtering (Goyal et al. 2024) and its code. Departures: buckets of any
        weight instead of equal ones (a half-life grows with 1 / w_k, theirs with the number of buckets, which
        is the same for equal weights); c is added once, where their single-bucket code multiplies it by the
        later epochs' factors, too; gradients from several starts, where their code looks at a tenth of its
        grid only (it stops after 100,000 of 10^6 combinations) and fixes A between buckets.
    """

    available_tokens: Mapping[str, float] | None = None
    l2: float = 1e-4
    reads_tokens: ClassVar[bool] = True

    def inputs(self, weights: Floats, n_tokens: Floats) -> Floats:
        """Weights, and the logarithm of the tokens: (n, K + 1). Unknown tokens, 0, count as e."""
        return np.column_stack([weights, np.log(np.maximum(n_tokens, np.e))])

    def start(self, correlation: Floats, i: int) -> Floats:
        k = len(correlation) - 1
        return np.concatenate([-2.0 * correlation[:k], np.full(k, (0.0, 1.0, -1.0)[i % 3])])

    def shape(self, theta: Floats, weights: Floats) -> tuple[Floats, Pullback]:
        k = weights.shape[1] - 1
        w, log_n = weights[:, :k], weights[:, k]
        bounded = np.clip(theta, -LOG_BOUND, LOG_BOUND)
        utility = TYPICAL_UTILITY * np.exp(bounded[:k])
        growth, by_log_half_life = self._growth(w, log_n, TYPICAL_HALF_LIFE * np.exp(bounded[k:]))
        h = np.exp(-(w * growth) @ utility)

        def pullback(derivative: Floats) -> Floats:
            scaled = -(derivative * h)[:, None] * w * utility  # (n, K)
            return np.concatenate([(scaled * growth).sum(axis=0), (scaled * by_log_half_life).sum(axis=0)])

        return h, pullback

    def _growth(self, w: Floats, log_n: Floats, half_life: Floats) -> tuple[Floats, Floats]:
        """G, (n, K), and its derivative by the logarithm of the half-lives."""
        with np.errstate(divide="ignore"):
            first = np.log(self._available()) - np.log(w)  # log of the tokens at which epoch 0 ends
        n = log_n[:, None]
        growth, derivative = np.minimum(n, first), np.zeros_like(w)
        for j in range(1, MAX_EPOCHS):
            length = np.minimum(n, first + np.log1p(j)) - (first + np.log(j))
            if not (length > 0).any():
                break
            halvings = j * w / half_life
            part = np.exp2(-halvings) * np.maximum(
                length, 0.0, where=np.isfinite(first), out=np.zeros_like(w)
            )
            growth, derivative = growth + part, derivative + part * halvings * np.log(2)
        return growth, derivative

    def _available(self) -> Floats:
        given = self.available_tokens or {}
        unknown = sorted(set(given) - set(self.runs.domain_names))
        if unknown:
            raise ValueError(
                f"quality_quantity: available_tokens names '{unknown[0]}'; the domains are "
                f"{', '.join(self.runs.domain_names)}."
            )
        return np.array([given.get(name, np.inf) for name in self.runs.domain_names])

"""MixMin: mix the predictions of models of single domains, which is convex in the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from .cross_fitted import CrossFittedMixer, Surface
from .design import project_to_capped_simplex
from .mixer import Floats
from .trended import slope_of

MAX_STEPS, TOLERANCE = 2000, 1e-10


@dataclass(eq=False, kw_only=True)
class MixMinMixer(CrossFittedMixer):
    """loss = a + b mean_x -log sum_k w_k q_k(x), with b near 1: the cross-entropy of mixed predictions.

    q_k(x) is what a model trained on domain k alone gives token x of the metric's text. The surface is
    convex, so that `recommend` finds its one optimum; `mixmin_weights` finds it without runs. Runs only place
    a and b, and tell how far mixed predictions are from models of mixed text.

    Args:
        probabilities: metric -> domain -> float64, (n,), q_k of n held-out tokens of the metric's text. Of
            n-gram proxies: the columns of `TrigramProxy.token_probabilities`.
        shares: metric -> float64, (n,), each token's share of the metric's text; equal by default.

    Source: MixMin (Thudi et al. 2025). There w is the minimum, by exponentiated gradient descent over the
        probabilities of one target; here a surface for each metric, and its minimum by EM. A model of
        the mixture is not the mixture of models: it shares what domains have in common, so that MixMin keeps
        more domains than training does. The affine part is ours.
    """

    probabilities: Mapping[str, Mapping[str, Floats]] | None = None
    shares: Mapping[str, Floats] | None = None

    def fit_surface(self, weights: Floats, metrics: Floats) -> Surface:
        trend = self._cross_entropies(weights)
        slopes = np.array([slope_of(t, y) for t, y in zip(trend.T, metrics.T, strict=True)])
        offsets = (metrics - slopes * trend).mean(axis=0)
        return lambda w: np.asarray(offsets + slopes * self._cross_entropies(w))

    def _cross_entropies(self, weights: Floats) -> Floats:
        """(M, J), by the probabilities alone."""
        given, domains = self.probabilities or {}, self.runs.domain_names
        columns = []
        for metric in self.runs.metric_names:
            missing = [name for name in domains if name not in given.get(metric, {})]
            if missing:
                raise ValueError(
                    f"mixmin: probabilities of metric '{metric}' lack domain '{missing[0]}'; give what a "
                    "model of each domain alone gives each held-out token of the metric's text."
                )
            q = np.column_stack([given[metric][name] for name in domains])
            columns.append(self._cross_entropy(weights, metric, q))
        return np.column_stack(columns)

    def _cross_entropy(self, weights: Floats, name: str, q: Floats) -> Floats:
        shares = np.full(len(q), 1 / len(q)) if self.shares is None else self.shares[name]
        return np.asarray(-np.log(np.atleast_2d(weights) @ q.T) @ shares)


def mixmin_weights(
    probabilities: Floats, shares: ArrayLike | None = None, caps: ArrayLike | None = None
) -> Floats:
    """The weights that minimise -sum_x s(x) log sum_k w_k q_k(x) on the simplex below the caps.

    EM for mixture proportions: each step multiplies w_k by the mean of q_k / sum_i w_i q_i, then projects by
    `project_to_capped_simplex`, which is the M-step's maximum under caps. Every step lowers the convex
    objective; steps end when none gains more than 1e-10.

    Args:
        probabilities: float64, (n, K), q, above 0 somewhere in each row.
        shares: (n,), s; equal by default.
        caps: (K,); None for no caps.
    Returns:
        float64, (K,).
    Raises:
        ValueError: a token to which no domain's model gives a probability; caps that sum to less than one.

    >>> mixmin_weights(np.array([[0.9, 0.1], [0.1, 0.9]]), shares=[0.7, 0.3]).round(3)
    array([0.75, 0.25])
    """
    q = np.asarray(probabilities, dtype=np.float64)
    s = np.full(len(q), 1 / len(q)) if shares is None else np.asarray(shares, dtype=np.float64)
    impossible = np.flatnonzero((q.max(axis=1) <= 0) & (s > 0))
    if len(impossible):
        raise ValueError(f"mixmin: no domain's model gives token {impossible[0]} a probability above 0.")
    upper = np.ones(q.shape[1]) if caps is None else np.asarray(caps, dtype=np.float64)
    w = project_to_capped_simplex(np.ones(q.shape[1]), upper)
    value = np.inf
    for _ in range(MAX_STEPS):
        mixed = q @ w
        before, value = value, -float(s @ np.log(mixed))
        if before - value < TOLERANCE:
            break
        w = project_to_capped_simplex(w * ((s / mixed) @ q), upper)
    return w

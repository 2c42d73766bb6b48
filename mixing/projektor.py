"""Projektor: losses from the optimal-transport distance between the mixed sample and the validation text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from .cross_fitted import CrossFittedMixer, Surface
from .mixer import Floats
from .transport import squared_distances, transport_costs

RIDGE = 1e-6  # of standardised features: they are collinear, since weights sum to one


@dataclass(eq=False, kw_only=True)
class ProjektorMixer(CrossFittedMixer):
    """loss = OT(w) (sum_k b2_k w_k^2 + b1_k w_k + b0) + sum_k c2_k w_k^2 + c1_k w_k + c0, for each metric.

    OT(w) is the transport cost from the domains' document vectors, weighted by w, to the vectors of the
    metric's validation documents. With runs of two or more token counts N0 < N1 the law is fitted at the
    smallest and the largest, and projected to others on the logarithm of N:

        loss(N) = (log(N / N0) loss(N1) - log(N / N1) loss(N0)) / log(N1 / N0)

    Args:
        vectors: domain -> float64, (n_k, d), a sample of its documents; a few dozen each.
        validation: metric -> float64, (m, d), documents of its text.

    Source: Performance Scaling via Optimal Transport (Kang et al. 2023) and its code. Departures: distances
        of text have no labels, so that the cost is the squared Euclidean distance of vectors instead of OTDD;
        entropic transport with a stated accuracy; least squares has a ridge of 1e-6, because its features are
        collinear; the optimum is `recommend`'s, with caps, instead of 100 steps along the dual potentials.
    """

    vectors: Mapping[str, Floats] | None = None
    validation: Mapping[str, Floats] | None = None
    reads_tokens: ClassVar[bool] = True
    _costs: dict[str, Floats] = field(default_factory=dict, init=False, repr=False)

    def inputs(self, weights: Floats, n_tokens: Floats) -> Floats:
        """Weights, the metrics' transport costs, and the logarithm of the tokens: (n, K + J + 1)."""
        names = self.runs.domain_names
        points = [np.asarray(self._sample("vectors", self.vectors, name)) for name in names]
        sizes = [len(p) for p in points]
        masses = np.repeat(weights / np.array(sizes), sizes, axis=1)  # (n, points)
        columns = []
        for metric in self.runs.metric_names:
            target = self._sample("validation", self.validation, metric)
            if metric not in self._costs:
                self._costs[metric] = squared_distances(np.concatenate(points), target)
            columns.append(transport_costs(self._costs[metric], masses))
        return np.column_stack([weights, *columns, np.log(np.maximum(n_tokens, np.e))])

    def fit_surface(self, weights: Floats, metrics: Floats) -> Surface:
        n_domains, n_metrics = len(self.runs.domain_names), metrics.shape[1]
        log_n = weights[:, -1]
        ends = [float(log_n.min()), float(log_n.max())]
        at = [log_n == end for end in dict.fromkeys(ends)]
        fits = [
            [_fit(_features(x, n_domains, j), y[:, j]) for j in range(n_metrics)]
            for x, y in ((weights[rows], metrics[rows]) for rows in at)
        ]

        def surface(x: Floats) -> Floats:
            values = [
                np.column_stack([fit(_features(x, n_domains, j)) for j, fit in enumerate(level)])
                for level in fits
            ]
            if len(values) == 1:
                return values[0]
            share = ((x[:, -1] - ends[0]) / (ends[1] - ends[0]))[:, None]
            return np.asarray(share * values[1] + (1 - share) * values[0])

        return surface

    def _sample(self, argument: str, given: Mapping[str, Floats] | None, name: str) -> Floats:
        if given is None or name not in given:
            raise ValueError(
                f"projektor: {argument} has no '{name}'; give document vectors, (n, d), of each domain as "
                "`vectors` and of each metric's text as `validation`."
            )
        return np.asarray(given[name], dtype=np.float64)


def _features(x: Floats, n_domains: int, metric: int) -> Floats:
    """The pseudo-quadratic's columns: (n, 4 K + 1)."""
    w, transport = x[:, :n_domains], x[:, n_domains + metric][:, None]
    squares = np.hstack([w, w * w])
    return np.hstack([transport * squares, squares, transport])


def _fit(features: Floats, y: Floats) -> Surface:
    """Least squares with an intercept."""
    centre, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 1e-12, scale, 1.0)
    x = (features - centre) / scale
    ridge = RIDGE * len(x) * np.eye(x.shape[1])
    coefficients = np.linalg.solve(x.T @ x + ridge, x.T @ (y - y.mean()))
    return lambda new: np.asarray(y.mean() + (new - centre) / scale @ coefficients)

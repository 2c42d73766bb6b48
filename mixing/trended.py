"""Any mixer with a cheap surface as its prior mean: it learns what the surface leaves over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from .mixer import Fidelity, Floats, Mixer, Prediction, Surfaces
from .proposals import Proposing
from .table import RunTable

Trend = Callable[[Floats], Floats]  # weights (M, K) -> metrics (M, J)

SLOPE_STD = 0.1  # of the trend's slope around 1, a priori


@dataclass(eq=False)
class TrendedMixer(Proposing):
    """loss(w) = b trend(w) + mixer(w), with b near 1 for each metric.

    For a Gaussian process this is a prior mean: far from all runs, predictions fall back to the trend instead
    of to the mean of the runs. b is the posterior mean under N(1, 0.1^2) and the spread of the differences as
    noise: a slope of another scale than the runs' must be rescaled first. One slope serves `leave_one_out`,
    too: with so tight a prior, no run moves it by much.

    Args:
        mixer: not fitted yet; it sees metrics minus b trend.
        trend: the same metrics by a cheaper model, such as an n-gram proxy at the runs' tokens; smooth.

    Source: Gaussian processes with a given mean, Rasmussen and Williams 2006, section 2.7.
    """

    mixer: Mixer
    trend: Trend
    _runs: RunTable | None = field(default=None, init=False, repr=False)
    _slopes: Floats = field(default_factory=lambda: np.zeros(0), init=False, repr=False)

    @property
    def is_smooth(self) -> bool:
        return self.mixer.is_smooth

    @property
    def runs(self) -> RunTable:
        if self._runs is None:
            raise ValueError("this mixer has not seen any runs; call fit(runs) first.")
        return self._runs

    @property
    def slopes(self) -> dict[str, float]:
        """b by metric."""
        return dict(zip(self.runs.metric_names, self._slopes.tolist(), strict=True))

    def fit(self, runs: RunTable) -> Self:
        """Learn what the trend leaves over.

        Raises:
            ValueError: what the mixer raises; a trend of another shape than the runs' metrics.
        """
        trend = np.asarray(self.trend(runs.weights), dtype=np.float64)
        if trend.shape != runs.metrics.shape:
            raise ValueError(
                f"the trend gave shape {trend.shape}, expected {runs.metrics.shape}: one column for each of "
                f"the metrics {', '.join(runs.metric_names)}."
            )
        self._runs = runs
        self._slopes = np.array([slope_of(t, y) for t, y in zip(trend.T, runs.metrics.T, strict=True)])
        self.mixer.fit(replace(runs, metrics=runs.metrics - self._slopes * trend))
        return self

    def predict(self, weights: Floats, fidelity: Fidelity | None = None) -> Prediction:
        """Metrics of new runs: float64, (M, J) each. The trend is the same at every fidelity."""
        found = self.mixer.predict(weights, fidelity)
        return Prediction(found.mean + self._at(weights), found.std)

    def leave_one_out(self) -> Prediction:
        """Each run, (n_runs, J), predicted by a mixer without it."""
        found = self.mixer.leave_one_out()
        return Prediction(found.mean + self._at(self.runs.weights), found.std)

    def draw_surfaces(self, n_draws: int, seed: int = 0) -> Surfaces:
        """Functions weights (M, K) -> expected metrics (n_draws, M, J); deterministic in the seed."""
        surfaces = self.mixer.draw_surfaces(n_draws, seed)
        return lambda weights: surfaces(weights) + self._at(weights)

    def _at(self, weights: Floats) -> Floats:
        return np.asarray(self._slopes * self.trend(np.atleast_2d(weights)))


def slope_of(trend: Floats, metric: Floats) -> float:
    """The slope of a metric on a trend of about its scale, (n,) each: near 1, whatever few runs say.

    >>> round(slope_of(np.array([1.0, 2.0]), np.array([5.0, 6.0])), 3)
    1.0
    """
    t, left = trend - trend.mean(), (metric - trend) - np.mean(metric - trend)
    noise = float(left @ left) / max(len(left) - 1, 1) + 1e-12
    return 1.0 + float(t @ left) / (float(t @ t) + noise / SLOPE_STD**2)

"""From a small scale to a larger one: per metric an affine map, fitted on a few runs there."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, spearmanr

from .mixer import (
    Fidelity,
    Floats,
    Mixer,
    Prediction,
    Surfaces,
    check_fidelity,
    check_runs,
    error_correlation,
)
from .objective import MEAN, Objective
from .proposals import Proposing
from .table import RunTable

MIN_RUNS = 4
MIN_LOWER_BOUND = 0.3
CONFIDENCE = 0.9
SLOPE_PRIOR_RUNS = 1.0  # weight of the common slope, in runs of the source's variance
NOISE_PRIOR_RUNS = 2.0  # weight of the common noise, in runs


@dataclass(eq=False)
class TransferredMixer(Proposing):
    """Per metric, loss at the target = a + b (loss at the source) + noise, b shrunk to a slope common to all.

    Metrics shrink by different factors as models grow (.06 to .58 from 1M to 1B parameters on RegMix's
    tables), which leaves each ranking as it is and spoils that of their mean. Eight runs at the target find
    the factors. The common slope is pooled over metrics, in the source's standard deviations, and
    weighs as much as one run.

    Args:
        source: a mixer fitted at the small scale; its metrics must hold the target's.

    Source: the affine step of Kennedy and O'Hagan 2000, without the process on its residual.
    """

    source: Mixer
    is_smooth: bool = field(init=False)
    _runs: RunTable | None = field(default=None, init=False, repr=False)
    _map: _AffineMap | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.is_smooth = self.source.is_smooth

    @property
    def runs(self) -> RunTable:
        """The runs at the target."""
        if self._runs is None:
            raise ValueError("this mixer has not seen any runs at the target; call fit(runs) first.")
        return self._runs

    def fit(self, runs: RunTable) -> Self:
        """Learn from 4 or more runs at the target.

        Raises:
            ValueError: fewer runs, several fidelities, other domains, or a metric that the source lacks.
        """
        check_runs(runs, MIN_RUNS)
        source = self.source.runs
        missing = sorted(set(runs.metric_names) - set(source.metric_names))
        if runs.domain_names != source.domain_names or missing:
            raise ValueError(
                f"the target's runs have the domains {', '.join(runs.domain_names)} and the metrics "
                f"{', '.join(runs.metric_names)}; the source has the domains "
                f"{', '.join(source.domain_names)} and the metrics {', '.join(source.metric_names)}. Domains "
                "must be the same, in order, and the target's metrics must be among the source's."
            )
        self._runs = runs
        self._map = self._fit_map(np.arange(runs.n_runs))
        return self

    def predict(self, weights: Floats, fidelity: Fidelity | None = None) -> Prediction:
        """Mean and standard deviation of new runs at the target: float64, (M, J) each."""
        check_fidelity(self.runs, fidelity)
        expected = self._source(weights)
        return self._fitted.predict(expected.mean, expected.std)

    def leave_one_out(self) -> Prediction:
        """Each run at the target, (n_runs, J), predicted from the others there."""
        expected, n_runs = self._source(self.runs.weights), self.runs.n_runs
        rows = []
        for i in range(n_runs):
            others = np.delete(np.arange(n_runs), i)
            rows.append(self._fit_map(others).predict(expected.mean[i : i + 1], expected.std[i : i + 1]))
        return Prediction(np.vstack([r.mean for r in rows]), np.vstack([r.std for r in rows]))

    def draw_surfaces(self, n_draws: int, seed: int = 0) -> Surfaces:
        """The source's draws through draws of the affine map: weights (M, K) -> (n_draws, M, J)."""
        columns, surfaces = self._columns(), self.source.draw_surfaces(n_draws, seed)
        left_out = self.leave_one_out()
        root = np.linalg.cholesky(error_correlation((self.runs.metrics - left_out.mean) / left_out.std))
        normals = np.random.default_rng([seed, 1]).standard_normal((2, n_draws, 1, len(columns))) @ root.T
        affine = self._fitted

        def transferred(weights: Floats) -> Floats:
            x = surfaces(weights)[:, :, columns] - affine.centre
            slope = affine.slope + affine.slope_std * normals[0]
            return np.asarray(affine.level + affine.level_std * normals[1] + slope * x)

        return transferred

    @property
    def _fitted(self) -> _AffineMap:
        assert self._map is not None, "runs is checked first"
        return self._map

    def _columns(self) -> list[int]:
        names = self.source.runs.metric_names
        return [names.index(name) for name in self.runs.metric_names]

    def _source(self, weights: Floats) -> Prediction:
        source, columns = self.source.runs, self._columns()
        fidelity = Fidelity(int(source.n_parameters[0]), int(source.n_tokens[0]))
        expected = self.source.predict(np.atleast_2d(weights), fidelity)
        return Prediction(expected.mean[:, columns], expected.std[:, columns])

    def _fit_map(self, index: NDArray[np.int64]) -> _AffineMap:
        x = self._source(self.runs.weights[index]).mean
        spread = self.source.runs.metrics[:, self._columns()].std(axis=0)
        return _AffineMap.fit(x, self.runs.metrics[index], np.where(spread > 0, spread, 1.0))


@dataclass(frozen=True, eq=False)
class _AffineMap:
    """y = level + slope (x - centre) + noise for each of J metrics; every attribute float64, (J,)."""

    centre: Floats
    level: Floats
    slope: Floats
    noise: Floats
    level_std: Floats
    slope_std: Floats

    @classmethod
    def fit(cls, x: Floats, y: Floats, spread: Floats) -> _AffineMap:
        """From the source's losses x and the target's y, (n, J), and the source's spread over its runs."""
        n = len(x)
        centre, level = x.mean(axis=0), y.mean(axis=0)
        dx, dy = (x - centre) / spread, (y - level) / spread
        sxx, sxy = (dx * dx).sum(axis=0), (dx * dy).sum(axis=0)
        common = sxy.sum() / (sxx.sum() + 1e-12)
        slope = (sxy + SLOPE_PRIOR_RUNS * common) / (sxx + SLOPE_PRIOR_RUNS)
        squares = ((dy - slope * dx) ** 2).sum(axis=0)
        pooled = squares.mean() / max(n - 1.5, 1.0)
        noise = np.sqrt((squares + NOISE_PRIOR_RUNS * pooled) / (max(n - 1.5, 1.0) + NOISE_PRIOR_RUNS))
        slope_std = noise / np.sqrt(sxx + SLOPE_PRIOR_RUNS)
        return cls(centre, level, slope, noise * spread, noise * spread / np.sqrt(n), slope_std)

    def predict(self, mean: Floats, std: Floats) -> Prediction:
        """Through the map; the residuals' variance already holds what the source's noise adds."""
        x = mean - self.centre
        variance = self.noise**2 + self.level_std**2 + (self.slope_std * x) ** 2
        return Prediction(self.level + self.slope * x, np.sqrt(np.maximum(variance, (self.slope * std) ** 2)))


@dataclass(frozen=True)
class TransferReport:
    """Whether the proxies' ranking holds at the target.

    Attributes:
        n_runs: at the target.
        rank_correlation: Spearman's, of left-out predictions with the objective of the target's runs.
        lower_bound: of it, one-sided at 90 %.
        transfers: the bound is at least .3.
        sentence: for a person.
    """

    n_runs: int
    rank_correlation: float
    lower_bound: float
    transfers: bool
    sentence: str


def check_transfer(mixer: TransferredMixer, objective: Objective = MEAN) -> TransferReport:
    """Does the source, calibrated, rank the runs at the target?

    Each of them is predicted from the others. The bound is Fisher's, with the standard error
    sqrt(1.06 / (n - 3)) of a rank correlation (Fieller, Hartley, Pearson 1957).
    """
    runs = mixer.runs
    predicted = objective(mixer.leave_one_out().mean, runs.metric_names)
    observed = objective(runs.metrics, runs.metric_names)
    constant = np.ptp(predicted) == 0 or np.ptp(observed) == 0
    rho = 0.0 if constant else float(spearmanr(predicted, observed).statistic)
    error = np.sqrt(1.06 / (runs.n_runs - 3))
    bound = float(np.tanh(np.arctanh(np.clip(rho, -0.999, 0.999)) - norm.ppf(CONFIDENCE) * error))
    shown = f"rank correlation {rho:.2f} over {runs.n_runs} runs at the target, at least {bound:.2f} at 90 %"
    transfers = bound >= MIN_LOWER_BOUND
    if transfers:
        sentence = f"The proxies' ranking holds at the target: {shown}."
    else:
        advice = f"{MIN_LOWER_BOUND} is needed. Use larger proxies, or more runs at the target."
        sentence = f"This proxy ranking does not transfer to the target: {shown}; {advice}"
    return TransferReport(runs.n_runs, rho, bound, transfers, sentence)

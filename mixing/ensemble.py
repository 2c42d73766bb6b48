"""Mixers together: stacked on rank to locate an optimum, averaged with a law to rank at a larger scale."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Self

import numpy as np
from scipy.stats import rankdata

from .gaussian_process import GaussianProcessMixer
from .laws import PowerLawMixer
from .mixer import Fidelity, Floats, Prediction, Surfaces, fidelity_of, spread_of
from .proposals import Proposing
from .table import RunTable

MEMBERS = ("gaussian_process, sqrt", "gaussian_process, log", "power_law")
LAW = MEMBERS.index("power_law")
N_STEPS = 10  # of the grid of shares
N_OUTER = 5


@dataclass(eq=False)
class EnsembleMixer(Proposing):
    """Two Gaussian processes (sqrt and log weights) and the power law, in two averages for two jobs.

    *At the runs' own fidelity* the members are stacked: each metric has shares on a grid of tenths, the most
    even ones whose rank correlation of left-out predictions with the observed metric is within one standard
    error, (1 - rho^2) / sqrt(n), of the best. This is what `leave_one_out` and `draw_surfaces` describe, and
    so what `recommend` optimises.

    *For a larger scale* (`predict` without a fidelity, or with one that the runs do not have) the stack is
    averaged with the law. No run at the small scale can tell how much: on RegMix's tables the process ranks
    small models best, the law models a thousand times larger, and equal shares beat both there. The values
    stay on the scale of the runs: a ranking, not a forecast of the larger model's losses.

    Args:
        law_share: the law's share at a larger scale.
        seed: of the law's parts.

    Standard deviations are scaled to the left-out errors of the stack (`mixer.spread_of`).

    Source: stacking, Wolpert 1992; the one-standard-error rule, Breiman et al. 1984. In `leave_one_out`, a
        run's shares come from the other four fifths of the runs.
    """

    law_share: float = 0.5
    seed: int = 0
    is_smooth = True
    _runs: RunTable | None = field(default=None, init=False, repr=False)
    _members: tuple[GaussianProcessMixer | PowerLawMixer, ...] = field(default=(), init=False, repr=False)
    _shares: Floats = field(default_factory=lambda: np.zeros((0, 0)), init=False, repr=False)
    _left_out: Prediction | None = field(default=None, init=False, repr=False)
    _spread: Floats = field(default_factory=lambda: np.zeros(0), init=False, repr=False)

    @property
    def runs(self) -> RunTable:
        if self._runs is None:
            raise ValueError("this mixer has not seen any runs; call fit(runs) first.")
        return self._runs

    @property
    def shares(self) -> dict[str, dict[str, float]]:
        """Each member's share of the stack, by metric."""
        return {
            name: dict(zip(MEMBERS, self._shares[:, j].tolist(), strict=True))
            for j, name in enumerate(self.runs.metric_names)
        }

    def fit(self, runs: RunTable) -> Self:
        """Learn from 8 or more runs of one fidelity.

        Raises:
            ValueError: fewer runs, or several fidelities.
        """
        law = PowerLawMixer(seed=self.seed).fit(runs)
        processes = [GaussianProcessMixer("sqrt"), GaussianProcessMixer("log")]
        self._members = (*(process.fit(runs) for process in processes), law)
        left_out = [member.leave_one_out() for member in self._members]
        self._runs, self._shares = runs, _shares(np.stack([p.mean for p in left_out]), runs.metrics)
        stacked = self._stack_left_out(left_out)
        errors = (runs.metrics - stacked.mean) / stacked.std
        self._spread = np.array([spread_of(column) for column in errors.T])
        self._left_out = Prediction(stacked.mean, self._spread * stacked.std)
        return self

    def predict(self, weights: Floats, fidelity: Fidelity | None = None) -> Prediction:
        """Mean and standard deviation, float64, (M, J): the stack at the runs' fidelity, else for ranking."""
        runs, shares = self.runs, self._shares
        if fidelity is None or fidelity != fidelity_of(runs):
            only_law = (np.arange(len(MEMBERS)) == LAW)[:, None]
            shares = (1 - self.law_share) * shares + self.law_share * only_law
        found = _combined([member.predict(weights) for member in self._members], shares[:, None, :])
        return Prediction(found.mean, self._spread * found.std)

    def leave_one_out(self) -> Prediction:
        """Each run, (n_runs, J), predicted by the stack without it."""
        if self._left_out is None:
            raise ValueError("this mixer has not seen any runs; call fit(runs) first.")
        return self._left_out

    def _stack_left_out(self, predictions: list[Prediction]) -> Prediction:
        """Shares for a fifth of the runs come from the others."""
        means, n_runs = np.stack([p.mean for p in predictions]), self.runs.n_runs
        shares = np.empty_like(means)
        shuffled = np.random.default_rng(self.seed).permutation(n_runs)
        for part in np.array_split(shuffled, N_OUTER):
            kept = np.delete(np.arange(n_runs), part)
            shares[:, part] = _shares(means[:, kept], self.runs.metrics[kept])[:, None, :]
        return _combined(predictions, shares)

    def draw_surfaces(self, n_draws: int, seed: int = 0) -> Surfaces:
        """Functions weights (M, K) -> expected losses (n_draws, M, J), those of the stack."""
        surfaces = [member.draw_surfaces(n_draws, seed) for member in self._members]

        def stacked(weights: Floats) -> Floats:
            drawn = zip(self._shares, surfaces, strict=True)
            return np.asarray(sum(share * surface(weights) for share, surface in drawn if share.any()))

        return stacked


def _combined(predictions: list[Prediction], shares: Floats) -> Prediction:
    """The mean, and the geometric mean of the standard deviations; shares broadcast to (members, M, J).

    The members have seen the same noise, so that their errors are nearly one error: no average shrinks it.
    """
    means = np.stack([p.mean for p in predictions])
    log_stds = np.log([p.std for p in predictions])
    return Prediction((shares * means).sum(axis=0), np.exp((shares * log_stds).sum(axis=0)))


def _shares(left_out: Floats, metrics: Floats) -> Floats:
    """Shares of the members, (members, J), from left-out predictions (members, n, J) and metrics (n, J)."""
    n_members, n_runs, n_metrics = left_out.shape
    steps = product(range(N_STEPS + 1), repeat=n_members - 1)
    grid = np.array([(*s, N_STEPS - sum(s)) for s in steps if sum(s) <= N_STEPS]) / N_STEPS  # (G, members)
    unevenness = np.sum(grid**2, axis=1)
    best = np.empty((n_members, n_metrics))
    for j in range(n_metrics):
        predicted = _standard_ranks(grid @ left_out[:, :, j])  # (G, n)
        rho = predicted @ _standard_ranks(metrics[:, j]) / n_runs
        top = rho.max()
        allowed = rho >= top - (1 - top**2) / np.sqrt(n_runs)
        best[:, j] = grid[np.argmin(np.where(allowed, unevenness, np.inf))]
    return best


def _standard_ranks(values: Floats) -> Floats:
    ranks = np.asarray(rankdata(values, axis=-1), dtype=np.float64)
    ranks -= ranks.mean(axis=-1, keepdims=True)
    return np.asarray(ranks / (ranks.std(axis=-1, keepdims=True) + 1e-12))

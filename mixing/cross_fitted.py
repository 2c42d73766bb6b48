"""Regressions without a posterior of their own, whose uncertainty comes from refits on parts of the runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import numpy as np
from threadpoolctl import threadpool_limits

from .mixer import Fidelity, Floats, Prediction, Surfaces, check_fidelity, check_runs
from .proposals import Proposing
from .table import RunTable

Surface = Callable[[Floats], Floats]  # weights (M, K) -> expected metrics (M, J)

MIN_RUNS = 8


@dataclass(eq=False, kw_only=True)
class CrossFittedMixer(Proposing):
    """A regression fitted once on all runs and once without each of `n_folds` random parts of them.

    The refits serve three times. Each run is predicted by the refit that has not seen it (`leave_one_out`).
    Their spread, as delete-a-group jackknife, (B - 1) / B sum_b (f_b - mean f)(f_b - mean f)', is the
    covariance of the expected metrics, over mixtures and metrics at once. And what the left-out errors'
    mean square exceeds that spread by is the variance of one new run, at least that of the residuals.

    A law of the wrong form is surer than right where it extrapolates; nothing here can see that.

    Source: delete-a-group jackknife: Kott 2001.
    """

    n_folds: int = 10
    seed: int = 0
    is_smooth: ClassVar[bool] = True
    reads_tokens: ClassVar[bool] = False
    _runs: RunTable | None = field(default=None, init=False, repr=False)
    _surface: Surface | None = field(default=None, init=False, repr=False)
    _refits: list[Surface] = field(default_factory=list, init=False, repr=False)
    _left_out: Floats = field(default_factory=lambda: np.zeros((0, 0)), init=False, repr=False)
    _noise: Floats = field(default_factory=lambda: np.zeros(0), init=False, repr=False)

    def fit_surface(self, weights: Floats, metrics: Floats) -> Surface:
        """The regression of metrics (n, J) on weights (n, K), or on other `inputs`."""
        raise NotImplementedError

    def inputs(self, weights: Floats, n_tokens: Floats) -> Floats:
        """What `fit_surface` and its result see of runs: (n, K) weights, unless a class `reads_tokens`."""
        return weights

    @property
    def runs(self) -> RunTable:
        if self._runs is None:
            raise ValueError("this mixer has not seen any runs; call fit(runs) first.")
        return self._runs

    def fit(self, runs: RunTable) -> Self:
        """Learn from 8 or more runs of one fidelity, or of one size if the class `reads_tokens`.

        Raises:
            ValueError: fewer runs, or several fidelities.
        """
        tokens = np.zeros_like(runs.n_tokens) if self.reads_tokens else runs.n_tokens
        check_runs(replace(runs, n_tokens=tokens, seed=np.arange(runs.n_runs)), MIN_RUNS)
        with threadpool_limits(1):  # a few hundred rows: threads of BLAS and OpenMP cost more than they give
            return self._fit(runs)

    def _fit(self, runs: RunTable) -> Self:
        self._runs = runs
        w, y = self.inputs(runs.weights, runs.n_tokens.astype(np.float64)), runs.metrics
        self._surface, self._refits = self.fit_surface(w, y), []
        self._left_out = np.zeros_like(y)
        shuffled = np.random.default_rng(self.seed).permutation(runs.n_runs)
        for part in np.array_split(shuffled, min(self.n_folds, runs.n_runs)):
            kept = np.delete(np.arange(runs.n_runs), part)
            self._refits.append(self.fit_surface(w[kept], y[kept]))
            self._left_out[part] = self._refits[-1](w[part])
        spread = np.mean(self._variance(w), axis=0)
        residual = np.mean((self._surface(w) - y) ** 2, axis=0)
        self._noise = np.maximum(np.mean((self._left_out - y) ** 2, axis=0) - spread, residual)
        return self

    def predict(self, weights: Floats, fidelity: Fidelity | None = None) -> Prediction:
        """Mean and standard deviation of new runs: float64, (M, J) each.

        Raises:
            ValueError: not fitted, or another fidelity than that of the runs.
        """
        if self.reads_tokens and fidelity is not None:
            n_tokens = fidelity.n_tokens
            fidelity = Fidelity(fidelity.n_parameters, int(self.runs.n_tokens[0]))
        else:
            n_tokens = int(self.runs.n_tokens.max())
        check_fidelity(self.runs, fidelity)
        w = self._inputs_of(weights, n_tokens)
        return Prediction(self._mean(w), np.sqrt(self._variance(w) + self._noise))

    def leave_one_out(self) -> Prediction:
        """Each run predicted by the refit that left it out, with its part: float64, (n_runs, J)."""
        x = self.inputs(self.runs.weights, self.runs.n_tokens.astype(np.float64))
        std = np.sqrt(self._variance(x) + self._noise)
        return Prediction(self._left_out.copy(), std)

    def draw_surfaces(self, n_draws: int, seed: int = 0) -> Surfaces:
        """Functions weights (M, K) -> expected losses (n_draws, M, J), at the most tokens of the runs."""
        n_refits = len(self._refits)
        normals = np.random.default_rng(seed).standard_normal((n_draws, n_refits))
        normals *= np.sqrt((n_refits - 1) / n_refits)

        def surfaces(weights: Floats) -> Floats:
            w = self._inputs_of(weights, int(self.runs.n_tokens.max()))
            return np.asarray(self._mean(w) + np.einsum("db,bmj->dmj", normals, self._deviations(w)))

        return surfaces

    def _inputs_of(self, weights: Floats, n_tokens: int) -> Floats:
        w = np.atleast_2d(weights)
        return self.inputs(w, np.full(len(w), float(n_tokens)))

    def _mean(self, weights: Floats) -> Floats:
        assert self._surface is not None, "runs is checked first"
        return self._surface(weights)

    def _deviations(self, weights: Floats) -> Floats:
        """Each refit's difference from their mean: float64, (B, M, J)."""
        refits = np.stack([refit(weights) for refit in self._refits])
        return np.asarray(refits - refits.mean(axis=0))

    def _variance(self, weights: Floats) -> Floats:
        deviations = self._deviations(weights)
        return np.asarray((len(deviations) - 1) * np.mean(deviations**2, axis=0))

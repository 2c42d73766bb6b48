"""One surrogate over mixture, model size and tokens: what cheap runs say of the target, and how surely."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from threadpoolctl import threadpool_limits

from .fidelity_likelihood import (
    CONSTANT_VARIANCE,
    FidelityHyperparameters,
    Ladder,
    most_probable_fidelities,
)
from .floor import Floor
from .gaussian_process import (
    LOG_OFFSET,
    MIN_RUNS,
    MIN_RUNS_BY_LEVEL,
    N_FREQUENCIES,
    Path,
    Transform,
    correlated_normals,
    level_columns,
    matern_frequencies,
    path_blocks,
)
from .marginal_likelihood import correlated_slopes
from .mixer import Fidelity, Floats, Prediction, Surfaces, error_correlation, spread_of
from .proposals import Proposing
from .table import RunTable

FidelityTrend = Callable[[Floats, Fidelity], Floats]  # weights (M, K), fidelity -> metrics (M, J)
Integers = NDArray[np.int64]

MIN_SHOWN = 12  # runs at the target that can show a rank correlation


@dataclass(eq=False)
class MultiFidelityMixer(Proposing):
    """Per metric, loss(w, N, D) = level(N, D) + s(N, D) g(w, N, D) + noise, a Gaussian process in all three.

    g is a Matern-5/2 process with a linear trend over transformed weights; from one fidelity to another its
    correlation falls as exp(-decay |log ratio|), on an axis for size and one for tokens. The spread s is a
    power of size and of tokens, with a deviation of its own wherever there are runs; noise likewise, and by
    level of the loss as in `GaussianProcessMixer`. So each metric shrinks as it does when models grow, an
    average of metrics is taken at the target's spreads, and a fidelity at which nothing has run yet is
    extrapolated to: its ranking, that is, since its level is unknown.

    Predictions, surfaces and the table `runs` are the target's. `runs` holds the runs at the target, or, with
    fewer than 12, those at the fidelity that has most, their metrics carried to the target's level and
    spread: promoted runs are few and alike, and would show of no model that it ranks.

    Cost: O(n_runs^3) per step of some 60; 150 runs of 17 domains at 3 fidelities: .4 s per metric.

    Args:
        target: whose losses are wanted; by default the largest fidelity in the table.
        transform: of the weights, sqrt(w) or log(w + 1e-3).
        trend: metrics by a cheaper proxy at any fidelity, on about the runs' scale; the process models the
            rest.
        n_threads: over metrics; by default as many as there are cores.
        seed: has no effect; fits are deterministic.

    Source: autoregressive co-kriging, Kennedy and O'Hagan 2000, as a separable Markov covariance (Ornstein-
        Uhlenbeck in log size and log tokens) instead of a chain of differences, so that no fidelity needs all
        runs of the one below. ADMIRE-BayesOpt (Chen et al. 2025) puts BoTorch's linear truncated fidelity
        kernel on raw weights, with one noise and unstandardised losses.
    """

    target: Fidelity | None = None
    transform: Transform = "sqrt"
    trend: FidelityTrend | None = None
    n_threads: int = os.cpu_count() or 1
    seed: int = 0
    is_smooth = True
    _table: RunTable | None = field(default=None, init=False, repr=False)
    _levels: tuple[Fidelity, ...] = field(default=(), init=False, repr=False)
    _processes: list[_FidelityProcess] = field(default_factory=list, init=False, repr=False)
    _rows: Integers = field(default_factory=lambda: np.zeros(0, dtype=np.int64), init=False, repr=False)
    _shown: RunTable | None = field(default=None, init=False, repr=False)

    @property
    def table(self) -> RunTable:
        """All runs, of every fidelity."""
        if self._table is None:
            raise ValueError("this mixer has not seen any runs; call fit(runs) first.")
        return self._table

    @property
    def runs(self) -> RunTable:
        """Those that speak for the target, on its scale (see the class)."""
        if self._shown is None:
            raise ValueError("this mixer has not seen any runs; call fit(runs) first.")
        return self._shown

    @property
    def target_fidelity(self) -> Fidelity:
        """The target that was given, or the largest fidelity of the runs."""
        return self.target or self._levels[-1]

    @property
    def processes(self) -> list[_FidelityProcess]:
        """One for each metric."""
        return self._processes

    @property
    def fidelities(self) -> tuple[Fidelity, ...]:
        """Those of the runs, cheapest first, and the target."""
        return self._levels

    @property
    def fidelity_index(self) -> Integers:
        """Of each run of `table` among the fidelities of the processes."""
        return self._processes[0].fidelity

    @property
    def target_index(self) -> int:
        """Of the target among the fidelities of the processes."""
        return self._level(None)

    def fit(self, runs: RunTable) -> Self:
        """Learn from 4 or more runs of any fidelities.

        Raises:
            ValueError: fewer runs.
        """
        if runs.n_runs < MIN_RUNS:
            raise ValueError(f"found {runs.n_runs} runs; a mixer needs {MIN_RUNS} or more.")
        pairs = np.column_stack([runs.n_parameters, runs.n_tokens])
        distinct, fidelity, counts = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
        fidelity = fidelity.ravel()
        order = np.argsort(distinct.astype(np.float64).prod(axis=1), kind="stable")
        rank = np.argsort(order)
        self._levels = tuple(Fidelity(int(n), int(d)) for n, d in distinct[order])
        fidelity, counts = rank[fidelity], counts[order]
        if self.target is not None and self.target not in self._levels:
            self._levels, counts = (*self._levels, self.target), np.append(counts, 0)
        ladder = Ladder.of(np.array([(f.n_parameters, f.n_tokens) for f in self._levels]), counts)
        self._table = runs
        x, residual = self._features(runs.weights), runs.metrics - self._trend_at_runs(fidelity)
        fit = partial(_FidelityProcess.fit, x, fidelity, ladder=ladder)
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(self.n_threads) as pool:
            self._processes = list(pool.map(fit, residual.T))
        self._rows = self._rows_shown(fidelity, counts)
        self._shown = self._carried()
        return self

    def predict(self, weights: Floats, fidelity: Fidelity | None = None) -> Prediction:
        """Mean and standard deviation of new runs at the target, or at another fidelity that has runs.

        Raises:
            ValueError: not fitted, or a fidelity that is neither.
        """
        at = self._level(fidelity)
        x = self._features(weights)
        moments = [process.predict(x, at) for process in self._processes]
        trend = self._trend_of(weights, self._levels[at])
        return Prediction(
            np.stack([m for m, _ in moments], axis=1) + trend, np.stack([s for _, s in moments], axis=1)
        )

    def leave_one_out(self) -> Prediction:
        """Each run of `runs`, predicted from all other runs of every fidelity, on the target's scale."""
        rows, at = self._rows, self._level(None)
        columns = [process.leave_one_out(rows, at) for process in self._processes]
        trend = self._trend_of(self.runs.weights, self._levels[at])
        return Prediction(
            np.stack([m for m, _ in columns], axis=1) + trend, np.stack([s for _, s in columns], axis=1)
        )

    def draw_surfaces(self, n_draws: int, seed: int = 0) -> Surfaces:
        """Functions weights (M, K) -> expected metrics at the target (n_draws, M, J).

        See `GaussianProcessMixer.draw_surfaces`.
        """
        errors = np.stack([p.standardised_errors() for p in self._processes], axis=1)
        root = np.asarray(np.linalg.cholesky(error_correlation(errors)))
        at, n, n_levels = self._level(None), len(errors), len(self._levels)
        n_features = len(self.table.domain_names)

        def paths(rng: np.random.Generator, n_block: int) -> list[Path]:
            frequencies = matern_frequencies(rng, n_features)
            n_normals = n_levels * (2 * N_FREQUENCIES + n_features + 1) + n
            normals = correlated_normals(rng, n_normals, n_block, root)
            return [p.paths(frequencies, normals[:, :, j], at) for j, p in enumerate(self._processes)]

        blocks = path_blocks(paths, n_draws, seed)

        def surfaces(weights: Floats) -> Floats:
            return np.asarray(blocks(self._features(weights)) + self._trend_of(weights, self._levels[at]))

        return surfaces

    def information(self, weights: Floats, fidelity: Fidelity) -> float:
        """Nats that one run of `weights` (K,) at `fidelity` would tell of the target's metrics there.

        The mean over metrics of -log(1 - rho^2) / 2, rho the posterior correlation of the run's result with
        the target's expected metric, both at this mixture.
        """
        x = self._features(weights)
        at, target = self._level(fidelity), self._level(None)
        return float(np.mean([process.information(x, at, target) for process in self._processes]))

    def _rows_shown(self, fidelity: Integers, counts: Integers) -> Integers:
        """The runs at the target, or, where they are few, at the fidelity that has most."""
        target = self._level(None)
        shown = target if counts[target] >= MIN_SHOWN else int(np.argmax(counts))
        return np.flatnonzero(fidelity == shown)

    def _carried(self) -> RunTable:
        """The runs shown, with metrics on the target's scale."""
        at, shown = self._level(None), self.table.select(self._rows)
        columns = [process.carried(self._rows, at) for process in self._processes]
        metrics = np.stack(columns, axis=1) + self._trend_of(shown.weights, self._levels[at])
        return replace(shown, metrics=metrics)

    def _level(self, fidelity: Fidelity | None) -> int:
        if not self._levels:
            raise ValueError("this mixer has not seen any runs; call fit(runs) first.")
        asked = fidelity or self.target_fidelity
        if asked not in self._levels:
            raise ValueError(
                f"asked for {asked}; the runs have {', '.join(map(str, self._levels))}, and this mixer does "
                "not extrapolate in fidelity beyond its target. Give it as MultiFidelityMixer(target=...)."
            )
        return self._levels.index(asked)

    def _trend_of(self, weights: Floats, fidelity: Fidelity) -> Floats:
        w = np.atleast_2d(weights)
        if self.trend is None:
            return np.zeros((1, len(self.table.metric_names)))
        return np.asarray(self.trend(w, fidelity), dtype=np.float64)

    def _trend_at_runs(self, fidelity: Integers) -> Floats:
        values = np.zeros_like(self.table.metrics)
        for i, level in enumerate(self._levels):
            rows = fidelity == i
            if rows.any():
                values[rows] = self._trend_of(self.table.weights[rows], level)
        return values

    def _features(self, weights: Floats) -> Floats:
        w = np.maximum(np.atleast_2d(np.asarray(weights, dtype=np.float64)), 0.0)
        if w.shape[1] != len(self.table.domain_names):
            raise ValueError(f"found {w.shape[1]} weights for {len(self.table.domain_names)} domains.")
        return np.sqrt(w) if self.transform == "sqrt" else np.log(w + LOG_OFFSET)


@dataclass(frozen=True, eq=False)
class _FidelityProcess:
    """One metric's process, conditioned on its runs. Features and metric are standardised inside.

    Attributes:
        centre, scale: float64, (K,), of the features.
        x, fidelity: float64 (n, K) and int64 (n,), the runs.
        means, std: the metric's mean at each fidelity, (L,), and its unit.
        h, ladder: hyperparameters and fidelities.
        level_range: of the predictions that drive the noise, which is constant beyond.
        inverse: float64, (n, n), of the runs' covariance, noise included.
        alpha, noise, y: float64, (n,).
        spread: the factor that makes leave-one-out errors fit their standard deviations.
    """

    centre: Floats
    scale: Floats
    x: Floats
    fidelity: Integers
    means: Floats
    std: float
    h: FidelityHyperparameters
    ladder: Ladder
    level_range: tuple[float, float]
    inverse: Floats
    alpha: Floats
    noise: Floats
    y: Floats
    spread: float = 1.0

    @classmethod
    def fit(cls, features: Floats, fidelity: Integers, metric: Floats, ladder: Ladder) -> _FidelityProcess:
        centre, scale = features.mean(axis=0), features.std(axis=0)
        scale = np.where(scale > 1e-9, scale, 1.0)
        x = (features - centre) / scale
        observed = ladder.observed
        means = np.array([metric[fidelity == level].mean() for level in range(observed.n_levels)])
        std = float(metric[fidelity == ladder.reference].std()) or 1.0
        y = (metric - means[fidelity]) / std
        means = np.append(means, np.full(ladder.n_levels - observed.n_levels, means[-1]))
        no_level = np.zeros((len(y), 0))
        theta = most_probable_fidelities(x, fidelity, y, no_level, observed)

        def conditioned(theta: Floats, level: Floats, level_range: tuple[float, float]) -> _FidelityProcess:
            h = FidelityHyperparameters.unpack(theta, x.shape[1], observed)
            h = h.extended(ladder.n_levels)
            noise = h.noise_variance(ladder, fidelity, level)
            c = h.covariance(x, fidelity, x, fidelity, ladder) + np.diag(noise)
            inverse = np.asarray(cho_solve(cho_factor(c, lower=True), np.eye(len(c))))
            fields = (centre, scale, x, fidelity, means, std, h, ladder, level_range)
            return cls(*fields, inverse, inverse @ y, noise, y)

        process = conditioned(theta, no_level, (0.0, 0.0))
        if len(y) >= MIN_RUNS_BY_LEVEL:
            left_out = (y - process.alpha / np.diag(process.inverse)) / process.h.scales(ladder)[fidelity]
            level_range = (float(left_out.min()), float(left_out.max()))
            level = level_columns(left_out, level_range)
            theta = most_probable_fidelities(x, fidelity, y, level, observed, theta)
            process = conditioned(theta, level, level_range)
        return replace(process, spread=spread_of(process.standardised_errors()))

    @property
    def floor(self) -> Floor:
        """None: the process is of the metric itself."""
        return Floor()

    def predict(self, features: Floats, at: int) -> tuple[Floats, Floats]:
        """Mean and standard deviation of a new run at a fidelity: (M,) each."""
        x, where = (features - self.centre) / self.scale, np.full(len(features), at)
        k = self.h.covariance(x, where, self.x, self.fidelity, self.ladder)
        mean = k @ self.alpha
        variance = self.h.variance(x, where, self.ladder) - np.einsum("mn,mn->m", k @ self.inverse, k)
        z = mean / self.h.scales(self.ladder)[at]
        level = level_columns(z, self.level_range)[:, : len(self.h.levels)]
        noise = self.h.noise_variance(self.ladder, where, level)
        std = self.std * self.spread * np.sqrt(np.maximum(variance, 0.0) + noise)
        return self.means[at] + self.std * mean, std

    def leave_one_out(self, rows: Integers, at: int) -> tuple[Floats, Floats]:
        """Of the runs in `rows`, which have one fidelity, on the scale of the fidelity `at`."""
        precision = np.diag(self.inverse)[rows]
        factor = self._carry(rows, at)
        mean = self._to(self.y[rows] - self.alpha[rows] / precision, rows, at)
        return mean, factor * self.std * self.spread / np.sqrt(precision)

    def carried(self, rows: Integers, at: int) -> Floats:
        """The metric of the runs in `rows` on the scale of the fidelity `at`."""
        return self._to(self.y[rows], rows, at)

    def standardised_errors(self) -> Floats:
        """Leave-one-out errors of all runs in their standard deviations: float64, (n,)."""
        return np.asarray(self.alpha / np.sqrt(np.diag(self.inverse)) / self.spread)

    def information(self, features: Floats, at: int, target: int) -> float:
        """-log(1 - rho^2) / 2 at one mixture (1, K); see `MultiFidelityMixer.information`.

        The constants of the fidelities are left out: they move no mixture past another.
        """
        x = (features - self.centre) / self.scale
        k = self.h.kernel(x, self.x)[0]
        coupling = self.h.coupling(self.ladder)
        rows = coupling[[at, target]][:, self.fidelity] * k  # (2, n)
        own = coupling[np.ix_([at, target], [at, target])] * self.h.kernel(x, x)[0, 0]
        own = own - rows @ self.inverse @ rows.T
        where = np.array([at])
        noise = self.h.noise_variance(self.ladder, where, np.zeros((1, len(self.h.levels))))[0]
        explained = own[0, 1] ** 2 / max((own[0, 0] + noise) * own[1, 1], 1e-300)
        return float(-0.5 * np.log1p(-min(explained, 1 - 1e-12)))

    def couplings(self) -> tuple[Floats, float]:
        """The factor of the covariance between fidelities (L, L), and the variance of each one's constant."""
        return self.h.coupling(self.ladder), CONSTANT_VARIANCE

    def paths(self, frequencies: Floats, normals: Floats, at: int) -> Callable[[Floats], Floats]:
        """Posterior draws of the expected metric at a fidelity, by Matheron's rule.

        Args:
            frequencies: float64, (F, K), of a Matern-5/2 process of unit length-scales.
            normals: float64, (L (2 F + K + 1) + n, n_draws).
        """
        n_levels, n, n_draws = self.ladder.n_levels, len(self.y), normals.shape[1]
        scaled = (frequencies * np.exp(-self.h.log_lengthscales)).T
        blocks = normals[: len(normals) - n].reshape(n_levels, -1, n_draws)
        root = np.linalg.cholesky(self.h.correlation(self.ladder) + 1e-12 * np.eye(n_levels))
        mixed = np.einsum("lm,mfd->lfd", self.h.scales(self.ladder)[:, None] * root, blocks[:, :-1])
        constants = np.sqrt(CONSTANT_VARIANCE) * blocks[:, -1]  # (L, n_draws)

        n_waves = len(frequencies)
        waves = np.sqrt(self.h.signal / n_waves) * mixed[:, : 2 * n_waves]
        slopes = np.sqrt(self.h.linear) * np.stack([correlated_slopes(m[2 * n_waves :]) for m in mixed])

        def prior(x: Floats, level: int) -> Floats:
            phase = x @ scaled
            wavy = np.cos(phase) @ waves[level, :n_waves] + np.sin(phase) @ waves[level, n_waves:]
            return np.asarray(wavy + x @ slopes[level] + constants[level])

        at_runs = np.empty((n, n_draws))
        for level in range(n_levels):
            rows = self.fidelity == level
            at_runs[rows] = prior(self.x[rows], level)
        noise = np.sqrt(self.noise)[:, None] * normals[len(normals) - n :]
        correction = self.inverse @ (self.y[:, None] - at_runs - noise) - self.alpha[:, None]
        corrections = np.hstack([self.alpha[:, None], self.spread * correction])
        shift = CONSTANT_VARIANCE * corrections[self.fidelity == at].sum(axis=0)
        corrections *= self.h.coupling(self.ladder)[at, self.fidelity][:, None]

        def path(features: Floats) -> Floats:
            x = (features - self.centre) / self.scale
            moved = self.h.kernel(x, self.x) @ corrections + shift
            deviation = self.spread * prior(x, at) + moved[:, 1:]
            return np.asarray(self.means[at] + self.std * (moved[:, :1] + deviation).T)

        return path

    def _carry(self, rows: Integers, at: int) -> float:
        """s of the fidelity `at` over that of the runs."""
        scales = self.h.scales(self.ladder)
        return float(scales[at] / scales[self.fidelity[rows[0]]]) if len(rows) else 1.0

    def _to(self, y: Floats, rows: Integers, at: int) -> Floats:
        own = int(self.fidelity[rows[0]])
        constants = [CONSTANT_VARIANCE * self.alpha[self.fidelity == level].sum() for level in (own, at)]
        moved = constants[1] + self._carry(rows, at) * (y - constants[0])
        return np.asarray(self.means[at] + self.std * moved)

"""Gaussian processes on transformed weights, with noise that depends on the level of the loss."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal, Self, get_args

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.stats import f as f_distribution
from threadpoolctl import threadpool_limits

from .floor import Floor, learned_floor
from .marginal_likelihood import (
    CONSTANT_VARIANCE,
    Hyperparameters,
    correlated_slopes,
    most_probable,
)
from .mixer import (
    Fidelity,
    Floats,
    Prediction,
    Surfaces,
    check_fidelity,
    check_runs,
    error_correlation,
    spread_of,
)
from .proposals import Proposing
from .table import RunTable

Transform = Literal["sqrt", "log"]
Noise = Literal["by_level", "constant"]
Floors = Literal["learned", "none"]
Path = Callable[[Floats], Floats]  # features (M, K) -> draws of one metric, (n_draws, M)

MIN_RUNS = 4
MIN_RUNS_BY_LEVEL = 24  # fewer cannot tell noise that grows with the loss from a bad fit
MIN_RUNS_WITH_FLOOR = 8
N_FREQUENCIES = 256  # of a prior draw, each with a sine and a cosine
BLOCK = 256  # draws that are kept in memory
LOG_OFFSET = 1e-3
N_REFITS = 5  # that say how much wider the intervals of new runs are
MIN_RUNS_REFITTED, MAX_RUNS_REFITTED = 10, 200  # above, what hyperparameters do not know is small


@dataclass(eq=False)
class GaussianProcessMixer(Proposing):
    """Per metric, log(loss(w) - floor) = constant + linear trend + Matern-5/2 process, all of transformed w.

    Each domain has its own length-scale, and its slope in the trend is a common one plus its own: fewer runs
    than domains still tell what spreading the weights is worth. All hyperparameters are the most probable
    ones under weak priors (`marginal_likelihood.prior`), by gradients in closed form; so is the floor
    (floor.py). Runs of a poor mixture repeat less well than those of a good one: noise's variance is
    n2 exp(b1 z + b2 z^2), added to the logarithm, with z the standardised leave-one-out prediction of a first
    fit with constant noise.

    Standard deviations are scaled to the leave-one-out errors (`mixer.spread_of`). Up to 200 runs, those of
    new mixtures are scaled again, to the errors of refits without a fifth of the runs: leave-one-out has
    hyperparameters that have seen the run left out.

    Between metrics, uncertainties are correlated as the standardised leave-one-out errors are.

    Cost: O(n_runs^3) per step of some 40 + 30. 512 runs of 17 domains: 2 to 3 s per metric on one core.

    Args:
        transform: of the weights before they are standardised: sqrt(w), or log(w + 1e-3).
        noise: "by_level" as above (from 24 runs on), or "constant".
        floor: "learned" (from 8 runs on), or "none": the process is of the metric itself.
        n_threads: over metrics; by default as many as there are cores.
        seed: has no effect; fits are deterministic.

    Source: Rasmussen and Williams 2006, chapters 2 and 5; leave-one-out in closed form, equation 5.12; noise
        by level, a parametric form of Goldberg, Williams and Bishop 1998; the floor, a one-parameter case of
        Snelson, Rasmussen and Ghahramani 2003 ("Warped Gaussian processes"); draws by Matheron's rule,
        Wilson et al. 2020. ADMIRE-BayesOpt (Chen et al. 2025) fits raw losses and weights, noise constant.
    """

    transform: Transform = "sqrt"
    noise: Noise = "by_level"
    floor: Floors = "learned"
    n_threads: int = os.cpu_count() or 1
    seed: int = 0
    is_smooth = True
    _runs: RunTable | None = field(default=None, init=False, repr=False)
    _processes: list[_Process] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        choices = {"transform": Transform, "noise": Noise, "floor": Floors}
        for name, allowed in choices.items():
            if getattr(self, name) not in get_args(allowed):
                raise ValueError(
                    f"gaussian_process: {name} is '{getattr(self, name)}'; it is '{get_args(allowed)[0]}' or "
                    f"'{get_args(allowed)[1]}'."
                )

    @property
    def runs(self) -> RunTable:
        if self._runs is None:
            raise ValueError("this mixer has not seen any runs; call fit(runs) first.")
        return self._runs

    def fit(self, runs: RunTable) -> Self:
        """Learn from 4 or more runs of one fidelity.

        Raises:
            ValueError: fewer runs, or several fidelities.
        """
        check_runs(runs, MIN_RUNS)
        self._runs = runs
        by_level = self.noise == "by_level" and runs.n_runs >= MIN_RUNS_BY_LEVEL
        has_floor = self.floor == "learned" and runs.n_runs >= MIN_RUNS_WITH_FLOOR
        x = self._features(runs.weights)
        # The matrices are small: threads inside BLAS cost more than they give, threads over metrics pay.
        with threadpool_limits(1, "blas"), ThreadPoolExecutor(self.n_threads) as pool:
            self._processes = list(
                pool.map(lambda y: _Process.fit(x, y, by_level, has_floor), runs.metrics.T)
            )
        return self

    @property
    def processes(self) -> list[_Process]:
        """One for each metric."""
        return self._processes

    def predict(self, weights: Floats, fidelity: Fidelity | None = None) -> Prediction:
        """Mean and standard deviation of new runs: float64, (M, J) each.

        Raises:
            ValueError: not fitted, or another fidelity than that of the runs.
        """
        check_fidelity(self.runs, fidelity)
        x = self._features(weights)
        return _stacked([process.predict(x) for process in self._processes])

    def leave_one_out(self) -> Prediction:
        """Each run predicted from the others, at the hyperparameters of all: float64, (n_runs, J)."""
        return _stacked([process.leave_one_out() for process in self._processes])

    def draw_surfaces(self, n_draws: int, seed: int = 0) -> Surfaces:
        """Functions weights (M, K) -> expected losses (n_draws, M, J); deterministic in the seed.

        The mean over the draws is the posterior mean, of the logarithms where a floor was learned. Their
        covariances are those of 256 random frequencies, whose error is about 1 / sqrt(256) of the prior
        variance between mixtures far apart.
        """
        left_out = self.leave_one_out()
        errors = (self.runs.metrics - left_out.mean) / left_out.std
        root = np.asarray(np.linalg.cholesky(error_correlation(errors)), dtype=np.float64)
        n, n_features = self.runs.weights.shape

        def paths(rng: np.random.Generator, n_block: int) -> list[Path]:
            frequencies = matern_frequencies(rng, n_features)
            normals = correlated_normals(rng, 2 * N_FREQUENCIES + n_features + 1 + n, n_block, root)
            return [p.paths(frequencies, normals[:, :, j]) for j, p in enumerate(self._processes)]

        blocks = path_blocks(paths, n_draws, seed)
        return lambda weights: blocks(self._features(weights))

    def _features(self, weights: Floats) -> Floats:
        w = np.maximum(np.atleast_2d(np.asarray(weights, dtype=np.float64)), 0.0)
        if w.shape[1] != len(self.runs.domain_names):
            raise ValueError(f"found {w.shape[1]} weights for {len(self.runs.domain_names)} domains.")
        return np.sqrt(w) if self.transform == "sqrt" else np.log(w + LOG_OFFSET)


@dataclass(frozen=True, eq=False)
class _Process:
    """One metric's process, conditioned on its runs. Features and values are standardised inside.

    Attributes:
        floor: from the metric to the values that the process is of.
        centre, scale: float64, (K,), of the features.
        x: float64, (n, K), the runs' features, standardised.
        mean, std: of the values.
        h: hyperparameters.
        level_range: of the predictions that drive the noise, which is constant beyond.
        inverse: float64, (n, n), of the runs' covariance, noise included.
        alpha: float64, (n,), inverse @ y.
        noise: float64, (n,), the runs' noise variances.
        y: float64, (n,), the values, standardised.
        left_out_spread: the factor that makes leave-one-out errors fit their standard deviations.
        spread: that of new runs.
    """

    floor: Floor
    centre: Floats
    scale: Floats
    x: Floats
    mean: float
    std: float
    h: Hyperparameters
    level_range: tuple[float, float]
    inverse: Floats
    alpha: Floats
    noise: Floats
    y: Floats
    left_out_spread: float = 1.0
    spread: float = 1.0

    @classmethod
    def fit(cls, features: Floats, metric: Floats, by_level: bool, has_floor: bool) -> _Process:
        process, n = cls._of(features, metric, by_level, has_floor), len(metric)
        if not MIN_RUNS_REFITTED <= n <= MAX_RUNS_REFITTED:
            return process
        errors = np.empty(n)
        for part in np.array_split(np.random.default_rng(0).permutation(n), N_REFITS):
            kept = np.delete(np.arange(n), part)
            mean, std = cls._of(features[kept], metric[kept], by_level, has_floor).predict(features[part])
            errors[part] = (metric[part] - mean) / std
        return replace(process, spread=process.spread * max(1.0, spread_of(errors)))

    @classmethod
    def _of(cls, features: Floats, metric: Floats, by_level: bool, has_floor: bool) -> _Process:
        centre, scale = features.mean(axis=0), features.std(axis=0)
        scale = np.where(scale > 1e-9, scale, 1.0)  # a domain of one weight says nothing
        x = (features - centre) / scale
        no_level = np.zeros((len(metric), 0))
        if has_floor and np.ptp(metric) > 0:
            floor, h = learned_floor(x, metric)
        else:
            floor, h = Floor(), None
        values = floor.warped(metric)
        mean, std = float(values.mean()), float(values.std()) or 1.0
        y = (values - mean) / std
        h = most_probable(x, y, no_level) if h is None else h

        def conditioned(h: Hyperparameters, level: Floats, level_range: tuple[float, float]) -> _Process:
            noise = h.noise_variance(level)
            inverse = _invert(h.covariance(x, x) + np.diag(noise))
            fields = (floor, centre, scale, x, mean, std, h, level_range)
            return cls(*fields, inverse, inverse @ y, noise, y)

        process = conditioned(h, no_level, (0.0, 0.0))
        if by_level:
            left_out = y - process.alpha / np.diag(process.inverse)
            level_range = (float(left_out.min()), float(left_out.max()))
            level = level_columns(left_out, level_range)
            process = conditioned(most_probable(x, y, level, h), level, level_range)
        errors = process.alpha / np.sqrt(np.diag(process.inverse))  # standardised, of each run left out
        spread = spread_of(errors)
        return replace(process, left_out_spread=spread, spread=spread)

    def predict(self, features: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of a new run: (M,) each."""
        x = (features - self.centre) / self.scale
        k = self.h.covariance(x, self.x)
        mean = k @ self.alpha
        variance = np.maximum(self.h.variance(x) - np.einsum("mn,mn->m", k @ self.inverse, k), 0.0)
        q = len(self.h.levels)
        noise = self.h.noise_variance(level_columns(mean, self.level_range)[:, :q])
        return self._moments(mean, variance, noise, self.spread)

    def leave_one_out(self) -> tuple[Floats, Floats]:
        precision = np.diag(self.inverse)
        noise = np.minimum(self.noise, 1 / precision)
        left_out = self.y - self.alpha / precision
        return self._moments(left_out, 1 / precision - noise, noise, self.left_out_spread)

    def _moments(self, mean: Floats, variance: Floats, noise: Floats, spread: float) -> tuple[Floats, Floats]:
        unit = (self.std * spread) ** 2
        return self.floor.moments(self.mean + self.std * mean, unit * variance, unit * noise)

    @property
    def means(self) -> Floats:
        """The values' mean at each fidelity, of which there is one."""
        return np.array([self.mean])

    def couplings(self) -> tuple[Floats, float]:
        """The factor of the covariance between fidelities (there is one), and a constant's variance."""
        return np.ones((1, 1)), CONSTANT_VARIANCE

    def paths(self, frequencies: Floats, normals: Floats) -> Callable[[Floats], Floats]:
        """Posterior draws of the expected metric by Matheron's rule: a prior draw, corrected at the runs.

        Args:
            frequencies: float64, (F, K), of a Matern-5/2 process of unit length-scales.
            normals: float64, (2 F + K + 1 + n, n_draws).
        """
        scaled = (frequencies * np.exp(-self.h.log_lengthscales)).T
        n_prior, n_waves = len(normals) - len(self.y), 2 * len(frequencies)
        slopes = np.sqrt(self.h.linear) * correlated_slopes(normals[n_waves : n_prior - 1])

        def prior(x: Floats) -> Floats:
            phase = x @ scaled
            waves = np.sqrt(self.h.signal / len(frequencies)) * np.hstack([np.cos(phase), np.sin(phase)])
            constant = np.sqrt(CONSTANT_VARIANCE) * normals[n_prior - 1]
            return np.asarray(waves @ normals[:n_waves] + x @ slopes + constant)

        noise = np.sqrt(self.noise)[:, None] * normals[n_prior:]
        correction = self.inverse @ (self.y[:, None] - prior(self.x) - noise)
        centre = self.alpha[:, None]

        def path(features: Floats) -> Floats:
            x = (features - self.centre) / self.scale
            k = self.h.covariance(x, self.x)
            deviation = prior(x) + k @ (correction - centre)
            values = self.mean + self.std * (k @ centre + self.spread * deviation).T
            return np.asarray(self.floor.unwarped(values))

        return path


def path_blocks(
    paths: Callable[[np.random.Generator, int], list[Path]], n_draws: int, seed: int
) -> Callable[[Floats], Floats]:
    """Features (M, K) -> draws (n_draws, M, J), made in blocks: many draws are made again at each call.

    Args:
        paths: from a generator and a number of draws to one function for each metric.
    """
    sizes = [min(BLOCK, n_draws - start) for start in range(0, n_draws, BLOCK)]

    def block(i: int) -> list[Path]:
        return paths(np.random.default_rng([seed, i]), sizes[i])

    kept = block(0) if len(sizes) == 1 else None

    def drawn(features: Floats) -> Floats:
        blocks = [
            np.stack([path(features) for path in (kept if kept is not None else block(i))], axis=2)
            for i in range(len(sizes))
        ]
        return np.concatenate(blocks)

    return drawn


def matern_frequencies(rng: np.random.Generator, n_features: int) -> Floats:
    """Of a Matern-5/2 process of unit length-scales: float64, (N_FREQUENCIES, K), from a t of 5 degrees.

    Lengths are the quantiles of their distribution, |omega|^2 / K ~ F(K, 5), directions are random: drawn
    lengths made one set of draws in some tens 1.9 times too wide, these are 5 % too narrow, give or take 6.
    """
    directions = rng.standard_normal((N_FREQUENCIES, n_features))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    quantiles = (np.arange(N_FREQUENCIES) + 0.5) / N_FREQUENCIES
    return np.asarray(
        directions * np.sqrt(n_features * f_distribution.ppf(quantiles, n_features, 5))[:, None]
    )


def correlated_normals(rng: np.random.Generator, n: int, n_draws: int, root: Floats) -> Floats:
    """Standard normals (n, n_draws, J), of mean zero over the draws, correlated by `root` over metrics."""
    normals = rng.standard_normal((n, n_draws, len(root)))
    if n_draws > 1:
        normals -= normals.mean(axis=1, keepdims=True)
        normals *= np.sqrt(n_draws / (n_draws - 1))
    return np.asarray(normals @ root.T)


def level_columns(prediction: Floats, level_range: tuple[float, float]) -> Floats:
    """The columns z and z^2 - 1 that drive the noise: float64, (M, 2)."""
    z = np.clip(prediction, *level_range)
    return np.column_stack([z, z * z - 1])


def _invert(covariance: Floats) -> Floats:
    return np.asarray(cho_solve(cho_factor(covariance, lower=True), np.eye(len(covariance))))


def _stacked(moments: list[tuple[Floats, Floats]]) -> Prediction:
    return Prediction(
        np.stack([mean for mean, _ in moments], axis=1), np.stack([std for _, std in moments], axis=1)
    )

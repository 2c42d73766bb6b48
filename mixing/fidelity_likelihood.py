"""A covariance over mixture, model size and tokens, and the posterior of its hyperparameters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag, lapack
from scipy.optimize import minimize

from .marginal_likelihood import (
    LEVEL_STD,
    SQRT5,
    finite_or_worthless,
    inverse_of_factor,
    linear_kernel,
    linear_variance,
    noise_bounds,
    prior,
    squared_distances,
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

CONSTANT_VARIANCE = 4.0  # of a fidelity's level, in the metric's variances: it need not be shared
LOG_DECAY = (np.log(0.02), 1.0)  # of the correlation, for a factor of e in size or tokens: mean, std
EXPONENT = (-0.1, 0.3)  # of the spread in size or tokens: from 1M to 1B parameters spreads fall to .06-.58
SPREAD_STD, NOISE_STD = 0.12, 0.7  # of one fidelity's log spread and log noise variance around the rest


@dataclass(frozen=True, eq=False)
class Ladder:
    """The fidelities of a table, as the covariance sees them.

    Attributes:
        logs: float64, (L, A), log parameters and log tokens of each fidelity relative to the reference; only
            axes that vary. Fidelities without runs stand last.
        reference: the fidelity whose spread is the unit.
        n_observed: how many have runs.
    """

    logs: Floats
    reference: int
    n_observed: int

    @classmethod
    def of(cls, fidelities: NDArray[np.int64], counts: NDArray[np.int64]) -> Ladder:
        """Of distinct (n_parameters, n_tokens), (L, 2); the one with most runs is the reference."""
        reference = int(np.argmax(counts))
        logs = np.log(np.maximum(fidelities, 1).astype(np.float64))
        logs = logs - logs[reference]
        return cls(logs[:, np.ptp(logs, axis=0) > 0], reference, int(np.sum(counts > 0)))

    @property
    def observed(self) -> Ladder:
        """Without the fidelities that have no runs."""
        return Ladder(self.logs[: self.n_observed], self.reference, self.n_observed)

    @cached_property
    def distances(self) -> Floats:
        """|log ratio| along each axis: float64, (A, L, L)."""
        return np.abs(self.logs.T[:, :, None] - self.logs.T[:, None, :])

    @property
    def n_axes(self) -> int:
        return int(self.logs.shape[1])

    @property
    def n_levels(self) -> int:
        return len(self.logs)


@dataclass(frozen=True, eq=False)
class FidelityHyperparameters:
    """Of Cov = s_l s_m R_lm k(x, x') + 4 [l = m] and noise s_l^2 n2 exp(e_l + level @ b), standardised data.

    k(x, x') = signal Matern-5/2 + linear l(x, x'), l the `linear_kernel`, R_lm = exp(-sum_a decay_a |log
    ratio_a|), log s_l = sum_a exponent_a log ratio_a + d_l.

    Attributes:
        log_lengthscales: float64, (K,).
        signal, linear, noise: variances.
        decays, exponents: float64, (A,), of each axis.
        spreads, noises: float64, (L,), d and e; 0 at the reference and where no run has been.
        levels: float64, (q,), b; what drives the noise besides.
    """

    log_lengthscales: Floats
    signal: float
    linear: float
    noise: float
    decays: Floats
    exponents: Floats
    spreads: Floats
    noises: Floats
    levels: Floats

    @classmethod
    def unpack(cls, theta: Floats, n_features: int, ladder: Ladder) -> FidelityHyperparameters:
        a, free = ladder.n_axes, _free(ladder)
        parts = np.split(theta, np.cumsum([n_features, 3, a, a, len(free), len(free)]))
        spreads, noises = np.zeros(ladder.n_levels), np.zeros(ladder.n_levels)
        spreads[free], noises[free] = parts[4], parts[5]
        signal, linear, noise = np.exp(parts[1]).tolist()
        return cls(
            parts[0], signal, linear, noise, np.exp(parts[2]), parts[3], spreads, noises, parts[6].copy()
        )

    def extended(self, n_levels: int) -> FidelityHyperparameters:
        """For a ladder with further fidelities at its end, without runs."""
        more = np.zeros(n_levels - len(self.spreads))
        return replace(self, spreads=np.append(self.spreads, more), noises=np.append(self.noises, more))

    def scales(self, ladder: Ladder) -> Floats:
        """s: float64, (L,)."""
        return np.asarray(np.exp(ladder.logs @ self.exponents + self.spreads))

    def correlation(self, ladder: Ladder) -> Floats:
        """R: float64, (L, L)."""
        return np.asarray(np.exp(-np.tensordot(self.decays, ladder.distances, axes=1)))

    def coupling(self, ladder: Ladder) -> Floats:
        """s_l s_m R_lm: float64, (L, L)."""
        s = self.scales(ladder)
        return np.asarray(np.outer(s, s) * self.correlation(ladder))

    def noise_variance(self, ladder: Ladder, fidelity: Integers, level: Floats) -> Floats:
        """float64, (n,), of runs at the fidelities (n,), with rows (n, q) of what drives the noise."""
        base = self.scales(ladder) ** 2 * np.exp(self.noises)
        return np.asarray(self.noise * base[fidelity] * np.exp(level @ self.levels))

    def kernel(self, a: Floats, b: Floats) -> Floats:
        """k between standardised features a, (n, K), and b, (m, K): (n, m)."""
        scales = np.exp(-self.log_lengthscales)
        r = SQRT5 * np.sqrt(squared_distances(a * scales, b * scales))
        matern = (1 + r + r * r / 3) * np.exp(-r)
        return np.asarray(self.signal * matern + self.linear * linear_kernel(a, b))

    def covariance(self, a: Floats, at_a: Integers, b: Floats, at_b: Integers, ladder: Ladder) -> Floats:
        """Between the expected metrics of mixtures a at fidelities at_a and b at fidelities at_b: (n, m)."""
        same = at_a[:, None] == at_b[None, :]
        return np.asarray(
            self.coupling(ladder)[at_a[:, None], at_b[None, :]] * self.kernel(a, b) + CONSTANT_VARIANCE * same
        )

    def variance(self, a: Floats, at_a: Integers, ladder: Ladder) -> Floats:
        """The diagonal of `covariance(a, at_a, a, at_a)`: (n,)."""
        prior_variance = self.signal + self.linear * linear_variance(a)
        return np.asarray(self.scales(ladder)[at_a] ** 2 * prior_variance + CONSTANT_VARIANCE)


def fidelity_prior(n_features: int, ladder: Ladder, n_levels: int) -> tuple[Floats, Floats]:
    """Means and inverse covariance of theta: those of `marginal_likelihood.prior`, and of the fidelities."""
    median, inner = prior(n_features, 0)
    a, free = ladder.n_axes, len(_free(ladder))
    means = [median, np.full(a, LOG_DECAY[0]), np.full(a, EXPONENT[0]), np.zeros(2 * free + n_levels)]
    stds = [np.full(a, LOG_DECAY[1]), np.full(a, EXPONENT[1])]
    stds += [np.full(free, SPREAD_STD), np.full(free, NOISE_STD), np.full(n_levels, LEVEL_STD)]
    return np.concatenate(means), block_diag(inner, np.diag(np.concatenate(stds) ** -2.0))


def fidelity_posterior_reference(
    theta: Floats, x: Floats, fidelity: Integers, y: Floats, level: Floats, ladder: Ladder
) -> float:
    """-log p(y | theta) - log p(theta) up to a constant, in the plainest form.

    Args:
        theta: float64, packed as `FidelityHyperparameters.unpack` reads it.
        x, fidelity, y: float64 (n, K), int64 (n,) and float64 (n,), standardised.
        level: float64, (n, q), what drives the noise.
    """
    h = FidelityHyperparameters.unpack(theta, x.shape[1], ladder)
    c = h.covariance(x, fidelity, x, fidelity, ladder) + np.diag(h.noise_variance(ladder, fidelity, level))
    mean, precision = fidelity_prior(x.shape[1], ladder, level.shape[1])
    fit = 0.5 * y @ np.linalg.solve(c, y) + 0.5 * np.linalg.slogdet(c)[1]
    return float(fit + 0.5 * (theta - mean) @ precision @ (theta - mean))


class FidelityPosterior:
    """`fidelity_posterior_reference` and its gradient, for one Cholesky factor and its inverse.

    As `marginal_likelihood.Posterior`; with T = W * F, F the covariance without constants and noise, a run's
    log spread has the derivative -(T 1)_i - W_ii noise_i, and the fidelities' parameters are sums of those.
    """

    def __init__(self, x: Floats, fidelity: Integers, y: Floats, level: Floats, ladder: Ladder) -> None:
        self.x, self.fidelity, self.y, self.level, self.ladder = x, fidelity, y, level, ladder
        self._products = linear_kernel(x, x)
        self._pairs = (fidelity[:, None], fidelity[None, :])
        self._constant = CONSTANT_VARIANCE * (self._pairs[0] == self._pairs[1])
        self._apart = [distance[self._pairs] for distance in ladder.distances]
        self._members = np.eye(ladder.n_levels)[:, _free(ladder)][fidelity]  # (n, free levels)
        self._mean, self._precision = fidelity_prior(x.shape[1], ladder, level.shape[1])

    def __call__(self, theta: Floats) -> tuple[float, Floats]:
        """The value and gradient at theta; 1e10 where no finite covariance has a Cholesky factor."""
        return finite_or_worthless(self._evaluate, theta)

    def _evaluate(self, theta: Floats) -> tuple[float, Floats]:
        n, k = self.x.shape
        h = FidelityHyperparameters.unpack(theta, k, self.ladder)
        coupling = h.coupling(self.ladder)[self._pairs]
        a = self.x * np.exp(-h.log_lengthscales)
        r = SQRT5 * np.sqrt(squared_distances(a, a))
        decay = np.exp(-r)
        matern = h.signal * (1 + r + r * r / 3) * decay
        linear = h.linear * self._products
        shared = coupling * (matern + linear)
        noise = h.noise_variance(self.ladder, self.fidelity, self.level)
        c = shared + self._constant
        c[np.diag_indices(n)] += noise
        factor, failed = lapack.dpotrf(c, lower=1, clean=1, overwrite_a=1)
        if failed:
            return np.inf, np.zeros_like(theta)
        alpha = lapack.dpotrs(factor, self.y, lower=1)[0]
        deviation = theta - self._mean
        pull = self._precision @ deviation
        value = 0.5 * self.y @ alpha + np.log(np.diag(factor)).sum() + 0.5 * deviation @ pull
        w = np.outer(alpha, alpha) - inverse_of_factor(factor)
        slope = w * coupling * ((5 / 3) * h.signal * (1 + r) * decay)
        total, by_noise = w * shared, np.diag(w) * noise
        by_spread = -total.sum(axis=1) - by_noise
        gradient = np.concatenate(
            [
                ((a * (slope @ a)) - a * a * slope.sum(axis=1)[:, None]).sum(axis=0),
                -0.5
                * np.array([np.vdot(w * coupling, matern), np.vdot(w * coupling, linear), by_noise.sum()]),
                [0.5 * d * np.vdot(total, apart) for d, apart in zip(h.decays, self._apart, strict=True)],
                self.ladder.logs[self.fidelity].T @ by_spread,
                self._members.T @ by_spread,
                -0.5 * self._members.T @ by_noise,
                -0.5 * self.level.T @ by_noise,
            ]
        )
        return float(value), gradient + pull


def most_probable_fidelities(
    x: Floats,
    fidelity: Integers,
    y: Floats,
    level: Floats,
    ladder: Ladder,
    start: Floats | None = None,
) -> Floats:
    """theta of the highest posterior density, by L-BFGS from the prior's means, or from `start` without b."""
    theta, _ = fidelity_prior(x.shape[1], ladder, level.shape[1])
    if start is not None:
        theta[: len(start)] = start
    options = {"maxiter": 150, "ftol": 1e-6, "gtol": 1e-3}
    objective, bounds = FidelityPosterior(x, fidelity, y, level, ladder), noise_bounds(x.shape[1], len(theta))
    found = minimize(objective, theta, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return np.asarray(found.x)


def _free(ladder: Ladder) -> Integers:
    """The fidelities whose spread and noise differ from the reference's."""
    return np.delete(np.arange(ladder.n_levels), ladder.reference)

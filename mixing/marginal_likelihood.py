"""The posterior of a Gaussian process's hyperparameters, with its gradient in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack
from scipy.optimize import minimize

Floats = NDArray[np.float64]

SQRT5 = np.sqrt(5.0)
CONSTANT_VARIANCE = 1.0  # of the mean, in units of the metric's variance
OWN_STD = 1.0  # of one log length-scale around their common one; sqrt 3 of each in all
SCALE_STD = 1.5  # of the log variances a priori: a factor of 4.5 either way
LEVEL_STD = 0.7  # of the noise's dependence on the level
LOWEST_NOISE = 1e-8  # variance, in the metric's: runs without noise make a covariance that has no inverse
SIGNAL_VARIANCE, LINEAR_VARIANCE, NOISE_VARIANCE = 1.0, 0.3, 0.01  # prior medians, in the metric's variances


@dataclass(frozen=True, eq=False)
class Hyperparameters:
    """Of the covariance s2 M(r) + v l(x, x') + 1 and of the noise n2 exp(level @ b), on standardised data.

    l is `linear_kernel`.

    Attributes:
        log_lengthscales: float64, (K,).
        signal, linear, noise: variances s2, v and n2.
        levels: float64, (q,), b; empty for noise that is the same everywhere.
    """

    log_lengthscales: Floats
    signal: float
    linear: float
    noise: float
    levels: Floats

    @classmethod
    def unpack(cls, theta: Floats, n_features: int) -> Hyperparameters:
        signal, linear, noise = np.exp(theta[n_features : n_features + 3])
        return cls(
            theta[:n_features], float(signal), float(linear), float(noise), theta[n_features + 3 :].copy()
        )

    def pack(self) -> Floats:
        variances = np.log([self.signal, self.linear, self.noise])
        return np.concatenate([self.log_lengthscales, variances, self.levels])

    def noise_variance(self, level: Floats) -> Floats:
        """float64, (n,), from the rows (n, q) that drive the noise."""
        return np.asarray(self.noise * np.exp(level @ self.levels))

    def covariance(self, a: Floats, b: Floats) -> Floats:
        """Between the expected metrics at standardised features a, (n, K), and b, (m, K): (n, m)."""
        scales = np.exp(-self.log_lengthscales)
        d2 = squared_distances(a * scales, b * scales)
        r = SQRT5 * np.sqrt(d2)
        matern = (1 + r + r * r / 3) * np.exp(-r)
        return np.asarray(self.signal * matern + self.linear * linear_kernel(a, b) + CONSTANT_VARIANCE)

    def variance(self, a: Floats) -> Floats:
        """The diagonal of `covariance(a, a)`: (n,)."""
        return np.asarray(self.signal + self.linear * linear_variance(a) + CONSTANT_VARIANCE)


def prior(n_features: int, n_levels: int) -> tuple[Floats, Floats]:
    """Medians (K + 3 + q,) and inverse covariance (K + 3 + q, K + 3 + q) of the packed logarithms, float64.

    Source: length-scales ~ LogNormal(sqrt 2 + log(K) / 2, sqrt 3), Hvarfner, Hellsten, Nardi 2024 ("Vanilla
        Bayesian Optimization Performs Great in High Dimensions"), equation 8.
    """
    lengthscale = np.full(n_features, np.sqrt(2) + 0.5 * np.log(n_features))
    variances = np.log([SIGNAL_VARIANCE, LINEAR_VARIANCE, NOISE_VARIANCE])
    stds = [np.full(n_features, OWN_STD), np.full(3, SCALE_STD), np.full(n_levels, LEVEL_STD)]
    precision = np.diag(np.concatenate(stds) ** -2.0)
    own, shared = OWN_STD**2, 3.0 - OWN_STD**2
    precision[:n_features, :n_features] -= shared / (own * (own + n_features * shared))
    return np.concatenate([lengthscale, variances, np.zeros(n_levels)]), precision


def negative_log_posterior_reference(theta: Floats, x: Floats, y: Floats, level: Floats) -> float:
    """-log p(y | theta) - log p(theta) up to a constant, in the plainest form.

    Args:
        theta: float64, (K + 3 + q,), packed hyperparameters.
        x, y: float64, (n, K) and (n,), standardised features and metric.
        level: float64, (n, q), what drives the noise.
    """
    h = Hyperparameters.unpack(theta, x.shape[1])
    c = h.covariance(x, x) + np.diag(h.noise_variance(level))
    median, precision = prior(x.shape[1], level.shape[1])
    fit = 0.5 * y @ np.linalg.solve(c, y) + 0.5 * np.linalg.slogdet(c)[1]
    return float(fit + 0.5 * (theta - median) @ precision @ (theta - median))


class Posterior:
    """`negative_log_posterior_reference` and its gradient, for one Cholesky factor and its inverse.

    With W = a a' - C^-1, a = C^-1 y, a derivative is -tr(W dC) / 2. For the length-scales, dC is H * (x_ik -
    x_jk)^2 with one H for all k, so that sum_ij H_ij (x_ik - x_jk)^2 = 2 (h . x_k^2 - x_k' H x_k), h = H 1,
    needs no (n, n, K) array. One call at n = 512, K = 17 takes about 25 ms on one core.
    """

    def __init__(self, x: Floats, y: Floats, level: Floats) -> None:
        self.x, self.y, self.level = x, y, level
        self.alpha = np.zeros_like(y)  # C^-1 y of the last call
        self._products = linear_kernel(x, x)
        self._median, self._precision = prior(x.shape[1], level.shape[1])

    def __call__(self, theta: Floats) -> tuple[float, Floats]:
        """The value and gradient at theta; 1e10 where no finite covariance has a Cholesky factor."""
        return finite_or_worthless(self._evaluate, theta)

    def _evaluate(self, theta: Floats) -> tuple[float, Floats]:
        n, k = self.x.shape
        h = Hyperparameters.unpack(theta, k)
        a = self.x * np.exp(-h.log_lengthscales)
        r = SQRT5 * np.sqrt(squared_distances(a, a))
        decay = np.exp(-r)
        matern = (1 + r + r * r / 3) * decay
        noise = h.noise_variance(self.level)
        c = h.signal * matern + h.linear * self._products + CONSTANT_VARIANCE
        c[np.diag_indices(n)] += noise
        factor, failed = lapack.dpotrf(c, lower=1, clean=1, overwrite_a=1)
        if failed:
            return np.inf, np.zeros_like(theta)
        self.alpha = alpha = lapack.dpotrs(factor, self.y, lower=1)[0]
        deviation = theta - self._median
        pull = self._precision @ deviation
        value = 0.5 * self.y @ alpha + np.log(np.diag(factor)).sum() + 0.5 * deviation @ pull
        w = np.outer(alpha, alpha) - inverse_of_factor(factor)
        slope = w * ((5 / 3) * h.signal * (1 + r) * decay)
        noise_gradient = np.diag(w) * noise
        gradient = np.empty_like(theta)
        gradient[:k] = ((a * (slope @ a)) - a * a * slope.sum(axis=1)[:, None]).sum(axis=0)
        gradient[k] = -0.5 * h.signal * np.vdot(w, matern)
        gradient[k + 1] = -0.5 * h.linear * np.vdot(w, self._products)
        gradient[k + 2] = -0.5 * noise_gradient.sum()
        gradient[k + 3 :] = -0.5 * self.level.T @ noise_gradient
        return float(value), gradient + pull


def most_probable(
    x: Floats, y: Floats, level: Floats, start: Hyperparameters | None = None
) -> Hyperparameters:
    """The hyperparameters of the highest posterior density, by L-BFGS from their prior medians or `start`."""
    theta, _ = prior(x.shape[1], level.shape[1])
    if start is not None:
        theta[: x.shape[1] + 3] = start.pack()[: x.shape[1] + 3]
    return Hyperparameters.unpack(minimised(Posterior(x, y, level), theta, x.shape[1]), x.shape[1])


def minimised(posterior: Posterior, theta: Floats, n_features: int, *last: tuple[float, float]) -> Floats:
    """Parameters of the lowest value, from theta on.

    Args:
        last: bounds of the last parameters; of the others the noise alone has one.
    """
    options = {"maxiter": 200, "ftol": 1e-6, "gtol": 1e-3}
    bounds = [*noise_bounds(n_features, len(theta) - len(last)), *last]
    found = minimize(posterior, theta, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return np.asarray(found.x, dtype=np.float64)


def noise_bounds(n_features: int, n_parameters: int) -> list[tuple[float | None, None]]:
    """Of packed parameters, for L-BFGS: the noise is not below LOWEST_NOISE."""
    bounds: list[tuple[float | None, None]] = [(None, None)] * n_parameters
    bounds[n_features + 2] = (float(np.log(LOWEST_NOISE)), None)
    return bounds


def finite_or_worthless(
    evaluate: Callable[[Floats], tuple[float, Floats]], theta: Floats
) -> tuple[float, Floats]:
    """A value and its gradient at theta, or 1e10 and none where they are not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        value, gradient = evaluate(theta)
    if not (np.isfinite(value) and np.isfinite(gradient).all()):
        return 1e10, np.zeros_like(theta)
    return value, gradient


def linear_kernel(a: Floats, b: Floats) -> Floats:
    """(x.x' + sum(x) sum(x')) / 2K between a, (n, K), and b, (m, K): slopes of unit variance in all.

    Every domain's slope is a common one plus its own, of one variance: a correlation of 1/2.
    """
    k = a.shape[1]
    return np.asarray((a @ b.T + np.outer(a.sum(axis=1), b.sum(axis=1))) / (2 * k))


def linear_variance(a: Floats) -> Floats:
    """The diagonal of `linear_kernel(a, a)`: (n,)."""
    return np.asarray((np.sum(a * a, axis=1) + a.sum(axis=1) ** 2) / (2 * a.shape[1]))


def correlated_slopes(normals: Floats) -> Floats:
    """Slopes (K, ...) whose products with x have `linear_kernel` as their covariance, from normals (K, ...).

    The symmetric root of 1 + 11' is 1 + c 11' with c = (sqrt(1 + K) - 1) / K.
    """
    k = len(normals)
    common = (np.sqrt(1.0 + k) - 1.0) / k * normals.sum(axis=0)
    return np.asarray((normals + common) / np.sqrt(2.0 * k))


def squared_distances(a: Floats, b: Floats) -> Floats:
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * (a @ b.T)
    return np.asarray(np.maximum(squares, 0.0))


def inverse_of_factor(factor: Floats) -> Floats:
    """C^-1 from C's lower Cholesky factor: float64, (n, n)."""
    lower = np.tril(lapack.dpotri(factor, lower=1)[0])
    return np.asarray(lower + np.tril(lower, -1).T)

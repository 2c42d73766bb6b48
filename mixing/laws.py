"""Mixing laws: metric = c + b h(w), b > 0, with h an exponential or a power of what each domain adds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from .cross_fitted import CrossFittedMixer, Surface
from .mixer import Floats

Pullback = Callable[[Floats], Floats]  # derivative by h, (n,) -> derivative by theta

MIN_SLOPE = 1e-3  # of b, in standard deviations of the metric and h: a law is never flat or upside down
MIN_SHARE = 1e-6  # added to effective data: a mixture may hold nothing that helps
MIN_WEIGHT = 1e-3  # added to weights under a negative power of their own
LOG_BOUND = 30.0  # of free logarithms
EXPONENTS = (0.02, 4.5)


@dataclass(eq=False, kw_only=True)
class LawMixer(CrossFittedMixer):
    """What the laws share: variable projection, several starts, a small penalty.

    For each h(.; theta), c and b are the least-squares ones, so that only theta is searched, with its
    gradient in closed form. The first start points each domain the way it correlates with the metric.

    Args:
        n_starts: of the search; the best is kept.
        l2: penalty on theta, per run, in the metric's variance.
    """

    n_starts: int = 3
    l2: float = 1e-4

    def shape(self, theta: Floats, weights: Floats) -> tuple[Floats, Pullback]:
        """h of mixtures (n, K), (n,), and how a derivative by h becomes one by theta."""
        raise NotImplementedError

    def start(self, correlation: Floats, i: int) -> Floats:
        """Where search i starts, from each domain's correlation with the metric, (K,)."""
        raise NotImplementedError

    @property
    def n_searches(self) -> int:
        """Starts that could end in different optima."""
        return self.n_starts

    def fit_surface(self, weights: Floats, metrics: Floats) -> Surface:
        laws = [self._fit_metric(weights, y) for y in metrics.T]

        def surface(w: Floats) -> Floats:
            return np.stack([c + b * self.shape(theta, w)[0] for theta, c, b in laws], axis=1)

        return surface

    def _fit_metric(self, weights: Floats, y: Floats) -> tuple[Floats, float, float]:
        """theta, c and b of one metric."""
        scale = float(y.std()) or 1.0
        z = (y - y.mean()) / scale
        roots = np.sqrt(weights)
        roots = (roots - roots.mean(axis=0)) / np.where(roots.std(axis=0) > 1e-9, roots.std(axis=0), 1.0)
        correlation = roots.T @ z / len(z)

        def loss(theta: Floats) -> tuple[float, Floats]:
            h, pullback = self.shape(theta, weights)
            centred, b = _project(h, z)
            residual = z - b * centred
            derivative = -b / len(z) * residual  # by h; c and b are optimal, so they add nothing
            value = 0.5 * residual @ residual / len(z) + 0.5 * self.l2 * theta @ theta
            return float(value), pullback(derivative - derivative.mean()) + self.l2 * theta

        rng = np.random.default_rng(self.seed)
        best = None
        for i in range(self.n_searches):
            first = self.start(correlation, i)
            first = first + 0.3 * i * rng.standard_normal(len(first))
            options = {"maxiter": 300, "ftol": 1e-10}
            found = minimize(loss, first, jac=True, method="L-BFGS-B", options=options)
            if best is None or found.fun < best.fun:
                best = found
        assert best is not None, "n_starts is at least 1"
        h, _ = self.shape(best.x, weights)
        slope = scale * _project(h, z)[1]
        return best.x, float(y.mean() - slope * h.mean()), slope


@dataclass(eq=False, kw_only=True)
class PowerLawMixer(LawMixer):
    """loss = c + b (sum_k g_k w_k + 1e-6)^-alpha: a token of domain k is worth g_k tokens of effective data.

    Its optimum is the domain of the largest g, up to its cap; it ranks mixtures at a larger scale better than
    it locates an optimum. 512 runs of 17 domains: .03 s per metric.

    Source: effective data as in Hernandez et al. 2021 ("Scaling Laws for Transfer") and Apple's "Scaling Laws
        for Optimal Data Mixtures" (Shukor et al. 2025), at one size and token count.
    """

    def start(self, correlation: Floats, i: int) -> Floats:
        return np.append(-3.0 * (1 + i % 2) * correlation, np.log((0.3, 0.1, 1.0, 0.5)[i % 4]))

    def shape(self, theta: Floats, weights: Floats) -> tuple[Floats, Pullback]:
        worth = np.exp(np.clip(theta[:-1], -LOG_BOUND, LOG_BOUND))
        alpha = np.exp(np.clip(theta[-1], *np.log(EXPONENTS)))
        effective = weights @ worth + MIN_SHARE
        h = effective**-alpha

        def pullback(derivative: Floats) -> Floats:
            by_log = -alpha * h * derivative
            by_alpha = -alpha * float((derivative * h) @ np.log(effective))
            return np.append(weights.T @ (by_log / effective) * worth, by_alpha)

        return h, pullback


@dataclass(eq=False, kw_only=True)
class MixingLawMixer(LawMixer):
    """loss = c + sum_v exp(k_v + sum_j t_vj w_j): validation text of V kinds, each with an exponential law.

    Args:
        n_implicit: V. 1 is the paper's explicit form: the metric is the loss of one validation domain. More
            are implicit domains, for a metric of mixed text or of a benchmark, whose shares are found with
            the rest.

    Source: Data Mixing Laws (Ye et al. 2024), equation 7 and its implicit domains, whose shares, which sum to
        one there, are part of exp(k_v); c is one constant. They search 6000 starts under a Huber loss; with
        one kind and k projected out, starts of any size find one optimum of the squared error, so that one
        start is made (n_starts counts for implicit domains). Their implicit
        form is an average of 30 boosted networks; here it is the law itself. On RegMix's tables their Huber
        loss ranks the noisiest domains better.
    """

    l2: float = 1e-5
    n_implicit: int = 1

    def __post_init__(self) -> None:
        if self.n_implicit < 1:
            raise ValueError(f"mixing_law: n_implicit is {self.n_implicit}; give 1 or more.")

    @property
    def n_searches(self) -> int:
        return 1 if self.n_implicit == 1 else self.n_starts

    def start(self, correlation: Floats, i: int) -> Floats:
        if self.n_implicit == 1:
            return np.asarray(3.0 * (1.0 + i) * correlation)
        # Each kind begins with its part of the domains, so that no two of them are alike.
        kinds = np.arange(len(correlation)) % self.n_implicit == np.arange(self.n_implicit)[:, None]
        slopes = np.where(kinds, 6.0, 2.0) * (1.0 + i) * correlation
        return np.append(slopes.ravel(), np.zeros(self.n_implicit))

    def shape(self, theta: Floats, weights: Floats) -> tuple[Floats, Pullback]:
        bounded = np.clip(theta, -LOG_BOUND, LOG_BOUND)
        if self.n_implicit == 1:
            h = np.exp(weights @ bounded)
            return h, lambda derivative: np.asarray(weights.T @ (h * derivative))
        k = weights.shape[1]
        slopes = bounded[: k * self.n_implicit].reshape(self.n_implicit, k)
        terms = np.exp(weights @ slopes.T + bounded[k * self.n_implicit :])  # (n, V)

        def pullback(derivative: Floats) -> Floats:
            scaled = derivative[:, None] * terms
            return np.append((scaled.T @ weights).ravel(), scaled.sum(axis=0))

        return np.asarray(terms.sum(axis=1)), pullback


@dataclass(eq=False, kw_only=True)
class BiMixMixer(LawMixer):
    """loss = c + sum_k F_k (w_k + 1e-3)^-alpha_k.

    Source: BiMix (Ge et al. 2024), equation 3, whose metric depends on its own domain's weight alone; the sum
        over domains is olmix's. The factor in training volume, B / s^beta + C, is a constant at one fidelity.
        1e-3 keeps absent domains finite.
    """

    n_starts: int = 1
    l2: float = 1e-5

    def start(self, correlation: Floats, i: int) -> Floats:
        k = len(correlation)
        return np.concatenate([-2 - 4 * correlation, np.full(k, np.log((0.1, 0.3, 0.05)[i % 3]))])

    def shape(self, theta: Floats, weights: Floats) -> tuple[Floats, Pullback]:
        k = weights.shape[1]
        factors = np.exp(np.clip(theta[:k], -LOG_BOUND, LOG_BOUND))
        alphas = np.exp(np.clip(theta[k:], *np.log(EXPONENTS)))
        logs = np.log(weights + MIN_WEIGHT)
        terms = factors * np.exp(-alphas * logs)  # (n, K)

        def pullback(derivative: Floats) -> Floats:
            return np.concatenate([derivative @ terms, -alphas * (derivative @ (terms * logs))])

        return np.asarray(terms.sum(axis=1)), pullback


def _project(h: Floats, z: Floats) -> tuple[Floats, float]:
    """h without its mean, and the slope of z on it, at least MIN_SLOPE."""
    centred = h - h.mean()
    norm = float(centred @ centred) + 1e-12 * float(h @ h)
    return centred, max(float(centred @ z) / norm, MIN_SLOPE / np.sqrt(norm / len(z)))

"""The first mixer: a cheap trend, and a Bayesian ridge regression of what the trend leaves over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Self

import numpy as np
from scipy.special import gammaln, logsumexp

from .mixer import Fidelity, Floats, Prediction, Surfaces, check_fidelity, check_runs, error_correlation
from .proposals import Proposing
from .table import RunTable

Trend = Callable[[Floats], Floats]  # weights (M, K) -> losses (M, J)

MIN_RUNS = 4
# Ratios of prior to noise variance, for the trend's slope and for the features; averaged by their evidence.
VARIANCE_RATIOS = np.logspace(-3, 3, 7)
NO_STRUCTURE = 1e-6  # variance ratio of features that explain nothing
SLOPE_STD = 0.1  # of b around 1, a priori; log-normal hyper-prior, a factor of e either way
NOISE_PRIOR_RUNS = 2.0  # weight of the noise prior: as many runs had shown
NOISE_PRIOR_SHARE = 0.05  # this share of the metric's standard deviation


@dataclass(eq=False)
class TrendResidualMixer(Proposing):
    """Per metric, loss(w) = a + b trend(w) + phi(w) beta + noise, with b around 1 and beta around 0.

    phi(w) is sqrt(w) or log(w + 1e-3), one feature per domain. The prior variances of b - 1 and beta, as
    ratios to the noise variance, lie on a grid of 7 x 8 that is averaged by marginal likelihood. Beside a
    trend, half of the prior's weight is on beta = 0: few runs leave the trend as it is, up to a + b trend,
    unless what it leaves over is clearly of the features' making, and many runs correct it. Given the ratios
    everything is conjugate (normal, inverse gamma) and in closed form. So are the leave-one-out predictions:
    a run's own evidence is removed from the ratios' weights too, and only the scales of columns and priors
    have seen it.

    Between metrics, the uncertainties are correlated as the standardised leave-one-out errors are
    (`draw_surfaces`). That is exact where metrics share variance ratios and trend, and an approximation
    otherwise.

    Cost: O(n_runs K^2) per metric and ratio; 512 runs of 17 domains, 13 metrics: 10 ms without a trend.

    Args:
        trend: losses of the same metrics by a cheaper proxy, on about the same scale; None for no trend.
            Give an n-gram proxy the training tokens of the runs: more exaggerate what absent domains cost.
        features: the transform of the weights.

    Source: Bayesian linear regression (Gelman et al., BDA3, chapter 14); sqrt and log features from the
    comparison on RegMix's tables, where they precede raw weights.
    """

    trend: Trend | None = None
    features: Literal["sqrt", "log"] = "sqrt"
    is_smooth = True
    _runs: RunTable | None = field(default=None, init=False, repr=False)
    _posteriors: list[_Posterior] = field(default_factory=list, init=False, repr=False)

    @property
    def runs(self) -> RunTable:
        if self._runs is None:
            raise ValueError("this mixer has not seen any runs; call fit(runs) first.")
        return self._runs

    def fit(self, runs: RunTable) -> Self:
        """Learn from 4 or more runs of one fidelity.

        Raises:
            ValueError: fewer runs, several fidelities, or a trend of another shape.
        """
        check_runs(runs, MIN_RUNS)
        self._runs = runs
        phi, trend = self._phi(runs.weights), self._trend(runs.weights)
        self._posteriors = [
            _Posterior.fit(phi, trend[:, j] if self.trend else None, runs.metrics[:, j])
            for j in range(len(runs.metric_names))
        ]
        return self

    def predict(self, weights: Floats, fidelity: Fidelity | None = None) -> Prediction:
        """Mean and standard deviation of new runs: float64, (M, J) each.

        Raises:
            ValueError: not fitted, or another fidelity than that of the runs.
        """
        check_fidelity(self.runs, fidelity)
        phi, trend = self._phi(weights), self._trend(weights)
        moments = [p.predict(phi, trend[:, j]) for j, p in enumerate(self._posteriors)]
        return Prediction(
            np.stack([m for m, _ in moments], axis=1), np.stack([s for _, s in moments], axis=1)
        )

    def leave_one_out(self) -> Prediction:
        """Each run predicted from the others: float64, (n_runs, J)."""
        trend = self._trend(self.runs.weights)
        moments = [p.leave_one_out(trend[:, j]) for j, p in enumerate(self._posteriors)]
        return Prediction(
            np.stack([m for m, _ in moments], axis=1), np.stack([s for _, s in moments], axis=1)
        )

    def draw_surfaces(self, n_draws: int, seed: int = 0) -> Surfaces:
        """Functions weights (M, K) -> expected losses (n_draws, M, J); deterministic in the seed."""
        rng = np.random.default_rng(seed)
        n_metrics, n_coefficients = len(self._posteriors), len(self._posteriors[0].centre) + 1
        left_out = self.leave_one_out()
        root = np.linalg.cholesky(error_correlation((self.runs.metrics - left_out.mean) / left_out.std))
        normals = rng.standard_normal((n_draws, n_coefficients, n_metrics)) @ root.T
        dof = self._posteriors[0].dof
        normals *= np.sqrt(dof / rng.chisquare(dof, n_draws))[:, None, None]
        quantiles = rng.permutation((np.arange(n_draws) + 0.5) / n_draws)
        draws = [p.draw(quantiles, normals[:, :, j]) for j, p in enumerate(self._posteriors)]

        def surfaces(weights: Floats) -> Floats:
            phi, trend = self._phi(weights), self._trend(weights)
            columns = [
                trend[:, j] + intercept[:, None] + slopes @ p.design(phi, trend[:, j]).T
                for j, (p, (intercept, slopes)) in enumerate(zip(self._posteriors, draws, strict=True))
            ]
            return np.stack(columns, axis=2)

        return surfaces

    def _phi(self, weights: Floats) -> Floats:
        w = np.atleast_2d(weights)
        return np.sqrt(w) if self.features == "sqrt" else np.log(w + 1e-3)

    def _trend(self, weights: Floats) -> Floats:
        """(M, J); zeros without a trend."""
        expected = (len(np.atleast_2d(weights)), len(self.runs.metric_names))
        if self.trend is None:
            return np.zeros(expected)
        values = np.asarray(self.trend(np.atleast_2d(weights)), dtype=np.float64)
        if values.shape != expected:
            raise ValueError(
                f"the trend gave shape {values.shape}, expected {expected}: one column for each of the "
                f"metrics {', '.join(self.runs.metric_names)}."
            )
        return values


@dataclass(frozen=True, eq=False)
class _Posterior:
    """One metric: y - trend = a + x beta + noise for H pairs of variance ratios.

    x, (n_runs, p), holds the centred features (together of mean square one) and the standardised trend, if
    there is one. H pairs are those of `VARIANCE_RATIOS`, beside a trend with NO_STRUCTURE for the features
    at the weight of all others. A flat prior on a; beta ~ N(0, sigma^2 / precision); sigma^2 ~ inverse gamma.

    Attributes:
        centre, scale: float64, (p,), of the columns of x.
        x: float64, (n_runs, p).
        residual: float64, (n_runs,), y - trend.
        coefficients: float64, (H, p), posterior means of beta.
        covariance: float64, (H, p, p), of beta, in units of sigma^2.
        sum_of_squares: float64, (H,), 2 b of the inverse gamma posterior of sigma^2.
        log_evidence: float64, (H,), with the ratios' prior, up to a constant.
        dof: 2 a of the same posterior.
    """

    centre: Floats
    scale: Floats
    x: Floats
    residual: Floats
    coefficients: Floats
    covariance: Floats
    sum_of_squares: Floats
    log_evidence: Floats
    dof: float

    @classmethod
    def fit(cls, phi: Floats, trend: Floats | None, y: Floats) -> _Posterior:
        columns = phi if trend is None else np.column_stack([phi, trend])
        centre = columns.mean(axis=0)
        scale = np.full(columns.shape[1], np.sqrt(phi.var(axis=0).sum()) or 1.0)
        ratios, n = VARIANCE_RATIOS, len(VARIANCE_RATIOS)
        ratios = ratios if trend is None else np.append(NO_STRUCTURE, ratios)
        precision = np.repeat(1.0 / ratios[:, None], columns.shape[1], axis=1)  # (H, p)
        residual, log_prior = y, np.zeros(n)
        if trend is not None:
            scale[-1] = trend.std() or 1.0
            precision = np.tile(precision, (n, 1))
            precision[:, -1] = np.repeat(1.0 / VARIANCE_RATIOS, n + 1)
            log_prior = np.tile(np.append(np.log(n), log_prior), n)
            residual = y - trend
        x, centred = (columns - centre) / scale, residual - residual.mean()
        precisions = precision[:, :, None] * np.eye(len(scale))
        covariance = np.linalg.inv(x.T @ x + precisions)
        coefficients = covariance @ (x.T @ centred)
        noise_prior = NOISE_PRIOR_RUNS * (NOISE_PRIOR_SHARE**2 * y.var() + 1e-18)
        sum_of_squares = noise_prior + centred @ centred - coefficients @ (x.T @ centred)
        dof = len(y) - 1 + NOISE_PRIOR_RUNS
        log_evidence = log_prior + 0.5 * (
            np.linalg.slogdet(covariance)[1] + np.log(precision).sum(axis=1) - dof * np.log(sum_of_squares)
        )
        if trend is not None:
            slope_std = np.sqrt(sum_of_squares / dof / precision[:, -1]) / scale[-1]
            log_evidence -= 0.5 * np.log(slope_std / SLOPE_STD) ** 2
        return cls(centre, scale, x, residual, coefficients, covariance, sum_of_squares, log_evidence, dof)

    def design(self, phi: Floats, trend: Floats) -> Floats:
        """Rows of x for new mixtures: float64, (M, p)."""
        columns = phi if phi.shape[1] == len(self.centre) else np.column_stack([phi, trend])
        return (columns - self.centre) / self.scale

    def predict(self, phi: Floats, trend: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of new runs, averaged over the variance ratios: (M,) each."""
        x = self.design(phi, trend)
        means = self.residual.mean() + self.coefficients @ x.T  # (H, M)
        spread = 1 + 1 / len(self.residual) + np.einsum("mp,hpq,mq->hm", x, self.covariance, x)
        variances = self.sum_of_squares[:, None] / (self.dof - 2) * spread
        mean, std = _average(means, variances, _normalised(self.log_evidence)[:, None])
        return trend + mean, std

    def leave_one_out(self, trend: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of each run given the others: (n_runs,) each."""
        n_runs = len(self.residual)
        leverage = 1 / n_runs + np.einsum("np,hpq,nq->hn", self.x, self.covariance, self.x)
        errors = self.residual - self.residual.mean() - self.coefficients @ self.x.T  # (H, n_runs)
        held_out = errors / (1 - leverage)
        dof = self.dof - 1
        scale = (self.sum_of_squares[:, None] - errors * held_out) / dof / (1 - leverage)
        log_density = _log_student_t(held_out, scale, dof)
        weights = _normalised(self.log_evidence[:, None] - log_density)
        mean, std = _average(self.residual - held_out, scale * dof / (dof - 2), weights)
        return trend + mean, std

    def draw(self, quantiles: Floats, normals: Floats) -> tuple[Floats, Floats]:
        """Posterior draws of the intercept at the centre, (n_draws,), and of beta, (n_draws, p)."""
        cumulative = np.cumsum(_normalised(self.log_evidence))
        chosen = np.minimum(np.searchsorted(cumulative, quantiles), len(cumulative) - 1)
        sigma = np.sqrt(self.sum_of_squares[chosen] / self.dof)
        roots = np.linalg.cholesky(self.covariance)[chosen]
        slopes = self.coefficients[chosen] + sigma[:, None] * np.einsum("spq,sq->sp", roots, normals[:, 1:])
        return self.residual.mean() + sigma * normals[:, 0] / np.sqrt(len(self.residual)), slopes


def _average(means: Floats, variances: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of a mixture of distributions along the first axis."""
    mean = (weights * means).sum(axis=0)
    return mean, np.sqrt((weights * (variances + (means - mean) ** 2)).sum(axis=0))


def _normalised(log_weights: Floats) -> Floats:
    return np.asarray(np.exp(log_weights - logsumexp(log_weights, axis=0)))


def _log_student_t(error: Floats, scale_squared: Floats, dof: float) -> Floats:
    constant = gammaln((dof + 1) / 2) - gammaln(dof / 2) - 0.5 * np.log(dof * np.pi)
    return np.asarray(
        constant - 0.5 * np.log(scale_squared) - (dof + 1) / 2 * np.log1p(error**2 / (dof * scale_squared))
    )

"""Metrics as logarithms of what lies above a floor, which is learned with a process's hyperparameters.

Losses fall towards what no mixture can go below, so domains' effects multiply what is left above it: in its
logarithm they add up, the surface bends less, and noise is alike at all levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import NDArray

from .marginal_likelihood import Hyperparameters, Posterior, minimised, prior

Floats = NDArray[np.float64]

GAP_MEDIAN, GAP_STD = np.log(3.0), 1.0  # of the log gap between floor and lowest run, in the runs' spreads
LOG_GAPS = (np.log(0.05), np.log(300.0))  # beyond, a run stands alone, or the logarithm is a straight line
NODES, NODE_WEIGHTS = hermegauss(20)  # a mean under a standard normal, by Gauss-Hermite quadrature
NODE_WEIGHTS /= NODE_WEIGHTS.sum()


@dataclass(frozen=True)
class Floor:
    """The map between a metric and its logarithm above `value`; None: the metric as it is.

    Attributes:
        top: the greatest logarithm of a run. Above it the way back is straight: where no run has been, an
            exponential would make an uncertain logarithm a metric beyond all bounds.
    """

    value: float | None = None
    top: float = 0.0

    def warped(self, metric: Floats) -> Floats:
        """What a process sees of runs' metric, which lies above the floor."""
        return metric if self.value is None else np.log(metric - self.value)

    def unwarped(self, values: Floats) -> Floats:
        """The metric again."""
        if self.value is None:
            return values
        inside = np.minimum(values, self.top)
        return np.asarray(self.value + np.exp(inside) * (1 + values - inside))

    def moments(self, mean: Floats, variance: Floats, noise: Floats) -> tuple[Floats, Floats]:
        """The expected metric, and the standard deviation of a new run, of Gaussian values.

        Args:
            mean, variance: of the values' expectation, (M,) each.
            noise: variance of a new run around it.
        """
        if self.value is None:
            return mean, np.sqrt(variance + noise)
        expected, runs = (
            self.unwarped(mean + np.sqrt(v) * NODES[:, None]) for v in (variance, variance + noise)
        )
        return NODE_WEIGHTS @ expected, np.sqrt(NODE_WEIGHTS @ (runs - NODE_WEIGHTS @ runs) ** 2)


class _Warped(NamedTuple):
    """A metric in logarithms, standardised, and how that changes with the logarithm of the gap."""

    y: Floats  # (n,)
    slope: Floats  # (n,)
    log_density: float  # of the map from the metric to y
    density_slope: float


def gap_unit(metric: Floats) -> float:
    """What gaps between the floor and the lowest run are measured in."""
    return float(metric.std())


def warped(metric: Floats, log_gap: float) -> _Warped:
    """The standardised logarithm of a metric above its lowest value less a gap."""
    gap = gap_unit(metric) * np.exp(log_gap)
    above = metric - metric.min() + gap
    z, dz = np.log(above), gap / above
    std = z.std()
    y = (z - z.mean()) / std
    dz_centred = dz - dz.mean()
    dstd = float(np.mean(y * dz_centred))
    return _Warped(
        y,
        (dz_centred - y * dstd) / std,
        float(-z.sum() - len(z) * np.log(std)),
        float(-dz.sum() - len(z) * dstd / std),
    )


def learned_floor(x: Floats, metric: Floats) -> tuple[Floor, Hyperparameters]:
    """The most probable floor, and the hyperparameters, under constant noise, of the logarithms above it.

    Args:
        x: float64, (n, K), standardised features.
        metric: float64, (n,), not all equal.
    """
    k = x.shape[1]
    start = np.append(prior(k, 0)[0], GAP_MEDIAN)
    theta = minimised(FlooredPosterior(x, metric), start, k, LOG_GAPS)
    value = float(metric.min() - gap_unit(metric) * np.exp(theta[-1]))
    floor = Floor(value, float(np.log(metric.max() - value)))
    return floor, Hyperparameters.unpack(theta[:-1], k)


class FlooredPosterior(Posterior):
    """`Posterior` with the log gap as the last parameter, and the metric's density, not its logarithm's."""

    def __init__(self, x: Floats, metric: Floats) -> None:
        super().__init__(x, metric, np.zeros((len(metric), 0)))
        self._metric = metric

    def _evaluate(self, theta: Floats) -> tuple[float, Floats]:
        at = warped(self._metric, float(theta[-1]))
        self.y = at.y
        value, gradient = super()._evaluate(theta[:-1])
        deviation = (theta[-1] - GAP_MEDIAN) / GAP_STD
        slope = self.alpha @ at.slope - at.density_slope + deviation / GAP_STD
        return value - at.log_density + deviation**2 / 2, np.append(gradient, slope)

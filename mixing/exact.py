"""The best mixture of a surface that is known, such as an n-gram proxy's: no runs, and so no uncertainty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from .design import project_to_capped_simplex
from .objective import MEAN, Objective
from .region import Region, descend

Floats = NDArray[np.float64]
Surface = Callable[[Floats], Floats]  # mixtures (M, K) -> metrics (M, J)


@dataclass(frozen=True, eq=False)
class ExactOptimum:
    """Where a surface is least, and what it is there.

    Attributes:
        weights: float64, (K,), inside caps and trust region.
        natural, uniform: float64, (K,), within the caps.
        objective: at "optimum", "natural" and "uniform".
        metrics: float64, (J,), at each of them.
    """

    weights: Floats
    natural: Floats
    uniform: Floats
    objective: dict[str, float]
    metrics: dict[str, Floats]

    @property
    def gain(self) -> float:
        """Objective at the natural mixture minus that at the optimum, at least 0."""
        return self.objective["natural"] - self.objective["optimum"]


def exact_optimum(
    surface: Surface,
    metric_names: tuple[str, ...],
    natural: ArrayLike,
    objective: Objective = MEAN,
    caps: ArrayLike | None = None,
    trust_region: float = 0.5,
) -> ExactOptimum:
    """The mixture of the least objective, by SLSQP from the natural and from the uniform mixture.

    The optimum is the surface's: how close that is to a trained model's is for proxies to show.

    Args:
        surface: metrics of mixtures, smooth.
        metric_names: J names, in the order of the surface's columns.
        natural: (K,), the centre of the trust region once it is projected into the caps.
        objective: lower is better.
        caps: (K,), the largest weights; None for no caps.
        trust_region: largest KL(w || natural), nats.
    Returns:
        Weights that obey the caps to 1e-9.
    Raises:
        ValueError: shapes differ, the radius is not positive, or the caps sum to less than one.

    >>> surface = lambda w: -np.log(w + 0.01) @ np.array([[0.75], [0.25]])
    >>> exact_optimum(surface, ("loss",), [0.5, 0.5]).weights.round(2)
    array([0.75, 0.25])
    """
    region = Region.around(natural, caps, trust_region)
    uniform = project_to_capped_simplex(np.ones(len(region.centre)), region.upper)

    def loss(weights: Floats) -> Floats:
        return objective(surface(weights), metric_names)

    with threadpool_limits(1):  # steps on a few rows each
        starts = [region.centre, region.pull(uniform)]
        found = [region.pull(descend(loss, region, start)) for start in starts]
        found += [region.without_small(w) for w in found]
        candidates = np.stack([*starts, *found])
        best = candidates[np.argmin(loss(candidates))]
        metrics = surface(np.stack([best, region.centre, uniform]))
    names = ("optimum", "natural", "uniform")
    values = objective.finite(metrics, metric_names).tolist()
    return ExactOptimum(
        best,
        region.centre,
        uniform,
        dict(zip(names, values, strict=True)),
        dict(zip(names, metrics, strict=True)),
    )

"""Where a mixture may lie (caps, trust region, exact zeros), and a descent that stays there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize

from .design import MIN_WEIGHT, kl_divergence, project_to_capped_simplex

Floats = NDArray[np.float64]
Loss = Callable[[Floats], Floats]  # mixtures (M, K) -> one number for each, (M,)

STEP = 1e-4  # of the finite differences, towards each domain
LOWEST_WEIGHT = 1e-6  # keeps sqrt(w) and w log w differentiable


@dataclass(frozen=True, eq=False)
class Region:
    """Mixtures below the caps and within `radius` nats of the centre: a convex set."""

    centre: Floats
    upper: Floats
    radius: float

    def pull(self, w: Floats) -> Floats:
        """w projected into the caps, then moved towards the centre until it is inside the radius."""
        usable = np.where(self.centre > 0, w, 0.0)
        target = project_to_capped_simplex(usable if usable.any() else self.centre, self.upper)
        low, high = 0.0, 1.0
        if kl_divergence(target, self.centre) <= self.radius:
            return target
        for _ in range(50):
            middle = (low + high) / 2
            inside = kl_divergence(self.centre + middle * (target - self.centre), self.centre) <= self.radius
            low, high = (middle, high) if inside else (low, middle)
        return self.centre + low * (target - self.centre)

    def pull_all(self, weights: Floats) -> Floats:
        """`pull` of each row of weights (M, K)."""
        used = self.centre > 0
        usable = np.where(used, weights, 0.0)
        usable[usable.sum(axis=1) == 0] = self.centre
        targets: Floats = usable / usable.sum(axis=1, keepdims=True)
        above = (targets > self.upper).any(axis=1)
        if above.any():
            targets[above] = [project_to_capped_simplex(w, self.upper) for w in usable[above]]
        log_centre = np.log(np.where(used, self.centre, 1.0))

        def inside(w: Floats) -> NDArray[np.bool_]:
            unused = np.any((w > 0) & ~used, axis=1)
            divergence = np.sum(w * (np.log(np.maximum(w, 1e-300)) - log_centre), axis=1)
            return np.asarray((divergence <= self.radius) & ~unused)

        low, high = np.zeros((len(targets), 1)), np.ones((len(targets), 1))
        for _ in range(50):
            middle = (low + high) / 2
            fits = inside(self.centre + middle * (targets - self.centre))[:, None]
            low, high = np.where(fits, middle, low), np.where(fits, high, middle)
        return np.where(inside(targets)[:, None], targets, self.centre + low * (targets - self.centre))

    def holds(self, w: Floats) -> bool:
        """Whether w obeys the caps and lies within the radius, to 1e-6."""
        return bool(np.all(w <= self.upper + 1e-6)) and kl_divergence(w, self.centre) <= self.radius + 1e-6

    def without_small(self, w: Floats) -> Floats:
        """w with its weights below MIN_WEIGHT at exactly zero, pulled back into the region."""
        return self.pull(np.where(w < MIN_WEIGHT, 0.0, w))

    @classmethod
    def around(cls, natural: ArrayLike, caps: ArrayLike | None, trust_region: float) -> Region:
        """The mixtures around the natural one, which is projected into the caps first.

        Args:
            natural: (K,), the centre.
            caps: (K,), the largest weights; None for no caps.
            trust_region: largest KL(w || centre), nats.
        Raises:
            ValueError: shapes differ, the radius is not positive, or the caps sum to less than one.
        """
        centre = np.asarray(natural, dtype=np.float64)
        upper = np.ones(len(centre)) if caps is None else np.asarray(caps, dtype=np.float64)
        if trust_region <= 0:
            raise ValueError(f"trust_region is {trust_region}; give a radius above 0 nats.")
        return cls(project_to_capped_simplex(centre, upper), upper, trust_region)


def descend(
    loss: Loss,
    region: Region,
    start: Floats,
    gradient: Callable[[Floats], Floats] | None = None,
    max_steps: int = 60,
    tolerance: float = 1e-6,
) -> Floats:
    """SLSQP with derivatives towards each domain: those along e_k - w differ from the gradient by a constant,
    which the constraint on the sum makes immaterial, and every mixture evaluated stays on the simplex.

    Args:
        gradient: of the loss at one mixture, (K,) -> (K,); by default it is taken from differences.
        tolerance: of the loss; a step that gains less is the last.
    """
    corners = np.eye(len(start))

    def mixture(w: Floats) -> Floats:
        return np.asarray(np.maximum(w, 0.0) / np.maximum(w, 0.0).sum())

    def value(w: Floats) -> float:
        return float(loss(mixture(w)[None])[0])

    def slope(w: Floats) -> Floats:
        """Asked for once a step, `value` three times and more: K mixtures each time would be dear."""
        w = mixture(w)
        if gradient is not None:
            return gradient(w)
        values = loss(np.vstack([w, w + STEP * (corners - w)]))
        return np.asarray((values[1:] - values[0]) / STEP)

    used = region.centre > 0
    low = np.where(used, np.minimum(LOWEST_WEIGHT, region.upper), 0.0)
    high = np.where(used, region.upper, 0.0)
    safe_centre = np.where(used, region.centre, 1.0)

    def log_ratio(w: Floats) -> Floats:
        return np.where(used, np.log(np.maximum(w, 1e-12) / safe_centre), 0.0)

    constraints = [
        {"type": "eq", "fun": lambda w: w.sum() - 1.0, "jac": np.ones_like},
        {
            "type": "ineq",
            "fun": lambda w: region.radius - w @ log_ratio(w),
            "jac": lambda w: -log_ratio(w) - 1.0,
        },
    ]
    result = minimize(
        value,
        np.clip(start, low, high),
        jac=slope,
        method="SLSQP",
        bounds=list(zip(low, high, strict=True)),
        constraints=constraints,
        options={"maxiter": max_steps, "ftol": tolerance},
    )
    return np.asarray(np.nan_to_num(np.clip(result.x, low, high)))

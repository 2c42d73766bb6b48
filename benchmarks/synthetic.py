"""Mixture surfaces of known optimum, with interactions, useless domains, fidelities and uneven noise."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cuvee.mixing.region import Region, descend

Floats = NDArray[np.float64]

N_METRICS = 3
TRUST_REGION = 1.5
NOISE = 0.01  # of a run at the natural mixture; up to e^1.5 times that near a single domain


@dataclass(frozen=True)
class SyntheticSurface:
    """Three losses of mixtures over K domains, at fidelities from 0 (cheapest) to the target.

    loss_j(w) = c_j + s_j (sum_k g_jk w_k + sum_kl b_jkl sqrt(w_k w_l))^-alpha_j: effective data with pairs of
    domains that help each other. Two fifths of the domains help (g from .2 to 1), the others hardly (.02).
    Below the target, s_j grows by a factor of its own, and g and b are mixed with those of another surface.
    The noise of a run grows with the distance from the natural mixture, as Marin measured.

    Attributes:
        n_domains, seed: of the surface.
        n_fidelities: how many.
        mismatch: share of the other surface in the cheapest fidelity.
    """

    n_domains: int
    seed: int
    n_fidelities: int = 1
    mismatch: float = 0.3

    @cached_property
    def _parts(self) -> dict[str, Floats]:
        rng, k = np.random.default_rng([self.seed, self.n_domains]), self.n_domains
        natural = rng.dirichlet(np.full(k, 2.0))

        def worth() -> tuple[Floats, Floats]:
            helps = rng.random((N_METRICS, k)) < 0.4
            helps[np.arange(N_METRICS), rng.integers(k, size=N_METRICS)] = True
            g = np.where(helps, rng.uniform(0.2, 1.0, (N_METRICS, k)), 0.02)
            pairs = np.triu(rng.random((N_METRICS, k, k)) < 2.0 / k, 1)
            b = 0.5 * pairs * rng.uniform(0.2, 1.0, pairs.shape)
            return g, b + b.transpose(0, 2, 1)

        (g, b), (g_other, b_other) = worth(), worth()
        return {
            "natural": natural,
            "g": g,
            "b": b,
            "g_other": g_other,
            "b_other": b_other,
            "alpha": rng.uniform(0.2, 0.6, N_METRICS),
            "growth": rng.uniform(1.0, 2.5, N_METRICS),  # of the spread, from the target to the cheapest
            "level": rng.uniform(1.5, 2.5, N_METRICS),
        }

    @property
    def natural(self) -> Floats:
        """The mixture to beat."""
        return self._parts["natural"]

    @cached_property
    def region(self) -> Region:
        """All mixtures within the trust region of the natural one."""
        return Region.around(self.natural, None, TRUST_REGION)

    def expected(self, weights: Floats, fidelity: int | None = None) -> Floats:
        """Losses without noise, (M, 3), by default at the target."""
        p, w, roots = self._parts, np.atleast_2d(weights), np.sqrt(np.atleast_2d(weights))
        last = self.n_fidelities - 1
        below = 0.0 if last == 0 or fidelity is None else (last - fidelity) / last
        share = self.mismatch * below
        g = (1 - share) * p["g"] + share * p["g_other"]
        b = (1 - share) * p["b"] + share * p["b_other"]
        effective = w @ g.T + np.einsum("mk,jkl,ml->mj", roots, b, roots) / 2 + 0.02
        spread = 0.5 * p["growth"] ** below
        return np.asarray(p["level"] + below + spread * effective ** -p["alpha"])

    def run(self, weights: Floats, fidelity: int | None, seed: int) -> Floats:
        """Losses of one run, (3,)."""
        rng = np.random.default_rng([self.seed, seed, fidelity or 0])
        distance = np.sum(weights * np.log(np.maximum(weights, 1e-12) / self.natural))
        std = NOISE * np.exp(min(1.5, distance))
        return np.asarray(self.expected(weights, fidelity)[0] + std * rng.standard_normal(N_METRICS))

    def objective(self, weights: Floats) -> Floats:
        """The mean loss at the target, (M,)."""
        return np.asarray(self.expected(weights).mean(axis=1))

    @cached_property
    def optimum(self) -> Floats:
        """Of the objective inside the region: the best of 20 descents from random mixtures."""
        rng = np.random.default_rng(0)
        starts = rng.dirichlet(np.ones(self.n_domains), 18)
        ends = [
            self.region.pull(descend(self.objective, self.region, self.region.pull(start)))
            for start in (self.natural, np.full(self.n_domains, 1 / self.n_domains), *starts)
        ]
        return ends[int(np.argmin(self.objective(np.stack(ends))))]

    def regret(self, weights: Floats) -> float:
        """Share of the possible gain over the natural mixture that is missed; above 1: worse than natural."""
        best, natural = (float(self.objective(w)[0]) for w in (self.optimum, self.natural))
        return (float(self.objective(weights)[0]) - best) / (natural - best)

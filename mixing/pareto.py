"""Mixtures between which several objectives trade off, with the probability that each is on the front."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from .design import sample_candidates
from .mixer import Mixer
from .objective import Objective
from .region import Region, descend

Floats = NDArray[np.float64]

N_DRAWS = 256
N_SEARCHES = 24  # weightings of the objectives, each with its optimum
N_RANDOM = 200  # mixtures beside the optima: what they dominate, and what dominates them
DRAWS_AT_ONCE = 32  # dominance compares all pairs of mixtures in each draw: memory


@dataclass(frozen=True, eq=False)
class ParetoSet:
    """Mixtures that no other candidate is expected to beat in every objective, and how sure that is.

    Attributes:
        weights: float64, (P, K), along the first objective.
        objective_names: of the columns below.
        mean, std: float64, (P, n_objectives), of the expected objectives over posterior draws.
        probability: float64, (P,), share of the joint draws in which no candidate beats the mixture in all
            objectives.
        natural: float64, (n_objectives,), the natural mixture's means.
        natural_probability: the natural mixture's share: low where mixing pays.
    """

    weights: Floats
    objective_names: tuple[str, ...]
    mean: Floats
    std: Floats
    probability: Floats
    natural: Floats
    natural_probability: float


def pareto_set(
    mixer: Mixer,
    objectives: Mapping[str, Objective],
    natural: ArrayLike,
    caps: ArrayLike | None = None,
    trust_region: float = 0.5,
    seed: int = 0,
) -> ParetoSet:
    """The front of two or more objectives inside caps and trust region.

    Candidates are the natural mixture, random ones, and the optima of 24 weightings of the objectives
    (standardised over the random ones), by the posterior mean. All are judged on the same joint posterior
    draws: objectives that rise and fall together, and mixtures that are alike, stay so in each draw. The
    front holds the candidates that none beats in every posterior mean.

    Args:
        mixer: fitted.
        objectives: by name; lower is better.
        natural, caps, trust_region: as in `recommend`.
        seed: of candidates and draws.
    Raises:
        ValueError: fewer than two objectives, or one that is not finite somewhere; what `Region.around`
            raises.

    Cost: 256 draws of about 225 mixtures, and the comparison of all their pairs in each.
    """
    if len(objectives) < 2:
        raise ValueError(f"found {len(objectives)} objectives; a front needs two or more to trade off.")
    runs = mixer.runs
    region = Region.around(natural, caps, trust_region)
    surfaces = mixer.draw_surfaces(N_DRAWS, seed)

    def drawn(weights: Floats) -> Floats:
        """float64, (n_draws, M, n_objectives)."""
        metrics = surfaces(weights)
        return np.stack([o.finite(metrics, runs.metric_names) for o in objectives.values()], axis=2)

    with threadpool_limits(1):
        random = [region.pull(w) for w in sample_candidates(region.centre, N_RANDOM, seed, region.upper)]
        drawn(np.stack(random))  # refuses an objective before it is followed
        candidates = np.stack([region.centre, *random, *_optima(mixer, objectives, region, random, seed)])
        _, first = np.unique(
            candidates.round(4), axis=0, return_index=True
        )  # many optima are the same corner
        candidates = candidates[np.sort(first)]
        values = drawn(candidates)
    mean, std = values.mean(axis=0), values.std(axis=0)
    probability = nondominated_share(values)
    front = np.flatnonzero(nondominated(mean))
    front = front[np.argsort(mean[front, 0], kind="stable")]
    return ParetoSet(
        candidates[front],
        tuple(objectives),
        mean[front],
        std[front],
        probability[front],
        mean[0],
        float(probability[0]),
    )


def nondominated(values: Floats) -> NDArray[np.bool_]:
    """Which rows of (n, n_objectives) no other beats by being at most as large everywhere and smaller once.

    >>> nondominated(np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0], [1.0, 2.0]]))
    array([ True,  True, False,  True])
    """
    at_most = np.all(values[:, None] <= values[None], axis=2)  # row i at most row j everywhere
    smaller = np.any(values[:, None] < values[None], axis=2)
    return np.asarray(~np.any(at_most & smaller, axis=0))


def nondominated_share(draws: Floats) -> Floats:
    """Share of the draws, (n_draws, n, n_objectives), in which each of n candidates is nondominated: (n,)."""
    n_draws, n, _ = draws.shape
    count = np.zeros(n)
    for start in range(0, n_draws, DRAWS_AT_ONCE):
        part = draws[start : start + DRAWS_AT_ONCE]
        at_most = np.ones((len(part), n, n), dtype=bool)
        smaller = np.zeros_like(at_most)
        for column in np.moveaxis(part, 2, 0):
            at_most &= column[:, :, None] <= column[:, None, :]
            smaller |= column[:, :, None] < column[:, None, :]
        count += (~np.any(at_most & smaller, axis=1)).sum(axis=0)
    return np.asarray(count / n_draws)


def _optima(
    mixer: Mixer, objectives: Mapping[str, Objective], region: Region, random: list[Floats], seed: int
) -> list[Floats]:
    """The optimum of the posterior mean for each weighting; without a gradient, the best random mixture."""
    names = mixer.runs.metric_names

    def means(weights: Floats) -> Floats:
        metrics = mixer.predict(weights).mean
        return np.stack([objective(metrics, names) for objective in objectives.values()], axis=1)

    tried = np.stack(random)
    at_random = means(tried)
    centre, scale = at_random.mean(axis=0), at_random.std(axis=0) + 1e-12
    n = len(objectives)
    weightings = np.vstack([np.eye(n), np.random.default_rng(seed).dirichlet(np.ones(n), N_SEARCHES - n)])
    found = []
    for weighting in weightings:

        def loss(weights: Floats, weighting: Floats = weighting) -> Floats:
            return np.asarray((means(weights) - centre) / scale @ weighting)

        best = tried[np.argmin(loss(tried))]
        found.append(region.without_small(descend(loss, region, best)) if mixer.is_smooth else best)
    return found

"""Which mixtures to run next, beside those that still run: noisy expected improvement, Thompson, greed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from .design import MIN_DISTANCE, MIN_WEIGHT, STRENGTHS
from .objective import MEAN, Objective
from .region import Loss, Region, descend

if TYPE_CHECKING:
    from .mixer import Mixer

Floats = NDArray[np.float64]
Gradient = Callable[[Floats], Floats]  # of a loss at one mixture, (K,) -> (K,)
Acquisition = Literal["noisy_ei", "mean", "thompson", "botorch"]
ACQUISITIONS: tuple[Acquisition, ...] = ("noisy_ei", "mean", "thompson", "botorch")

N_DRAWS = 64  # joint draws behind noisy expected improvement
N_CANDIDATES = 256
N_STARTS = 1  # of the descent, from the best candidates
MAX_STEPS, TOLERANCE = 25, 1e-3  # of the descent: an acquisition is no surface to polish
N_REDRAWS = 8  # of a Thompson draw whose optimum is pending already
SMOOTHING = 0.02  # of the improvement, in the objective's spread over the candidates


class Proposing:
    """Gives every mixer `propose`."""

    def propose(
        self,
        n: int,
        pending: ArrayLike | None = None,
        *,
        natural: ArrayLike | None = None,
        objective: Objective = MEAN,
        caps: ArrayLike | None = None,
        trust_region: float = 0.5,
        acquisition: Acquisition = "noisy_ei",
        seed: int = 0,
    ) -> Floats:
        """n mixtures to run next, given those that run now; see `proposals.propose`.

        Args:
            pending: (n_pending, K), mixtures whose results are awaited.
            natural: centre of the trust region; by default the runs' mean mixture.
        """
        mixer = cast("Mixer", self)
        centre = mixer.runs.weights.mean(axis=0) if natural is None else natural
        region = Region.around(centre, caps, trust_region)
        awaited = np.zeros((0, len(region.centre))) if pending is None else np.atleast_2d(pending)
        return propose(mixer, n, region, objective, awaited, acquisition, seed)


def propose(
    mixer: Mixer,
    n: int,
    region: Region,
    objective: Objective = MEAN,
    pending: ArrayLike = (),
    acquisition: Acquisition = "noisy_ei",
    seed: int = 0,
    among: ArrayLike | None = None,
) -> Floats:
    """n mixtures to run next, one after another, each with those before it among the pending.

    *noisy_ei*: with f_s one of 64 joint posterior draws of the objective and b_s its least value over the
    mixtures run, pending or just proposed, maximise mean_s max(b_s - f_s(w), 0). What is pending improves on
    nothing twice, so batches spread, and a lucky noisy run is no incumbent.
    *thompson*: minimise one draw for each proposal.
    *mean*: minimise the posterior mean of the objective: greed, which explores nothing.
    *botorch*: BoTorch's qLogNoisyExpectedImprovement on our hyperparameters (Gaussian processes alone).

    The optimum is descended to from the best of 256 random mixtures, the best run and the natural mixture;
    weights below 2e-4 become zero. A proposal is at least .01 (Euclidean) away from all pending ones while
    the region has room.

    Args:
        mixer: fitted.
        region: what is allowed: caps and trust region.
        pending: (n_pending, K).
        seed: with the runs and the pending mixtures, all that the proposals depend on.
        among: (M, K), the only mixtures that may be proposed; None for any in the region.
    Returns:
        float64, (n, K), inside the region to 1e-9.
    Raises:
        ValueError: an unknown acquisition, pending mixtures of another width, or no gradient for "botorch".

    Source: q-noisy expected improvement, Letham et al. 2019, and its logarithm, Ament et al. 2023, by
        sequential conditioning; asynchronous Thompson sampling, Kandasamy et al. 2018. Here b_s is over draws
        of the same surfaces, so any mixer will do.
    """
    if acquisition not in ACQUISITIONS:
        raise ValueError(f"unknown acquisition '{acquisition}'; it is one of {', '.join(ACQUISITIONS)}.")
    k = len(mixer.runs.domain_names)
    awaited = np.asarray(pending, dtype=np.float64).reshape(-1, k) if np.size(pending) else np.zeros((0, k))
    allowed = None if among is None else np.asarray(among, dtype=np.float64).reshape(-1, k)
    chosen: list[Floats] = []
    with threadpool_limits(1):
        for _ in range(n):
            taken = np.vstack([awaited, *chosen])
            entropy = np.random.SeedSequence([seed, len(taken), mixer.runs.n_runs])
            seeds = [int(state) for state in entropy.generate_state(N_REDRAWS)]
            chosen.append(_next(mixer, region, objective, taken, acquisition, seeds, allowed))
    return np.stack(chosen) if chosen else np.zeros((0, k))


def _next(
    mixer: Mixer,
    region: Region,
    objective: Objective,
    taken: Floats,
    acquisition: Acquisition,
    seeds: Sequence[int],
    among: Floats | None,
) -> Floats:
    candidates = _candidates(mixer, region, objective, seeds[0]) if among is None else among
    smooth = mixer.is_smooth and among is None
    if acquisition == "botorch":
        from .botorch_models import noisy_expected_improvement

        loss, gradient = noisy_expected_improvement(mixer, region, objective, taken, seeds[0])
        return _optimum(loss, region, candidates, taken, smooth, gradient)
    if acquisition == "mean":
        loss = _expected(mixer, objective, seeds[0])
        return _optimum(loss, region, candidates, taken, smooth)
    if acquisition == "noisy_ei":
        loss = _noisy_improvement(mixer, region, objective, taken, candidates, seeds[0])
        return _optimum(loss, region, candidates, taken, smooth)
    for seed in seeds:
        found = _optimum(_draw(mixer, objective, seed), region, candidates, None, smooth)
        if _distance(found[None], taken)[0] >= MIN_DISTANCE:
            return found
    return _optimum(_draw(mixer, objective, seeds[0]), region, candidates, taken, smooth)


def _candidates(mixer: Mixer, region: Region, objective: Objective, seed: int) -> Floats:
    """Random mixtures, others around the best run, the best run and the natural one, all in the region."""
    runs, rng = mixer.runs, np.random.default_rng(seed)
    best = runs.weights[np.argsort(objective(runs.metrics, runs.metric_names), kind="stable")[:4]]
    tempered = np.sqrt(region.centre) / np.sqrt(region.centre).sum()
    low, high = np.log(STRENGTHS)
    strengths = np.exp(rng.uniform(low, high, N_CANDIDATES - N_CANDIDATES // 4))
    wide = [rng.dirichlet(np.maximum(strength * tempered, 1e-9)) for strength in strengths]
    near = [rng.dirichlet(np.maximum(50.0 * best[i % len(best)], 1e-2)) for i in range(N_CANDIDATES // 4)]
    drawn = np.vstack([best, region.centre[None], *wide, *near])
    return region.pull_all(np.where(drawn < MIN_WEIGHT, 0.0, drawn))


def _noisy_improvement(
    mixer: Mixer, region: Region, objective: Objective, taken: Floats, candidates: Floats, seed: int
) -> Loss:
    """Minus the logarithm of noisy expected improvement, its kink rounded off so that descent has a slope."""
    surfaces, names = mixer.draw_surfaces(N_DRAWS, seed), mixer.runs.metric_names
    seen = region.pull_all(np.unique(mixer.runs.weights, axis=0))
    reference = objective(surfaces(np.vstack([seen, region.centre[None], taken])), names).min(axis=1)
    width = SMOOTHING * float(np.std(objective(surfaces(candidates), names).mean(axis=0))) + 1e-12

    def loss(weights: Floats) -> Floats:
        improvement = (reference[:, None] - objective(surfaces(weights), names)) / width  # (n_draws, M)
        softened = np.logaddexp(0.0, improvement)
        # log softplus(t) is t far below zero, where softplus underflows.
        logs = np.where(improvement < -30, improvement, np.log(np.maximum(softened, 1e-300)))
        top = logs.max(axis=0)
        return np.asarray(-top - np.log(np.exp(logs - top).sum(axis=0)))

    return loss


def _expected(mixer: Mixer, objective: Objective, seed: int) -> Loss:
    """The objective's mean over draws."""
    surfaces, names = mixer.draw_surfaces(N_DRAWS, seed), mixer.runs.metric_names
    return lambda weights: np.asarray(objective(surfaces(weights), names).mean(axis=0))


def _draw(mixer: Mixer, objective: Objective, seed: int) -> Loss:
    surfaces, names = mixer.draw_surfaces(1, seed), mixer.runs.metric_names
    return lambda weights: np.asarray(objective(surfaces(weights), names)[0])


def _optimum(
    loss: Loss,
    region: Region,
    candidates: Floats,
    taken: Floats | None,
    smooth: bool,
    gradient: Gradient | None = None,
) -> Floats:
    """The best of the candidates and, from the best of them, of a descent; away from what is taken."""
    values = loss(candidates)
    order = np.argsort(values, kind="stable")
    if smooth:
        starts = candidates[order[:N_STARTS]]
        ends = [descend(loss, region, start, gradient, MAX_STEPS, TOLERANCE) for start in starts]
        ends = [w for end in ends for w in (region.without_small(end), region.pull(end))]
        candidates = np.vstack([candidates, *ends])
        values = loss(candidates)
        order = np.argsort(values, kind="stable")
    if taken is not None:
        free = order[_distance(candidates[order], taken) >= MIN_DISTANCE]
        order = free if len(free) else order
    return np.asarray(candidates[order[0]])


def _distance(weights: Floats, taken: Floats) -> Floats:
    """Of each mixture to the nearest one taken; infinite without any."""
    if not len(taken):
        return np.full(len(weights), np.inf)
    return np.asarray(np.linalg.norm(weights[:, None, :] - taken[None], axis=2).min(axis=1))


def expected_improvement(
    mixer: Mixer, objective: Objective, beaten: Floats, candidates: Floats, seed: int
) -> Floats:
    """Of each candidate (M, K) over the best of the mixtures `beaten` (n, K), over joint draws: (M,)."""
    surfaces, names = mixer.draw_surfaces(N_DRAWS, seed), mixer.runs.metric_names
    values = objective(surfaces(np.vstack([beaten, candidates])), names)
    reference = values[:, : len(beaten)].min(axis=1, keepdims=True)
    return np.asarray(np.maximum(reference - values[:, len(beaten) :], 0.0).mean(axis=0))

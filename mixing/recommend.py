"""From a fitted mixer to one mixture, what it should gain, and whether that has been shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

from .design import project_to_capped_simplex, sample_candidates
from .mixer import Mixer
from .objective import MEAN, Objective
from .region import Loss, Region, descend
from .table import RunTable

Floats = NDArray[np.float64]
Verdict = Literal["supported", "no improvement", "no evidence"]
Origin = Literal["optimum", "observed", "natural"]

MAX_P_VALUE = 0.05
N_DRAWS = 256  # posterior draws inside the optimiser
N_FRESH_DRAWS = 4096  # other draws, to judge the optimum that was found with the first
N_PERMUTATIONS = 9999
N_SAMPLES, N_AVERAGED = 1024, 16  # for mixers without a gradient


@dataclass(frozen=True)
class Estimate:
    """Posterior mean and standard deviation of the expected objective."""

    mean: float
    std: float


@dataclass(frozen=True)
class Evidence:
    """How well each run's objective is predicted from the other runs.

    Attributes:
        n_runs: how many there are.
        rank_correlation: Spearman's, of predicted and observed objectives.
        p_value: of the rank correlation; one-sided, from permutations.
        error: root mean square of predicted minus observed, in the objective's unit.

    The correlation of leave-one-out predictions with pure noise
    leans to the negative side, so the test is conservative.
    """

    n_runs: int
    rank_correlation: float
    p_value: float
    error: float


@dataclass(frozen=True)
class Recommendation:
    """A mixture, and how much to believe in it.

    Attributes:
        weights: by domain; the candidate where the verdict is "supported", else the natural mixture.
        candidate: the pessimistic optimum, by domain: worth a race against natural, whatever the verdict.
        origin: where the candidate comes from: "optimum", "observed" (the best run), or "natural".
        predicted: objective at "recommended", "candidate", "natural" and "uniform".
        gain, gain_interval: natural minus candidate as far as it is shown (see `recommend`): mean, central 90
            %.
        evidence: from leaving one run out.
        verdict, sentence: for a program, for a person.
    """

    weights: dict[str, float]
    candidate: dict[str, float]
    origin: Origin
    predicted: dict[str, Estimate]
    gain: float
    gain_interval: tuple[float, float]
    evidence: Evidence
    verdict: Verdict
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, floats to nine decimals, so that equal results are equal bytes."""
        rounded: dict[str, Any] = _rounded(asdict(self))
        return rounded


def recommend(
    mixer: Mixer,
    natural: ArrayLike,
    objective: Objective = MEAN,
    caps: ArrayLike | None = None,
    trust_region: float = 0.5,
    seed: int = 0,
    among: ArrayLike | None = None,
) -> Recommendation:
    """The mixture that most surely beats the natural one, inside caps and trust region, or the natural one.

    With d(w) = objective(w) - objective(natural) in each of 256 posterior draws, the candidate minimises
    mean d + 1 sd d (pessimistic). Draws hold the correlation between metrics and between mixtures: what is
    unknown but common to w and natural cancels. It is found by SLSQP from the natural, the uniform and the
    best observed mixture; for a mixer without a gradient, among random mixtures. The natural mixture and the
    best observed one are candidates themselves: where no other is surely better, one of them it is.

    It is recommended only if what the runs show supports it. First, leave-one-out predictions must rank the
    runs better than chance (p <= 0.05). Second, the gain's central 90 % interval must lie above zero. Mixers
    are wrong where they extrapolate, in ways their posterior does not know; so the gain is taken from fresh
    draws, credited only down to the best objective that a run has had, and spread by the leave-one-out error.

    Args:
        mixer: fitted; K domains.
        natural: (K,), the mixture to beat. Projected into the caps, it is the centre of the trust region.
        objective: lower is better.
        caps: (K,), the largest weights; None for no caps.
        trust_region: largest KL(w || natural), nats.
        seed: of draws and permutations.
        among: (M, K), the only mixtures that may be found, or natural; None for any inside the region.
    Returns:
        A recommendation; its weights obey the caps to 1e-9.
    Raises:
        ValueError: shapes differ, the caps sum to less than one, or the objective is not finite somewhere.
    """
    runs = mixer.runs
    centre, upper = np.asarray(natural, dtype=np.float64), np.ones(len(runs.domain_names))
    upper = upper if caps is None else np.asarray(caps, dtype=np.float64)
    if centre.shape != (len(runs.domain_names),) or trust_region <= 0:
        raise ValueError(
            f"natural has shape {centre.shape} for the {len(runs.domain_names)} domains of the runs, "
            f"trust_region is {trust_region}; give one weight per domain and a radius above 0 nats."
        )
    region = Region(project_to_capped_simplex(centre, upper), upper, trust_region)
    uniform = project_to_capped_simplex(np.ones(len(upper)), upper)
    observed = region.pull(runs.weights[np.argmin(objective.finite(runs.metrics, runs.metric_names))])
    starts = {"natural": region.centre, "uniform": region.pull(uniform), "observed": observed}
    pessimistic = _pessimistic(mixer, objective, region.centre, seed)
    with threadpool_limits(1):  # steps on a few rows each: threads cost more than they give
        if among is not None:
            candidate, origin = _best_given(
                pessimistic, np.asarray(among, dtype=np.float64), region, runs, objective
            )
        elif mixer.is_smooth:
            candidate, origin = _pessimistic_optimum(pessimistic, region, starts)
        else:
            candidate, origin = _best_sample(pessimistic, region, starts, seed)
        points = {"candidate": candidate, "natural": region.centre, "uniform": uniform}
        return _report(mixer, objective, points, origin, seed)


def _report(
    mixer: Mixer, objective: Objective, points: dict[str, Floats], origin: Origin, seed: int
) -> Recommendation:
    """Judge the candidate against the natural mixture."""
    runs = mixer.runs
    losses = mixer.draw_surfaces(N_FRESH_DRAWS, seed + 1)(np.stack(list(points.values())))
    values = dict(zip(points, objective.finite(losses, runs.metric_names).T, strict=True))
    evidence = _evidence(mixer, objective, seed)
    shown = np.maximum(values["candidate"], objective(runs.metrics, runs.metric_names).min())
    error = evidence.error * np.random.default_rng(seed).standard_normal(N_FRESH_DRAWS)
    gains = values["natural"] - shown + error
    interval = (float(np.quantile(gains, 0.05)), float(np.quantile(gains, 0.95)))
    verdict, sentence = _judge(evidence, float(gains.mean()), interval)
    chosen = "candidate" if verdict == "supported" else "natural"
    values["recommended"] = values[chosen]
    return Recommendation(
        weights=dict(zip(runs.domain_names, points[chosen].tolist(), strict=True)),
        candidate=dict(zip(runs.domain_names, points["candidate"].tolist(), strict=True)),
        origin=origin,
        predicted={name: Estimate(float(v.mean()), float(v.std())) for name, v in sorted(values.items())},
        gain=float(gains.mean()),
        gain_interval=interval,
        evidence=evidence,
        verdict=verdict,
        sentence=sentence,
    )


def _pessimistic(mixer: Mixer, objective: Objective, natural: Floats, seed: int) -> Loss:
    """mean + 1 sd, over posterior draws, of the objective's difference from the natural mixture."""
    surfaces, names = mixer.draw_surfaces(N_DRAWS, seed), mixer.runs.metric_names
    baseline = objective(surfaces(natural[None]), names)  # (n_draws, 1)

    def pessimistic(weights: Floats) -> Floats:
        difference = objective(surfaces(weights), names) - baseline
        return np.asarray(difference.mean(axis=0) + np.sqrt(difference.var(axis=0) + 1e-16))

    return pessimistic


def _pessimistic_optimum(loss: Loss, region: Region, starts: Mapping[str, Floats]) -> tuple[Floats, Origin]:
    """The best of SLSQP's answers, the best observed mixture and the natural one."""
    optima = [region.pull(descend(loss, region, start)) for start in starts.values()]
    optima += [region.without_small(w) for w in optima]
    candidates = np.stack([region.centre, starts["observed"], *optima])
    best = int(np.argmin(loss(candidates)))
    return candidates[best], ("natural", "observed", "optimum")[min(best, 2)]


def _best_sample(
    loss: Loss, region: Region, starts: Mapping[str, Floats], seed: int
) -> tuple[Floats, Origin]:
    """The mean of the 16 best of 1024 random mixtures, the best observed mixture or the natural one.

    RegMix averages as well: single predictions of trees are ragged.
    """
    drawn = np.stack(
        [region.pull(w) for w in sample_candidates(region.centre, N_SAMPLES, seed, region.upper)]
    )
    best = drawn[np.argsort(loss(drawn), kind="stable")[:N_AVERAGED]]
    candidates = np.stack([region.centre, starts["observed"], region.pull(best.mean(axis=0))])
    winner = int(np.argmin(loss(candidates)))
    return candidates[winner], ("natural", "observed", "optimum")[winner]


def _best_given(
    loss: Loss, among: Floats, region: Region, runs: RunTable, objective: Objective
) -> tuple[Floats, Origin]:
    """The best of the mixtures given and the natural one; "observed" where it is the best run's."""
    candidates = np.vstack([region.centre, among])
    best = int(np.argmin(loss(candidates)))
    observed = runs.weights[np.argmin(objective(runs.metrics, runs.metric_names))]
    if best == 0:
        return candidates[0], "natural"
    return candidates[best], "observed" if np.array_equal(candidates[best], observed) else "optimum"


def _evidence(mixer: Mixer, objective: Objective, seed: int) -> Evidence:
    """Spearman correlation of left-out predictions with what was observed, and its permutation p-value."""
    names = mixer.runs.metric_names
    left_out = objective.finite(mixer.leave_one_out().mean, names)
    seen = objective(mixer.runs.metrics, names)
    error = float(np.sqrt(np.mean((left_out - seen) ** 2)))
    predicted, observed = _centred_ranks(left_out), _centred_ranks(seen)
    norm = float(np.sqrt((predicted @ predicted) * (observed @ observed)))
    if norm == 0:
        return Evidence(len(observed), 0.0, 1.0, error)
    shuffled = np.random.default_rng(seed).permuted(np.tile(observed, (N_PERMUTATIONS, 1)), axis=1)
    n_above = int(np.sum(shuffled @ predicted >= predicted @ observed - 1e-9))
    p_value = (1 + n_above) / (1 + N_PERMUTATIONS)
    return Evidence(len(observed), float(predicted @ observed) / norm, p_value, error)


def _centred_ranks(values: Floats) -> Floats:
    ranks = np.asarray(rankdata(values), dtype=np.float64)
    return np.asarray(ranks - ranks.mean())


def _judge(evidence: Evidence, gain: float, interval: tuple[float, float]) -> tuple[Verdict, str]:
    ranking = (
        f"over {evidence.n_runs} runs, predictions made without the run rank the objective at "
        f"{evidence.rank_correlation:.2f} (p = {evidence.p_value:.2g})"
    )
    gained = f"{gain:.4f} (90 %: {interval[0]:.4f} to {interval[1]:.4f})"
    if evidence.p_value > MAX_P_VALUE:
        advice = "which chance explains. Train more or longer proxies."
        return "no evidence", f"Keep the natural mixture: {ranking}, {advice}"
    if interval[0] <= 0:
        return (
            "no improvement",
            f"Keep the natural mixture: {ranking}, but the best mixture's gain is {gained}.",
        )
    return (
        "supported",
        f"Expected gain over the natural mixture {gained}; {ranking}. Race both before a long run.",
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_rounded(entry) for entry in value]
    return round(value, 9) + 0.0 if isinstance(value, float) else value  # + 0.0 turns -0.0 into 0.0

"""What a fitted mixer believes around one mixture: slices, interactions, and where two metrics trade off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from threadpoolctl import threadpool_limits

from .design import project_to_capped_simplex, sample_candidates
from .mixer import Mixer, error_correlation
from .objective import Objective
from .pareto import N_DRAWS as N_FRONT_DRAWS
from .pareto import N_RANDOM, pareto_set
from .region import Region

Floats = NDArray[np.float64]

N_DRAWS = 512
N_POINTS = 25  # of a slice
MAX_DOMAINS = 24  # those of the largest weights: the pairs of more would fill no readable figure
MAX_FRONT = 40
STEP = 0.05  # of an interaction: 5 % of the tokens become a domain's
INTERVAL = (0.05, 0.95)  # central 90 %, as in `recommend`
DECIMALS = 9


@dataclass(frozen=True)
class Band:
    """Means and central 90 % intervals of several numbers.

    Attributes:
        mean, low, high: of equal length.
    """

    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, draws: Floats) -> Self:
        """Of draws (n_draws, n)."""
        return cls(*map(_listed, (draws.mean(axis=0), *np.quantile(draws, INTERVAL, axis=0))))


@dataclass(frozen=True)
class Slice:
    """The objective less that of the centre, as one domain's weight changes and the others keep their ratios.

    Attributes:
        domain: whose weight changes.
        weights: of the domain, from the least that the other domains' caps allow to its own cap; one of them
            is the centre's.
        change: for each of the weights.
    """

    domain: str
    weights: tuple[float, ...]
    change: Band


@dataclass(frozen=True)
class Interactions:
    """Mixed second differences of the objective between domains.

    With the steps s_i = h (e_i - w), by which the share h of the tokens becomes domain i's, entry (i, j) is
    f(w + s_i + s_j) - f(w + s_i) - f(w + s_j) + f(w): what both steps together add to the sum of each alone.
    Below zero the domains help each other; on the diagonal, above zero, a domain's returns diminish.

    Attributes:
        domains: S of them, rows and columns.
        step: h.
        pairs: the upper triangle with the diagonal, row by row: S (S + 1) / 2 numbers.
    """

    domains: tuple[str, ...]
    step: float
    pairs: Band


@dataclass(frozen=True)
class Front:
    """The Pareto front of two metrics.

    Attributes:
        metrics: of the two columns below.
        correlation: of their predicted means over random mixtures of the region; below 0 they pull apart.
        weights: of each point, in the order of the runs' domains.
        mean, std: of each point's two metrics.
        probability: that no candidate beats the point in both.
        others: both metrics' means of mixtures by name.
        natural_probability: as `probability`, of the natural mixture.
    """

    metrics: tuple[str, str]
    correlation: float
    weights: tuple[tuple[float, ...], ...]
    mean: tuple[tuple[float, ...], ...]
    std: tuple[tuple[float, ...], ...]
    probability: tuple[float, ...]
    others: Mapping[str, tuple[float, ...]]
    natural_probability: float


@dataclass(frozen=True)
class Landscape:
    """What a mixer believes around a mixture, small enough for a report.

    Attributes:
        seed, n_draws: of the posterior draws that all means and intervals are taken from.
        domains: of all runs.
        centre: the mixture around which the mixer was asked.
        left_out: each run's objective, predicted from the other runs.
        slices: of the domains of the largest weights, 24 at most.
        interactions: of the same domains; None where there are fewer than three, whose mixtures have one
            freedom.
        front: None where it could not be found; see notes.
        notes: sentences on what is missing, and why.
    """

    seed: int
    n_draws: int
    domains: tuple[str, ...]
    centre: tuple[float, ...]
    left_out: Band
    slices: tuple[Slice, ...]
    interactions: Interactions | None
    front: Front | None
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, floats to nine decimals."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Self:
        """What `to_dict` gave, also after a way through JSON."""
        entry = {name: _tuples(value) for name, value in found.items()}
        entry["left_out"] = Band(**entry["left_out"])
        entry["slices"] = tuple(Slice(**{**s, "change": Band(**s["change"])}) for s in entry["slices"])
        if (pairs := entry["interactions"]) is not None:
            entry["interactions"] = Interactions(**{**pairs, "pairs": Band(**pairs["pairs"])})
        if entry["front"] is not None:
            entry["front"] = Front(**entry["front"])
        return cls(**entry)


def survey(
    mixer: Mixer,
    objective: Objective,
    centre: ArrayLike,
    natural: ArrayLike,
    caps: ArrayLike | None = None,
    trust_region: float = 0.5,
    seed: int = 0,
    others: Mapping[str, ArrayLike] | None = None,
) -> Landscape:
    """What the mixer believes around the mixture `centre`.

    Every number comes from joint posterior draws, of which differences are taken first: what is unknown but
    common to two mixtures cancels, so that a slice has no uncertainty at the centre.

    Args:
        mixer: fitted; K domains.
        objective: lower is better.
        centre: (K,), usually the recommended mixture.
        natural, caps, trust_region: as in `recommend`; of the front, and caps of the slices, too.
        seed: of draws and of the front's candidates.
        others: more mixtures to place beside the front, by name.

    Cost: 512 draws of 26 mixtures for each of at most 24 domains, and of at most 325 for their pairs; and
        that of `pareto_set`.
    """
    runs, middle = mixer.runs, np.asarray(centre, dtype=np.float64)
    upper = np.ones(len(middle)) if caps is None else np.asarray(caps, dtype=np.float64)
    surfaces = mixer.draw_surfaces(N_DRAWS, seed)
    region = Region.around(natural, caps, trust_region)
    largest = np.argsort(-np.maximum(middle, region.centre), kind="stable")[:MAX_DOMAINS]
    shown = np.sort(largest)
    names = tuple(runs.domain_names[k] for k in shown)

    def objectives(weights: Floats) -> Floats:
        return objective(surfaces(weights), runs.metric_names)

    notes: tuple[str, ...] = ()
    with threadpool_limits(1):
        base = objectives(middle[None])
        slices = []
        for k, name in zip(shown, names, strict=True):
            along = slice_weights(middle, int(k), upper)
            slices.append(Slice(name, _listed(along[:, k]), Band.of(objectives(along) - base)))
        pairs = Band.of(_second_differences(objectives, middle, shown)) if len(middle) > 2 else None
        try:
            marks = {name: np.asarray(w, dtype=np.float64) for name, w in (others or {}).items()}
            front = _front(mixer, region, seed, {"natural": region.centre, **marks, "recommended": middle})
        except ValueError as error:
            front, notes = None, (f"There is no front of two metrics: {error}",)
    return Landscape(
        seed,
        N_DRAWS,
        runs.domain_names,
        _listed(middle),
        _left_out(mixer, objective, seed),
        tuple(slices),
        None if pairs is None else Interactions(names, STEP, pairs),
        front,
        notes,
    )


def slice_weights(centre: Floats, k: int, upper: Floats, n_points: int = N_POINTS) -> Floats:
    """Mixtures (n, K) in which domain k has from as little as the caps allow up to its own cap.

    The other domains keep the ratios of the centre, as far as their caps let them. The centre's own weight
    is one of the points, so n is n_points or n_points + 1.

    >>> slice_weights(np.array([0.5, 0.3, 0.2]), 0, np.array([0.8, 1.0, 0.25]), 3).round(3).tolist()
    [[0.0, 0.75, 0.25], [0.4, 0.36, 0.24], [0.5, 0.3, 0.2], [0.8, 0.12, 0.08]]
    """
    others = np.arange(len(centre)) != k
    least = max(0.0, 1.0 - float(upper[others].sum()))
    along = np.union1d(np.linspace(least, max(least, upper[k]), n_points), centre[k])
    ratios = centre[others] if centre[others].any() else upper[others]
    weights = np.zeros((len(along), len(centre)))
    weights[:, k] = along
    for row, weight in zip(weights, along, strict=True):
        if weight < 1:
            row[others] = (1 - weight) * project_to_capped_simplex(ratios, upper[others] / (1 - weight))
    return weights


def _second_differences(objectives: Any, centre: Floats, shown: NDArray[np.int64]) -> Floats:
    """Draws of `Interactions.pairs`, (n_draws, S (S + 1) / 2)."""
    steps = STEP * (np.eye(len(centre))[shown] - centre)
    rows, columns = np.triu_indices(len(shown))
    base, alone = objectives(centre[None]), objectives(centre + steps)
    both = objectives(centre + steps[rows] + steps[columns])
    return np.asarray(both - alone[:, rows] - alone[:, columns] + base)


def _left_out(mixer: Mixer, objective: Objective, seed: int) -> Band:
    """Each run's objective from the others; metrics' errors are correlated as those of all runs are."""
    left_out, runs = mixer.leave_one_out(), mixer.runs
    root = np.linalg.cholesky(error_correlation((runs.metrics - left_out.mean) / left_out.std))
    normals = np.random.default_rng(seed).standard_normal((N_DRAWS, *left_out.mean.shape)) @ root.T
    return Band.of(objective(left_out.mean + left_out.std * normals, runs.metric_names))


def _front(mixer: Mixer, region: Region, seed: int, marks: Mapping[str, Floats]) -> Front:
    """The front of the two metrics whose predicted means have the least covariance over random mixtures.

    Covariance and not correlation: two metrics that hardly move may pull apart perfectly.

    Raises:
        ValueError: there is one metric, or the caps leave no room for a second mixture.
    """
    names, weights = mixer.runs.metric_names, np.stack(list(marks.values()))
    if len(names) < 2:
        raise ValueError(f"the runs have one metric, {names[0]}.")
    random = region.pull_all(sample_candidates(region.centre, N_RANDOM, seed, region.upper))
    if len(random) < 2:
        raise ValueError("the caps leave no room for a second mixture, and so none for a front.")
    means = mixer.predict(random).mean
    covariance = np.cov(means.T)
    np.fill_diagonal(covariance, np.inf)
    a, b = sorted(divmod(int(np.argmin(covariance)), len(names)))
    spread = means[:, [a, b]].std(axis=0)
    correlation = float(np.atleast_2d(np.corrcoef(means[:, [a, b]].T))[0, 1]) if spread.all() else 0.0
    objectives = {names[j]: Objective("weighted", {names[j]: 1.0}) for j in (a, b)}
    found = pareto_set(mixer, objectives, region.centre, region.upper, region.radius, seed)
    n_found = len(found.weights)
    kept = np.unique(np.linspace(0, n_found - 1, min(n_found, MAX_FRONT)).round().astype(int))
    at = mixer.draw_surfaces(N_FRONT_DRAWS, seed)(weights)[:, :, [a, b]].mean(axis=0)
    return Front(
        (names[a], names[b]),
        round(correlation, DECIMALS),
        tuple(map(_listed, found.weights[kept])),
        tuple(map(_listed, found.mean[kept])),
        tuple(map(_listed, found.std[kept])),
        _listed(found.probability[kept]),
        {name: _listed(values) for name, values in zip(marks, at, strict=True)},
        round(found.natural_probability, DECIMALS),
    )


def _listed(values: Floats) -> tuple[float, ...]:
    """Rounded, so that equal results are equal bytes; + 0.0 turns -0.0 into 0.0."""
    return tuple((np.round(values, DECIMALS) + 0.0).tolist())


def _tuples(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _tuples(entry) for key, entry in value.items()}
    return tuple(_tuples(entry) for entry in value) if isinstance(value, list | tuple) else value

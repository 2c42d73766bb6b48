"""Sequential search: which mixture to run next, at which fidelity, given results and pending runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal, get_args

import numpy as np

from .design import sample_design
from .mixer import Fidelity, Floats
from .multi_fidelity import FidelityTrend, MultiFidelityMixer
from .objective import Objective
from .proposals import expected_improvement, propose
from .recommend import Recommendation, recommend
from .search_arguments import SUM_TOLERANCE, Record, SearchArguments
from .table import RunTable

Origin = Literal["anchor", "design", "proposal", "promotion"]

COST_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Trial:
    """One run that the search asks for.

    Attributes:
        number: from 0, in the order of asking.
        weights: by domain, in the arguments' order.
        rung: index of its fidelity.
        seed: of the run.
        origin: why it runs.
    """

    number: int
    weights: tuple[float, ...]
    rung: int
    seed: int
    origin: Origin


@dataclass(eq=False)
class Search:
    """Which mixture to run next, at which fidelity, until the budget is spent.

    The first rung begins with the natural mixture, the uniform one, random ones, and replicates of natural.
    From then on every trial is one of two kinds. A *proposal* is a new mixture at the first rung: by turns
    the one of the largest acquisition value, and the one that the surrogate expects to be best at the target.
    A *promotion* takes a mixture that has run on one rung to the next: the one most expected to beat those
    that run there, natural before all. Rungs share the budget equally: a promotion is due once the rung below
    has spent as much as this one would have. Where a run at the next rung tells more of the target for its
    cost, in nats (`MultiFidelityMixer.information`), it comes earlier. Tokens come before size because rungs
    do (`ladder`).

    `ask` is a pure function of the arguments, the finished results and the pending trials: a search rebuilt
    from its records continues with the same trials, wherever it was interrupted. Failed runs cost and are
    not repeated.

    The recommendation is the pessimistic optimum of the posterior at the target (`recommend`), never the
    mixture of the largest acquisition value, nor that of the luckiest run.

    Args:
        arguments: of the search.
        trend: a cheaper proxy's losses at any fidelity; see `MultiFidelityMixer`.

    Source: successive halving on fidelities, asynchronous, Li et al. 2020 (ASHA), with proposals and
        promotions by a model of all rungs; ADMIRE-BayesOpt (Chen et al. 2025) picks rows of a table by
        max-value entropy per cost and recommends by it.
    """

    arguments: SearchArguments
    trend: FidelityTrend | None = None
    trials: list[Trial] = field(default_factory=list, init=False)
    losses: dict[int, dict[str, float]] = field(default_factory=dict, init=False)
    failures: dict[int, str] = field(default_factory=dict, init=False)
    _surrogate: tuple[int, MultiFidelityMixer] | None = field(default=None, init=False, repr=False)
    _planned: tuple[tuple[int, int, int], Trial | None] | None = field(default=None, init=False, repr=False)

    @property
    def pending(self) -> list[Trial]:
        """Trials without a result."""
        return [t for t in self.trials if t.number not in self.losses and t.number not in self.failures]

    @property
    def spent(self) -> float:
        """Cost of all trials, in runs at the target."""
        return float(sum(self._spent()))

    @property
    def is_finished(self) -> bool:
        """Nothing is pending and nothing more is affordable."""
        return not self.pending and self._next() is None

    @property
    def objective(self) -> Objective:
        """What is minimised; `worst` without reference values is relative to natural's expected losses."""
        asked = self.arguments.objective
        if asked.kind != "worst" or asked.by_metric is not None:
            return asked
        mixer = self.surrogate()
        expected = mixer.predict(np.array(self._anchor())).mean[0].tolist()
        return Objective("worst", dict(zip(mixer.runs.metric_names, expected, strict=True)))

    def ask(self) -> Record | None:
        """The next trial as a record, or None: the budget is spent, or results must come first.

        The record is for the journal; `trials[-1]` is the trial.
        """
        trial = self._next()
        if trial is None:
            return None
        self.trials.append(trial)
        return self._trial_record(trial)

    def tell(self, number: int, losses: Mapping[str, float]) -> Record | None:
        """The result of a trial as a record; None where it is known already.

        Raises:
            ValueError: no such trial, another result of it is known, metrics differ, or a loss is not finite.
        """
        found = {name: float(value) for name, value in losses.items()}
        self._check_result(number, found)
        if self.losses.get(number) == found:
            return None
        record = {"record": "result", "trial": number, "losses": found}
        self.replay(record)
        return record

    def fail(self, number: int, reason: str) -> Record | None:
        """That a trial has no result, as a record; None where that is known already."""
        if number in self.failures:
            return None
        self._check_result(number, None)
        record = {"record": "failure", "trial": number, "reason": reason}
        self.replay(record)
        return record

    def runs(self) -> RunTable:
        """All results: one row each, in the trials' order."""
        done = [self.trials[number] for number in sorted(self.losses)]
        if not done:
            raise ValueError("no run of the search has finished yet.")
        fidelities = [self.arguments.fidelities[t.rung] for t in done]
        names = tuple(self.losses[done[0].number])
        return RunTable(
            weights=np.array([t.weights for t in done]),
            domain_names=self.arguments.domain_names,
            metrics=np.array([[self.losses[t.number][name] for name in names] for t in done]),
            metric_names=names,
            n_parameters=np.array([f.n_parameters for f in fidelities]),
            n_tokens=np.array([f.n_tokens for f in fidelities]),
            seed=np.array([t.seed for t in done]),
            notes=tuple(f"run {n} was left out: {why}." for n, why in sorted(self.failures.items())),
        )

    def surrogate(self) -> MultiFidelityMixer:
        """Fitted on all results."""
        if self._surrogate is None or self._surrogate[0] != len(self.losses):
            mixer = MultiFidelityMixer(target=self.arguments.fidelities[-1], trend=self.trend)
            self._surrogate = len(self.losses), mixer.fit(self.runs())
        return self._surrogate[1]

    def recommend(self) -> Recommendation:
        """The pessimistic optimum at the target, and whether it beats natural."""
        a = self.arguments
        mixer, objective = self.surrogate(), self.objective
        natural = a.natural if a.among is None else self._anchor()
        return recommend(mixer, natural, objective, a.caps, a.trust_region, a.seed, a.among)

    def _next(self) -> Trial | None:
        """The next trial, planned once for what is known: `is_finished` asks as well as `ask`."""
        known = len(self.trials), len(self.losses), len(self.failures)
        if self._planned is None or self._planned[0] != known:
            self._planned = known, self._plan()
        return self._planned[1]

    def _plan(self) -> Trial | None:
        first = self._first()
        if first is not None:
            return first
        rung, possible = self._rung()
        if rung is None:
            return None
        found = self._at(rung)
        if rung + 1 in possible:
            above = self._at(rung + 1)
            if self._tells_more(above, rung + 1, found, rung):
                rung, found = rung + 1, above
        return self._trial(found, rung, "promotion" if rung else "proposal")

    def _first(self) -> Trial | None:
        """The trials of the first rung that need no model."""
        a, n = self.arguments, len(self.trials)
        n_first = a.n_drawn + a.n_replicates - 1
        if n >= n_first and sum(self.trials[i].number in self.losses for i in range(n_first)) >= 4:
            return None
        if self._spent()[0] + a.relative_costs[0] > a.budget:
            return None
        if a.n_drawn <= n < n_first:
            return self._trial(np.array(self._anchor()), 0, "anchor")
        i = n if n < a.n_drawn else n - a.n_replicates + 1
        if a.among is not None:
            drawn = a.among[i % len(a.among)]
        else:
            design = sample_design(a.region.centre, max(i + 1, 2), a.seed, a.region.upper)
            drawn = a.region.pull_all(design)[i]
        return self._trial(drawn, 0, "design" if i else "anchor")

    def _rung(self) -> tuple[int | None, list[int]]:
        """The rung to serve, and all that could be: the highest whose neighbour below has spent as much as it
        would have then, else the lowest with money of its own."""
        a, spent = self.arguments, self._spent()
        share = a.budget / len(spent)
        possible = []
        for rung, cost in enumerate(a.relative_costs):
            within = sum(spent[: rung + 1]) + cost <= share * (rung + 1) + COST_TOLERANCE
            affordable = sum(spent) + cost <= a.budget + COST_TOLERANCE
            if within and affordable and self._has_candidates(rung):
                possible.append(rung)
        for rung in reversed(possible):
            if rung and spent[rung] + a.relative_costs[rung] <= spent[rung - 1] + COST_TOLERANCE:
                return rung, possible
        return (possible[0] if possible else None), possible

    def _at(self, rung: int) -> Floats:
        """The mixture that a rung would run next."""
        a, mixer, seed = self.arguments, self.surrogate(), self._draw_seed()
        if rung == 0:
            taken = np.unique([t.weights for t in self.trials], axis=0)
            is_odd = sum(t.origin == "proposal" for t in self.trials) % 2 == 1
            acquisition = "mean" if is_odd else a.acquisition
            untried = self._untried()
            found = propose(mixer, 1, a.region, self.objective, taken, acquisition, seed, untried)
            return np.asarray(found[0])
        candidates = self._promotable(rung)
        natural = np.array(self._anchor())
        if not self._on(rung) and (candidates == natural).all(axis=1).any():
            return natural
        beaten = np.array([t.weights for t in self.trials if t.rung >= rung] or [self._anchor()])
        gains = expected_improvement(mixer, self.objective, beaten, candidates, seed)
        return np.asarray(candidates[int(np.argmax(gains))])

    def _tells_more(self, above: Floats, rung_above: int, below: Floats, rung: int) -> bool:
        """Whether a run on the rung above tells more of the target for its cost than one below."""
        a, mixer = self.arguments, self.surrogate()
        if a.fidelities[rung_above] not in mixer.fidelities:
            return False
        told = [mixer.information(w, a.fidelities[r]) for w, r in ((above, rung_above), (below, rung))]
        return told[0] / a.relative_costs[rung_above] > told[1] / a.relative_costs[rung]

    def _has_candidates(self, rung: int) -> bool:
        if rung:
            return len(self._promotable(rung)) > 0
        untried = self._untried()
        return untried is None or len(untried) > 0

    def _untried(self) -> Floats | None:
        """Of the only mixtures that may run, those that have not; None where any may."""
        among, tried = self.arguments.among, self._on(0)
        if among is None:
            return None
        return np.array([w for w in among.tolist() if tuple(w) not in tried]).reshape(-1, among.shape[1])

    def _promotable(self, rung: int) -> Floats:
        """Mixtures with a result one rung below and no trial here: (n, K), once each."""
        below = {t.weights for t in self.trials if t.rung == rung - 1 and t.number in self.losses}
        here = self._on(rung)
        return np.array(sorted(below - here)).reshape(-1, len(self.arguments.domain_names))

    def _on(self, rung: int) -> set[tuple[float, ...]]:
        return {t.weights for t in self.trials if t.rung == rung}

    def _anchor(self) -> tuple[float, ...]:
        """The natural mixture as the first trial has it, or the one that runs in its place."""
        return self.trials[0].weights

    def _trial(self, weights: Floats, rung: int, origin: Origin) -> Trial:
        """A mixture that has run on this rung before runs again with another seed."""
        row = tuple(np.asarray(weights, dtype=np.float64).tolist())
        n_before = sum(t.rung == rung and t.weights == row for t in self.trials)
        return Trial(len(self.trials), row, rung, self.arguments.seed + n_before, origin)

    def _draw_seed(self) -> int:
        state = np.random.SeedSequence([self.arguments.seed, len(self.trials)]).generate_state(1)
        return int(state[0])

    def _spent(self) -> list[float]:
        """Of each rung, in runs at the target."""
        spent = [0.0] * len(self.arguments.fidelities)
        for trial in self.trials:
            spent[trial.rung] += self.arguments.relative_costs[trial.rung]
        return spent

    def _trial_record(self, trial: Trial) -> Record:
        fidelity = self.arguments.fidelities[trial.rung]
        return {
            "record": "trial",
            "trial": trial.number,
            "weights": dict(zip(self.arguments.domain_names, trial.weights, strict=True)),
            **asdict(fidelity),
            "seed": trial.seed,
            "origin": trial.origin,
        }

    def replay(self, record: Record) -> None:
        """Take in a record of a trial, a result or a failure, as it was written."""
        kind = record.get("record")
        if kind == "trial":
            self._check_trial(record)
            weights = tuple(float(record["weights"][name]) for name in self.arguments.domain_names)
            fidelity = Fidelity(record["n_parameters"], record["n_tokens"])
            rung = self.arguments.fidelities.index(fidelity)
            self.trials.append(Trial(record["trial"], weights, rung, record["seed"], record["origin"]))
        elif kind == "result":
            self._check_result(record["trial"], record["losses"] or {})
            self.losses[record["trial"]] = dict(record["losses"])
        elif kind == "failure":
            self._check_result(record["trial"], None)
            self.failures[record["trial"]] = str(record["reason"])
        else:
            raise ValueError(f"unknown record '{kind}'; a journal holds trial, result and failure.")

    def _check_trial(self, record: Record) -> None:
        if record["trial"] != len(self.trials):
            raise ValueError(f"trial {record['trial']} follows {len(self.trials)} trials; lines are missing.")
        if not isinstance(record["weights"], Mapping):
            raise ValueError(f"trial {record['trial']} has the weights {record['weights']!r}, not by domain.")
        if sorted(record["weights"]) != sorted(self.arguments.domain_names):
            raise ValueError(
                f"trial {record['trial']} has the domains {', '.join(record['weights'])}; the search has "
                f"{', '.join(self.arguments.domain_names)}."
            )
        if record["origin"] not in get_args(Origin):
            raise ValueError(f"trial {record['trial']} has the unknown origin '{record['origin']}'.")
        weights = [float(weight) for weight in record["weights"].values()]
        if not (abs(sum(weights) - 1) <= SUM_TOLERANCE and min(weights) >= 0):
            raise ValueError(
                f"trial {record['trial']} has the weights {dict(record['weights'])}; a mixture is not "
                "negative and sums to one."
            )
        at = Fidelity(record["n_parameters"], record["n_tokens"])
        if at not in self.arguments.fidelities or not isinstance(record["seed"], int):
            raise ValueError(
                f"trial {record['trial']} has {at} and seed {record['seed']!r}; the search's rungs are "
                f"{', '.join(map(str, self.arguments.fidelities))}, and a seed is a whole number."
            )

    def _check_result(self, number: int, losses: Mapping[str, float] | None) -> None:
        if not isinstance(number, int) or not 0 <= number < len(self.trials):
            raise ValueError(f"trial {number!r}: the search has asked for {len(self.trials)} trials, from 0.")
        known = self.losses.get(number)
        if number in self.failures or (known is not None and known != losses):
            earlier = self.failures.get(number, known)
            raise ValueError(f"trial {number} has another result already: {earlier}.")
        if losses is None:
            return
        if not isinstance(losses, Mapping):
            raise ValueError(f"trial {number} has the losses {losses!r}, not by metric.")
        broken = [name for name, value in losses.items() if not _is_finite(value)]
        expected = next(iter(self.losses.values()), losses)
        if broken or not losses or set(losses) != set(expected):
            raise ValueError(
                f"trial {number} has the losses {dict(losses)}; {', '.join(expected) or 'one or more'} are "
                "needed, each a finite number. Report a run without them as failed."
            )


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and bool(np.isfinite(value))

"""What a sequential search depends on besides its results: domains, fidelities, budget, caps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .design import kl_divergence
from .mixer import Fidelity, Floats
from .objective import MEAN, Objective
from .proposals import ACQUISITIONS, Acquisition
from .region import Region

Record = dict[str, Any]  # a line of the journal

VERSION = 2
EARLIER = {1: "slopes of domains were independent, and noise had no lowest value"}
SUM_TOLERANCE = 1e-6  # of the weights of a mixture that is given
TOKEN_FRACTIONS = (0.3, 1.0)  # ranks of checkpoints hold from 20-30 % of the tokens on


def ladder(
    n_parameters: Sequence[int], n_tokens: int, token_fractions: Sequence[float] = TOKEN_FRACTIONS
) -> tuple[Fidelity, ...]:
    """The rungs of a search, cheapest first: each size at each share of the tokens, the tokens first.

    >>> [(f.n_parameters, f.n_tokens) for f in ladder([10, 70], 1000)]
    [(10, 300), (10, 1000), (70, 300), (70, 1000)]
    """
    tokens = [round(n_tokens * share) for share in sorted(token_fractions)]
    return tuple(Fidelity(size, t) for size in sorted(n_parameters) for t in tokens)


@dataclass(frozen=True)
class SearchArguments:
    """All that a search depends on besides the results; plain values, the first line of a journal.

    Attributes:
        domain_names, natural: the domains and the mixture to beat, centre of the trust region.
        fidelities: the rungs, cheapest first; the last is the target, whose losses count.
        budget: of the search, in runs at the target.
        caps: the largest weights, or None.
        costs: of a run at each rung, in any unit; parameters times tokens by default.
        trust_region: largest KL(w || natural), nats.
        objective: what to minimise.
        n_initial: mixtures of the first rung that are drawn before a model proposes; by default the number of
            domains, but from 8 to 24, and at most a third of what the first rung's share of the budget pays.
        n_replicates: runs of the natural mixture at the first rung, with seeds of their own.
        acquisition: of new mixtures; see `propose`.
        seed: of all draws, and of the first replicate of every run.
        trend: a name or hash of the trend that `Search` is given with these arguments, or None.
        mixtures: the only ones that may run, such as those of runs that are there already; by default any
            inside caps and trust region. The one nearest to natural runs in its place.
    """

    domain_names: tuple[str, ...]
    natural: tuple[float, ...]
    fidelities: tuple[Fidelity, ...]
    budget: float
    caps: tuple[float, ...] | None = None
    costs: tuple[float, ...] | None = None
    trust_region: float = 0.5
    objective: Objective = MEAN
    n_initial: int | None = None
    n_replicates: int = 3
    acquisition: Acquisition = "noisy_ei"
    seed: int = 0
    trend: str | None = None
    mixtures: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self) -> None:
        problems = self._problems()
        if problems:
            raise ValueError("\n".join(problems))

    @cached_property
    def relative_costs(self) -> tuple[float, ...]:
        """Of each rung, in runs at the target."""
        given = self.costs or tuple(float(max(f.n_parameters, 1) * f.n_tokens) for f in self.fidelities)
        return tuple(cost / given[-1] for cost in given)

    @property
    def n_drawn(self) -> int:
        """Mixtures of the first rung that no model proposes, the uniform and the natural one among them."""
        affordable = self.budget / len(self.fidelities) / self.relative_costs[0]
        few = max(4, int((affordable - self.n_replicates + 1) / 3))
        return self.n_initial or min(int(np.clip(len(self.domain_names), 8, 24)), few)

    @cached_property
    def region(self) -> Region:
        """Where mixtures may lie."""
        return Region.around(np.array(self.natural), self.caps, self.trust_region)

    @cached_property
    def among(self) -> Floats | None:
        """`mixtures` as rows, the nearest to natural first and the others in an order drawn by the seed."""
        if self.mixtures is None:
            return None
        rows = np.array(self.mixtures)
        rows = rows[np.random.default_rng(self.seed).permutation(len(rows))]
        nearest = int(np.argmin([kl_divergence(row, self.region.centre) for row in rows]))
        return np.vstack([rows[nearest], np.delete(rows, nearest, axis=0)])

    def to_record(self) -> Record:
        """The journal's first line."""
        return {"record": "arguments", "version": VERSION, **_plain(asdict(self))}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> SearchArguments:
        """The arguments of a journal's first line.

        Raises:
            ValueError: it is none, or was written by a later version.
        """
        if record.get("record") != "arguments" or record.get("version") not in (VERSION, *EARLIER):
            known = ", ".join(map(str, sorted((VERSION, *EARLIER))))
            raise ValueError(
                f"the first line is record '{record.get('record')}' of version {record.get('version')}; "
                f"a journal starts with 'arguments' of a version among {known}."
            )
        values = {key: value for key, value in record.items() if key not in ("record", "version")}
        for key in ("domain_names", "natural", "caps", "costs"):
            values[key] = None if values[key] is None else tuple(values[key])
        values["fidelities"] = tuple(Fidelity(**f) for f in values["fidelities"])
        values["objective"] = Objective(**values["objective"])
        if values.get("mixtures") is not None:
            values["mixtures"] = tuple(map(tuple, values["mixtures"]))
        return cls(**values)

    def _problems(self) -> list[str]:
        problems = []
        k = len(self.domain_names)
        for name, row in (("natural", self.natural), ("caps", self.caps)):
            if row is not None and len(row) != k:
                problems.append(f"{name}: found {len(row)} values for {k} domains.")
        problems = problems or self._problems_of_region()
        if not problems and self.mixtures is not None:
            problems += self._problems_of_mixtures()
        if self.costs is not None and len(self.costs) != len(self.fidelities):
            problems.append(f"costs: found {len(self.costs)} values for {len(self.fidelities)} fidelities.")
        if not self.fidelities:
            problems.append("fidelities: none; give one rung or more, cheapest first.")
        elif not all(cost > 0 for cost in self.costs or [f.n_tokens for f in self.fidelities]):
            problems.append("fidelities: each rung has one token or more, or a cost above zero.")
        elif not problems and list(self.relative_costs) != sorted(set(self.relative_costs)):
            shown = ", ".join(f"{cost:.3g}" for cost in self.relative_costs)
            problems.append(f"fidelities: costs are {shown}; rungs go from the cheapest to the target.")
        if self.acquisition not in ACQUISITIONS:
            problems.append(f"acquisition: '{self.acquisition}'; it is one of {', '.join(ACQUISITIONS)}.")
        if self.n_initial is not None and self.n_initial < 4:
            problems.append(f"n_initial: {self.n_initial}; a model needs 4 runs or more.")
        if self.n_replicates < 1:
            problems.append(f"n_replicates: {self.n_replicates}; the natural mixture runs once or more.")
        if not problems and self.budget < self._least_budget():
            problems.append(
                f"budget: {self.budget:g} runs at the target; the first mixtures and one run at every rung "
                f"cost {self._least_budget():.3g}. Raise it, or lower n_initial or n_replicates."
            )
        return problems

    def _problems_of_region(self) -> list[str]:
        """Numbers that no search could go on with, as a journal edited by hand may have them."""
        problems = []
        if not (abs(sum(self.natural) - 1) <= SUM_TOLERANCE and min(self.natural) >= 0):
            problems.append(f"natural: {list(self.natural)}; weights are not negative and sum to one.")
        if self.caps is not None and not (sum(self.caps) >= 1 - SUM_TOLERANCE and min(self.caps) >= 0):
            problems.append(f"caps: {list(self.caps)}; they are not negative and sum to one or more.")
        for name, value, least in (("trust_region", self.trust_region, ">"), ("budget", self.budget, ">=")):
            if not np.isfinite(value) or value < 0 or (least == ">" and value == 0):
                problems.append(f"{name}: {value}; a finite number {least} 0 is needed.")
        if not isinstance(self.seed, int) or self.seed < 0:
            problems.append(f"seed: {self.seed!r}; a whole number of 0 or more is needed.")
        return problems

    def _problems_of_mixtures(self) -> list[str]:
        assert self.mixtures is not None
        k, problems = len(self.domain_names), []
        for i, row in enumerate(self.mixtures):
            if len(row) != k or abs(sum(row) - 1) > SUM_TOLERANCE or min(row) < 0:
                return [f"mixtures: row {i} is {list(row)}; a mixture has {k} weights that sum to one."]
        inside = [self.region.holds(np.array(row)) for row in self.mixtures]
        if not all(inside):
            problems.append(
                f"mixtures: row {inside.index(False)} is outside the caps or the trust region; leave it out, "
                "or widen them."
            )
        if len(set(self.mixtures)) < self.n_drawn:
            problems.append(
                f"mixtures: found {len(set(self.mixtures))} different ones, and {self.n_drawn} are drawn "
                "before a model proposes; give more, or lower n_initial."
            )
        return problems

    def _least_budget(self) -> float:
        first, *others = self.relative_costs
        return first * (self.n_drawn + self.n_replicates - 1) + sum(others)


def _plain(value: Any) -> Any:
    """Tuples as lists, so that a record equals itself after JSON."""
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, tuple | list) else value

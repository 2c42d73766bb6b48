"""Online mixing inside the loader: reports -> policy -> weights that hold a fixed number of steps later.

Every `every` steps the ranks add up what was reported (one all-reduce of whole numbers), the policy sees the
sum, and rank 0's weights, rounded to the planner's whole numbers, hold on all ranks from `lag` steps on. The
lag is longer than any rank reads ahead, so no batch that was made early is thrown away. Which weights hold
when is an append-only list, and a run is a function of it: see `read_weight_log`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.apportion import ROW
from ..kernels.domain_sums import domain_means
from ..kernels.simplex import bounded_weights, whole_weights
from .batch import Batch
from .feedback import UNIT, Feedback, row_means, row_values
from .named_policies import load_policy
from .policies import Policy
from .ranks import Ranks
from .weights import check_names, is_whole

Floats = NDArray[np.float64]
QUANTUM = 2**20
"""Weights are multiples of 1 / QUANTUM, exact in any JSON; rounding moves a row in a million."""
READS = {
    "losses": ("loss_per_row", "loss_per_token"),
    "rewards": ("reward_per_row",),
    "validation": ("domain_losses",),
}
"""What `feedback` takes for a policy, by what it reads."""


@dataclass(frozen=True)
class OnlineMixing:
    """How the mixture follows the reports of training.

    Args:
        policy: a name of named_policies.py, or a function from the prior (float64, (n_domains,)) and the
            domains' names to a Policy. The prior is the loader's weights over the domains that adapt: those
            with a weight that are not in `replay`.
        parameters: of the policy, where it is a name; those that are a number a domain, by name.
        every: steps between reports to the policy.
        lag: steps from a report to the first batch with its weights.
        replay: domains that keep their weight: old data in continued training.
        log: a file that rank 0 writes the weights of the run to, a line for each report.
    Raises:
        ValueError: every or lag is no whole number or below 1.
    """

    policy: str | Callable[[Floats, Sequence[str]], Policy] = "mirror_descent"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    every: int = 20
    lag: int = 32
    replay: Sequence[str] = ()
    log: str | Path | None = None

    def __post_init__(self) -> None:
        for name, value in (("every", self.every), ("lag", self.lag)):
            if not is_whole(value) or value < 1:
                raise ValueError(
                    f"policy: {name} is {value!r}; it must be a whole number of steps, at least 1"
                )

    @property
    def identity(self) -> str:
        """What a state must agree with."""
        name = self.policy if isinstance(self.policy, str) else getattr(self.policy, "__qualname__", "custom")
        parameters = {key: _plain(self.parameters[key]) for key in sorted(self.parameters)}
        return (
            f"{name} {json.dumps(parameters)} every={self.every} lag={self.lag} replay={sorted(self.replay)}"
        )


class Online:
    """The policy of a running loader: what was reported, and which weights follow.

    Args:
        mixing: the user's wishes.
        names: of all domains, in the planner's order.
        shares: int64, (n_domains,), the weights at the start in units of ROW.
        domains: in the trainer's order.
        sequence_length: of a row.
        ranks: who must agree.
    Raises:
        ValueError: an unknown policy, parameter or domain, or nothing is left to adapt.
    """

    def __init__(
        self,
        mixing: OnlineMixing,
        names: Sequence[str],
        shares: NDArray[np.int64],
        domains: Sequence[str],
        sequence_length: int,
        ranks: Ranks,
    ) -> None:
        check_names("policy: replay", mixing.replay, names)
        self.mixing, self._names, self._ranks, self._length = mixing, list(names), ranks, sequence_length
        self._shares = shares
        self._adapts = np.array([name not in mixing.replay for name in names]) & (shares > 0)
        self._adapting = slice(None) if self._adapts.all() else np.flatnonzero(self._adapts)
        adapting = [name for name, adapts in zip(names, self._adapts.tolist(), strict=True) if adapts]
        if not adapting:
            raise ValueError(
                "policy: no domain is left that has a weight and is not in replay; name fewer there"
            )
        self._budget = int(shares[self._adapts].sum())
        prior = shares[self._adapts] / self._budget
        self.policy = load_policy(mixing.policy, prior, adapting, mixing.parameters)
        self.feedback = Feedback(np.array([names.index(name) for name in domains]), sequence_length)
        self.n_reports = 0
        self._drawn = np.zeros(len(names), np.int64)  # rows, at the last report that counts them

    @property
    def next_report(self) -> int:
        """The step before which the policy sees the next report."""
        return (self.n_reports + 1) * self.mixing.every

    def check_lag(self, n_groups: int, *, is_remote: bool) -> None:
        """Refuse a lag that is shorter than batches are made ahead.

        Args:
            n_groups: that are, or are being made ahead.
            is_remote: half of the lag is for fetching shards.
        """
        if self.most_in_group(n_groups, is_remote=is_remote) < 1:
            least = 2 * max(1, n_groups) if is_remote else n_groups
            raise ValueError(
                f"policy: lag is {self.mixing.lag} steps, and up to {n_groups} are made ahead; raise it to "
                f"at least {least}, or lower prefetch or workers"
            )

    def most_in_group(self, n_groups: int, *, is_remote: bool) -> int:
        """Steps that may be handed over at once, so that no step is made whose weights are not known."""
        lag = self.mixing.lag // 2 if is_remote else self.mixing.lag
        return min(lag, lag // n_groups) if n_groups else lag

    def horizon(self) -> int:
        """Up to which step weights are known."""
        return self.next_report + self.mixing.lag

    def tell(self, batch: Batch | None, next_step: int, told: Mapping[str, Any]) -> None:
        """Take in what `StreamingLoader.feedback` was given.

        Raises:
            ValueError: as there.
        """
        allowed = READS[self.policy.reads]
        name = next(iter(told), "")
        if len(told) != 1 or name not in allowed or (batch is None) != (name == "domain_losses"):
            wanted = "a batch and " * (self.policy.reads != "validation") + " or ".join(allowed)
            found = ", ".join([*(["a batch"] if batch is not None else []), *told]) or "nothing"
            raise ValueError(f"feedback: found {found}; this policy reads {self.policy.reads}: give {wanted}")
        if batch is None:
            check_names("domain_losses", told[name], self._names)
            given = [k for k, each in enumerate(self._names) if each in told[name]]
            means = [float(told[name][self._names[k]]) for k in given]
            self.feedback.add_means(np.array(given, np.int64), np.array(means, np.float64))
            return
        n_rows, n_tokens = len(batch.domain_ids), None
        if name == "loss_per_token":
            values, n_tokens = row_means(told[name], batch.labels, batch.input_ids.shape)
        else:
            values = row_values(told[name], n_rows, name)
        self.feedback.add(batch.step, batch.first_row, next_step, batch.domain_ids, values, n_tokens)

    @property
    def counts_rows(self) -> bool:
        """Whether reports need the rows drawn: of validation losses, the tokens trained on moved them."""
        return self.policy.reads == "validation"

    def report(
        self, rows_drawn: NDArray[np.int64] | None, room: Floats | None
    ) -> tuple[int, NDArray[np.int64]]:
        """Show the policy what was reported. A collective: all ranks call it before the same step.

        Args:
            rows_drawn: int64, (n_domains,), in the run so far; None unless it `counts_rows`.
            room: the largest weight with which each domain lasts to the run's end: (n_domains,); None: any.
        Returns:
            The step from which new weights hold, and the weights: int64, (n_domains,), in units of ROW.
        """
        step = self.next_report
        losses, n_tokens, n_ignored = domain_means(self._ranks.sum(self.feedback.take(step)), UNIT)
        spent = n_tokens
        if self.counts_rows:
            assert rows_drawn is not None
            spent = np.where(n_tokens > 0, (rows_drawn - self._drawn) * float(self._length), 0.0)
            self._drawn = rows_drawn
        self.policy.observe(losses[self._adapting], spent[self._adapting])
        self.policy.n_ignored += n_ignored
        shares = self._ranks.from_first(self._shares_of(self._checked(self.policy.weights), room))
        self._log(step, step + self.mixing.lag, shares, losses, n_tokens)
        return step + self.mixing.lag, shares

    def _checked(self, weights: Floats) -> Floats:
        """A policy's weights, which somebody else may have written.

        Raises:
            ValueError: they are no distribution.
        """
        weights = np.asarray(weights, np.float64)
        is_one_each = weights.shape == self.policy.prior.shape
        if not (is_one_each and weights.min() >= 0 and abs(weights.sum() - 1) < 1e-6):  # True for NaN, too
            raise ValueError(
                f"policy: {type(self.policy).__name__} gave the weights {weights.tolist()} at step "
                f"{self.next_report}; they must be >= 0 and sum to 1, one for each of "
                f"{self.policy.prior.size} domains that adapt"
            )
        return weights

    def advance(self) -> None:
        """Go on to the next report: the weights of the last are in the plan."""
        self.n_reports += 1

    def _shares_of(self, weights: Floats, room: Floats | None) -> NDArray[np.int64]:
        """A policy's weights in units of ROW, those of replayed domains as they were, none above its room."""
        high = None if room is None else np.clip(room[self._adapts] * ROW / self._budget, 0, 1)
        if high is not None and (weights > high).any() and high.any():
            is_enough = high.sum() > 1
            weights = bounded_weights(weights, np.zeros_like(high), high) if is_enough else high / high.sum()
        elif np.abs(weights - self.policy.prior).max() < 1e-12:
            return self._shares  # finer than units
        found = self._shares.copy()
        found[self._adapting] = whole_weights(weights, self._budget, ROW // QUANTUM)
        return found

    def _log(
        self, step: int, start: int, shares: NDArray[np.int64], losses: Floats, n_tokens: Floats
    ) -> None:
        if self.mixing.log is None or self._ranks.rank:
            return
        rewards = np.full(len(self._names), np.nan)
        rewards[self._adapts] = self.policy.rewards()
        path = Path(self.mixing.log)
        if self.n_reports == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(self._line(0, 0, self._shares))
        numbers = {"losses": losses, "n_tokens": n_tokens, "rewards": rewards}
        with path.open("a") as file:
            file.write(self._line(step, start, shares, **numbers))

    def _line(self, step: int, start: int, shares: NDArray[np.int64], **numbers: Floats) -> str:
        found: dict[str, Any] = {"step": step, "start": start}
        found["shares"] = dict(zip(self._names, shares.tolist(), strict=True))
        for key, values in numbers.items():
            named = zip(self._names, values.tolist(), strict=True)
            found[key] = {name: value if np.isfinite(value) else None for name, value in named}
        return json.dumps(found) + "\n"

    def state_dict(self, next_step: int) -> dict[str, Any]:
        """Plain JSON, the same on all ranks. A collective, for what each rank was told is added up."""
        totals = self._ranks.sum(self.feedback.totals(next_step))
        n = len(self._names)
        return {
            "policy": self.policy.state_dict(),
            "n_reports": self.n_reports,
            "n_ignored": int(totals[2 * n]),
            "domains": {
                name: [int(totals[k]), int(totals[n + k]), int(self._drawn[k])]
                for k, name in enumerate(self._names)
            },
        }

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Refuse what `load_state_dict` could not load; nothing is changed.

        Raises:
            ValueError: the log does not have the reports of the state, or the policy refuses it.
        """
        self._log_lines(state["n_reports"])
        deepcopy(self.policy).load_state_dict(state["policy"])

    def load_state_dict(self, state: Mapping[str, Any], next_step: int) -> None:
        """Go on where `state_dict` was taken; the loader checks `identity` and the state before."""
        rows = [state["domains"].get(name, [0, 0, 0]) for name in self._names]
        totals = np.array(
            [*(row[0] for row in rows), *(row[1] for row in rows), state["n_ignored"]], np.int64
        )
        self._cut_log(state["n_reports"])
        self.policy.load_state_dict(state["policy"])
        self.n_reports, self._drawn = state["n_reports"], np.array([row[2] for row in rows], np.int64)
        # The sum over ranks is rank 0's to hold.
        self.feedback.restart(totals if self._ranks.rank == 0 else np.zeros_like(totals), next_step)

    def _log_lines(self, n_reports: int) -> list[str]:
        """What the log holds, where a run with so many reports goes on with one.

        Raises:
            ValueError: fewer reports, or those of another run.
        """
        if self.mixing.log is None or self._ranks.rank or not n_reports:
            return []
        path = Path(self.mixing.log)
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        if len(lines) < n_reports + 1:
            raise ValueError(
                f"policy: {path} has {len(lines)} lines, and the state comes after {n_reports} reports; give "
                "the log of the run that was saved, or another file's name and none"
            )
        step = n_reports * self.mixing.every
        if not _is_entry(lines[n_reports], step):
            raise ValueError(
                f"policy: {path}:{n_reports + 1}: not the entry of step {step}, so not the log of the run "
                "that was saved; give that, or another file's name and none"
            )
        return lines

    def _cut_log(self, n_reports: int) -> None:
        """Cut off what an interrupted run logged after the state was taken."""
        lines = self._log_lines(n_reports)
        if self.mixing.log is not None and len(lines) > n_reports + 1:
            path = Path(self.mixing.log)
            temporary = path.with_name(path.name + ".cut")
            temporary.write_text("".join(lines[: n_reports + 1]))
            temporary.replace(path)


def read_weight_log(path: str | Path) -> dict[str, Any]:
    """The weights of a run, as arguments that repeat it without its reports.

    `StreamingLoader(sources, **read_weight_log("weights.jsonl"), ...)` gives the run's batches, bit for bit,
    where the other arguments are the run's; weights are of tokens here, whatever the run's `weight_unit` was.

    Raises:
        ValueError: a line of the file is no entry of a weight log.
    """
    entries: list[tuple[int, dict[str, float]]] = []
    for number, line in enumerate(Path(path).read_text().splitlines(), start=1):
        try:
            found = json.loads(line)
            entries.append((found["start"], {name: share / ROW for name, share in found["shares"].items()}))
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}:{number}: no entry of a weight log ({error!r})") from None
    if not entries:
        raise ValueError(f"{path}: no entries; a run writes its first with its first report")
    return {"weights": entries[0][1], "schedule": entries[1:], "weight_unit": "tokens"}


def _is_entry(line: str, step: int) -> bool:
    """Whether this is a weight log's entry of that step."""
    try:
        found = json.loads(line)
    except json.JSONDecodeError:
        return False
    return isinstance(found, dict) and found.get("step") == step


def _plain(value: Any) -> Any:
    """In plain JSON: arrays, tensors and their numbers as lists and numbers, wherever they are."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value.tolist() if hasattr(value, "tolist") else value

"""The loader: asks the planner for global batches, gathers this rank's rows, and resumes exactly."""

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self, TypedDict

import numpy as np

from ..kernels.apportion import ROW, largest_remainder
from ..kernels.gather import TokenStream, gather
from .batch import Batch
from .buffers import Buffers
from .plan import Cursor, Domain, Event, Planner, Schedule
from .shards import TokenStore
from .weights import row_limits, shares_of

STATE_VERSION = 1
# Rows planned at once. It changes no order; a row's plan costs the least from a few hundred rows on.
N_PLANNED_ROWS = 4096


class Stats(TypedDict):
    """What `StreamingLoader.stats` returns: plain JSON values, over the global batches handed out so far."""

    step: int
    n_tokens: dict[str, int]
    token_shares: dict[str, float]
    epochs: dict[str, float]
    weights: dict[str, float]
    events: list[dict[str, int | str]]


class StreamingLoader:
    """Batches of tokens mixed from domains; the same global batches for any number of ranks.

    Rank r of R gets rows [r B / R, (r + 1) B / R) of the global batch of B rows. All ranks stop at the
    same step: after `steps`, or when no domain with a weight has rows left (a last batch that cannot be
    filled is not given). One loader is one run: iterating again goes on where iteration stopped.

    Args:
        sources: domain -> its folder of token shards, or an open TokenStore. Orders are keyed by name:
            which rows of a domain come in which order depends neither on the other domains nor on the
            order of this mapping.
        weights: share of the tokens, by domain, summing to one; 0 leaves a domain out for now. None: in
            proportion to the domains' tokens.
        sequence_length: L, tokens of a row. Rows are packed by `concat`; see plan.py.
        global_batch: B, rows of one step over all ranks.
        seed: of the shuffles.
        max_epochs: how often a domain may be repeated, for all or by domain; None: without end. A domain that
            reaches it leaves its weight to the others, in proportion, and `stats` records the event.
        schedule: later weights, [(start_step, weights), ...], ascending.
        rank: of this process.
        world_size: number of processes; divides global_batch.
        split: of the sources that are given as folders.
        steps: of the run; None: until the domains are exhausted, if ever.
    Raises:
        ValueError: names the argument or the source, what was found, what is allowed and what to do.
    """

    def __init__(
        self,
        sources: Mapping[str, str | Path | TokenStore],
        weights: Mapping[str, float] | None = None,
        *,
        sequence_length: int,
        global_batch: int,
        seed: int = 0,
        max_epochs: float | Mapping[str, float] | None = None,
        schedule: Sequence[tuple[int, Mapping[str, float]]] | None = None,
        rank: int = 0,
        world_size: int = 1,
        split: str = "train",
        steps: int | None = None,
    ) -> None:
        _check_counts(sequence_length, global_batch, rank, world_size)
        self.domains, self.steps = tuple(sources), steps
        self.sequence_length, self.global_batch, self.seed = sequence_length, global_batch, seed
        # Sorted by name: ties in the mixture fall the same way for every order of the sources.
        self._stores = {
            name: source if isinstance(source := sources[name], TokenStore) else TokenStore(source, split)
            for name in sorted(sources)
        }
        _check_tokenizers(self._stores)
        if weights is None:
            shares = largest_remainder(np.array([store.n_tokens for store in self._stores.values()]), ROW)
        else:
            shares = shares_of(weights, list(self._stores))
        n_rows = {name: (store.n_tokens - 1) // sequence_length for name, store in self._stores.items()}
        limits = row_limits(max_epochs, n_rows)
        self._planner = Planner(
            [Domain(name, n_rows[name], limits[name]) for name in self._stores], seed, global_batch, shares
        )
        for start_step, later in schedule or ():
            self._planner.append(start_step, shares_of(later, list(self._stores)))
        self._schedule_given = _schedule_hash(self._encode(self._planner.schedule))
        self._lay_out_streams()
        rows = global_batch // world_size
        self._rows_of_rank = slice(rank * rows, (rank + 1) * rows)
        self._buffers = Buffers((rows, sequence_length))
        self._plan_from(self._planner.start())

    @property
    def step(self) -> int:
        """The step of the next batch: how many were handed out."""
        return self._start.step + self._n_given

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        if self.steps is not None and self.step >= self.steps:
            raise StopIteration
        if self._n_given == len(self._plan.domains):
            self._plan_from(self._after)
            if not len(self._plan.domains):
                raise StopIteration
        self._n_given += 1
        return self._gather(self._n_given - 1)

    def set_weights(self, weights: Mapping[str, float], at_step: int | None = None) -> None:
        """Let other weights hold from `at_step` on (the next batch by default). Call it alike on every rank.

        Raises:
            ValueError: as for the constructor's weights; at_step was handed out already, or lies before the
                schedule's last entry.
        """
        shares = shares_of(weights, list(self._stores))
        at_step = self.step if at_step is None else at_step
        if at_step < self.step:
            raise ValueError(f"at_step is {at_step}; batches before step {self.step} were handed out already")
        cursor = self._cursor()
        self._planner.append(at_step, shares)
        self._plan_from(cursor)

    def stats(self) -> Stats:
        """Realised tokens, shares and epochs of each domain, the weights of the next row, and the events."""
        cursor = self._cursor()
        shares = self._planner.shares_at(cursor)
        drawn = dict(zip(self._stores, cursor.rows_drawn, strict=True))
        in_force = dict(
            zip(self._stores, [0] * len(drawn) if shares is None else shares.tolist(), strict=True)
        )
        n_rows = {domain.name: domain.n_rows for domain in self._planner.domains}
        total = max(1, sum(cursor.rows_drawn))
        return Stats(
            step=cursor.step,
            n_tokens={name: drawn[name] * self.sequence_length for name in self.domains},
            token_shares={name: drawn[name] / total for name in self.domains},
            epochs={name: drawn[name] / max(1, n_rows[name]) for name in self.domains},
            weights={name: in_force[name] / ROW for name in self.domains},
            events=[
                {"step": e.step, "domain": e.domain, "event": "reached max_epochs"} for e in cursor.events
            ],
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the batches after the last one handed out; plain JSON, equal on all ranks.

        Its size does not grow with the run: past weights are left out.
        """
        cursor = self._cursor()
        return {
            "version": STATE_VERSION,
            "step": cursor.step,
            **self._scalars(),
            "domains": {
                domain.name: {
                    **self._identity(domain),
                    "rows_drawn": cursor.rows_drawn[k],
                    "credit": cursor.credit[k],
                }
                for k, domain in enumerate(self._planner.domains)
            },
            "schedule": self._encode(self._planner.entries_from(cursor.step)),
            "events": [[event.step, event.domain] for event in cursor.events],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly where `state` was taken, without replaying; O(domains).

        The state's schedule holds, with what `set_weights` did to it; for other weights call `set_weights`
        after loading. What may differ: rank and world_size, steps, the order of sources and where they
        lie, and further domains whose weight is 0.

        Raises:
            ValueError: names the field that differs. The loader is left as it was.
        """
        if (version := state.get("version")) != STATE_VERSION:
            raise ValueError(f"state: version is {version!r}; this version of cuvee reads {STATE_VERSION}")
        if missing := {"step", "domains", "schedule", "events", *self._scalars()} - state.keys():
            raise ValueError(
                f"state: {', '.join(sorted(missing))} missing; this is not a loader's whole state"
            )
        saved: Mapping[str, Mapping[str, Any]] = state["domains"]
        if lost := sorted(set(saved) - set(self._stores)):
            raise ValueError(
                f"state: domains: {lost} not among the sources; add them (weight 0 leaves one out)"
            )
        for field, ours in self._scalars().items():
            _check_same(field, state[field], ours)
        for domain in self._planner.domains:
            for field, identity in self._identity(domain).items():
                if domain.name in saved:
                    _check_same(f"domains.{domain.name}.{field}", saved[domain.name][field], identity)
        names = list(self._stores)
        cursor = Cursor(
            step=state["step"],
            rows_drawn=tuple(saved[name]["rows_drawn"] if name in saved else 0 for name in names),
            credit=tuple(saved[name]["credit"] if name in saved else 0 for name in names),
            events=tuple(Event(*event) for event in state["events"]),
        )
        self._planner.schedule = [
            (start, np.array([shares.get(name, 0) for name in names], np.int64))
            for start, shares in state["schedule"]
        ]
        self._plan_from(cursor)

    def _scalars(self) -> dict[str, int | str]:
        """The arguments that a state must agree with."""
        return {
            "sequence_length": self.sequence_length,
            "global_batch": self.global_batch,
            "seed": self.seed,
            "weights": self._schedule_given,
        }

    def _identity(self, domain: Domain) -> dict[str, int | str | None]:
        """What a state must agree with in each domain."""
        return {"fingerprint": self._stores[domain.name].fingerprint, "max_rows": domain.max_rows}

    def _encode(self, schedule: Schedule) -> list[tuple[int, dict[str, int]]]:
        """The schedule in plain JSON; domains without a share are left out, so that adding one is free."""
        names = list(self._stores)
        return [
            (start, {name: share for name, share in zip(names, shares.tolist(), strict=True) if share})
            for start, shares in schedule
        ]

    def _lay_out_streams(self) -> None:
        """One address space over all domains' shards, so that a batch is one call of the gather kernel."""
        stores = self._stores.values()
        self._stream = TokenStream([piece for store in stores for piece in store.pieces])
        self._first_token = np.cumsum([0, *(store.n_tokens for store in stores)])[:-1]  # (n_domains,)
        self._domain_ids = np.array([self.domains.index(name) for name in self._stores])  # (n_domains,)

    def _plan_from(self, cursor: Cursor) -> None:
        n_steps = max(1, N_PLANNED_ROWS // self.global_batch)
        self._start, self._n_given = cursor, 0
        self._plan, self._after = self._planner.plan(cursor, n_steps)

    def _cursor(self) -> Cursor:
        """Behind the last batch handed out: planned again from the start of the plan, without tokens."""
        return self._planner.plan(self._start, self._n_given)[1]

    def _gather(self, index: int) -> Batch:
        import torch

        domains = self._plan.domains[index, self._rows_of_rank]
        rows = self._plan.rows[index, self._rows_of_rank]
        inputs, labels = self._buffers.take(), self._buffers.take()
        gather(self._stream, self._first_token[domains] + rows * self.sequence_length, inputs, labels)
        return Batch(
            step=self._start.step + index,
            input_ids=torch.from_numpy(inputs),
            labels=torch.from_numpy(labels),
            domain_ids=torch.from_numpy(self._domain_ids[domains]),
            row_ids=torch.from_numpy(rows.copy()),  # not a view, which would keep the whole plan alive
        )


def _check_counts(sequence_length: int, global_batch: int, rank: int, world_size: int) -> None:
    for name, value in (
        ("sequence_length", sequence_length),
        ("global_batch", global_batch),
        ("world_size", world_size),
    ):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    if global_batch % world_size:
        raise ValueError(f"world_size {world_size} does not divide global_batch {global_batch}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank is {rank}; with world_size {world_size} it must lie in [0, {world_size})")


def _check_tokenizers(stores: Mapping[str, TokenStore]) -> None:
    if not stores:
        raise ValueError("sources: none given; name at least one domain")
    first, *others = stores.items()
    for field in ("tokenizer_hash", "vocab_size", "eos_id", "dtype"):
        expected = getattr(first[1], field)
        for name, store in others:
            if (found := getattr(store, field)) != expected:
                raise ValueError(
                    f"sources: {field} of {name!r} is {found}, of {first[0]!r} it is {expected}; "
                    "tokenize all domains with one tokenizer"
                )


def _check_same(field: str, saved: object, ours: object) -> None:
    if saved != ours:
        raise ValueError(
            f"state: {field} is {saved!r}, this loader's is {ours!r}; {_REMEDIES[field.split('.')[-1]]}"
        )


_REMEDIES = {
    "sequence_length": "rows would be cut elsewhere; load it with the saved sequence_length",
    "global_batch": "load it with the saved global_batch",
    "seed": "the order would differ; load it with the saved seed",
    "weights": "build the loader with the saved run's weights and schedule, and then set_weights",
    "fingerprint": "the data changed; give the shards that the run was started on",
    "max_rows": "load it with the saved max_epochs",
}


def _schedule_hash(schedule: list[tuple[int, dict[str, int]]]) -> str:
    return blake2b(repr(schedule).encode(), digest_size=8).hexdigest()

"""The loader: asks the planner for global batches, gathers this rank's rows, and resumes exactly."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypedDict

import numpy as np
from numpy.typing import NDArray

from ..kernels.apportion import ROW, largest_remainder
from ..kernels.gather import TokenLayout
from .assemble import Assembler
from .batch import FIELDS, Batch, FieldName
from .domains import DomainMaker
from .executors import BackgroundThread, Executor, Inline, Maker, Planned, group_size, grouped, planned
from .growth import Growth
from .integrity import Verifier
from .lookahead import fetched_ahead
from .mixture_file import read_mixture
from .packing import PACKINGS, PackingName, epochs_at
from .plan import Cursor, Planner
from .processes import WorkerProcesses
from .residency import Residency
from .schedule import Ramp, WeightSchedule, bounds_of
from .sources import Source, open_sources, shards_of
from .state import decode, encode, given_weights, saved_growths
from .warm_up import kernels
from .weights import check_names, epoch_caps, shares_of

# From this many tokens of a rank's batch on, a thread's hand-over (some 0.1 ms) is a small part of the work.
N_TOKENS_FOR_THREAD = 2**18


class Stats(TypedDict):
    """What `StreamingLoader.stats` returns: plain JSON values, over the global batches handed out so far."""

    step: int
    n_tokens: dict[str, int]
    n_padding: dict[str, int]
    fill: float
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
        sources: domain -> its folder of token shards, an fsspec URI of one, like "s3://bucket/tokens/web",
            or an open TokenStore. Orders are keyed by name: which rows of a domain come in which order
            depends neither on the other domains nor on the order of this mapping, nor on where they lie.
        weights: share of the tokens, by domain, summing to one; 0 leaves a domain out for now. None: in
            proportion to the domains' tokens, or as a WeightSchedule says. A path: of a mixture file
            (mixture_file.py), whose `max_epochs` hold unless they are given here.
        sequence_length: L, tokens of a row.
        global_batch: B, rows of one step over all ranks; see `set_global_batch`.
        seed: of the shuffles.
        packing: how documents become rows, "concat", "crop" or "best_fit"; see packing.py.
        emit: the fields of a batch, of batch.py; input_ids among them.
        mask_boundaries: labels are -100 where the next token is another document's. False, for concat and
            crop: they are that token.
        max_epochs: how often a domain may be repeated, for all or by domain; None: without end. A domain that
            reaches it leaves its weight to the others, in proportion, and `stats` records the event.
        schedule: later weights, [(start_step, weights), ...], ascending; or a WeightSchedule instead of
            `weights`, by tokens.
        floors, ceilings: the least and the largest share of the tokens of some domains, at every step,
            whatever weights say: the others keep their proportions.
        objective: weights of the loss, by domain; a row's weight is its domain's over the one it was drawn
            with, so that the expected loss stays that of `objective`. For `emit` with "weights".
        rank: of this process.
        world_size: number of processes; divides global_batch.
        split: of the sources that are given as folders.
        steps: of the run; None: until the domains are exhausted, if ever.
        prefetch: groups of batches that a background thread makes before they are asked for (a group is a
            batch, or as many as have N_TOKENS_HANDED_OVER tokens); 0: none, made when asked. None: 2 where a
            rank's batch has N_TOKENS_FOR_THREAD tokens or more, else 0.
        workers: processes that read tokens, instead of the thread.
        pin_memory: of the large tensors, for copies to a device that don't wait.
        verify: compare each shard with its checksum before its first tokens are handed out, and replace rows
            of those that don't match (integrity.py). Reads every shard once, at 1 GB/s.
        cache: a local folder, for shards that lie at URIs: each is fetched when a batch needs it, or ahead of
            that, checked by its checksum, and kept while there is room. Ranks of one machine share it. A
            global shuffle draws from all shards, so a cache of less than all of them fetches many again.
        cache_bytes: of the files in it, at most; None: without end.
    Raises:
        ValueError: names the argument or the source, what was found, what is allowed and what to do.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        weights: Mapping[str, float] | str | Path | None = None,
        *,
        sequence_length: int,
        global_batch: int,
        seed: int = 0,
        packing: PackingName = "concat",
        emit: Sequence[FieldName] = ("input_ids", "labels", "domain_ids", "row_ids"),
        mask_boundaries: bool = True,
        max_epochs: float | Mapping[str, float] | None = None,
        schedule: Sequence[tuple[int, Mapping[str, float]]] | WeightSchedule | None = None,
        floors: Mapping[str, float] | None = None,
        ceilings: Mapping[str, float] | None = None,
        objective: Mapping[str, float] | None = None,
        rank: int = 0,
        world_size: int = 1,
        split: str = "train",
        steps: int | None = None,
        prefetch: int | None = None,
        workers: int = 0,
        pin_memory: bool = False,
        verify: bool = False,
        cache: str | Path | None = None,
        cache_bytes: int | None = None,
    ) -> None:
        _check_counts(sequence_length, global_batch, rank, world_size, prefetch or 0, workers)
        _check_packing(packing, emit, mask_boundaries)
        if isinstance(weights, str | Path):
            weights, its_epochs = read_mixture(weights)
            max_epochs = its_epochs if max_epochs is None else max_epochs
        self.domains, self.steps = tuple(sources), steps
        self.sequence_length, self.global_batch, self.seed = sequence_length, global_batch, seed
        self.packing: PackingName = packing
        self.emit = tuple(emit)
        self._rank, self._world_size = rank, world_size
        # Sorted by name: ties in the mixture fall the same way for every order of the sources.
        self._stores, files = open_sources(sources, split, cache, cache_bytes)
        names = list(self._stores)
        layout, n_bytes_of_offsets = None, 0
        if packing == "best_fit":  # the one that plans by documents
            offsets = [ends for store in self._stores.values() for ends in store.offsets]
            layout = TokenLayout([int(ends[-1]) for ends in offsets], offsets)
            n_bytes_of_offsets = sum(store.n_offset_bytes for store in self._stores.values())
        residency = Residency(
            shards_of(self._stores), files, reads_next=not mask_boundaries, n_bytes_besides=n_bytes_of_offsets
        )
        self._max_epochs = epoch_caps(max_epochs, names)
        self._domain_maker = DomainMaker(
            self._stores, layout, packing, seed, sequence_length, self._max_epochs
        )
        made = {name: self._domain_maker.new(name, compiled=kernels.done_already()) for name in names}
        self._growths = {name: growth for name, (growth, _) in made.items()}
        self._planner = Planner(
            [domain for _, domain in made.values()],
            global_batch,
            self._weights(weights, schedule),
            bounds_of(floors, ceilings, names),
            compiled=kernels.done_already(),
        )
        for start_step, later in schedule if schedule and not isinstance(schedule, WeightSchedule) else ():
            self._planner.append(start_step, shares_of(later, names))
        by_tokens = weights is None and not isinstance(schedule, WeightSchedule)
        self._weights_given = given_weights(self._planner, names, by_tokens=by_tokens)
        tokens_of_rank = global_batch // world_size * sequence_length
        self._n_ahead = 2 * (tokens_of_rank >= N_TOKENS_FOR_THREAD) if prefetch is None else prefetch
        self._n_workers = workers
        assembler = Assembler(
            sequence_length,
            self.emit,
            pad_id=next(iter(self._stores.values())).eos_id,
            mask_boundaries=mask_boundaries,
            domain_ids=np.array([self.domains.index(name) for name in names]),
            objective=None if objective is None else shares_of(objective, names, "objective") / ROW,
            n_ahead=(self._n_ahead + 1) * group_size(tokens_of_rank) if self._n_ahead else 0,
            pin_memory=pin_memory,
        )
        packings = [domain.packing for domain in self._planner.domains]
        self._verifier = Verifier(self._stores, packings, residency, seed) if verify else None
        # Apart from the loader, which a thread that makes batches must not keep alive.
        self._maker = Maker(assembler, residency, self._verifier, rank, world_size)
        self._executor: Executor | None = None
        self._begin_at(self._planner.start())

    @property
    def step(self) -> int:
        """The step of the next batch: how many were handed out."""
        return self._start.step + self._n_given

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        if self.steps is not None and self.step >= self.steps:
            raise StopIteration
        if self._executor is None:
            self._executor = self._new_executor()
        made = self._executor.next()
        if made is None:
            raise StopIteration
        planned_step, batch = made
        self._start, self._n_given = planned_step.start, planned_step.index + 1
        kernels.done()  # from the first batch on they are loaded in the background
        return batch

    def __len__(self) -> int:
        """Batches of the whole run, those handed out included. O(rows to come) if max_epochs may end it.

        Raises:
            TypeError: the run has no end.
        """
        if not self._may_exhaust():
            if self.steps is None:
                raise TypeError("this loader has no end; pass steps, or max_epochs for every domain")
            return max(self.steps, self.step)
        self._planner.compiled = kernels.done(wait=True)
        cursor = self._cursor()
        while self.steps is None or cursor.step < self.steps:
            n_steps = 1024 if self.steps is None else min(1024, self.steps - cursor.step)
            after = self._planner.advance(cursor, n_steps)
            if after.step == cursor.step:
                break
            cursor = after
        return cursor.step

    def set_weights(self, weights: Mapping[str, float], at_step: int | None = None) -> None:
        """Let other weights hold from `at_step` on (the next batch by default). Call it alike on every rank.

        They end a WeightSchedule. Floors and ceilings go on to hold.

        Raises:
            ValueError: as for the constructor's weights; at_step was handed out already, or lies before the
                schedule's last entry.
        """
        shares = shares_of(weights, list(self._stores))
        at_step = self._future(at_step)
        self._replan(lambda: self._planner.append(at_step, shares))

    def set_global_batch(self, global_batch: int, at_step: int | None = None) -> None:
        """Let batches have other rows from `at_step` on (the next batch by default), losing none.

        Call it alike on every rank. `global_batch` the argument, which a state is checked against, stays.

        Raises:
            ValueError: world_size does not divide it; at_step was handed out already, or lies before the
                last change.
        """
        _check_counts(self.sequence_length, global_batch, self._rank, self._world_size)
        at_step = self._future(at_step)
        self._replan(lambda: self._planner.resize(at_step, global_batch))

    def stats(self) -> Stats:
        """Realised tokens, padding, shares and epochs of each domain, the weights of the next row, events.

        Shares are of rows, padding included: what weights divide. `fill` is the part of all rows that is no
        padding.
        """
        cursor = self._cursor()
        shares = self._planner.shares_at(cursor)
        ours = {name: k for k, name in enumerate(self._stores)}
        total, room = max(1, cursor.n_rows), self.sequence_length
        events: list[dict[str, int | str]] = [
            {"step": e.step, "domain": e.domain, "event": e.what} for e in cursor.events
        ]
        for found in self._verifier.quarantined if self._verifier else ():
            event = f"quarantined {found.shard}"
            events.append({"step": found.step, "domain": found.domain, "event": event})
        return Stats(
            step=cursor.step,
            n_tokens={name: cursor.tokens_drawn[ours[name]] for name in self.domains},
            n_padding={
                name: cursor.rows_drawn[ours[name]] * room - cursor.tokens_drawn[ours[name]]
                for name in self.domains
            },
            fill=sum(cursor.tokens_drawn) / (total * room) if cursor.n_rows else 1.0,
            token_shares={name: cursor.rows_drawn[ours[name]] / total for name in self.domains},
            epochs={
                name: epochs_at(self._planner.domains[k].packing, cursor.positions[k])
                for name, k in ((name, ours[name]) for name in self.domains)
            },
            weights={name: 0.0 if shares is None else int(shares[ours[name]]) / ROW for name in self.domains},
            events=events,
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the batches after the last one handed out; plain JSON, equal on all ranks.

        Its size does not grow with the run: past weights are left out.
        """
        return encode(self._planner, self._cursor(), self._arguments(), self._identities(), self._growths)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly where `state` was taken, without replaying; O(domains), whatever the position.

        The state's weights and batch sizes hold, with what `set_weights` and `set_global_batch` did to them;
        for others call those after loading. What may differ: rank and world_size, steps, emit, executors,
        the order of sources and where they lie, and further domains whose weight is 0. A domain may have
        further shards behind those that it had: their rows come at the end of its epoch in progress, and
        everywhere in the next (growth.py), and `stats` records the event.

        Raises:
            ValueError: names the field that differs. The loader is left as it was.
        """
        saved = saved_growths(state)
        cursor, schedule, batch_sizes = decode(
            state, self._arguments(), self._identities(saved), self._planner.start()
        )
        for _, rows in batch_sizes:
            _check_counts(self.sequence_length, rows, self._rank, self._world_size)
        now = dict(zip(self._stores, self._planner.domains, strict=True))
        growths, domains, cursor = self._domain_maker.resumed(saved, cursor, self._growths, now)
        self.close()
        self._growths, self._planner.domains = growths, tuple(domains)
        if self._verifier is not None:
            self._verifier.packings = [domain.packing for domain in domains]
        self._planner.schedule, self._planner.batch_sizes = schedule, batch_sizes
        self._begin_at(cursor)

    def close(self) -> None:
        """End the thread or the worker processes. Asking for a batch starts them again, where it stopped."""
        if self._executor is not None:
            self._executor.close()
            cursor, self._executor = self._cursor(), None
            self._begin_at(cursor)
        self._maker.residency.close()

    def _steps(self) -> Iterator[Planned]:
        steps = planned(self._planner, self._cursor(), self.steps, kernels.done_already)
        if self._maker.residency.whole is not None:
            return steps
        return fetched_ahead(steps, self._maker.pieces_of, self._maker.residency)

    def _groups(self) -> Iterator[list[Planned]]:
        return grouped(self._steps(), self._largest_batch() * self.sequence_length)

    def _new_executor(self) -> Executor:
        if self._n_workers:
            paths = [str(Path(p).resolve()) for store in self._stores.values() for p in store.shard_places]
            n_ahead = max(2, self._n_ahead)
            return WorkerProcesses(
                self._groups(), self._maker, paths, self._n_workers, n_ahead, self._largest_batch()
            )
        if self._n_ahead:
            return BackgroundThread(self._groups(), self._maker, self._n_ahead)
        return Inline(self._steps(), self._maker)

    def _largest_batch(self) -> int:
        """Rows of this rank, from this step on."""
        return max(size for _, size in self._planner.batch_sizes_from(self.step)) // self._world_size

    def _replan(self, change: Callable[[], None]) -> None:
        """Change the planner, and go on with the batch after the last one handed out."""
        cursor, executor = self._cursor(), self._executor
        if isinstance(executor, WorkerProcesses):
            executor.drain()  # processes are kept: they take a second to start
        else:
            self.close()  # before the planner changes: a thread may be planning
        change()
        self._begin_at(cursor)
        if isinstance(executor, WorkerProcesses):
            if self._largest_batch() <= executor.max_rows:
                executor.follow(self._groups())
            else:
                self.close()

    def _begin_at(self, cursor: Cursor) -> None:
        self._start, self._n_given = cursor, 0

    def _cursor(self) -> Cursor:
        """Behind the last batch handed out: planned again from the start of its plan, without rows."""
        return self._planner.advance(self._start, self._n_given)

    def _future(self, at_step: int | None) -> int:
        at_step = self.step if at_step is None else at_step
        if at_step < self.step:
            raise ValueError(f"at_step is {at_step}; batches before step {self.step} were handed out already")
        return at_step

    def _weights(
        self,
        weights: Mapping[str, float] | None,
        schedule: Sequence[tuple[int, Mapping[str, float]]] | WeightSchedule | None,
    ) -> NDArray[np.int64] | Ramp:
        names = list(self._stores)
        if isinstance(schedule, WeightSchedule):
            if weights is not None:
                raise ValueError("weights: a WeightSchedule has them already, at 0 tokens; leave them out")
            return schedule.ramp(names, self.sequence_length)
        if weights is None:
            return largest_remainder(np.array([store.n_tokens for store in self._stores.values()]), ROW)
        return shares_of(weights, names)

    def _may_exhaust(self) -> bool:
        """Whether weights, now or later, are all of domains with a limit."""
        limited = np.array([domain.end is not None for domain in self._planner.domains])
        if self._planner.bounds is not None and np.array(self._planner.bounds[0])[~limited].any():
            return False
        shares = [entry for _, entry in self._planner.entries_from(self.step)]
        shares += [np.array(point) for point in (self._planner.ramp.shares if self._planner.ramp else ())]
        return any(not entry[~limited].any() for entry in shares)

    def _arguments(self) -> dict[str, int | str]:
        """What a state must agree with."""
        return {
            "sequence_length": self.sequence_length,
            "global_batch": self.global_batch,
            "seed": self.seed,
            "packing": self.packing,
            "weights": self._weights_given,
        }

    def _identities(
        self, saved: Mapping[str, Growth] | None = None
    ) -> dict[str, dict[str, int | float | str | None]]:
        """What a state must agree with in each domain: as it is, or as far as `saved` knows its shards."""
        n_shards = {name: growth.n_shards[-1] for name, growth in (saved or {}).items()}
        return {
            name: {
                "fingerprint": store.fingerprint_of(n_shards.get(name, store.n_shards)),
                "max_epochs": self._max_epochs[name],
            }
            for name, store in self._stores.items()
        }


def _check_counts(
    sequence_length: int, global_batch: int, rank: int, world_size: int, prefetch: int = 0, workers: int = 0
) -> None:
    for name, value in (
        ("sequence_length", sequence_length),
        ("global_batch", global_batch),
        ("world_size", world_size),
    ):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    for name, value in (("prefetch", prefetch), ("workers", workers)):
        if value < 0:
            raise ValueError(f"{name} is {value}; it must be at least 0")
    if global_batch % world_size:
        raise ValueError(f"world_size {world_size} does not divide global_batch {global_batch}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank is {rank}; with world_size {world_size} it must lie in [0, {world_size})")


def _check_packing(packing: str, emit: Sequence[str], mask_boundaries: bool) -> None:
    check_names("packing", [packing], PACKINGS, "packing")
    check_names("emit", emit, FIELDS, "field")
    if "input_ids" not in emit:
        raise ValueError(f"emit: {tuple(emit)} lacks 'input_ids'; a batch always has them")
    if packing == "best_fit" and not mask_boundaries:
        raise ValueError(
            "mask_boundaries: best_fit puts documents side by side in no order that a label could follow; "
            "leave it True, or pack by 'concat'"
        )

"""The loader: asks the planner for global batches, gathers this rank's rows, and resumes exactly."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..kernels.apportion import ROW, largest_remainder
from ..kernels.gather import TokenLayout
from .arguments import check_counts, check_not_grown, check_packing, check_vsl
from .assemble import Assembler
from .batch import Batch, FieldName
from .curriculum import LengthPlanner, domains_by_length
from .decomposition import Vsl
from .domains import DomainMaker
from .executors import (
    MAX_GROUP,
    N_TOKENS_BY_PROCESS,
    N_TOKENS_HANDED_OVER,
    BackgroundThread,
    Executor,
    Inline,
    Maker,
    Planned,
    group_size,
    grouped,
    planned,
)
from .growth import Growth
from .integrity import Verifier
from .lookahead import MAX_STEPS_AHEAD, fetched_ahead
from .mixture_file import read_mixture
from .online import Online, OnlineMixing
from .packing import PackingName
from .plan import Bounds, Cursor, Domain, Planner
from .policies import Policy
from .processes import WorkerProcesses
from .ranks import Ranks, ranks_of
from .residency import Residency
from .schedule import Ramp, WeightSchedule, bounds_of
from .selectors import Selector
from .sources import Source, open_sources, shards_of
from .state import decode, encode, given_weights, saved_growths
from .stats import Stats, stats_of
from .superbatch import Superbatches
from .warm_up import kernels
from .weights import WeightUnit, epoch_caps, shares_of, token_weights

# From this many tokens of a rank's batch on, a thread's hand-over (some 0.1 ms) is a small part of the work.
N_TOKENS_FOR_THREAD = 2**18


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
        weight_unit: what `weights`, a schedule's and those that are set later are shares of: "tokens",
            "rows" (the same, but for padding) or "documents", of the domain's mean length. Floors, ceilings,
            objective and stats are of tokens.
        sequence_length: L, tokens of a row.
        global_batch: B, rows of one step over all ranks; see `set_global_batch`.
        seed: of the shuffles.
        packing: how documents become rows, "concat", "crop" or "best_fit" (packing.py), "vsl" or a `Vsl`:
            sequences of varying length, as many tokens in every batch (decomposition.py). With the last,
            weights are for steps (no WeightSchedule, floors or ceilings), and `verify`, appended shards, a
            policy and super-batches are not supported.
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
        workers: processes that read tokens, instead of the thread. Not on Windows.
        pin_memory: of the large tensors, for copies to a device that don't wait.
        verify: compare each shard with its checksum before its first tokens are handed out, and replace rows
            of those that don't match (integrity.py). Reads every shard once, at 1 GB/s.
        window: shards of a domain that are shuffled together, one such group after another, the groups drawn
            anew for each epoch; None: all. For data larger than memory or cache: a batch touches at most as
            many shards of each domain (orders.py).
        cache: a local folder, for shards that lie at URIs: each is fetched when a batch needs it, or ahead of
            that, checked by its checksum, and kept while there is room. Ranks of one machine share it. A
            global shuffle draws from all shards, so a cache of less than all of them fetches many again: give
            a `window` that fits.
        cache_bytes: of the files in it, at most; None: without end.
        policy: what the weights follow while training reports losses by `feedback`, an OnlineMixing or the
            name of a policy with the defaults of one. `weights` are its prior, then; `schedule` is left out.
        ranks: how ranks add up their reports; None: by torch.distributed where world_size is above 1.
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
        weight_unit: WeightUnit = "tokens",
        seed: int = 0,
        packing: PackingName | Vsl = "concat",
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
        window: int | None = None,
        cache: str | Path | None = None,
        cache_bytes: int | None = None,
        policy: OnlineMixing | str | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        check_counts(sequence_length, global_batch, rank, world_size, prefetch or 0, workers)
        if window is not None and window < 1:
            raise ValueError(f"window is {window}; it must be at least 1 shard")
        vsl = Vsl() if packing == "vsl" else packing if isinstance(packing, Vsl) else None
        name_of_packing: PackingName = "vsl" if isinstance(packing, Vsl) else packing
        check_packing(name_of_packing, emit, mask_boundaries)
        if vsl is not None:
            check_vsl(schedule=schedule, floors=floors, ceilings=ceilings, verify=verify, policy=policy)
        if isinstance(weights, str | Path):
            weights, its_epochs = read_mixture(weights)
            max_epochs = its_epochs if max_epochs is None else max_epochs
        self.domains, self.steps = tuple(sources), steps
        self.sequence_length, self.global_batch, self.seed = sequence_length, global_batch, seed
        self.packing: PackingName = name_of_packing
        self._packing_saved = self.packing if vsl is None else repr(vsl)
        self.emit = tuple(emit)
        self._rank, self._world_size = rank, world_size
        # Sorted by name: ties in the mixture fall the same way for every order of the sources.
        self._stores, files = open_sources(sources, split, cache, cache_bytes)
        names = list(self._stores)
        layout, n_bytes_of_offsets = None, 0
        if self.packing in ("best_fit", "vsl"):  # those that plan by documents
            offsets = [ends for store in self._stores.values() for ends in store.offsets]
            layout = TokenLayout([int(ends[-1]) for ends in offsets], offsets)
            n_bytes_of_offsets = sum(store.n_offset_bytes for store in self._stores.values())
        residency = Residency(
            shards_of(self._stores), files, reads_next=not mask_boundaries, n_bytes_besides=n_bytes_of_offsets
        )
        self._max_epochs = epoch_caps(max_epochs, names)
        self._weight_unit: WeightUnit = weight_unit
        self._domain_maker = DomainMaker(
            self._stores, layout, self.packing, seed, sequence_length, self._max_epochs, window
        )
        self._growths = {name: Growth(0, (store.n_shards,)) for name, store in self._stores.items()}
        shares, bounds = self._weights(weights, schedule), bounds_of(floors, ceilings, names)
        self._planner = (
            self._new_planner(global_batch, shares, bounds)
            if vsl is None
            else self._new_length_planner(global_batch, shares, vsl)
        )
        for start_step, later in schedule if schedule and not isinstance(schedule, WeightSchedule) else ():
            self._planner.append(start_step, self._shares(later))
        by_tokens = weights is None and not isinstance(schedule, WeightSchedule)
        self._weights_given = given_weights(self._planner, names, by_tokens=by_tokens)
        tokens_of_rank = global_batch // world_size * sequence_length
        self._n_ahead = 2 * (tokens_of_rank >= N_TOKENS_FOR_THREAD) if prefetch is None else prefetch
        self._n_workers = workers
        self._ranks_given, self._online = ranks, None
        self._superbatches: Superbatches | None = None
        self._superbatch_state: Mapping[str, Any] | None = None
        if policy is not None:
            self._online = self._online_of(policy, schedule)
            self._online.check_lag(self._n_groups_ahead(), is_remote=residency.whole is None)
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

    def _new_planner(
        self, global_batch: int, shares: NDArray[np.int64] | Ramp, bounds: Bounds | None
    ) -> Planner:
        compiled = kernels.done_already()
        domains = [
            self._domain_maker.domain(name, growth, compiled=compiled)
            for name, growth in self._growths.items()
        ]
        return Planner(domains, global_batch, shares, bounds, compiled=compiled)

    def _new_length_planner(
        self, global_batch: int, shares: NDArray[np.int64] | Ramp, vsl: Vsl
    ) -> LengthPlanner:
        maker, compiled = self._domain_maker, kernels.done_already()
        assert maker.layout is not None
        assert not isinstance(shares, Ramp)
        by_length = domains_by_length(
            self._stores,
            maker.layout,
            self.seed,
            self.sequence_length,
            vsl,
            self._max_epochs,
            maker.window,
            compiled=compiled,
        )
        return LengthPlanner(
            by_length, global_batch, shares, self.sequence_length, vsl, self.seed, compiled=compiled
        )

    @property
    def step(self) -> int:
        """The step of the next batch: how many were handed out."""
        return self._start.step + self._n_given

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        if self.steps is not None and self.step >= self.steps:
            raise StopIteration
        if self._online is not None and self.step >= self._online.next_report:
            self._report(self._online)
        if self._executor is None:
            self._executor = self._new_executor()
        made = self._executor.next()
        if made is None:
            raise StopIteration
        planned_step, batch = made
        self._start, self._n_given, self._given = planned_step.start, planned_step.index + 1, planned_step
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
        if self._online is not None:
            raise ValueError(
                "set_weights: this loader's policy sets the weights; build one without policy, with "
                "read_weight_log to repeat what it did so far"
            )
        shares = self._shares(weights)
        at_step = self._future(at_step)
        self._replan(lambda: self._planner.append(at_step, shares))

    def set_global_batch(self, global_batch: int, at_step: int | None = None) -> None:
        """Let batches have other rows from `at_step` on (the next batch by default), losing none.

        Call it alike on every rank. `global_batch` the argument, which a state is checked against, stays.

        Raises:
            ValueError: world_size does not divide it; at_step was handed out already, or lies before the
                last change.
        """
        check_counts(self.sequence_length, global_batch, self._rank, self._world_size)
        at_step = self._future(at_step)
        self._replan(lambda: self._planner.resize(at_step, global_batch))

    def feedback(
        self,
        batch: Batch | None = None,
        *,
        loss_per_row: Any = None,
        loss_per_token: Any = None,
        reward_per_row: Any = None,
        domain_losses: Mapping[str, float] | None = None,
    ) -> None:
        """Tell the policy, or the selector of super-batches, how training went; one of the four.

        Microseconds, and no wait for a device. A selector that learns from rows trained on sees those of the
        batches that `select` gave before it chooses next, on rank 0 for all; reports are heard for MAX_OPEN
        selections.

        May be called from any thread, late (up to MAX_LATE steps), in any order, for some batches only or
        never. What is not finite is left out and counted; a row that was reported already is not counted
        again. Ranks report their own rows.

        Args:
            batch: as the loader gave it, moved to a device, or one of its micro-batches.
            loss_per_row: (rows,), mean loss of each row's tokens, nats; each row counts for sequence_length
                tokens.
            loss_per_token: (rows, sequence_length) or flattened, nats; tokens whose label is -100 do not
                count (if batches have labels).
            reward_per_row: (rows,), for a policy whose reports are rewards.
            domain_losses: of held-out tokens, by domain (some or all), for a policy that reads those; without
                a batch. Ranks' losses are averaged.
        Raises:
            ValueError: there is neither a policy nor super-batches, the policy reads something else, or a
                shape is not the batch's.
        """
        if self._online is None and self._superbatches is None:
            raise ValueError("feedback: this loader has no policy; make it with policy='mirror_descent'")
        given = {
            "loss_per_row": loss_per_row,
            "loss_per_token": loss_per_token,
            "reward_per_row": reward_per_row,
            "domain_losses": domain_losses,
        }
        told = {name: each for name, each in given.items() if each is not None}
        if self._online is not None:
            self._online.tell(batch, self.step, told)
        elif batch is None or list(told) not in (["loss_per_row"], ["loss_per_token"]):
            raise ValueError("feedback: selectors learn from a batch and loss_per_row or loss_per_token")
        if self._superbatches is not None and batch is not None:
            self._superbatches.tell(batch, told)

    def superbatches(
        self, factor: int, method: str | Selector = "random", *, requeue: int = 0, **parameters: Any
    ) -> Superbatches:
        """Candidates instead of batches: `factor` batches at a time, of which `select` keeps one.

            for candidates in loader.superbatches(4, "rho"):
                scores = row_losses(model, candidates.batch)
                batch = candidates.select(scores=scores, reference_losses=...)

        Steps count the batches drawn, `factor` for each super-batch. One loader has one kind of super-batch,
        and asking for it again goes on; `state_dict` (on every rank) holds the selector and the requeued
        rows. `feedback` may be given for the candidates, which nothing was selected from, or for the rows
        kept.

        Args:
            factor: batches in a super-batch.
            method: which rows are kept: a name of selectors.py, or a selector.
            requeue: batches' worth of rows that were not kept, drawn at random, which are candidates once
                more in the next super-batch, besides its own; 0: they are dropped.
            parameters: of a method that is named.
        Raises:
            ValueError: as for selectors; or the state that was loaded is of other super-batches.
        """
        if self.packing == "vsl":
            raise ValueError("superbatches: not supported with packing 'vsl'; pack by 'best_fit'")
        before, state = self._superbatches, self._superbatch_state
        if before is not None:
            state = before.state_dict()
        self._superbatches = Superbatches(
            self._drawn,
            self._maker,
            ranks_of(self._rank, self._world_size, self._ranks_given),
            list(self._stores),
            self._first_tokens,
            self.seed,
            factor,
            method,
            parameters,
            requeue,
        )
        if state is not None:
            self._superbatches.load_state_dict(state)
            self._superbatch_state = None
        return self._superbatches

    @property
    def policy(self) -> Policy | None:
        """The policy that the weights follow."""
        return None if self._online is None else self._online.policy

    @property
    def weight_log(self) -> list[tuple[int, dict[str, float]]]:
        """Which weights hold from which step on, since this loader was made or loaded; only ever appended to.

        `weights` and `schedule` of another loader, it repeats this one's batches without reports.
        """
        return [
            (start, {name: share / ROW for name, share in zip(self._stores, shares.tolist(), strict=True)})
            for start, shares in self._planner.schedule
        ]

    def stats(self) -> Stats:
        """Realised tokens, padding, shares and epochs of each domain, the weights of the next row, events.

        Shares are of rows, padding included: what weights divide. `fill` is the part of all rows that is no
        padding. `left_out` is the part of a domain's tokens that no row has: with vsl, targets of nothing and
        remainders; else less than two rows, counted as 0.
        """
        events = self._verifier.quarantined if self._verifier else ()
        return stats_of(
            self._planner, self._cursor(), list(self._stores), self.domains, self.sequence_length, events
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the batches after the last one handed out; plain JSON, equal on all ranks.

        Its size does not grow with the run: past weights are left out. With a policy and several ranks all
        of them call it, for it adds up what they were told.
        """
        state = encode(self._planner, self._cursor(), self._arguments(), self._identities(), self._growths)
        if self._superbatch_state is not None:  # loaded, and not asked for yet
            state["superbatches"] = self._superbatch_state
        if self._online is not None:
            state["online"] = self._online.state_dict(self.step)
        if self._superbatches is not None:
            state["superbatches"] = self._superbatches.state_dict()
        return state

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
        if ("online" in state) != (self._online is not None):
            whose = "the saved run's, and this loader has none" if self._online is None else "new"
            raise ValueError(
                f"state: policy is {whose}; a run keeps its policy, or begins a new one from read_weight_log"
            )
        saved = saved_growths(state)
        cursor, schedule, batch_sizes = decode(
            state, self._arguments(), self._identities(saved), self._planner.start()
        )
        for _, rows in batch_sizes:
            check_counts(self.sequence_length, rows, self._rank, self._world_size)
        domains: Sequence[Domain] = self._planner.domains
        growths = self._growths
        if isinstance(self._planner, LengthPlanner):
            check_not_grown(saved, growths)
        else:
            now = dict(zip(self._stores, domains, strict=True))
            growths, domains, cursor = self._domain_maker.resumed(saved, cursor, growths, now)
        superbatches = state.get("superbatches")
        if self._online is not None:
            self._online.check_state(state["online"])
        if superbatches is not None and self._superbatches is not None:
            self._superbatches.check_state(superbatches)
        self.close()
        if self._online is not None:
            self._online.load_state_dict(state["online"], cursor.step)
        self._growths, self._planner.domains = growths, tuple(domains)
        if self._verifier is not None:
            self._verifier.packings = [domain.packing for domain in domains]
        self._planner.schedule, self._planner.batch_sizes = schedule, batch_sizes
        self._superbatch_state = superbatches
        if superbatches is None:
            self._superbatches = None
        elif self._superbatches is not None:
            self._superbatches.load_state_dict(superbatches)
        self._begin_at(cursor)

    def close(self) -> None:
        """End the thread or the worker processes. Asking for a batch starts them again, where it stopped."""
        if self._executor is not None:
            self._executor.close()
            cursor, self._executor = self._cursor(), None
            self._begin_at(cursor)
        self._maker.residency.close()

    def _steps(self) -> Iterator[Planned]:
        online = self._online
        horizon = None if online is None else online.horizon
        steps = planned(self._planner, self._cursor(), self.steps, kernels.done_already, horizon)
        if self._maker.residency.whole is not None:
            return steps
        most = MAX_STEPS_AHEAD if online is None else online.mixing.lag // 2
        return fetched_ahead(steps, self._maker.pieces_of, self._maker.residency, most)

    def _groups(self) -> Iterator[list[Planned]]:
        n_tokens = self._largest_batch() * self.sequence_length
        most, handed_over = MAX_GROUP, N_TOKENS_BY_PROCESS if self._n_workers else N_TOKENS_HANDED_OVER
        if self._online is not None:
            is_remote = self._maker.residency.whole is None
            most = self._online.most_in_group(self._n_groups_ahead(), is_remote=is_remote)
        return grouped(self._steps(), min(most, group_size(n_tokens, handed_over)))

    def _n_groups_ahead(self) -> int:
        """Groups that are made before the trainer asks for them, the one being made included."""
        n_workers = max(2, self._n_ahead, self._n_workers) if self._n_workers else self._n_ahead
        return n_workers + 1 if n_workers else 0

    def _online_of(self, policy: OnlineMixing | str, schedule: object) -> Online:
        mixing = OnlineMixing(policy) if isinstance(policy, str) else policy
        if schedule is not None:
            raise ValueError("policy: a schedule sets weights, too; leave one of the two out")
        if "domain_ids" not in self.emit:
            raise ValueError("policy: it needs the domain of each row; add 'domain_ids' to emit")
        names, ranks = list(self._stores), ranks_of(self._rank, self._world_size, self._ranks_given)
        return Online(mixing, names, self._planner.schedule[0][1], self.domains, self.sequence_length, ranks)

    def _drawn(self) -> tuple[Planned, Batch]:
        batch = next(self)
        return self._given, batch

    def _first_tokens(self) -> NDArray[np.int64]:
        """Where each domain begins in the stream: int64, (n_domains,)."""
        sizes = [store.n_tokens for store in self._stores.values()]
        return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)

    def _report(self, online: Online) -> None:
        """Have the policy see what was reported, before the step's batch is asked for.

        Threads that plan go on meanwhile: they know weights up to the horizon, which moves last.
        """
        drawn, room = None, None
        is_capped = self.steps is not None and any(cap is not None for cap in self._max_epochs.values())
        if is_capped or online.counts_rows:
            drawn = np.array(self._start.rows_drawn, np.int64)
            if self._n_given:
                rows = self._given.rows.domains[: self._n_given].ravel()
                drawn = drawn + np.bincount(rows, minlength=drawn.size)
            if self.steps is not None:
                n_rows = max(1, (self.steps - self.step) * self._planner.batch_size_at(self.step))
                room = (self._rows_at_most() - drawn) / n_rows
        start, shares = online.report(drawn, room)
        if (shares != self._planner.schedule[-1][1]).any():
            self._planner.schedule.append((start, shares))
        online.advance()

    def _rows_at_most(self) -> NDArray[np.float64]:
        """Rows that max_epochs allows of each domain, but for padding."""
        caps = [self._max_epochs[name] for name in self._stores]
        n_rows = [store.n_tokens / self.sequence_length for store in self._stores.values()]
        return np.array([math.inf if cap is None else cap * n for cap, n in zip(caps, n_rows, strict=True)])

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
            points = [(n_tokens, self._in_tokens(point)) for n_tokens, point in schedule.points]
            return replace(schedule, points=points).ramp(names, self.sequence_length)
        if weights is None:
            return largest_remainder(np.array([store.n_tokens for store in self._stores.values()]), ROW)
        return self._shares(weights)

    def _shares(self, weights: Mapping[str, float]) -> NDArray[np.int64]:
        """Weights in the unit that was given, as shares of ROW by tokens."""
        return shares_of(self._in_tokens(weights), list(self._stores))

    def _in_tokens(self, weights: Mapping[str, float]) -> dict[str, float]:
        means = {name: store.n_tokens / max(1, store.n_docs) for name, store in self._stores.items()}
        return token_weights(weights, self._weight_unit, means)

    def _may_exhaust(self) -> bool:
        """Whether weights, now or later, are all of domains with a limit."""
        limited = np.array([cap is not None for cap in self._max_epochs.values()])
        if self._planner.bounds is not None and np.array(self._planner.bounds[0])[~limited].any():
            return False
        shares = [entry for _, entry in self._planner.entries_from(self.step)]
        shares += [np.array(point) for point in (self._planner.ramp.shares if self._planner.ramp else ())]
        return any(not entry[~limited].any() for entry in shares)

    def _arguments(self) -> dict[str, int | str]:
        """What a state must agree with."""
        found: dict[str, int | str] = {
            "sequence_length": self.sequence_length,
            "global_batch": self.global_batch,
            "seed": self.seed,
            "packing": self._packing_saved,
            "window": self._domain_maker.window or 0,
            "weights": self._weights_given,
        }
        return found if self._online is None else found | {"policy": self._online.mixing.identity}

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

"""The loader: asks the planner for global batches, gathers this rank's rows, and resumes exactly."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..kernels.apportion import ROW
from .arguments import check_counts, check_not_grown, check_packing, check_vsl, check_window
from .assemble import Assembler
from .batch import Batch, FieldName
from .construction import (
    layout_of,
    length_planner_of,
    max_rows_of,
    online_of,
    packing_of,
    planner_of,
)
from .curriculum import LengthPlanner
from .decomposition import Vsl
from .domains import DomainMaker
from .executors import Maker, Planned
from .growth import Growth
from .integrity import Verifier
from .mixture_file import read_mixture
from .online import Online, OnlineMixing
from .packing import PackingName
from .plan import Domain, Planner
from .policies import Policy
from .ranks import Ranks, ranks_of
from .residency import Residency
from .run import Run, default_prefetch, groups_ahead
from .schedule import WeightSchedule, bounds_of, shares_at_start
from .selectors import Selector
from .sources import Source, open_sources, shards_of
from .state import decode, encode, given_weights, saved_growths
from .stats import Stats, stats_of
from .superbatch import Superbatches
from .weights import WeightReader, WeightUnit, epoch_caps, is_whole, shares_of


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
            weights are for steps (no WeightSchedule, floors or ceilings), and appended shards, a policy and
            super-batches are not supported.
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
        check_window(window)
        self.packing, vsl, self._packing_saved = packing_of(packing)
        check_packing(self.packing, emit, mask_boundaries)
        if vsl is not None:
            check_vsl(schedule=schedule, floors=floors, ceilings=ceilings, policy=policy)
        if isinstance(weights, str | Path):
            weights, its_epochs = read_mixture(weights)
            max_epochs = its_epochs if max_epochs is None else max_epochs
        self.domains, self.steps, self.emit = tuple(sources), steps, tuple(emit)
        self.sequence_length, self.global_batch, self.seed = sequence_length, global_batch, seed
        # Sorted by name: ties in the mixture fall the same way for every order of the sources.
        self._stores, files = open_sources(sources, split, cache, cache_bytes)
        stores, names = list(self._stores.values()), list(self._stores)
        self._ranks = partial(ranks_of, rank, world_size, ranks)
        self._max_epochs = epoch_caps(max_epochs, names)
        self._reader = WeightReader(
            weight_unit, {name: s.n_tokens / max(1, s.n_docs) for name, s in self._stores.items()}
        )
        n_tokens = [store.n_tokens for store in stores]
        shares = shares_at_start(weights, schedule, self._reader, n_tokens, sequence_length)
        layout, n_bytes_of_offsets = layout_of(self._stores, self.packing)
        self._domain_maker = DomainMaker(
            self._stores, layout, self.packing, seed, sequence_length, self._max_epochs, window
        )
        self._growths = {name: Growth(0, (store.n_shards,)) for name, store in self._stores.items()}
        self._planner: Planner = (
            planner_of(
                self._domain_maker, self._growths, global_batch, shares, bounds_of(floors, ceilings, names)
            )
            if vsl is None
            else length_planner_of(self._domain_maker, self._stores, global_batch, shares, vsl)
        )
        for start_step, later in schedule if schedule and not isinstance(schedule, WeightSchedule) else ():
            self._planner.append(start_step, self._reader.shares(later))
        by_tokens = weights is None and not isinstance(schedule, WeightSchedule)
        self._weights_given = given_weights(self._planner, names, by_tokens=by_tokens)
        residency = Residency(
            shards_of(self._stores), files, reads_next=not mask_boundaries, n_bytes_besides=n_bytes_of_offsets
        )
        n_ahead = default_prefetch(global_batch // world_size * sequence_length, prefetch)
        assembler = Assembler(
            sequence_length,
            self.emit,
            pad_id=stores[0].eos_id,
            mask_boundaries=mask_boundaries,
            domain_ids=np.array([self.domains.index(name) for name in names]),
            objective=None if objective is None else shares_of(objective, names, "objective") / ROW,
            n_ahead=n_ahead + 1 if n_ahead else 0,
            pin_memory=pin_memory,
        )
        self._verifier = (
            Verifier(self._stores, self._planner.rows_by_id(), residency, seed) if verify else None
        )
        # Apart from the loader, which a thread that makes batches must not keep alive.
        self._maker = Maker(assembler, residency, self._verifier, rank, world_size)
        self._online: Online | None = None
        if policy is not None:
            self._online = online_of(
                policy,
                schedule,
                emit,
                self._planner,
                self._stores,
                self.domains,
                sequence_length,
                self._ranks(),
            )
            is_remote = residency.whole is None
            self._online.check_lag(groups_ahead(n_ahead, workers), is_remote=is_remote)
        self._superbatches: Superbatches | None = None
        self._superbatch_state: Mapping[str, Any] | None = None
        self._run = Run(
            self._planner,
            self._maker,
            [str(Path(place).resolve()) for store in stores for place in store.shard_places],
            steps,
            n_ahead,
            workers,
            max_rows_of(self._stores, self._max_epochs, sequence_length),
            self._online,
        )

    @property
    def step(self) -> int:
        """The step of the next batch: how many were handed out."""
        return self._run.step

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        return self._next()[1]

    def __len__(self) -> int:
        """Batches of the whole run, those handed out included. O(rows to come) if max_epochs may end it.

        Raises:
            TypeError: the run has no end.
        """
        return self._run.n_steps()

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
        shares = self._reader.shares(weights)
        at_step = self._future(at_step)
        self._run.change(lambda: self._planner.append(at_step, shares))

    def set_global_batch(self, global_batch: int, at_step: int | None = None) -> None:
        """Let batches have other rows from `at_step` on (the next batch by default), losing none.

        Call it alike on every rank. `global_batch` the argument, which a state is checked against, stays.

        Raises:
            ValueError: world_size does not divide it; at_step was handed out already, or lies before the
                last change.
        """
        check_counts(self.sequence_length, global_batch, self._maker.rank, self._maker.world_size)
        at_step = self._future(at_step)
        self._run.change(lambda: self._planner.resize(at_step, global_batch))

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
        asked = Superbatches(
            self._next,
            self._maker,
            self._ranks(),
            list(self._stores),
            self._first_tokens,
            self.seed,
            factor,
            method,
            parameters,
            requeue,
        )
        if state is not None:
            asked.load_state_dict(state)
        self._superbatches, self._superbatch_state = asked, None
        return asked

    @property
    def policy(self) -> Policy | None:
        """The policy that the weights follow."""
        return None if self._online is None else self._online.policy

    @property
    def weight_log(self) -> list[tuple[int, dict[str, float]]]:
        """Which weights hold from which step on, since this loader was made or loaded; only ever appended to.

        `weights` and `schedule` of another loader, whose `weight_unit` is "tokens", it repeats this one's
        batches without reports.
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
            self._planner, self._run.cursor(), list(self._stores), self.domains, self.sequence_length, events
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides the batches after the last one handed out; plain JSON, equal on all ranks.

        Its size does not grow with the run: past weights are left out. With a policy and several ranks all
        of them call it, for it adds up what they were told.
        """
        state = encode(
            self._planner, self._run.cursor(), self._arguments(), self._identities(), self._growths
        )
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
            check_counts(self.sequence_length, rows, self._maker.rank, self._maker.world_size)
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
            self._verifier.packings = self._planner.rows_by_id()
        self._planner.schedule, self._planner.batch_sizes = schedule, batch_sizes
        self._superbatch_state = superbatches
        if superbatches is None:
            self._superbatches = None
        elif self._superbatches is not None:
            self._superbatches.load_state_dict(superbatches)
        self._run.begin_at(cursor)

    def close(self) -> None:
        """End the thread or the worker processes. Asking for a batch starts them again, where it stopped."""
        self._run.close()

    def _next(self) -> tuple[Planned, Batch]:
        if (made := self._run.next()) is None:
            raise StopIteration
        return made

    def _first_tokens(self) -> NDArray[np.int64]:
        """Where each domain begins in the stream: int64, (n_domains,)."""
        sizes = [store.n_tokens for store in self._stores.values()]
        return np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)

    def _future(self, at_step: int | None) -> int:
        at_step = self.step if at_step is None else at_step
        if not is_whole(at_step):
            raise ValueError(f"at_step is {at_step!r}; it must be a whole number of steps")
        if at_step < self.step:
            raise ValueError(f"at_step is {at_step}; batches before step {self.step} were handed out already")
        return at_step

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

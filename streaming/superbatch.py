"""Super-batches: several batches' rows as candidates, of which a selector keeps a batch.

All ranks see the plan of all rows; each scores its own. Scores go to rank 0 in one collective, the choice is
made there, once, and comes back as whole numbers. Rank r trains on the r-th part of the chosen rows in
global order: the batch does not depend on the number of ranks, and whoever trains on a row copies it anew.
Losses that are reported of the rows kept reach the selector before it chooses next.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .batch import Batch
from .executors import Maker, Planned
from .orders import stream_key
from .rank_rows import RankRows, joined_rows, rows_of_rank, take_rows
from .ranks import Ranks
from .selectors import Candidates, Selection, Selector, load_selector
from .step_random import StepRandom
from .trained_rows import TrainedRows
from .warm_up import kernels
from .weights import is_whole

Ints = NDArray[np.int64]


class Superbatches:
    """Super-batches of a loader, one after another, and what is kept between them.

    Args:
        draw: the loader's next batch, and the step that it was planned as.
        maker: of this rank's batches.
        ranks: who must agree.
        names: of the domains, in the planner's order.
        first_tokens: where each domain begins in the stream, now.
        seed: of the loader.
        factor: batches in a super-batch.
        method: which rows are kept, where `select` does not say; a name of selectors.py, or a selector.
        parameters: of a method that is named.
        requeue: batches' worth of rows that were not kept and are candidates once more in the next one.
    Raises:
        ValueError: factor or requeue is no whole number, or below 1 and 0.
    """

    def __init__(
        self,
        draw: Callable[[], tuple[Planned, Batch]],
        maker: Maker,
        ranks: Ranks,
        names: Sequence[str],
        first_tokens: Callable[[], Ints],
        seed: int,
        factor: int,
        method: str | Selector = "random",
        parameters: Mapping[str, Any] | None = None,
        requeue: int = 0,
    ) -> None:
        if not (is_whole(factor) and is_whole(requeue) and factor >= 1 and requeue >= 0):
            raise ValueError(
                f"superbatches: factor and requeue are {factor} and {requeue}; whole numbers, at least 1 "
                "and 0"
            )
        self._draw, self._ranks, self._names = draw, ranks, list(names)
        self._keys = np.array([stream_key(0, name, 0) for name in names], np.uint64)
        # Batches of another size, made in this thread: buffers of its own.
        self._maker = replace(maker, assembler=replace(maker.assembler, n_ahead=0))
        self._first_tokens, self.factor = first_tokens, factor
        self._random = StepRandom(seed)
        self._default = method if isinstance(method, str) else "given"
        self._selectors = {self._default: selector_of(method, parameters or {})}
        self._requeue = requeue
        self._queue: RankRows | None = None
        self._trained = TrainedRows()
        self.n_candidates, self.n_kept = np.zeros(len(names), np.int64), np.zeros(len(names), np.int64)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> "SuperBatch":
        """The next candidates; the run ends with the last super-batch that is whole."""
        drawn = [self._draw() for _ in range(self.factor)]
        parts = [rows_of_rank(planned.rows, planned.place, planned.step, 0, 1) for planned, _ in drawn]
        batches = [batch for _, batch in drawn]
        sizes = [part.domains.size for part in parts]
        queue, self._queue = self._queue, None
        if queue is not None:
            parts.append(queue)
            sizes.append(queue.domains.size)
            batches.append(self.made(take_rows(queue, self._mine(queue.domains.size)), batches[0].step))
        places = np.concatenate([[0], np.cumsum(sizes)])
        owners = [
            np.concatenate(
                [at + _part(size, rank, self._ranks.size) for at, size in zip(places, sizes, strict=False)]
            )
            for rank in range(self._ranks.size)
        ]
        rows = joined_rows(parts)
        n_fresh = sum(sizes[: self.factor])
        return SuperBatch(self, joined_batches(batches), rows, owners, n_fresh, sizes[0])

    def selector(self, method: str | None) -> tuple[str, Selector]:
        """The selector of a name, as it has become; None: the one that was asked for at the start."""
        name = self._default if method is None else method
        if name not in self._selectors:
            self._selectors[name] = load_selector(name)
        return name, self._selectors[name]

    def made(self, rows: RankRows, step: int) -> Batch:
        """A batch of these rows."""
        rows = rows._replace(step=step)
        if self._maker.verifier is not None:
            rows = self._maker.verifier.checked(rows, compiled=kernels.done_already())
        return self._maker.made_of(rows)[0]

    def choose(
        self,
        selector: Selector,
        rows: RankRows,
        owners: Sequence[Ints],
        values: Mapping[str, NDArray[np.float32]],
        k: int,
    ) -> Selection:
        """Which k of the candidates are kept. A collective.

        Args:
            rows: all candidates.
            owners: the candidates of each rank.
            values: of this rank's: float32, (rows, width) each.
        """
        if self._ranks.size > 1:
            return self._agreed(selector, rows, owners, values, k)
        self._trained.observe([self._trained.take()])
        candidates = self._candidates(rows, values)
        chosen = selector.select(candidates, k, self._random(rows.step, purpose=0))
        self._trained.expect(rows.step, selector, k, candidates, chosen.indices)
        return chosen

    def _agreed(
        self,
        selector: Selector,
        rows: RankRows,
        owners: Sequence[Ints],
        values: Mapping[str, NDArray[np.float32]],
        k: int,
    ) -> Selection:
        """`choose` of several ranks: what each knows goes to rank 0, and its choice to all."""
        n_mine = owners[self._ranks.rank].size
        table = np.concatenate([np.empty((n_mine, 0), np.float32), *values.values()], axis=1)
        gathered = self._ranks.to_first(np.concatenate([table.ravel(), self._trained.take()]))
        answer, error, candidates = np.full(2 * k, -1, np.int64), None, None
        if self._ranks.rank == 0:
            try:
                self._trained.observe([found[table.size :] for found in gathered])
                every = np.empty((rows.domains.size, table.shape[1]), np.float32)
                for theirs, found in zip(owners, gathered, strict=True):
                    every[theirs] = found[: table.size].reshape(table.shape)
                ends = np.cumsum([value.shape[1] for value in values.values()], dtype=np.int64)
                columns = np.split(every, ends, axis=1)[: len(values)]
                candidates = self._candidates(rows, dict(zip(values, columns, strict=True)))
                chosen = selector.select(candidates, k, self._random(rows.step, purpose=0))
                answer = np.concatenate([chosen.indices, chosen.weights.view(np.int32).astype(np.int64)])
            except ValueError as refused:
                error = refused
        answer = self._ranks.from_first(answer)
        if error is not None:
            raise error
        if k and answer[0] < 0:
            raise ValueError("select: rank 0 could not choose; its error says why")
        self._trained.expect(rows.step, selector, k // self._ranks.size, candidates, answer[:k])
        return Selection(answer[:k], answer[k:].astype(np.int32).view(np.float32))

    def tell(self, batch: Batch, told: Mapping[str, Any]) -> None:
        """Take in what `StreamingLoader.feedback` was given of rows kept, for the selector to learn."""
        if batch.is_selected:
            self._trained.tell(batch, told)

    def _candidates(self, rows: RankRows, values: Mapping[str, NDArray[np.float32]]) -> Candidates:
        """Of all rows, with what is known of them: float32, (rows, width) each."""
        columns: dict[str, Any] = {
            name: value if name == "features" else value[:, 0] for name, value in values.items()
        }
        row_ids = self._keys[rows.domains] ^ rows.row_ids.astype(np.uint64)
        return Candidates(rows.domains, row_ids=row_ids, **columns)

    def settle(self, rows: RankRows, n_fresh: int, chosen: Ints, batch_size: int) -> None:
        """Count what was kept, and keep some of the rest for the next super-batch."""
        n = len(self._names)
        self.n_candidates += np.bincount(rows.domains, minlength=n)
        self.n_kept += np.bincount(rows.domains[chosen], minlength=n)
        is_left = np.ones(n_fresh, bool)
        is_left[chosen[chosen < n_fresh]] = False
        (left,) = np.nonzero(is_left)
        size = min(self._requeue, left.size // batch_size) * batch_size
        if size:
            kept = self._random(rows.step, purpose=1).choice(left, size, replace=False)
            self._queue = take_rows(rows, np.sort(kept))

    def part_of_rank(self, chosen: Ints) -> slice:
        """This rank's part of the chosen rows."""
        mine = self._mine(chosen.size)
        return slice(int(mine[0]), int(mine[-1]) + 1)

    def _mine(self, size: int) -> Ints:
        return _part(size, self._ranks.rank, self._ranks.size)

    @property
    def n_ranks(self) -> int:
        """Who share the batch."""
        return self._ranks.size

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON, the same on all ranks. A collective: the selector is rank 0's.

        The selector learns what was reported so far; of rows selected before, a resumed run reports no more.
        """
        taken = self._ranks.to_first(self._trained.take())
        if self._ranks.rank == 0:
            self._trained.observe(taken)
        first = self._first_tokens()
        queue: list[list[Any]] = []
        if self._queue is not None:
            rows, bounds = self._queue, np.concatenate([[0], np.cumsum(self._queue.counts)]).tolist()
            for r, k in enumerate(rows.domains.tolist()):
                mine = slice(bounds[r], bounds[r + 1])
                starts, lengths = (rows.starts[mine] - first[k]).tolist(), rows.lengths[mine].tolist()
                name, share = self._names[k], int(rows.shares[r])
                queue.append([name, int(rows.epochs[r]), int(rows.row_ids[r]), share, starts, lengths])
        counts = zip(self._names, self.n_candidates.tolist(), self.n_kept.tolist(), strict=True)
        return {
            "factor": self.factor,
            "requeue": self._requeue,
            "selectors": self._from_first({n: s.state_dict() for n, s in self._selectors.items()}),
            "queue": queue,
            "kept": {name: [n_candidates, n_kept] for name, n_candidates, n_kept in counts},
        }

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Refuse what `load_state_dict` could not load; nothing is changed.

        Raises:
            ValueError: factor, requeue or the selector are others than the state's.
        """
        for name, ours in (("factor", self.factor), ("requeue", self._requeue)):
            if state[name] != ours:
                raise ValueError(
                    f"state: superbatches: {name} is {state[name]}, here it is {ours}; give the saved one"
                )
        if self._default not in state["selectors"]:
            raise ValueError(
                f"state: superbatches: method is {', '.join(state['selectors'])}, this loader's is "
                f"{self._default}; give the saved one"
            )
        for name, found in state["selectors"].items():
            selector = self._selectors.get(name)
            (load_selector(name) if selector is None else deepcopy(selector)).load_state_dict(found)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the state was taken.

        Raises:
            ValueError: as `check_state`; nothing is changed then.
        """
        self.check_state(state)
        for name, found in state["selectors"].items():
            self.selector(name)[1].load_state_dict(found)
        kept = [state["kept"].get(name, [0, 0]) for name in self._names]
        self.n_candidates, self.n_kept = (np.array(column, np.int64) for column in zip(*kept, strict=True))
        self._queue = self._queue_of(state["queue"])
        self._trained.forget()

    def _queue_of(self, queue: Sequence[Sequence[Any]]) -> RankRows | None:
        if not queue:
            return None
        first, index = self._first_tokens(), {name: k for k, name in enumerate(self._names)}
        domains = [index[row[0]] for row in queue]
        epochs, row_ids, shares = (np.array([row[at] for row in queue], np.int64) for at in (1, 2, 3))
        starts = [first[k] + np.array(row[4], np.int64) for k, row in zip(domains, queue, strict=True)]
        counts = np.array([len(row[5]) for row in queue], np.int64)
        lengths = np.array([length for row in queue for length in row[5]], np.int64)
        return RankRows(
            0, np.array(domains), row_ids, epochs, shares, counts, np.concatenate(starts), lengths
        )

    def _from_first(self, state: Mapping[str, Any]) -> Any:
        """Rank 0's, on all ranks."""
        text = np.frombuffer(json.dumps(state).encode(), np.uint8).astype(np.int64)
        if self._ranks.size == 1:
            return json.loads(text.astype(np.uint8).tobytes())
        (size,) = self._ranks.from_first(np.array([text.size])).tolist()
        text = np.resize(text, size) if text.size != size else text
        return json.loads(self._ranks.from_first(text).astype(np.uint8).tobytes())


class SuperBatch:
    """Candidates: `batch` are this rank's, for the trainer to score; `select` gives the batch to train on."""

    def __init__(
        self,
        source: Superbatches,
        batch: Batch,
        rows: RankRows,
        owners: Sequence[Ints],
        n_fresh: int,
        batch_size: int,
    ) -> None:
        self.batch = batch
        self._source, self._rows, self._owners = source, rows, owners
        self._n_fresh, self._batch_size, self._is_open = n_fresh, batch_size, True

    def __len__(self) -> int:
        """Candidates of all ranks."""
        return int(self._rows.domains.size)

    def select(
        self,
        k: int | None = None,
        *,
        scores: Any = None,
        reference_losses: Any = None,
        features: Any = None,
        method: str | None = None,
    ) -> Batch:
        """This rank's part of the k rows to train on; all ranks call it.

        With one rank the rows are copies of `batch`'s, so leave those as they came.
        Its `weights` are the rows' importance in the loss, times those of the loader's objective. Give its
        losses to `feedback` for a method that learns from rows trained on ("infobatch" without scores,
        "multistage" with a predictor).

        Args:
            k: rows over all ranks, which they divide; None: the loader's batch.
            scores: (rows,), the learner's loss of each of `batch`'s rows, nats per token, or what else the
                method ranks by.
            reference_losses: (rows,), the same under a reference model.
            features: (rows, d), rows that teach alike are near (features.py).
            method: a name of selectors.py, with its defaults; None: that of `superbatches`.
        Raises:
            ValueError: k is out of range or not divided by the ranks; something that the method needs is
                missing, or has another shape; rows were selected already.
        """
        k = self._batch_size if k is None else k
        if not self._is_open:
            raise ValueError("select: rows of this super-batch were selected already; take the next one")
        if not is_whole(k) or not 0 < k <= len(self) or k % self._source.n_ranks:
            raise ValueError(
                f"select: k is {k}; it must be a whole number from 1 to {len(self)}, divided by "
                f"{self._source.n_ranks} ranks"
            )
        given = {"losses": scores, "reference_losses": reference_losses, "features": features}
        n_rows = len(self.batch.input_ids)
        values = {name: _table(name, v, n_rows) for name, v in given.items() if v is not None}
        method, selector = self._source.selector(method)
        if missing := sorted(selector.needs - {*values, "row_ids"}):
            names = ["scores" if name == "losses" else name for name in missing]
            raise ValueError(f"select: {method!r} needs {' and '.join(names)} of each row; pass them")
        found = self._source.choose(selector, self._rows, self._owners, values, k)
        self._is_open = False
        self._source.settle(self._rows, self._n_fresh, found.indices, self._batch_size)
        mine = self._source.part_of_rank(found.indices)
        return _weighted(self._made(found.indices[mine]), found.weights[mine])

    def _made(self, at: Ints) -> Batch:
        """The candidates at these places: of one rank all are here, else they are copied from the shards."""
        whole = self.batch.cu_seqlens is not None or self.batch.max_seqlen is not None
        if self._source.n_ranks > 1 or whole:
            return self._source.made(take_rows(self._rows, at), self.batch.step)
        import torch

        places, names = torch.from_numpy(at), self.batch.keys()
        taken: dict[str, Any] = {name: getattr(self.batch, name).index_select(0, places) for name in names}
        return Batch.of(self.batch.step, taken)


def _weighted(batch: Batch, weights: NDArray[np.float32]) -> Batch:
    import torch

    importance = torch.from_numpy(weights.copy())
    product = importance if batch.weights is None else batch.weights * importance
    return Batch.of(batch.step, {**vars(batch), "weights": product, "is_selected": True})


def _table(name: str, values: Any, n_rows: int) -> NDArray[np.float32]:
    """What ranks send: float32, (rows, width)."""
    if hasattr(values, "detach"):
        values = values.detach().float().cpu().numpy()
    found = np.asarray(values, np.float32)
    if found.ndim != (2 if name == "features" else 1) or len(found) != n_rows:
        shown, shape = (
            ("scores" if name == "losses" else name),
            "(rows, d)" if name == "features" else "(rows,)",
        )
        raise ValueError(f"select: {shown} have shape {found.shape}; {shape} for {n_rows} rows is needed")
    return found.reshape(n_rows, -1)


def _part(size: int, rank: int, n_ranks: int) -> Ints:
    """Where a rank's rows lie among `size`."""
    return np.arange(rank * size // n_ranks, (rank + 1) * size // n_ranks)


def joined_batches(batches: Sequence[Batch]) -> Batch:
    """The rows of all batches as one; the step is the first one's."""
    import torch

    first = batches[0]
    values: dict[str, Any] = {}
    for name in first.keys():  # noqa: SIM118 (a Batch is no dict)
        each = [batch[name] for batch in batches]
        if name == "max_seqlen":
            values[name] = max(each)
        elif name == "cu_seqlens":
            ends = np.cumsum([0, *(int(bounds[-1]) for bounds in each)])
            moved = [bounds[min(k, 1) :] + int(ends[k]) for k, bounds in enumerate(each)]
            values[name] = torch.cat(moved).to(torch.int32)
        else:
            values[name] = torch.cat(each)
    return Batch(first.step, **values)


def selector_of(method: str | Selector, parameters: Mapping[str, Any]) -> Selector:
    """A selector, by name or as it is.

    Raises:
        ValueError: an unknown name or parameter.
    """
    if isinstance(method, str):
        return load_selector(method, **parameters)
    if parameters:
        raise ValueError(f"superbatches: parameters {sorted(parameters)} are for a method that is named")
    if not isinstance(method, Selector):
        raise ValueError(
            f"superbatches: method is a {type(method).__name__}; it must be a name of selectors.py or a "
            "Selector"
        )
    return method

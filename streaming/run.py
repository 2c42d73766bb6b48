"""A run: where it is in the plan, and the executor that makes its batches, which may change under way."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from .batch import Batch
from .executors import (
    BackgroundThread,
    Executor,
    Inline,
    Maker,
    Planned,
    group_size,
    grouped,
    planned,
)
from .lookahead import MAX_STEPS_AHEAD, fetched_ahead
from .online import Online
from .plan import Cursor, Planner
from .processes import WorkerProcesses
from .warm_up import kernels

# From this many tokens of a rank's batch on, a thread's hand-over (some 0.1 ms) is a small part of the work.
N_TOKENS_FOR_THREAD = 2**18
N_STEPS_ADVANCED = 1024  # at once, by who counts the steps of a run


def default_prefetch(n_tokens: int, prefetch: int | None) -> int:
    """Groups of batches of n_tokens that a thread makes ahead, where the trainer does not say how many."""
    return 2 * (n_tokens >= N_TOKENS_FOR_THREAD) if prefetch is None else prefetch


def groups_ahead(n_ahead: int, n_workers: int) -> int:
    """Groups of batches that are made before the trainer asks for them, the one being made included."""
    n_workers = max(2, n_ahead, n_workers) if n_workers else n_ahead
    return n_workers + 1 if n_workers else 0


class Run:
    """Hands out one rank's batches; whatever ends an executor, the next one goes on where it stopped.

    Args:
        planner: of the global batches.
        maker: of this rank's.
        paths: of the maker's shards, for worker processes.
        steps: of the run; None: until the domains are exhausted.
        n_ahead: groups of batches that a thread makes ahead; 0: each is made when it is asked for.
        n_workers: processes that read tokens, instead of the thread.
        max_rows: float64, (n_domains,), that max_epochs allows, but for padding; infinite without a limit.
        online: whose weights the plan follows.
    """

    def __init__(
        self,
        planner: Planner,
        maker: Maker,
        paths: Sequence[str],
        steps: int | None,
        n_ahead: int,
        n_workers: int,
        max_rows: NDArray[np.float64],
        online: Online | None,
    ) -> None:
        self.planner, self.maker, self._paths = planner, maker, paths
        self.steps, self.n_ahead, self._n_workers = steps, n_ahead, n_workers
        self._max_rows, self._online = max_rows, online
        self._is_capped = steps is not None and bool(np.isfinite(max_rows).any())
        self.executor: Executor | None = None
        self.begin_at(planner.start())

    def begin_at(self, cursor: Cursor) -> None:
        """Let the next batch be the first one behind `cursor`; while there is no executor."""
        # The start of a plan, and how many of its batches were handed out. One value: any thread reads it.
        self._position = cursor, 0

    @property
    def step(self) -> int:
        """The step of the next batch: how many were handed out. For any thread."""
        start, n_given = self._position
        return start.step + n_given

    def cursor(self) -> Cursor:
        """Behind the last batch handed out: planned again from the start of its plan, without rows."""
        return self.planner.advance(*self._position)

    def next(self) -> tuple[Planned, Batch] | None:
        """The next batch and its place in the plan; None at the end of the run."""
        if self.steps is not None and self.step >= self.steps:
            return None
        if self._online is not None and self.step >= self._online.next_report:
            self._report(self._online)
        try:
            if self.executor is None:
                self.executor = self._new_executor()
            made = self.executor.next()
        except BaseException:  # KeyboardInterrupt, too: what was planned and not handed out is lost
            self.close()
            raise
        if made is not None:
            self._given, _ = made
            self._position = self._given.start, self._given.place + 1
            kernels.done()  # from the first batch on they are loaded in the background
        return made

    def n_steps(self) -> int:
        """Of the whole run, those handed out included. O(rows to come) if max_epochs may end it.

        Raises:
            TypeError: the run has no end.
        """
        if not self._may_exhaust():
            if self.steps is None:
                raise TypeError("this loader has no end; pass steps, or max_epochs for every domain")
            return max(self.steps, self.step)
        self.planner.compiled = kernels.done(wait=True)
        cursor = self.cursor()
        while self.steps is None or cursor.step < self.steps:
            n_left = N_STEPS_ADVANCED if self.steps is None else self.steps - cursor.step
            after = self.planner.advance(cursor, min(N_STEPS_ADVANCED, n_left))
            if after.step == cursor.step:
                break
            cursor = after
        return cursor.step

    def change(self, plan: Callable[[], None]) -> None:
        """Change the planner, and go on with the batch after the last one handed out."""
        cursor, executor = self.cursor(), self.executor
        if isinstance(executor, WorkerProcesses):
            try:
                executor.drain()  # processes are kept: they take a second to start
            except BaseException:
                self.close()
                raise
        else:
            self.close()  # before the planner changes: a thread may be planning
        plan()
        self.begin_at(cursor)
        if isinstance(executor, WorkerProcesses):
            if self._largest_batch() <= executor.max_rows:
                executor.follow(self._groups())
            else:
                self.close()

    def close(self) -> None:
        """End the thread or the worker processes; the next batch starts them again."""
        executor, self.executor = self.executor, None  # first: nothing is asked of one that may be closed
        if executor is not None:
            executor.close()
            self.begin_at(self.cursor())
        self.maker.residency.close()

    def _new_executor(self) -> Executor:
        if self._n_workers:
            n_ahead = max(2, self.n_ahead)
            return WorkerProcesses(
                self._groups(), self.maker, self._paths, self._n_workers, n_ahead, self._largest_batch()
            )
        if self.n_ahead:
            return BackgroundThread(self._groups(), self.maker.together, self.n_ahead)
        return Inline(self._planned(), self.maker)

    def _planned(self) -> Iterator[Planned]:
        horizon = None if self._online is None else self._online.horizon
        steps = planned(self.planner, self.cursor(), self.steps, kernels.done_already, horizon)
        if self.maker.residency.whole is not None:
            return steps
        most = MAX_STEPS_AHEAD if self._online is None else self._online.mixing.lag // 2
        return fetched_ahead(steps, self.maker.pieces_of, self.maker.residency, most)

    def _groups(self) -> Iterator[list[Planned]]:
        n_together = group_size(self._largest_batch() * self.maker.assembler.sequence_length)
        if self._online is not None:
            n_ahead, is_remote = groups_ahead(self.n_ahead, self._n_workers), self._is_remote()
            n_together = min(n_together, self._online.most_in_group(n_ahead, is_remote=is_remote))
        return grouped(self._planned(), n_together)

    def _largest_batch(self) -> int:
        """Rows of this rank, from this step on."""
        sizes = [size for _, size in self.planner.batch_sizes_from(self.step)]
        return max(sizes) // self.maker.world_size

    def _is_remote(self) -> bool:
        return self.maker.residency.whole is None

    def _may_exhaust(self) -> bool:
        """Whether weights, now or later, are all of domains with a limit."""
        planner, limited = self.planner, np.isfinite(self._max_rows)
        if planner.bounds is not None and np.array(planner.bounds[0])[~limited].any():
            return False
        shares = [entry for _, entry in planner.entries_from(self.step)]
        shares += [np.array(point) for point in (planner.ramp.shares if planner.ramp else ())]
        return any(not entry[~limited].any() for entry in shares)

    def _report(self, online: Online) -> None:
        """Have the policy see what was reported, before the step's batch is asked for.

        Threads that plan go on meanwhile: they know weights up to the horizon, which moves last.
        """
        drawn, room = None, None
        if self._is_capped or online.counts_rows:
            plan_start, n_given = self._position
            drawn = np.array(plan_start.rows_drawn, np.int64)
            if n_given:
                rows = self._given.rows.domains[:n_given].ravel()
                drawn = drawn + np.bincount(rows, minlength=drawn.size)
            if self.steps is not None:
                n_rows = max(1, (self.steps - self.step) * self.planner.batch_size_at(self.step))
                room = (self._max_rows - drawn) / n_rows
        start, shares = online.report(drawn, room)
        if (shares != self.planner.schedule[-1][1]).any():
            self.planner.schedule.append((start, shares))
        online.advance()

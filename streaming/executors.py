"""Who makes the batches: this thread, a background thread, or worker processes that read the tokens.

All get the same rows in the same order from `planned`, and give the same batches.
"""

import queue
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from .assemble import Assembler
from .batch import Batch
from .integrity import Verifier
from .plan import Cursor, Planner, Rows
from .rank_rows import RankRows, joined_rows, rows_of_rank
from .residency import Residency
from .warm_up import kernels

# Rows planned at once, in the end. It changes no order; a row's plan costs the least from a few hundred on.
N_PLANNED_ROWS = 4096
# Smaller batches are made and handed over several at once, so that this does not cost more than making them:
# so many tokens together, in at most so many batches.
N_TOKENS_HANDED_OVER, MAX_GROUP = 2**18, 8


class Planned(NamedTuple):
    """One step of a plan."""

    start: Cursor  # of the plan
    place: int  # of the step within the plan
    rows: Rows

    @property
    def step(self) -> int:
        return self.start.step + self.place

    @property
    def is_last_of_plan(self) -> bool:
        """Whether the step after it is of another plan."""
        return self.place + 1 == len(self.rows.domains)


def planned(
    planner: Planner,
    cursor: Cursor,
    last_step: int | None,
    is_compiled: Callable[[], bool],
    horizon: Callable[[], int] | None = None,
) -> Iterator[Planned]:
    """The steps from `cursor` on, until `last_step` or until the domains are exhausted.

    Args:
        horizon: the step up to which weights are known, now; None: they are known for the whole run.

    The first plan is of one step, so that the first batch comes soon, and each is twice the one before it, up
    to N_PLANNED_ROWS rows. While kernels are not loaded, each is of one step.
    """
    n_steps = 1
    while last_step is None or cursor.step < last_step:
        planner.compiled = is_compiled()
        if not planner.compiled:
            n_steps = 1
        if last_step is not None:
            n_steps = min(n_steps, last_step - cursor.step)
        if horizon is not None:
            n_steps = min(n_steps, horizon() - cursor.step)
            assert n_steps > 0, f"the weights of step {cursor.step} are not known yet"
        rows, after = planner.plan(cursor, n_steps)
        if not len(rows.domains):
            return
        for index in range(len(rows.domains)):
            yield Planned(cursor, index, rows)
        cursor = after
        n_steps = max(1, min(2 * n_steps, N_PLANNED_ROWS // rows.domains.shape[1]))


def grouped(steps: Iterator[Planned], n_together: int) -> Iterator[list[Planned]]:
    """Steps of one plan in groups of up to n_together, which are handed over at once.

    The first step is alone: a trainer waits for it.
    """
    group: list[Planned] = []
    for step in steps:
        group.append(step)
        if len(group) == n_together or step.is_last_of_plan:
            yield group
            group = []


def group_size(n_tokens: int) -> int:
    """Batches of n_tokens that are handed over at once, and so lie in memory."""
    return min(MAX_GROUP, max(1, N_TOKENS_HANDED_OVER // n_tokens))


@dataclass(frozen=True)
class Maker:
    """Makes one rank's batches: picks its rows, has their shards checked, and assembles them."""

    assembler: Assembler
    residency: Residency
    verifier: Verifier | None
    rank: int
    world_size: int

    def rows_of(self, steps: Sequence[Planned]) -> RankRows:
        """This rank's rows of consecutive steps of a plan."""
        if self.verifier is None:
            return self._planned(steps[0], len(steps))
        is_compiled = kernels.done_already()
        each = [self.verifier.checked(self._planned(step), compiled=is_compiled) for step in steps]
        return each[0] if len(each) == 1 else joined_rows(each, len(each))

    def pieces_of(self, step: Planned) -> list[int]:
        """The shards of this rank's rows of a step, unless some of them are replaced."""
        rows = self._planned(step)
        return self.residency.pieces(rows.starts, rows.lengths)

    def __call__(self, step: Planned) -> Batch:
        return self.made_of(self.rows_of([step]))[0]

    def together(self, steps: Sequence[Planned]) -> list[Batch]:
        """The batches of consecutive steps of a plan: at once, so that other threads run Python only once
        meanwhile.
        """
        if self.residency.whole is None:  # a few shards are held at a time
            return [self(step) for step in steps]
        return self.made_of(self.rows_of(steps))

    def made_of(self, rows: RankRows) -> list[Batch]:
        """The batches of these rows, one for each step."""
        if self.residency.whole is not None:  # a small batch takes 25 µs, a context manager 2
            stream, compiled = self.residency.whole, kernels.done_already()
            return self.assembler.assemble(rows, stream, rows.starts, compiled=compiled)
        with self.residency.holding(rows.starts, rows.lengths) as (stream, starts):
            return self.assembler.assemble(rows, stream, starts, compiled=kernels.done_already())

    def _planned(self, step: Planned, n_steps: int = 1) -> RankRows:
        return rows_of_rank(step.rows, step.place, step.step, self.rank, self.world_size, n_steps)


class Executor(Protocol):
    """Batches one after another; None when the run has ended."""

    def next(self) -> tuple[Planned, Batch] | None: ...

    def close(self) -> None:
        """End threads and processes. What was made and not handed out is lost."""
        ...


class Inline:
    """Makes each batch when it is asked for."""

    def __init__(self, steps: Iterator[Planned], make: Callable[[Planned], Batch]) -> None:
        self._steps, self._make = steps, make

    def next(self) -> tuple[Planned, Batch] | None:
        step = next(self._steps, None)
        return None if step is None else (step, self._make(step))

    def close(self) -> None:
        pass


class BackgroundThread:
    """One thread makes up to `n_ahead` groups of batches before they are asked for. Kernels run without the
    GIL.

    The thread ends with this object, with the program, or with the run.
    """

    def __init__(
        self, groups: Iterator[list[Planned]], make: Callable[[Sequence[Planned]], list[Batch]], n_ahead: int
    ) -> None:
        # Two queues of C, one with a token for each group that may be made: a bounded queue.Queue's Python
        # locks take as long as a small batch.
        self._made: queue.SimpleQueue[list[tuple[Planned, Batch]] | BaseException] = queue.SimpleQueue()
        self._group: list[tuple[Planned, Batch]] = []  # the next one last
        self._room: queue.SimpleQueue[bool] = queue.SimpleQueue()
        for _ in range(n_ahead):
            self._room.put(True)
        self._ended = False
        self._thread = threading.Thread(
            target=_make_ahead, args=(groups, make, self._made, self._room), name="cuvee-loader", daemon=True
        )
        self._thread.start()
        self._finalizer = weakref.finalize(self, _end_thread, self._thread, self._made, self._room)

    def next(self) -> tuple[Planned, Batch] | None:
        if not self._group and not self._ended:
            made = self._made.get()
            self._room.put(True)
            if isinstance(made, BaseException):
                self._ended = True
                raise made
            self._ended = not made
            self._group = made[::-1]
        return self._group.pop() if self._group else None

    def close(self) -> None:
        self._finalizer()


def _make_ahead(
    groups: Iterator[list[Planned]],
    make: Callable[[Sequence[Planned]], list[Batch]],
    made: "queue.SimpleQueue[list[tuple[Planned, Batch]] | BaseException]",
    room: "queue.SimpleQueue[bool]",
) -> None:
    """The thread's work, until room says False or the run ends, which an empty group tells.

    It holds nothing of the executor, which may so be collected.
    """
    try:
        while room.get():
            group = next(groups, [])
            batches = make(group) if group else []
            made.put(list(zip(group, batches, strict=True)))
            if not group:
                return
    except BaseException as error:  # noqa: BLE001 (raised again by `next`)
        made.put(error)


def _end_thread(
    thread: threading.Thread, made: "queue.SimpleQueue[Any]", room: "queue.SimpleQueue[bool]"
) -> None:
    while True:  # take back what it may still make, and stop it
        try:
            room.get_nowait()
        except queue.Empty:
            break
    room.put(False)
    if thread is not threading.current_thread():  # in which the executor may be collected
        thread.join()
    while not made.empty():
        made.get_nowait()

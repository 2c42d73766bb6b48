"""The plan: step -> the rows of the global batch, from whole numbers alone and the same on every rank.

All rows have room for L tokens, so weights by rows are weights by tokens (but for padding). Which rows a
domain has, and in which order, is packing.py's; the plan decides which domain the next row comes from.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels.apportion import ROW, apportion, largest_remainder
from .packing import Packing, Position, RowsById, epochs_at, first_position, following, ranges
from .schedule import Ramp, bounded

NO_LIMIT = 2**62  # rows; more than any run draws
# (start_step, int64 (n_domains,) shares of ROW) in ascending order.
Schedule = list[tuple[int, NDArray[np.int64]]]
Bounds = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Domain:
    """What the planner knows of a domain."""

    name: str
    packing: Packing
    end: Position | None = None  # the first row that max_epochs forbids; None: no limit


@dataclass(frozen=True)
class Event:
    """Something that happened to a domain in `step`.

    "reached max_epochs": it gave its last row; from there on the others share its weight. "appended ...":
    shards, since the state that was loaded before `step`.
    """

    step: int
    domain: str
    what: str = "reached max_epochs"


class CyclePlace(NamedTuple):
    """Where a run of sequences of several lengths is in its cycle (curriculum.py)."""

    cycle: int
    turn: int  # the next one
    counts: tuple[int, ...]  # turns of each length in the cycle; all zero before the first
    credit: tuple[int, ...]  # of each length, in units of ROW


class Drawn(NamedTuple):
    """What was drawn of a domain."""

    n_rows: int
    n_tokens: int  # without padding
    epochs: float


@dataclass(frozen=True)
class Cursor:
    """Everything that decides which rows come next, besides the planner's own arguments."""

    step: int
    positions: tuple[Position, ...]  # of each domain
    rows_drawn: tuple[int, ...]  # of each domain, in all epochs
    tokens_drawn: tuple[int, ...]  # of each domain, without padding
    credit: tuple[int, ...]  # of each domain, in units of ROW; see kernels/apportion.py
    events: tuple[Event, ...] = ()
    place: CyclePlace | None = None  # of a run of one length: None

    @property
    def n_rows(self) -> int:
        """Rows of all batches so far."""
        return sum(self.rows_drawn)


@dataclass(frozen=True)
class Rows:
    """The rows of consecutive global batches: int64, (n_steps, global_batch) each.

    Row i of all (in C order) has segments [bounds[i], bounds[i + 1]).
    """

    domains: NDArray[np.int64]  # index into the planner's domains
    rows: NDArray[np.int64]  # what names the row within its domain and epoch
    epochs: NDArray[np.int64]  # of the domain, from 0
    shares: NDArray[np.int64]  # of the row's domain when the row was drawn, in units of ROW
    counts: NDArray[np.int64]  # (n_rows,), segments of each row
    bounds: NDArray[np.int64]  # (n_rows + 1,)
    starts: NDArray[np.int64]  # (n_segments,), positions in the loader's stream
    lengths: NDArray[np.int64]  # (n_segments,), tokens
    # (n_steps,), tokens of the sequences that each step's rows are divided into; None: rows are sequences.
    sequence_lengths: NDArray[np.int64] | None = None


class Planner:
    """Plans global batches; `plan` is a function of its arguments and the schedules.

    Args:
        domains: the domains, whose order breaks ties (the loader sorts them by name).
        global_batch: B, rows of one step over all ranks, from step 0 on.
        shares: the weights: int64, (n_domains,), in units of ROW, from step 0 on; or a ramp, which holds
            until the first entry that is appended.
        bounds: floors and ceilings of the shares, in units of ROW.
        compiled: False plans without compiled kernels, to the same rows; an attribute, which may change.

    >>> from .packing import Concat
    >>> sizes = {"code": 5, "web": 10}
    >>> domains = [Domain(name, Concat(name, 0, n_tokens, 1)) for name, n_tokens in sizes.items()]
    >>> planner = Planner(domains, 3, np.array([ROW // 4, 3 * ROW // 4]))
    >>> batches, cursor = planner.plan(planner.start(), n_steps=4)
    >>> np.bincount(batches.domains.ravel()).tolist(), cursor.rows_drawn
    ([3, 9], (3, 9))
    """

    def __init__(
        self,
        domains: Sequence[Domain],
        global_batch: int,
        shares: NDArray[np.int64] | Ramp,
        bounds: Bounds | None = None,
        *,
        compiled: bool = True,
    ) -> None:
        self.domains, self.bounds = tuple(domains), bounds
        self.batch_sizes: list[tuple[int, int]] = [(0, global_batch)]
        self.schedule: Schedule = []
        self.ramp = shares if isinstance(shares, Ramp) else None
        self.compiled = compiled
        if isinstance(shares, Ramp):
            for point in shares.shares:
                self._check(np.array(point, np.int64))
        else:
            self.append(0, shares)

    def start(self) -> Cursor:
        """Where a fresh run begins."""
        return self.start_where([True] * len(self.domains))

    def start_where(self, has_rows: Sequence[bool]) -> Cursor:
        """`start`, given which domains are known to have no row: those are not searched for one."""
        zeros = (0,) * len(self.domains)
        return Cursor(
            step=0,
            positions=tuple(
                first_position(domain.packing, compiled=self.compiled) if has else Position(0, 0, 0)
                for domain, has in zip(self.domains, has_rows, strict=True)
            ),
            rows_drawn=zeros,
            tokens_drawn=zeros,
            credit=zeros,
        )

    def append(self, at_step: int, shares: NDArray[np.int64]) -> None:
        """Let `shares` hold from `at_step` on; of two entries for one step the later one holds.

        Raises:
            ValueError: at_step lies before the last entry, or a domain with a share has no row.
        """
        if self.schedule and at_step < self.schedule[-1][0]:
            raise ValueError(
                f"at_step is {at_step}; the schedule is append-only and its last entry starts at step "
                f"{self.schedule[-1][0]}"
            )
        self._check(shares)
        self.schedule.append((at_step, shares))

    def resize(self, at_step: int, global_batch: int) -> None:
        """Let batches have `global_batch` rows from `at_step` on. Append-only, like the schedule."""
        if at_step < self.batch_sizes[-1][0]:
            raise ValueError(
                f"at_step is {at_step}; batch sizes are append-only and the last one starts at step "
                f"{self.batch_sizes[-1][0]}"
            )
        self.batch_sizes.append((at_step, global_batch))

    def batch_size_at(self, step: int) -> int:
        """Rows of the global batch of a step."""
        return self.batch_sizes_from(step)[0][1]

    def batch_sizes_from(self, step: int) -> list[tuple[int, int]]:
        """The batch size that holds at `step`, and those after it."""
        return self.batch_sizes[bisect_right(self.batch_sizes, step, key=lambda entry: entry[0]) - 1 :]

    def entries_from(self, step: int) -> Schedule:
        """The schedule's entry that holds at `step` (none while a ramp does), and those after it."""
        return self.schedule[max(0, bisect_right(self.schedule, step, key=lambda entry: entry[0]) - 1) :]

    def shares_at(self, cursor: Cursor) -> NDArray[np.int64] | None:
        """The weights that hold for the next row: int64, (n_domains,), in units of ROW.

        Exhausted domains have none, and the others share theirs in proportion, within their bounds; None
        when no domain is left.
        """
        return self._shares(cursor, cursor.step, cursor.n_rows)

    def drawn(self, cursor: Cursor) -> list[Drawn]:
        """What was drawn of each domain."""
        return [
            Drawn(n_rows, n_tokens, epochs_at(domain.packing, position))
            for domain, position, n_rows, n_tokens in zip(
                self.domains, cursor.positions, cursor.rows_drawn, cursor.tokens_drawn, strict=True
            )
        ]

    def plan(self, cursor: Cursor, n_steps: int) -> tuple[Rows, Cursor]:
        """The next n_steps global batches, and the cursor after them.

        Fewer where the batch size changes; and when the domains are exhausted: a batch that they cannot fill
        is not given, on any rank. Planning a + b steps gives what planning a, then b gives.
        O(rows · n_domains) at any step, and the blocks of best_fit that the rows come from.
        """
        order, shares, after = self._draw(cursor, n_steps)
        return self._rows(cursor, order, shares, self.batch_size_at(cursor.step)), after

    def advance(self, cursor: Cursor, n_steps: int) -> Cursor:
        """The cursor that `plan` returns, without the rows."""
        return self._draw(cursor, n_steps)[2]

    def rows_by_id(self) -> Sequence[RowsById]:
        """The rows of each domain, as batches name them."""
        return [domain.packing for domain in self.domains]

    def _draw(
        self, cursor: Cursor, n_steps: int
    ) -> tuple[NDArray[np.int64], list[NDArray[np.int64]], Cursor]:
        """Domains of the next rows, the shares in force for each, and the cursor after them."""
        following = self.batch_sizes_from(cursor.step)[1:]
        batch = self.batch_size_at(cursor.step)
        if following:
            n_steps = min(n_steps, following[0][0] - cursor.step)
        n_wanted, n_planned, after = n_steps * batch, 0, cursor
        order, shares_of_rows = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        while n_planned < n_wanted:
            begun = n_planned // batch
            shares = self._shares(after, cursor.step + begun, cursor.n_rows + begun * batch)
            if shares is None:
                return self._draw(cursor, n_planned // batch)
            n_same = begun + self._steps_of_same_weights(cursor, begun, n_steps, batch)
            domains, credit = apportion(
                shares,
                np.array(after.credit, np.int64),
                n_same * batch - n_planned,
                self._available(after),
                compiled=self.compiled,
            )
            order.append(domains)
            shares_of_rows.append(shares[domains])
            n_planned += domains.size
            after = self._after(after, domains, credit, cursor.step, cursor.n_rows, batch)
        return np.concatenate(order), shares_of_rows, after

    def _steps_of_same_weights(self, cursor: Cursor, begun: int, n_steps: int, batch: int) -> int:
        """How many steps, from cursor.step + begun on and at least one, the scheduled weights stay."""
        step, n_left = cursor.step + begun, n_steps - begun
        after = bisect_right(self.schedule, step, key=lambda entry: entry[0])
        n_same = min(n_left, self.schedule[after][0] - step) if after < len(self.schedule) else n_left
        if self.ramp is None or self._entry(step) is not None:
            return n_same
        n_rows = cursor.n_rows + begun * batch
        level = self.ramp.level(n_rows)
        return next((n for n in range(1, n_same) if self.ramp.level(n_rows + n * batch) != level), n_same)

    def _entry(self, step: int) -> NDArray[np.int64] | None:
        """What the schedule says at a step; None: nothing yet, the ramp holds."""
        k = bisect_right(self.schedule, step, key=lambda entry: entry[0]) - 1
        return self.schedule[k][1] if k >= 0 else None

    def _shares(self, cursor: Cursor, step: int, n_rows: int) -> NDArray[np.int64] | None:
        """The weights for the next row when `step` began after n_rows of the run."""
        scheduled = self._entry(step)
        if scheduled is None:
            assert self.ramp is not None
            scheduled = self.ramp.at(self.ramp.level(n_rows))
        has_rows = self._available(cursor) > 0
        shares = np.where(has_rows, scheduled, 0)
        if self.bounds is not None:
            low, high = (tuple(np.where(has_rows, bound, 0).tolist()) for bound in self.bounds)
            if not (shares.any() or any(low)):
                return None
            return np.array(bounded(tuple(shares.tolist()), low, high), np.int64)
        if not shares.any():
            return None
        return shares if shares.sum() == ROW else largest_remainder(shares, ROW)

    def _available(self, cursor: Cursor) -> NDArray[np.int64]:
        """Rows that each domain has left in its block: int64, (n_domains,); 0: none in any."""
        return np.array([self._left(k, position) for k, position in enumerate(cursor.positions)], np.int64)

    def _left(self, k: int, position: Position) -> int:
        packing, end = self.domains[k].packing, self.domains[k].end
        if end is not None and position >= end:
            return 0
        n_rows = packing.n_rows(position.epoch, position.block, compiled=self.compiled)
        if end is not None and position[:2] == end[:2]:
            n_rows = min(n_rows, end.row)
        return n_rows - position.row

    def _after(
        self,
        cursor: Cursor,
        domains: NDArray[np.int64],
        credit: NDArray[np.int64],
        first_step: int,
        n_rows_before: int,
        batch: int,
    ) -> Cursor:
        """The cursor when rows of `domains` are drawn; only the last of them can be a domain's last row."""
        drawn = np.bincount(domains, minlength=len(self.domains)).tolist()
        positions = list(cursor.positions)
        tokens = list(cursor.tokens_drawn)
        for k in np.flatnonzero(drawn).tolist():
            epoch, block, row = positions[k]
            packing, end = self.domains[k].packing, row + drawn[k]
            tokens[k] += packing.n_tokens(epoch, block, row, end, compiled=self.compiled)
            if end < packing.n_rows(epoch, block, compiled=self.compiled):
                positions[k] = Position(epoch, block, end)
            else:
                epoch, block, _ = following(packing, epoch, block)
                positions[k] = first_position(packing, epoch, block, compiled=self.compiled)
        rows_drawn = tuple(n + more for n, more in zip(cursor.rows_drawn, drawn, strict=True))
        n_planned = sum(rows_drawn) - n_rows_before
        after = Cursor(
            first_step + n_planned // batch,
            tuple(positions),
            rows_drawn,
            tuple(tokens),
            tuple(credit.tolist()),
            cursor.events,
        )
        last = int(domains[-1])
        if self._left(last, after.positions[last]) > 0:
            return after
        event = Event(step=first_step + (n_planned - 1) // batch, domain=self.domains[last].name)
        return replace(after, events=(*after.events, event))

    def _rows(
        self, cursor: Cursor, order: NDArray[np.int64], shares: list[NDArray[np.int64]], batch: int
    ) -> Rows:
        """The rows of `order`: each domain's run on from its position."""
        rows, epochs, counts = np.empty_like(order), np.empty_like(order), np.empty_like(order)
        found = []
        for k in np.flatnonzero(np.bincount(order)).tolist():  # np.unique imports np.ma, 40 ms
            packing, position = self.domains[k].packing, cursor.positions[k]
            (drawn,) = np.nonzero(order == k)
            begin = 0
            while begin < drawn.size:
                epoch, block, row = position
                n = min(drawn.size - begin, packing.n_rows(epoch, block, compiled=self.compiled) - row)
                segments = packing.rows(epoch, block, row, row + n, compiled=self.compiled)
                here = drawn[begin : begin + n]
                rows[here], epochs[here], counts[here] = segments.row_ids, epoch, segments.counts
                found.append((here, segments))
                epoch, block, _ = following(packing, epoch, block)
                begin += n
                if begin < drawn.size:
                    position = first_position(packing, epoch, block, compiled=self.compiled)
        bounds = np.concatenate([[0], np.cumsum(counts)])
        starts, lengths = np.empty(int(bounds[-1]), np.int64), np.empty(int(bounds[-1]), np.int64)
        one_each = bounds[-1] == order.size  # no row is without a segment
        for here, segments in found:
            to = here if one_each else ranges(bounds[here], segments.counts)
            starts[to], lengths[to] = segments.starts, segments.lengths
        shape = (-1, batch)
        return Rows(
            order.reshape(shape),
            rows.reshape(shape),
            epochs.reshape(shape),
            np.concatenate(shares)[: order.size].reshape(shape),
            counts,
            bounds,
            starts,
            lengths,
        )

    def _check(self, shares: NDArray[np.int64]) -> None:
        start = self.start()
        low = self.bounds[0] if self.bounds else (0,) * len(self.domains)
        for k, (domain, share) in enumerate(zip(self.domains, shares.tolist(), strict=True)):
            if not (share or low[k]) or self._left(k, start.positions[k]) > 0:
                continue
            weight = max(share, low[k]) / ROW
            n_rows = domain.packing.n_rows(*start.positions[k][:2], compiled=self.compiled)
            if not n_rows:
                raise ValueError(
                    f"domain {domain.name!r} has weight {weight:.6g} and fewer tokens than one row "
                    "(sequence_length + 1); set its weight to 0 or shorten sequence_length"
                )
            raise ValueError(
                f"domain {domain.name!r} has weight {weight:.6g} and max_epochs allows none of its "
                f"{n_rows} rows; set its weight to 0 or raise max_epochs"
            )

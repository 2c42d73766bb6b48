"""The plan: step -> the rows of the global batch, from whole numbers alone and the same on every rank.

Packing is `concat`: a domain's documents, one after another as they lie in its shards, each ended by its
end-of-sequence token, form one stream, and row r is its tokens [r L, r L + L + 1), so that every token but
the first is predicted once in an epoch; the last (n_tokens - 1) mod L tokens are left over. Rows are
shuffled, documents inside a row are neighbours of the stream. All rows have L tokens, so weights by rows
are weights by tokens.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from ..kernels.apportion import ROW, apportion, largest_remainder
from ..kernels.permutation import permute

NO_LIMIT = 2**62  # rows; more than any run draws
# (start_step, int64 (n_domains,) shares of ROW) in ascending order.
Schedule = list[tuple[int, NDArray[np.int64]]]


@dataclass(frozen=True)
class Domain:
    """What the planner knows of a domain."""

    name: str
    n_rows: int  # of one epoch
    max_rows: int | None = None  # in all epochs; None: no limit


@dataclass(frozen=True)
class Event:
    """A domain gave its last row in `step`; from there on the others share its weight."""

    step: int
    domain: str


@dataclass(frozen=True)
class Cursor:
    """Everything that decides which rows come next, besides the planner's own arguments."""

    step: int
    rows_drawn: tuple[int, ...]  # of each domain, in all epochs
    credit: tuple[int, ...]  # of each domain, in units of ROW; see kernels/apportion.py
    events: tuple[Event, ...] = ()


@dataclass(frozen=True)
class Rows:
    """The rows of consecutive global batches: int64, (n_steps, global_batch) each."""

    domains: NDArray[np.int64]  # index into the planner's domains
    rows: NDArray[np.int64]  # row of the domain's stream, 0..n_rows - 1
    epochs: NDArray[np.int64]  # of the domain, from 0


def stream_key(seed: int, domain: str, epoch: int) -> int:
    """The 64-bit key of a domain's order in one epoch, by its name, so that other domains don't matter.

    >>> stream_key(0, "web", 0) == stream_key(0, "web", 1)
    False
    """
    return int.from_bytes(blake2b(f"{seed}/{epoch}/{domain}".encode(), digest_size=8).digest(), "little")


class Planner:
    """Plans global batches; `plan` is a function of its arguments and the schedule.

    Args:
        domains: the domains, whose order breaks ties (the loader sorts them by name).
        seed: of every shuffle.
        global_batch: B, rows of one step over all ranks.
        shares: int64, (n_domains,), the weights from step 0 on, in units of ROW.

    >>> planner = Planner([Domain("code", 4), Domain("web", 9)], 0, 3, np.array([ROW // 4, 3 * ROW // 4]))
    >>> batches, cursor = planner.plan(planner.start(), n_steps=4)
    >>> np.bincount(batches.domains.ravel()).tolist(), cursor.rows_drawn
    ([3, 9], (3, 9))
    """

    def __init__(
        self, domains: Sequence[Domain], seed: int, global_batch: int, shares: NDArray[np.int64]
    ) -> None:
        self.domains, self.seed, self.global_batch = tuple(domains), seed, global_batch
        self.schedule: Schedule = []
        self.append(0, shares)

    def start(self) -> Cursor:
        """Where a fresh run begins."""
        return Cursor(step=0, rows_drawn=(0,) * len(self.domains), credit=(0,) * len(self.domains))

    def append(self, at_step: int, shares: NDArray[np.int64]) -> None:
        """Let `shares` hold from `at_step` on; of two entries for one step the later one holds.

        Raises:
            ValueError: at_step lies before the last entry, or a domain with a share has no whole row.
        """
        if self.schedule and at_step < self.schedule[-1][0]:
            raise ValueError(
                f"at_step is {at_step}; the schedule is append-only and its last entry starts at step "
                f"{self.schedule[-1][0]}"
            )
        for domain, share in zip(self.domains, shares.tolist(), strict=True):
            if share and not domain.n_rows:
                raise ValueError(
                    f"domain {domain.name!r} has weight {share / ROW:.6g} and fewer tokens than one row "
                    "(sequence_length + 1); set its weight to 0 or shorten sequence_length"
                )
            if share and domain.max_rows == 0:
                raise ValueError(
                    f"domain {domain.name!r} has weight {share / ROW:.6g} and max_epochs allows none of its "
                    f"{domain.n_rows} rows; set its weight to 0 or raise max_epochs"
                )
        self.schedule.append((at_step, shares))

    def shares_at(self, cursor: Cursor) -> NDArray[np.int64] | None:
        """The weights that hold for the next row: int64, (n_domains,), in units of ROW.

        Exhausted domains have none, and the others share theirs in proportion; None when no domain is left.
        """
        scheduled = self.entries_from(cursor.step)[0][1]
        shares = np.where(self._available(cursor) > 0, scheduled, 0)
        if not shares.any():
            return None
        return shares if shares.sum() == ROW else largest_remainder(shares, ROW)

    def plan(self, cursor: Cursor, n_steps: int) -> tuple[Rows, Cursor]:
        """The next n_steps global batches, and the cursor after them.

        Fewer when the domains are exhausted: a batch that they cannot fill is not given, on any rank.
        Planning a + b steps gives what planning a, then b gives. O(rows · n_domains) at any step.
        """
        n_wanted, n_planned, after = n_steps * self.global_batch, 0, cursor
        order = [np.empty(0, np.int64)]
        while n_planned < n_wanted:
            shares = self.shares_at(after)
            if shares is None:
                return self.plan(cursor, n_planned // self.global_batch)
            following = self.entries_from(after.step)[1:]
            n_until_change = (following[0][0] - cursor.step) * self.global_batch if following else n_wanted
            domains, credit = apportion(
                shares,
                np.array(after.credit, np.int64),
                min(n_wanted, n_until_change) - n_planned,
                self._available(after),
            )
            order.append(domains)
            n_planned += domains.size
            after = self._after(after, domains, credit, step=cursor.step + n_planned // self.global_batch)
        return self._rows(cursor, np.concatenate(order)), after

    def entries_from(self, step: int) -> Schedule:
        """The schedule's entry that holds at `step`, and those after it."""
        return self.schedule[bisect_right(self.schedule, step, key=lambda entry: entry[0]) - 1 :]

    def _available(self, cursor: Cursor) -> NDArray[np.int64]:
        """Rows that each domain may still give: int64, (n_domains,)."""
        return np.array(
            [
                0
                if domain.n_rows == 0
                else NO_LIMIT
                if domain.max_rows is None
                else domain.max_rows - n_drawn
                for domain, n_drawn in zip(self.domains, cursor.rows_drawn, strict=True)
            ],
            np.int64,
        )

    def _after(
        self, cursor: Cursor, domains: NDArray[np.int64], credit: NDArray[np.int64], step: int
    ) -> Cursor:
        """The cursor when rows of `domains` are drawn; only the last of them can be a domain's last row."""
        n_drawn = np.bincount(domains, minlength=len(self.domains)) + cursor.rows_drawn
        after = Cursor(step, tuple(n_drawn.tolist()), tuple(credit.tolist()), cursor.events)
        last = int(domains[-1])
        if self._available(after)[last] > 0:
            return after
        n_rows_before = int(n_drawn.sum()) - 1
        event = Event(step=n_rows_before // self.global_batch, domain=self.domains[last].name)
        return replace(after, events=(*after.events, event))

    def _rows(self, cursor: Cursor, order: NDArray[np.int64]) -> Rows:
        """Row and epoch, within its domain, of each drawn row: positions run on, the key shuffles them."""
        rows, epochs = np.empty_like(order), np.empty_like(order)
        for k in np.unique(order).tolist():
            name, n_rows = self.domains[k].name, self.domains[k].n_rows
            (drawn,) = np.nonzero(order == k)
            begin = 0
            while begin < drawn.size:
                epoch, position = divmod(cursor.rows_drawn[k] + begin, n_rows)
                end = min(drawn.size, begin + n_rows - position)
                positions = np.arange(position, position + end - begin)
                rows[drawn[begin:end]] = permute(positions, n_rows, stream_key(self.seed, name, epoch))
                epochs[drawn[begin:end]] = epoch
                begin = end
        shape = (-1, self.global_batch)
        return Rows(order.reshape(shape), rows.reshape(shape), epochs.reshape(shape))

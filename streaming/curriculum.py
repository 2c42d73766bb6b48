"""Which length the sequences of a step have, and the plan of a run whose steps have different ones.

A bucket is the rows of one length, of all domains. Each has a plan of its own; a step's length is that of its
turn in the cycle. So weights, world sizes and resuming are those of plan.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ..kernels.apportion import ROW, apportion, largest_remainder
from ..kernels.permutation import mix64
from ..kernels.token_stream import TokenLayout
from .decomposition import Bucket, Decomposed, Vsl
from .manifest import StoredTokens
from .orders import Order, stream_key
from .packing import DocumentBlocks, RowsById, Segments, end_position, first_position, ranges
from .plan import NO_LIMIT, Cursor, CyclePlace, Domain, Drawn, Event, Planner, Rows

LENGTH_SHIFT = 56  # of a row id: the index of its length


@dataclass(frozen=True)
class DomainByLength:
    """One domain: its rows of each length, shortest first."""

    name: str
    buckets: tuple[Domain, ...]
    n_tokens: tuple[int, ...]  # of each, in proportion; 0 where there is no row
    left_out: float  # part of the domain's tokens that no row has


def domains_by_length(
    stores: Mapping[str, StoredTokens],
    layout: TokenLayout,
    seed: int,
    sequence_length: int,
    vsl: Vsl,
    max_epochs: Mapping[str, float | None],
    window: int | None,
    *,
    compiled: bool,
) -> list[DomainByLength]:
    """Each domain's documents, cut as `vsl` says."""
    found: list[DomainByLength] = []
    first_doc = 0
    for name, store in stores.items():
        blocks = DocumentBlocks(store.n_docs, store.n_tokens, sequence_length)
        order = Order(name, seed, store.docs_before(0, store.n_shards), window)
        decomposed = Decomposed(name, seed, layout, first_doc, blocks, sequence_length, vsl, order)
        first_doc += store.n_docs
        n_tokens, left_out = decomposed.token_shares(compiled=compiled)
        cap, buckets, sizes = max_epochs[name], list[Domain](), list[int]()
        for i, size in enumerate(n_tokens.tolist()):
            rows = Bucket(decomposed, i)
            at = first_position(rows, compiled=compiled) if size else None
            has_rows = at is not None and rows.n_rows(*at[:2], compiled=compiled) > 0
            end = None if cap is None or not has_rows else end_position(rows, cap, compiled=compiled)
            buckets.append(Domain(name, rows, end))
            sizes.append(size if has_rows else 0)
        found.append(DomainByLength(name, tuple(buckets), tuple(sizes), left_out))
    return found


class LengthPlanner(Planner):
    """A planner of global batches of one length each; `plan` is a function of its arguments and the schedule.

    Each length takes the domains' weights times the part of their tokens that it has: over a cycle every
    domain has its weight, and gives every length in proportion, so its buckets come to their ends together.
    A length that cannot fill a batch any more is passed over; the run ends when none can.

    Args:
        by_length: the domains.
        global_batch: rows of L tokens of one step; of a length l, B L / l sequences.
        shares: the weights: int64, (n_domains,), in units of ROW.
        sequence_length: L.
        vsl: the lengths and their order.
        seed: of the order.
        compiled: as for Planner.
    """

    def __init__(
        self,
        by_length: Sequence[DomainByLength],
        global_batch: int,
        shares: NDArray[np.int64],
        sequence_length: int,
        vsl: Vsl,
        seed: int,
        *,
        compiled: bool = True,
    ) -> None:
        self.by_length, self.lengths, self._vsl = tuple(by_length), vsl.lengths(sequence_length), vsl
        self._key = stream_key(seed, "vsl", 0)
        nothing = np.zeros(len(by_length), np.int64)
        self._parts = [
            Planner([domain.buckets[i] for domain in by_length], global_batch, nothing, compiled=compiled)
            for i in range(len(self.lengths))
        ]
        flat = [bucket for domain in by_length for bucket in domain.buckets]
        super().__init__(flat, global_batch, shares, compiled=compiled)

    def start(self) -> Cursor:
        n = len(self.lengths)
        sizes = [size for domain in self.by_length for size in domain.n_tokens]
        cursor = super().start_where(has_rows=[size > 0 for size in sizes])
        return replace(cursor, place=CyclePlace(0, 0, (0,) * n, (0,) * n))

    def shares_at(self, cursor: Cursor) -> NDArray[np.int64] | None:
        left = self._available(cursor).reshape(-1, len(self.lengths)).any(axis=1)
        shares = np.where(left, self._weights(cursor), 0)
        return largest_remainder(shares, ROW) if shares.any() else None

    def plan(self, cursor: Cursor, n_steps: int) -> tuple[Rows, Cursor]:
        turns, before, after = self._take(cursor, n_steps)
        batch = self.batch_size_at(cursor.step)
        found = []
        for i in np.flatnonzero(np.bincount(turns, minlength=len(self.lengths))).tolist():
            (steps,) = np.nonzero(turns == i)
            found.append((i, steps, self._part(i, before).plan(self._of_length(before, i), steps.size)[0]))
        return self._merged(turns.size, batch, found, self._weights(cursor)), after

    def advance(self, cursor: Cursor, n_steps: int) -> Cursor:
        return self._take(cursor, n_steps)[2]

    def drawn(self, cursor: Cursor) -> list[Drawn]:
        n, found = len(self.lengths), list[Drawn]()
        whole = super().drawn(cursor)
        for k, domain in enumerate(self.by_length):
            parts, sizes = whole[k * n : (k + 1) * n], np.array(domain.n_tokens)
            epochs = np.dot([part.epochs for part in parts], sizes) / max(1, sizes.sum())
            n_rows, n_tokens = (sum(part[j] for part in parts) for j in (0, 1))
            found.append(Drawn(int(n_rows), int(n_tokens), float(epochs)))
        return found

    def rows_by_id(self) -> list[RowsById]:
        return [_RowsOfAllLengths(domain, self.lengths) for domain in self.by_length]

    def _take(self, cursor: Cursor, n_steps: int) -> tuple[NDArray[np.int64], Cursor, Cursor]:
        """The lengths of the next steps, the cursor that they are planned from, and the cursor after them.

        Fewer steps where weights or the batch size change, a cycle ends, or a length has no batch left.
        """
        for changes in (self.batch_sizes, self.schedule):
            n_steps = min([n_steps, *(start - cursor.step for start, _ in changes if start > cursor.step)])
        none = np.empty(0, np.int64)
        closed: set[int] = set()
        while n_steps > 0:
            assert cursor.place is not None
            order = self._order(cursor.place.cycle, cursor.place.counts)[cursor.place.turn :]
            is_open = np.ones(len(self.lengths), np.bool_)
            is_open[[*closed]] = False
            turns = np.flatnonzero(is_open[order])
            if not turns.size:
                begun = self._next_cycle(cursor)
                if begun is None:
                    break
                cursor, closed = begun, set()
                continue
            taken = order[turns[:n_steps]]
            afters = self._advanced(cursor, taken)
            short = [
                int(np.flatnonzero(taken == i)[after.step])
                for i, after in afters.items()
                if after.step < np.count_nonzero(taken == i)
            ]
            if short and min(short) == 0:
                closed.add(int(taken[0]))
                continue
            if short:
                taken = taken[: min(short)]
                afters = self._advanced(cursor, taken)
            n_turns = int(turns[taken.size - 1]) + 1
            return taken, cursor, self._after_turns(cursor, taken, afters, n_turns)
        return none, cursor, cursor

    def _advanced(self, cursor: Cursor, taken: NDArray[np.int64]) -> dict[int, Cursor]:
        """Each length's cursor after as many of its steps as it is taken, or can give."""
        counts = np.bincount(taken, minlength=len(self.lengths))
        return {
            i: self._part(i, cursor).advance(self._of_length(cursor, i), int(counts[i]))
            for i in np.flatnonzero(counts).tolist()
        }

    def _part(self, i: int, cursor: Cursor) -> Planner:
        """The planner of one length, with the weights and the batch size that hold at the cursor."""
        part, shares = self._parts[i], self._weights(cursor)
        part.compiled = self.compiled
        part.schedule = [(0, _of_bucket(tuple(shares.tolist()), self._proportions(i)))]
        part.batch_sizes = [(0, self.batch_size_at(cursor.step))]
        return part

    def _of_length(self, cursor: Cursor, i: int) -> Cursor:
        """One length's part of a cursor; its steps are counted from 0."""
        mine = slice(i, None, len(self.lengths))
        drawn = cursor.rows_drawn[mine], cursor.tokens_drawn[mine]
        return Cursor(0, cursor.positions[mine], *drawn, cursor.credit[mine])

    def _after_turns(
        self, cursor: Cursor, taken: NDArray[np.int64], afters: Mapping[int, Cursor], n_turns: int
    ) -> Cursor:
        assert cursor.place is not None
        n, events = len(self.lengths), list(cursor.events)
        positions, rows_drawn = list(cursor.positions), list(cursor.rows_drawn)
        tokens_drawn, credit = list(cursor.tokens_drawn), list(cursor.credit)
        for i, after in afters.items():
            positions[i::n], rows_drawn[i::n] = after.positions, after.rows_drawn
            tokens_drawn[i::n], credit[i::n] = after.tokens_drawn, after.credit
            steps = np.flatnonzero(taken == i).tolist()
            events += [
                Event(
                    cursor.step + steps[event.step], event.domain, f"{event.what} at {self.lengths[i]} tokens"
                )
                for event in after.events
            ]
        return Cursor(
            cursor.step + taken.size,
            tuple(positions),
            tuple(rows_drawn),
            tuple(tokens_drawn),
            tuple(credit),
            tuple(sorted(events, key=lambda event: event.step)),
            cursor.place._replace(turn=cursor.place.turn + n_turns),
        )

    def _next_cycle(self, cursor: Cursor) -> Cursor | None:
        """The cursor at the begin of the next cycle; None where no length can fill a batch."""
        assert cursor.place is not None
        shares = self._weights(cursor)
        sizes = [
            sum((int(w) * part for w, part in zip(shares, self._proportions(i), strict=True)), Fraction(0))
            if self._part(i, cursor).advance(self._of_length(cursor, i), 1).step
            else Fraction(0)
            for i in range(len(self.lengths))
        ]
        if not any(sizes):
            return None
        turns, credit = apportion(
            largest_remainder(np.array(sizes, object), ROW),
            np.array(cursor.place.credit, np.int64),
            self._vsl.cycle_steps,
            np.full(len(sizes), NO_LIMIT),
            compiled=self.compiled,
        )
        counts = np.bincount(turns, minlength=len(sizes))
        # The first cycle is 0: before it, nothing has been counted.
        cycle = cursor.place.cycle + any(cursor.place.counts)
        return replace(cursor, place=CyclePlace(cycle, 0, tuple(counts.tolist()), tuple(credit.tolist())))

    def _order(self, cycle: int, counts: tuple[int, ...]) -> NDArray[np.int64]:
        return cycle_order(counts, self._vsl.odds(len(counts)), self._key ^ cycle)

    def _weights(self, cursor: Cursor) -> NDArray[np.int64]:
        shares = self._entry(cursor.step)
        assert shares is not None
        return shares

    def _proportions(self, i: int) -> tuple[Fraction, ...]:
        """The part of each domain's tokens that has this length."""
        return tuple(Fraction(domain.n_tokens[i], max(1, sum(domain.n_tokens))) for domain in self.by_length)

    def _merged(
        self,
        n_steps: int,
        batch: int,
        found: Sequence[tuple[int, NDArray[np.int64], Rows]],
        weights: NDArray[np.int64],
    ) -> Rows:
        """The rows of all lengths, step by step."""
        of_steps = np.empty(n_steps, np.int64)
        domains, rows, epochs, counts = (np.empty((n_steps, batch), np.int64) for _ in range(4))
        for i, steps, part in found:
            of_steps[steps] = self.lengths[i]
            domains[steps], epochs[steps] = part.domains, part.epochs
            # What names the first of the row's sequences.
            rows[steps] = part.rows * (self.lengths[-1] // self.lengths[i]) + (i << LENGTH_SHIFT)
            counts[steps] = part.counts.reshape(-1, batch)
        bounds = np.concatenate([[0], np.cumsum(counts)])
        starts, lengths = np.empty(int(bounds[-1]), np.int64), np.empty(int(bounds[-1]), np.int64)
        for _, steps, part in found:
            here = (steps[:, None] * batch + np.arange(batch)).ravel()
            to = ranges(bounds[here], part.counts)
            starts[to], lengths[to] = part.starts, part.lengths
        shares = weights[domains]
        return Rows(domains, rows, epochs, shares, counts.ravel(), bounds, starts, lengths, of_steps)

    def _check(self, shares: NDArray[np.int64]) -> None:
        for domain, share in zip(self.by_length, shares.tolist(), strict=True):
            if share and not any(domain.n_tokens):
                raise ValueError(
                    f"domain {domain.name!r} has weight {share / ROW:.6g} and not one row of "
                    f"{self.lengths[-1]} tokens; set its weight to 0 or shorten sequence_length"
                )


class _RowsOfAllLengths:
    """A domain's rows by the ids that batches have; a block's number says of which length it is, too."""

    def __init__(self, domain: DomainByLength, lengths: Sequence[int]) -> None:
        self._packings = [bucket.packing for bucket in domain.buckets]
        self._n_of_row = [lengths[-1] // length for length in lengths]

    def block_of(self, row_id: int) -> int:
        i, row = divmod(row_id, 1 << LENGTH_SHIFT)
        return (i << LENGTH_SHIFT) + self._packings[i].block_of(row // self._n_of_row[i])

    def n_rows(self, epoch: int, block: int, *, compiled: bool = True) -> int:
        i, block = divmod(block, 1 << LENGTH_SHIFT)
        return self._packings[i].n_rows(epoch, block, compiled=compiled)

    def rows(self, epoch: int, block: int, begin: int, end: int, *, compiled: bool = True) -> Segments:
        i, block = divmod(block, 1 << LENGTH_SHIFT)
        found = self._packings[i].rows(epoch, block, begin, end, compiled=compiled)
        return found._replace(row_ids=found.row_ids * self._n_of_row[i] + (i << LENGTH_SHIFT))


@lru_cache(maxsize=256)
def _of_bucket(shares: tuple[int, ...], proportions: tuple[Fraction, ...]) -> NDArray[np.int64]:
    """The domains' weights among the rows of one length; all zero where none has any."""
    weights = np.array([share * part for share, part in zip(shares, proportions, strict=True)], object)
    return largest_remainder(weights, ROW) if any(weights) else np.zeros(len(shares), np.int64)


@lru_cache(maxsize=4)
def cycle_order(counts: tuple[int, ...], odds: tuple[int, ...], key: int) -> NDArray[np.int64]:
    """The lengths' turns in a cycle: drawn by their odds, without replacement, until all are used up.

    Args:
        counts: turns of each length.
        odds: of each length to be drawn while it has turns left.
        key: of the order; 64 bits.
    Returns:
        int64, (sum of counts,), the lengths' indices. In whole numbers alone, so equal on all machines.

    >>> np.bincount(cycle_order((3, 5), (2, 1), key=1)).tolist()
    [3, 5]
    """
    left, order = list(counts), list[int]()
    draws = mix64(np.arange(sum(counts), dtype=np.uint64), key).tolist()
    for draw in draws:
        at = draw * sum(odd for odd, n in zip(odds, left, strict=True) if n) >> 64
        for i, odd in enumerate(odds):
            if left[i]:
                at -= odd
                if at < 0:
                    break
        left[i] -= 1
        order.append(i)
    return np.array(order, np.int64)

"""One rank's rows: out of a plan, some of them, or several together."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .packing import ranges
from .plan import Rows


class RankRows(NamedTuple):
    """One rank's rows of consecutive steps, equally many of each."""

    step: int  # the first
    domains: NDArray[np.int64]  # (rows,), index into the planner's domains
    row_ids: NDArray[np.int64]  # (rows,)
    epochs: NDArray[np.int64]  # (rows,)
    shares: NDArray[np.int64]  # (rows,), in units of ROW
    counts: NDArray[np.int64]  # (rows,), segments of each row
    starts: NDArray[np.int64]  # (n_segments,), positions in the stream
    lengths: NDArray[np.int64]  # (n_segments,)
    n_steps: int = 1
    # (n_steps,), of the sequences that each step's rows are divided into; None: rows are sequences.
    sequence_lengths: NDArray[np.int64] | None = None


def rows_of_rank(rows: Rows, index: int, step: int, rank: int, world_size: int, n_steps: int = 1) -> RankRows:
    """Rows [rank B / world_size, (rank + 1) B / world_size) of each of n_steps batches of a plan.

    Args:
        index: of the first of them in the plan.
        step: of the run, of that batch.
    """
    batch = rows.domains.shape[1]
    steps = slice(index, index + n_steps)
    mine = slice(rank * batch // world_size, (rank + 1) * batch // world_size)
    if n_steps == 1 or world_size == 1:  # they lie together
        begin, end = index * batch + mine.start, (index + n_steps - 1) * batch + mine.stop
        counts = rows.counts[begin:end]
        segments: slice | NDArray[np.int64] = slice(rows.bounds[begin], rows.bounds[end])
    else:
        counts = rows.counts.reshape(-1, batch)[steps, mine].ravel()
        first, end_of = (
            rows.bounds[np.arange(index, index + n_steps) * batch + at] for at in (mine.start, mine.stop)
        )
        segments = ranges(first, end_of - first)
    return RankRows(
        step,
        rows.domains[steps, mine].ravel(),
        rows.rows[steps, mine].ravel(),
        rows.epochs[steps, mine].ravel(),
        rows.shares[steps, mine].ravel(),
        counts,
        rows.starts[segments],
        rows.lengths[segments],
        n_steps,
        None if rows.sequence_lengths is None else rows.sequence_lengths[steps],
    )


def take_rows(rows: RankRows, at: NDArray[np.int64]) -> RankRows:
    """Some of a step's rows, in the order of `at`."""
    bounds = np.concatenate([[0], np.cumsum(rows.counts)])
    segments = ranges(bounds[at], rows.counts[at])
    return RankRows(
        rows.step,
        rows.domains[at],
        rows.row_ids[at],
        rows.epochs[at],
        rows.shares[at],
        rows.counts[at],
        rows.starts[segments],
        rows.lengths[segments],
    )


def joined_rows(parts: Sequence[RankRows], n_steps: int = 1) -> RankRows:
    """The rows of all parts, one after another, as those of n_steps from the first part's step on."""
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts]) for name in RankRows._fields[1:8]
    }
    lengths = [part.sequence_lengths for part in parts if part.sequence_lengths is not None]
    columns["sequence_lengths"] = np.concatenate(lengths) if lengths else None
    return parts[0]._replace(n_steps=n_steps, **columns)


def columns(counts: NDArray[np.int64], lengths: NDArray[np.int64], sequence_length: int) -> NDArray[np.int64]:
    """Where each segment begins in the flattened rows, those of a row one after another.

    >>> columns(np.array([2, 1]), np.array([3, 4, 8]), 8).tolist()
    [0, 3, 8]
    """
    if counts.size == lengths.size:  # a segment for each row
        return np.arange(counts.size) * sequence_length
    ends = np.cumsum(lengths)
    last = np.cumsum(counts)
    filled_before = np.concatenate([[0], ends[last[:-1] - 1]])  # tokens of the rows before
    begins: NDArray[np.int64] = np.arange(counts.size) * sequence_length - filled_before
    at: NDArray[np.int64] = ends - lengths + np.repeat(begins, counts)
    return at

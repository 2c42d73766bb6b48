"""From planned rows to a batch of tensors: this rank's slice, in memory that is used again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels.apportion import ROW
from ..kernels.gather import RowArrays, TokenStream, gather
from .batch import Batch, FieldName
from .buffers import Buffers
from .plan import Rows

if TYPE_CHECKING:
    from torch import Tensor

# Blocks whose memory is kept: the trainer's, the one before it, and one on its way to a device.
N_HELD = 3
NO_POSITIONS, NO_BOUNDS = np.empty((0, 0), np.int64), np.empty(0, np.int32)  # are not wanted


class RankRows(NamedTuple):
    """One rank's rows of one step."""

    step: int
    domains: NDArray[np.int64]  # (rows,), index into the planner's domains
    row_ids: NDArray[np.int64]  # (rows,)
    epochs: NDArray[np.int64]  # (rows,)
    shares: NDArray[np.int64]  # (rows,), in units of ROW
    counts: NDArray[np.int64]  # (rows,), segments of each row
    starts: NDArray[np.int64]  # (n_segments,), positions in the stream
    lengths: NDArray[np.int64]  # (n_segments,)
    sequence_length: int | None = None  # of the sequences that a row is divided into; None: it is one


def rows_of_rank(rows: Rows, index: int, step: int, rank: int, world_size: int) -> RankRows:
    """Rows [rank B / world_size, (rank + 1) B / world_size) of the plan's batch `index`."""
    batch = rows.domains.shape[1]
    mine = slice(rank * batch // world_size, (rank + 1) * batch // world_size)
    begin, end = index * batch + mine.start, index * batch + mine.stop
    segments = slice(rows.bounds[begin], rows.bounds[end])
    return RankRows(
        step,
        rows.domains[index, mine],
        rows.rows[index, mine],
        rows.epochs[index, mine],
        rows.shares[index, mine],
        rows.counts[begin:end],
        rows.starts[segments],
        rows.lengths[segments],
        None if rows.sequence_lengths is None else int(rows.sequence_lengths[index]),
    )


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


@dataclass
class Assembler:
    """Makes batches; the large arrays come from `buffers`.

    Args:
        sequence_length: L.
        emit: the fields of a batch.
        pad_id: the input where a row has padding.
        mask_boundaries: as for `gather`.
        domain_ids: int64, (n_domains,), what the trainer calls each of the planner's domains.
        objective: float64, (n_domains,), weights of the loss; None: every row weighs 1.
        n_ahead: groups of batches that are made before they are handed out.
        pin_memory: of the large arrays.
    """

    sequence_length: int
    emit: Sequence[FieldName]
    pad_id: int
    mask_boundaries: bool
    domain_ids: NDArray[np.int64]
    objective: NDArray[np.float64] | None
    n_ahead: int
    pin_memory: bool = False

    def __post_init__(self) -> None:
        self._buffers: dict[tuple[int, int], Buffers] = {}
        self._row_begins: dict[int, NDArray[np.int64]] = {}

    def assemble(
        self,
        steps: Sequence[RankRows],
        stream: TokenStream,
        starts: NDArray[np.int64],
        *,
        compiled: bool = True,
    ) -> list[Batch]:
        """The batches of `steps`, of equally many rows each, whose segments lie in `stream` at `starts`.

        They are gathered in one call into one block of memory, which is used again when none of them is left.
        """
        import torch

        first, n_steps = steps[0], len(steps)
        n_rows = first.domains.size
        block = self._block(n_steps, n_rows)
        inputs, labels = block[0], block[1]
        positions = block[2] if len(block) > 2 else NO_POSITIONS
        wants_bounds = "cu_seqlens" in self.emit or "max_seqlen" in self.emit
        bounds = np.empty(inputs.size + 1, np.int32) if wants_bounds else NO_BOUNDS
        if n_steps == 1:
            counts, lengths = first.counts, first.lengths
        else:
            counts = np.concatenate([rows.counts for rows in steps])
            lengths = np.concatenate([rows.lengths for rows in steps])
        n_sequences, _ = gather(
            stream,
            starts,
            self._columns(counts, lengths),
            lengths,
            RowArrays(inputs, labels, positions, bounds),
            pad_id=self.pad_id,
            mask_boundaries=self.mask_boundaries,
            compiled=compiled,
        )
        tensors = torch.from_numpy(block.reshape(-1, n_rows, self.sequence_length)).unbind(0)
        bounds_of = _split_bounds(bounds[: n_sequences + 1], n_steps, inputs.size) if wants_bounds else []
        return [
            self._batch(rows, tensors[k::n_steps], bounds_of[k] if wants_bounds else bounds)
            for k, rows in enumerate(steps)
        ]

    def _block(self, n_steps: int, n_rows: int) -> NDArray[np.int64]:
        """Memory for the inputs, labels and positions of some batches: int64, (2 or 3, rows, L)."""
        buffers = self._buffers.get((n_steps, n_rows))
        if buffers is None:
            shape = (2 + ("position_ids" in self.emit), n_steps * n_rows, self.sequence_length)
            buffers = Buffers(shape, N_HELD + self.n_ahead, pinned=self.pin_memory)
            # A batch size that is over needs no memory.
            self._buffers = {of: each for of, each in self._buffers.items() if of[1] == n_rows}
            self._buffers[n_steps, n_rows] = buffers
        return buffers.take()

    def _columns(self, counts: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        if counts.size != lengths.size:
            return columns(counts, lengths, self.sequence_length)
        if counts.size not in self._row_begins:
            self._row_begins[counts.size] = columns(counts, lengths, self.sequence_length)
        return self._row_begins[counts.size]

    def _batch(self, rows: RankRows, tensors: "Sequence[Tensor]", bounds: NDArray[np.int32]) -> Batch:
        import torch

        length = rows.sequence_length or self.sequence_length
        n_of_row = self.sequence_length // length
        if n_of_row > 1:
            tensors = [tensor.view(-1, length) for tensor in tensors]
        values: dict[str, Any] = {"input_ids": tensors[0]}
        for name in self.emit:
            if name == "labels":
                values[name] = tensors[1]
            elif name == "domain_ids":
                values[name] = torch.from_numpy(_of_each(self.domain_ids[rows.domains], n_of_row))
            elif name == "row_ids":  # not a view, which would keep the whole plan alive
                row_ids = rows.row_ids.copy()
                if n_of_row > 1:
                    row_ids = (row_ids[:, None] + np.arange(n_of_row)).ravel()
                values[name] = torch.from_numpy(row_ids)
            elif name == "position_ids":
                values[name] = tensors[2]
            elif name == "cu_seqlens":
                values[name] = torch.from_numpy(bounds)
            elif name == "max_seqlen":
                longest = int(np.diff(bounds).max())
                values[name] = min(1 << (longest - 1).bit_length(), length)
            elif name == "weights":
                values[name] = torch.from_numpy(_of_each(self._weights(rows), n_of_row))
        return Batch.of(rows.step, values)

    def _weights(self, rows: RankRows) -> NDArray[np.float32]:
        if self.objective is None:
            return np.ones(rows.domains.size, np.float32)
        return (self.objective[rows.domains] * ROW / rows.shares).astype(np.float32)


def _split_bounds(bounds: NDArray[np.int32], n_steps: int, n_tokens: int) -> list[NDArray[np.int32]]:
    """Of each of some batches of together n_tokens, where its sequences begin: copies."""
    if n_steps == 1:
        return [bounds.copy()]
    begins = np.arange(n_steps + 1) * (n_tokens // n_steps)
    at = np.searchsorted(bounds, begins).tolist()
    return [
        bounds[low : high + 1] - np.int32(begin)
        for low, high, begin in zip(at[:-1], at[1:], begins.tolist(), strict=False)
    ]


def _of_each(values: NDArray[Any], n_of_row: int) -> NDArray[Any]:
    """A row's value for each of its sequences."""
    return values if n_of_row == 1 else values.repeat(n_of_row)

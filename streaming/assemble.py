"""From planned rows to a batch of tensors: this rank's slice, in memory that is used again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels.apportion import ROW
from ..kernels.gather import RowArrays, TokenStream, gather
from .batch import Batch, FieldName
from .buffers import Buffers
from .plan import Rows

# Batches whose memory is kept: the trainer's, the one before it, and one on its way to a device.
N_HELD = 3


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
    """Makes batches; each array of a batch comes from `buffers`, or is small.

    Args:
        sequence_length: L.
        emit: the fields of a batch.
        pad_id: the input where a row has padding.
        mask_boundaries: as for `gather`.
        domain_ids: int64, (n_domains,), what the trainer calls each of the planner's domains.
        objective: float64, (n_domains,), weights of the loss; None: every row weighs 1.
        n_ahead: batches that are made before they are handed out.
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
        self._buffers: dict[int, Buffers] = {}

    def assemble(
        self,
        rows: RankRows,
        stream: TokenStream,
        starts: NDArray[np.int64],
        *,
        compiled: bool = True,
    ) -> Batch:
        """The batch of `rows`, whose segments lie in `stream` at `starts`."""
        import torch

        length, n_rows = rows.sequence_length or self.sequence_length, rows.domains.size
        n_of_row = self.sequence_length // length
        shape = (n_rows * n_of_row, length)
        buffers = self._buffers.get(n_rows)
        if buffers is None:
            n_arrays = 2 + ("position_ids" in self.emit)
            n_kept = n_arrays * (N_HELD + self.n_ahead)
            buffers = Buffers((n_rows, self.sequence_length), n_kept, pinned=self.pin_memory)
            self._buffers = {n_rows: buffers}  # a batch size that is over needs no memory
        wants_bounds = "cu_seqlens" in self.emit or "max_seqlen" in self.emit
        arrays = RowArrays(
            inputs=buffers.take().reshape(shape),
            labels=buffers.take().reshape(shape),
            positions=buffers.take().reshape(shape)
            if "position_ids" in self.emit
            else np.empty((0, 0), np.int64),
            cu_seqlens=np.empty(shape[0] * shape[1] + 1 if wants_bounds else 0, np.int32),
        )
        n_sequences, longest = gather(
            stream,
            starts,
            columns(rows.counts, rows.lengths, self.sequence_length),
            rows.lengths,
            arrays,
            pad_id=self.pad_id,
            mask_boundaries=self.mask_boundaries,
            compiled=compiled,
        )
        values: dict[FieldName, Any] = {"input_ids": torch.from_numpy(arrays.inputs)}
        for name in self.emit:
            match name:
                case "labels":
                    values[name] = torch.from_numpy(arrays.labels)
                case "position_ids":
                    values[name] = torch.from_numpy(arrays.positions)
                case "cu_seqlens":
                    values[name] = torch.from_numpy(arrays.cu_seqlens[: n_sequences + 1].copy())
                case "max_seqlen":
                    values[name] = min(1 << (longest - 1).bit_length(), length)
                case "domain_ids":
                    values[name] = torch.from_numpy(_of_each(self.domain_ids[rows.domains], n_of_row))
                case "row_ids":  # not a view, which would keep the whole plan alive
                    row_ids = rows.row_ids.copy()
                    if n_of_row > 1:
                        row_ids = (row_ids[:, None] + np.arange(n_of_row)).ravel()
                    values[name] = torch.from_numpy(row_ids)
                case "weights":
                    values[name] = torch.from_numpy(_of_each(self._weights(rows), n_of_row))
        return Batch(step=rows.step, **values)

    def _weights(self, rows: RankRows) -> NDArray[np.float32]:
        if self.objective is None:
            return np.ones(rows.domains.size, np.float32)
        return (self.objective[rows.domains] * ROW / rows.shares).astype(np.float32)


def _of_each(values: NDArray[Any], n_of_row: int) -> NDArray[Any]:
    """A row's value for each of its sequences."""
    return values if n_of_row == 1 else values.repeat(n_of_row)

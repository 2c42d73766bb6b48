"""From planned rows to a batch of tensors: this rank's slice, in memory that is used again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.apportion import ROW
from ..kernels.gather import RowArrays, gather
from ..kernels.token_stream import TokenStream
from .batch import Batch, FieldName
from .buffers import Buffers
from .rank_rows import RankRows, columns

if TYPE_CHECKING:
    from torch import Tensor

# Blocks whose memory is kept: the trainer's, the one before it, and one on its way to a device.
N_HELD = 3
NO_POSITIONS, NO_BOUNDS = np.empty((0, 0), np.int64), np.empty(0, np.int32)  # are not wanted


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
        self, rows: RankRows, stream: TokenStream, starts: NDArray[np.int64], *, compiled: bool = True
    ) -> list[Batch]:
        """The batches of all steps of `rows`, whose segments lie in `stream` at `starts`.

        They are gathered in one call into one block of memory, which is used again when none of them is left.
        """
        import torch

        n_steps, n_rows = rows.n_steps, rows.domains.size // rows.n_steps
        block = self._block(n_steps, n_rows)
        wants_bounds = "cu_seqlens" in self.emit or "max_seqlen" in self.emit
        bounds = np.empty(block[0].size + 1, np.int32) if wants_bounds else NO_BOUNDS
        n_sequences, _ = gather(
            stream,
            starts,
            self._columns(rows.counts, rows.lengths),
            rows.lengths,
            RowArrays(block[0], block[1], block[2] if len(block) > 2 else NO_POSITIONS, bounds),
            pad_id=self.pad_id,
            mask_boundaries=self.mask_boundaries,
            compiled=compiled,
        )
        tensors = torch.from_numpy(block.reshape(-1, n_rows, self.sequence_length)).unbind(0)
        bounds_of = _split_bounds(bounds[: n_sequences + 1], n_steps, block[0].size) if wants_bounds else []
        values = self._values(rows, tensors, bounds_of)
        if rows.sequence_lengths is not None:
            for name, of_steps in values.items():
                values[name] = self._divided(name, of_steps, rows.sequence_lengths.tolist())
        return [
            Batch.of(rows.step + k, {name: of_steps[k] for name, of_steps in values.items()})
            for k in range(n_steps)
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

    def _values(
        self, rows: RankRows, tensors: "Sequence[Tensor]", bounds: Sequence[NDArray[np.int32]]
    ) -> dict[str, Sequence[Any]]:
        """What is emitted, for each step."""
        import torch

        n_steps = rows.n_steps
        values: dict[str, Sequence[Any]] = {"input_ids": tensors[:n_steps]}
        for name in self.emit:
            if name == "labels":
                values[name] = tensors[n_steps : 2 * n_steps]
            elif name == "position_ids":
                values[name] = tensors[2 * n_steps :]
            elif name == "cu_seqlens":
                values[name] = [torch.from_numpy(each) for each in bounds]
            elif name == "max_seqlen":
                longest = [int(np.diff(each).max()) for each in bounds]
                values[name] = [min(1 << (n - 1).bit_length(), self.sequence_length) for n in longest]
            elif name == "domain_ids":
                values[name] = _by_step(self.domain_ids[rows.domains], n_steps)
            elif name == "row_ids":  # not a view, which would keep the whole plan alive
                values[name] = _by_step(rows.row_ids.copy(), n_steps)
            elif name == "weights":
                values[name] = _by_step(self._weights(rows), n_steps)
        return values

    def _divided(self, name: str, of_steps: Sequence[Any], lengths: Sequence[int]) -> list[Any]:
        """The values of rows as those of the sequences, of `lengths` in each step, that rows consist of."""
        import torch

        found = []
        for value, length in zip(of_steps, lengths, strict=True):
            n_of_row = self.sequence_length // length
            if name in ("input_ids", "labels", "position_ids"):
                value = value.view(-1, length)
            elif name in ("domain_ids", "weights"):
                value = value.repeat_interleave(n_of_row)
            elif name == "row_ids":
                value = (value[:, None] + torch.arange(n_of_row)).ravel()
            elif name == "max_seqlen":
                value = min(value, length)
            found.append(value)
        return found

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


def _by_step(values: NDArray[Any], n_steps: int) -> "Sequence[Tensor]":
    """The values of each step as a tensor; together they keep the memory of `values`."""
    import torch

    if n_steps == 1:
        return [torch.from_numpy(values)]
    return torch.from_numpy(values.reshape(n_steps, -1)).unbind(0)

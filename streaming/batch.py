"""What a trainer gets in each step."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

if TYPE_CHECKING:
    from torch import Tensor

FieldName = Literal[
    "input_ids", "labels", "position_ids", "cu_seqlens", "max_seqlen", "domain_ids", "row_ids", "weights"
]
_ABSENT: Any = None  # a field that was not asked for
FIELDS: tuple[FieldName, ...] = get_args(FieldName)


@dataclass(frozen=True, eq=False)
class Batch:
    """One rank's rows of one global batch: its values by attribute, by name, or all of them as `**batch`.

    A field that `emit` did not ask for is None, and no key. Not a `Mapping`: trainers rebuild those as
    `type(batch)(dict)` when they move them; this has `to`.

    Args:
        step: of the run, from 0.
        input_ids: int64, (rows, sequence_length).
        labels: int64, (rows, sequence_length), the token after each of input_ids, -100 where that is another
            document's, or padding. They are shifted already: give a model that shifts its labels itself
            `labels=batch.input_ids`.
        position_ids: int64, (rows, sequence_length), counted from 0 in each sequence.
        cu_seqlens: int32, (n_sequences + 1,), where sequences begin in the flattened rows, and their size.
            A sequence is a stretch of one document within a row, or a row's padding.
        max_seqlen: tokens of the longest sequence, rounded up to a power of two (at most sequence_length), so
            that kernels are compiled for few values.
        domain_ids: int64, (rows,), index into `StreamingLoader.domains`.
        row_ids: int64, (rows,), what names a row within its domain and epoch (packing.py).
        weights: float32, (rows,), of each row in the loss: 1, or the domain's weight in `objective` over the
            weight that it was drawn with.
        first_row: of the rank's batch, which row is the first here; not 0 in a micro-batch.
        is_selected: these are rows that were kept of a super-batch, not its candidates.
    """

    step: int
    input_ids: "Tensor"
    labels: "Tensor" = _ABSENT
    position_ids: "Tensor" = _ABSENT
    cu_seqlens: "Tensor" = _ABSENT
    max_seqlen: int = _ABSENT
    domain_ids: "Tensor" = _ABSENT
    row_ids: "Tensor" = _ABSENT
    weights: "Tensor" = _ABSENT
    first_row: int = 0
    is_selected: bool = False

    @classmethod
    def of(cls, step: int, values: Mapping[str, Any]) -> Self:
        """`cls(step, **values)`, in a fifth of the time: a frozen class sets each field by a call."""
        batch = object.__new__(cls)
        vars(batch).update({"step": step, **values})
        return batch

    def keys(self) -> list[str]:
        """The names of what was asked for."""
        return [name for name in FIELDS if getattr(self, name) is not None]

    def __getitem__(self, name: str) -> Any:
        if name not in self.keys():
            raise KeyError(f"{name!r}; a batch has {', '.join(self.keys())}")
        return getattr(self, name)

    def to(self, device: Any, non_blocking: bool = False) -> "Batch":
        """The batch with its tensors on `device`."""
        moved: dict[str, Any] = {
            name: value if isinstance(value, int) else value.to(device, non_blocking=non_blocking)
            for name in self.keys()
            for value in [self[name]]
        }
        return replace(self, **moved)

    def micro_batches(self, n_rows: int) -> "Iterator[Batch]":
        """The rows in slices of `n_rows`, views of this batch: what gradient accumulation goes through.

        Raises:
            ValueError: n_rows does not divide the batch.
        """
        total, length = self.input_ids.shape
        if n_rows < 1 or total % n_rows:
            raise ValueError(f"micro_batches: {n_rows} rows do not divide a batch of {total}")
        for begin in range(0, total, n_rows):
            part: dict[str, Any] = {
                name: value if isinstance(value, int) else value[begin : begin + n_rows]
                for name in self.keys()
                for value in [self[name]]
                if name != "cu_seqlens"
            }
            if self.cu_seqlens is not None:
                low, high = begin * length, (begin + n_rows) * length
                inside = (self.cu_seqlens >= low) & (self.cu_seqlens <= high)
                part["cu_seqlens"] = self.cu_seqlens[inside] - low
            yield replace(self, **part, first_row=self.first_row + begin)

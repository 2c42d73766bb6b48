"""What a trainer gets in each step."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """One rank's rows of one global batch: its tensors by attribute, by name, or all of them as `**batch`.

    Not a `Mapping`: trainers rebuild those as `type(batch)(dict)` when they move them; this has `to`.

    Args:
        step: of the run, from 0.
        input_ids: int64, (rows, sequence_length).
        labels: int64, (rows, sequence_length), the token after each of input_ids. They are shifted
            already: give a model that shifts its labels itself `labels=batch.input_ids`.
        domain_ids: int64, (rows,), index into `StreamingLoader.domains`.
        row_ids: int64, (rows,), r where the row is tokens [r L, r L + L + 1) of its domain.
    """

    step: int
    input_ids: "Tensor"
    labels: "Tensor"
    domain_ids: "Tensor"
    row_ids: "Tensor"

    def keys(self) -> list[str]:
        """The names of the tensors."""
        return [field.name for field in fields(self) if field.name != "step"]

    def __getitem__(self, name: str) -> "Tensor":
        if name not in self.keys():
            raise KeyError(f"{name!r}; a batch has {', '.join(self.keys())}")
        tensor: Tensor = getattr(self, name)
        return tensor

    def to(self, device: Any, non_blocking: bool = False) -> "Batch":
        """The batch with its tensors on `device`."""
        tensors = {name: self[name].to(device, non_blocking=non_blocking) for name in self.keys()}
        return Batch(self.step, **tensors)

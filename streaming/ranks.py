"""How the ranks of a run agree: sums, what rank 0 found, and everybody's rows, in few collectives."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Ranks(Protocol):
    """The processes that share a run. All of them call each method, in the same order."""

    rank: int
    size: int

    def sum(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """The sum over all ranks, on every rank."""
        ...

    def from_first(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rank 0's values, on every rank; the others' have their shape."""
        ...

    def to_first(self, values: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Each rank's values (of one shape) on rank 0, in order; elsewhere nothing."""
        ...


class Alone:
    """One process."""

    rank, size = 0, 1

    def sum(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        return values

    def from_first(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        return values

    def to_first(self, values: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return [values]


class TorchRanks:
    """The processes of a `torch.distributed` group.

    Args:
        group: those of data parallelism; None: all. A group of gloo spares a GPU the waiting.
    Raises:
        ValueError: torch.distributed is not initialised.
    """

    def __init__(self, group: Any = None) -> None:
        import torch
        import torch.distributed as dist

        if not dist.is_available() or not dist.is_initialized():
            raise ValueError(
                "ranks: torch.distributed is not initialised, so ranks cannot agree on weights or rows; call "
                "torch.distributed.init_process_group first, or pass `ranks`"
            )
        self._group = group
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self._first = 0 if group is None else dist.get_global_rank(group, 0)
        is_nccl = dist.get_backend(group) == "nccl"
        self._device = torch.device("cuda", torch.cuda.current_device()) if is_nccl else torch.device("cpu")

    def sum(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        import torch.distributed as dist

        tensor = self._tensor(values)
        dist.all_reduce(tensor, group=self._group)
        total: NDArray[np.int64] = tensor.cpu().numpy()
        return total

    def from_first(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        import torch.distributed as dist

        tensor = self._tensor(values)
        dist.broadcast(tensor, src=self._first, group=self._group)
        found: NDArray[np.int64] = tensor.cpu().numpy()
        return found

    def to_first(self, values: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        import torch
        import torch.distributed as dist

        tensor = self._tensor(values)
        parts = [torch.empty_like(tensor) for _ in range(self.size)] if self.rank == 0 else None
        dist.gather(tensor, parts, dst=self._first, group=self._group)
        return [part.cpu().numpy() for part in parts or ()]

    def _tensor(self, values: NDArray[Any]) -> Any:
        import torch

        return torch.from_numpy(np.array(values, order="C")).to(self._device)


def ranks_of(rank: int, world_size: int, given: Ranks | None) -> Ranks:
    """The ranks of a loader: those that were given, else this process, else torch.distributed's.

    Raises:
        ValueError: they are others than the loader's rank and world_size say.
    """
    if given is None:
        found: Ranks = Alone() if world_size == 1 else TorchRanks()
    else:
        found = given
    if (found.rank, found.size) != (rank, world_size):
        raise ValueError(
            f"rank and world_size are {rank} and {world_size}, those of the group that must agree are "
            f"{found.rank} and {found.size}; pass `ranks` with the group of data parallelism"
        )
    return found

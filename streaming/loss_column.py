"""Losses of rows under a reference model, worked out once and looked up by row id."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

KIND = b"cuvee.loss_column"


class LossColumn:
    """A file of (row id, loss), memory-mapped; looked up by halving.

    Args:
        path: what `write` wrote.
    Raises:
        ValueError: the file is something else.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "reference.arrow"
    >>> LossColumn.write(path, np.array([7, 3], np.uint64), np.array([1.5, 2.5]))
    >>> LossColumn(path).get(np.array([3, 4, 7], np.uint64)).tolist()
    [2.5, nan, 1.5]
    """

    def __init__(self, path: str | Path) -> None:
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path}: not a column of losses: {error}") from error
        if (table.schema.metadata or {}).get(b"kind") != KIND:
            raise ValueError(
                f"{path}: an Arrow file, but not a column of losses; write it with LossColumn.write"
            )
        self.row_ids: NDArray[np.uint64] = table["row_id"].combine_chunks().to_numpy()
        self.losses: NDArray[np.float32] = table["loss"].combine_chunks().to_numpy()

    def __len__(self) -> int:
        return self.row_ids.size

    def get(self, row_ids: NDArray[np.uint64]) -> NDArray[np.float64]:
        """float64, (n,), nats per token; NaN of rows that the file does not hold."""
        row_ids = np.asarray(row_ids, np.uint64)
        if not len(self):
            return np.full(row_ids.size, np.nan)
        places = np.minimum(np.searchsorted(self.row_ids, row_ids), len(self) - 1)
        return np.where(self.row_ids[places] == row_ids, self.losses[places], np.nan).astype(np.float64)

    @staticmethod
    def write(path: str | Path, row_ids: NDArray[np.uint64], losses: NDArray[np.floating]) -> None:
        """Write the file under a temporary name and rename it when it is whole.

        Args:
            row_ids: uint64, (n,), in any order; of one that comes more than once the last loss stays.
            losses: (n,), nats per token; rows whose loss is not finite are left out.
        Raises:
            ValueError: there are more of one than of the other.
        """
        row_ids, losses = np.asarray(row_ids, np.uint64), np.asarray(losses, np.float32)
        if row_ids.shape != losses.shape or row_ids.ndim != 1:
            raise ValueError(
                f"row_ids and losses have shapes {row_ids.shape} and {losses.shape}; (n,) is both's"
            )
        is_known = np.isfinite(losses)
        row_ids, losses = row_ids[is_known][::-1], losses[is_known][::-1]
        distinct, first = np.unique(row_ids, return_index=True)
        table = pa.table({"row_id": distinct, "loss": losses[first]}).replace_schema_metadata({b"kind": KIND})
        temporary = Path(f"{path}.{os.getpid()}.tmp")
        with pa.OSFile(str(temporary), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        os.replace(temporary, path)

"""Losses of the rows that were selected, on their way back to the selector.

A selection is remembered for a few more, so that reports may come late; each rank keeps what it was told of
its own rows until the next collective, and rank 0 shows the selector the rows that came, oldest first.
"""

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .batch import Batch
from .feedback import MAX_LOSS, row_means, row_values
from .selectors import Candidates, Selector

MAX_OPEN = 8
"""Selections whose rows may still be reported."""


@dataclass(frozen=True, eq=False)
class _Selected:
    """A selection that its selector wants to hear of."""

    step: int
    selector: Selector
    is_told: NDArray[np.bool_]  # (rows of this rank,), those reported so far
    rows: Candidates | None  # those chosen, on rank 0


class TrainedRows:
    """What is known of the rows trained on. `tell` may be called from any thread."""

    def __init__(self) -> None:
        self._open: deque[_Selected] = deque(maxlen=MAX_OPEN)
        self._lock = threading.Lock()
        self._told: list[tuple[int, int, Any]] = []  # step, first row, values

    def expect(
        self,
        step: int,
        selector: Selector,
        n_rows: int,
        candidates: Candidates | None,
        chosen: NDArray[np.int64],
    ) -> None:
        """Wait for the losses of a selection, if its selector learns from any.

        Args:
            n_rows: of each rank.
            candidates: all of them, on rank 0.
            chosen: places of those that were.
        """
        if type(selector).observe is not Selector.observe:
            rows = None if candidates is None else candidates.take(chosen)
            self._open.append(_Selected(step, selector, np.zeros(n_rows, bool), rows))

    def tell(self, batch: Batch, told: Mapping[str, Any]) -> None:
        """Take in losses of this rank's rows; microseconds, and no wait for a device.

        Args:
            batch: that was selected, or a part of it.
            told: loss_per_row or loss_per_token; others are no losses.
        """
        n_rows = len(batch.input_ids)
        if "loss_per_row" in told:
            values = row_values(told["loss_per_row"], n_rows, "loss_per_row")
        elif "loss_per_token" in told:
            values, _ = row_means(told["loss_per_token"], batch.labels, batch.input_ids.shape)
        else:
            return
        with self._lock:
            self._told.append((batch.step, batch.first_row, values))

    def take(self) -> NDArray[np.float32]:
        """This rank's losses, NaN where none came, of all selections that are remembered; the same size on
        every rank."""
        with self._lock:
            told, self._told = self._told, []
        if not self._open:
            return np.empty(0, np.float32)
        found = {selected.step: np.full(selected.is_told.size, np.nan, np.float32) for selected in self._open}
        for step, first_row, values in told:
            if step in found:
                losses = np.asarray(values.cpu() if hasattr(values, "cpu") else values)
                mine = found[step][first_row : first_row + losses.size]
                np.copyto(mine, losses, where=np.isnan(mine))
        for selected, losses in zip(self._open, found.values(), strict=True):
            losses[selected.is_told] = np.nan  # a row counts once, as it was told first
            np.logical_or(selected.is_told, ~np.isnan(losses), out=selected.is_told)
        return np.concatenate([np.empty(0, np.float32), *found.values()])

    def observe(self, taken: Sequence[NDArray[np.float32]]) -> None:
        """Show the selectors what all ranks took; on rank 0.

        Args:
            taken: of each rank, in order.
        """
        at = 0
        for selected in self._open:
            mine = slice(at, at + selected.is_told.size)
            at = mine.stop
            losses = np.concatenate([losses[mine] for losses in taken]).astype(np.float64)
            (rows,) = np.nonzero(np.abs(losses) <= MAX_LOSS)  # False for NaN, too
            if rows.size:
                assert selected.rows is not None
                selected.selector.observe(replace(selected.rows, losses=losses).take(rows))

    def forget(self) -> None:
        """Wait for nothing: reports of what was selected before come no more."""
        with self._lock:
            self._told = []
        self._open.clear()

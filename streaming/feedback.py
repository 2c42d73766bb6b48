"""What a trainer reports of its batches: sums of losses and counts of tokens by domain, in whole numbers.

Whole numbers add up to the same in any order and on any number of ranks, so late reports, reports out of
order, restarts between two of them and another world size change nothing.
"""

import threading
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels.domain_sums import domain_sums
from .warm_up import kernels

UNIT = 2**20
"""Losses are rounded to 1 / UNIT nats. Sums of int64 overflow at 8.8e9 tokens of MAX_LOSS in one report."""
MAX_LOSS = 1000.0
"""Nats of a token; what is above is no loss that a model has, and counts as not finite."""
MAX_LATE = 1024
"""Steps after which a batch's report is too late: what is kept to know repeated ones stays bounded."""


class _Rows(NamedTuple):
    """A report as it came."""

    domain_ids: Any  # (rows,), tensor or array
    values: Any  # (rows,), a copy: the trainer's may change
    n_tokens: Any  # (rows,), or one number


class Feedback:
    """Reports since the last one that was taken. `add` may be called from any thread.

    Args:
        order: int64, (n_domains,), the index here of each of the trainer's domain ids.
        sequence_length: tokens that a row counts for, where no more is known.
    """

    def __init__(self, order: NDArray[np.int64], sequence_length: int) -> None:
        self._order, self._length = order, sequence_length
        self._lock = threading.Lock()
        self._waiting: list[_Rows] = []
        self._seen: dict[int, int] = {}  # step -> rows reported, a bit for each
        self._totals = np.zeros(2 * order.size + 1, np.int64)  # sums in 1 / UNIT nats, tokens, ignored
        self._oldest = self._first_seen = 0
        self.n_repeated, self.n_late = 0, 0

    def add(
        self, step: int, first_row: int, next_step: int, domain_ids: Any, values: Any, n_tokens: Any = None
    ) -> None:
        """Take in a value for each of some rows; microseconds, and no wait for a device.

        Args:
            step, first_row: of the batch, or of the part of it.
            next_step: of the loader; a report of a batch from there on is none of this run.
            domain_ids: int64, (rows,).
            values: float, (rows,).
            n_tokens: int, (rows,), tokens behind each value; None: a row's.
        """
        mine = ((1 << len(values)) - 1) << first_row
        with self._lock:
            if not max(self._oldest, next_step - MAX_LATE) <= step < next_step:
                self.n_late += 1
            elif self._seen.get(step, 0) & mine:
                self.n_repeated += 1
            else:
                self._seen[step] = self._seen.get(step, 0) | mine
                self._waiting.append(
                    _Rows(domain_ids, values, self._length if n_tokens is None else n_tokens)
                )

    def add_means(self, domains: NDArray[np.int64], means: NDArray[np.float64]) -> None:
        """Take in a mean for each of some domains (indices here), each as of one token."""
        rows = _Rows(np.argsort(self._order)[domains], means, 1)
        with self._lock:
            self._waiting.append(rows)

    def totals(self, next_step: int) -> NDArray[np.int64]:
        """What came and was not taken: int64, (2 n_domains + 1,), sums, tokens, and ignored values."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
            for step in range(self._first_seen, next_step - MAX_LATE):
                self._seen.pop(step, None)
            self._first_seen = max(self._first_seen, next_step - MAX_LATE)
        found = self._summed(waiting) if waiting else 0
        with self._lock:
            self._totals = self._totals + found
            return self._totals

    def take(self, next_step: int) -> NDArray[np.int64]:
        """The same, and begin anew."""
        found = self.totals(next_step)
        with self._lock:
            self._totals = self._totals - found
        return found

    def restart(self, totals: NDArray[np.int64], next_step: int) -> None:
        """Go on with these totals at `next_step`; reports of batches before it come no more."""
        with self._lock:
            self._waiting, self._seen, self._totals = [], {}, totals
            self._oldest = self._first_seen = next_step

    def _summed(self, reports: list[_Rows]) -> NDArray[np.int64]:
        values = _joined([report.values for report in reports]).astype(np.float64, copy=False)
        ids = _joined([report.domain_ids for report in reports]).astype(np.int64, copy=False)
        if ids.size and not 0 <= ids.min() <= ids.max() < self._order.size:
            raise ValueError(
                f"feedback: domain_ids from {ids.min()} to {ids.max()} were reported; this loader has "
                f"{self._order.size} domains: report its own batches"
            )
        domains = self._order[ids]
        counts = [report.n_tokens for report in reports]
        if all(isinstance(count, int) for count in counts) and min(counts) == max(counts):
            tokens = np.full(values.size, counts[0])
        else:
            each = ((_array(report.n_tokens), len(report.values)) for report in reports)
            tokens = np.concatenate([np.broadcast_to(*pair) for pair in each])
        return domain_sums(
            domains,
            values,
            tokens.astype(np.int64, copy=False),
            self._order.size,
            unit=UNIT,
            largest=MAX_LOSS,
            compiled=kernels.done_already(),
        )


def _joined(parts: list[Any]) -> NDArray[Any]:
    """Tensors or arrays one after another; tensors of a device come over together."""
    if len(parts) == 1:
        return _array(parts[0])
    if all(isinstance(part, np.ndarray) for part in parts):
        return np.concatenate(parts)
    import torch

    if all(isinstance(part, torch.Tensor) for part in parts):
        joined: NDArray[Any] = torch.cat(parts).cpu().numpy()
        return joined
    return np.concatenate([_array(part) for part in parts])


def _array(values: Any) -> NDArray[Any]:
    if isinstance(values, np.ndarray):
        return values
    if not hasattr(values, "is_cpu"):
        return np.asarray(values)
    found: NDArray[Any] = (values if values.is_cpu else values.cpu()).numpy()
    return found


def row_values(values: Any, n_rows: int, name: str) -> Any:
    """A copy of a trainer's number for each row: float32, (rows,), where the trainer has it.

    Raises:
        ValueError: another shape.
    """
    if hasattr(values, "detach"):
        import torch

        found = values.detach() if values.requires_grad else values
        if found.is_cpu and found.dtype == torch.float32:
            found = found.numpy().copy()  # a tenth of what torch takes
        else:
            found = found.to(torch.float32, copy=True)
            found = found.numpy() if found.is_cpu else found
    else:
        found = np.array(values, np.float32)
    if tuple(found.shape) != (n_rows,):
        raise ValueError(
            f"{name} has shape {tuple(found.shape)}; the batch has {n_rows} rows, and each needs one number"
        )
    return found


def row_means(losses: Any, labels: Any, shape: Sequence[int]) -> tuple[Any, Any]:
    """Mean loss and number of the tokens that count, for each row: (rows,) each.

    A token counts if it has a label and its loss is finite. A row without one has the mean NaN.

    Args:
        losses: tensor, (rows, sequence_length), nats; flattened rows will do.
        labels: tensor of as many; None: every token has one.
        shape: of the batch, (rows, sequence_length).
    Raises:
        ValueError: the losses are not as many as the rows' tokens, or not row by row.
    """
    import torch

    losses = torch.as_tensor(losses).detach()
    n_rows, length = shape
    if losses.numel() != n_rows * length or (losses.ndim > 1 and losses.shape[0] not in (1, n_rows)):
        raise ValueError(
            f"loss_per_token has shape {tuple(losses.shape)}; the batch has {n_rows} rows of {length} "
            f"tokens, and each token needs one number: ({n_rows}, {length}), or flattened"
        )
    losses = losses.reshape(n_rows, -1).to(torch.float32)
    counts = torch.isfinite(losses) & (losses.abs() <= MAX_LOSS)
    if labels is not None:
        counts &= labels.reshape(n_rows, -1).to(losses.device) >= 0
    n_tokens = counts.sum(dim=1)
    means = torch.where(counts, losses, 0).sum(dim=1) / n_tokens  # NaN for a row of which nothing counts
    n_tokens = n_tokens.clamp(min=1)
    if means.device.type == "cpu":
        return means.numpy(), n_tokens.numpy()
    return means, n_tokens

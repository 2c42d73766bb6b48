"""Facility location on tensors of any device: the choice of `facility_location`, bit for bit.

Each choice takes the gains of all rows, in float64, so the matrix is read once for each, at the device's
memory bandwidth. Nothing is moved to the CPU but the cover and the few rows whose gains are too near the
greatest to tell the kernel's own rounding: their sums in its order decide.

Tested on the CPU's tensors against the compiled kernels; not run on a GPU so far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .facility_location import (
    Float32s,
    Selection,
    check_finite,
    checked_limits,
    gains_of,
    rounding,
    selection_of,
)

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 2**24
"""Similarities whose terms are in memory at a time."""


def facility_location_torch(
    similarity: Tensor,
    k: int,
    *,
    groups: NDArray[np.integer[Any]] | None = None,
    budgets: NDArray[np.integer[Any]] | None = None,
    bonus: NDArray[np.floating[Any]] | None = None,
) -> Selection:
    """`facility_location` of a tensor: arguments, errors and result as there.

    O(k · n_rows · n_items), at the device's memory bandwidth; a synchronisation for each choice. On a CPU the
    lazy kernel is faster by far.

    >>> import torch
    >>> points = torch.tensor([0.0, 0.1, 0.2, 5.0, 5.1])
    >>> facility_location_torch(6 - (points[:, None] - points).abs(), 2).indices.tolist()
    [2, 3]
    """
    import torch

    rows = similarity.detach().to(torch.float32)
    group_of, left, extra = checked_limits(tuple(rows.shape), k, groups, budgets, bonus)
    if not bool(torch.isfinite(rows).all()):
        check_finite("similarity", rows.cpu().numpy())
    n_items = rows.shape[1]
    error = rounding(n_items)
    cover, best = rows.new_zeros(n_items), rows.new_full((n_items,), -1, dtype=torch.int64)
    closed = torch.from_numpy(left[group_of] <= 0).to(rows.device)
    added = torch.from_numpy(extra.astype(np.float64)).to(rows.device)
    members = torch.from_numpy(group_of).to(rows.device)
    indices, gains = list[int](), list[np.float32]()
    while len(indices) < k and not bool(closed.all()):
        sums = _gains(rows, cover)
        low, high = sums * (1 - error) + added * (1 - error), sums * (1 + error) + added * (1 + error)
        near = (high >= low.masked_fill(closed, -1.0).max()) & ~closed
        candidates = near.nonzero()[:, 0]
        exact = gains_of(rows[candidates].cpu().numpy(), cover.cpu().numpy())
        numbers = candidates.cpu().numpy()
        exact += extra[numbers]
        first = int(np.argmax(exact))  # of equals the first
        top = int(numbers[first])
        best[rows[top] > cover] = len(indices)
        torch.maximum(cover, rows[top], out=cover)
        indices.append(top)
        gains.append(exact[first])
        closed[top] = True
        left[group_of[top]] -= 1
        if left[group_of[top]] <= 0:
            closed |= members == int(group_of[top])
    return selection_of(np.array(indices, np.int64), np.array(gains, np.float32), best.cpu().numpy())


def nearest_cosines(
    features: Tensor, n_neighbours: int, *, rows_at_once: int = 4096
) -> tuple[NDArray[np.int64], NDArray[np.int64], Float32s]:
    """The rows that are most alike to each, as `facility_location_sparse` takes them.

    Args:
        features: (n_rows, d), on any device; a row of zeros is like none.
        n_neighbours: of each row, itself among them; at most n_rows.
        rows_at_once: whose cosines with all are in memory.
    Returns:
        starts: int64, (n_rows + 1,); items: int64, (n_rows · n_neighbours,), the most alike first;
        similarity: float32, as many, cosines.
    Raises:
        ValueError: n_neighbours is out of range.

    >>> import torch
    >>> nearest_cosines(torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 1.0]]), 2)[1].tolist()
    [0, 2, 1, 2, 2, 0]
    """
    import torch

    n_rows = len(features)
    if not 1 <= n_neighbours <= n_rows:
        raise ValueError(f"n_neighbours is {n_neighbours}; of {n_rows} rows 1 to {n_rows} can be the nearest")
    unit = torch.nn.functional.normalize(features.detach().to(torch.float32), eps=1e-30)
    found = [
        (unit[at : at + rows_at_once] @ unit.T).topk(n_neighbours) for at in range(0, n_rows, rows_at_once)
    ]
    starts = np.arange(n_rows + 1, dtype=np.int64) * n_neighbours
    items = torch.cat([part.indices for part in found]).flatten().cpu().numpy()
    return starts, items, torch.cat([part.values for part in found]).flatten().cpu().numpy()


def _gains(rows: Tensor, cover: Tensor) -> Tensor:
    """float64, (n_rows,): sums of the terms, each rounded to float32 as the kernel's are."""
    import torch

    step, sums = max(1, CHUNK // rows.shape[1]), rows.new_empty(len(rows), dtype=torch.float64)
    for at in range(0, len(rows), step):
        here = slice(at, at + step)
        torch.sum((rows[here] - cover).clamp_(min=0), 1, dtype=torch.float64, out=sums[here])
    return sums

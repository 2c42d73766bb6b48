"""Shards that were appended to a domain while a run was under way: where their rows join.

The epoch in progress gets longer: its own rows come first, in the order that they would have had, and then
the rows of the appended shards, shuffled among themselves. From the next epoch on all shards are one. A
domain that max_epochs had ended goes on with the appended shards, in its last epoch.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from .packing import Packing, Position, Segments

PART_SHIFT = 56  # of a row id: the part that the row lies in


class Growth(NamedTuple):
    """How many shards a domain had when `epoch` began, and each time that some were appended in it."""

    epoch: int
    n_shards: tuple[int, ...]


class Grown:
    """The rows of a domain that shards were appended to.

    Args:
        epoch: in which they were. Earlier ones are as they were before.
        parts: of that epoch, one after another: what the domain was, and the appended shards of each time.
        n_tokens: of each part.
        whole: all shards as one, from the next epoch on.
    """

    def __init__(self, epoch: int, parts: Sequence[Packing], n_tokens: Sequence[int], whole: Packing) -> None:
        self.epoch, self._parts, self._sizes, self._whole = epoch, tuple(parts), tuple(n_tokens), whole
        n_blocks = [part.n_blocks_in(epoch) for part in self._parts]
        self._first_blocks = list(accumulate(n_blocks, initial=0))

    def n_blocks_in(self, epoch: int) -> int:
        return self._first_blocks[-1] if epoch == self.epoch else self._at(epoch, 0)[0].n_blocks_in(epoch)

    def n_rows(self, epoch: int, block: int, *, compiled: bool = True) -> int:
        packing, block, _ = self._at(epoch, block)
        return packing.n_rows(epoch, block, compiled=compiled)

    def rows(self, epoch: int, block: int, begin: int, end: int, *, compiled: bool = True) -> Segments:
        packing, block, part = self._at(epoch, block)
        segments = packing.rows(epoch, block, begin, end, compiled=compiled)
        return segments._replace(row_ids=segments.row_ids + (part << PART_SHIFT))

    def n_tokens(self, epoch: int, block: int, begin: int, end: int, *, compiled: bool = True) -> int:
        packing, block, _ = self._at(epoch, block)
        return packing.n_tokens(epoch, block, begin, end, compiled=compiled)

    def block_of(self, row_id: int) -> int:
        part, row = divmod(row_id, 1 << PART_SHIFT)
        return self._first_blocks[part] + self._parts[part].block_of(row)

    def at_fraction(self, epoch: int, fraction: float, *, compiled: bool = True) -> tuple[int, int]:
        if epoch != self.epoch:
            return self._at(epoch, 0)[0].at_fraction(epoch, fraction, compiled=compiled)
        n_tokens, part = fraction * sum(self._sizes), 0
        while n_tokens >= self._sizes[part] and part + 1 < len(self._parts):
            n_tokens, part = n_tokens - self._sizes[part], part + 1
        block, row = self._parts[part].at_fraction(epoch, n_tokens / self._sizes[part], compiled=compiled)
        return self._first_blocks[part] + block, row

    def fraction_at(self, position: Position) -> float:
        packing, block, part = self._at(position.epoch, position.block)
        inside = packing.fraction_at(Position(position.epoch, block, position.row))
        if position.epoch != self.epoch:
            return inside
        return (sum(self._sizes[:part]) + inside * self._sizes[part]) / sum(self._sizes)

    def _at(self, epoch: int, block: int) -> tuple[Packing, int, int]:
        """Who has the rows of a block, as which of its blocks, and as which part."""
        if epoch > self.epoch:
            return self._whole, block, 0
        if epoch < self.epoch:
            return self._parts[0], block, 0
        part = min(bisect_right(self._first_blocks, block), len(self._parts)) - 1
        return self._parts[part], block - self._first_blocks[part], part


def after_appending(
    growth: Growth, packing: Packing, position: Position, end: Position | None, n_shards: int
) -> tuple[Growth, Position]:
    """What a domain has become, now that it has `n_shards`, and where it goes on.

    Args:
        growth, packing, position, end: as they were before; end is the first row that max_epochs forbids.
    """
    epoch, block, row = position
    is_between = block == row == 0
    if is_between and epoch and end is not None and position >= end:  # the last epoch goes on
        epoch, block = epoch - 1, packing.n_blocks_in(epoch - 1)
    elif is_between:
        return Growth(epoch, (n_shards,)), position
    before = growth.n_shards if growth.epoch == epoch else growth.n_shards[-1:]
    return Growth(epoch, (*before, n_shards)), Position(epoch, block, row)

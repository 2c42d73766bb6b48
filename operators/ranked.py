"""Filters that keep a share of the corpus by one score: what they have in common."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from .base import FitFilter, Rule, Scores, UnsuitableDataError, no_column
from .budget import budget_columns, uniforms
from .text_column import integers, one_chunk

Floats = NDArray[np.float64]
PRECISION_BITS = 13
"""Of a score's 32 bits those that ranks ignore: scores that agree to a thousandth are ranked by hash of
id."""


class RankedFilter(FitFilter):
    """Keep the share of the documents with the greatest scores, and some of the others by chance."""

    reason: ClassVar[str]

    keep_fraction: float = Field(0.5, gt=0, le=1, description="share of the documents that stays")
    random_fraction: float = Field(
        0.0, ge=0, le=1, description="of these, the share that is drawn at random among the others"
    )
    seed: int = Field(0, ge=0, lt=1 << 32, description="of the draw, by (seed, id)")

    def score(self, table: pa.Table) -> Floats:
        """float64, (n,): the greater, the rather kept; NaN where it is not known."""
        raise NotImplementedError

    def observe(self, table: pa.Table) -> pa.Table:
        """How many documents each bin of scores has: `bin` and `n` int64."""
        bins, counts = np.unique(_bins(self.score(table)), return_counts=True)
        return pa.table({"bin": bins, "n": counts.astype(np.int64)})

    def merge(self, partials: Sequence[pa.Table]) -> pa.Table:
        """The sums, by `bin`."""
        total = pa.concat_tables(partials).group_by("bin").aggregate([("n", "sum")])
        return total.select(["bin", "n_sum"]).rename_columns(["bin", "n"]).sort_by("bin").combine_chunks()

    def finish(self, partial: pa.Table) -> pa.Table:
        """With `before` int64: documents of greater score."""
        ends = np.cumsum(integers(partial["n"]))
        return partial.append_column("before", pa.array(ends - integers(partial["n"]), pa.int64()))

    def scores(self, table: pa.Table, state: pa.Table) -> Scores:
        """Rank, needed fraction and weight, double; null, null and 1 for a document without a score."""
        score = self.score(table)
        is_known = ~np.isnan(score)
        known, counts, before = (integers(state[name]) for name in ("bin", "n", "before"))
        at = np.minimum(np.searchsorted(known, _bins(score)), max(len(known) - 1, 0))
        ids = table["id"].filter(pa.array(is_known))
        # Two draws for each document: its place within the bin, and whether chance takes it.
        place, chance = (uniforms(ids, self.seed + stream) for stream in (0, 1 << 32))
        rank = (before[at] + place * counts[at]) / max(int(counts.sum()), 1)
        columns = budget_columns(rank, chance, is_known, self.keep_fraction, self.random_fraction)
        return {f"{self.name}.{name}": column for name, column in columns.items()}

    def rules(self) -> Sequence[Rule]:
        """The budget."""
        return (Rule(self.reason, f"{self.name}.needs", maximum=self.keep_fraction),)


def double(table: pa.Table, column: str) -> Floats:
    """float64, (n,): a column of numbers, NaN where it is null.

    Raises:
        UnsuitableDataError: there is no such column, or it holds no numbers.
    """
    if column not in table.column_names:
        raise UnsuitableDataError(no_column(column, table))
    kind = table[column].type
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
    if not any(is_kind(kind) for is_kind in kinds):
        raise UnsuitableDataError(f"column {column!r} holds {kind}, numbers are needed; name another one")
    values = pc.fill_null(one_chunk(table[column]).cast(pa.float64()), float("nan"))
    return values.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _bins(score: Floats) -> NDArray[np.int64]:
    """int64, (n known,): numbers that fall as scores rise."""
    bits = score[~np.isnan(score)].astype(np.float32).view(np.int32).astype(np.int64)
    rising = np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)  # floats of a sign rise as bits do
    return -(rising >> PRECISION_BITS)

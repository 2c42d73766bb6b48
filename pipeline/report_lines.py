"""The documents on either side of a rule's line: those that it only just kept, and only just dropped."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..kernels.hashing import hash_ranges
from ..operators.base import Operator, Rule
from ..operators.text_column import one_chunk, text_buffers
from .report_rows import StageFiles, read_columns

N_NEAREST = 10


class ScoredRows(NamedTuple):
    """Rows of a part, those that could not be read left out."""

    path: Path
    rows: NDArray[np.int64]
    """Their positions in the part."""
    table: pa.Table
    left_for: pa.Array
    """``<operator>.<reason>`` of what dropped each row in this stage, null where nothing did."""

    def reached(self, files: StageFiles, operator: Operator) -> "ScoredRows":
        """The rows that reached an operator of the stage: none before it dropped them."""
        if self.left_for.null_count == len(self.rows):
            return self
        names = [other.name for other in files.stage.operators]
        above = [f"{name}." for name in names[: names.index(operator.name)]]
        left_for = self.left_for.dictionary_encode()
        is_seen = pa.array(
            [not reason.startswith(tuple(above)) for reason in left_for.dictionary.to_pylist()]
        )
        keep = pc.fill_null(is_seen.take(left_for.indices), True)
        rows = self.rows[keep.to_numpy(zero_copy_only=False)]
        return ScoredRows(self.path, rows, self.table.filter(keep), self.left_for.filter(keep))


def scored_rows(files: StageFiles, names: Sequence[str]) -> Iterator[ScoredRows]:
    """Columns of a stage's rows, kept and dropped, part by part."""
    for path in files.kept:
        table = read_columns(path, names)
        yield ScoredRows(path, np.arange(len(table)), table, pa.nulls(len(table), pa.string()))
    for path in files.dropped:
        table = read_columns(path, [*names, "dropped_by", "reason"])
        by = one_chunk(table["dropped_by"].cast(pa.string()))
        is_row = pc.not_equal(by, "read")
        left_for = pc.binary_join_element_wise(by, one_chunk(table["reason"].cast(pa.string())), ".")
        rows = np.flatnonzero(is_row.to_numpy(zero_copy_only=False))
        yield ScoredRows(path, rows, table.select(names).filter(is_row), left_for.filter(is_row))


class Near(NamedTuple):
    """A row near a line; ordered by its distance, then by the hash of its id, so that no sharding and no
    order matters."""

    distance: float
    id_hash: int
    place: tuple[Path, int]
    left_for: str | None
    """What dropped it in this stage; of a row that the rule's filter kept, a later operator."""


@dataclass
class Line:
    """A rule, and the rows nearest to where it draws its line."""

    rule: Rule
    reason: str
    """``<operator>.<reason>``."""
    kept: list[Near] = field(default_factory=list)
    dropped: list[Near] = field(default_factory=list)

    def add(self, found: ScoredRows) -> None:
        """Look at rows that reached the rule's filter."""
        distance = distances(self.rule, found.table[self.rule.score])
        by_filter = pc.starts_with(found.left_for, pattern=self.reason.partition(".")[0] + ".")
        is_kept = ~np.asarray(pc.fill_null(by_filter, False))
        is_dropped = np.asarray(pc.fill_null(pc.equal(found.left_for, self.reason), False))
        for near, side in ((self.kept, is_kept), (self.dropped, is_dropped)):
            near += self._nearest(near, np.flatnonzero(side & ~np.isnan(distance)), distance, found)
            near.sort()
            del near[N_NEAREST:]

    @staticmethod
    def _nearest(
        known: list[Near],
        rows: NDArray[np.int64],
        distance: NDArray[np.float64],
        found: ScoredRows,
    ) -> list[Near]:
        """Those of `rows` that may be among the nearest of all."""
        if len(known) == N_NEAREST:
            rows = rows[distance[rows] <= known[-1].distance]
        if len(rows) > N_NEAREST:
            limit = np.partition(distance[rows], N_NEAREST - 1)[N_NEAREST - 1]
            rows = rows[distance[rows] <= limit]
        if not len(rows):
            return []
        hashes = hash_ranges(*text_buffers(found.table["id"].take(pa.array(rows))))
        first = np.lexsort((hashes, distance[rows]))[:N_NEAREST]
        return [
            Near(
                float(distance[rows[i]]),
                int(hashes[i]),
                (found.path, int(found.rows[rows[i]])),
                found.left_for[int(rows[i])].as_py(),
            )
            for i in first.tolist()
        ]


def distances(rule: Rule, score: pa.ChunkedArray) -> NDArray[np.float64]:
    """float64, (n_rows,): how far each score is from the nearest of the rule's limits; 0 for a rule that only
    lists what it allows; NaN for a score that is null.

    >>> distances(Rule("r", "s", minimum=1, maximum=9), pa.chunked_array([[0, 7, None]])).tolist()
    [1.0, 2.0, nan]
    """
    column = one_chunk(score)
    missing = np.asarray(column.is_null())
    limits = [limit for limit in (rule.minimum, rule.maximum) if limit is not None]
    if not limits or column.null_count == len(column):
        return np.where(missing, np.nan, 0.0)
    values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    apart: NDArray[Any] = np.min([np.abs(values - limit) for limit in limits], axis=0)
    return np.where(np.isinf(apart), np.nan, apart)

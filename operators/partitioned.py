"""Filters that choose within parts of the corpus, drawn by hash: what they have in common."""

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from ..kernels.embedding import UNIT
from ..kernels.hashing import hash_ranges
from .base import ROW, FitFilter, Rule, Scores
from .text_column import integers, one_chunk, text_buffers

Float32s = NDArray[np.float32]
Floats = NDArray[np.float64]


class PartitionedFilter(FitFilter):
    """Keep a share of each part of the corpus, chosen by the documents' vectors."""

    name: ClassVar[str]
    exchange_key = "key"

    keep_fraction: float = Field(0.5, gt=0, le=1, description="share of the documents that stays")
    partitions: int = Field(
        64, ge=1, le=1 << 20, description="random parts in which documents are brought together"
    )
    part_documents: int = Field(
        1000, ge=2, le=8192, description="documents that are compared with one another; parts are cut to it"
    )
    seed: int = Field(0, ge=0, lt=1 << 32, description="of the parts and the draw, by (seed, id)")

    def choose(self, similarity: Float32s, luck: Floats) -> dict[str, NDArray[np.generic]]:
        """What is found of the documents of one part.

        Args:
            similarity: float32, (n, n), cosines.
            luck: float64, (n,), in [0, 1), of each document.
        Returns:
            `needs`, float64, (n,): the smallest keep_fraction with which each stays; and other columns.
        """
        raise NotImplementedError

    def observe(self, table: pa.Table) -> pa.Table:
        """One row for each document with a vector: `key`, `hash` uint64, `ROW` and `vector`."""
        table = table.filter(table["cluster.vector"].is_valid())
        hashes = hash_ranges(*text_buffers(table["id"]), seed=self.seed)
        parts = (hashes % np.uint64(self.partitions)).astype("<i8")
        # Hashed: exchanges are ranges of all uint64, and parts are small numbers.
        key = hash_ranges(parts.view(np.uint8), np.arange(len(parts) + 1) * 8)
        return pa.table({"key": key, "hash": hashes, ROW: table[ROW], "vector": table["cluster.vector"]})

    def combine(self, observations: pa.Table) -> pa.Table:
        """What `choose` finds, by `row`."""
        keys, rows = integers(observations["key"]), integers(observations[ROW])
        hashes = integers(observations["hash"])
        column = one_chunk(observations["vector"])
        vectors = column.flatten().to_numpy().reshape(len(rows), column.type.list_size)
        order = np.lexsort((rows, hashes, keys))
        tables = [self._empty()]
        for part in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
            # Even pieces by hash; a document and its twin of the same id stand beside each other.
            n_pieces = max(1, -(-len(part) // self.part_documents))
            tables += [
                self._found(rows[piece], hashes[piece], vectors[piece])
                for piece in np.array_split(part, n_pieces)
                if len(piece)
            ]
        return pa.concat_tables(tables).combine_chunks()

    def _found(
        self, rows: NDArray[np.int64], hashes: NDArray[np.uint64], vectors: NDArray[np.int16]
    ) -> pa.Table:
        floats = vectors.astype(np.float32)
        # Products of such vectors are whole numbers that float32 holds: the same on every machine.
        similarity = (floats @ floats.T) / np.float32(UNIT**2)
        luck = (hashes >> np.uint64(11)) / 2.0**53
        found = self.choose(similarity, luck)
        return pa.table({"row": rows, **found}).cast(self._empty().schema)

    def _empty(self) -> pa.Table:
        names = [name.partition(".")[2] for name in self.writes]
        kinds = [("row", pa.int64()), *((name, self.types.get(name, pa.float64())) for name in names)]
        return pa.schema(kinds).empty_table()

    types: ClassVar[dict[str, pa.DataType]] = {}
    """Of columns that are no doubles."""

    def merge(self, partials: Sequence[pa.Table]) -> pa.Table:
        """All documents."""
        return pa.concat_tables(partials).combine_chunks()

    def finish(self, partial: pa.Table) -> pa.Table:
        """All documents with a vector, by `row`."""
        return partial.sort_by("row").combine_chunks()

    def scores(self, table: pa.Table, state: pa.Table) -> Scores:
        """What was found of each document; nulls for one without a vector, which stays."""
        rows, known = integers(table[ROW]), integers(state["row"])
        position = np.minimum(np.searchsorted(known, rows), max(len(known) - 1, 0))
        is_known = known[position] == rows if len(known) else np.zeros(len(rows), bool)
        at = pa.array(position, mask=~is_known)
        return {name: one_chunk(state[name.partition(".")[2]]).take(at) for name in self.writes}

    def rules(self) -> Sequence[Rule]:
        """The budget."""
        return (Rule("not_chosen", f"{self.name}.needs", maximum=self.keep_fraction),)


def needed(order: NDArray[np.int64]) -> Floats:
    """float64, (n,): which share of a part must stay for each, if they stay in this order.

    >>> needed(np.array([2, 0, 1])).round(2).tolist()
    [0.5, 0.83, 0.17]
    """
    needs = np.empty(order.size)
    needs[order] = (np.arange(order.size) + 0.5) / max(order.size, 1)
    return needs

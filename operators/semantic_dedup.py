"""Removal of documents that mean what another one means."""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from ..kernels.embedding import UNIT, near_kept
from .base import ROW, FitFilter, Rule, Scores
from .text_column import integers, one_chunk


class SemanticDedup(FitFilter):
    """Drop documents whose vector nearly equals that of a document of their cluster that stays.

    Reads what `cluster` writes, so that stands above it. In each cluster, documents are taken in the order of
    `keep`, and one goes if its cosine to one that stays exceeds `max_similarity`; each removal so names its
    `semantic_dedup.keeper`. Duplicates on the two sides of a cluster's border are not found.

    With the vectors that `cluster` learns, documents are alike in their words, not their meaning: look at
    what goes before you trust a threshold below 0.95.

    Source: Abbas et al. 2023, "SemDeDup", section 3 and algorithm 1. It departs in comparing with documents
    that stay, where the paper drops what resembles any document before it, and so whole chains; and in
    vectors of integers, so that no rounding makes two machines differ.
    Cost: 2 bytes per dimension and 24 for each document to exchange; in each cluster, its documents times
    those that stay: choose `n_clusters` so that none holds more than some ten thousand.
    """

    name = "semantic_dedup"
    reads = ("cluster.id", "cluster.similarity", "cluster.vector")
    writes = ("semantic_dedup.keeper", "semantic_dedup.similarity")

    max_similarity: float = Field(0.95, ge=-1, le=1, description="cosine above which a document goes")
    keep: Literal["hard", "easy", "first"] = Field(
        "hard", description="who stays: those far from the cluster's centre, near it, or first in the input"
    )
    exchange_key = "key"

    def observe(self, table: pa.Table) -> pa.Table:
        """One row for each document with a cluster: `key` uint64, `ROW`, `priority` double and `vector`."""
        table = table.filter(table["cluster.id"].is_valid())
        sign = {"hard": 1.0, "easy": -1.0, "first": 0.0}[self.keep]
        return pa.table(
            {
                "key": pc.cast(table["cluster.id"], pa.uint64()),
                ROW: table[ROW],
                "priority": pc.multiply(table["cluster.similarity"], sign),
                "vector": table["cluster.vector"],
            }
        )

    def combine(self, observations: pa.Table) -> pa.Table:
        """The documents that go: `row` and `keeper` int64, `similarity` double."""
        keys, rows = integers(observations["key"]), integers(observations[ROW])
        order = np.lexsort((rows, integers(observations["priority"]), keys))
        keys, rows = keys[order], rows[order]
        column = one_chunk(observations["vector"])
        vectors = column.flatten().to_numpy().reshape(len(rows), column.type.list_size)[order]
        found = [(np.empty(0, np.int64),) * 3]
        least = math.floor(self.max_similarity * UNIT**2)
        for cluster in np.split(np.arange(len(rows)), np.flatnonzero(keys[1:] != keys[:-1]) + 1):
            which, products = near_kept(vectors[cluster], least)
            goes = products > least
            found.append((rows[cluster][goes], rows[cluster][which[goes]], products[goes]))
        row, keeper, product = (np.concatenate(columns) for columns in zip(*found, strict=True))
        return pa.table({"row": row, "keeper": keeper, "similarity": product / UNIT**2})

    def merge(self, partials: Sequence[pa.Table]) -> pa.Table:
        """All that go."""
        return pa.concat_tables(partials).combine_chunks()

    def finish(self, partial: pa.Table) -> pa.Table:
        """All that go, by `row`."""
        return partial.sort_by("row").combine_chunks()

    def scores(self, table: pa.Table, state: pa.Table) -> Scores:
        """The row that stands for a document and the cosine to it: its own number and null for one that
        stays."""
        rows, known = integers(table[ROW]), integers(state["row"])
        goes = np.isin(rows, known)
        at = np.searchsorted(known, rows[goes])
        keeper, similarity = rows.copy(), np.zeros(len(rows))
        keeper[goes] = integers(state["keeper"])[at]
        similarity[goes] = integers(state["similarity"])[at]
        return dict(zip(self.writes, (pa.array(keeper), pa.array(similarity, mask=~goes)), strict=True))

    def rules(self) -> Sequence[Rule]:
        """What resembles one that stays goes."""
        return (Rule("semantic_duplicate", "semantic_dedup.similarity", maximum=self.max_similarity),)

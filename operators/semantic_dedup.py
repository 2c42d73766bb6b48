"""Removal of documents that mean what another one means."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, field_validator

from ..kernels.embedding import UNIT
from ..kernels.hashing import hash_ranges
from ..kernels.kmeans import spherical_kmeans
from .base import ROW, FitFilter, Rule, Scores
from .text_column import integers, one_chunk
from .vector_index import Index, check_index, near_kept_by, search_by

MAX_LEAF = 20_000
"""Documents that are compared with one another; a larger leaf is clustered again first."""


class SemanticDedup(FitFilter):
    """Drop documents whose vector nearly equals that of a document of their cluster that stays.

    Reads what `cluster` writes, so that stands above it. In each `cluster.leaf`, documents are taken in the
    order of `keep`, and one goes if its cosine to one that stays exceeds `max_similarity`: each document that
    goes names the one that stands for it (`semantic_dedup.keeper_id`, and its row `keeper`) and the cosine.
    Duplicates on the two sides of a border between leaves are not found.

    With the vectors that `cluster` learns from the corpus, documents are alike in their words rather than
    their meaning, and those of a rare language or topic are alike because few dimensions tell them apart:
    look at what goes before you trust a threshold below 0.99. A model's vectors bear lower ones.

    Source: Abbas et al. 2023, "SemDeDup", section 3 and algorithm 1, `max_similarity` being their 1 -
    epsilon, and `keep: hard`, the lowest cosine to the centroid, their choice. It departs in comparing with
    documents that stay, where the paper drops what resembles any document before it, and so whole chains; and
    in vectors of integers, so that no rounding makes two machines differ.
    Cost: 2 bytes per dimension, 40 and the id for each document to exchange; in each leaf, its documents
    times those that stay; by faiss (`index`), with the same answers, two to three times as fast from
    some thousand documents in a leaf on. A leaf of more than 20,000 is clustered again, so choose
    `leaves_per_cluster` for some thousand documents each.
    """

    name = "semantic_dedup"
    reads = ("id", "cluster.leaf", "cluster.similarity", "cluster.vector")
    writes = ("semantic_dedup.keeper", "semantic_dedup.keeper_id", "semantic_dedup.similarity")

    max_similarity: float = Field(0.99, ge=-1, le=1, description="cosine above which a document goes")
    keep: Literal["hard", "easy", "first"] = Field(
        "hard", description="who stays: those far from the cluster's centre, near it, or first in the input"
    )
    index: Index = Field("auto", description="what finds near vectors; auto: faiss if it is there and pays")
    exchange_key = "key"

    @field_validator("index")
    @classmethod
    def _check_index(cls, index: Index) -> Index:
        check_index(index)
        return index

    def identity(self) -> dict[str, Any]:
        """The parameters without `index`, which changes no answer."""
        return self.model_dump(mode="json", exclude={"index"})

    def observe(self, table: pa.Table) -> pa.Table:
        """One row for each document with a cluster: `key` uint64, `leaf` int64, `ROW`, `id`, `priority`
        double and `vector`."""
        table = table.filter(table["cluster.leaf"].is_valid())
        leaf = integers(table["cluster.leaf"])
        sign = {"hard": 1.0, "easy": -1.0, "first": 0.0}[self.keep]
        # Hashed: partitions are ranges of all uint64, and leaves are small numbers.
        key = hash_ranges(leaf.astype("<i8").view(np.uint8), np.arange(len(leaf) + 1) * 8)
        return pa.table(
            {
                "key": key,
                "leaf": leaf,
                ROW: table[ROW],
                "id": table["id"].cast(pa.large_string()),
                "priority": pc.multiply(table["cluster.similarity"], sign),
                "vector": table["cluster.vector"],
            }
        )

    def combine(self, observations: pa.Table) -> pa.Table:
        """The documents that go: `row` and `keeper` int64, `keeper_id`, `similarity` double."""
        leaves, rows = integers(observations["leaf"]), integers(observations[ROW])
        order = np.lexsort((rows, integers(observations["priority"]), leaves))
        leaves, rows = leaves[order], rows[order]
        column = one_chunk(observations["vector"])
        vectors = column.flatten().to_numpy().reshape(len(rows), column.type.list_size)[order]
        none = np.empty(0, np.int64)
        goes, keepers, products = [none], [none], [none]
        least = math.floor(self.max_similarity * UNIT**2)
        for leaf in np.split(np.arange(len(rows)), np.flatnonzero(leaves[1:] != leaves[:-1]) + 1):
            for group in _groups(vectors[leaf], self.index):
                members = leaf[group]
                which, product = near_kept_by(self.index, vectors[members], least)
                above = product > least
                goes.append(members[above])
                keepers.append(members[which[above]])
                products.append(product[above])
        goer, keeper = np.concatenate(goes), np.concatenate(keepers)
        return pa.table(
            {
                "row": rows[goer],
                "keeper": rows[keeper],
                "keeper_id": one_chunk(observations["id"]).take(pa.array(order[keeper])),
                "similarity": np.concatenate(products) / UNIT**2,
            }
        )

    def merge(self, partials: Sequence[pa.Table]) -> pa.Table:
        """All that go."""
        return pa.concat_tables(partials).combine_chunks()

    def finish(self, partial: pa.Table) -> pa.Table:
        """All that go, by `row`."""
        return partial.sort_by("row").combine_chunks()

    def scores(self, table: pa.Table, state: pa.Table) -> Scores:
        """The document that stands for one, by row and id, and the cosine to it: its own row and null for
        one that stays."""
        rows, known = integers(table[ROW]), integers(state["row"])
        position = np.minimum(np.searchsorted(known, rows), max(len(known) - 1, 0))
        goes = known[position] == rows if len(known) else np.zeros(len(rows), bool)
        at = pa.array(position, mask=~goes)
        gone = {name: one_chunk(state[name]).take(at) for name in ("keeper", "keeper_id", "similarity")}
        columns = (
            pc.coalesce(gone["keeper"], pa.array(rows)),
            gone["keeper_id"].cast(pa.string()),
            gone["similarity"],
        )
        return dict(zip(self.writes, columns, strict=True))

    def rules(self) -> Sequence[Rule]:
        """What resembles one that stays goes."""
        return (Rule("semantic_duplicate", "semantic_dedup.similarity", maximum=self.max_similarity),)


def _groups(vectors: NDArray[np.int16], index: Index) -> list[NDArray[np.int64]]:
    """The positions of `vectors`, in groups of some `MAX_LEAF` that are near one another, each ascending."""
    everyone = np.arange(len(vectors))
    if len(vectors) <= MAX_LEAF:
        return [everyone]
    sample = vectors[:: -(-len(vectors) // MAX_LEAF)]
    n_groups = -(-2 * len(vectors) // MAX_LEAF)
    centroids = spherical_kmeans(sample, n_groups, np.random.default_rng(0)).centroids
    which = search_by(index)(vectors, centroids)[0]
    return [everyone[which == group] for group in range(len(centroids))]

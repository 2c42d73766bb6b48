"""Removal of documents by their distance to their cluster's centre."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from .base import FitFilter, Rule, Scores
from .budget import budget_columns, uniforms
from .text_column import integers

N_BINS = 1 << 12
"""Bins of similarity in [-1, 1]: ranks are exact between them, and drawn by the id's hash within one."""


class PrototypePruning(FitFilter):
    """Keep a share of the documents: those that are far from their cluster's centre, and some at random.

    Reads what `cluster` writes, so that stands above it, and `semantic_dedup` between the two. Within each
    cluster (or, with `within: corpus`, among all) documents are ranked by `cluster.similarity`: the hardest
    (farthest) first with `keep: hard`, right where data is plenty; `easy` is for small corpora. Of the budget
    `keep_fraction`, the share ``1 - random_fraction`` goes to the first by rank; the rest is drawn at random
    among the others. That keeps the pruned corpus from losing its usual documents altogether, which is why
    pruning by score alone ends below random pruning when little is kept.

    `prototype_pruning.rank` is the share of documents before this one, `prototype_pruning.needs` the smallest
    `keep_fraction` with which it stays, and `prototype_pruning.weight` how many documents it then stands for:
    1 by rank, the inverse of the probability by chance. A loss weighted so is unbiased for the whole corpus;
    nothing else in a run reads it yet. A document without a cluster stays.

    Source: Sorscher et al. 2022, "Beyond neural scaling laws", section 5 (prototypes; hard where data is
    plenty); Tirumala et al. 2023, "D4", section 3 (after SemDeDup); Ayed and Hayou 2023, "Data pruning and
    neural scaling laws", section 5 (calibration by a random share, with weights). It departs in ranking
    within clusters, which keeps their proportions, and in not clustering again after SemDeDup.
    Cost: 16 bytes for each cluster and bin of similarity that occurs.
    """

    name = "prototype_pruning"
    reads = ("id", "cluster.id", "cluster.similarity")
    writes = ("prototype_pruning.rank", "prototype_pruning.needs", "prototype_pruning.weight")

    keep_fraction: float = Field(0.8, gt=0, le=1, description="share of the documents that stays")
    random_fraction: float = Field(
        0.2, ge=0, le=1, description="of these, the share that is drawn at random among the others"
    )
    keep: Literal["hard", "easy"] = Field(
        "hard", description="which go first into the budget: those far from the centre, or near it"
    )
    within: Literal["cluster", "corpus"] = Field("cluster", description="where documents are ranked")
    seed: int = Field(0, ge=0, lt=1 << 32, description="of the draw, by (seed, id)")

    def observe(self, table: pa.Table) -> pa.Table:
        """How many documents each cluster has in each bin: `cell` and `n` int64."""
        cells, counts = np.unique(self._cells(table), return_counts=True)
        return pa.table({"cell": cells, "n": counts.astype(np.int64)})

    def merge(self, partials: Sequence[pa.Table]) -> pa.Table:
        """The sums, by `cell`."""
        total = pa.concat_tables(partials).group_by("cell").aggregate([("n", "sum")])
        return total.select(["cell", "n_sum"]).rename_columns(["cell", "n"]).sort_by("cell").combine_chunks()

    def finish(self, partial: pa.Table) -> pa.Table:
        """With `before` and `size` int64: documents of the cluster in earlier bins, and in all."""
        cells, counts = integers(partial["cell"]), integers(partial["n"])
        _, first, cluster = np.unique(cells // N_BINS, return_index=True, return_inverse=True)
        ends = np.cumsum(counts)
        before = ends - counts
        size = np.add.reduceat(counts, first) if len(first) else counts
        columns = {"before": before - before[first][cluster], "size": size[cluster]}
        for name, values in columns.items():
            partial = partial.append_column(name, pa.array(values, pa.int64()))
        return partial

    def scores(self, table: pa.Table, state: pa.Table) -> Scores:
        """Rank, needed fraction and weight, double; null, null and 1 for a document without a cluster."""
        has_cluster = ~np.asarray(table["cluster.id"].combine_chunks().is_null())
        cells = self._cells(table)
        known = integers(state["cell"])
        at = np.minimum(np.searchsorted(known, cells), max(len(known) - 1, 0))
        counts, before, size = (integers(state[name])[at] for name in ("n", "before", "size"))
        # Two draws for each document: its place within the bin, and whether chance takes it.
        ids = table["id"].filter(pa.array(has_cluster))
        place, chance = (uniforms(ids, self.seed + stream) for stream in (0, 1 << 32))
        rank = (before + place * counts) / size
        columns = budget_columns(rank, chance, has_cluster, self.keep_fraction, self.random_fraction)
        return {f"{self.name}.{name}": column for name, column in columns.items()}

    def rules(self) -> Sequence[Rule]:
        """The budget."""
        return (Rule("pruned", "prototype_pruning.needs", maximum=self.keep_fraction),)

    def _cells(self, table: pa.Table) -> NDArray[np.int64]:
        """int64, (n with a cluster,): cluster * N_BINS + bin, bins in the order of rank."""
        table = table.filter(pc.is_valid(table["cluster.id"]))
        cluster = integers(table["cluster.id"]) * (self.within == "cluster")
        similarity = integers(table["cluster.similarity"])
        bins = np.clip((similarity + 1) / 2 * N_BINS, 0, N_BINS - 1).astype(np.int64)
        return cluster * N_BINS + (bins if self.keep == "hard" else N_BINS - 1 - bins)

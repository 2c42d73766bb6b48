"""What deduplications share: from observations that share a key to one keeper for each cluster.

The partial is a spanning forest of the duplicate edges, ``node int64, parent int64, priority int64``, one row
for each document that has a duplicate. Merging two is union-find over their edges: never larger than the
documents named. The column `priority` is there only when the survivor is not simply the first.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from ..kernels.union_find import components
from .base import ROW, FitFilter, Rule, Scores
from .text_column import integers

Keep = Literal["first", "longest"]


class Duplicates(FitFilter):
    """Base of the deduplications: a subclass observes rows, and duplicates are those that share a key."""

    exchange_key = "key"

    keep: Keep = Field(
        "first", description="which of a cluster survives: the first in the input's order, or the longest"
    )

    @property
    def _keys(self) -> tuple[str, ...]:
        """The columns on which duplicates agree, `exchange_key` first."""
        return ("key",)

    def combine(self, observations: pa.Table) -> pa.Table:
        """The forest of all rows that agree on their keys: each cluster a star around its smallest row."""
        observations = _with_repeated(observations, "key")
        rows = integers(observations[ROW])
        keys = [integers(observations[key]) for key in self._keys]
        order = np.lexsort((rows, *reversed(keys)))
        rows = rows[order]
        starts = np.ones(len(rows), dtype=bool)
        starts[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
        smallest = rows[starts][np.cumsum(starts) - 1]  # (n_observations,), of the rows with the same keys
        # A key's first row gets an edge to itself, which brings its priority along.
        named = ~(starts & np.append(starts[1:], True))
        forest = {"node": rows[named], "parent": smallest[named]}
        if self.keep != "first":
            forest["priority"] = integers(observations["priority"])[order][named]
        return self.merge([pa.table(forest)])

    def merge(self, partials: Sequence[pa.Table]) -> pa.Table:
        """The spanning forest of all edges of the partials."""
        forest = pa.concat_tables(partials)
        node = integers(forest["node"])
        nodes, roots = components(node, integers(forest["parent"]))
        columns = {"node": nodes, "parent": roots}
        if self.keep != "first":
            named, where = np.unique(node, return_index=True)
            assert len(named) == len(nodes), "every root of a forest with priorities has an edge to itself"
            columns["priority"] = integers(forest["priority"])[where]
        return pa.table(columns)

    def finish(self, partial: pa.Table) -> pa.Table:
        """One row for each duplicate and keeper: `row` ascending, `keeper`, `cluster_size`, `rank`, int64.

        `rank` is 0 for the keeper and counts its duplicates from 1, best first, ties to the smaller row.
        """
        row, root = integers(partial["node"]), integers(partial["parent"])
        priority = integers(partial["priority"]) if self.keep != "first" else np.zeros_like(row)
        order = np.lexsort((row, -priority, root))
        _, start, cluster, size = np.unique(
            root[order], return_index=True, return_inverse=True, return_counts=True
        )
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        columns = {
            "row": row,
            "keeper": row[order][start][cluster][back],
            "cluster_size": size[cluster][back],
            "rank": (np.arange(len(order)) - start[cluster])[back],
        }
        return pa.table({name: pa.array(values, pa.int64()) for name, values in columns.items()})

    def scores(self, table: pa.Table, state: pa.Table) -> Scores:
        """The columns of `writes`: of a row without duplicates its own number, 1 and 0."""
        rows = integers(table[ROW])
        known = integers(state["row"])
        position = np.searchsorted(known, rows)
        position[position == len(known)] = 0
        found = known[position] == rows if len(known) else np.zeros(len(rows), dtype=bool)
        columns = {"keeper": rows.copy(), "cluster_size": np.ones_like(rows), "rank": np.zeros_like(rows)}
        for score, values in columns.items():
            values[found] = integers(state[score])[position[found]]
        return {f"{self.name}.{score}": pa.array(values) for score, values in columns.items()}

    def rules(self) -> Sequence[Rule]:
        """Of each cluster, the keeper stays."""
        return (Rule("duplicate", f"{self.name}.rank", maximum=0),)


def duplicate_columns(name: str) -> tuple[str, ...]:
    """What the deduplication called `name` writes."""
    return (f"{name}.keeper", f"{name}.cluster_size", f"{name}.rank")


def lengths(offsets: NDArray[np.int64]) -> pa.Array:
    """The priority of documents when the longest survives: bytes of text, int64, (n_docs,)."""
    return pa.array(np.diff(offsets))


def _with_repeated(observations: pa.Table, key: str) -> pa.Table:
    """The rows whose key occurs more than once: few, so what follows sorts little."""
    keys = integers(observations[key])
    order = np.argsort(keys)
    same = keys[order][1:] == keys[order][:-1]
    repeated = np.zeros(len(keys), dtype=bool)
    repeated[order[1:][same]] = True
    repeated[order[:-1][same]] = True
    return observations.filter(pa.array(repeated))

"""What deduplications share: from observations that share a key to one keeper for each cluster.

The partial is a spanning forest of the duplicate edges, ``node int64, parent int64, priority int64``, one row
for each document that has a duplicate. Merging two is union-find over their edges: never larger than the
documents named. The column `priority` is there only when the survivor is not simply the first.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ..kernels.union_find import components
from .base import ROW, FitFilter, Rule, Scores, refusal
from .priority import by_column, by_length, check_known
from .text_column import integers

Keep = Literal["first", "longest", "newest", "best"]


class Duplicates(FitFilter):
    """Base of the deduplications: a subclass observes rows, and duplicates are those that share a key."""

    exchange_key = "key"

    keep: Keep = Field(
        "first",
        description="which duplicate survives: the first in the input's order, the longest text, the newest "
        "(`by` holds times), or the best (`by` holds numbers); ties go to the first",
    )
    by: str | None = Field(None, description="the column that `newest` and `best` look at")

    @model_validator(mode="after")
    def _by_goes_with_keep(self) -> Self:
        if (self.by is not None) != (self.keep in ("newest", "best")):
            needed = "needs 'by', a column to compare" if self.by is None else "looks at no column; omit 'by'"
            raise refusal(f"keep: {self.keep} {needed}")
        return self

    @classmethod
    def columns_read(cls, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """`reads`, and the column that `by` names."""
        by = parameters.get("by")
        return (*cls.reads, *([by] if isinstance(by, str) else []))

    @property
    def _keys(self) -> tuple[str, ...]:
        """The columns on which duplicates agree, `exchange_key` first."""
        return ("key",)

    def _priorities(self, table: pa.Table, offsets: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
        """The column `priority`, int64, (n_docs,), where the survivor is not simply the first."""
        if self.keep == "first":
            return {}
        if self.by is None:
            return {"priority": by_length(offsets)}
        return {"priority": by_column(table, self.by, self.keep, f"{self.name}.by")}

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
        if "priority" in observations.column_names:
            forest["priority"] = integers(observations["priority"])[order][named]
        return self.merge([pa.table(forest)])

    def merge(self, partials: Sequence[pa.Table]) -> pa.Table:
        """The spanning forest of all edges of the partials."""
        forest = pa.concat_tables(partials)
        node = integers(forest["node"])
        nodes, roots = components(node, integers(forest["parent"]))
        columns = {"node": nodes, "parent": roots}
        if "priority" in forest.column_names:
            named, where = np.unique(node, return_index=True)
            assert len(named) == len(nodes), "every root of a forest with priorities has an edge to itself"
            columns["priority"] = integers(forest["priority"])[where]
        return pa.table(columns)

    def finish(self, partial: pa.Table) -> pa.Table:
        """One row for each duplicate and keeper: `row` ascending, `keeper`, `cluster_size`, `rank`, int64.

        `rank` is 0 for the keeper and counts its duplicates from 1, best first, ties to the smaller row.

        Raises:
            UnsuitableDataError: no document has a value in the column that `by` names.
        """
        row, root = integers(partial["node"]), integers(partial["parent"])
        priority = integers(partial["priority"]) if self.keep != "first" else np.zeros_like(row)
        check_known(priority, self.by, f"{self.name}.by")
        order = np.lexsort((row, ~priority, root))
        start, cluster, size = clusters_of(root[order])
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
        found, position = positions(integers(state["row"]), rows)
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


def clusters_of(
    sorted_roots: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Of runs of equal roots: where each begins, (n_clusters,); each row's run, (n_rows,); sizes."""
    _, start, cluster, size = np.unique(
        sorted_roots, return_index=True, return_inverse=True, return_counts=True
    )
    return start, cluster, size


def positions(
    known: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Whether each row is among `known` (ascending), and where; both (n_rows,)."""
    position = np.searchsorted(known, rows)
    position[position == len(known)] = 0
    return known[position] == rows if len(known) else np.zeros(len(rows), dtype=bool), position


def _with_repeated(observations: pa.Table, key: str) -> pa.Table:
    """The rows whose key occurs more than once: few, so what follows sorts little."""
    keys = integers(observations[key])
    order = np.argsort(keys)
    same = keys[order][1:] == keys[order][:-1]
    repeated = np.zeros(len(keys), dtype=bool)
    repeated[order[1:][same]] = True
    repeated[order[:-1][same]] = True
    return observations.filter(pa.array(repeated))

"""Weights for repeating documents after deduplication."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, field_validator

from .base import Map, set_columns
from .text_column import one_chunk

FINEWEB2_WEIGHTS = {1: 1.0, 2: 2.0, 3: 3.0, 5: 5.0, 100: 8.0, 1000: 1.0}


class Rehydrate(Map):
    """Write how often each document is worth repeating, by how many copies it had and how good it is.

    Documents of which the web holds some copies pass quality filters more often than those of which it holds
    one or thousands. `weights` says from which cluster size on which weight holds: ``{"1": 1, "2": 2, "5":
    5}`` gives 5 to clusters of 5 and more. `quality_weights` does the same with a quality score, and both are
    multiplied; a row without a score has the factor 1. No row is copied: `tokenize` reads the column and
    lets an epoch read a document as often.

    Source: FineWeb2 (Penedo et al. 2025, section on rehydration); the default weights are its simple ones.
    Weights from the filtering rates of your own corpus: `weights_of_rates`.
    """

    name = "rehydrate"
    reads = ("minhash_dedup.cluster_size",)
    writes = ("rehydrate.repeat",)

    cluster_size: str = Field("minhash_dedup.cluster_size", description="column with the number of copies")
    weights: dict[int, float] = Field(
        FINEWEB2_WEIGHTS, min_length=1, description="from which cluster size on: which weight"
    )
    quality: str | None = Field(None, description="column with a score, such as language.confidence")
    quality_weights: dict[float, float] = Field({}, description="from which score on: which factor")

    @classmethod
    def columns_read(cls, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """The two columns that the parameters name."""
        quality = parameters.get("quality")
        return (parameters.get("cluster_size", cls.reads[0]), *([quality] if quality else []))

    @field_validator("weights", "quality_weights")
    @classmethod
    def _check_weights(cls, weights: dict[float, float]) -> dict[float, float]:
        for start, weight in weights.items():
            if not 0 <= weight < float("inf"):
                raise ValueError(f"the weight from {start:g} on is {weight}; a weight is 0 or more")
        return weights

    @field_validator("weights")
    @classmethod
    def _check_start(cls, weights: dict[int, float]) -> dict[int, float]:
        if min(weights) > 1:
            raise ValueError(f"the first weight holds from {min(weights)} on; say what holds from 1 on")
        return weights

    def apply(self, table: pa.Table) -> pa.Table:
        """`table` with the weight, float64; null where the cluster size is."""
        sizes = one_chunk(self._column(table, self.cluster_size)).cast(pa.float64())
        repeat = _look_up(
            self.weights, sizes.to_numpy(zero_copy_only=False), below=self.weights[min(self.weights)]
        )
        if self.quality is not None and self.quality_weights:
            score = one_chunk(self._column(table, self.quality)).cast(pa.float64())
            below = self.quality_weights[min(self.quality_weights)]
            repeat = repeat * _look_up(self.quality_weights, score.to_numpy(zero_copy_only=False), below)
        missing = np.asarray(sizes.is_null())
        return set_columns(table, {self.writes[0]: pa.array(repeat, pa.float64(), mask=missing)})

    def _column(self, table: pa.Table, name: str) -> pa.ChunkedArray:
        if name not in table.column_names:
            there = ", ".join(table.column_names)
            raise ValueError(f"rehydrate: there is no column {name!r}; there are {there}")
        return table[name]


def _look_up(weights: Mapping[Any, float], values: NDArray[np.float64], below: float) -> NDArray[np.float64]:
    """The weight of the last start at or below each value; `below` before the first, 1 of NaN."""
    starts = np.array(sorted(weights), dtype=float)
    of_start = np.array([below, *(weights[start] for start in sorted(weights))], dtype=float)
    found = of_start[np.searchsorted(starts, values, side="right")]
    return np.where(np.isnan(values), 1.0, found)


def weights_of_rates(
    n_docs: Sequence[int], n_removed: Sequence[int], max_weight: float = 10.0, min_docs: int = 100
) -> dict[int, float]:
    """`weights` from how many documents of each cluster size the filters behind deduplication removed.

    With r_c the share removed at size c, r that of all, and m the smallest r_c:
    w_c = 1 where r_c >= r, else 1 + (max_weight - 1) (r_c - r) / (m - r); then smoothed by a centred mean of
    five, which leaves two values at either end, and rounded. From the first size with fewer than `min_docs`
    documents on, all sizes share one rate: small counts are noise.

    Args:
        n_docs, n_removed: of cluster sizes 1, 2, 3, ...
    Returns:
        start size -> weight, one entry for each run of equal weights.
    Raises:
        ValueError: the two have different lengths, or there are no documents.

    Source: FineWeb2 (Penedo et al. 2025); it departs in `min_docs`, and rounds half to even.

    >>> weights_of_rates([1000, 1000, 1000], [500, 300, 400], max_weight=5)
    {1: 1.0, 2: 5.0, 3: 1.0}
    """
    if len(n_docs) != len(n_removed) or not sum(n_docs):
        raise ValueError(
            f"found {len(n_docs)} sizes with {sum(n_docs)} documents, and removals of {len(n_removed)}; "
            "give one number of each for each size"
        )
    small = next((i for i, n in enumerate(n_docs) if n < min_docs), len(n_docs))
    docs = np.array([*n_docs[:small], sum(n_docs[small:])], dtype=float)
    removed = np.array([*n_removed[:small], sum(n_removed[small:])], dtype=float)
    docs, removed = docs[docs > 0], removed[docs > 0]
    rate, overall = removed / docs, removed.sum() / docs.sum()
    lowest = rate.min()
    weights = np.ones_like(rate)
    if lowest < overall:
        weights = 1 + (max_weight - 1) * np.clip((rate - overall) / (lowest - overall), 0, None)
    if len(weights) >= 5:
        weights[2:-2] = np.convolve(weights, np.full(5, 0.2), mode="valid")
    rounded = np.round(weights)
    starts = np.flatnonzero(np.append(True, np.diff(rounded) != 0))
    return {int(start) + 1: float(rounded[start]) for start in starts}

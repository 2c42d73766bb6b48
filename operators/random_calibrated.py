"""Pruning by any score, with a random share that corrects it."""

from collections.abc import Mapping
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from .ranked import Floats, RankedFilter, double


class RandomCalibrated(RankedFilter):
    """Keep a share of the documents: the first by a score, and some of the others by chance.

    Pruning by a score alone changes what the mean loss over the corpus means, and is worse than pruning by
    chance when little is kept. Of the budget `keep_fraction`, the share ``1 - random_fraction`` goes to the
    first by `score`, the rest is drawn among the others: `random_calibrated.weight` is 1 for the former and
    the inverse of its probability for the latter, so losses weighed by it are unbiased for the whole corpus.
    `random_fraction: 1` is random pruning. `random_calibrated.needs` is the smallest `keep_fraction` with
    which a document stays. A document without a score stays.

    Source: Ayed and Hayou 2023, "Data pruning and neural scaling laws: fundamental limitations of score-based
    algorithms" (arXiv 2302.06960), section 5 (SBPA with calibration, its alpha being 1 - `random_fraction`).
    `prototype_pruning` is this by distance to the cluster's centre.
    Cost: 16 bytes for each score that occurs, to a thousandth.
    """

    name = "random_calibrated"
    reads = ("id",)
    writes = ("random_calibrated.rank", "random_calibrated.needs", "random_calibrated.weight")
    reason = "pruned"

    score_column: str = Field(min_length=1, description="column of numbers, such as ngram_loss.loss")
    keep: Literal["high", "low"] = Field("high", description="which scores go first into the budget")
    random_fraction: float = Field(
        0.2, ge=0, le=1, description="of what stays, the share that is drawn at random among the others"
    )

    @classmethod
    def columns_read(cls, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """The id and the column that the parameters name."""
        column = parameters.get("score_column")
        return ("id", *([column] if isinstance(column, str) else []))

    def score(self, table: pa.Table) -> Floats:
        return double(table, self.score_column) * (1.0 if self.keep == "high" else -1.0)

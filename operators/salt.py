"""Documents that are challenging and yet learnable."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from pydantic import Field

from .ranked import Floats, RankedFilter, double


class Salt(RankedFilter):
    """Keep the documents in which a small, early model guesses among the right words, and is not sure.

    Reads a column of scores: the median loss of those tokens that are among the model's k most likely ones
    (`ngram_loss` writes it as `ngram_loss.learnable`, for its model; other models' may be named). The
    greatest
    go first: tokens that the model cannot guess at all do not count, so noise has no score, and what is known
    by heart has a low one. A document without a score stays.

    Source: Rawat et al. 2024, "A little help goes a long way: efficient LLM training by leveraging small LMs"
    (SALT, arXiv 2410.18779), section 4.3, data selection (SALT_DS). The distillation that it is made for
    there is the trainer's.
    Cost: 16 bytes for each score that occurs, to a thousandth.
    """

    name = "salt"
    reads = ("id", "ngram_loss.learnable")
    writes = ("salt.rank", "salt.needs", "salt.weight")
    reason = "not_challenging"

    score_column: str = Field(
        "ngram_loss.learnable", min_length=1, description="column of the scores, nats per token"
    )

    @classmethod
    def columns_read(cls, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """The id and the column that the parameters name."""
        return ("id", parameters.get("score_column", cls.model_fields["score_column"].default))

    def score(self, table: pa.Table) -> Floats:
        return double(table, self.score_column)

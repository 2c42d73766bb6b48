"""Documents that a better model has more to say about."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from pydantic import Field

from .base import Scores
from .ranked import Floats, RankedFilter, double


class DifferenceSampling(RankedFilter):
    """Keep the documents on which a large model is further ahead of a small one.

    Reads two columns of mean losses in nats per token, of the same tokens: `small` minus `large` is the
    score, the logarithm of the two models' ratio per token. What both find easy (boilerplate) and what both
    find hard (noise) has no difference. The columns may be `ngram_loss`'s, whose small model knows words
    alone and whose large one what follows them; or be written by models of your own. A document without both
    losses stays.

    Source: Gu et al. 2024, "MiniPLM" (arXiv 2410.17215), section 2.2, difference sampling, where the released
    code keeps half; losses are means here, as in the code, so that long documents are not preferred. It
    departs in `random_fraction`, as in `random_calibrated`.
    Cost: 16 bytes for each score that occurs, to a thousandth.
    """

    name = "difference_sampling"
    reads = ("id", "ngram_loss.unigram_loss", "ngram_loss.loss")
    writes = (
        "difference_sampling.score",
        "difference_sampling.rank",
        "difference_sampling.needs",
        "difference_sampling.weight",
    )
    reason = "small_difference"

    small: str = Field(
        "ngram_loss.unigram_loss", min_length=1, description="column of the small model's loss"
    )
    large: str = Field("ngram_loss.loss", min_length=1, description="column of the large model's loss")

    @classmethod
    def columns_read(cls, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """The id and the two columns that the parameters name."""
        return ("id", *(parameters.get(name, cls.model_fields[name].default) for name in ("small", "large")))

    def score(self, table: pa.Table) -> Floats:
        return double(table, self.small) - double(table, self.large)

    def scores(self, table: pa.Table, state: pa.Table) -> Scores:
        """The difference in nats per token, null where a loss is, then as any ranking."""
        score = self.score(table)
        return {f"{self.name}.score": pa.array(score, from_pandas=True), **super().scores(table, state)}

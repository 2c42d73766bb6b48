"""A condition over columns."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from .base import Filter, Rule, Scores
from .expression import Expression


class Where(Filter):
    """Keep the documents for which a condition over their columns holds.

    Columns are those of the input and those that operators above have written: `language.confidence`, `url`.
    There are comparisons, `in [...]`, `is None`, `and`, `or`, `not`, `+ - * /`, numbers, strings and
    brackets. A condition that a missing value leaves open drops nothing: write `lang is not None and lang ==
    "en"` to drop what has no language.

    Source: none; the condition is the recipe's. Cost: a few comparisons for each document; no text is read
    unless `text` is named.
    """

    name = "where"
    reads = ()
    writes = ("where.holds",)

    keep: str = Field(
        description="the condition, such as \"language.confidence > 0.5 and lang in ['en', 'de']\""
    )
    reason: str = Field("condition", min_length=1, description="what the dropped rows' reason says")

    @field_validator("keep")
    @classmethod
    def _can_be_read(cls, keep: str) -> str:
        Expression(keep)
        return keep

    @classmethod
    def columns_read(cls, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """The columns that the condition names; none for a condition that cannot be read."""
        try:
            return Expression(str(parameters.get("keep"))).columns
        except ValueError:
            return ()

    def scores(self, table: pa.Table) -> Scores:
        """1 where the condition holds, 0 where it does not, null where a missing value leaves it open."""
        return {"where.holds": pc.cast(Expression(self.keep).holds(table), pa.int8())}

    def rules(self) -> Sequence[Rule]:
        """One rule."""
        return (Rule(self.reason, "where.holds", minimum=1),)

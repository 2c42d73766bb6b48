"""Limits on how long a document is."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from pydantic import Field

from ..kernels.text_statistics import n_characters, newlines
from .base import Filter, Rule, Scores
from .text_column import text_buffers
from .word_pass import SEGMENTATION, Profile, column_words, holds_gil


class Length(Filter):
    """Drop documents that are too short or too long, in characters, words or lines; without a limit, only
    measure.

    Characters are code points, lines are newlines plus one, and what a word is says `profile` (see
    `gopher_quality`).

    Source: none; limits are the recipe's. Cost: one pass over the text, and one to count words, which the
    filters of a stage share.
    """

    name = "length"
    writes = ("length.n_characters", "length.n_words", "length.n_lines")

    profile: Profile = Field("paper", description="what a word is")
    min_characters: int | None = Field(None, ge=0, description="fewest characters of a document")
    max_characters: int | None = Field(None, ge=0, description="most characters of a document")
    min_words: int | None = Field(None, ge=0, description="fewest words of a document")
    max_words: int | None = Field(None, ge=0, description="most words of a document")
    min_lines: int | None = Field(None, ge=0, description="fewest lines of a document")
    max_lines: int | None = Field(None, ge=0, description="most lines of a document")

    @property
    def holds_gil(self) -> bool:
        """ICU does while it cuts words."""
        return holds_gil(self.profile)

    def scores(self, table: pa.Table) -> Scores:
        """The columns of `writes`."""
        data, offsets = text_buffers(table["text"])
        words = column_words(table["text"], SEGMENTATION[self.profile])
        columns = (n_characters(data, offsets), np.diff(words.offsets), newlines(data, offsets)[0] + 1)
        return dict(zip(self.writes, map(pa.array, columns), strict=True))

    def rules(self) -> Sequence[Rule]:
        """Short before long, characters before words before lines."""
        limits = (
            ("characters", self.min_characters, self.max_characters),
            ("words", self.min_words, self.max_words),
            ("lines", self.min_lines, self.max_lines),
        )
        rules = [
            rule
            for (unit, least, most), score in zip(limits, self.writes, strict=True)
            for rule in (
                Rule(f"too_few_{unit}", score, minimum=least),
                Rule(f"too_many_{unit}", score, maximum=most),
            )
        ]
        return [rule for rule in rules if rule.minimum is not None or rule.maximum is not None]

"""The quality rules of Gopher."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from ..kernels.text_statistics import MAX_STOP_WORDS, text_statistics
from .base import Filter, Rule, Scores
from .text_column import text_buffers

BULLETS = ("\u2022", "-")
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")


class GopherQuality(Filter):
    """Drop documents whose length, words, symbols or lines are unlike those of prose.

    Words are white-space tokens, as in the paper; lines are those of ``str.splitlines``, blank ones included.
    Stop words count once each, as they are written. They are English: for other languages set `stop_words`,
    or `min_stop_words: 0`. Other implementations cut words otherwise and decide otherwise with the same
    thresholds: where punctuation marks count as words (datatrove), far more documents fall below
    `min_fraction_alpha_words`.

    Source: Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher",
    section A1.1; names of the reasons and the two bullets are datatrove's. Cost: one pass over the text.
    """

    name = "gopher_quality"
    writes = tuple(
        f"gopher_quality.{score}"
        for score in (
            "n_words",
            "mean_word_length",
            "hashes_per_word",
            "ellipses_per_word",
            "fraction_bullet_lines",
            "fraction_ellipsis_lines",
            "fraction_alpha_words",
            "n_stop_words",
        )
    )

    min_words: int = Field(50, ge=0, description="fewest words of a document")
    max_words: int = Field(100_000, ge=1, description="most words of a document")
    min_mean_word_length: float = Field(3, ge=0, description="shortest mean word, in characters")
    max_mean_word_length: float = Field(10, ge=0, description="longest mean word, in characters")
    max_hashes_per_word: float = Field(0.1, ge=0, description='most "#" for each word')
    max_ellipses_per_word: float = Field(0.1, ge=0, description='most "..." and "\u2026" for each word')
    max_fraction_bullet_lines: float = Field(
        0.9, ge=0, le=1, description='largest share of lines that begin with "\u2022" or "-"'
    )
    max_fraction_ellipsis_lines: float = Field(
        0.3, ge=0, le=1, description='largest share of lines that end in "..." or "\u2026"'
    )
    min_fraction_alpha_words: float = Field(
        0.8, ge=0, le=1, description="smallest share of words with an alphabetic character"
    )
    min_stop_words: int = Field(2, ge=0, description="fewest different stop words of a document")
    stop_words: list[str] = Field(
        list(STOP_WORDS),
        max_length=MAX_STOP_WORDS,
        description="words that real text in its language cannot avoid",
    )

    def scores(self, table: pa.Table) -> Scores:
        """The columns of `writes`; a ratio over nothing is null."""
        count = text_statistics(*text_buffers(table["text"]), self.stop_words, BULLETS)
        columns = (
            pa.array(count.n_words),
            _ratio(count.n_word_characters, count.n_words),
            _ratio(count.n_hashes, count.n_words),
            _ratio(count.n_ellipses, count.n_words),
            _ratio(count.n_bullet_lines, count.n_lines),
            _ratio(count.n_ellipsis_lines, count.n_lines),
            _ratio(count.n_alpha_words, count.n_words),
            pa.array(count.n_stop_words),
        )
        return dict(zip(self.writes, columns, strict=True))

    def rules(self) -> Sequence[Rule]:
        """Gopher's rules in datatrove's order, under datatrove's names (the last one means: not enough)."""
        n_words, mean_length, hashes, ellipses, bullets, endings, alpha, stop_words = self.writes
        return (
            Rule("gopher_short_doc", n_words, minimum=self.min_words),
            Rule("gopher_long_doc", n_words, maximum=self.max_words),
            Rule("gopher_below_avg_threshold", mean_length, minimum=self.min_mean_word_length),
            Rule("gopher_above_avg_threshold", mean_length, maximum=self.max_mean_word_length),
            Rule("gopher_too_many_hashes", hashes, maximum=self.max_hashes_per_word),
            Rule("gopher_too_many_ellipsis", ellipses, maximum=self.max_ellipses_per_word),
            Rule("gopher_too_many_bullets", bullets, maximum=self.max_fraction_bullet_lines),
            Rule("gopher_too_many_end_ellipsis", endings, maximum=self.max_fraction_ellipsis_lines),
            Rule("gopher_below_alpha_threshold", alpha, minimum=self.min_fraction_alpha_words),
            Rule("gopher_enough_stop_words", stop_words, minimum=self.min_stop_words),
        )


def _ratio(numerator: NDArray[np.int64], denominator: NDArray[np.int64]) -> pa.Array:
    return pa.array(numerator / np.maximum(denominator, 1), mask=denominator == 0)

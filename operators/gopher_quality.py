"""The quality rules of Gopher."""

from collections.abc import Sequence

import pyarrow as pa
from pydantic import Field

from ..kernels.text_statistics import MAX_STOP_WORDS, Lines, line_statistics, word_statistics
from .base import Filter, Rule, Scores
from .text_column import ratio, text_buffers
from .word_pass import SEGMENTATION, Profile, column_words, holds_gil

BULLETS = ("\u2022", "-")
DCLM_BULLETS = ("\u25cf", "\u2022", "*", "-")
STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with")


class GopherQuality(Filter):
    """Drop documents whose length, words, symbols or lines are unlike those of prose.

    What a word is decides more than the thresholds do, so it has a name, `profile`:

    - `paper`: tokens between white space, as the paper has them.
    - `datatrove`: tokens of spaCy's English tokenizer. Punctuation marks are words where others are counted
      per word,
      but neither in the number of words nor in their mean length; far more documents fall below
      `min_fraction_alpha_words`.
    - `dclm`: tokens between white space; `n_words` leaves out those that begin with neither letter nor
      number. Stop words count in any case and every time; lines are not blank; "*" and U+25CF are bullets and
      ". . ." is an ellipsis.
    - `uax29`: words of UAX #29, each letter of a script without spaces one, no punctuation.
    - `icu`: words of UAX #29 and of ICU's dictionaries, for any language; install `cuvee[languages]`.

    Except for `dclm`, lines are those of ``str.splitlines``, blank ones included, and stop words count once
    each, as they are written. They are English: for other languages set `stop_words`, or `min_stop_words: 0`.

    Source: Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher",
    section A1.1; the names of the reasons and the two bullets are datatrove's; `dclm` is Li et al. 2024,
    "DataComp-LM", its code.
    Cost: one pass over the text, and one to find words, which the filters of a stage share.
    """

    name = "gopher_quality"
    version = 2
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

    profile: Profile = Field("paper", description="what a word is, and which words a rule counts")
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

    @property
    def holds_gil(self) -> bool:
        """ICU does while it cuts words."""
        return holds_gil(self.profile)

    def scores(self, table: pa.Table) -> Scores:
        """The columns of `writes`; a ratio over nothing is null."""
        data, offsets = text_buffers(table["text"])
        is_dclm = self.profile == "dclm"
        kind: Lines = "stripped" if is_dclm else "universal"
        line = line_statistics(data, offsets, DCLM_BULLETS if is_dclm else BULLETS, kind)
        words = column_words(table["text"], SEGMENTATION[self.profile])
        word = word_statistics(data, words, self.stop_words, fold_and_repeat=is_dclm)
        n_words, mean_length = word.n_words, ratio(word.n_characters, word.n_words)
        if self.profile == "datatrove":
            n_words = word.n_words - word.n_symbolic
            mean_length = ratio(word.n_characters - word.n_symbolic_characters, n_words)
        elif is_dclm:
            n_words = word.n_alnum_first
        columns = (
            pa.array(n_words),
            mean_length,
            ratio(line.n_hashes, word.n_words),
            ratio(line.n_ellipses, word.n_words),
            ratio(line.n_bullet_lines, line.n_lines),
            ratio(line.n_ellipsis_lines, line.n_lines),
            ratio(word.n_alphabetic, word.n_words),
            pa.array(word.n_stop_words),
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

"""The rules that FineWeb adds to those of Gopher and C4."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from pydantic import Field

from ..kernels.pieces import Cut, pieces
from ..kernels.text_statistics import newlines
from .base import Filter, Rule, Scores
from .text_column import ratio, text_buffers
from .word_pass import SEGMENTATION, Profile, column_words, holds_gil


class Fineweb(Filter):
    """Drop documents whose lines are those of lists, menus and tables.

    Lines end at a newline; blank ones are left out, and a document with no other is dropped for `empty`. A
    line ends in punctuation if its last character is one that ends sentences in any script (Unicode's
    Sentence_Terminal): quotation marks, brackets and a trailing space do not count. A line is a duplicate
    from its second occurrence on.

    `max_fraction_characters_duplicate_lines` is 0.01 in FineWeb's code and 0.1 in its paper (FineWeb2 uses
    0.1); the default is the code's, which made the data set. `profile` says what a word is for
    `newlines_per_word` (see `gopher_quality`); FineWeb's is `datatrove`.

    Source: Penedo et al. 2024, "The FineWeb Datasets", section 3.5, and datatrove, whose names the reasons
    have.
    Cost: one pass over the text, and one to count words, which the filters of a stage share.
    """

    name = "fineweb"
    writes = tuple(
        f"fineweb.{score}"
        for score in (
            "n_lines",
            "fraction_lines_with_punctuation",
            "fraction_short_lines",
            "fraction_characters_duplicate_lines",
            "newlines_per_word",
        )
    )

    profile: Profile = Field("paper", description="what a word is")
    min_fraction_lines_with_punctuation: float = Field(
        0.12, ge=0, le=1, description="smallest share of lines that end in punctuation"
    )
    max_fraction_short_lines: float | None = Field(
        0.67, ge=0, description="largest share of short lines; null (FineWeb2) asks no such question"
    )
    short_line_characters: int = Field(30, ge=0, description="a line of at most so many characters is short")
    max_fraction_characters_duplicate_lines: float = Field(
        0.01, ge=0, description="largest share of characters in duplicates of lines"
    )
    max_newlines_per_word: float = Field(0.3, ge=0, description="most newlines for each word")

    @property
    def holds_gil(self) -> bool:
        """ICU does while it cuts words."""
        return holds_gil(self.profile)

    def scores(self, table: pa.Table) -> Scores:
        """The columns of `writes`; a ratio over nothing is null."""
        data, offsets = text_buffers(table["text"])
        lines = pieces(data, offsets, Cut(1, skip_blank=True), self.short_line_characters)
        n_newlines, n_others = newlines(data, offsets)
        words = column_words(table["text"], SEGMENTATION[self.profile])
        columns = (
            pa.array(lines.n_pieces),
            ratio(lines.n_terminal, lines.n_pieces),
            ratio(lines.n_short, lines.n_pieces),
            ratio(lines.n_later_characters, n_others),
            ratio(n_newlines, np.diff(words.offsets)),
        )
        return dict(zip(self.writes, columns, strict=True))

    def rules(self) -> Sequence[Rule]:
        """FineWeb's rules in datatrove's order, under datatrove's names."""
        n_lines, punctuation, short, duplicate, per_word = self.writes
        return (
            Rule("empty", n_lines, minimum=1),
            Rule("line_punct_ratio", punctuation, minimum=self.min_fraction_lines_with_punctuation),
            Rule("short_line_ratio", short, maximum=self.max_fraction_short_lines),
            Rule("char_dup_ratio", duplicate, maximum=self.max_fraction_characters_duplicate_lines),
            Rule("list_ratio", per_word, maximum=self.max_newlines_per_word),
        )

"""The repetition rules of Gopher."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from ..kernels.pieces import Cut, Pieces, pieces
from ..kernels.repetition import DUPLICATED, TOP, ngram_repetition
from ..kernels.text_statistics import n_characters
from .base import Filter, Rule, Scores
from .text_column import ratio, text_buffers
from .word_pass import SEGMENTATION, Profile, column_words, holds_gil

_LATER = (Cut(2, greedy=True, strip_text=True), Cut(1, greedy=True))
_ALL = (Cut(2, strip_pieces=True, skip_blank=True), Cut(1, strip_pieces=True, skip_blank=True))
Fraction = float | None


def _limit(value: float, of: str) -> Fraction:
    return Field(value, ge=0, description=f"largest {of}; null asks no such question")


class GopherRepetition(Filter):
    """Drop documents that say the same thing over and over: their lines, paragraphs or word n-grams.

    `profile` says what a word is (see `gopher_quality`) and how repetition is counted. Under `dclm`, a line
    or paragraph that occurs more than once counts with all its occurrences, an n-gram only where it occurs
    twice, each word in duplicated n-grams once, and lengths are shares of the lines', paragraphs' or words'
    characters. Under the others, all counts are datatrove's: duplicates are second and later occurrences, the
    most frequent n-gram counts times its occurrences even if that is one, duplicated n-grams are found in a
    walk that jumps over what it has counted, and lengths are shares of the whole text. A document without
    text is dropped for `empty`.

    Source: Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher",
    table A1; counting as in datatrove (Penedo et al. 2024) and in DCLM (Li et al. 2024, its code), where the
    paper leaves it open.
    Cost: one pass over the text and the words, which the filters of a stage share; 60 bytes for each word of
    the longest document.
    """

    name = "gopher_repetition"
    writes = tuple(
        f"gopher_repetition.{score}"
        for score in (
            "n_characters",
            "fraction_duplicate_paragraphs",
            "fraction_characters_duplicate_paragraphs",
            "fraction_duplicate_lines",
            "fraction_characters_duplicate_lines",
            *(f"fraction_characters_top_{n}_gram" for n in TOP),
            *(f"fraction_characters_duplicate_{n}_grams" for n in DUPLICATED),
        )
    )

    profile: Profile = Field("paper", description="what a word is, and how repetition is counted")
    max_fraction_duplicate_paragraphs: Fraction = _limit(0.30, "share of paragraphs that are duplicates")
    max_fraction_characters_duplicate_paragraphs: Fraction = _limit(0.20, "share of characters in them")
    max_fraction_duplicate_lines: Fraction = _limit(0.30, "share of lines that are duplicates")
    max_fraction_characters_duplicate_lines: Fraction = _limit(0.20, "share of characters in them")
    max_fraction_characters_top_2_gram: Fraction = _limit(0.20, "share of the most frequent 2-gram")
    max_fraction_characters_top_3_gram: Fraction = _limit(0.18, "share of the most frequent 3-gram")
    max_fraction_characters_top_4_gram: Fraction = _limit(0.16, "share of the most frequent 4-gram")
    max_fraction_characters_duplicate_5_grams: Fraction = _limit(0.15, "share of repeated 5-grams")
    max_fraction_characters_duplicate_6_grams: Fraction = _limit(0.14, "share of repeated 6-grams")
    max_fraction_characters_duplicate_7_grams: Fraction = _limit(0.13, "share of repeated 7-grams")
    max_fraction_characters_duplicate_8_grams: Fraction = _limit(0.12, "share of repeated 8-grams")
    max_fraction_characters_duplicate_9_grams: Fraction = _limit(0.11, "share of repeated 9-grams")
    max_fraction_characters_duplicate_10_grams: Fraction = _limit(0.10, "share of repeated 10-grams")

    @property
    def holds_gil(self) -> bool:
        """ICU does while it cuts words."""
        return holds_gil(self.profile)

    def scores(self, table: pa.Table) -> Scores:
        """The columns of `writes`; a share of nothing is null."""
        data, offsets = text_buffers(table["text"])
        is_dclm = self.profile == "dclm"
        paragraphs, lines = (pieces(data, offsets, cut) for cut in (_ALL if is_dclm else _LATER))
        segmentation = "uax29" if is_dclm else SEGMENTATION[self.profile]
        words = column_words(table["text"], segmentation)
        if is_dclm:
            words = words.alnum_first()
        in_ngrams, in_words = ngram_repetition(data, words, "all" if is_dclm else "later")
        n_text = n_characters(data, offsets)
        if is_dclm:
            n_text = np.where(lines.n_pieces > 0, n_text, 0)  # white space alone is an empty document
        columns = (
            pa.array(n_text),
            *(share for found in (paragraphs, lines) for share in _shares(found, n_text, is_dclm)),
            *(ratio(found, in_words if is_dclm else n_text) for found in in_ngrams.T),
        )
        return dict(zip(self.writes, columns, strict=True))

    def rules(self) -> Sequence[Rule]:
        """Gopher's rules in datatrove's order, under datatrove's names."""
        names = ["dup_para_frac", "dup_para_char_frac", "dup_line_frac", "dup_line_char_frac"]
        names += [*(f"top_{n}_gram" for n in TOP), *(f"duplicated_{n}_n_grams" for n in DUPLICATED)]
        limits = [getattr(self, f"max_{score.partition('.')[2]}") for score in self.writes[1:]]
        return (
            Rule("empty", self.writes[0], minimum=1),
            *(
                Rule(name, score, maximum=limit)
                for name, score, limit in zip(names, self.writes[1:], limits, strict=True)
                if limit is not None
            ),
        )


def _shares(found: Pieces, n_text: NDArray[np.int64], is_dclm: bool) -> tuple[pa.Array, pa.Array]:
    """The share of pieces that are duplicates, and the share of characters in them."""
    if is_dclm:
        return ratio(found.n_repeated, found.n_pieces), ratio(found.n_repeated_characters, found.n_characters)
    return ratio(found.n_later, found.n_pieces), ratio(found.n_later_characters, n_text)

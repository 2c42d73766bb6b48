"""The rules of C4, which rewrite a document line by line and drop some documents whole."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from ..kernels.c4_lines import LineCounts, LineRules, c4_lines
from ..kernels.sentences import sentences
from .base import Filter, Rule, Scores
from .icu import icu_sentences
from .text_column import large_strings, one_chunk, text_buffers
from .word_pass import Profile, column_words, holds_gil, line_words


class C4(Filter):
    """Keep the lines of a document that are sentences, and drop documents that have few of them or are no
    prose.

    A line goes if one of its words is longer than `max_word_length`; it loses citation marks ("[1]",
    "[edit]", "[citation needed]"); it goes unless it ends in one of . ? ! " ' (but not "..."), and if it has
    fewer than `min_words_per_line` words, "javascript", or a phrase of cookie and privacy notices. Each
    reason is counted. A document is dropped for "lorem ipsum" or "{" in a line that came so far, and if its
    lines have fewer than `min_sentences` sentences. `text` becomes the lines that stay; a dropped document
    keeps the text that it had.

    FineWeb's variant is `require_terminal_punctuation: false`, which languages with other marks need, too.
    `profile: datatrove` counts sentences as spaCy's sentencizer does; `icu` counts sentences, and words of a
    line, as they are in any language; the others count words that end in a mark that ends sentences.

    Source: Raffel et al. 2020, "Exploring the Limits of Transfer Learning", section 2.2, and its code for the
    rules that the paper does not name; it departs in the sentences (its code uses NLTK's trained punkt), and
    has no list of bad words.
    Cost: one pass over the text that writes it, and one to find the words of what stays, which later filters
    share.
    """

    name = "c4"
    writes = (
        "text",
        "c4.n_sentences",
        *(
            f"c4.{count if count == 'n_citations' else count.replace('n_', 'n_lines_', 1)}"
            for count in LineCounts._fields[1:]
        ),
        "c4.n_lines",
    )

    profile: Profile = Field("paper", description="how sentences are counted, and words of a line")
    max_word_length: int = Field(1000, ge=0, description="longest word of a line, in characters; 0 asks not")
    remove_citations: bool = Field(True, description="take out marks such as [1], [edit], [citation needed]")
    require_terminal_punctuation: bool = Field(True, description="keep only lines that end a sentence")
    min_words_per_line: int = Field(3, ge=0, description="fewest words of a line")
    min_sentences: int = Field(5, ge=0, description="fewest sentences of a document")
    max_lines_lorem_ipsum: int | None = Field(0, ge=0, description='most lines with "lorem ipsum"; null: any')
    max_lines_curly_bracket: int | None = Field(0, ge=0, description='most lines with "{"; null: any')

    @property
    def holds_gil(self) -> bool:
        """ICU does while it cuts words."""
        return holds_gil(self.profile)

    def scores(self, table: pa.Table) -> Scores:
        """The columns of `writes`."""
        text = one_chunk(table["text"]).cast(pa.large_string())
        rules = LineRules(
            self.max_word_length,
            self.remove_citations,
            self.require_terminal_punctuation,
            self.min_words_per_line,
        )
        by_icu = self.profile == "icu"
        word_starts = column_words(table["text"], "icu").starts if by_icu else None
        data, offsets, lines, counts = c4_lines(*text_buffers(table["text"]), rules, word_starts)
        if by_icu:
            n_sentences = icu_sentences(data, offsets)
        else:
            english = self.profile == "datatrove"
            words = line_words(table["text"], data, offsets, lines, "english" if english else "whitespace")
            n_sentences = sentences(data, words, english)
        n_lines, *reasons = map(pa.array, counts)
        columns = (pa.array(n_sentences), *reasons, n_lines)
        scores = dict(zip(self.writes[1:], columns, strict=True))
        stays = pc.and_(self.reasons(scores).is_null(), text.is_valid())
        return {"text": pc.if_else(stays, large_strings(data, offsets), text), **scores}

    def rules(self) -> Sequence[Rule]:
        """The document rules, under datatrove's names."""
        return (
            Rule("lorem_ipsum", "c4.n_lines_lorem_ipsum", maximum=self.max_lines_lorem_ipsum),
            Rule("curly_bracket", "c4.n_lines_curly_bracket", maximum=self.max_lines_curly_bracket),
            Rule("too_few_sentences", "c4.n_sentences", minimum=self.min_sentences),
        )

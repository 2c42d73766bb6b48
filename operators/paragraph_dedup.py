"""Removal of paragraphs that earlier documents have said."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from ..kernels.hashing import hash_ranges
from ..kernels.paragraphs import paragraph_ngrams, repeating_paragraphs
from ..kernels.recurring import recurring
from .base import ROW, FitFilter, Rule, Scores
from .rewriting import cut_out, span_lists
from .text_column import integers, one_chunk, text_buffers

WHOLE_PARAGRAPH = 1 << 30
_NEWLINE = 10


class ParagraphDedup(FitFilter):
    """Cut out paragraphs, and drop documents, whose word n-grams occur in earlier ones that stay.

    A paragraph is a line. In the order of the inputs, a paragraph goes if more than `threshold` of its
    n-grams occur in earlier paragraphs that stay, of the same document or another; the document goes as a
    whole, for the reason `repeated_paragraphs`, if more than `threshold` of all its n-grams do. Paragraphs of
    fewer than `min_words` words never go. `ngram: null` compares whole paragraphs, and with `min_words: 1`
    is Dolma's exact rule up to white space.

    `paragraph_dedup.spans` are the bytes of the duplicate paragraphs, start and stop of each in turn, in the
    text as it was; a dropped document keeps its text.

    Source: Li et al. 2024, "DataComp-LM", section 4.3 and appendix L (the Bloom filter BFF, mode "old-both");
    Soldaini et al. 2024, "Dolma", section 5. It departs where BFF makes an answer depend on threads and runs:
    instead of a Bloom filter that all threads fill at once, the occurrences of each n-gram are brought
    together by an exchange, n-grams of the same occurrences become one group, and one pass in the order of
    the inputs applies the rule to the groups. So the answer is the same for any sharding and any number of
    workers, and no n-gram counts as seen that was not (but for 64-bit hashes: one in 10**7 at 10**12
    n-grams). It also withdraws the n-grams of a document that goes as a whole, where BFF would go on removing
    what has no copy left. Words are nearly those of UAX 29 (kernels/paragraphs.py).
    Cost: one pass over the text, 28 bytes per n-gram to exchange where BFF's filter takes about 1.2 bytes of
    memory, and a last pass on one core over the groups: 28 bytes for each paragraph that shares n-grams, more
    where it shares them with several others.
    """

    name = "paragraph_dedup"
    writes = (
        "text",
        "paragraph_dedup.fraction_contained",
        "paragraph_dedup.n_duplicate_paragraphs",
        "paragraph_dedup.spans",
    )

    ngram: int | None = Field(
        13, ge=1, lt=WHOLE_PARAGRAPH, description="words compared; null: whole paragraphs"
    )
    min_words: int = Field(13, ge=1, description="fewest words of a paragraph that may go")
    threshold: float = Field(
        0.8, ge=0, le=1, description="share of n-grams seen before above which a paragraph or document goes"
    )
    exchange_key = "ngram"

    def observe(self, table: pa.Table) -> pa.Table:
        """One row per n-gram: `ngram` uint64, `ROW`, `paragraph` int32 within its document, and how many
        n-grams the paragraph and the document have, int32."""
        found = paragraph_ngrams(*text_buffers(table["text"]), self.ngram or WHOLE_PARAGRAPH, self.min_words)
        n_paragraphs = np.diff(found.offsets)
        per_paragraph = np.diff(found.ngram_offsets)
        document_ngrams = np.diff(found.ngram_offsets[found.offsets])
        within = np.arange(found.offsets[-1]) - np.repeat(found.offsets[:-1], n_paragraphs)

        def of_paragraphs(values: NDArray[np.int64]) -> NDArray[np.int64]:
            return np.repeat(values, per_paragraph)

        return pa.table(
            {
                "ngram": found.ngrams,
                ROW: of_paragraphs(np.repeat(integers(table[ROW]), n_paragraphs)),
                "paragraph": of_paragraphs(within).astype(np.int32),
                "paragraph_ngrams": of_paragraphs(per_paragraph).astype(np.int32),
                "document_ngrams": of_paragraphs(np.repeat(document_ngrams, n_paragraphs)).astype(np.int32),
            }
        )

    def combine(self, observations: pa.Table) -> pa.Table:
        """Who shares n-grams: for each group of n-grams that occur in the same paragraphs (`group` uint64),
        how many of them (`n` int64) occur in each of these."""
        again = recurring(integers(observations["ngram"]))
        columns = {name: integers(observations[name])[again] for name in observations.column_names}
        order = np.lexsort((columns["paragraph"], columns[ROW], columns["ngram"]))
        columns = {name: values[order] for name, values in columns.items()}
        # An n-gram's places, each once, with how often it occurs there.
        first = _changes(columns["ngram"], columns[ROW], columns["paragraph"])
        n = np.diff(np.append(np.flatnonzero(first), len(first)))
        columns = {name: values[first] for name, values in columns.items()}
        places = np.stack([columns[ROW], columns["paragraph"].astype(np.int64), n], axis=1)
        marks = hash_ranges(places.view(np.uint8).ravel(), np.arange(len(places) + 1) * 24)
        starts = np.flatnonzero(_changes(columns["ngram"]))
        n_places = np.diff(np.append(starts, len(marks)))
        group = np.add.reduceat(marks, starts) if len(marks) else marks
        shared = np.repeat(n_places > 1, n_places)
        table = {"group": np.repeat(group, n_places), **columns, "n": n}
        del table["ngram"]
        return self.merge([pa.table(table).filter(pa.array(shared))])

    def merge(self, partials: Sequence[pa.Table]) -> pa.Table:
        """The groups of all partials, their sizes added up."""
        rows = pa.concat_tables(partials)
        keys = [name for name in rows.column_names if name != "n"]
        summed = rows.group_by(keys, use_threads=False).aggregate([("n", "sum")])
        return summed.rename_columns([*keys, "n"]).select(rows.column_names)

    def finish(self, partial: pa.Table) -> pa.Table:
        """One row for each document with n-grams seen before: `row` int64 ascending, `fraction` double of its
        n-grams, and `paragraphs` list<int32>, the duplicate ones."""
        columns = {name: integers(partial[name]) for name in partial.column_names}
        order = np.lexsort((columns["group"], columns["paragraph"], columns[ROW]))
        columns = {name: values[order] for name, values in columns.items()}
        groups = np.unique(columns["group"], return_inverse=True)[1].astype(np.int64)
        paragraphs = np.flatnonzero(_changes(columns[ROW], columns["paragraph"]))
        rows = columns[ROW][paragraphs]
        documents = np.flatnonzero(_changes(rows))
        document_ngrams = columns["document_ngrams"][paragraphs][documents].astype(np.int64)
        repeats, n_contained = repeating_paragraphs(
            np.append(documents, len(rows)),
            document_ngrams,
            np.append(paragraphs, len(order)),
            columns["paragraph_ngrams"][paragraphs].astype(np.int64),
            groups,
            columns["n"],
            self.threshold,
        )
        n_repeats = (
            np.add.reduceat(repeats, documents, dtype=np.int32) if len(rows) else np.empty(0, np.int32)
        )
        duplicates = pa.ListArray.from_arrays(
            pa.array(np.append(np.int32(0), np.cumsum(n_repeats, dtype=np.int32))),
            pa.array(columns["paragraph"][paragraphs][repeats], pa.int32()),
        )
        fraction = n_contained / np.maximum(document_ngrams, 1)
        state = pa.table({"row": rows[documents], "fraction": fraction, "paragraphs": duplicates})
        return state.filter(pa.array(n_contained > 0))

    def scores(self, table: pa.Table, state: pa.Table) -> Scores:
        """The columns of `writes`; of a document without n-grams seen before its text, 0, 0 and no spans."""
        rows, known = integers(table[ROW]), integers(state["row"])
        at = np.searchsorted(known, rows)
        found = np.isin(rows, known)
        fraction = np.zeros(len(table))
        fraction[found] = integers(state["fraction"])[at[found]]
        duplicates = one_chunk(state["paragraphs"].take(pa.array(at[found])))
        n_spans = np.zeros(len(table), np.int64)
        n_spans[found] = np.diff(duplicates.offsets.to_numpy())
        span_offsets = np.append(0, np.cumsum(n_spans))
        starts, stops = _lines(
            *text_buffers(table["text"]), np.repeat(np.arange(len(table)), n_spans), duplicates.flatten()
        )
        stays = fraction <= self.threshold
        cut = np.repeat(stays, n_spans)
        cut_offsets = np.append(0, np.cumsum(np.where(stays, n_spans, 0)))
        columns = (
            cut_out(table["text"], cut_offsets, starts[cut], stops[cut]),
            pa.array(fraction),
            pa.array(n_spans),
            span_lists(span_offsets, starts, stops),
        )
        return dict(zip(self.writes, columns, strict=True))

    def rules(self) -> Sequence[Rule]:
        """A document that mostly repeats others goes as a whole."""
        return (Rule("repeated_paragraphs", "paragraph_dedup.fraction_contained", maximum=self.threshold),)


def _lines(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], documents: NDArray[np.int64], lines: pa.Array
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """int64, (n_lines,) each: where lines start and stop, counted from their document's start."""
    ends = np.flatnonzero(data[offsets[0] : offsets[-1]] == _NEWLINE) + offsets[0] + 1
    first = np.searchsorted(ends, offsets[documents], side="right")
    after = first + lines.to_numpy()  # the end of each line among all ends, if it has one
    borders = np.concatenate([offsets[:1], ends, offsets[-1:]])
    starts = np.maximum(borders[after], offsets[documents])
    stops = np.minimum(borders[after + 1], offsets[documents + 1])
    return starts - offsets[documents], stops - offsets[documents]


def _changes(*columns: NDArray[np.generic]) -> NDArray[np.bool_]:
    """bool, (n_rows,): where a row of sorted columns differs from the one before it."""
    changes = np.ones(len(columns[0]), dtype=bool)
    changes[1:] = np.any([column[1:] != column[:-1] for column in columns], axis=0)
    return changes

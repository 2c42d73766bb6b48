"""Removal of documents that hold evaluation items."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, ValidationInfo, field_validator

from ..kernels.ngram_index import find_ngrams, ngram_hashes_at
from ..kernels.shingles import word_hashes, word_spans
from .base import FitFilter, Rule, Scores
from .cut_windows import cut_windows
from .eval_index import EvalIndex, eval_index
from .files import FilePath, check_readable, content_hash
from .text_column import integers, one_chunk, text_buffers


class Decontaminate(FitFilter):
    """Drop documents that share word n-grams with evaluation sets, or cut those out; name item and place.

    An evaluation set is a JSONL file. An item is its `fields` one after another; in documents it is looked
    for by its n-grams of `n` words, and one of fewer words as a whole. Words are runs of letters and digits
    in lowercase, so punctuation and white space do not matter.

    By default one common n-gram is enough. Other rules of the field: PaLM, ``n: 8, max_ngrams: null,
    max_item_fraction: 0.7``; a common run of 32 words (MassiveDS), ``max_ngrams: null, max_overlap_words:
    31``; GPT-3 ignores n-grams of more than ten documents, ``max_docs_per_ngram: 10`` (phrases that
    everybody quotes, but also items that leaked to many places: deduplicate first).

    With `cut_characters` a document loses its common runs of words, and so many characters on either side,
    instead of being dropped. What stands between two cuts goes, too, if it is shorter than
    `min_piece_characters`; a document cut more than `max_cuts` times, or of which nothing is left, is
    dropped and keeps its text. GPT-3's rule is ``cut_characters: 200, max_ngrams: null,
    max_docs_per_ngram: 10``; other rules hold beside it.

    `start` and `stop` are characters of the text as it came. The state of the fit says for each n-gram found
    in how many documents it stands.

    Source: Brown et al. 2020 (GPT-3), appendix C; it departs in cutting words at all punctuation, in a fixed
    `n`, and in what is cut: pieces stay one document, joined by newlines. Cost: two hashes for each word.
    """

    name = "decontaminate"
    version = 2
    writes = (
        "text",
        *(
            f"decontaminate.{score}"
            for score in (
                "n_ngrams",
                "overlap_words",
                "item",
                "item_fraction",
                "start",
                "stop",
                "n_cuts",
                "n_pieces",
            )
        ),
    )

    paths: list[FilePath] = Field(min_length=1, description="JSONL files of evaluation items")
    fields: list[str] = Field(["text", "answer"], min_length=1, description="what of an item is looked for")
    n: int = Field(13, ge=1, le=64, description="words in an n-gram")
    min_item_words: int = Field(8, ge=1, description="shorter items are not looked for")
    max_docs_per_ngram: int | None = Field(
        None, ge=1, description="an n-gram of more documents counts as nobody's; null: each counts"
    )
    max_ngrams: int | None = Field(0, ge=0, description="most n-grams that may be common; null: any number")
    max_overlap_words: int | None = Field(None, ge=0, description="longest run of words that may be common")
    max_item_fraction: float | None = Field(
        None, ge=0, le=1, description="largest share of one item's n-grams that may be common"
    )
    cut_characters: int | None = Field(
        None, ge=0, description="cut common runs and so many characters on either side; null: cut nothing"
    )
    min_piece_characters: int = Field(200, ge=0, description="a shorter piece between cuts goes, too")
    max_cuts: int | None = Field(10, ge=0, description="most cuts of a document; null: any number")

    @field_validator("cut_characters")
    @classmethod
    def _check_cut(cls, cut_characters: int | None, info: ValidationInfo) -> int | None:
        if cut_characters is not None and info.data.get("max_ngrams") == 0:
            raise ValueError(
                "max_ngrams is 0, which drops each document that would be cut; write 'max_ngrams: null'"
            )
        return cut_characters

    @field_validator("paths")
    @classmethod
    def _check_files(cls, paths: list[str]) -> list[str]:
        check_readable(paths)
        return paths

    def identity(self) -> dict[str, Any]:
        """The parameters, with the files' contents for their paths."""
        return self.model_dump(mode="json") | {"paths": [content_hash(path) for path in self.paths]}

    def observe(self, table: pa.Table) -> pa.Table:
        """(ngram uint64, n_docs int64): in how many documents each n-gram of an item stands."""
        index = self._index()
        hits = _hits(index, table["text"], self.n, self.min_item_words)
        seen = np.unique(np.stack([hits.doc.astype(np.uint64), hits.ngram], axis=1), axis=0)
        ngrams, n_docs = np.unique(seen[:, 1], return_counts=True)
        return pa.table({"ngram": ngrams, "n_docs": n_docs.astype(np.int64)})

    def merge(self, partials: Sequence[pa.Table]) -> pa.Table:
        """The sums of the counts, by n-gram."""
        summed = pa.concat_tables(partials).group_by("ngram").aggregate([("n_docs", "sum")])
        return pa.table({"ngram": summed["ngram"], "n_docs": summed["n_docs_sum"]})

    def finish(self, partial: pa.Table) -> pa.Table:
        """The counts, n-grams ascending."""
        return partial.sort_by("ngram").combine_chunks()

    def scores(self, table: pa.Table, state: pa.Table) -> Scores:
        """Of each document: its text, cut if it is to be; how many of its n-grams are an item's, the words of
        their longest run, the item of which it holds the largest share, that share, where the longest run
        begins and ends in characters, how often it was cut, and in how many pieces."""
        index = self._index()
        hits = _hits(index, table["text"], self.n, self.min_item_words)
        if self.max_docs_per_ngram is not None:
            frequent = state.filter(pc.greater(state["n_docs"], self.max_docs_per_ngram))
            hits = hits.without(integers(frequent["ngram"]))
        n_docs = len(table)
        item, fraction = _best_items(index, hits, n_docs)
        runs = _runs(hits)
        start, stop, n_words = _longest_runs(runs, n_docs)
        found = stop > 0
        text = one_chunk(table["text"])
        n_cuts, n_pieces = np.zeros(n_docs, np.int64), np.ones(n_docs, np.int64)
        cut: dict[int, str] = {}  # by row, ascending
        bounds = np.searchsorted(runs.doc, np.arange(n_docs + 1))
        for row in np.flatnonzero(found).tolist():
            words = word_spans(whole := text[row].as_py())
            start[row], stop[row] = words[start[row]][0], words[stop[row] - 1][1]
            if self.cut_characters is not None:
                of_row = range(bounds[row], bounds[row + 1])
                spans = [(words[runs.start[i]][0], words[runs.stop[i] - 1][1]) for i in of_row]
                left = cut_windows(whole, spans, self.cut_characters, self.min_piece_characters)
                cut[row], n_cuts[row], n_pieces[row] = left.text, left.n_cuts, left.n_pieces
        names = pa.array(index.names, pa.string())
        columns = (
            pa.array(np.bincount(hits.doc, minlength=n_docs).astype(np.int64)),
            pa.array(n_words),
            names.take(pa.array(item, pa.int64(), mask=~found)),
            pa.array(fraction),
            pa.array(start, mask=~found),
            pa.array(stop, mask=~found),
            pa.array(n_cuts),
            pa.array(n_pieces),
        )
        scores = dict(zip(self.writes[1:], columns, strict=True))
        stays = self.reasons(scores).is_null()
        left_of = {row: left for row, left in cut.items() if stays[row].as_py()}
        return {"text": _replaced(text, left_of), **scores}

    def rules(self) -> Sequence[Rule]:
        """Those on n-grams that have a threshold, then those on what cutting leaves."""
        n_ngrams, overlap_words, _, item_fraction, _, _, n_cuts, n_pieces = self.writes[1:]
        rules = [
            Rule("common_ngrams", n_ngrams, maximum=self.max_ngrams),
            Rule("long_overlap", overlap_words, maximum=self.max_overlap_words),
            Rule("item_fraction", item_fraction, maximum=self.max_item_fraction),
        ]
        if self.cut_characters is not None:
            rules += [
                Rule("too_many_cuts", n_cuts, maximum=self.max_cuts),
                Rule("nothing_left", n_pieces, minimum=1),
            ]
        return [rule for rule in rules if rule.maximum is not None or rule.minimum is not None]

    @property
    def rewrites_text(self) -> bool:
        """Only if it cuts."""
        return self.cut_characters is not None

    def _index(self) -> EvalIndex:
        return eval_index(tuple(self.paths), tuple(self.fields), self.n, self.min_item_words)


@dataclass(frozen=True)
class _Hits:
    """N-grams of items in documents, by length, then in the documents' order.

    doc: int64, (n_hits,), the row. first, n: int64, (n_hits,), which word of the document the n-gram
    begins with, and its words. length, key: int64, (n_hits,), where it stands in the index. ngram: uint64,
    (n_hits,).
    """

    doc: NDArray[np.int64]
    first: NDArray[np.int64]
    n: NDArray[np.int64]
    length: NDArray[np.int64]
    key: NDArray[np.int64]
    ngram: NDArray[np.uint64]

    def without(self, ngrams: NDArray[np.uint64]) -> "_Hits":
        """The hits of other n-grams."""
        keep = ~np.isin(self.ngram, ngrams)
        return _Hits(*(getattr(self, name)[keep] for name in self.__dataclass_fields__))


def _hits(index: EvalIndex, text: pa.ChunkedArray, n: int, min_item_words: int) -> _Hits:
    words, word_offsets = word_hashes(*text_buffers(text))
    heads, _ = find_ngrams(words, word_offsets, min_item_words, index.heads)
    ends = word_offsets[np.searchsorted(word_offsets, heads, side="right")]
    columns: list[tuple[NDArray[Any], ...]] = []
    for i, known in enumerate(index.lengths):
        if known.n == n:
            position, key = find_ngrams(words, word_offsets, n, known.keys)
        else:
            position = heads[heads + known.n <= ends]
            hashes = ngram_hashes_at(words, position, known.n)
            key = np.minimum(np.searchsorted(known.keys, hashes), len(known.keys) - 1)
            is_hit = known.keys[key] == hashes
            position, key = position[is_hit], key[is_hit]
        doc = np.searchsorted(word_offsets, position, side="right") - 1
        first = position - word_offsets[doc]
        columns.append((doc, first, np.full_like(doc, known.n), np.full_like(doc, i), key, known.keys[key]))
    if not columns:
        none = np.empty(0, np.int64)
        return _Hits(none, none, none, none, none, none.astype(np.uint64))
    return _Hits(*map(np.concatenate, zip(*columns, strict=True)))


def _best_items(index: EvalIndex, hits: _Hits, n_docs: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(item, share of its n-grams) of each document: the largest share, ties to the first item; or 0, 0."""
    docs, items = [], []
    for i, known in enumerate(index.lengths):
        of_length = hits.length == i
        seen = np.unique(np.stack([hits.doc[of_length], hits.key[of_length]], axis=1), axis=0)
        n_items = known.item_offsets[seen[:, 1] + 1] - known.item_offsets[seen[:, 1]]
        begin = np.repeat(known.item_offsets[seen[:, 1]], n_items)
        within = np.arange(len(begin)) - np.repeat(np.cumsum(n_items) - n_items, n_items)
        docs.append(np.repeat(seen[:, 0], n_items))
        items.append(known.items[begin + within])
    pairs = np.stack([np.concatenate([*docs, []]), np.concatenate([*items, []])], axis=1).astype(np.int64)
    pairs, counts = np.unique(pairs, axis=0, return_counts=True)
    fraction = counts / np.maximum(index.n_ngrams[pairs[:, 1]], 1)
    order = np.lexsort((pairs[:, 1], -fraction, pairs[:, 0]))
    doc, first = np.unique(pairs[order, 0], return_index=True)
    best, share = np.zeros(n_docs, np.int64), np.zeros(n_docs)
    best[doc], share[doc] = pairs[order[first], 1], fraction[order[first]]
    return best, share


class _Runs(NamedTuple):
    """Words of documents that belong to common n-grams: int64, (n_runs,) each, by document, then by place."""

    doc: NDArray[np.int64]
    start: NDArray[np.int64]  # the first word
    stop: NDArray[np.int64]  # the word behind the last


def _runs(hits: _Hits) -> _Runs:
    if not len(hits.doc):
        return _Runs(*(np.empty(0, np.int64) for _ in range(3)))
    order = np.lexsort((hits.n, hits.first, hits.doc))
    doc, first, stop = hits.doc[order], hits.first[order], (hits.first + hits.n)[order]
    starts = np.ones(len(doc), dtype=bool)
    # Words of two n-grams belong to one run if nothing else stands between them and they overlap or touch.
    reach = _running_maximum(doc, stop)
    starts[1:] = (doc[1:] != doc[:-1]) | (first[1:] > reach[:-1])
    begin = np.flatnonzero(starts)
    end = np.append(begin[1:], len(doc)) - 1
    return _Runs(doc[begin], first[begin], reach[end])


def _longest_runs(runs: _Runs, n_docs: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(first word, word behind the last, words) of each document's longest run, ties to the first; or 0s."""
    by_length = np.lexsort((runs.start, runs.start - runs.stop, runs.doc))
    docs, at = np.unique(runs.doc[by_length], return_index=True)
    best = by_length[at]
    start, behind = np.zeros(n_docs, np.int64), np.zeros(n_docs, np.int64)
    start[docs], behind[docs] = runs.start[best], runs.stop[best]
    return start, behind, behind - start


def _replaced(text: pa.Array, others: Mapping[int, str]) -> pa.Array:
    """`text` with other values in some rows, ascending."""
    if not others:
        return text
    mask = np.zeros(len(text), dtype=bool)
    mask[list(others)] = True
    return pc.replace_with_mask(text, pa.array(mask), pa.array(others.values(), text.type))


def _running_maximum(doc: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.int64]:
    """The largest `stop` so far within each document."""
    span = int(stop.max(initial=0)) + 1
    return np.maximum.accumulate(doc * span + stop) - doc * span

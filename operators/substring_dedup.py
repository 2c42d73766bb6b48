"""Removal of long passages that occur elsewhere, wherever they begin."""

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ..kernels.recurring import recurring
from ..kernels.spans import narrow_spans
from ..kernels.substrings import AGAIN, FIRST, repeated_windows, window_runs
from .base import ROW, FitFilter, Rule, Scores, refusal
from .files import FilePath, content_hash
from .rewriting import cut_out, span_lists
from .substring_units import (
    Units,
    as_bytes,
    as_column,
    bytes_of,
    check_tokenizer,
    from_column,
    tokens_of,
    words_of,
)
from .text_column import integers, text_buffers

MAX_KGRAM = 32
MAX_KGRAM_TOKENS = 8
_BINARY = pa.large_binary()


class SubstringDedup(FitFilter):
    """Cut out every passage of `min_bytes` or more that occurs in an earlier document, or earlier in its own.

    With `min_tokens`, passages are counted in words between white space, whatever white space that is, or in
    the tokens of the `tokenizer` in a file. What follows holds for tokens as it does for bytes; white space
    goes where the words on both its sides do.

    Exact: a byte goes if and only if it lies in a window of `min_bytes` bytes that, byte by byte, occurred
    before it in the order of the inputs (with `keep: none`: that occurs anywhere else). So each byte that
    goes has a copy that stays, in the same surroundings. What goes is then narrowed to whole characters, or
    words (`borders`). A text that a passage was cut out of may hold new repetitions across the seam; nothing
    looks for these. A document of which fewer than `min_bytes_left` bytes remain is dropped for the reason
    `nothing_left` and keeps its text.

    `substring_dedup.spans` are the bytes cut out, start and stop of each in turn, in the text as it was.

    Source: Lee et al. 2022, "Deduplicating Training Data Makes Language Models Better", section 4.1. It
    departs in keeping the first occurrence, where the authors' scripts remove all, in the borders, in 100
    bytes of text unless their 50 tokens are asked for, and in the method: no suffix array, but text exchanged
    by the smallest hash of its windows (kernels/substrings.py), which finds the same and needs no machine
    that holds all text.
    Cost: one pass over the text, about 5 bytes to exchange for each byte of text; linear, whatever repeats.
    """

    name = "substring_dedup"
    writes = (
        "text",
        "substring_dedup.n_bytes_removed",
        "substring_dedup.n_bytes_left",
        "substring_dedup.spans",
    )
    exchange_key = "key"

    min_bytes: int = Field(100, ge=8, le=1 << 20, description="shortest passage, in bytes of UTF-8")
    min_tokens: int | None = Field(
        None, ge=4, le=1 << 16, description="shortest passage in tokens, in place of `min_bytes`"
    )
    tokenizer: FilePath | None = Field(
        None, description="a tokenizer.json whose tokens are counted; null: words between white space"
    )
    keep: Literal["first", "none"] = Field(
        "first", description="whether the first occurrence of a passage stays"
    )
    borders: Literal["character", "word"] = Field("word", description="what no cut may split")
    min_bytes_left: int = Field(1, ge=0, description="fewest bytes of a document that a cut may leave")

    @model_validator(mode="after")
    def _one_unit(self) -> Self:
        if self.min_tokens is not None and "min_bytes" in self.model_fields_set:
            raise refusal("min_bytes and min_tokens are two units of one length: give one of them")
        if self.tokenizer is not None:
            if self.min_tokens is None:
                raise refusal("tokenizer says what min_tokens counts: give min_tokens, or leave it out")
            check_tokenizer(self.tokenizer)
        return self

    def identity(self) -> dict[str, Any]:
        """The parameters, the tokenizer by what its file holds."""
        identity = super().identity()
        return identity if self.tokenizer is None else identity | {"tokenizer": content_hash(self.tokenizer)}

    @property
    def _length(self) -> int:
        return self.min_bytes if self.min_tokens is None else self.min_tokens

    @property
    def _kgram(self) -> int:
        # Long k-grams are rare, so few windows that differ share a key; short ones make longer runs and fewer
        # bytes to exchange.
        return min(self._length // 3, MAX_KGRAM if self.min_tokens is None else MAX_KGRAM_TOKENS)

    def _units(self, column: pa.ChunkedArray) -> Units:
        if self.min_tokens is None:
            return bytes_of(column)
        return words_of(column) if self.tokenizer is None else tokens_of(column, self.tokenizer)

    @property
    def _goes(self) -> int:
        """The least occurrence of a window that is cut out."""
        return AGAIN if self.keep == "first" else FIRST

    def observe(self, table: pa.Table) -> pa.Table:
        """Pieces of text: `key` uint64, `ROW`, `start` and `stop` int64 in units of the row, `text`.

        What is known to repeat within the shard is said once: its later occurrences have no text, as they go
        whatever other shards hold.
        """
        table = table.take(np.argsort(integers(table[ROW]), kind="stable"))
        units = self._units(table["text"])
        runs = window_runs(units.values, units.offsets, self._length, self._kgram)
        may_repeat = runs.repeats | recurring(runs.keys)
        alone = np.flatnonzero(~may_repeat)
        others = np.flatnonzero(may_repeat)
        others = others[np.argsort(runs.keys[others], kind="stable")]
        n_windows = runs.n_windows[others]
        occurs = repeated_windows(
            units.values, runs.keys[others], runs.starts[others], n_windows, self._length
        )

        def table_of(pieces: NDArray[np.int64], with_text: bool) -> pa.Table:
            run, at, n = pieces.T
            begin, lengths = runs.starts[run] + at, n + self._length - 1
            rows, first = integers(table[ROW])[runs.documents[run]], units.offsets[runs.documents[run]]
            text = as_column(units, begin, lengths) if with_text else pa.nulls(len(run), _BINARY)
            columns = {"start": begin - first, "stop": begin - first + lengths, "text": text}
            return pa.table({"key": runs.keys[run], ROW: rows, **columns})

        whole = np.stack([alone, np.zeros_like(alone), runs.n_windows[alone]], axis=1)
        new = np.concatenate([whole, _pieces(occurs != AGAIN, n_windows, others)])
        known = _pieces(occurs >= self._goes, n_windows, others)
        return pa.concat_tables([table_of(new, True), table_of(known, False)])

    def combine(self, observations: pa.Table) -> pa.Table:
        """The units that go, as far as these keys tell: `ROW`, `start`, `stop`, int64."""
        has_text = observations["text"].is_valid()
        known = observations.filter(pc.invert(has_text))
        sent = observations.filter(has_text)
        sent = sent.filter(pa.array(recurring(integers(sent["key"]))))
        data, offsets = from_column(sent["text"], self.min_tokens is None)
        keys, rows, starts = (integers(sent[name]) for name in ("key", ROW, "start"))
        order = np.lexsort((starts, rows, keys))
        n_windows = np.diff(offsets)[order] - self._length + 1
        occurs = repeated_windows(data, keys[order], offsets[:-1][order], n_windows, self._length)
        piece, at, n = _pieces(occurs >= self._goes, n_windows, order).T
        begin = starts[piece] + at
        found = {ROW: rows[piece], "start": begin, "stop": begin + n + self._length - 1}
        return self.merge([known.select([ROW, "start", "stop"]), pa.table(found)])

    def merge(self, partials: Sequence[pa.Table]) -> pa.Table:
        """The union of the spans, in order."""
        rows, starts, stops = (
            np.concatenate([integers(partial[name]) for partial in partials])
            for name in (ROW, "start", "stop")
        )
        order = np.lexsort((starts, rows))
        rows, starts, stops = rows[order], starts[order], stops[order]
        # Shifted so far that each row lies behind the one before it, spans of all rows are one line.
        document = np.cumsum(np.append(True, rows[1:] != rows[:-1])[: len(rows)])
        shift = document * (int(stops.max(initial=0)) + 1)
        reached = np.maximum.accumulate(stops + shift)
        opens = np.append(True, (starts + shift)[1:] > reached[:-1])[: len(rows)]
        first = np.flatnonzero(opens)
        last = np.append(first[1:], len(rows))[: len(first)] - 1
        return pa.table({ROW: rows[first], "start": starts[first], "stop": (reached - shift)[last]})

    def finish(self, partial: pa.Table) -> pa.Table:
        """The units that go: `ROW`, `start`, `stop`, int64, ascending and apart from each other."""
        return partial

    def scores(self, table: pa.Table, state: pa.Table) -> Scores:
        """The columns of `writes`; `n_bytes_left` is null where nothing was cut out."""
        data, offsets = text_buffers(table["text"])
        rows, known = integers(table[ROW]), integers(state[ROW])
        first = np.searchsorted(known, rows, side="left")
        n_spans = np.searchsorted(known, rows, side="right") - first
        span_offsets = np.append(0, np.cumsum(n_spans))
        at = np.arange(span_offsets[-1]) + np.repeat(first - span_offsets[:-1], n_spans)
        starts, stops = integers(state["start"])[at], integers(state["stop"])[at]
        documents = np.repeat(np.arange(len(rows)), n_spans)
        if self.min_tokens is not None:
            has_spans = n_spans > 0
            cut = table["text"].filter(pa.array(has_spans))
            which = (np.cumsum(has_spans) - 1)[documents]
            starts, stops = as_bytes(self._units(cut), text_buffers(cut)[1], which, starts, stops)
        starts, stops = narrow_spans(data, offsets, span_offsets, starts, stops, self.borders == "word")
        documents = documents[stops > starts]
        starts, stops = starts[stops > starts], stops[stops > starts]
        n_spans = np.bincount(documents, minlength=len(rows))
        n_removed = np.bincount(documents, stops - starts, minlength=len(rows)).astype(np.int64)
        n_left = np.diff(offsets) - n_removed
        stays = n_left >= self.min_bytes_left
        is_cut = stays[documents]
        columns = (
            cut_out(table["text"], _offsets(np.where(stays, n_spans, 0)), starts[is_cut], stops[is_cut]),
            pa.array(n_removed),
            pa.array(n_left, mask=n_removed == 0),
            span_lists(_offsets(n_spans), starts, stops),
        )
        return dict(zip(self.writes, columns, strict=True))

    def rules(self) -> Sequence[Rule]:
        """A document of which a cut leaves too little goes as a whole."""
        return (Rule("nothing_left", "substring_dedup.n_bytes_left", minimum=self.min_bytes_left),)


def _pieces(
    mask: NDArray[np.bool_], n_windows: NDArray[np.int64], names: NDArray[np.int64]
) -> NDArray[np.int64]:
    """int64, (n_pieces, 3): the longest stretches of each run's windows where `mask` holds: the name of the
    run, the first window counted within the run, and how many."""
    run = np.repeat(np.arange(len(n_windows)), n_windows)[mask]
    window = np.flatnonzero(mask)
    opens = np.append(True, (run[1:] != run[:-1]) | (window[1:] != window[:-1] + 1))[: len(run)]
    first = np.flatnonzero(opens)
    n = np.diff(np.append(first, len(run)))
    return np.stack([names[run[first]], window[first] - _offsets(n_windows)[run[first]], n], axis=1)


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.append(0, np.cumsum(lengths))

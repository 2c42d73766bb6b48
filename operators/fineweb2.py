"""FineWeb2's filters, with thresholds and stop words of each language."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, field_validator

from ..kernels.gather_words import words_of
from ..kernels.hashing import hash_ranges
from ..kernels.text_statistics import word_statistics
from .base import FitFilter, Rule, Scores
from .files import FilePath, content_hash
from .fineweb import Fineweb
from .gopher_quality import GopherQuality
from .gopher_repetition import GopherRepetition
from .language_thresholds import (
    ANY,
    CONFIDENCE,
    LIMITS,
    METRICS,
    LanguageRow,
    Method,
    derive,
    read_table,
    rows_of,
    table_of,
    to_yaml,
)
from .text_column import one_chunk, text_buffers
from .word_pass import SEGMENTATION, Profile, column_words, holds_gil

TABLE = "languages.yaml"
_WORDS_PER_DOCUMENT = 200
# Metric of ours -> column of the filter that measures it.
_REPETITION = {
    "n_characters": "gopher_repetition.n_characters",
    **{m: f"gopher_repetition.{m}" for m in METRICS if m.startswith(("fraction_dup", "fraction_char"))},
}
_FINEWEB = {
    name: f"fineweb.{name}"
    for name in (
        "fraction_lines_with_punctuation",
        "fraction_characters_duplicate_lines",
        "newlines_per_word",
    )
}
_QUALITY = {
    name: f"gopher_quality.{name}"
    for name in (
        "n_words",
        "mean_word_length",
        "hashes_per_word",
        "ellipses_per_word",
        "fraction_bullet_lines",
        "fraction_ellipsis_lines",
        "fraction_alpha_words",
    )
}
_MEASURED = (*_REPETITION, *_FINEWEB, *_QUALITY)


_STATE = pa.schema(
    {
        "language": pa.string(),
        "n_documents": pa.int64(),
        "script": pa.string(),
        "weight": pa.float64(),
        "stop_words": pa.list_(pa.string()),
    }
    | {limit.name: pa.float64() for limit in (*LIMITS, CONFIDENCE)}
)


def _margin(name: str) -> str:
    return f"fineweb2.margin_{name}"


class Fineweb2(FitFilter):
    """Drop documents that are unlike the prose of their own language: thresholds and stop words by language.

    The first look at the corpus takes `sample` documents of each language (column `lang`), measures what
    Gopher's repetition and quality rules and FineWeb's rules compare, and derives a threshold for each
    language from that of `reference_language` by `method`:

    - `quantile`: drop the same share as of the reference; needs documents of it.
    - `mean_std`: as many standard deviations from the mean. `median_ratio`: in proportion to the medians.
    - `tail`: drop the worst tenth of each language, for each rule. `english`: the papers' thresholds.

    A threshold of n documents has weight n / (n + `prior_documents`) beside the one of all documents of the
    same script, so small languages borrow from their neighbours; but it keeps the median of a language's own
    documents, and none leaves a sane range. Stop words are a language's most frequent words (more than 0.8 %,
    0.3 % or 0.2 % of all), without English ones.

    The run directory holds the table as `fit/languages.yaml` beside the stage. Review it, and pin it with
    `table`: then nothing is derived. Languages that it does not name have its entry `*`, or the papers'
    thresholds and no stop words.

    For each adapted threshold the column `margin_...` says how far inside a document is; below 0 it is
    dropped. Short lines, duplicate paragraphs and C4's rules are not asked, as in FineWeb2.

    Source: Penedo et al. 2025, "FineWeb2", and its released configurations; it departs in the weights,
    medians and ranges, in sampling the corpus itself, and in one segmenter for all languages. Cost: that of
    `gopher_repetition`, `fineweb` and `gopher_quality`; of the sample, 2 kB for each document.
    """

    name = "fineweb2"
    version = 2
    reads = ("id", "text", "lang")
    writes = (
        *(f"fineweb2.{name}" for name in (*_MEASURED, "n_stop_words", "confidence")),
        *(_margin(limit.name) for limit in (*LIMITS, CONFIDENCE)),
    )

    profile: Profile = Field("icu", validate_default=True, description="what a word is")
    method: Method = Field("quantile", description="how thresholds are carried over to a language")
    reference_language: str = Field("en", description="the language for which the papers' thresholds hold")
    table: FilePath | None = Field(None, description="a reviewed table; nothing is derived then")
    confidence: str | None = Field(
        "language.confidence", description="column with the confidence of the language; null: do not ask"
    )
    sample: int = Field(4_000, ge=1, description="documents of each language that thresholds come from")
    prior_documents: float = Field(50, ge=0, description="documents that the script's threshold weighs")
    min_documents: int = Field(30, ge=1, description="fewest documents to derive stop words, or compare with")
    seed: int = Field(0, ge=0, description="draws the sample")
    min_words: int = Field(50, ge=0, description="fewest words of a document")
    max_words: int = Field(100_000, ge=1, description="most words of a document")
    max_hashes_per_word: float = Field(0.1, ge=0, description='most "#" for each word')
    max_ellipses_per_word: float = Field(0.1, ge=0, description="most ellipses for each word")
    max_fraction_bullet_lines: float = Field(0.9, ge=0, le=1, description="largest share of bullet lines")
    max_fraction_ellipsis_lines: float = Field(
        0.3, ge=0, le=1, description="largest share of lines that end in an ellipsis"
    )
    max_fraction_characters_duplicate_lines: float = Field(
        0.1, ge=0, description="largest share of characters in duplicates of lines"
    )
    min_stop_words: int = Field(2, ge=0, description="fewest different stop words, where there are any")

    @field_validator("table")
    @classmethod
    def _check_table(cls, table: str | None) -> str | None:
        if table is not None:
            read_table(table)
        return table

    @classmethod
    def columns_read(cls, parameters: Mapping[str, Any]) -> tuple[str, ...]:
        """With the column of the confidence, if one is asked."""
        column = parameters.get("confidence", cls.model_fields["confidence"].default)
        return (*cls.reads, *([column] if column else []))

    @property
    def holds_gil(self) -> bool:
        """ICU does while it cuts words."""
        return holds_gil(self.profile)

    def identity(self) -> dict[str, Any]:
        """The parameters, with the table's content for its path."""
        content = {} if self.table is None else {"table": content_hash(self.table)}
        return self.model_dump(mode="json") | content

    def observe(self, table: pa.Table) -> pa.Table:
        """The sampled documents: language, hashes that order them, the metrics, and some words of each."""
        language = one_chunk(table["lang"]).cast(pa.string())
        hashes = {
            "key": hash_ranges(*text_buffers(table["id"]), seed=self.seed),
            "check": hash_ranges(*text_buffers(table["text"]), seed=self.seed),
        }
        keyed = pa.table({"language": language, **hashes, "row": np.arange(len(table))})
        if self.table is not None:
            keyed = keyed.slice(0, 0)  # a pinned table needs no sample
        chosen = self._sampled(keyed.filter(pc.is_valid(keyed["language"])))
        documents = table.take(chosen["row"])
        measured = self._measure(documents)
        columns = {name: chosen[name] for name in ("language", *hashes)}
        columns |= {name: measured[name].cast(pa.float64()) for name in METRICS}
        return pa.table({**columns, "words": self._some_words(documents)})

    def merge(self, partials: Sequence[pa.Table]) -> pa.Table:
        """The sample of all partials' documents."""
        return self._sampled(pa.concat_tables(partials))

    def _sampled(self, keyed: pa.Table) -> pa.Table:
        """The `sample` rows of each language with the smallest hashes, in order."""
        keyed = keyed.sort_by([(name, "ascending") for name in ("language", "key", "check")])
        languages = one_chunk(keyed["language"]).dictionary_encode().indices.to_numpy(zero_copy_only=False)
        rank = np.arange(len(languages)) - np.searchsorted(languages, languages)
        return keyed.filter(pa.array(rank < self.sample)).combine_chunks()

    def finish(self, partial: pa.Table) -> pa.Table:
        """One row for each language: its thresholds, stop words, script, documents and their weight.

        Raises:
            UnsuitableDataError: the method needs documents of the reference language, and there are too few.
        """
        return pa.table(rows_of(self._table(partial)), schema=_STATE)

    def _table(self, partial: pa.Table) -> dict[str, LanguageRow]:
        if self.table is not None:
            return read_table(self.table)
        values, words = {}, {}
        for language in pc.unique(partial["language"]).to_pylist():
            documents = partial.filter(pc.equal(partial["language"], language))
            values[language] = {
                name: documents[name].to_numpy().astype(np.float64, copy=False) for name in METRICS
            }
            counts = pc.value_counts(pc.list_flatten(documents["words"])).to_pylist()
            words[language] = Counter({entry["values"]: entry["counts"] for entry in counts})
        settings = (self.method, self.reference_language, self.prior_documents, self.min_documents)
        return derive(values, words, *settings)

    def review(self, state: pa.Table) -> dict[str, str]:
        """The table for people, as it can be pinned."""
        heading = (
            f"Thresholds by language, method {self.method}, reference {self.reference_language}, at most",
            f"{self.sample} documents of each language. Review, keep beside the recipe, and pin with",
            f"'fineweb2: {{table: {TABLE}}}'. weight: what a language's own documents count beside those",
            "of its script.",
        )
        return {TABLE: to_yaml(table_of(state.to_pydict()), heading)}

    def scores(self, table: pa.Table, state: pa.Table) -> Scores:
        """The columns of `writes`: metrics, null where there is nothing to measure, and margins."""
        rows = table_of(state.to_pydict())
        names = list(rows)
        code_of = {name: code for code, name in enumerate(names)}
        languages = table["lang"].cast(pa.string()).to_pylist()
        codes = np.array([code_of.get(language, code_of[ANY]) for language in languages], np.int64)
        measured = self._measure(table)
        stop_words = [rows[name].stop_words for name in names]
        columns = [*(measured[name] for name in _MEASURED), self._n_stop_words(table, codes, stop_words)]
        columns.append(measured[CONFIDENCE.metric])
        for limit in (*LIMITS, CONFIDENCE):
            of_language = np.array([rows[name].thresholds.get(limit.name, np.nan) for name in names])
            value = measured[limit.metric].cast(pa.float64())
            inside = pc.subtract(pa.array(of_language[codes]), value)
            columns.append(inside if limit.is_maximum else pc.negate(inside))
        return dict(zip(self.writes, columns, strict=True))

    def rules(self) -> Sequence[Rule]:
        """In FineWeb2's order: the language, repetition, FineWeb's rules, Gopher's quality."""
        adapted = {limit.reason: Rule(limit.reason, _margin(limit.name), minimum=0.0) for limit in LIMITS}
        repetition, fineweb, quality = LIMITS[:10], LIMITS[10:12], LIMITS[12:]

        def at_most(reason: str, metric: str, maximum: float) -> Rule:
            return Rule(reason, f"fineweb2.{metric}", maximum=maximum)

        duplicate = self.max_fraction_characters_duplicate_lines
        return (
            Rule(CONFIDENCE.reason, _margin(CONFIDENCE.name), minimum=0.0),
            Rule("empty", "fineweb2.n_characters", minimum=1),
            *(adapted[limit.reason] for limit in repetition),
            adapted[fineweb[0].reason],
            at_most("char_dup_ratio", "fraction_characters_duplicate_lines", duplicate),
            adapted[fineweb[1].reason],
            Rule("gopher_short_doc", "fineweb2.n_words", minimum=self.min_words),
            Rule("gopher_long_doc", "fineweb2.n_words", maximum=self.max_words),
            adapted[quality[0].reason],
            adapted[quality[1].reason],
            at_most("gopher_too_many_hashes", "hashes_per_word", self.max_hashes_per_word),
            at_most("gopher_too_many_ellipsis", "ellipses_per_word", self.max_ellipses_per_word),
            at_most("gopher_too_many_bullets", "fraction_bullet_lines", self.max_fraction_bullet_lines),
            at_most(
                "gopher_too_many_end_ellipsis", "fraction_ellipsis_lines", self.max_fraction_ellipsis_lines
            ),
            adapted[quality[2].reason],
            Rule("gopher_enough_stop_words", "fineweb2.n_stop_words", minimum=self.min_stop_words),
        )

    def _measure(self, table: pa.Table) -> dict[str, pa.Array]:
        """Every metric but the stop words."""
        found: dict[str, pa.Array] = {}
        for metrics, operator in (
            (_REPETITION, GopherRepetition(profile=self.profile)),
            (_FINEWEB, Fineweb(profile=self.profile)),
            (_QUALITY, GopherQuality(profile=self.profile, stop_words=[])),
        ):
            scores = operator.scores(table)
            found |= {name: scores[column] for name, column in metrics.items()}
        missing = pa.nulls(len(table), pa.float64())
        confidence = missing if self.confidence is None else one_chunk(table[self.confidence])
        return found | {CONFIDENCE.metric: confidence.cast(pa.float64())}

    def _n_stop_words(
        self, table: pa.Table, codes: NDArray[np.int64], stop_words: Sequence[list[str]]
    ) -> pa.Array:
        """int64: how many of its language's stop words each document has; null if the language has none."""
        data, _ = text_buffers(table["text"])
        words = column_words(table["text"], SEGMENTATION[self.profile])
        counts = np.zeros(len(table), np.int64)
        for code in np.unique(codes).tolist():
            rows = np.flatnonzero(codes == code)
            counts[rows] = word_statistics(data, words_of(words, rows), stop_words[code]).n_stop_words
        missing = np.array([not found for found in stop_words], dtype=bool)[codes]
        return pa.array(counts, mask=missing)

    def _some_words(self, table: pa.Table) -> pa.Array:
        """list<string>: of each document at most 200 words in lowercase, spread evenly over it."""
        data, _ = text_buffers(table["text"])
        words = column_words(table["text"], SEGMENTATION[self.profile])
        n_words = np.diff(words.offsets)
        n_taken = np.minimum(n_words, _WORDS_PER_DOCUMENT)
        ends = np.concatenate([[0], np.cumsum(n_taken)])
        turn = np.arange(ends[-1]) - np.repeat(ends[:-1], n_taken)
        taken = np.repeat(words.offsets[:-1], n_taken) + turn * np.repeat(n_words, n_taken) // np.repeat(
            n_taken, n_taken
        )
        raw = data.tobytes()
        spans = zip(words.starts[taken].tolist(), words.n_bytes[taken].tolist(), strict=True)
        texts = [raw[start : start + n_bytes].decode("utf-8", "replace").lower() for start, n_bytes in spans]
        return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(texts, pa.string()))

"""Thresholds of the filters by language, derived from the values that a language's own documents have.

Five methods carry the threshold t of the reference language (English) over to a language l:

============== ===================================================================================
`english`      t itself
`mean_std`     mu_l + sigma_l (t - mu_en) / sigma_en
`quantile`     the quantile of l's values at which t lies among the reference's
`median_ratio` t times median_l / median_en; t itself where median_en is 0, or median_l of a maximum
`tail`         what cuts off the worst tenth of l's documents
============== ===================================================================================

Few documents make noisy thresholds, so with n documents a threshold has weight n / (n + n_0) beside that of
all documents of the same script, and that one beside the paper's. What is borrowed may not drop most of a
language that its own threshold keeps: the median stays, of 10 documents or more. Last, a threshold is held to
a sane range.

Source: FineWeb2 (Penedo et al. 2025), whose derivation is published as tables alone; weights, medians and
ranges are ours: 43 % of the published tables have a threshold above 1 for a share, which nothing can exceed.
"""

import difflib
import math
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..kernels.text_statistics import MAX_STOP_WORDS
from .base import UnsuitableDataError
from .files import read_bytes
from .gopher_quality import STOP_WORDS

Method = Literal["english", "mean_std", "quantile", "median_ratio", "tail"]
Floats = NDArray[np.float64]

ANY = "*"
"""The row for documents whose language has no other."""
TAIL = 0.1
STOP_WORD_SHARES = (0.008, 0.003, 0.002)
MIN_STOP_WORDS = 8
MIN_FOR_MEDIAN = 10
CONFIDENCE_RANGE = (0.3, 0.9)


@dataclass(frozen=True)
class Limit:
    """A threshold that is adapted: its reason, its metric, the paper's value, and the sane range."""

    reason: str
    metric: str
    is_maximum: bool
    paper: float
    lowest: float
    highest: float

    @property
    def name(self) -> str:
        """The key in the table."""
        return f"{'max' if self.is_maximum else 'min'}_{self.metric}"


def _repetition(reason: str, metric: str, paper: float) -> Limit:
    return Limit(reason, metric, True, paper, paper / 2, 2 * paper)


LIMITS = (
    _repetition("dup_line_frac", "fraction_duplicate_lines", 0.30),
    *(
        _repetition(f"top_{n}_gram", f"fraction_characters_top_{n}_gram", paper)
        for n, paper in ((2, 0.20), (3, 0.18), (4, 0.16))
    ),
    *(
        _repetition(f"duplicated_{n}_n_grams", f"fraction_characters_duplicate_{n}_grams", (20 - n) / 100)
        for n in range(5, 11)
    ),
    Limit("line_punct_ratio", "fraction_lines_with_punctuation", False, 0.12, 0.0, 0.3),
    Limit("list_ratio", "newlines_per_word", True, 0.3, 0.15, 1.0),
    Limit("gopher_below_avg_threshold", "mean_word_length", False, 3.0, 1.0, 6.0),
    Limit("gopher_above_avg_threshold", "mean_word_length", True, 10.0, 5.0, 40.0),
    Limit("gopher_below_alpha_threshold", "fraction_alpha_words", False, 0.8, 0.4, 0.95),
)
CONFIDENCE = Limit("low_confidence", "confidence", False, 0.3, *CONFIDENCE_RANGE)
"""min(max(median - standard deviation, 0.3), 0.9) of the language's documents, by no method."""
METRICS = tuple(dict.fromkeys(limit.metric for limit in (*LIMITS, CONFIDENCE)))


class LanguageRow(BaseModel):
    """One language of the table: where its thresholds come from, and what they are."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_documents: int = Field(0, ge=0)
    script: str = ""
    weight: float = Field(1.0, ge=0, le=1)
    thresholds: dict[str, float] = {}
    stop_words: list[str] = Field([], max_length=MAX_STOP_WORDS)


def derive(
    values: Mapping[str, Mapping[str, Floats]],
    words: Mapping[str, Counter[str]],
    method: Method,
    reference: str,
    n_prior: float,
    min_documents: int,
) -> dict[str, LanguageRow]:
    """The table: a row for each language, and one for `ANY` with the paper's thresholds.

    Args:
        values: language -> metric -> float64, (n_documents,), NaN where a document has no value.
        words: language -> how often each word, in lowercase, stands in its documents.
        reference: the language for which the paper's thresholds hold.
        n_prior: n_0, how many documents the threshold of the script weighs.
        min_documents: from how many documents on a language has stop words.
    Raises:
        UnsuitableDataError: the method needs the reference, and it has fewer than `min_documents` documents.
    """
    n_reference = len(next(iter(values.get(reference, {"": np.empty(0)}).values())))
    needs_reference = method not in ("english", "tail") and any(language != reference for language in values)
    if needs_reference and n_reference < min_documents:
        raise UnsuitableDataError(
            f"fineweb2: method {method!r} compares each language with {reference!r}, of which there are "
            f"{n_reference} documents and {min_documents} are needed; add some, name another "
            "reference_language, or take method: tail"
        )
    scripts = {language: script_of(counts) for language, counts in words.items()}
    pooled = {script: _pool(values, scripts, script) for script in {*scripts.values()}}
    english = {*STOP_WORDS, *(stop_words(words[reference]) if reference in words else ())}
    table = {ANY: LanguageRow(thresholds={limit.name: limit.paper for limit in (*LIMITS, CONFIDENCE)})}
    for language in sorted(values):
        n = len(values[language]["confidence"])
        found = stop_words(words[language]) if n >= min_documents else []
        metrics = (values[language], pooled[scripts[language]], values.get(reference, {}))
        is_model = language == reference and method != "tail"
        table[language] = LanguageRow(
            n_documents=n,
            script=scripts[language],
            weight=n / (n + n_prior) if n_prior else 1.0,
            thresholds=_thresholds(*metrics, "english" if is_model else method, 0 if is_model else n_prior),
            stop_words=[word for word in found if language == reference or word not in english],
        )
    return table


def _thresholds(
    own: Mapping[str, Floats],
    of_script: Mapping[str, Floats],
    of_reference: Mapping[str, Floats],
    method: Method,
    n_prior: float,
) -> dict[str, float]:
    """One language's thresholds, by name."""
    thresholds = {}
    for limit in LIMITS:
        reference = of_reference.get(limit.metric, np.empty(0))
        shared = _shrunk(limit, of_script[limit.metric], reference, method, n_prior, limit.paper)
        settings = (limit, own[limit.metric], reference, method)
        found = _shrunk(*settings, n_prior, shared)
        if method != "english":
            alone = _shrunk(*settings, 0, shared)
            found = _keeping_median(found, alone, limit.is_maximum, own[limit.metric])
        thresholds[limit.name] = _rounded(np.clip(found, limit.lowest, limit.highest), limit.is_maximum)
    if (confidence := _confidence(own["confidence"])) is not None:
        thresholds[CONFIDENCE.name] = confidence
    return thresholds


def _pool(
    values: Mapping[str, Mapping[str, Floats]], scripts: Mapping[str, str], script: str
) -> dict[str, Floats]:
    members = [language for language in sorted(values) if scripts[language] == script]
    return {metric: np.concatenate([values[language][metric] for language in members]) for metric in METRICS}


def _shrunk(
    limit: Limit, values: Floats, reference: Floats, method: Method, n_prior: float, prior: float
) -> float:
    values, reference = values[~np.isnan(values)], reference[~np.isnan(reference)]
    if not len(values) or (method not in ("english", "tail") and not len(reference)):
        return prior
    found = carried_over(limit.paper, limit.is_maximum, values, reference, method)
    return (len(values) * found + n_prior * prior) / (len(values) + n_prior)


def _keeping_median(threshold: float, alone: float, is_maximum: bool, values: Floats) -> float:
    """The threshold, moved so far that it keeps the median, or what the language's own threshold keeps.

    Lines of Thai end in no mark, so no share of lines with one can be asked of Thai:

    >>> _keeping_median(0.1, 0.0, False, np.zeros(10))
    0.0
    """
    values = values[~np.isnan(values)]
    if len(values) < MIN_FOR_MEDIAN:
        return threshold
    median = float(np.median(values))
    return max(threshold, min(alone, median)) if is_maximum else min(threshold, max(alone, median))


def carried_over(
    threshold: float, is_maximum: bool, values: Floats, reference: Floats, method: Method
) -> float:
    """The threshold for a language with `values`, where `threshold` holds for a language with `reference`.

    >>> english, other = np.array([1.0, 2.0, 3.0, 4.0]), np.array([10.0, 20.0, 30.0, 40.0])
    >>> carried_over(3.0, True, other, english, "quantile")
    30.0
    >>> carried_over(3.0, True, other, english, "median_ratio")
    30.0
    """
    match method:
        case "english":
            return threshold
        case "mean_std":
            spread = reference.std()
            return float(values.mean() + values.std() * (threshold - reference.mean()) / (spread or 1.0))
        case "quantile":
            # A maximum keeps what is equal to it, a minimum too: the same share is dropped.
            share = np.mean(reference <= threshold) if is_maximum else np.mean(reference < threshold)
            return _quantile(values, float(share), is_maximum)
        case "median_ratio":
            median, own = float(np.median(reference)), float(np.median(values))
            # A share that most documents have none of says nothing of how much is too much.
            return threshold * own / median if median and (own or not is_maximum) else threshold
        case "tail":
            return _quantile(values, 1 - TAIL if is_maximum else TAIL, is_maximum)


def _quantile(values: Floats, share: float, is_maximum: bool) -> float:
    """The value such that `share` of all are at most it (below it, for a minimum)."""
    ordered = np.sort(values)
    n_below = round(share * len(ordered))
    return float(ordered[min(max(n_below - is_maximum, 0), len(ordered) - 1)])


def _confidence(values: Floats) -> float | None:
    values = values[~np.isnan(values)]
    if not len(values):
        return None
    return _rounded(np.clip(np.median(values) - values.std(), *CONFIDENCE_RANGE), is_maximum=False)


def _rounded(value: float, is_maximum: bool) -> float:
    """Four decimals, on the side that keeps what is equal: what people read is what decides."""
    return float((math.ceil if is_maximum else math.floor)(round(value * 1e4, 6)) / 1e4)


def stop_words(counts: Counter[str]) -> list[str]:
    """The words that make up more than 0.8 % of a language's words, most frequent first, no numbers; if there
    are fewer than 8, those above 0.3 %, then 0.2 %; at most 64.

    >>> stop_words(Counter({"der": 50, "und": 30, "7": 20, "haus": 1}))
    ['der', 'und', 'haus']
    """
    total = counts.total()
    by_count = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    found: list[str] = []
    for share in STOP_WORD_SHARES:
        found = [word for word, n in by_count if n > share * total and any(map(str.isalpha, word))]
        if len(found) >= MIN_STOP_WORDS:
            break
    return found[:MAX_STOP_WORDS]


def script_of(counts: Counter[str]) -> str:
    """The script of most words, as the names of its letters begin.

    >>> script_of(Counter({"дом": 3, "house": 1}))
    'CYRILLIC'
    """
    scripts: Counter[str] = Counter()
    for word, n in counts.items():
        letter = next(filter(str.isalpha, word), None)
        if letter is not None:
            scripts[unicodedata.name(letter, "UNKNOWN").split()[0].removesuffix("-")] += n
    return min(scripts, key=lambda script: (-scripts[script], script)) if scripts else "UNKNOWN"


def to_yaml(table: Mapping[str, LanguageRow], heading: Iterable[str]) -> str:
    """The table as a file for people to review and recipes to pin."""
    lines = [f"# {line}\n" for line in heading]
    for language, row in table.items():
        entry = row.model_dump()
        entry["weight"] = round(row.weight, 4)
        entry = {key: value for key, value in entry.items() if value or key == "thresholds"}
        lines.append(yaml.safe_dump({language: entry}, allow_unicode=True, sort_keys=False, width=100))
    return "".join(lines)


def read_table(path: str) -> dict[str, LanguageRow]:
    """The table in a YAML file; thresholds that a language leaves out are those of `ANY`, then the paper's.

    Raises:
        ValueError: the file cannot be read, or something in it is not of such a table.
    """
    return _parsed(path, read_bytes(path))


@lru_cache(maxsize=8)
def _parsed(path: str, data: bytes) -> dict[str, LanguageRow]:
    try:
        content = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}; it must be YAML") from error
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: found {type(content).__name__}; a mapping of languages is needed")
    known = [limit.name for limit in (*LIMITS, CONFIDENCE)]
    table = {}
    for language, entry in content.items():
        if not isinstance(language, str):
            raise ValueError(f"{path}: language {language!r} is no text; write it in quotes")
        try:
            table[language] = LanguageRow.model_validate(entry)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, (language, *first["loc"])))
            allowed = (
                f"; there are: {', '.join(LanguageRow.model_fields)}" if "extra" in first["type"] else ""
            )
            raise ValueError(
                f"{path}: {where}: {first['msg'][:1].lower()}{first['msg'][1:]}{allowed}"
            ) from None
        for name in table[language].thresholds:
            if name not in known:
                raise ValueError(f"{path}: {language}.thresholds.{name}: unknown; {_near(name, known)}")
    paper = {limit.name: limit.paper for limit in (*LIMITS, CONFIDENCE)}
    shared = paper | table.get(ANY, LanguageRow()).thresholds
    return {
        language: row.model_copy(update={"thresholds": shared | row.thresholds})
        for language, row in ({ANY: LanguageRow()} | table).items()
    }


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(known)}"


def rows_of(table: Mapping[str, LanguageRow]) -> dict[str, Any]:
    """The table as columns of Arrow types, a row for each language."""
    names = [limit.name for limit in (*LIMITS, CONFIDENCE)]
    columns: dict[str, Any] = {
        "language": list(table),
        "n_documents": [row.n_documents for row in table.values()],
        "script": [row.script for row in table.values()],
        "weight": [row.weight for row in table.values()],
        "stop_words": [row.stop_words for row in table.values()],
    }
    return columns | {name: [row.thresholds.get(name) for row in table.values()] for name in names}


def table_of(columns: Mapping[str, Sequence[Any]]) -> dict[str, LanguageRow]:
    """The inverse of `rows_of`."""
    names = [limit.name for limit in (*LIMITS, CONFIDENCE)]
    return {
        language: LanguageRow(
            n_documents=columns["n_documents"][i],
            script=columns["script"][i],
            weight=columns["weight"][i],
            stop_words=columns["stop_words"][i],
            thresholds={name: columns[name][i] for name in names if columns[name][i] is not None},
        )
        for i, language in enumerate(columns["language"])
    }

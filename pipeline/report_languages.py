"""FineWeb2's thresholds by language: where each comes from, how far from the paper's it is, what it drops."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from ..operators.fineweb2 import TABLE, Fineweb2
from ..operators.language_thresholds import ANY, CONFIDENCE, LIMITS, LanguageRow, Limit, table_of
from .curation import STATE
from .report_html import (
    Html,
    breakable,
    code,
    count,
    counted,
    element,
    join,
    number,
    paragraph,
    share,
    table,
)
from .report_lines import scored_rows
from .report_rows import StageFiles
from .shard_work import read_arrow

N_LANGUAGES = 40
"""Languages with a line of their own, those with most documents."""
N_STOP_WORDS = 4
STRICTER, LAXER = "213,94,0", "0,114,178"
_LIMITS = (*LIMITS, CONFIDENCE)


@dataclass
class LanguageCounts:
    """Documents that reached the filter, by the language whose thresholds decided about them."""

    n_seen: Counter[str] = field(default_factory=Counter)
    n_dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By (language, reason)."""

    def dropped_of(self, language: str) -> Counter[str]:
        """By reason, the documents of one language that the filter dropped."""
        return Counter({reason: n for (name, reason), n in self.n_dropped.items() if name == language})


def count_languages(files: StageFiles, operator: Fineweb2, languages: Sequence[str]) -> LanguageCounts:
    """One pass over the stage's rows, without text; documents of no language in the table count for `*`."""
    found, known = LanguageCounts(), pa.array(languages, pa.string())
    prefix = f"{operator.name}."
    for part in scored_rows(files, ["lang"]):
        seen = part.reached(files, operator)
        lang = seen.table["lang"].cast(pa.string()).combine_chunks()
        lang = pc.if_else(pc.fill_null(pc.is_in(lang, value_set=known), False), lang, ANY)
        found.n_seen.update(lang.to_pylist())
        by_us = pc.fill_null(pc.starts_with(seen.left_for, prefix), False)
        reasons = seen.left_for.filter(by_us).to_pylist()
        pairs = zip(lang.filter(by_us).to_pylist(), reasons, strict=True)
        found.n_dropped.update((name, reason.removeprefix(prefix)) for name, reason in pairs)
    return found


def language_part(files: StageFiles, operator: Fineweb2) -> Html:
    """The part of the filter's page on languages."""
    assert files.upstream is not None
    rows = table_of(read_arrow(files.upstream / "fit" / STATE).to_pydict())
    found = count_languages(files, operator, list(rows))
    ranked = sorted(rows, key=lambda name: (name == ANY, -found.n_seen[name], name))
    shown = [name for name in ranked if found.n_seen[name] or name == operator.reference_language]
    n_hidden, shown = max(len(shown) - N_LANGUAGES, 0), shown[:N_LANGUAGES]
    more = [paragraph(f"{counted(n_hidden, 'more language')} with fewer documents.")] if n_hidden else []
    return join(
        [
            Html("<h3>Languages</h3>"),
            _lead(operator),
            _languages_table(operator, rows, found, shown),
            *more,
            Html("<h3>Thresholds by language</h3>"),
            _thresholds_lead(),
            _thresholds_table(rows, shown),
        ]
    )


def _lead(operator: Fineweb2) -> Html:
    if operator.table is not None:
        return paragraph("The thresholds are those of ", code(operator.table), "; nothing was derived.")
    return paragraph(
        f"The thresholds were carried over from {operator.reference_language} by ",
        code(f"method: {operator.method}"),
        f", from up to {counted(operator.sample, 'document')} of each language. Where these are few, a "
        "threshold leans on all documents of the same script, and these on the paper: the three shares say "
        "how much each counts. To change a threshold, or keep it, edit ",
        code(f"fit/{TABLE}"),
        " of the stage before and pin it with ",
        code("table"),
        ".",
    )


def _languages_table(
    operator: Fineweb2, rows: Mapping[str, LanguageRow], found: LanguageCounts, shown: Sequence[str]
) -> Html:
    lines: list[list[str | int]] = []
    for name in shown:
        row, reasons, n_seen = rows[name], found.dropped_of(name), found.n_seen[name]
        (reason, n), *_ = [*reasons.most_common(1), ("", 0)]
        most = f"{reason} ({share(n, n_seen)})" if n else ""
        is_papers = operator.table is None and (
            name == ANY or operator.method == "english" or _is_model(operator, name)
        )
        borrowed = ("", "", share(1)) if is_papers else origins(row, rows)
        stop_words = ", ".join(row.stop_words[:N_STOP_WORDS])
        stop_words += (
            f" and {count(n_more)} more" if (n_more := len(row.stop_words) - N_STOP_WORDS) > 0 else ""
        )
        dropped: list[str | int] = [n_seen, reasons.total(), share(reasons.total(), n_seen), most]
        lines.append([name, row.script.lower(), *dropped, row.n_documents, *borrowed, stop_words])
    seen = ("language", "script", "documents seen", "dropped", "share", "most for", "in the sample")
    origin = ("its own", "script's", "paper's", "stop words")
    return table("llrrrlrrrrl", (*seen, *origin), lines)


def _is_model(operator: Fineweb2, language: str) -> bool:
    return language == operator.reference_language and operator.method != "tail"


def origins(row: LanguageRow, rows: Mapping[str, LanguageRow]) -> tuple[str, str, str]:
    """How much of a threshold is the language's own, its script's and the paper's; empty where not known.

    >>> german = LanguageRow(n_documents=50, script="LATIN", weight=0.5)
    >>> origins(german, {"de": german, "fr": german})
    ('50.0\\xa0%', '33.3\\xa0%', '16.7\\xa0%')
    """
    if not row.n_documents or not row.weight:
        return "", "", ""
    n_prior = row.n_documents * (1 / row.weight - 1)
    n_script = sum(other.n_documents for other in rows.values() if other.script == row.script)
    of_script = (1 - row.weight) * n_script / (n_script + n_prior)
    return share(row.weight), share(of_script), share(1 - row.weight - of_script)


def _thresholds_lead() -> Html:
    return paragraph(
        "Beside the paper's thresholds, those that drop more are shaded orange, those that drop less blue, "
        "the darker the farther away; \u2020 marks the end of the range that a derived threshold may have. "
        "The bound of the confidence is the median less a standard deviation of the language's own "
        "documents.",
        class_="note",
    )


def _thresholds_table(rows: Mapping[str, LanguageRow], shown: Sequence[str]) -> Html:
    lines: list[list[str]] = [["paper", *(number(limit.paper) for limit in _LIMITS)]]
    for name in shown:
        values = rows[name].thresholds
        lines.append([name, *(_threshold(limit, values.get(limit.name)) for limit in _LIMITS)])
    header = ("language", *(breakable(limit.name) for limit in _LIMITS))
    return table("l" + "r" * len(_LIMITS), header, lines)


def _threshold(limit: Limit, value: float | None) -> Html:
    """A threshold, shaded by how far it is from the paper's: a factor of two is darkest."""
    if value is None:
        return Html()
    is_stricter = value < limit.paper if limit.is_maximum else value > limit.paper
    factor = max(value, 1e-9) / limit.paper
    opacity = round(0.6 * min(abs(math.log2(factor)), 1.0), 3)
    style = f"background:rgba({STRICTER if is_stricter else LAXER},{opacity})"
    mark = "\u2020" if value in (limit.lowest, limit.highest) and value != limit.paper else ""
    title = f"paper {number(limit.paper)}, range {number(limit.lowest)} to {number(limit.highest)}"
    return element("span", f"{number(value)}{mark}", class_="shade", style=style, title=title)

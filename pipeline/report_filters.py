"""The report's pages on filters: rules, scores, losses by domain, and documents on either side of a line."""

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from ..operators.base import Decides
from ..operators.decontaminate import Decontaminate
from ..operators.duplicates import Duplicates
from ..operators.fineweb2 import Fineweb2
from ..operators.word_pass import forget
from .report_contamination import contamination_part
from .report_html import (
    Html,
    breakable,
    code,
    count,
    counted,
    element,
    excerpt,
    folded,
    join,
    number,
    paragraph,
    share,
    table,
)
from .report_languages import language_part
from .report_lines import N_NEAREST, Line, Near
from .report_profiles import has_profiles, profile_part, stage_sample
from .report_rows import NO_DOMAIN, RunRows, StageFiles, fetch
from .report_scores import Histogram, Measured, measure, score_figure
from .whatif import thresholds

N_DOMAINS = 30
EXCERPT_CHARS = 300
OTHERS = "(others)"


def filter_pages(rows: RunRows) -> dict[str, Html]:
    """A page for each filter that decides by scores, by title; an overview comes first."""
    pages: dict[str, Html] = {}
    lines: list[list[str | int]] = []
    for index, files in enumerate(rows.stages):
        filters = [
            one
            for one in files.stage.operators
            if isinstance(one, Decides) and not isinstance(one, Duplicates)
        ]
        sample = stage_sample(files) if any(map(has_profiles, filters)) else None
        for measured in measure(files, filters):
            operator = measured.operator
            n_seen, n_dropped = files.n_seen_by(operator), files.n_dropped_by(operator)
            lines.append([operator.name, n_seen, n_dropped, share(n_dropped, n_seen), len(operator.rules())])
            pages[f"Filter {operator.name}"] = _page(rows, index, measured, sample)
        forget()  # the words of the sample
    if not pages:
        return {}
    lead = paragraph(
        "A filter first writes what it measures, then compares it with its thresholds. In the figures the "
        "thresholds are dashed; blue bars count documents that obey the score's rules, red ones those that "
        "break one. Counts stand on a logarithmic axis, so that a few outliers can be seen beside many "
        "ordinary documents. Shares are of the documents that reached the filter."
    )
    header = ("filter", "documents seen", "dropped", "share", "rules")
    return {"Filters": join([lead, table("lrrrr", header, lines)]), **pages}


def _page(rows: RunRows, index: int, measured: Measured, sample: pa.Table | None) -> Html:
    files, operator = rows.stages[index], measured.operator
    histograms, lines = measured.histograms, measured.lines
    n_seen, n_dropped = files.n_seen_by(operator), files.n_dropped_by(operator)
    told = f"{count(n_dropped)} of {counted(n_seen, 'document')} dropped"
    told += f" ({share(n_dropped, n_seen)})." if n_dropped else "."
    parts = [
        paragraph((inspect.getdoc(type(operator)) or "").partition("\n\n")[0].replace("\n", " ")),
        paragraph(told, *_changed(operator)),
        *_what_if(operator),
        _rules_table(files, operator, histograms, n_seen),
        element(
            "div",
            *(score_figure(operator, one) for one in histograms if one.is_score),
            class_="multiples",
        ),
    ]
    if n_dropped:
        parts += [Html("<h3>Share dropped, by rule and domain</h3>"), _domains_table(rows, index, operator)]
    if isinstance(operator, Decontaminate):
        parts.append(contamination_part(files, operator))
    if isinstance(operator, Fineweb2):
        parts.append(language_part(files, operator))
    if lines:
        parts += [Html("<h3>Either side of the line</h3>"), _lines_lead(), *_lines(files, operator, lines)]
    if sample is not None and has_profiles(operator):
        parts.append(profile_part(files, operator, sample))
    return join(parts)


def _changed(operator: Decides) -> list[str]:
    """The parameters that a recipe changed."""
    fields = type(operator).model_fields
    changed = {
        name: value
        for name, value in operator.model_dump(mode="json").items()
        if fields[name].is_required() or value != fields[name].get_default(call_default_factory=True)
    }
    if not changed:
        return [" Every parameter has its default."]
    shown = [code(f"{name}: {json.dumps(value, ensure_ascii=False)}") for name, value in changed.items()]
    return [" Set in the recipe: ", join(shown, ", "), "."]


def _what_if(operator: Decides) -> list[Html]:
    """How to ask for another threshold."""
    movable = [name for name in type(operator).model_fields if name in thresholds(operator)]
    if not movable:
        return []
    command = code(f"cuvee whatif RUN_DIR {operator.name}.{movable[0]}=VALUE")
    return [
        paragraph("Another threshold would keep other documents: ", command, " tells which.", class_="note")
    ]


def _rules_table(files: StageFiles, operator: Decides, histograms: Sequence[Histogram], n_seen: int) -> Html:
    n_broken = {rule: n for histogram in histograms for rule, n in histogram.n_broken.items()}
    lines: list[list[str | int]] = []
    for rule in operator.rules():
        n_dropped = files.accounting.dropped.get(f"{operator.name}.{rule.reason}", 0)
        kept_with = code(str(rule).removeprefix(f"{operator.name}."))
        n = n_broken.get(rule.reason, 0)
        lines.append([rule.reason, kept_with, n_dropped, share(n_dropped, n_seen), n, share(n, n_seen)])
    header = ("rule", "kept only with", "dropped", "share", "break it, first or not", "share")
    return table("llrrrr", header, lines)


def _domains_table(rows: RunRows, index: int, operator: Decides) -> Html:
    """Of each domain's documents that reached the filter, the share that each rule dropped; darker: more."""
    seen = rows.seen_by_domain(index, operator)
    ranked = sorted(seen, key=lambda domain: (-seen[domain], domain))
    groups = {domain: [domain] for domain in ranked[:N_DOMAINS]}
    if len(ranked) > N_DOMAINS:
        groups[OTHERS] = ranked[N_DOMAINS:]
    groups["all"] = ranked
    dropped = rows.left[index].n_rows
    reasons = [
        reason
        for rule in operator.rules()
        if (reason := f"{operator.name}.{rule.reason}") in rows.stages[index].accounting.dropped
    ]
    lines: list[list[str | int]] = []
    for title, domains in groups.items():
        n_seen = sum(seen[domain] for domain in domains)
        counts = [sum(dropped[domain, reason] for domain in domains) for reason in reasons]
        cells = [_shaded(n, n_seen) for n in (sum(counts), *counts)]
        lines.append([title, n_seen, *cells])
    names = [breakable(reason.partition(".")[2]) for reason in reasons]
    header = ("domain", "documents seen", "dropped", *names)
    return table("l" + "r" * (len(header) - 1), header, lines, n_totals=1)


def _shaded(part: int, whole: int) -> Html:
    if not part:
        return Html()
    opacity = round(0.08 + 0.62 * part / whole, 3)
    style = f"background:rgba(213,94,0,{opacity})"
    return element("span", share(part, whole), class_="shade", style=style, title=counted(part, "document"))


def _lines_lead() -> Html:
    return paragraph(
        f"For each rule up to {N_NEAREST} documents that its filter kept and {N_NEAREST} that the rule "
        "dropped: those whose scores are nearest to the threshold, ties broken by a hash of the id. Where a "
        "rule has no threshold but a list, they are drawn by that hash.",
        class_="note",
    )


def _lines(files: StageFiles, operator: Decides, lines: Iterable[Line]) -> list[Html]:
    lines = list(lines)
    columns = [name for name in _columns_read(operator) if name not in ("id", "domain", "text")]
    scores = [line.rule.score for line in lines]
    places = [near.place for line in lines for near in (*line.kept, *line.dropped)]
    found = fetch(places, ["id", "domain", "text", *dict.fromkeys([*columns, *scores])])
    shown = []
    for line in lines:
        n_dropped = files.accounting.dropped.get(line.reason, 0)
        limit = str(line.rule).removeprefix(f"{operator.name}.")
        title = join([line.rule.reason, ": ", code(limit), f", {count(n_dropped)} dropped"], "")
        sides = [
            element(
                "div",
                element("h4", f"{side}, nearest to the line first"),
                *(_near(near, line, found[near.place], columns) for near in nears),
                *([] if nears else [element("p", "none", class_="note")]),
            )
            for side, nears in (("Kept", line.kept), ("Dropped", line.dropped))
        ]
        shown.append(folded(title, element("div", *sides, class_="pair lines")))
    return shown


def _columns_read(operator: Decides) -> tuple[str, ...]:
    return operator.columns_read(operator.model_dump(mode="json"))


def _near(near: Near, line: Line, row: Mapping[str, Any], columns: Sequence[str]) -> Html:
    short = line.rule.score.partition(".")[2]
    facts: list[str] = [join([code(short), f" = {number(row[line.rule.score])}"], "")]
    facts += [join([code(name), f" = {number(row[name])}"], "") for name in columns]
    facts += [str(row["domain"] or NO_DOMAIN), f"id {row['id']}"]
    if near.left_for is not None and near.left_for != line.reason:
        facts.append(f"left later for {near.left_for}")
    told = element("p", join(facts, " \u00b7 "), class_="note")
    return element("div", told, excerpt(row["text"], EXCERPT_CHARS), class_="example")

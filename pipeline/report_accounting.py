"""The report's sections on what was read and on the run's books."""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .outcome import Outcome, read_timings
from .report_html import Html, code, count, counted, element, folded, join, megabytes, paragraph, share, table
from .report_rows import RunRows, StageFiles, read_columns
from .run_directory import read_json

N_DETAILS = 20


def input_section(outcome: Outcome, rows: RunRows) -> Html:
    """The sources, what of them could not be read, and what limits left out."""
    parts = [_sources_table(outcome)]
    first = rows.stages[0]
    found = first.accounting
    if found.over_limit:
        limits = f"{counted(found.over_limit, 'document')} more were left out by the limits in the recipe."
        parts.append(paragraph(limits))
    n_unreadable = sum(found.unreadable.values())
    parts.append(Html("<h3>Unreadable records</h3>"))
    if n_unreadable:
        of_all = f"of {count(found.rows_in)} ({share(n_unreadable, found.rows_in)})"
        reasons = sorted(found.unreadable.items(), key=lambda pair: (-pair[1], pair[0]))
        parts.append(
            paragraph(f"{counted(n_unreadable, 'record')} {of_all} could not be read and were skipped.")
        )
        parts.append(table("lr", ("reason", "records"), reasons))
        details = _unreadable_details(first)
        if len(details) < n_unreadable:
            where = code("dropped/")
            parts.append(paragraph("Each with its place is in ", where, " of the first stage."))
        title = "All of them" if len(details) == n_unreadable else f"The first {len(details)}"
        parts.append(folded(title, table("lll", ("reason", "source", "where, and what was found"), details)))
    else:
        parts.append(paragraph("None: every record could be read."))
    parts += _no_page(found.no_page)
    parts.append(Html("<h3>Quarantined shards</h3>"))
    broken = [
        (files.stage.folder, part, error)
        for files in rows.stages
        for part, error in sorted(files.manifest["quarantined"].items())
    ]
    if broken:
        told = f"{counted(len(broken), 'shard')} could not be read to the end; nothing of that is in the run."
        parts.append(paragraph(told))
        parts.append(table("lll", ("stage", "shard", "error"), broken))
    else:
        parts.append(paragraph("None: every shard was read to its end."))
    return join(parts)


def _no_page(n_records: Mapping[str, int]) -> list[Html]:
    """Sound records of web archives that hold no document, or nothing if no archive was read."""
    if not n_records:
        return []
    told = (
        f"{counted(sum(n_records.values()), 'record')} of web archives were sound and hold no page: they are "
        "no rows and stand in no other count."
    )
    ranked = sorted(n_records.items(), key=lambda pair: (-pair[1], pair[0]))
    return [
        Html("<h3>Records that are no pages</h3>"),
        paragraph(told),
        table("lr", ("kind of record", "n"), ranked),
    ]


def _sources_table(outcome: Outcome) -> Html:
    lines: list[list[str | int]] = []
    for reader, listed in zip(outcome.plan.readers, outcome.plan.files, strict=True):
        source = reader.source
        domain = f"column {source.columns['domain']}" if "domain" in source.columns else source.default_domain
        limits = [f"{count(source.max_rows)} rows"] if source.max_rows else []
        limits += [f"{megabytes(source.max_bytes)} MB of text"] if source.max_bytes else []
        size = megabytes(sum(file.n_bytes for file in listed))
        lines.append([source.source, domain, len(listed), size, " and ".join(limits) or "none"])
    return table("llrrl", ("source", "domain", "files", "MB stored", "limit"), lines)


def _unreadable_details(files: StageFiles) -> list[list[str]]:
    """The first unreadable records, in the order of the shards."""
    details: list[list[str]] = []
    for path in files.dropped:
        table = read_columns(path, ("reason", "source", "read.detail", "dropped_by"))
        table = table.filter(pc.equal(table["dropped_by"].cast(pa.string()), "read")).slice(0, N_DETAILS)
        details += [[str(row[name]) for name in table.column_names[:3]] for row in table.to_pylist()]
        if len(details) >= N_DETAILS:
            break
    return details[:N_DETAILS]


def accounting_section(outcome: Outcome, rows: RunRows) -> Html:
    """That no row got lost, what the run cost, and how to repeat it."""
    parts = [
        paragraph(
            "Every row that enters a stage is kept, dropped for a reason, or unreadable; and what one stage "
            "keeps is what the next one reads. The run fails where this does not hold."
        ),
        _books_table(rows),
        *_cost(outcome, rows),
        Html("<h3>Versions</h3>"),
        table("ll", ("library", "version"), sorted(outcome.versions.items())),
        Html("<h3>Recipe</h3>"),
        paragraph("The recipe with every default filled in, as ", element("code", "plan.json"), " holds it."),
        folded("The resolved recipe", element("pre", _resolved(outcome), class_="json")),
    ]
    return join(parts)


def _books_table(rows: RunRows) -> Html:
    lines: list[list[str | int]] = []
    before: int | None = None
    for files in rows.stages:
        found = files.accounting
        n_dropped, n_unreadable = sum(found.dropped.values()), sum(found.unreadable.values())
        is_balanced = found.rows_in == found.rows_kept + n_dropped + n_unreadable
        continues = before is None or found.rows_in == before or bool(files.manifest["quarantined"])
        counts = (found.rows_in, found.rows_kept, n_dropped, n_unreadable)
        lines.append(
            [files.stage.folder, *counts, files.manifest["n_shards"], _mark(is_balanced and continues)]
        )
        before = found.rows_kept
    header = ("stage", "rows in", "kept", "dropped", "unreadable", "shards", "adds up")
    return table("lrrrrrl", header, lines)


def _mark(is_right: bool) -> Html:
    return (
        element("span", "\u2713 yes", class_="good")
        if is_right
        else element("span", "\u2717 no", class_="bad")
    )


def _cost(outcome: Outcome, rows: RunRows) -> list[Html]:
    """CPU seconds by operator, from the last time that each shard was done."""
    timings = {(line["stage"], line["shard"]): line for line in read_timings(outcome.run_dir)}
    lines: list[list[str | int]] = []
    total = 0.0
    for files in rows.stages:
        own = [line for (stage, _), line in sorted(timings.items()) if stage == files.stage.folder]
        n_bytes = sum(line.get("bytes_in", 0) for line in own)
        seconds: dict[str, float] = {}
        for line in own:
            for name, spent in line["cpu_seconds"].items():
                seconds[name] = seconds.get(name, 0.0) + spent
        for i, (name, spent) in enumerate(seconds.items()):
            rate = f"{n_bytes / 1e6 / spent:,.0f}" if spent else ""
            lines.append(["" if i else f"{files.stage.index:02d}", name, f"{spent:,.2f}", rate])
        total += sum(seconds.values())
    if not lines:
        return []
    lines.append(["all", "", f"{total:,.2f}", f"{_n_bytes_in(rows) / 1e6 / total:,.0f}" if total else ""])
    header = ("stage", "operator", "CPU seconds", "MB of text per CPU second")
    return [Html("<h3>Cost of curation</h3>"), table("llrr", header, lines, n_totals=1)]


def _n_bytes_in(rows: RunRows) -> int:
    return rows.stages[0].accounting.bytes_in


def _resolved(outcome: Outcome) -> str:
    path = outcome.run_dir / "plan.json"
    resolved: Mapping[str, Any] = read_json(path) if path.exists() else {}
    return json.dumps(resolved, indent=2, ensure_ascii=False)

"""The report's section on what left the run: where, why, and from which domain."""

from collections import Counter

from .report_html import Html, code, folded, join, megabytes, paragraph, share, table
from .report_plots import CYCLE, DROPPED, KEPT, PALE, bars, bars_height, horizontal, label, plot
from .report_rows import NO_DOMAIN, RunRows

UNREADABLE = "read"
"""What "drops" the records that cannot be read."""

Reasons = list[tuple[int, str, int]]
"""(stage, ``<operator>.<reason>``, rows)."""


def funnel_section(rows: RunRows) -> Html:
    """Documents left after each operator, why the others went, and how that fell on the domains."""
    reasons = _reasons(rows)
    parts = [
        paragraph(
            "Documents pass the operators in order. One that breaks a rule leaves there, with the first rule "
            "that it broke as its reason. Nothing is deleted: what left is in the ",
            code("dropped/"),
            " folder of its stage, next to its scores.",
        ),
        _steps_figure(rows),
        _stage_table(rows),
    ]
    if reasons:
        parts.append(Html("<h3>Why documents left</h3>"))
        parts += [_reasons_figure(rows, reasons), _reasons_table(rows, reasons)]
        parts.append(Html("<h3>What each domain lost</h3>"))
        parts += [_domains_figure(rows), _domains_table(rows)]
        if NO_DOMAIN in rows.domains:
            told = "records that could not be read have no domain."
            parts.append(paragraph(NO_DOMAIN, ": ", told, class_="note"))
        parts.append(folded("Every reason by domain", _domain_reasons_table(rows, reasons)))
    return join(parts)


def operator_of(reason: str) -> str:
    """The operator in ``<operator>.<reason>``."""
    return reason.partition(".")[0]


def _reasons(rows: RunRows) -> Reasons:
    """Every reason: unreadable records first, then operator by operator, most frequent first."""
    found = []
    for index, files in enumerate(rows.stages):
        unreadable = {f"{UNREADABLE}.{reason}": n for reason, n in files.accounting.unreadable.items()}
        position = {
            name: i for i, name in enumerate((UNREADABLE, *(op.name for op in files.stage.operators)))
        }
        every = (unreadable | files.accounting.dropped).items()
        ranked = sorted(every, key=lambda pair: (position[operator_of(pair[0])], -pair[1], pair[0]))
        found += [(index, reason, n) for reason, n in ranked]
    return found


def _by_operator(rows: RunRows) -> dict[str, int]:
    """Rows that each operator dropped, in the operators' order; those that cannot be read come first."""
    n_dropped: dict[str, int] = {}
    for _, reason, n in _reasons(rows):
        n_dropped[operator_of(reason)] = n_dropped.get(operator_of(reason), 0) + n
    return n_dropped


def _steps_figure(rows: RunRows) -> Html:
    steps, kept, gone = ["read"], [rows.n_in], [0]
    for name, n_dropped in _by_operator(rows).items():
        steps.append("readable" if name == UNREADABLE else f"after {name}")
        kept.append(kept[-1] - n_dropped)
        gone.append(n_dropped)
    texts = [f"{n:,} ({share(n, rows.n_in)})" for n in kept]
    inside = {"text": texts, "textposition": "inside", "insidetextanchor": "start"}
    outside = {"text": [f"\u2212{n:,}" if n else "" for n in gone], "textposition": "outside"}
    traces = [
        bars(steps, kept, "kept", KEPT, "%{x:,} documents", **inside),
        bars(steps, gone, "left at this step", DROPPED, "%{x:,} documents left", **outside),
    ]
    layout = horizontal(len(steps), "documents", barmode="stack", height=bars_height(len(steps) + 2))
    layout["xaxis"]["range"] = [0, 1.1 * rows.n_in]
    return plot(traces, "Documents left after each operator that dropped some.", **layout)


def _stage_table(rows: RunRows) -> Html:
    lines: list[list[str | int]] = []
    for files in rows.stages:
        found = files.accounting
        n_dropped, n_unreadable = sum(found.dropped.values()), sum(found.unreadable.values())
        names = ", ".join(operator.name for operator in files.stage.operators) or "read"
        n_rows = (found.rows_in, found.rows_kept, n_dropped, n_unreadable)
        sizes = (megabytes(found.bytes_in), megabytes(found.bytes_kept))
        kept = share(found.rows_kept, found.rows_in)
        lines.append([f"{files.stage.index:02d}", names, *n_rows, kept, *sizes])
    n_rows_columns = ("rows in", "kept", "dropped", "unreadable", "share kept")
    header = ("stage", "operators", *n_rows_columns, "MB of text in", "MB kept")
    return table("llrrrrrrr", header, lines)


def _reasons_figure(rows: RunRows, reasons: Reasons) -> Html:
    traces = []
    for i, operator in enumerate(_by_operator(rows)):
        own = {reason: n for _, reason, n in reasons if operator_of(reason) == operator}
        texts = [f"{n:,} ({share(n, rows.n_in)})" for n in own.values()]
        shown = {"text": texts, "textposition": "outside"}
        traces.append(
            bars(own, [*own.values()], operator, CYCLE[i % len(CYCLE)], "%{x:,} documents", **shown)
        )
    layout = horizontal(len(reasons), "documents that left", barmode="overlay", showlegend=True)
    keys = [label(reason) for _, reason, _ in reasons]
    layout["yaxis"] |= {
        "categoryorder": "array",
        "categoryarray": keys,
        "tickvals": keys,
        "ticktext": [label(reason.partition(".")[2]) for _, reason, _ in reasons],
    }
    layout["xaxis"]["range"] = [0, 1.3 * max(n for *_, n in reasons)]
    caption = "Documents that left, by reason; in brackets their share of all that were read."
    return plot(traces, caption, **layout)


def _reasons_table(rows: RunRows, reasons: Reasons) -> Html:
    lines: list[list[str | int]] = []
    for index, reason, n in reasons:
        rule = rows.stages[index].rule(reason)
        n_bytes = rows.left[index].n_bytes[reason]
        name, _, short = reason.partition(".")
        kept_if = code(str(rule).removeprefix(f"{name}.")) if rule else ""
        lines.append([name, short, kept_if, n, share(n, rows.n_in), megabytes(n_bytes)])
    total, n_bytes = sum(n for *_, n in reasons), sum(left.n_bytes.total() for left in rows.left)
    lines.append(["all", "", "", total, share(total, rows.n_in), megabytes(n_bytes)])
    header = ("operator", "reason", "kept only with", "rows", "share of all rows", "MB of text")
    return table("lllrrr", header, lines, n_totals=1)


def _lost(rows: RunRows) -> dict[str, Counter[str]]:
    """By operator and domain, rows that left."""
    lost: dict[str, Counter[str]] = {name: Counter() for name in _by_operator(rows)}
    for left in rows.left:
        for (domain, reason), n in left.n_rows.items():
            lost[operator_of(reason)][domain] += n
    return lost


def _domains_figure(rows: RunRows) -> Html:
    lost, domains = _lost(rows), rows.domains
    n_in = {domain: rows.n_kept.get(domain, 0) + sum(n[domain] for n in lost.values()) for domain in domains}
    columns = [("kept", PALE, rows.n_kept)]
    columns += [(name, CYCLE[i % len(CYCLE)], n) for i, (name, n) in enumerate(lost.items())]
    traces = []
    for name, color, n in columns:
        n_docs = [n.get(domain, 0) for domain in domains]
        shares = [100 * part / n_in[domain] for part, domain in zip(n_docs, domains, strict=True)]
        hover = f"{label(name)} %{{customdata:,}} documents, %{{x:.1f}} %"
        traces.append(bars(domains, shares, name, color, hover, customdata=n_docs))
    layout = horizontal(len(domains), "share of the domain's documents (%)", barmode="stack")
    return plot(traces, "What became of each domain's documents: kept, or dropped by an operator.", **layout)


def _domains_table(rows: RunRows) -> Html:
    lost = _lost(rows)
    lines: list[list[str | int]] = []
    for domain in rows.domains:
        n_kept, dropped = rows.n_kept.get(domain, 0), [n[domain] for n in lost.values()]
        n_in = n_kept + sum(dropped)
        lines.append([domain, n_in, *dropped, n_kept, share(n_kept, n_in)])
    sums, n_kept = [n.total() for n in lost.values()], sum(rows.n_kept.values())
    lines.append(["all", n_kept + sum(sums), *sums, n_kept, share(n_kept, n_kept + sum(sums))])
    names = ("unreadable" if name == UNREADABLE else name for name in lost)
    header = ("domain", "rows in", *names, "kept", "share kept")
    return table("l" + "r" * (len(header) - 1), header, lines, n_totals=1)


def _domain_reasons_table(rows: RunRows, reasons: Reasons) -> Html:
    domains = rows.domains
    lines = [
        [reason, *(rows.left[index].n_rows[domain, reason] or None for domain in domains)]
        for index, reason, _ in reasons
    ]
    return table("l" + "r" * len(domains), ("reason", *domains), lines)

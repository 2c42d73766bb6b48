"""The report's sections with documents to look at: kept ones, dropped ones, duplicates."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.compute as pc

from ..operators.duplicates import Duplicates
from .report_duplicates import closure_sentence, source_section
from .report_html import (
    EXCERPT_CHARS,
    Html,
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
    side_by_side,
)
from .report_plots import KEPT, plot
from .report_rows import Pick, RunRows, StageFiles, fetch, read_columns
from .shard_work import SHARD_BITS, part_name

N_CLUSTERS = 8
N_MEMBERS = 20
SIZES = ((2, 2), (3, 3), (4, 4), (5, 8), (9, 16), (17, 32), (33, 64), (65, 128), (129, 1024))


def example_section(rows: RunRows) -> Html:
    """A few documents that left for each reason, and a few of each domain that stayed."""
    parts = [
        paragraph(
            "Documents drawn by a hash of their ids, so the choice is random yet the same in every report. "
            f"Texts are shortened to about {EXCERPT_CHARS} characters. Control characters and marks that "
            "turn the direction of text are shown, not obeyed."
        ),
        Html("<h3>Dropped, by reason</h3>"),
    ]
    n_folded = len(parts)
    for files, left in zip(rows.stages, rows.left, strict=True):
        n_left = files.accounting.dropped
        for reason, picks in sorted(left.sample.picks.items(), key=lambda pair: -n_left.get(pair[0], 0)):
            if reason in n_left:
                title = f"{reason}: {counted(n_left[reason], 'document')}"
                parts.append(folded(title, *_dropped(files, reason, picks), is_open=len(parts) == n_folded))
    if len(parts) == n_folded:
        parts.append(paragraph("No document was dropped."))
    parts.append(Html("<h3>Kept, by domain</h3>"))
    for domain, found in rows.kept.rows(("id", "text")).items():
        shown = [_example(row, [f"id {row['id']}"]) for row in found]
        parts.append(folded(f"{domain}: {counted(rows.n_kept[domain], 'document')}", *shown))
    return join(parts)


def _dropped(files: StageFiles, reason: str, picks: Iterable[Pick]) -> list[Html]:
    rule = files.rule(reason)
    columns = ["id", "domain", "text", *([rule.score] if rule else [])]
    places = [(pick.path, pick.row) for pick in picks]
    found = fetch(places, columns)
    examples = []
    for place in places:
        row = found[place]
        facts: list[str] = [f"id {row['id']}", f"domain {row['domain']}"]
        if rule:
            bounds = str(rule).removeprefix(f"{rule.score} ")
            facts.append(
                join([code(rule.score), f" = {number(row[rule.score])}, kept only with ", code(bounds)], "")
            )
        examples.append(_example(row, facts))
    return examples


def _example(row: Mapping[str, Any], facts: Iterable[str]) -> Html:
    told = element("p", join(facts, " \u00b7 "), class_="note")
    return element("div", told, excerpt(row["text"]), class_="example")


def duplicate_section(rows: RunRows) -> Html | None:
    """What each deduplication found, or None if there is none."""
    found = [
        _deduplication(files, operator)
        for files in rows.stages
        for operator in files.stage.operators
        if isinstance(operator, Duplicates)
    ]
    if not found:
        return None
    lead = paragraph(
        "A cluster is a set of documents that are the same to a deduplication. One of each cluster, its "
        "keeper, stays with rank 0; the others, ranked from 1, leave for the reason ",
        code("duplicate"),
        ".",
    )
    return join([lead, *found])


def _deduplication(files: StageFiles, operator: Duplicates) -> Html:
    sizes, largest = _clusters(files, operator)
    title, n_removed = element("h3", operator.name), files.n_dropped_by(operator)
    if not n_removed:
        return join([title, paragraph("No duplicates were found."), closure_sentence(files)])
    between = [closure_sentence(files), source_section(files, operator)]
    if not sizes:
        told = f"{counted(n_removed, 'document')} left for documents that earlier runs kept."
        return join([title, paragraph(told), *between])
    n_clusters, n_members = sum(sizes.values()), sum(size * n for size, n in sizes.items())
    n_seen = files.accounting.rows_in
    told = (
        f"{counted(n_members, 'document')} of {count(n_seen)} ({share(n_members, n_seen)}) are in "
        f"{counted(n_clusters, 'cluster')}; {count(n_members - n_clusters)} of them are duplicates of a "
        f"keeper. The largest cluster has {counted(max(sizes), 'document')}."
    )
    shown = _cluster_details(files, operator, largest)
    heading = Html("<h4>The largest clusters</h4>")
    return join([title, paragraph(told), _sizes_plot(sizes), *between, heading, *shown])


def _clusters(files: StageFiles, operator: Duplicates) -> tuple[dict[int, int], list[tuple[int, int]]]:
    """(clusters by size, the largest as (size, keeper)), from the keepers' rows, part by part."""
    names = [f"{operator.name}.{score}" for score in ("keeper", "cluster_size", "rank")]
    sizes: dict[int, int] = {}
    largest: list[tuple[int, int]] = []
    for path in (*files.kept, *files.dropped):
        table = read_columns(path, names)
        is_keeper = pc.and_(
            pc.equal(_integers(table, names[2]), 0), pc.greater(_integers(table, names[1]), 1)
        )
        table = table.filter(pc.fill_null(is_keeper, False))
        size, keeper = table[names[1]].to_numpy(), table[names[0]].to_numpy()
        for value, n in zip(*np.unique(size, return_counts=True), strict=True):
            sizes[int(value)] = sizes.get(int(value), 0) + int(n)
        largest += [(int(size[i]), int(keeper[i])) for i in np.lexsort((keeper, -size))[:N_CLUSTERS]]
        largest = sorted(largest, key=lambda cluster: (-cluster[0], cluster[1]))[:N_CLUSTERS]
    return sizes, largest


def _integers(table: pa.Table, name: str) -> pa.ChunkedArray:
    return table[name].cast(pa.int64())  # a part that the operator never saw has nulls, typed as text


def _sizes_plot(sizes: Mapping[int, int]) -> Html:
    bins = [(low, high) for low, high in (*SIZES, (SIZES[-1][1] + 1, None))]
    names, values = [], []
    for low, high in bins:
        n = sum(n for size, n in sizes.items() if size >= low and (high is None or size <= high))
        names.append(f"{low}" if low == high else f"{low}\u2013{high}" if high else f"{low} or more")
        values.append(n)
    last = max(i for i, n in enumerate(values) if n)
    names, values = names[: last + 1], values[: last + 1]
    trace = go.Bar(
        x=names,
        y=[n or None for n in values],
        text=[count(n) if n else "" for n in values],
        textposition="outside",
        marker_color=KEPT,
        hovertemplate="%{x} documents: %{y:,} clusters<extra></extra>",
        cliponaxis=False,
    )
    x_axis = {"type": "category", "title": {"text": "documents in a cluster"}}
    y_axis = {"title": {"text": "clusters"}, "type": "log", "dtick": 1, "tickformat": ",d"}
    y_axis["range"] = [-0.3, float(np.log10(max(values))) + 0.4]
    caption = "Clusters by size, on a logarithmic axis."
    return plot([trace], caption, 280, xaxis=x_axis, yaxis=y_axis)


def _cluster_details(files: StageFiles, operator: Duplicates, largest: list[tuple[int, int]]) -> list[Html]:
    assert files.upstream is not None, "a deduplication never stands in the first stage"
    members = _members(files, operator, [keeper for _, keeper in largest])
    kept_at = {
        keeper: (files.upstream / part_name(keeper >> SHARD_BITS), keeper & ((1 << SHARD_BITS) - 1))
        for _, keeper in largest
    }
    texts = fetch(kept_at.values(), ("id", "text", "domain"))
    similarity = f"{operator.name}.similarity"
    columns = ["id", "text", "domain", *([similarity] if similarity in operator.writes else [])]
    removed = fetch([members[keeper][0][2] for _, keeper in largest if members[keeper]], columns)
    shown: list[Html] = []
    for size, keeper in largest:
        kept = texts[kept_at[keeper]]
        title = f"{counted(size, 'document')}, kept: {kept['id']}"
        inside: list[Html] = []
        if members[keeper]:
            row = removed[members[keeper][0][2]]
            inside.append(_pair(kept, row, row.get(similarity)))
        listed = [element("li", name) for _, name, _ in members[keeper]]
        n_more = size - 1 - len(listed)
        if n_more > 0:
            listed.append(element("li", f"and {count(n_more)} more"))
        inside += [element("p", "Removed:", class_="note"), element("ul", *listed, class_="members")]
        shown.append(folded(title, *inside, is_open=not shown))
    return shown


def _members(files: StageFiles, operator: Duplicates, keepers: list[int]) -> dict[int, list[Any]]:
    """Of each keeper's cluster, the first removed documents as (rank, id, (part, position)).

    An operator after the deduplication may have dropped a keeper; its duplicates are here all the same.
    """
    names = ["id", f"{operator.name}.keeper", f"{operator.name}.rank"]
    found: dict[int, list[Any]] = {keeper: [] for keeper in keepers}
    for path in files.dropped:
        table = read_columns(path, names)
        keeper, rank = _integers(table, names[1]), _integers(table, names[2])
        wanted = pc.and_(pc.is_in(keeper, pa.array(keepers, pa.int64())), pc.greater(rank, 0))
        for row in np.flatnonzero(pc.fill_null(wanted, False).to_numpy(zero_copy_only=False)).tolist():
            name = table["id"][row].as_py()
            found[keeper[row].as_py()].append((rank[row].as_py(), name, (path, row)))
    return {keeper: sorted(rows)[:N_MEMBERS] for keeper, rows in found.items()}


def _pair(kept: Mapping[str, Any], removed: Mapping[str, Any], similarity: float | None) -> Html:
    left, right = side_by_side(kept["text"] or "", removed["text"] or "")
    is_same = kept["text"] == removed["text"]
    columns = [
        element(
            "div", element("p", f"{role} \u00b7 {row['id']} \u00b7 {row['domain']}", class_="note"), shown
        )
        for role, row, shown in (("kept", kept, left), ("removed", removed, right))
    ]
    told = "The two texts are the same." if is_same else "Words that only one of the two has are marked."
    if similarity is not None:
        told += f" Their similarity is {similarity:.2f}."
    return join([element("div", *columns, class_="pair"), element("p", told, class_="note")])

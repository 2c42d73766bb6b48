"""Where word profiles disagree: a filter asks a sample of its rows again, with another notion of a word."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..operators.base import Decides, Filter
from ..operators.text_column import one_chunk
from ..operators.word_pass import available_profiles
from .report_html import Html, code, count, counted, element, excerpt, folded, join, number, share, table
from .report_rows import Sample, StageFiles, fetch, read_columns

N_SAMPLED = 2000
N_SAMPLED_SHARDS = 16
MAX_SAMPLED_BYTES, MAX_DOCUMENT_BYTES = 32 << 20, 1 << 20
"""Of text in the sample, and of one document."""
N_SHOWN = 3
EXCERPT_CHARS = 240
KEPT = "kept"


@dataclass
class Disagreement:
    """What another profile would have decided.

    n_rows: rows asked. n_kept: that it would keep. changes: (reason now, reason then) -> rows, `KEPT` one
    of the reasons; only rows of which one is kept and the other dropped.
    """

    profile: str
    n_rows: int
    n_kept: int
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Disagreements:
    """All other profiles over one sample; `n_left_out`: rows whose text is no longer what the filter saw."""

    n_kept: int
    n_left_out: int
    of: list[Disagreement]


def stage_sample(files: StageFiles) -> pa.Table:
    """(id, domain, text, left_for) of up to `N_SAMPLED` rows of a stage, kept ones and dropped ones.

    They are those with the smallest hashes of their ids, of up to `N_SAMPLED_SHARDS` shards from begin to
    end; documents above `MAX_DOCUMENT_BYTES` are left out, and what would pass `MAX_SAMPLED_BYTES` in all.
    """
    sample = Sample(N_SAMPLED)
    kept, dropped = _spread(files.kept), _spread(files.dropped)
    for path in kept:
        ids = read_columns(path, ["id"])["id"]
        sample.add(path, ids, pa.chunked_array([pa.repeat("", len(ids))]))
    for path in dropped:
        rows = read_columns(path, ["id", "dropped_by"])
        is_read = pc.equal(rows["dropped_by"].cast(pa.string()), "read")
        sample.add(path, rows["id"], pc.if_else(is_read, pa.scalar(None, pa.string()), ""))
    places = [(pick.path, pick.row) for pick in sample.picks.get("", [])]
    found = fetch(places, ("id", "domain", "text", "dropped_by", "reason"))
    rows, n_bytes = [], 0
    for place in places:
        row = found[place]
        size = len((row["text"] or "").encode(errors="surrogatepass"))
        if size <= MAX_DOCUMENT_BYTES and n_bytes + size <= MAX_SAMPLED_BYTES:
            n_bytes += size
            left_for = f"{row['dropped_by']}.{row['reason']}" if row["dropped_by"] else None
            rows.append({"id": row["id"], "domain": row["domain"], "text": row["text"], "left_for": left_for})
    kinds = {"id": pa.string(), "domain": pa.string(), "text": pa.large_string(), "left_for": pa.string()}
    return pa.Table.from_pylist(rows, pa.schema(list(kinds.items())))


def _spread(paths: Sequence[Any]) -> list[Any]:
    """At most `N_SAMPLED_SHARDS` of the paths, evenly from the first to the last."""
    if len(paths) <= N_SAMPLED_SHARDS:
        return list(paths)
    return [paths[i] for i in np.linspace(0, len(paths) - 1, N_SAMPLED_SHARDS).astype(int)]


def has_profiles(operator: object) -> bool:
    """Whether a filter can be asked with another notion of a word."""
    return isinstance(operator, Filter) and "profile" in type(operator).model_fields


def disagreements(files: StageFiles, operator: Filter, sample: pa.Table) -> Disagreements:
    """Ask the rows of a stage's sample that reached `operator` again, with each other profile.

    A row counts if the operator's own profile decides over the stored text as it did in the run: one whose
    text was rewritten since may not.
    """
    order = [other.name for other in files.stage.operators]
    behind = pa.array(order[order.index(operator.name) :])
    left_by = pc.list_element(pc.split_pattern(sample["left_for"], ".", max_splits=1), 0)
    is_seen = pc.or_(pc.is_null(sample["left_for"]), pc.fill_null(pc.is_in(left_by, behind), False))
    seen = sample.filter(is_seen)
    prefix = f"{operator.name}."
    stored = [
        reason.removeprefix(prefix) if reason is not None and reason.startswith(prefix) else KEPT
        for reason in seen["left_for"].to_pylist()
    ]
    again, _ = _decide(operator, seen)
    rows = [i for i, (was, now) in enumerate(zip(stored, again, strict=True)) if was == now]
    seen, stored = seen.take(pa.array(rows, pa.int64())), [stored[i] for i in rows]
    current = operator.model_dump()["profile"]
    found = [
        _compare(operator.model_copy(update={"profile": profile}), profile, seen, stored)
        for profile in available_profiles()
        if profile != current
    ]
    return Disagreements(stored.count(KEPT), len(again) - len(rows), found)


def _decide(operator: Filter, rows: pa.Table) -> tuple[list[str], Mapping[str, pa.Array]]:
    scores = operator.scores(rows)
    return [reason or KEPT for reason in operator.reasons(scores).cast(pa.string()).to_pylist()], scores


def _compare(operator: Filter, profile: str, rows: pa.Table, stored: Sequence[str]) -> Disagreement:
    decided, scores = _decide(operator, rows)
    found = Disagreement(profile, len(stored), decided.count(KEPT))
    rule_of = {rule.reason: rule for rule in operator.rules()}
    shown: Counter[bool] = Counter()
    for i, (was, now) in enumerate(zip(stored, decided, strict=True)):
        if (was == KEPT) == (now == KEPT):
            continue
        found.changes[was, now] += 1
        shown[was == KEPT] += 1
        if shown[was == KEPT] <= N_SHOWN:
            rule = rule_of[now if was == KEPT else was]
            value = number(one_chunk(pa.chunked_array([scores[rule.score]]))[i].as_py())
            found.examples.append(
                {name: rows[name][i].as_py() for name in ("id", "domain", "text")}
                | {"was": was, "now": now, "rule": rule, "value": value}
            )
    return found


def profile_part(files: StageFiles, operator: Decides, sample: pa.Table) -> Html:
    """The part of a filter's page about profiles."""
    assert isinstance(operator, Filter)
    found = disagreements(files, operator, sample)
    n_rows = found.of[0].n_rows
    current = operator.model_dump()["profile"]
    told = (
        f"What a word is can decide more than a threshold does. {counted(n_rows, 'document')} that reached "
        "this filter, drawn by a hash of their ids, were asked again with the same thresholds and other "
        f"words. The run's profile is {current}; it keeps {count(found.n_kept)} of them."
    )
    if found.n_left_out:
        told += (
            f" {counted(found.n_left_out, 'more document')} could not be asked, for the text was rewritten "
            "after this filter saw it."
        )
    lines: list[Sequence[str | int]] = []
    for other in found.of:
        n_back = sum(n for (_, now), n in other.changes.items() if now == KEPT)
        n_away = other.changes.total() - n_back
        otherwise = other.changes.total()
        lines.append([other.profile, other.n_kept, n_back, n_away, otherwise, share(otherwise, n_rows)])
    header = ("profile", "would keep", "would come back", "would leave", "decided otherwise", "share")
    parts = [Html("<h3>Other notions of a word</h3>"), element("p", told, class_="text")]
    parts.append(table("lrrrrr", header, lines))
    parts += [_changes(other) for other in found.of if other.changes]
    return join(parts)


def _changes(other: Disagreement) -> Html:
    """Which reasons change, and some documents."""
    ranked = sorted(other.changes.items(), key=lambda change: (-change[1], change[0]))
    lines = [(was, now, n) for (was, now), n in ranked]
    shown = []
    for example in other.examples:
        rule = example["rule"]
        limit = code(str(rule).removeprefix(f"{rule.score} "))
        facts = [
            f"id {example['id']}",
            f"domain {example['domain']}",
            f"{example['was']} \u2192 {example['now']}",
            join([code(rule.score), f" is now {example['value']}, kept only with ", limit], ""),
        ]
        told = element("p", join(facts, " \u00b7 "), class_="note")
        shown.append(element("div", told, excerpt(example["text"], EXCERPT_CHARS), class_="example"))
    title = f"{other.profile}: {counted(other.changes.total(), 'document')} decided otherwise"
    return folded(title, table("llr", ("in this run", "with this profile", "rows"), lines), *shown)

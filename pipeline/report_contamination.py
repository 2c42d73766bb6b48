"""What decontamination found: of which evaluation sets, which items, in which documents, and where."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.compute as pc

from ..kernels.hashing import hash_ranges
from ..operators.decontaminate import Decontaminate
from ..operators.text_column import text_buffers
from .report_html import (
    Html,
    count,
    counted,
    element,
    excerpt_around,
    folded,
    join,
    number,
    paragraph,
    share,
    table,
)
from .report_lines import ScoredRows, scored_rows
from .report_rows import StageFiles, fetch

N_DOCUMENTS, N_ITEMS = 20, 10
SCORES = ("n_ngrams", "overlap_words", "item", "item_fraction", "start", "stop", "n_cuts")


class Met(NamedTuple):
    """A document with words of an item; ordered by the longest overlap, then by the hash of its id."""

    n_words: int
    """Negative, so that the longest comes first."""
    id_hash: int
    place: tuple[Path, int]
    outcome: str


@dataclass
class Contamination:
    """Counts over all documents that reached the operator; the worst ones by name."""

    n_docs: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By (evaluation set, what became of the document)."""
    items: Counter[str] = field(default_factory=Counter)
    """Documents by the item that they hold most of."""
    worst: list[Met] = field(default_factory=list)


def find_contamination(files: StageFiles, operator: Decontaminate) -> Contamination:
    """One pass over the operator's columns, without text."""
    found = Contamination()
    names = ["id", *(f"{operator.name}.{score}" for score in SCORES)]
    for part in scored_rows(files, names):
        _add(found, operator, part.reached(files, operator))
    return found


def _add(found: Contamination, operator: Decontaminate, part: ScoredRows) -> None:
    has_item = pc.is_valid(part.table[f"{operator.name}.item"])
    rows = part.table.filter(has_item)
    if not len(rows):
        return
    left_for = part.left_for.filter(has_item.combine_chunks()).to_pylist()
    positions = part.rows[has_item.to_numpy()].tolist()
    hashes = hash_ranges(*text_buffers(rows["id"])).tolist()
    columns = (rows[f"{operator.name}.{score}"].to_pylist() for score in ("item", "overlap_words", "n_cuts"))
    for row, (item, n_words, n_cuts) in enumerate(zip(*columns, strict=True)):
        reason = left_for[row]
        is_dropped = reason is not None and reason.startswith(f"{operator.name}.")
        outcome = "dropped" if is_dropped else "cut" if n_cuts and operator.rewrites_text else "kept"
        found.n_docs[item.partition(":")[0], outcome] += 1
        found.items[item] += 1
        found.worst.append(Met(-n_words, hashes[row], (part.path, positions[row]), outcome))
    found.worst = sorted(found.worst)[:N_DOCUMENTS]


def contamination_part(files: StageFiles, operator: Decontaminate) -> Html:
    """The part of decontamination's page on evaluation sets."""
    found = find_contamination(files, operator)
    title = Html("<h3>Evaluation items in documents</h3>")
    n_docs = found.n_docs.total()
    searched = ", ".join(Path(path).name for path in operator.paths)
    if not n_docs:
        return join([title, paragraph(f"No document has an n-gram of an item of {searched}.")])
    told = (
        f"{counted(n_docs, 'document')} have n-grams of {counted(len(found.items), 'item')} of {searched}. "
        "A document counts for the item of which it holds the largest share."
    )
    sets = sorted({name for name, _ in found.n_docs})
    outcomes = ("dropped", "cut", "kept") if operator.rewrites_text else ("dropped", "kept")
    lines: list[list[str | int]] = []
    for name in sets:
        n_items = sum(item.partition(":")[0] == name for item in found.items)
        lines.append([name, n_items, *(found.n_docs[name, outcome] for outcome in outcomes)])
    header = ("evaluation set", "items met", *(f"documents {outcome}" for outcome in outcomes))
    ranked = sorted(found.items.items(), key=lambda pair: (-pair[1], pair[0]))[:N_ITEMS]
    return join(
        [
            title,
            paragraph(told),
            table("l" + "r" * (len(header) - 1), header, lines),
            folded("The items in most documents", table("lr", ("item", "documents"), ranked)),
            *_worst(operator, found.worst),
        ]
    )


def _worst(operator: Decontaminate, worst: list[Met]) -> list[Html]:
    names = [f"{operator.name}.{score}" for score in SCORES]
    rows = fetch([met.place for met in worst], ["id", "domain", "text", *names])
    lines: list[list[str]] = []
    shown = []
    for met in worst:
        row: dict[str, Any] = {key.rpartition(".")[2]: value for key, value in rows[met.place].items()}
        where = f"{count(row['start'])} to {count(row['stop'])}"
        held = share(row["item_fraction"])
        lines.append([row["id"], row["item"], held, number(row["overlap_words"]), where, met.outcome])
        if met.outcome != "cut":  # of a text that was cut, the place is another one now
            facts = [f"id {row['id']}", f"item {row['item']}", met.outcome, f"characters {where}"]
            told = element("p", " \u00b7 ".join(facts), class_="note")
            text = excerpt_around(row["text"] or "", row["start"], row["stop"])
            shown.append(element("div", told, text, class_="example"))
    header = ("document", "item", "of its n-grams", "words in a row", "characters", "document was")
    parts = [folded("The longest overlaps", table("llrrrl", header, lines), is_open=True)]
    if shown:
        parts.append(folded("Where they stand", *shown))
    return parts

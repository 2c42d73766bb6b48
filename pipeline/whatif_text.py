"""The outcome of `what_if` for a person at a terminal."""

import json

from rich.console import Console
from rich.table import Table

from .whatif import KEPT, WhatIf


def print_what_if(outcome: WhatIf, out: Console) -> None:
    """What changes, some examples, and what cannot be known."""
    for name, before in outcome.before.items():
        out.print(
            f"{outcome.operator}.{name}: {_yaml(before)} -> {_yaml(outcome.after[name])}",
            style="bold",
            highlight=False,
            markup=False,
        )
    n_changed = sum(outcome.changes.values())
    out.print(
        f"{n_changed:,} of {outcome.n_decided:,} rows change; {outcome.operator} would keep "
        f"{outcome.n_kept_after:,} instead of {outcome.n_kept_before:,}\n",
        highlight=False,
    )
    changes = sorted(outcome.changes.items(), key=lambda change: -change[1])
    table = Table("before", "after", "rows", box=None, header_style="dim", padding=(0, 2, 0, 0))
    for (before, after), n_rows in changes:
        table.add_row(before, after, f"{n_rows:,}")
    if changes:
        out.print(table)
    for (before, after), _ in changes:
        out.print(f"\n{before} -> {after}", style="bold", highlight=False)
        for example in outcome.examples[before, after]:
            value = f"{example.value:.4g}" if isinstance(example.value, float) else str(example.value)
            out.print(f"  {example.id}  {example.score} = {value}", highlight=False, markup=False)
            out.print(f"    {example.text}", style="dim", highlight=False, markup=False)
    _print_unknown(outcome, out)


def _yaml(value: object) -> str:
    """A parameter as a recipe has it."""
    return json.dumps(value, ensure_ascii=False)


def _print_unknown(outcome: WhatIf, out: Console) -> None:
    """The limits of the answer."""
    n_back = sum(n for (_, after), n in outcome.changes.items() if after == KEPT)
    lines = []
    if outcome.unknown:
        listed = ", ".join(f"{name} {n:,}" for name, n in sorted(outcome.unknown.items()))
        lines.append(f"dropped above and never scored by {outcome.operator}: {listed}")
    if outcome.dropped_later:
        listed = ", ".join(f"{name} {n:,}" for name, n in sorted(outcome.dropped_later.items()))
        lines.append(f"would leave here, but left the same stage anyway: {listed}")
    if n_back and outcome.not_asked:
        lines.append(f"{n_back:,} rows would come back; not asked about them: {', '.join(outcome.not_asked)}")
    if outcome.rewrites_text and n_back:
        lines.append(
            f"{outcome.operator} rewrites text, too: the rows that would come back are stored as they came, "
            "and only another run writes what would be left of them"
        )
    if outcome.changes and outcome.not_asked:
        lines.append("fits below (deduplication, thresholds) may decide otherwise about other rows, too")
    if lines:
        out.print("\nNot known from the scores:", style="bold")
        for line in lines:
            out.print(f"  {line}", highlight=False, markup=False)

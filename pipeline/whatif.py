"""What another threshold would have done: a filter decides anew over the scores that a run stored."""

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import ValidationError

from ..operators.base import Decides, Operator, Rule
from .curation import MANIFEST
from .errors import InputError, UsageError
from .plan import Stage, group_stages
from .recipe import parse_operator
from .run_directory import read_json

KEPT = "kept"
SNIPPET_CHARACTERS = 160


@dataclass(frozen=True)
class Example:
    """A row that changes sides: which score decides, and how its text begins."""

    id: str
    score: str
    value: Any
    text: str


@dataclass
class WhatIf:
    """The outcome, exact for the rules of one filter.

    changes: (reason before, reason after) -> rows; `KEPT` is one of the reasons.
    examples: some rows of each change.
    n_decided: rows whose scores are known.
    unknown: rows that an operator above dropped, by that operator: this filter never saw them.
    dropped_later: of the rows that would leave now, those that an operator of the same stage dropped anyway.
    not_asked: the filters below, which have not seen the rows that would come back.
    """

    operator: str
    before: dict[str, Any]
    after: dict[str, Any]
    changes: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: dict[tuple[str, str], list[Example]] = field(default_factory=dict)
    n_decided: int = 0
    n_kept_before: int = 0
    n_kept_after: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    dropped_later: Counter[str] = field(default_factory=Counter)
    not_asked: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Target:
    """The filter in its stage."""

    folder: Path
    filter: Decides
    changed: Decides
    above: frozenset[str]
    below: tuple[str, ...]


def what_if(run_dir: Path, assignments: Sequence[str], n_examples: int = 3) -> WhatIf:
    """Decide again with other thresholds. Texts are read for the examples alone.

    Args:
        assignments: ``[STAGE.]OPERATOR.THRESHOLD=VALUE``, all of one operator.
    Raises:
        UsageError: an assignment names no threshold of a filter of this run, or its value cannot be.
        InputError: the run directory is none, its stage is not complete, or it was made by another version.
    """
    target = _target(run_dir, assignments)
    before, after = target.filter.model_dump(mode="json"), target.changed.model_dump(mode="json")
    moved = [name for name in before if before[name] != after[name]]
    outcome = WhatIf(
        target.filter.name,
        {name: before[name] for name in moved},
        {name: after[name] for name in moved},
        not_asked=target.below,
    )
    for part in sorted(target.folder.glob("part-*.parquet")):
        for path in (part, target.folder / "dropped" / part.name):
            _decide(path, target, outcome, n_examples)
    return outcome


def thresholds(operator: type[Operator]) -> frozenset[str]:
    """The parameters that an operator's rules read and nothing else does: moving one changes no score."""
    read = {}
    for kind in reversed(operator.__mro__):
        if issubclass(kind, Decides) and kind is not Decides:
            for name, value in vars(kind).items():
                function = value.fget if isinstance(value, property) else value
                if isinstance(function, FunctionType):
                    read[name] = _names(function.__code__)
    elsewhere = frozenset().union(*(names for function, names in read.items() if function != "rules"))
    return (read.get("rules", frozenset()) & operator.model_fields.keys()) - elsewhere


def _names(code: CodeType) -> frozenset[str]:
    """Every name that code asks an object for, in nested functions too."""
    nested = (_names(constant) for constant in code.co_consts if isinstance(constant, CodeType))
    return frozenset(code.co_names).union(*nested)


def _target(run_dir: Path, assignments: Sequence[str]) -> _Target:
    plan = run_dir / "plan.json"
    if not plan.exists():
        raise InputError(f"{run_dir} holds no plan.json: it is no run directory of cuvee")
    resolved = read_json(plan)
    try:
        operators = [parse_operator(entry, None) for entry in resolved["recipe"]["curate"]]
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"{plan}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    stages = group_stages(operators, None, "")
    found = {one.name: (stage, one) for stage in stages for one in stage.operators}
    names, values = set(), {}
    for assignment in assignments:
        name, parameter, value = _assignment(assignment, resolved["stages"], found)
        names.add(name)
        values[parameter] = value
    if len(names) > 1:
        raise UsageError(
            f"found thresholds of {' and '.join(sorted(names))}; the answer is exact for one filter at a time"
        )
    stage, operator = found[names.pop()]
    folder = run_dir / "stages" / resolved["stages"][stage.index]
    if not (folder / MANIFEST).exists():
        raise InputError(f"{folder} is not complete; run the recipe to its end first")
    position = stage.operators.index(operator)
    later = [one for behind in stages[stage.index + 1 :] for one in behind.operators]
    below = [other.name for other in (*stage.operators[position + 1 :], *later) if isinstance(other, Decides)]
    above = frozenset(other.name for other in stage.operators[:position]) | {"read"}
    assert isinstance(operator, Decides)
    return _Target(folder, operator, _changed(operator, values), above, tuple(below))


def _assignment(
    text: str, folders: Sequence[str], found: Mapping[str, tuple[Stage, Operator]]
) -> tuple[str, str, Any]:
    """(operator, threshold, value) of one argument."""
    path, equals, value = text.partition("=")
    *prefix, name, parameter = path.split(".") if "." in path else ("", path)
    if not (equals and name):
        raise UsageError(
            f"found {text!r}; write OPERATOR.THRESHOLD=VALUE, such as gopher_quality.min_words=30"
        )
    if name not in found:
        raise UsageError(f"{text}: this run has no operator {name!r}; {_near(name, found)}")
    stage, operator = found[name]
    folder = folders[stage.index]
    if not folder.startswith(".".join(prefix)):
        raise UsageError(f"{text}: {name!r} stands in the stage {folder!r}; name that, or leave it out")
    if not isinstance(operator, Decides):
        raise UsageError(f"{text}: {name!r} drops nothing; there is no threshold to move")
    movable = thresholds(type(operator))
    if parameter not in type(operator).model_fields:
        raise UsageError(f"{text}: {name!r} has no parameter {parameter!r}; {_near(parameter, movable)}")
    if parameter not in movable:
        raise UsageError(
            f"{text}: {parameter!r} changes the scores themselves, which only another run can do; "
            f"thresholds of {name!r}: {', '.join(sorted(movable)) or 'none'}"
        )
    return name, parameter, yaml.safe_load(value)


def _near(name: str, known: Sequence[str] | Mapping[str, Any] | frozenset[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(sorted(known)) or 'none'}"


def _changed(operator: Decides, values: Mapping[str, Any]) -> Decides:
    try:
        changed = parse_operator({operator.name: operator.model_dump(mode="json") | dict(values)}, None)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(f"{where}: found {first['input']!r}; {first['msg'].lower()}") from None
    assert isinstance(changed, Decides)
    return changed


def _decide(path: Path, target: _Target, outcome: WhatIf, n_examples: int) -> None:
    """Add one file's rows to the outcome."""
    scores = list(target.filter.writes)
    names = pq.read_schema(path).names
    table = pq.read_table(path, columns=[name for name in ("dropped_by", *scores) if name in names])
    rows = np.arange(len(table))
    by = table["dropped_by"].to_pylist() if "dropped_by" in names else [None] * len(table)
    seen = np.array([name not in target.above for name in by], dtype=bool)
    outcome.unknown.update(name for name in by if name in target.above)
    if not seen.any():
        return
    rows, table = rows[seen], table.filter(pa.array(seen)).combine_chunks()
    by = [by[row] for row in rows]
    columns = {name: table[name].combine_chunks() for name in scores}
    before, after = _decisions(target.filter, columns), _decisions(target.changed, columns)
    if any((was != KEPT) != (name == target.filter.name) for was, name in zip(before, by, strict=True)):
        raise InputError(
            f"{path}: its scores don't give its decisions; another version made it: run it again"
        )
    outcome.n_decided += len(rows)
    outcome.n_kept_before += before.count(KEPT)
    outcome.n_kept_after += after.count(KEPT)
    changes: dict[tuple[str, str], list[int]] = {}
    for i, change in enumerate(zip(before, after, strict=True)):
        if change[0] != change[1]:
            changes.setdefault(change, []).append(i)
            if change[0] == KEPT and (later := by[i]) is not None:
                outcome.dropped_later[later] += 1
    for change, where in changes.items():
        outcome.changes[change] += len(where)
        shown = outcome.examples.setdefault(change, [])
        chosen = where[: n_examples - len(shown)]
        shown += _examples(path, rows, chosen, columns, _deciding_rule(target, change))


def _decisions(operator: Decides, scores: Mapping[str, pa.Array]) -> list[str]:
    return [reason or KEPT for reason in operator.reasons(scores).cast(pa.string()).to_pylist()]


def _deciding_rule(target: _Target, change: tuple[str, str]) -> Rule:
    """The rule of the reason that a row has now, or had before it came back."""
    before, after = change
    rules = target.filter.rules() if after == KEPT else target.changed.rules()
    return next(rule for rule in rules if rule.reason == (before if after == KEPT else after))


def _examples(
    path: Path, rows: np.ndarray, chosen: Sequence[int], columns: Mapping[str, pa.Array], rule: Rule
) -> Iterator[Example]:
    if not chosen:
        return
    documents = pq.read_table(path, columns=["id", "text"]).take([int(rows[i]) for i in chosen]).to_pylist()
    for i, document in zip(chosen, documents, strict=True):
        text = " ".join((document["text"] or "").split())[:SNIPPET_CHARACTERS]
        yield Example(document["id"], rule.score, columns[rule.score][i].as_py(), text)

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

from ..operators.base import Decides, Filter, Operator, Rule
from .curation import MANIFEST
from .errors import InputError, UsageError
from .plan import Stage, group_stages
from .recipe import parse_operator
from .run_directory import damaged, read_json

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
    rewrites_text: the filter writes text, too: of rows that would come back only another run writes it.
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
    rewrites_text: bool = False


@dataclass(frozen=True)
class _Target:
    """The filter in its stage.

    again: the columns from which `changed` scores anew, none of them text; None: the stored scores hold.
    """

    folder: Path
    filter: Decides
    changed: Decides
    above: frozenset[str]
    below: tuple[str, ...]
    again: tuple[str, ...] | None

    @property
    def scores(self) -> list[str]:
        """The stored scores that decide."""
        rules = (*self.filter.rules(), *(self.changed.rules() if self.again is None else ()))
        return sorted({rule.score for rule in rules} or set(self.filter.writes) - {"text"})


def what_if(run_dir: Path, assignments: Sequence[str], n_examples: int = 3) -> WhatIf:
    """Decide again with other thresholds. Texts are read for the examples alone.

    Args:
        assignments: ``[STAGE.]OPERATOR.THRESHOLD=VALUE``, all of one operator. A filter that reads no text,
            such as `where`, takes any of its parameters: its scores are made anew from stored columns.
    Raises:
        UsageError: an assignment names no threshold of a filter of this run, or its value cannot be.
        InputError: the run directory is none, its stage is not complete, or it was made by another version.
        DamagedRunError: a part is not what was written.
    """
    target = _target(run_dir, assignments)
    before, after = target.filter.model_dump(mode="json"), target.changed.model_dump(mode="json")
    moved = [name for name in before if before[name] != after[name]]
    outcome = WhatIf(
        target.filter.name,
        {name: before[name] for name in moved},
        {name: after[name] for name in moved},
        not_asked=target.below,
        rewrites_text=target.changed.rewrites_text,
    )
    parts = sorted(target.folder.glob("part-*.parquet"))
    _check_columns(target, parts)
    for part in parts:
        for path in (part, target.folder / "dropped" / part.name):
            try:
                _decide(path, target, outcome, n_examples)
            except (OSError, pa.ArrowException) as error:
                raise damaged(path, error) from error
    return outcome


def _check_columns(target: _Target, parts: Sequence[Path]) -> None:
    """Refuse what the changed filter reads and no part has."""
    there = {name for part in parts for name in pq.read_schema(part).names}
    for column in target.again or ():
        if column not in there:
            raise UsageError(
                f"{target.filter.name}: the stage has no column {column!r}; {_near(column, sorted(there))}"
            )


def _asked_by_rules(operator: Decides) -> set[str]:
    """Every name that an operator's rules ask it for, as they are made."""
    asked: set[str] = set()

    class Recorder(type(operator)):  # type: ignore[misc]
        def __getattribute__(self, name: str) -> Any:
            asked.add(name)
            return super().__getattribute__(name)

    recorder = Recorder.model_construct(**vars(operator))
    asked.clear()
    recorder.rules()
    return asked


def thresholds(operator: Decides) -> frozenset[str]:
    """The parameters that an operator's rules ask for and nothing else does: moving one changes no score.

    What rules ask for is seen as they are made; what else the operator's code asks for is read from it, and
    code that asks for names that it makes up is taken to ask for every parameter.
    """
    asked = _asked_by_rules(operator)
    elsewhere: dict[str, frozenset[str]] = {}
    for kind in reversed(type(operator).__mro__):
        if issubclass(kind, Decides) and kind is not Decides:
            for name, value in vars(kind).items():
                function = value.fget if isinstance(value, property) else value
                if isinstance(function, FunctionType) and name not in ("rules", "identity"):
                    elsewhere[name] = _names(function.__code__)
    asked_elsewhere = frozenset().union(*elsewhere.values())
    if "getattr" in asked_elsewhere:
        return frozenset()
    return frozenset(asked & type(operator).model_fields.keys()) - asked_elsewhere


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
    changed = _changed(operator, values)
    again = None if values.keys() <= thresholds(operator) else stored_columns(stage, changed)
    limits = [[_limits(rule) for rule in one.rules()] for one in (operator, changed)]
    if again is None and operator != changed and limits[0] == limits[1]:
        raise UsageError(f"{', '.join(values)} of {operator.name!r} names a reason and decides nothing")
    return _Target(folder, operator, changed, above, tuple(below), again)


def _limits(rule: Rule) -> tuple[Any, ...]:
    return rule.score, rule.minimum, rule.maximum, rule.allowed


def stored_columns(stage: Stage, operator: Operator) -> tuple[str, ...] | None:
    """What a filter of a stage reads, if that is stored as the filter saw it and holds no text; else None."""
    names = [other.name for other in stage.operators]
    at = names.index(operator.name)
    rewritten = {column for other in stage.operators[at:] for column in other.writes}
    reads = operator.columns_read(operator.model_dump(mode="json"))
    if not isinstance(operator, Filter) or "text" in reads or rewritten & set(reads):
        return None
    return reads


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
    movable = thresholds(operator)
    if stored_columns(stage, operator) is not None:
        movable = frozenset(type(operator).model_fields)
    if parameter not in type(operator).model_fields:
        raise UsageError(f"{text}: {name!r} has no parameter {parameter!r}; {_near(parameter, movable)}")
    if parameter not in movable:
        changes = (
            "the text that the filter writes, or its scores"
            if operator.rewrites_text
            else "the scores themselves"
        )
        raise UsageError(
            f"{text}: {parameter!r} changes {changes}, which only another run can do; "
            f"thresholds of {name!r}: {', '.join(sorted(movable)) or 'none'}"
        )
    return name, parameter, _value(text, value)


def _value(text: str, value: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        raise UsageError(f"{text}: {value!r} is no YAML value; put it into quotation marks") from None


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
    names = pq.read_schema(path).names
    wanted = dict.fromkeys(["dropped_by", *target.scores, *(target.again or ())])
    table = pq.read_table(path, columns=[name for name in wanted if name in names])
    by = table["dropped_by"].to_pylist() if "dropped_by" in names else [None] * len(table)
    seen = np.array([name not in target.above for name in by], dtype=bool)
    outcome.unknown.update(name for name in by if name in target.above)
    if not seen.any():
        return
    rows, table = np.flatnonzero(seen), table.filter(pa.array(seen)).combine_chunks()
    by = [by[row] for row in rows]
    stored = {name: table[name].combine_chunks() for name in target.scores}
    scores = stored if target.again is None else _scored_anew(target, table)
    before, after = _decisions(target.filter, stored), _decisions(target.changed, scores)
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
        columns = stored if change[1] == KEPT else scores
        shown += _examples(path, rows, chosen, columns, _deciding_rule(target, change))


def _scored_anew(target: _Target, table: pa.Table) -> Mapping[str, pa.Array]:
    """The scores of the changed filter, from stored columns."""
    assert isinstance(target.changed, Filter)
    try:
        return target.changed.scores(table)
    except ValueError as error:
        raise UsageError(f"{target.changed.name}: {error}") from None


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

"""What no single value of a recipe can get wrong: how its parts fit together.

The checks look at the plain values of a file, so they find what they can even where something else is broken.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..operators.base import Operator
from ..operators.registry import find_operator, operator_names
from .located_yaml import LocatedYaml, Problem, near


def cross_checks(recipe: Mapping[str, Any], document: LocatedYaml) -> list[Problem]:
    """Every way in which the parts of `recipe` contradict each other."""
    inputs = [entry if isinstance(entry, dict) else {} for entry in _list(recipe.get("inputs"))]
    return [
        *_sources(inputs, document),
        *_domains(inputs),
        *_operators(_list(recipe.get("curate")), document),
        *_repeat(recipe),
        *_sections(recipe),
        *_objective(recipe, inputs),
        *_settings_without_effect(recipe),
    ]


def _sources(inputs: Sequence[Mapping[str, Any]], document: LocatedYaml) -> Iterator[Problem]:
    first: dict[Any, int] = {}
    for i, entry in enumerate(inputs):
        source = entry.get("source")
        if not isinstance(source, str):
            continue
        if source in first:
            line = document.position(("inputs", first[source], "source")).line
            yield Problem(
                ("inputs", i, "source"), f"{source!r} is the source on line {line} already; name it otherwise"
            )
        first.setdefault(source, i)


def _domains(inputs: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    for i, entry in enumerate(inputs):
        if entry.get("format") == "text" and entry.get("columns"):
            yield Problem(("inputs", i, "columns"), "a text file has no columns; leave this key out")
        if entry.get("domain") is not None and "domain" in _mapping(entry.get("columns")):
            message = "the domain is this constant and a column at once; leave one of the two out"
            yield Problem(("inputs", i, "domain"), message)


def _operators(curate: Sequence[Any], document: LocatedYaml) -> Iterator[Problem]:
    """Two operators of one name would write the same columns; a column is read only below its writer."""
    listed = _listed(curate)
    first: dict[str, int] = {}
    for i, operator in listed.items():
        if operator.name in first:
            line = document.position(("curate", first[operator.name])).line
            found = f"this operator stands on line {line} already; both would write {operator.name}.*"
            yield Problem(("curate", i, operator.name), f"{found}; keep one of the two")
        first.setdefault(operator.name, i)
        above = {column for j, other in listed.items() if j < i for column in other.writes}
        entry = curate[i]
        parameters = _mapping(entry.get(operator.name)) if isinstance(entry, dict) else {}
        for column in operator.columns_read(parameters):
            if isinstance(column, str) and column not in above and column not in operator.writes:
                yield from _unwritten(column, i, listed, document)


def _listed(curate: Sequence[Any]) -> dict[int, type[Operator]]:
    """The operators of `curate` that exist, by their place."""
    names = [next(iter(entry)) if isinstance(entry, dict) and len(entry) == 1 else entry for entry in curate]
    return {
        i: find_operator(name)
        for i, name in enumerate(names)
        if isinstance(name, str) and name in operator_names()
    }


def _repeat(recipe: Mapping[str, Any]) -> Iterator[Problem]:
    """A weight that is asked for by name and that no operator of the recipe writes."""
    column = _mapping(recipe.get("tokenize")).get("repeat")
    if not isinstance(column, str) or column.partition(".")[0] not in operator_names():
        return
    writer = column.partition(".")[0]
    listed = [
        next(iter(entry), None) if isinstance(entry, dict) else entry for entry in _list(recipe.get("curate"))
    ]
    writes = find_operator(writer).writes
    if column not in writes:
        yield Problem(
            ("tokenize", "repeat"),
            f"{writer!r} does not write {column!r}; {near(column, writes)}",
        )
    elif writer not in listed:
        yield Problem(
            ("tokenize", "repeat"), f"{writer!r} writes {column!r} and is not in 'curate'; add '- {writer}'"
        )


def _unwritten(
    column: str, i: int, listed: Mapping[int, type[Operator]], document: LocatedYaml
) -> Iterator[Problem]:
    """A column named like an operator's can come from that operator alone; others may come with the input."""
    writer, dot, _ = column.partition(".")
    if not dot or writer not in operator_names():
        return
    writes = find_operator(writer).writes
    needs = f"reads the column {column!r}"
    below = next((j for j, other in listed.items() if column in other.writes), None)
    if column not in writes:
        remedy = f"which {writer!r} does not write; {near(column, writes)}"
    elif below is None:
        remedy = f"which {writer!r} writes; add '- {writer}' above it"
    else:
        line = document.position(("curate", below)).line
        remedy = f"which {writer!r} writes only later, on line {line}; move it above this line"
    yield Problem(("curate", i, listed[i].name), f"{needs}, {remedy}")


def _sections(recipe: Mapping[str, Any]) -> Iterator[Problem]:
    for section, needed in (("mix", "tokenize"), ("train", "mix")):
        if section in recipe and needed not in recipe:
            yield Problem((section,), f"this needs the section {needed!r}; add a line '{needed}: {{}}'")


def _objective(recipe: Mapping[str, Any], inputs: Sequence[Mapping[str, Any]]) -> Iterator[Problem]:
    """Weights for domains that no input has, where inputs tell the domains and neither data nor operators."""
    if not inputs or any("domain" in _mapping(entry.get("columns")) for entry in inputs):
        return
    if any("domain" in operator.writes for operator in _listed(_list(recipe.get("curate"))).values()):
        return
    domains = sorted({str(entry.get("domain") or entry.get("source")) for entry in inputs})
    for domain in _mapping(_mapping(recipe.get("mix")).get("objective")):
        if domain not in domains:
            yield Problem(
                ("mix", "objective", domain), f"no input has the domain {domain!r}; {near(domain, domains)}"
            )


def _settings_without_effect(recipe: Mapping[str, Any]) -> Iterator[Problem]:
    tokenize, engine = _mapping(recipe.get("tokenize")), _mapping(recipe.get("engine"))
    if tokenize.get("tokenizer") is not None:
        for key in ("vocab_size", "max_training_bytes"):
            if key in tokenize:
                message = "this belongs to a tokenizer that is trained, and 'tokenizer' names a finished one"
                yield Problem(("tokenize", key), f"{message}; leave one of the two out")
    if engine.get("address") is not None and engine.get("kind", "local") == "local":
        yield Problem(
            ("engine", "address"), "the local engine has no address; write 'kind: ray', or leave this out"
        )


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()

"""Operators by name: the built-in ones, and those that other distributions offer as `cuvee.operators`.

A recipe of one filter needs neither a model's tokenizer nor sparse matrices: an operator is imported when it
is asked for.
"""

import difflib
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from .base import Operator

BUILT_IN = {
    "url_filter": "UrlFilter",
    "extract": "Extract",
    "fix_unicode": "FixUnicode",
    "normalise": "Normalise",
    "language": "Language",
    "length": "Length",
    "gopher_repetition": "GopherRepetition",
    "gopher_quality": "GopherQuality",
    "c4": "C4",
    "fineweb": "Fineweb",
    "fineweb2": "Fineweb2",
    "where": "Where",
    "url_dedup": "UrlDedup",
    "exact_dedup": "ExactDedup",
    "minhash_dedup": "MinHashDedup",
    "paragraph_dedup": "ParagraphDedup",
    "substring_dedup": "SubstringDedup",
    "decontaminate": "Decontaminate",
    "rehydrate": "Rehydrate",
    "cluster": "Cluster",
    "semantic_dedup": "SemanticDedup",
    "prototype_pruning": "PrototypePruning",
    "ingenious": "Ingenious",
    "dataset_quantization": "DatasetQuantization",
    "ngram_loss": "NgramLoss",
    "difference_sampling": "DifferenceSampling",
    "salt": "Salt",
    "random_calibrated": "RandomCalibrated",
    "pii": "Pii",
    "symbol_lines": "SymbolLines",
}
"""Module, which is the operator's name, and class, in the order of a pipeline."""
ENTRY_POINTS = "cuvee.operators"


class UnknownOperatorError(ValueError):
    """A recipe names an operator that nobody provides."""


def operators() -> dict[str, type[Operator]]:
    """Every operator of this installation by its name in a recipe, built-in ones first.

    Raises:
        ValueError: a distribution's entry point holds no `Operator`, or takes a name that is already taken.
    """
    return {name: _built_in(name) for name in BUILT_IN} | offered_operators()


@cache
def offered_operators() -> dict[str, type[Operator]]:
    """The operators of other distributions by name.

    Raises:
        ValueError: an entry point holds no `Operator`, or takes a name that is already taken.
    """
    found: dict[str, type[Operator]] = {}
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        operator = _loaded(point)
        if point.name in BUILT_IN or point.name in found:
            holder = _built_in(point.name) if point.name in BUILT_IN else found[point.name]
            raise ValueError(f"{_where(point)}: the name is taken by {holder.__module__}; choose another")
        found[point.name] = operator
    return found


def find_operator(name: str) -> type[Operator]:
    """The operator called `name`.

    Raises:
        UnknownOperatorError: with the nearest name, or all names.
    """
    if name in BUILT_IN:
        return _built_in(name)
    offered = offered_operators()
    if name in offered:
        return offered[name]
    names = operator_names()
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names)}"
    raise UnknownOperatorError(f"unknown operator {name!r}; {hint}")


def operator_names() -> list[str]:
    """The names of all operators, none of the built-in ones imported."""
    return [*BUILT_IN, *offered_operators()]


@cache
def _built_in(name: str) -> type[Operator]:
    operator: type[Operator] = getattr(import_module(f".{name}", __package__), BUILT_IN[name])
    assert operator.name == name, f"{operator} calls itself {operator.name!r}"
    return operator


def _loaded(point: EntryPoint) -> type[Operator]:
    operator = point.load()
    if not (isinstance(operator, type) and issubclass(operator, Operator)):
        raise ValueError(
            f"{_where(point)}: found {operator!r}, a subclass of cuvee.operators.base.Operator is needed"
        )
    if point.name != operator.name:
        raise ValueError(
            f"{_where(point)}: the class calls itself {operator.name!r}; both names must be the same"
        )
    return operator


def _where(point: EntryPoint) -> str:
    return f"entry point {point.name!r} ({point.value}) of group {ENTRY_POINTS!r}"

"""One number to minimise from the metrics of a run: a mean, the worst, or any expression."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Kind = Literal["mean", "weighted", "worst", "expression"]
Binary = Callable[[Any, Any], Any]

_OPERATORS: dict[type[ast.operator], Binary] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
}
_OF_ONE: dict[str, Callable[[Any], Any]] = {"exp": np.exp, "log": np.log, "sqrt": np.sqrt, "abs": np.abs}
_OF_SEVERAL: dict[str, Callable[..., Any]] = {
    "max": lambda *values: reduce(np.maximum, values),
    "min": lambda *values: reduce(np.minimum, values),
    "mean": lambda *values: reduce(np.add, values) / len(values),
}


@dataclass(frozen=True)
class Objective:
    """One number to minimise from the metrics of a run.

    Attributes:
        kind: "mean" of all metrics, "weighted" mean by `by_metric`, "worst": the largest metric minus its
            value in `by_metric` (a reference run's losses; without them the domain of the highest entropy
            decides alone), or "expression".
        by_metric: weights or reference values by metric name; a metric not named has 0.
        expression: of metrics and numbers, with ``+ - * / **``, brackets, ``exp log sqrt abs`` of one, ``max
            min mean`` of several. A metric whose name is no Python name is written ``metric["its name"]``.
            Never executed as Python.
    Raises:
        ValueError: the expression cannot be read, or is given with another kind; weights that are negative or
            all zero; a value that is not finite.

    >>> Objective("weighted", {"wiki": 3.0, "web": 1.0})(np.array([2.0, 4.0]), ("web", "wiki"))
    array(3.5)
    >>> harmonic = Objective("expression", expression="2 / (1 / web + 1 / metric['wiki'])")
    >>> harmonic(np.array([2.0, 6.0]), ("web", "wiki"))
    array(3.)
    """

    kind: Kind = "mean"
    by_metric: Mapping[str, float] | None = None
    expression: str | None = None

    def __post_init__(self) -> None:
        if (self.kind == "expression") != (self.expression is not None):
            raise ValueError(
                f"objective: kind is '{self.kind}', expression is {self.expression!r}; "
                "the kind 'expression' has one, and no other kind has."
            )
        if self.expression is not None:
            _parsed(self.expression)
        if self.kind not in get_args(Kind):
            raise ValueError(f"objective: kind is '{self.kind}'; it is one of {', '.join(get_args(Kind))}.")
        given = dict(self.by_metric or {})
        is_weighted = self.kind == "weighted"
        if not all(map(math.isfinite, given.values())) or (is_weighted and not _are_weights(given.values())):
            raise ValueError(
                f"objective: {'weights' if is_weighted else 'references'} are {given}; they must be "
                "finite, and weights not negative, one of them positive. Of a metric of which more is "
                "better, write the expression: --objective=-accuracy."
            )

    def __call__(self, metrics: Floats, metric_names: tuple[str, ...]) -> Floats:
        """From metrics (..., J) to objectives (...).

        Raises:
            ValueError: a metric that there is not.
        """
        if self.expression is not None:
            columns = dict(zip(metric_names, np.moveaxis(metrics, -1, 0), strict=True))
            with np.errstate(all="ignore"):  # `finite` says it in words
                value = _value(_parsed(self.expression), columns, self.expression)
            return np.asarray(np.broadcast_to(value, metrics.shape[:-1]))
        given = self.by_metric or {}
        unknown = sorted(set(given) - set(metric_names))
        if unknown:
            raise ValueError(
                f"objective: unknown metric '{unknown[0]}'; the metrics are {', '.join(metric_names)}."
            )
        values = np.array([given.get(name, 0.0) for name in metric_names])
        if self.kind == "worst":
            return np.asarray((metrics - values).max(axis=-1))
        if self.kind == "mean":
            values = np.ones(len(metric_names))
        return np.asarray(metrics @ (values / values.sum()))

    def finite(self, metrics: Floats, metric_names: tuple[str, ...]) -> Floats:
        """The same, where a mixture is to be chosen by it.

        Raises:
            ValueError: as of a call, or the objective of some metrics is not finite.
        """
        values = self(metrics, metric_names)
        broken = ~np.isfinite(values)
        if broken.any():
            first = metrics[broken].reshape(-1, len(metric_names))[0].tolist()
            named = zip(metric_names, first, strict=True)
            at = ", ".join(f"{name} = {value:.4g}" for name, value in named)
            raise ValueError(
                f"objective: '{self.expression or self.kind}' is {values[broken][0]} at {at}; take one that "
                "is finite wherever the metrics may come to lie."
            )
        return values


MEAN = Objective("mean")


def _are_weights(values: Collection[float]) -> bool:
    """Whether none is negative, and one is positive."""
    return all(value >= 0 for value in values) and any(value > 0 for value in values)


def _parsed(source: str) -> ast.expr:
    """The expression's tree, whose parts are all known."""
    try:
        tree = ast.parse(source.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        at = error.offset - 1 if isinstance(error, SyntaxError) and error.offset else 0
        raise ValueError(_show(source, at, f"cannot read this: {error.args[0]}")) from None
    _check(tree, source)
    return tree


def _check(node: ast.expr, source: str) -> None:
    """Refuse whatever an objective does not have."""
    match node:
        case ast.Name() | ast.Subscript(value=ast.Name(id="metric"), slice=ast.Constant(value=str())):
            pass
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            pass
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            _check(operand, source)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            _check(left, source)
            _check(right, source)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if args and (
            name in _OF_SEVERAL or (name in _OF_ONE and len(args) == 1)
        ):
            for argument in args:
                _check(argument, source)
        case _:
            allowed = "metrics, numbers, + - * / **, exp log sqrt abs, max min mean are allowed"
            raise ValueError(
                _show(source, node.col_offset, f"this {type(node).__name__} has no place here; {allowed}")
            )


def _value(node: ast.expr, columns: Mapping[str, Floats], source: str) -> Any:
    match node:
        case ast.Name() | ast.Subscript():
            name = node.id if isinstance(node, ast.Name) else ast.literal_eval(node.slice)
            if name not in columns:
                near = get_close_matches(name, columns, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(columns)}"
                raise ValueError(_show(source, node.col_offset, f"there is no metric '{name}'; {hint}"))
            return columns[name]
        case ast.Constant(value=value):
            return value
        case ast.UnaryOp(op=op, operand=operand):
            value = _value(operand, columns, source)
            return -value if isinstance(op, ast.USub) else value
        case ast.BinOp(left=left, op=op, right=right):
            return _OPERATORS[type(op)](_value(left, columns, source), _value(right, columns, source))
        case ast.Call(func=ast.Name(id=name), args=args):
            values = [_value(argument, columns, source) for argument in args]
            return _OF_SEVERAL[name](*values) if name in _OF_SEVERAL else _OF_ONE[name](values[0])
    raise AssertionError(f"_check lets no {type(node).__name__} through")


def _show(source: str, offset: int, message: str) -> str:
    line = " ".join(source.strip().splitlines())
    return f"objective: {message}\n  {line}\n  {' ' * offset}^"

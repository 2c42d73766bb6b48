"""Conditions over columns, as a recipe writes them: parsed into a tree of known parts, never executed as
Python.

    0.5 <= language.confidence and lang in ["en", "de"] or not gopher_quality.n_words < 100

A name is a column, dots included. There are comparisons (chains too), ``in`` and ``not in`` a list, ``is
None`` and ``is not None``, ``and``, ``or``, ``not``, ``+ - * /``, numbers, strings, True and False, and
brackets.
"""

import ast
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .base import UnsuitableDataError, no_column

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: pc.add,
    ast.Sub: pc.subtract,
    ast.Mult: pc.multiply,
    ast.Div: lambda a, b: pc.divide(pc.cast(a, pa.float64()), pc.cast(b, pa.float64())),
}


class ExpressionError(UnsuitableDataError):
    """A condition that cannot be read, or does not fit the columns; the message shows where."""


class Expression:
    """A condition over columns.

    Args:
        source: the condition, as above.
    Raises:
        ExpressionError: it cannot be read.

    >>> Expression("a.n > 1 and b in ['x', 'y']").columns
    ('a.n', 'b')
    """

    def __init__(self, source: str) -> None:
        self.source = source
        try:
            self.tree = ast.parse(source.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            at = error.offset - 1 if isinstance(error, SyntaxError) and error.offset else 0
            raise ExpressionError(self._show(at, f"cannot read this: {error.args[0]}")) from None
        names: dict[str, None] = {}
        self._check(self.tree, names)
        if not isinstance(self.tree, ast.Compare | ast.BoolOp | ast.Name | ast.Attribute) and not (
            isinstance(self.tree, ast.UnaryOp) and isinstance(self.tree.op, ast.Not)
        ):
            raise ExpressionError(
                self._show(self.tree.col_offset, "this is a value; a condition compares values")
            )
        self.columns = tuple(names)

    def holds(self, table: pa.Table) -> pa.BooleanArray:
        """bool, (n_rows,): whether each row fulfils the condition; null where a null decides (as in SQL).

        Raises:
            ExpressionError: a column is not there, or a comparison does not fit the columns' types.
        """
        result = self._value(self.tree, table)
        if isinstance(result, pa.ChunkedArray):
            result = result.combine_chunks()
        if isinstance(result, pa.Scalar):
            result = pa.repeat(result, len(table))
        if result.type != pa.bool_():
            kind = f"this column holds {result.type}; compare it with something"
            raise ExpressionError(self._show(self.tree.col_offset, kind))
        return result

    def _check(self, node: ast.expr, names: dict[str, None]) -> None:
        """Refuse whatever is not one of the parts above, and note the columns."""
        match node:
            case ast.Name() | ast.Attribute():
                names[self._column(node)] = None
            case ast.Constant(value=int(number)) if not -(2**63) <= number < 2**63:
                message = "this number has more than 64 bits; write a smaller one"
                raise ExpressionError(self._show(node.col_offset, message))
            case ast.Constant(value=bool() | int() | float() | str()):
                pass
            case ast.BoolOp(values=values):
                for value in values:
                    self._check(value, names)
            case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
                self._check(operand, names)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
                self._check(left, names)
                self._check(right, names)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                self._check(left, names)
                for comparison, other in zip(ops, comparators, strict=True):
                    self._check_comparison(comparison, other, names)
            case _:
                what = f"{type(node).__name__} has no place in a condition"
                allowed = (
                    "columns, numbers, strings, comparisons, in, is None, and, or, not, + - * / are allowed"
                )
                raise ExpressionError(self._show(node.col_offset, f"{what}; {allowed}"))

    def _check_comparison(self, op: ast.cmpop, right: ast.expr, names: dict[str, None]) -> None:
        if isinstance(op, ast.In | ast.NotIn):
            constants = isinstance(right, ast.List | ast.Tuple) and all(
                isinstance(entry, ast.Constant) for entry in right.elts
            )
            if not constants:
                message = "a list of strings or numbers must follow 'in', as in ['en', 'de']"
                raise ExpressionError(self._show(right.col_offset, message))
        elif isinstance(op, ast.Is | ast.IsNot):
            if not (isinstance(right, ast.Constant) and right.value is None):
                raise ExpressionError(self._show(right.col_offset, "only None can follow 'is'; use == here"))
        else:
            self._check(right, names)

    def _column(self, node: ast.expr) -> str:
        parts = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name):
            raise ExpressionError(self._show(node.col_offset, "a column's name must stand before this dot"))
        return ".".join([node.id, *reversed(parts)])

    def _value(self, node: ast.expr, table: pa.Table) -> Any:
        match node:
            case ast.Name() | ast.Attribute():
                return self._read(node, table)
            case ast.Constant(value=value):
                return pa.scalar(value)
            case ast.BoolOp(op=op, values=values):
                combine = pc.and_kleene if isinstance(op, ast.And) else pc.or_kleene
                result = self._value(values[0], table)
                for other in values[1:]:
                    result = self._apply(combine, node, result, self._value(other, table))
                return result
            case ast.UnaryOp(op=op, operand=operand):
                negate = pc.invert if isinstance(op, ast.Not) else pc.negate
                return self._apply(negate, node, self._value(operand, table))
            case ast.BinOp(left=left, op=op, right=right):
                return self._apply(
                    _ARITHMETIC[type(op)], node, self._value(left, table), self._value(right, table)
                )
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                return self._chain(node, self._value(left, table), zip(ops, comparators, strict=True), table)
        raise AssertionError(f"_check lets no {type(node).__name__} through")

    def _chain(
        self, node: ast.expr, one: Any, comparisons: Iterable[tuple[ast.cmpop, ast.expr]], table: pa.Table
    ) -> Any:
        """a < b < c: every neighbouring pair."""
        result = None
        for op, right in comparisons:
            holds = self._compare(node, one, op, right, table)
            result = holds if result is None else pc.and_kleene(result, holds)
            if not isinstance(op, ast.In | ast.NotIn | ast.Is | ast.IsNot):
                one = self._value(right, table)
        return result

    def _compare(self, node: ast.expr, one: Any, op: ast.cmpop, right: ast.expr, table: pa.Table) -> Any:
        if isinstance(op, ast.Is | ast.IsNot):
            return pc.is_null(one) if isinstance(op, ast.Is) else pc.is_valid(one)
        if isinstance(op, ast.In | ast.NotIn):
            assert isinstance(right, ast.List | ast.Tuple)
            values = [entry.value for entry in right.elts if isinstance(entry, ast.Constant)]
            found = self._apply(lambda a: pc.is_in(a, value_set=pa.array(values).cast(a.type)), node, one)
            found = pc.if_else(pc.is_valid(one), found, pa.scalar(None, pa.bool_()))
            return pc.invert(found) if isinstance(op, ast.NotIn) else found
        return self._apply(_COMPARE[type(op)], node, one, self._value(right, table))

    def _read(self, node: ast.expr, table: pa.Table) -> Any:
        name = self._column(node)
        if name not in table.column_names:
            raise ExpressionError(self._show(node.col_offset, no_column(name, table)))
        column = table[name]
        is_dictionary = pa.types.is_dictionary(column.type)
        return column.cast(column.type.value_type) if is_dictionary else column

    def _apply(self, function: Callable[..., Any], node: ast.expr, *values: Any) -> Any:
        try:
            return function(*values)
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError):
            kinds = " and ".join(str(value.type) for value in values)
            raise ExpressionError(self._show(node.col_offset, f"this does not work on {kinds}")) from None

    def _show(self, offset: int, message: str) -> str:
        line = " ".join(self.source.strip().splitlines())
        return f"{message}\n  {line}\n  {' ' * offset}^"

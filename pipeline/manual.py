"""What the operators' classes say about themselves, as tables for a terminal."""

import inspect
import re
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from ..operators.base import Filter, FitFilter, FitMap, Map, Operator
from .schema import first_line

KINDS = {Map: "map", Filter: "filter", FitFilter: "fit, filter", FitMap: "fit, map"}
BOUNDS: dict[Any, tuple[str, str]] = {Gt: ("gt", ">"), Ge: ("ge", ">="), Lt: ("lt", "<"), Le: ("le", "<=")}


def list_of_operators(known: dict[str, type[Operator]]) -> RenderableType:
    """One row per operator: its name, its kind, what it does, and who described it."""
    table = _table("name", "kind", "what it does", "source")
    table.columns[0].style = "bold"
    for name, operator in known.items():
        table.add_row(name, kind(operator), first_line(operator), source(operator))
    return Group(table, Text("\ncuvee operators NAME shows the parameters of one.", style="dim"))


def manual_of(operator: type[Operator]) -> RenderableType:
    """The whole docstring, the columns, and a row per parameter."""
    head = Text.assemble((operator.name, "bold"), f"  ({kind(operator)}, version {operator.version})")
    columns = Text(f"reads   {_joined(operator.reads)}\nwrites  {_joined(operator.writes)}")
    parts: list[RenderableType] = [head, "", Text(inspect.getdoc(operator) or ""), "", columns, ""]
    if not operator.model_fields:
        return Group(*parts, Text("It has no parameters."))
    table = _table("parameter", "type", "default", "description")
    table.columns[0].style = "bold"
    for name, field in operator.model_fields.items():
        table.add_row(name, type_name(field), _default(field), field.description or "")
    return Group(*parts, table)


def kind(operator: type[Operator]) -> str:
    """What an operator does to a table: map or filter, and whether it looks at the whole corpus first."""
    return next((word for base, word in KINDS.items() if issubclass(operator, base)), "operator")


def source(operator: type[Operator]) -> str:
    """Authors and year from the docstring's ``Source:``, else the module that the operator comes from."""
    text = " ".join((inspect.getdoc(operator) or "").split())
    cited = re.search(r"Source:.*?([A-Z][\w-]+(?: et al\.| and [A-Z][\w-]+)?),? \(?(\d{4})", text)
    return f"{cited[1]} {cited[2]}" if cited else operator.__module__


def type_name(field: FieldInfo) -> str:
    """A field's type and bounds, as they are said to someone who writes YAML.

    >>> type_name(FieldInfo.from_annotation(Annotated[str, "a path"] | None))
    'str | null'
    >>> type_name(FieldInfo.from_annotation(Literal["first", "longest"] | None))
    'first | longest | null'
    """
    limits = [
        f"{sign} {getattr(limit, name):g}"
        for limit in field.metadata
        for kind_of_limit, (name, sign) in BOUNDS.items()
        if isinstance(limit, kind_of_limit)
    ]
    return " ".join([_annotation_name(field.annotation), *limits])


def console() -> Console:
    """A terminal as wide as it is; a pipe or file gets lines of 110 characters."""
    terminal = Console(highlight=False, markup=False)
    return terminal if terminal.is_terminal else Console(highlight=False, markup=False, width=110)


def _annotation_name(annotation: Any) -> str:
    if annotation is type(None):
        return "null"
    arguments = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _annotation_name(arguments[0])
    if get_origin(annotation) is Literal:
        return " | ".join(map(str, arguments))
    if arguments and get_origin(annotation) in (list, tuple, set, frozenset):
        return f"list of {_annotation_name(arguments[0])}"
    if arguments and get_origin(annotation) is not dict:
        return " | ".join(map(_annotation_name, arguments))
    return str(getattr(annotation, "__name__", annotation))


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "needed"
    default = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(default, list | tuple):
        return f"[{', '.join(map(str, default))}]"
    return {"None": "null", "True": "true", "False": "false"}.get(str(default), str(default))


def _joined(columns: tuple[str, ...]) -> str:
    return ", ".join(columns) or "nothing"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table

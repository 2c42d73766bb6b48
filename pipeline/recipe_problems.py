"""Pydantic's errors in the words of a recipe: what was found, what is allowed, what to do."""

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from ..operators.registry import find_operator, operator_names
from .located_yaml import Keys, LocatedYaml, Problem, found, near, number_in_text

NEEDED = {
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "frozen_set": "a list",
    "dict": "a mapping",
    "model": "a mapping",
}
BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}


def explain(error: ValidationError, model: type[BaseModel], document: LocatedYaml) -> Iterator[Problem]:
    """One `Problem` for each of pydantic's, at the place in `document` where it can be put right."""
    for details in error.errors(include_url=False):
        if details["type"] == "too_short" and details["input"]:
            continue  # pydantic counts valid entries only; the others have told their own problems
        # Pydantic's locations also name branches of unions, which stand in no file, and the key of an
        # operator that stands there as a bare name.
        keys: Keys = ()
        for key in details["loc"]:
            if (*keys, key) in document or document.written(keys) == key:
                keys = (*keys, key)
        if details["type"] == "missing":
            keys = (*keys, details["loc"][-1])
        yield Problem(keys, _message(details, keys, model, document))


def _message(details: ErrorDetails, keys: Keys, model: type[BaseModel], document: LocatedYaml) -> str:
    kind, value, limits = details["type"], details["input"], details.get("ctx", {})
    written = document.written(keys)
    if kind == "extra_forbidden":
        return f"unknown key; {near(str(keys[-1]), _fields(model, keys[:-1]))}"
    if kind == "missing":
        field = _fields(model, keys[:-1]).get(str(keys[-1]))
        return f"this key is needed and missing{_described(field)}"
    if kind in ("literal_error", "enum"):
        allowed = str(limits["expected"]).replace(" or ", ", ").replace("'", "")
        if details["loc"][-1] == "[key]":
            return f"unknown key; {near(str(value), allowed.split(', '))}"
        match = near(str(value), allowed.split(", "))
        hint = f" ({match})" if match.startswith("did") else ""
        return f"found {found(value, written)}{hint}; allowed: {allowed}"
    if kind in BOUNDS:
        limit, words = BOUNDS[kind]
        return f"found {found(value, written)}; it must be {words} {limits[limit]:.15g}"
    if kind in ("too_short", "string_too_short"):
        return f"found none; at least {limits['min_length']} is needed"
    if (needed := NEEDED.get(kind.removesuffix("_type"))) is not None:
        remedy = _remedy(kind, value, written) or f"{needed} is needed"
        return remedy if remedy.startswith("YAML") else f"found {found(value, written)}; {remedy}"
    if kind == "string_pattern_mismatch":
        return f"found {found(value, written)}; it must match {limits['pattern']}"
    if kind == "int_from_float":
        return f"found {found(value, written)}; a whole number is needed"
    if kind == "finite_number":
        return f"found {found(value, written)}; it must be finite"
    return str(limits.get("error", details["msg"]))


def _remedy(kind: str, value: object, written: str | None) -> str:
    """What to write instead, where YAML misread what was meant."""
    if kind in ("int_type", "float_type"):
        return number_in_text(value, written, whole=kind == "int_type")
    if kind == "string_type" and isinstance(value, bool | int | float):
        return f"text is needed: write '{written or value}', in quotes"
    if kind in ("model_type", "dict_type") and value is None:
        return "leave the key out to take the defaults, or write its keys below it"
    return ""


def _described(field: FieldInfo | None) -> str:
    return (
        f": {field.description[0].lower()}{field.description[1:].rstrip('.')}"
        if field and field.description
        else ""
    )


def _fields(model: type[BaseModel], keys: Keys) -> Mapping[str, FieldInfo]:
    """The fields of the mapping at `keys`: of the recipe, of a section, or of an operator."""
    for key in keys:
        if isinstance(key, int):
            continue
        field = model.model_fields.get(key)
        if field is not None:
            inner = _model_in(field.annotation)
        else:
            inner = find_operator(key) if key in operator_names() else None
        if inner is None:
            return {}
        model = inner
    return model.model_fields


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The first model that an annotation such as ``tuple[Input, ...] | None`` is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)

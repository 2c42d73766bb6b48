"""The JSON Schema of recipes, the operators' parameters included: editors complete and check with it."""

import inspect
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from ..operators.base import Operator
from ..operators.registry import operators
from .recipe import Recipe

MODE: JsonSchemaMode = "validation"


def recipe_schema() -> dict[str, Any]:
    """The schema of a recipe that may use any operator of this installation.

    >>> entries = recipe_schema()["$defs"]["Recipe"]["properties"]["curate"]["items"]["anyOf"]
    >>> any(entry.get("const") == "pii" for entry in entries)
    True
    >>> any(entry.get("required") == ["pii"] for entry in entries)
    True
    """
    known = operators()
    models: list[type[BaseModel]] = [Recipe, *known.values()]
    references, schema = models_json_schema([(model, MODE) for model in models])
    recipe = schema["$defs"]["Recipe"]
    recipe["properties"]["curate"]["items"] = {
        "anyOf": [
            entry for operator in known.values() for entry in _entries(operator, references[operator, MODE])
        ]
    }
    recipe["required"].remove("name")  # the file's name stands in for it
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "cuvee recipe",
        **references[Recipe, MODE],
        **schema,
    }


def first_line(operator: type[Operator]) -> str:
    """What the operator does, in one sentence."""
    return (inspect.getdoc(operator) or "").partition("\n")[0]


def _entries(operator: type[Operator], parameters: Any) -> list[dict[str, Any]]:
    """The ways to write one operator: its bare name, where it needs no parameter, and a mapping."""
    description = first_line(operator)
    mapping = {
        "type": "object",
        "description": description,
        "properties": {operator.name: {"anyOf": [parameters, {"type": "null"}]}},
        "required": [operator.name],
        "additionalProperties": False,
    }
    if any(field.is_required() for field in operator.model_fields.values()):
        mapping["properties"] = {operator.name: parameters}
        return [mapping]
    return [{"const": operator.name, "description": description}, mapping]

"""The file in which a mixture is handed over: weights, and how often each domain may be repeated."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

FORMAT_VERSION = 1


class MixtureFile(NamedTuple):
    """What a loader takes from a mixture file."""

    weights: dict[str, float]
    max_epochs: dict[str, float] | None


def read_mixture(path: str | Path) -> MixtureFile:
    """The mixture in a JSON or YAML file, as `cuvee mix recommend`, `cuvee mix zero` and `cuvee run` write.

    Needed: ``format_version: 1`` and ``weights``, by domain. Read where it is there: ``max_epochs``, by
    domain. Everything else is for people.

    Raises:
        ValueError: no such file; neither JSON nor YAML; another version; weights or max_epochs that are no
            numbers by name.
    """
    place = Path(path)
    try:
        text = place.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{place}: cannot read the mixture file: {error}") from None
    entry = _parsed(place, text)
    if not isinstance(entry, Mapping) or "weights" not in entry:
        found = ", ".join(map(str, entry)) if isinstance(entry, Mapping) else type(entry).__name__
        raise ValueError(f"{place}: found {found or 'nothing'}; a mixture file has 'weights', by domain.")
    version = entry.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{place}: format_version is {version!r}, this version reads {FORMAT_VERSION}. "
            "Write the mixture again with this version of cuvee."
        )
    max_epochs = entry.get("max_epochs")
    return MixtureFile(
        _numbers(place, "weights", entry["weights"]),
        None if max_epochs is None else _numbers(place, "max_epochs", max_epochs),
    )


def _parsed(place: Path, text: str) -> Any:
    if place.suffix in (".yaml", ".yml"):
        import yaml  # only who writes YAML waits for it

        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ValueError(f"{place}: no YAML: {error}") from None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{place}:{error.lineno}: no JSON: {error.msg}") from None


def _numbers(place: Path, key: str, found: object) -> dict[str, float]:
    """Numbers by domain."""
    if not isinstance(found, Mapping):
        raise ValueError(f"{place}: {key} is {found!r}; it maps each domain to a number.")
    for name, value in found.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
            raise ValueError(f"{place}: {key}: {name!r} is {value!r}; a number is needed.")
    return {str(name): float(value) for name, value in found.items()}

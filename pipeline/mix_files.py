"""The files of ``cuvee mix``: domains, runs and mixtures in, predictions and mixtures out."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import yaml
from numpy.typing import NDArray

from ..mixing.objective import Objective
from ..mixing.run_files import matrix, numbers, read_table
from ..mixing.table import WEIGHT, RunTable
from ..streaming.mixture_file import FORMAT_VERSION
from .errors import InputError, UsageError, UserError
from .manual import console
from .run_directory import write_json, write_text

Floats = NDArray[np.float64]
COUNTS = "Write counts such as 7000000 or 7e6."
UNLIMITED = 1e9  # nats: a trust region that holds everything


def parse_objective(text: str, metric_names: tuple[str, ...]) -> Objective:
    """`mean`, weights by metric, or an expression over metrics.

    >>> parse_objective("web=3,code=1", ("web", "code")).by_metric
    {'web': 3.0, 'code': 1.0}
    >>> parse_objective("max(web, code)", ("web", "code")).expression
    'max(web, code)'
    """
    if text == "mean":
        return Objective("mean")
    if "=" not in text:
        objective = Objective("expression", expression=text)
        objective(np.ones((1, len(metric_names))), metric_names)  # a misspelt metric is told now
        return objective
    weights = {}
    for part in text.split(","):
        name, _, value = (side.strip() for side in part.rpartition("="))
        if name in weights:
            raise ValueError(f"objective '{text}' has two weights of '{name}'; give one.")
        try:
            weights[name] = float(value)
        except ValueError:
            raise ValueError(
                f"objective '{part}' is no METRIC=WEIGHT; the metrics are {', '.join(metric_names)}."
            ) from None
    return Objective("weighted", weights)


def read_domains(path: Path) -> tuple[list[str], Floats, Floats]:
    """Names, available tokens and largest number of epochs."""
    with located(path):
        table = read_table(path)
        missing = [name for name in ("domain", "tokens") if name not in table.column_names]
        if missing:
            raise ValueError(f"no column '{missing[0]}'; found {', '.join(table.column_names)}.")
        names = [str(name) for name in table["domain"].to_pylist()]
        given = "max_epochs" in table.column_names
        tokens = numbers(table, "tokens", advice=COUNTS)
        max_epochs = numbers(table, "max_epochs", advice=COUNTS) if given else np.full(len(names), 4.0)
        problems = [
            f"domain '{name}' is listed twice." for name in sorted(set(names)) if names.count(name) > 1
        ]
        for column, values in (("tokens", tokens), ("max_epochs", max_epochs)):
            problems += [
                f"domain '{name}': {column} is {value:g}; a finite number is needed, 0 or more."
                for name, value in zip(names, values, strict=True)
                if not (np.isfinite(value) and value >= 0)
            ]
        if not problems and not tokens.sum() > 0:
            problems = [f"found {len(names)} domains without any tokens; give one that has some."]
        if problems:
            raise ValueError("\n".join(problems))
    return names, tokens, max_epochs


def read_mixtures(path: Path, domains: tuple[str, ...]) -> Floats:
    """Weights (M, K) in the order of `domains`, of columns named so or weight.DOMAIN; others are passed over.

    What was changed in reading is printed.
    """
    with located(path):
        table = read_table(path)
        order = order_of(path, [name.removeprefix(WEIGHT) for name in table.column_names], domains)
        weights = matrix(table.select(order))
        metrics = np.zeros((len(weights), 1))
        seeds = np.arange(len(weights))  # a mixture may be asked for twice
        read = RunTable(weights, domains, metrics, ("none",), seed=seeds)
    print_notes(f"{path}: {note}" for note in read.notes)
    return read.weights


def print_notes(notes: Iterable[str]) -> None:
    """What reading left out or changed."""
    screen = console()
    for note in notes:
        screen.print(note, style="dim")


def order_of(path: Path, found: list[str], wanted: tuple[str, ...]) -> list[int]:
    """Where the wanted names stand among those found."""
    missing = [name for name in wanted if name not in found]
    if missing:
        raise InputError(f"{path}: no domain '{missing[0]}'; found {', '.join(found)}.")
    return [found.index(name) for name in wanted]


def write_csv(table: pa.Table, path: Path) -> None:
    with located(path):
        pa.csv.write_csv(table, path)


def write_mixture(path: Path, mixture: Mapping[str, Any]) -> None:
    """A mixture file that `StreamingLoader(weights=path)` reads: YAML if its name ends so, else JSON."""
    entry = {"format_version": FORMAT_VERSION, **{k: v for k, v in mixture.items() if v is not None}}
    place = path.resolve()  # a link such as /dev/stdout stays one
    if place.exists() and not place.is_file():
        raise UsageError(
            f"{path}: is no file, so a mixture cannot take its place; give a file's name, such as "
            "mixture.json."
        )
    with located(path):
        if path.suffix in (".yaml", ".yml"):
            write_text(place, yaml.safe_dump(entry, sort_keys=True, allow_unicode=True))
        else:
            write_json(place, entry)


@contextmanager
def located(path: Path) -> Iterator[None]:
    """Mistakes in a file, said with its name."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, OSError) as error:
        text = str(error)
        raise InputError(text if str(path) in text else f"{path}: {text}") from error

"""The files of ``cuvee mix``: domains, runs and mixtures in, predictions and mixtures out."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import yaml
from numpy.typing import NDArray

from ..mixing.objective import Objective
from ..mixing.table import RunTable
from ..streaming.mixture_file import FORMAT_VERSION
from .errors import InputError
from .run_directory import write_json, write_text

Floats = NDArray[np.float64]
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
        name, _, value = part.rpartition("=")
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
        table = pa.csv.read_csv(path)
        missing = [name for name in ("domain", "tokens") if name not in table.column_names]
        if missing:
            raise ValueError(f"no column '{missing[0]}'; found {', '.join(table.column_names)}.")
        names = [str(name) for name in table["domain"].to_pylist()]
        tokens = table["tokens"].cast(pa.float64()).to_numpy()
        if len(set(names)) < len(names) or not (np.all(tokens >= 0) and tokens.sum() > 0):
            raise ValueError("each domain has one row, and its tokens are not negative and not all zero.")
        given = "max_epochs" in table.column_names
        max_epochs = table["max_epochs"].cast(pa.float64()).to_numpy() if given else np.full(len(names), 4.0)
    return names, tokens, max_epochs


def read_mixtures(path: Path, domains: tuple[str, ...]) -> Floats:
    """Weights (M, K) in the order of `domains`; other columns are passed over."""
    with located(path):
        table = pa.csv.read_csv(path)
        order = order_of(path, table.column_names, domains)
        weights = np.column_stack([table.column(i).cast(pa.float64()).to_numpy() for i in order])
        metrics = np.zeros((len(weights), 1))
        seeds = np.arange(len(weights))  # a mixture may be asked for twice
        return RunTable(weights, domains, metrics, ("none",), seed=seeds).weights


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
    if path.suffix in (".yaml", ".yml"):
        write_text(path, yaml.safe_dump(entry, sort_keys=True, allow_unicode=True))
    else:
        write_json(path, entry)


@contextmanager
def located(path: Path) -> Iterator[None]:
    """Mistakes in a file, said with its name."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, OSError) as error:
        text = str(error)
        raise InputError(text if str(path) in text else f"{path}: {text}") from error

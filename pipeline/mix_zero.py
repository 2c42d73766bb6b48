"""``cuvee mix zero``: losses and the best mixture by n-gram counts of token shards; nothing is trained."""

import argparse
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from ..mixing.design import caps
from ..mixing.exact import ExactOptimum, exact_optimum
from ..mixing.objective import Objective
from ..proxy_models.trigram import TrigramProxy
from ..proxy_models.zero import fit_trigram_proxy
from ..streaming.manifest import MANIFEST
from ..streaming.shards import TokenStore
from .errors import InputError, UsageError
from .manual import console
from .mix_files import UNLIMITED, located, parse_objective, read_mixtures, write_mixture

Floats = NDArray[np.float64]


def zero(arguments: argparse.Namespace) -> None:
    """Show what n-gram models of the shards lose under mixtures, and write the best one."""
    folders = domain_folders(arguments.tokens)
    names = tuple(folders)
    with located(arguments.tokens):
        available = np.array([TokenStore(folder, "train").n_tokens for folder in folders.values()])
        proxy = fit_trigram_proxy(folders, max_tokens=arguments.max_tokens, seed=arguments.seed)
    budget = int(arguments.budget or available.sum())
    n_tokens = int(arguments.n_tokens or budget)
    try:
        upper = caps(available, budget, arguments.max_epochs) if arguments.budget else None
        found = exact_optimum(
            lambda w: proxy.losses(w, n_tokens),
            names,
            available / available.sum(),
            _objective(arguments.objective, names, proxy, available, n_tokens),
            upper,
            arguments.trust_region or UNLIMITED,
        )
    except ValueError as error:
        raise UsageError(f"mix zero: {error}") from error
    _show(found, names, proxy, n_tokens, arguments.mixtures)
    if arguments.out is not None:
        _write(arguments, found, names, n_tokens)


def domain_folders(path: Path) -> dict[str, Path]:
    """Domain -> its folder of token shards, below a folder of them or below a run directory's ``tokens``."""
    root = tokens_folder(path)
    found = sorted(entry.parent for entry in root.glob(f"*/{MANIFEST}"))
    if len(found) < 2:
        raise InputError(
            f"{path}: found {len(found)} domains of token shards; give a run directory, or the folder in "
            f"which each of two or more domains has a folder with a {MANIFEST}."
        )
    return {unquote(folder.name): folder for folder in found}


def tokens_folder(path: Path) -> Path:
    """The folder of the domains' folders: ``tokens`` of a run directory, or the path itself."""
    return path / "tokens" if (path / "tokens").is_dir() else path


def _objective(
    text: str, names: tuple[str, ...], proxy: TrigramProxy, available: NDArray[np.int64], n_tokens: int
) -> Objective:
    """`worst` is relative to the natural mixture's losses."""
    if text != "worst":
        return parse_objective(text, names)
    losses = proxy.losses(available / available.sum(), n_tokens)
    return Objective("worst", dict(zip(names, losses.tolist(), strict=True)))


def _show(
    found: ExactOptimum, names: tuple[str, ...], proxy: TrigramProxy, n_tokens: int, mixtures: Path | None
) -> None:
    out, value = console(), found.objective
    sentence = (
        f"By n-grams, at {n_tokens:,} tokens, the best mixture's objective is {value['optimum']:.4f}: "
        f"{found.gain:.4f} below natural, {value['uniform'] - value['optimum']:.4f} below uniform. "
        "Nothing was trained: train it beside natural before a long run."
    )
    out.print(sentence, style="bold", highlight=False)
    table = Table(
        "domain", "natural", "best", "loss: natural", "uniform", "best", box=None, header_style="dim"
    )
    for i, name in enumerate(names):
        losses = (found.metrics[key][i] for key in ("natural", "uniform", "optimum"))
        weights = (f"{w[i]:.4f}" for w in (found.natural, found.weights))
        table.add_row(name, *weights, *(f"{loss:.4f}" for loss in losses))
    out.print(table)
    if mixtures is not None:
        losses_of = proxy.losses(read_mixtures(mixtures, names), n_tokens)
        table = Table("mixture", *names, "mean", box=None, header_style="dim", title="losses, nats per token")
        for row, values in enumerate(losses_of):
            table.add_row(str(row), *(f"{value:.4f}" for value in values), f"{values.mean():.4f}")
        out.print(table)


def _write(arguments: argparse.Namespace, found: ExactOptimum, names: tuple[str, ...], n_tokens: int) -> None:
    """The mixture file; epochs are limited where a budget was given."""
    epochs = dict.fromkeys(names, float(arguments.max_epochs)) if arguments.budget else None
    write_mixture(
        arguments.out,
        {
            "weights": dict(zip(names, found.weights.tolist(), strict=True)),
            "max_epochs": epochs,
            "predicted": found.objective,
            "n_tokens": n_tokens,
            "made_by": "trigram counts; nothing was trained",
        },
    )

"""What ``cuvee mix search`` does: tell the results that are in, ask for the next mixtures to run."""

import argparse
import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.table import Table

from ..mixing.design import caps
from ..mixing.journal import SearchJournal
from ..mixing.mixer import Fidelity
from ..mixing.multi_fidelity import FidelityTrend
from ..mixing.objective import Objective
from ..mixing.run_files import matrix, read_table, whole_numbers
from ..mixing.search import Trial
from ..mixing.search_arguments import SearchArguments
from ..mixing.table import LOSS, WEIGHT
from ..proxy_models.zero import fit_trigram_proxy
from ..streaming.manifest import MANIFEST
from ..streaming.shards import TokenStore
from . import mix_run
from .errors import InputError, UsageError, UserError
from .manual import console
from .mix_arguments import NEW_SEARCH
from .mix_files import (
    UNLIMITED,
    located,
    parse_objective,
    read_domains,
    read_mixtures,
    write_csv,
    write_mixture,
)
from .mix_zero import domain_folders

MIN_RUNS = 4  # before a mixture is recommended
NGRAM_TOKENS = 4_000_000  # counted of a domain


def search(arguments: argparse.Namespace) -> None:
    """Continue a search, or begin one with --domains and --rung, or with --run."""
    if arguments.run and arguments.tokens is None:
        raise UsageError("mix search: --run trains on token shards; give their folder with --tokens.")
    journal = _journal(arguments)
    for path in arguments.results:
        _tell(journal, path, arguments.tokens)
    if arguments.tokens is not None:
        journal.search.trend = _ngram_losses(arguments.tokens, journal)
    if arguments.run:
        mix_run.train(journal, arguments.tokens, arguments.n, arguments.workers)
    try:
        while len(journal.search.pending) < arguments.n and journal.ask() is not None:
            pass
        _show(journal, arguments.out)
        if len(journal.search.losses) >= MIN_RUNS:
            found = journal.search.recommend()
            console().print(found.sentence, style="bold", highlight=False)
            if arguments.recommend is not None:
                write_mixture(arguments.recommend, found.to_dict())
    except ValueError as error:
        raise UsageError(f"mix search: {error}") from error


def _journal(given: argparse.Namespace) -> SearchJournal:
    """The journal, begun or continued; what cannot go on is refused before anything is written."""
    arguments = _arguments(given)
    try:
        journal = SearchJournal(given.journal, arguments)
    except (ValueError, OSError) as error:
        raise InputError(f"mix search: {error}") from error
    if arguments is None:
        _check_untold(given)
    for note in journal.notes:
        console().print(note, style="dim", highlight=False)
    _check_trend(journal, given.tokens)
    return journal


def _arguments(given: argparse.Namespace) -> SearchArguments | None:
    """Those of a new search; None to go on with the journal's."""
    if given.domains is None and (given.journal.exists() or not given.run):
        return None
    if not given.rung and not given.run:
        raise UsageError(
            "mix search: a new search needs the fidelities to run at; give --rung PARAMETERS:TOKENS once for "
            "each, cheapest first, the target last."
        )
    names, tokens, max_epochs = _domains(given)
    _check_shards(given.tokens, names)
    with located(given.domains or given.tokens):
        upper = caps(tokens, given.budget, max_epochs).tolist() if given.budget else None
    try:
        return SearchArguments(
            domain_names=tuple(names),
            natural=tuple((tokens / tokens.sum()).tolist()),
            fidelities=tuple(_rungs(given, names)),
            budget=given.runs,
            caps=None if upper is None else tuple(upper),
            trust_region=given.trust_region or UNLIMITED,
            objective=_objective(given.objective),
            n_initial=given.n_initial,
            n_replicates=given.n_replicates,
            acquisition=given.acquisition,
            seed=given.seed,
            trend=_fingerprint(given.tokens),
            mixtures=_mixtures(given.mixtures, names),
        )
    except UserError:
        raise
    except ValueError as error:
        raise UsageError(f"mix search: {error}") from error


def _check_untold(given: argparse.Namespace) -> None:
    """Refuse an argument of a new search that would have no effect."""
    told = [name for name, default in NEW_SEARCH.items() if getattr(given, name) != default]
    if told:
        raise UsageError(
            f"mix search: --{told[0].replace('_', '-')} is of a new search, and {given.journal} goes on with "
            "the arguments it began with. Leave it out; or start another journal, with --domains."
        )


def _domains(given: argparse.Namespace) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Names, tokens and epochs allowed, of --domains or else of the shards of --tokens."""
    if given.domains is not None:
        return read_domains(given.domains)
    folders = domain_folders(given.tokens)
    with located(given.tokens):
        tokens = np.array([float(TokenStore(folder, "train").n_tokens) for folder in folders.values()])
    return list(folders), tokens, np.full(len(tokens), mix_run.RECIPE.max_epochs)


def _rungs(given: argparse.Namespace, names: Sequence[str]) -> list[Fidelity]:
    """The fidelities asked for; with --run, those of the nearest proxies, and a recipe's by default."""
    asked = [_fidelity(text) for text in given.rung]
    if not given.run:
        return asked
    if not asked:
        return mix_run.default_rungs(given.tokens, names)
    return [mix_run.nearest_rung(fidelity, given.tokens, names) for fidelity in asked]


def _mixtures(path: Path | None, names: Sequence[str]) -> tuple[tuple[float, ...], ...] | None:
    """The only mixtures that may run."""
    return None if path is None else tuple(map(tuple, read_mixtures(path, tuple(names)).tolist()))


def _check_shards(tokens: Path | None, names: Sequence[str]) -> None:
    """Shards of every domain and metric, where n-gram losses are asked for."""
    folders = {} if tokens is None else domain_folders(tokens)
    missing = [name for name in names if tokens is not None and name not in folders]
    if missing:
        raise UsageError(
            f"mix search: {tokens} has no shards of '{missing[0]}', only of {', '.join(folders)}; n-gram "
            "losses are for searches whose domains and metrics both are domains of the shards."
        )


def _fingerprint(tokens: Path | None) -> str | None:
    """A hash of all manifests of token shards, and so of the shards; None without any."""
    if tokens is None:
        return None
    manifests = {
        name: (folder / MANIFEST).read_text("utf-8") for name, folder in domain_folders(tokens).items()
    }
    digest = blake2b(json.dumps(manifests, sort_keys=True).encode(), digest_size=8).hexdigest()
    return f"n-grams of shards {digest}"


def _check_trend(journal: SearchJournal, tokens: Path | None) -> None:
    """The same n-gram losses at every call: with others, the same results would lead to other trials."""
    began, given = journal.search.arguments.trend, _fingerprint(tokens)
    if began == given:
        return
    advice = "leave --tokens out" if began is None else "give --tokens with those shards"
    raise UsageError(
        f"mix search: {journal.path} began with {began or 'no n-gram losses'}, given now is "
        f"{given or 'no --tokens'}; {advice}, or start another journal."
    )


def _ngram_losses(tokens: Path, journal: SearchJournal) -> FidelityTrend:
    """Losses by n-gram counts at any fidelity, in the order of the results' metrics."""
    names, results = journal.search.arguments.domain_names, journal.search.losses
    folders, metrics = domain_folders(tokens), tuple(results[min(results)]) if results else names
    _check_shards(tokens, (*names, *metrics))
    with located(tokens):
        return fit_trigram_proxy(
            {name: folders[name] for name in names},
            validation={name: folders[name] for name in metrics},
            max_tokens=NGRAM_TOKENS,
            seed=journal.search.arguments.seed,
        ).evaluate


def _fidelity(text: str) -> Fidelity:
    """A rung.

    >>> _fidelity("1e6:2.5e8")
    Fidelity(n_parameters=1000000, n_tokens=250000000)
    """
    size, colon, tokens = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return Fidelity(int(float(size)), int(float(tokens)))
    except (ValueError, OverflowError):
        raise ValueError(
            f"--rung '{text}' is not PARAMETERS:TOKENS, such as 1e6:1e9; give one for each fidelity."
        ) from None


def _objective(text: str) -> Objective:
    """What to minimise, as `parse_objective` reads it; metrics are known only from the results.

    >>> _objective("web=3,code=1").by_metric
    {'web': 3.0, 'code': 1.0}
    """
    if text == "worst":
        return Objective("worst")
    if text == "mean" or "=" in text:
        return parse_objective(text, ("those of the results",))
    return Objective("expression", expression=text)


def _tell(journal: SearchJournal, path: Path, tokens: Path | None) -> None:
    """Read results: the columns trial and loss.METRIC, or a text in failure; others are passed over."""
    with located(path):
        table = read_table(path)
        names = [name for name in table.column_names if name.startswith(LOSS)]
        if "trial" not in table.column_names or not names:
            raise ValueError(
                f"found the columns {', '.join(table.column_names)}; results have the column trial and "
                "loss.METRIC columns (and may have failure)."
            )
        trials = whole_numbers(table, "trial").tolist()
        losses_of = matrix(table.select(names))
    metrics = [name.removeprefix(LOSS) for name in names]
    _check_shards(tokens, metrics)
    n_new = 0
    with located(path):
        failures = table["failure"].to_pylist() if "failure" in table.column_names else [None] * len(table)
        for number, failure, row in zip(trials, failures, losses_of.tolist(), strict=True):
            if failure:
                n_new += journal.fail(number, str(failure))
            elif not np.all(np.isnan(row)):  # without any loss, it still runs
                n_new += journal.tell(number, dict(zip(metrics, row, strict=True)))
    print(f"{n_new} new results from {path}")


def _show(journal: SearchJournal, out: Path | None) -> None:
    """The trials to run now."""
    search = journal.search
    budget = search.arguments.budget
    spent = f"{search.spent:.3g} of {budget:g} runs at the target are spent or running"
    screen = console()
    screen.print(f"{len(search.losses)} results, {len(search.failures)} failures; {spent}", style="dim")
    if not search.pending:
        screen.print("Nothing is left to run.")
    else:
        screen.print(_trials(journal, search.pending))
    if out is not None:
        columns = [_row(journal, trial) for trial in search.pending]
        write_csv(pa.Table.from_pylist(columns) if columns else pa.table({"trial": []}), out)
        print(f"{len(columns)} trials in {out}; add loss.METRIC columns and give it back with --results")


def _trials(journal: SearchJournal, pending: list[Trial]) -> Table:
    names = journal.search.arguments.domain_names
    table = Table("trial", "parameters", "tokens", "seed", "why", *names, box=None, header_style="dim")
    for trial in pending:
        at = journal.search.arguments.fidelities[trial.rung]
        fidelity = (f"{at.n_parameters:,}", f"{at.n_tokens:,}", str(trial.seed), trial.origin)
        table.add_row(str(trial.number), *fidelity, *(f"{w:.4f}" for w in trial.weights))
    return table


def _row(journal: SearchJournal, trial: Trial) -> dict[str, float]:
    at = journal.search.arguments.fidelities[trial.rung]
    weights = zip(journal.search.arguments.domain_names, trial.weights, strict=True)
    return {
        "trial": trial.number,
        "n_parameters": at.n_parameters,
        "n_tokens": at.n_tokens,
        "seed": trial.seed,
        **{WEIGHT + name: weight for name, weight in weights},
    }

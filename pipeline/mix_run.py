"""``cuvee mix search --run``: train what a search asks for, with the proxy model of the project."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..mixing.journal import SearchJournal
from ..mixing.mixer import Fidelity
from .engines import LocalEngine
from .errors import InputError, UsageError
from .mix_zero import tokens_folder
from .plan import LAYOUT_VERSION, digest
from .progress import RunProgress
from .proxy_search import ProxySearch, Rung, rungs_of, vocab_size_of
from .proxy_work import model_shape, training_config
from .recipe import Mix, Search
from .run_directory import opened
from .tokenizing import claim

if TYPE_CHECKING:
    from ..proxy_models.transformer import ModelShape

RECIPE = Mix(search=Search())  # what a recipe has that says nothing of it
MODEL = RECIPE.proxy  # the shape whose width is chosen by the parameters asked for
BATCH_TOKENS = MODEL.batch_size * MODEL.sequence_length


def default_rungs(tokens: Path, names: Sequence[str]) -> list[Fidelity]:
    """Those of a recipe's search."""
    return [rung.fidelity for rung in rungs_of(RECIPE, _vocab_size(tokens, names))]


def nearest_rung(asked: Fidelity, tokens: Path, names: Sequence[str]) -> Fidelity:
    """The proxy whose parameters are nearest to those asked for, and whole batches of tokens.

    Raises:
        UsageError: less than one batch.
    """
    vocab_size = _vocab_size(tokens, names)
    shapes = [_shape(d_model, vocab_size) for d_model in _widths(asked.n_parameters, vocab_size)]
    shape = min(shapes, key=lambda shape: abs(shape.n_parameters - asked.n_parameters))
    if asked.n_tokens < BATCH_TOKENS:
        raise UsageError(
            f"mix search: --rung asks for {asked.n_tokens:,} tokens; a batch of a proxy has "
            f"{BATCH_TOKENS:,}. Ask for that or more."
        )
    return _rung(shape, asked.n_tokens).fidelity


def train(journal: SearchJournal, tokens: Path, n_parallel: int, n_workers: int | None) -> None:
    """Train the pending trials and all that follow, until the budget is spent.

    Results lie beside the journal, in a folder of its name that ends with ``.run``: after a kill, what was
    trained is read. Rounds of n_parallel trials are told whole, as in a recipe's search.

    Raises:
        UsageError: a fidelity that no proxy of the project has.
        InputError: every proxy failed.
    """
    arguments, folder = journal.search.arguments, journal.path.absolute().with_suffix(".run")
    names, root = arguments.domain_names, tokens_folder(tokens).absolute()
    rungs = [_exact_rung(fidelity, journal, root) for fidelity in arguments.fidelities]
    with opened(folder):
        claim(folder / "proxies", digest([LAYOUT_VERSION, arguments.to_record()]))
        engine = LocalEngine(n_workers)
        try:
            search = ProxySearch(
                n_parallel, RECIPE.group_size, root, names, folder, rungs, engine, RunProgress()
            )
            search.run(journal)
        finally:
            engine.close()
    check_trained(journal)


def check_trained(journal: SearchJournal) -> None:
    """Refuse to go on where no proxy has a result.

    Raises:
        InputError: all have failed; with the first one's reason.
    """
    failures = journal.search.failures
    if failures and not journal.search.losses:
        raise InputError(
            f"mix search: all {len(failures)} trials of {journal.path} failed; the first: "
            f"{failures[min(failures)]}. Begin another search, with more tokens a rung."
        )


def _exact_rung(fidelity: Fidelity, journal: SearchJournal, tokens: Path) -> Rung:
    vocab_size = _vocab_size(tokens, journal.search.arguments.domain_names)
    for d_model in _widths(fidelity.n_parameters, vocab_size):
        shape = _shape(d_model, vocab_size)
        if shape.n_parameters == fidelity.n_parameters:
            rung = _rung(shape, fidelity.n_tokens)
            if rung.fidelity == fidelity:
                return rung
    enough = Fidelity(fidelity.n_parameters, max(fidelity.n_tokens, BATCH_TOKENS))
    nearest = nearest_rung(enough, tokens, journal.search.arguments.domain_names)
    raise UsageError(
        f"mix search: {journal.path} asks for {fidelity.n_parameters:,} parameters and {fidelity.n_tokens:,} "
        f"tokens; the nearest proxy has {nearest.n_parameters:,} and {nearest.n_tokens:,}. Begin a search "
        "with --run to have such rungs, or train elsewhere and give --results."
    )


def _widths(n_parameters: int, vocab_size: int) -> list[int]:
    """Widths that the heads split, from the narrowest to the first with as many parameters."""
    step = 2 * MODEL.n_heads
    widths = [step]
    while _shape(widths[-1], vocab_size).n_parameters < n_parameters:
        widths.append(widths[-1] + step)
    return widths


def _shape(d_model: int, vocab_size: int) -> ModelShape:
    d_ff = MODEL.d_ff * d_model // MODEL.d_model
    return model_shape(MODEL.model_copy(update={"d_model": d_model, "d_ff": d_ff}), vocab_size)


def _rung(shape: ModelShape, n_tokens: int) -> Rung:
    return Rung(shape, training_config(MODEL, n_tokens), MODEL.validation_tokens)


def _vocab_size(tokens: Path, names: Sequence[str]) -> int:
    return vocab_size_of(tokens_folder(tokens), names)

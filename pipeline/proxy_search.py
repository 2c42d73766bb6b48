"""A sequential search whose runs are proxies: rounds of trials through the engine, a journal on disk."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..mixing.journal import SearchJournal
from ..mixing.mixer import Fidelity
from ..mixing.multi_fidelity import FidelityTrend
from ..mixing.objective import Objective
from ..mixing.search import Trial
from ..mixing.search_arguments import SearchArguments
from .engines import Engine
from .errors import InputError
from .progress import RunProgress
from .proxy_work import TrainingTask, model_shape, read_results, run_training, training_config
from .recipe import Mix, Model
from .tokenizing import open_stores

if TYPE_CHECKING:
    from ..proxy_models.training import TrainingConfig
    from ..proxy_models.transformer import ModelShape

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rung:
    """One fidelity as it is trained."""

    shape: "ModelShape"
    config: "TrainingConfig"
    validation_tokens: int

    @property
    def fidelity(self) -> Fidelity:
        """Parameters, and the tokens of whole batches."""
        return Fidelity(self.shape.n_parameters, self.config.n_steps * self.config.batch_tokens)


def rungs_of(section: Mix, vocab_size: int) -> list[Rung]:
    """The fidelities of a recipe's search: each shape, smallest first, at each part of the proxy's tokens."""
    assert section.search is not None
    models: list[Model] = [*section.search.smaller, section.proxy]
    rungs = [
        Rung(
            model_shape(model, vocab_size),
            training_config(model, max(1, round(section.proxy.n_tokens * part))),
            section.proxy.validation_tokens,
        )
        for model in models
        for part in sorted(section.search.token_fractions)
    ]
    return sorted(rungs, key=lambda rung: rung.fidelity.n_parameters * rung.fidelity.n_tokens)


def search_arguments(
    section: Mix,
    seed: int,
    domains: Sequence[str],
    natural: Floats,
    upper: Floats,
    objective: Objective,
    rungs: Sequence[Rung],
) -> SearchArguments:
    """The search that a recipe's section asks for: `n_proxies` is its budget, in proxies of full length.

    Raises:
        InputError: the budget does not reach for one run at every fidelity.
    """
    assert section.search is not None
    search = section.search
    try:
        return SearchArguments(
            domain_names=tuple(domains),
            natural=tuple(natural.tolist()),
            fidelities=tuple(rung.fidelity for rung in rungs),
            budget=float(section.n_proxies),
            caps=tuple(upper.tolist()),
            trust_region=section.trust_region,
            objective=objective,
            n_initial=search.n_initial,
            n_replicates=search.n_replicates,
            acquisition=search.acquisition,
            seed=seed,
        )
    except ValueError as error:
        raise InputError(f"mix.search: {error}; `budget` is mix.n_proxies") from error


def open_journal(path: Path, arguments: SearchArguments, trend: FidelityTrend) -> SearchJournal:
    """The journal of a recipe's search, begun or continued.

    Raises:
        InputError: a journal of another search is there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return SearchJournal(path, arguments, trend)
    except ValueError as error:
        raise InputError(f"mix.search: {error}") from error


@dataclass(frozen=True)
class ProxySearch:
    """Trains what a search asks for until its budget is spent.

    Trials are asked for and trained in rounds of `n_parallel`. A round's results are told when all of it is
    trained, and the next one is asked for when all are told: after a kill, at any point, the same trials
    follow, and what was trained is read.

    Attributes:
        group_size: models that are trained together.
        folder: one file of results for each group of trials, below ``proxies``.
        target_tokens: of the run whose repetition the proxies match; see `TrainingTask`.
    """

    n_parallel: int
    group_size: int
    tokens: Path
    domains: tuple[str, ...]
    folder: Path
    rungs: Sequence[Rung]
    engine: Engine
    progress: RunProgress
    target_tokens: int | None = None

    def run(self, journal: SearchJournal) -> pa.Table:
        """Finish the search; the rows of all its proxies.

        Raises:
            InputError: every proxy failed.
        """
        try:
            while self._next_round(journal):
                self._train(journal)
        except ValueError as error:
            raise error if isinstance(error, InputError) else InputError(f"mix.search: {error}") from error
        return read_results([task.result for task in self._tasks(journal) if task.result.exists()])

    def _next_round(self, journal: SearchJournal) -> bool:
        """Ask until the round is full, unless results of it are told already; whether there is one."""
        search = journal.search
        if not journal.is_telling:
            while len(search.pending) < self.n_parallel and journal.ask() is not None:
                pass
        return bool(search.pending)

    def _train(self, journal: SearchJournal) -> None:
        search = journal.search
        pending = {_name(trial): trial for trial in search.pending}
        tasks = [task for task in self._tasks(journal) if pending.keys() & set(task.names)]
        missing = [task for task in tasks if not task.result.exists()]
        numbers = [trial.number for trial in pending.values()]
        share = search.spent / search.arguments.budget
        title = f"   mix: trials {numbers[0]}-{numbers[-1]}, {share:.0%} of the budget"
        with self.progress.stage(title, len(tasks), len(tasks) - len(missing), unit="tokens") as bar:
            self.engine.map_shards(run_training, missing, bar.advance, isolated=True)
        rows = {row["name"]: row for row in read_results([task.result for task in tasks]).to_pylist()}
        for name, trial in pending.items():
            row = rows[name]
            if row["failure"] is not None:
                journal.fail(trial.number, row["failure"])
            else:
                journal.tell(trial.number, {domain: row[f"loss.{domain}"] for domain in self.domains})

    def _tasks(self, journal: SearchJournal) -> list[TrainingTask]:
        """Each round's trials in groups of one fidelity that train together; files are named by the first."""
        tasks = []
        for numbers in journal.rounds:
            trials = [journal.search.trials[number] for number in numbers]
            for i, rung in enumerate(self.rungs):
                at = [trial for trial in trials if trial.rung == i]
                starts = range(0, len(at), self.group_size)
                tasks += [self._task(at[start : start + self.group_size], rung) for start in starts]
        return tasks

    def _task(self, group: Sequence[Trial], rung: Rung) -> TrainingTask:
        return TrainingTask(
            self.tokens,
            self.domains,
            tuple(map(_name, group)),
            tuple(trial.weights for trial in group),
            tuple(trial.seed for trial in group),
            rung.shape,
            rung.config,
            rung.validation_tokens,
            self.folder / "proxies" / f"{_name(group[0])}.parquet",
            target_tokens=self.target_tokens,
        )


def vocab_size_of(tokens: Path, domains: Sequence[str]) -> int:
    """Of the tokenizer of the shards."""
    return next(iter(open_stores(tokens, domains).values())).vocab_size


def _name(trial: Trial) -> str:
    return f"trial-{trial.number:04d}"

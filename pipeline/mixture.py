"""Choose the mixture: the trend from n-gram proxies, what it misses from transformers, then a mixer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..mixing.design import caps as design_caps
from ..mixing.design import project_to_capped_simplex, sample_design
from ..mixing.landscape import Landscape, survey
from ..mixing.mixer import Mixer
from ..mixing.objective import Objective
from ..mixing.recommend import Recommendation, recommend
from ..mixing.table import RunTable
from ..mixing.trend_residual import TrendResidualMixer
from ..proxy_models.ngram import NgramProxy
from ..streaming.mixture_file import FORMAT_VERSION
from ..streaming.shards import domain_folder
from .engines import Engine
from .errors import InputError
from .plan import LAYOUT_VERSION, digest
from .progress import RunProgress
from .proxy_search import ProxySearch, open_journal, rungs_of, search_arguments, vocab_size_of
from .proxy_work import TrainingTask, model_shape, read_results, run_training, training_config
from .recipe import Mix, Recipe
from .run_directory import read_json, write_json, written_whole
from .tokenizing import claim, open_stores

NGRAM_TOKENS = 4_000_000
"""Tokens of each domain that the n-gram proxies count: enough for their ranking, and bounded in memory."""

LANDSCAPE = "landscape.json"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """What mixing found.

    Attributes:
        mixtures: weights by domain of ``natural``, ``uniform`` (both within the caps), ``chosen``, and
            ``candidate``, the best guess, which is ``chosen`` only where it has been shown to beat natural.
        objective: what was minimised.
        runs: the proxies' results.
        predicted, predicted_std: float64, (n_runs, J), each run predicted from the others.
        ngram: float64, (n_runs, J), the n-gram proxies' losses of the same mixtures.
        notes: what a person should know.
    """

    domains: tuple[str, ...]
    mixtures: Mapping[str, Mapping[str, float]]
    objective: Objective
    recommendation: Recommendation
    runs: RunTable
    predicted: Floats
    predicted_std: Floats
    ngram: Floats
    notes: tuple[str, ...]

    @property
    def contenders(self) -> dict[str, Mapping[str, float]]:
        """The mixtures to race: natural, uniform, and the chosen one or else the candidate."""
        third = "chosen" if self.mixtures["chosen"] != self.mixtures["natural"] else "candidate"
        return {name: self.mixtures[name] for name in ("natural", "uniform", third)}


@dataclass(frozen=True)
class _Stage:
    """What every step of mixing needs.

    Attributes:
        tokens: folder of the domains' stores.
        natural, upper: float64, (K,): shares of the tokens at hand, and the caps on them.
        folder: where proxies and results lie.
        budget: training tokens that the caps refer to.
    """

    section: Mix
    seed: int
    tokens: Path
    domains: tuple[str, ...]
    ngram: NgramProxy
    natural: Floats
    upper: Floats
    folder: Path
    budget: int
    engine: Engine
    progress: RunProgress


def choose_mixture(
    recipe: Recipe,
    tokens: Path,
    domains: Sequence[str],
    tokens_hash: str,
    run_dir: Path,
    engine: Engine,
    progress: RunProgress,
) -> Choice:
    """Train the proxies that are missing and recommend a mixture.

    Writes ``mix/proxies.parquet``, ``mix/mixture.json`` and ``mix/landscape.json``.

    Raises:
        InputError: the budget needs more epochs than `max_epochs` allows, or proxies failed.
    """
    from ..proxy_models.proxies import fit_ngram_proxy  # imports torch, which a run without a mix spares

    assert recipe.mix is not None
    section, folder = recipe.mix, run_dir / "mix"
    stores = open_stores(tokens, domains)
    available = np.array([stores[domain].n_tokens for domain in domains])
    natural = available / available.sum()
    budget = target_tokens(recipe)
    try:
        upper = design_caps(available, budget, section.max_epochs)
    except ValueError as error:
        raise InputError(f"mix: {error}") from error
    claim(folder, digest([LAYOUT_VERSION, tokens_hash, recipe.seed, budget, section.model_dump(mode="json")]))
    with progress.stage("   mix: count n-grams", 1, unit="tokens") as bar:
        folders = {domain: domain_folder(tokens, domain) for domain in domains}
        ngram = fit_ngram_proxy(folders, max_tokens=NGRAM_TOKENS, seed=recipe.seed)
        bar.advance(int(available.sum()))
    stage = _Stage(
        section, recipe.seed, tokens, tuple(domains), ngram, natural, upper, folder, budget, engine, progress
    )
    table, mixer = _one_round(stage) if section.search is None else _search(stage)
    with written_whole(folder / "proxies.parquet") as temporary:
        pq.write_table(table, temporary, compression="zstd")
    choice = _choose(stage, mixer)
    facts = {
        "available_tokens": dict(zip(domains, available.tolist(), strict=True)),
        "caps": dict(zip(domains, _rounded(upper), strict=True)),
        "max_epochs": dict.fromkeys(domains, section.max_epochs),
        "target_tokens": budget,
        "tokens_hash": tokens_hash,
    }
    write_json(folder / "mixture.json", _mixture_file(choice) | facts)
    found = _survey(stage, choice, mixer)
    write_json(folder / LANDSCAPE, found.to_dict())
    return choice


def read_landscape(run_dir: Path) -> Landscape | None:
    """What the mixer of a run believes around its recommendation; None where no mixture was chosen.

    A run directory of an earlier version has none either: run there again, and it is written.
    """
    path = run_dir / "mix" / LANDSCAPE
    return Landscape.from_dict(read_json(path)) if path.exists() else None


def target_tokens(recipe: Recipe) -> int:
    """The training budget that caps refer to."""
    assert recipe.mix is not None
    if recipe.mix.target_tokens is not None:
        return recipe.mix.target_tokens
    return recipe.train.n_tokens if recipe.train is not None else recipe.mix.proxy.n_tokens


def proxy_tasks(
    section: Mix,
    seed: int,
    tokens: Path,
    domains: Sequence[str],
    design: Floats,
    folder: Path,
    budget: int,
) -> list[TrainingTask]:
    """The design's mixtures in groups that train together.

    All proxies share one seed: mixtures are compared on common initial weights and orders of documents.
    """
    vocab_size = next(iter(open_stores(tokens, domains).values())).vocab_size
    tasks = []
    for start in range(0, len(design), section.group_size):
        group = design[start : start + section.group_size]
        tasks.append(
            TrainingTask(
                tokens,
                tuple(domains),
                tuple(f"proxy-{start + i:03d}" for i in range(len(group))),
                tuple(tuple(row.tolist()) for row in group),
                (seed,) * len(group),
                model_shape(section.proxy, vocab_size),
                training_config(section.proxy, section.proxy.n_tokens),
                section.proxy.validation_tokens,
                folder / "proxies" / f"group-{start // section.group_size:03d}.parquet",
                target_tokens=budget if section.match_repetition else None,
            )
        )
    return tasks


def _one_round(stage: _Stage) -> tuple[pa.Table, Mixer]:
    """All proxies of one design, and a mixer of them."""
    section, seed = stage.section, stage.seed
    design = sample_design(stage.natural, section.n_proxies, seed, stage.upper)
    tasks = proxy_tasks(section, seed, stage.tokens, stage.domains, design, stage.folder, stage.budget)
    missing = [task for task in tasks if not task.result.exists()]
    title = f"   mix: {len(design)} proxies"
    with stage.progress.stage(title, len(tasks), len(tasks) - len(missing), unit="tokens") as bar:
        stage.engine.map_shards(run_training, missing, bar.advance, isolated=True)
    table = read_results([task.result for task in tasks])
    runs = RunTable.from_arrow(table)
    n_tokens = int(runs.n_tokens.max())
    return table, TrendResidualMixer(lambda weights: stage.ngram.losses(weights, n_tokens)).fit(runs)


def _search(stage: _Stage) -> tuple[pa.Table, Mixer]:
    """Proxies in rounds, each chosen by the ones before, and the search's surrogate of the largest."""
    section, domains = stage.section, stage.domains
    rungs = rungs_of(section, vocab_size_of(stage.tokens, domains))
    objective = _objective(section, domains, stage.natural, None)
    arguments = search_arguments(section, stage.seed, domains, stage.natural, stage.upper, objective, rungs)
    budget = stage.budget if section.match_repetition else None
    folder = stage.folder / "search"
    journal = open_journal(
        folder / "journal.jsonl", arguments, lambda weights, at: stage.ngram.losses(weights, at.n_tokens)
    )
    assert section.search is not None
    table = ProxySearch(
        section.search.n_parallel,
        section.group_size,
        stage.tokens,
        domains,
        folder,
        rungs,
        stage.engine,
        stage.progress,
        budget,
    ).run(journal)
    return table, journal.search.surrogate()


def _choose(stage: _Stage, mixer: Mixer) -> Choice:
    section, domains, natural, upper = stage.section, stage.domains, stage.natural, stage.upper
    runs = mixer.runs
    objective = _objective(section, domains, natural, runs)
    found = recommend(mixer, natural, objective, upper, section.trust_region, stage.seed)
    mixtures = {
        "natural": project_to_capped_simplex(natural, upper),
        "uniform": project_to_capped_simplex(np.ones(len(domains)), upper),
        "chosen": [found.weights[domain] for domain in domains],
        "candidate": [found.candidate[domain] for domain in domains],
    }
    left_out = mixer.leave_one_out()
    return Choice(
        domains=domains,
        mixtures={name: dict(zip(domains, _rounded(w), strict=True)) for name, w in mixtures.items()},
        objective=objective,
        recommendation=found,
        runs=runs,
        predicted=left_out.mean,
        predicted_std=left_out.std,
        ngram=stage.ngram.losses(runs.weights, int(runs.n_tokens.max())),
        notes=runs.notes,
    )


def _survey(stage: _Stage, choice: Choice, mixer: Mixer) -> Landscape:
    """What the mixer believes around its recommendation; a candidate that is not recommended is marked."""
    recommended, candidate = (
        [of[domain] for domain in choice.domains]
        for of in (choice.recommendation.weights, choice.recommendation.candidate)
    )
    others = {} if candidate == recommended else {"candidate": candidate}
    trust_region = stage.section.trust_region
    return survey(
        mixer, choice.objective, recommended, stage.natural, stage.upper, trust_region, stage.seed, others
    )


def _objective(section: Mix, domains: Sequence[str], natural: Floats, runs: RunTable | None) -> Objective:
    """The recipe's objective.

    ``worst`` is relative to the natural mixture's losses, so that a domain of high entropy does not decide
    alone; a search finds them itself, and `runs` is None.
    """
    if section.objective == "natural":
        return Objective("weighted", dict(zip(domains, natural.tolist(), strict=True)))
    if section.objective == "worst":
        if runs is None:
            return Objective("worst")
        return Objective("worst", dict(zip(runs.metric_names, runs.metrics[0].tolist(), strict=True)))
    if section.objective == "mean":
        return Objective("mean")
    return Objective("weighted", dict(section.objective))


def _rounded(weights: Any) -> list[float]:
    return [round(float(weight), 9) for weight in weights]


def _mixture_file(choice: Choice) -> dict[str, Any]:
    """What ``mixture.json`` says of the choice: the weights first, then what they rest on."""
    return {
        "format_version": FORMAT_VERSION,
        "weights": choice.mixtures["chosen"],
        "mixtures": dict(choice.mixtures),
        "objective": {"kind": choice.objective.kind, "by_metric": dict(choice.objective.by_metric or {})},
        "recommendation": choice.recommendation.to_dict(),
        "notes": list(choice.notes),
    }

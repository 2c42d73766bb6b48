"""Train the same tiny model on the natural, the uniform and the chosen mixture, and say which one won."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from .engines import Engine
from .mixture import Choice
from .plan import LAYOUT_VERSION, digest
from .progress import RunProgress
from .proxy_work import (
    OnlineTask,
    TrainingTask,
    model_shape,
    read_results,
    run_training,
    summary,
    training_config,
    weight_log,
)
from .recipe import Recipe
from .run_directory import read_json, write_json, written_whole
from .tokenizing import claim, open_stores


@dataclass(frozen=True)
class OnlineRun:
    """A training whose mixture followed it.

    Attributes:
        reports: lines of the weight log: step, start, shares, and from the second on losses, n_tokens and
            rewards, by domain.
        epochs, token_shares: at the end, by domain.
        kept: candidates and rows kept, by domain; empty where all rows were trained on.
        batch_rows: of each batch.
    """

    reports: Sequence[Mapping[str, Any]]
    epochs: Mapping[str, float]
    token_shares: Mapping[str, float]
    kept: Mapping[str, tuple[int, int]]
    batch_rows: int


@dataclass(frozen=True)
class Comparison:
    """The outcome, as the summary and the report tell it.

    Attributes:
        curves: rows of name, seed, n_tokens, ``loss.<domain>``, objective.
        final: per mixture, the objective at the end for each seed, nats per token.
        sentence: who won, and by how much.
        online: of the trainings whose mixture followed them, seed by seed.
    """

    curves: pa.Table
    final: Mapping[str, Sequence[float]]
    sentence: str
    online: Sequence[OnlineRun] = ()


def compare(
    recipe: Recipe,
    tokens: Path,
    choice: Choice,
    tokens_hash: str,
    run_dir: Path,
    engine: Engine,
    progress: RunProgress,
) -> Comparison:
    """Train each contender with equal tokens, in `n_seeds` repetitions; writes ``train/curves.parquet``."""
    assert recipe.train is not None
    section, folder, domains = recipe.train, run_dir / "train", choice.domains
    mixtures = distinct(choice.contenders)
    claim(folder, digest([LAYOUT_VERSION, tokens_hash, section.model_dump(mode="json"), mixtures]))
    vocab_size = next(iter(open_stores(tokens, domains).values())).vocab_size
    tasks = [
        TrainingTask(
            tokens,
            domains,
            (name,),
            (tuple(weights[domain] for domain in domains),),
            (recipe.seed + repetition,),
            model_shape(section, vocab_size),
            training_config(section, section.n_tokens, section.n_evaluations),
            section.validation_tokens,
            folder / "runs" / f"{name}-{repetition}.parquet",
        )
        for repetition in range(section.n_seeds)
        for name, weights in mixtures.items()
    ]
    tasks += online_tasks(recipe, tokens, choice, folder)
    missing = [task for task in tasks if not task.result.exists()]
    title = "   train: race the mixtures"
    with progress.stage(title, len(tasks), len(tasks) - len(missing), unit="tokens") as bar:
        engine.map_shards(run_training, missing, bar.advance, isolated=True)
    curves = read_results([task.result for task in tasks])
    losses = np.stack([curves[f"loss.{domain}"].to_numpy() for domain in domains], axis=1)
    curves = curves.append_column("objective", pa.array(choice.objective(losses, domains)))
    with written_whole(folder / "curves.parquet") as temporary:
        pq.write_table(curves, temporary, compression="zstd")
    outcome = replace(judge(curves), online=[read_online(task.result) for task in tasks if task.online])
    write_json(folder / "comparison.json", {"final": outcome.final, "sentence": outcome.sentence})
    return outcome


def online_tasks(recipe: Recipe, tokens: Path, choice: Choice, folder: Path) -> list[TrainingTask]:
    """The trainings whose mixture follows them: from the chosen mixture on, on the seeds of the others."""
    assert recipe.train is not None
    assert recipe.mix is not None
    section, domains = recipe.train, choice.domains
    if section.online is None:
        return []
    vocab_size = next(iter(open_stores(tokens, domains).values())).vocab_size
    return [
        TrainingTask(
            tokens,
            domains,
            ("online",),
            (tuple(choice.mixtures["chosen"][domain] for domain in domains),),
            (recipe.seed + repetition,),
            model_shape(section, vocab_size),
            training_config(section, section.n_tokens, section.n_evaluations),
            section.validation_tokens,
            folder / "runs" / f"online-{repetition}.parquet",
            online=OnlineTask(section.online, recipe.mix.max_epochs),
        )
        for repetition in range(section.n_seeds)
    ]


def read_online(result: Path) -> OnlineRun:
    """What an online training left beside its losses."""
    log = weight_log(result)
    lines = log.read_text("utf-8").splitlines() if log.exists() else []
    return OnlineRun([json.loads(line) for line in lines], **read_json(summary(result)))


def distinct(mixtures: Mapping[str, Mapping[str, float]]) -> dict[str, Mapping[str, float]]:
    """The mixtures without those that equal one before them."""
    kept: dict[str, Mapping[str, float]] = {}
    for name, weights in mixtures.items():
        if weights not in kept.values():
            kept[name] = weights
    return kept


def judge(curves: pa.Table) -> Comparison:
    """Who won at equal tokens, and whether the difference is more than the seeds' noise shows."""
    n_tokens = curves["n_tokens"].to_numpy()
    last = curves.filter(pa.array(n_tokens == n_tokens.max()))
    final: dict[str, list[float]] = {}
    for row in last.select(["name", "objective"]).to_pylist():
        final.setdefault(row["name"], []).append(row["objective"])
    return Comparison(curves, final, describe_winner(final))


def describe_winner(final: Mapping[str, Sequence[float]]) -> str:
    """Sentences from the final objectives by mixture and seed: who is lowest, by how much, and how surely.

    >>> describe_winner({"natural": [4.0, 4.06], "chosen": [3.9, 3.98]})
    'The chosen mixture ends lowest, at 3.940 nats: 0.090 (standard error 0.010) below natural.'
    """
    means = {name: float(np.mean(losses)) for name, losses in final.items()}
    winner, *others = sorted(means, key=lambda name: means[name])
    if not others:
        return f"All mixtures are the same one; it ends at {means[winner]:.3f} nats."
    margins = []
    for other in others:
        differences = np.array(final[other]) - np.array(final[winner])
        margin, error = float(differences.mean()), None
        if len(differences) > 1:
            error = float(differences.std(ddof=1) / np.sqrt(len(differences)))
        known = "" if error is None else f" (standard error {error:.3f})"
        doubt = ", which is within noise" if error is not None and margin < 2 * error else ""
        margins.append(f"{margin:.3f}{known} below {other}{doubt}")
    one_seed = "" if len(final[winner]) > 1 else " One seed: set train.n_seeds to see what is noise."
    return f"The {winner} mixture ends lowest, at {means[winner]:.3f} nats: {'; '.join(margins)}.{one_seed}"

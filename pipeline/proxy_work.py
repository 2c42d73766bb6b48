"""Training runs as tasks: a process each, so that threads and bits are the same on any engine.

torch is imported where something is trained: a run that only curates starts a second sooner.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..streaming.shards import domain_folder
from .errors import InputError
from .recipe import Model, Online
from .run_directory import write_json, written_whole

if TYPE_CHECKING:
    from ..proxy_models.proxies import ProxyResult
    from ..proxy_models.training import TrainingConfig
    from ..proxy_models.transformer import ModelShape

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


@dataclass(frozen=True)
class TrainingTask:
    """Models of one shape, each on a mixture of its own, trained as one group; picklable.

    The result is a Parquet file with a row per model and checkpoint: ``name``, ``weight.<domain>``,
    ``loss.<domain>``, ``n_parameters``, ``n_tokens``, ``seed``, ``failure``.
    """

    tokens: Path
    domains: tuple[str, ...]
    names: tuple[str, ...]
    weights: tuple[tuple[float, ...], ...]
    seeds: tuple[int, ...]
    shape: ModelShape
    config: TrainingConfig
    validation_tokens: int
    result: Path
    online: OnlineTask | None = None
    target_tokens: int | None = None  # of the run whose epochs the domains are sub-sampled to


@dataclass(frozen=True)
class OnlineTask:
    """A training whose mixture follows it: the one model of its task.

    Beside the result lie what `weight_log` and `summary` name: each report with the weights that it led to,
    and epochs, shares, rows kept by domain.
    """

    section: Online
    max_epochs: float


def weight_log(result: Path) -> Path:
    """Of the online training with that result."""
    return result.with_suffix(".weights.jsonl")


def summary(result: Path) -> Path:
    """Of the online training with that result."""
    return result.with_suffix(".json")


def training_config(model: Model, n_tokens: int, n_evaluations: int = 1) -> TrainingConfig:
    """How models of a recipe's section are trained."""
    from ..proxy_models.training import TrainingConfig

    batch_tokens = model.batch_size * model.sequence_length
    eval_every = -(-n_tokens // batch_tokens // n_evaluations) * batch_tokens
    config = TrainingConfig(n_tokens=n_tokens, batch_tokens=batch_tokens, eval_every=eval_every)
    return config if model.learning_rate is None else replace(config, learning_rate=model.learning_rate)


def model_shape(model: Model, vocab_size: int) -> ModelShape:
    """The shape that a recipe's section gives its models."""
    from ..proxy_models.transformer import ModelShape

    return ModelShape(
        vocab_size, model.sequence_length, model.n_layers, model.d_model, model.n_heads, model.d_ff
    )


def run_training(task: TrainingTask) -> int:
    """Train the task's models and write their losses whole; returns the tokens trained on.

    Raises:
        InputError: a domain has too few held-out or training tokens.
    """
    from ..proxy_models.proxies import train_proxies

    keep_freed_memory()
    sources = {domain: domain_folder(task.tokens, domain) for domain in task.domains}
    n_validation_rows = max(1, task.validation_tokens // task.shape.sequence_length)
    try:
        if task.online is not None:
            results = _train_online(task, task.online, sources, n_validation_rows)
        else:
            results = train_proxies(
                sources,
                np.array(task.weights),
                task.shape,
                task.config,
                seeds=task.seeds,
                n_validation_rows=n_validation_rows,
                models_per_group=len(task.names),
                target_tokens=task.target_tokens,
            )
    except ValueError as error:
        raise InputError(f"training {', '.join(task.names)}: {error}") from error
    n_checkpoints = len(task.config.checkpoints())
    rows = [
        {"name": task.names[i // n_checkpoints]} | result.to_row() | {"failure": result.failure}
        for i, result in enumerate(results)
    ]
    columns = {name: pa.array([row[name] for row in rows]) for name in rows[0]}
    columns["failure"] = columns["failure"].cast(pa.string())
    with written_whole(task.result) as temporary:
        pq.write_table(pa.table(columns), temporary, compression="zstd")
    return task.config.n_steps * task.config.batch_tokens * len(task.names)


def _train_online(
    task: TrainingTask, online: OnlineTask, sources: Mapping[str, Path], n_validation_rows: int
) -> list[ProxyResult]:
    """The task's one model; writes the weight log and the summary."""
    from ..proxy_models.online import Candidates, train_online
    from ..streaming.online import OnlineMixing

    section = online.section
    mixing = OnlineMixing(
        section.policy,
        section.parameters,
        every=section.every,
        lag=section.lag,
        replay=section.replay,
        log=weight_log(task.result),
    )
    results, found = train_online(
        sources,
        dict(zip(task.domains, task.weights[0], strict=True)),
        task.shape,
        task.config,
        mixing,
        candidates=Candidates(section.factor, section.method) if section.factor > 1 else None,
        max_epochs=online.max_epochs,
        seed=task.seeds[0],
        n_validation_rows=n_validation_rows,
    )
    write_json(summary(task.result), found)
    return results


def keep_freed_memory() -> None:
    """Let glibc keep large freed blocks for the next step instead of handing each back to the kernel.

    A step's logits are megabytes that malloc would map and fault in anew every time: a third of the CPU time
    of a tiny model's training. Elsewhere than on glibc nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(M_MMAP_THRESHOLD, 1 << 30)
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


def read_results(paths: Sequence[Path]) -> pa.Table:
    """The tasks' rows, in the tasks' order."""
    return pa.concat_tables([pq.read_table(path) for path in paths])

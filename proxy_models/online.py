"""Train one proxy whose mixture, and whose rows, follow its own losses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..streaming import batch as streaming_batch
from ..streaming.loader import StreamingLoader
from ..streaming.online import OnlineMixing
from .proxies import ProxyResult, Source, results_of, validation_rows
from .training import Batch, TrainingConfig, train
from .transformer import GroupedTransformer, ModelShape


@dataclass(frozen=True)
class Candidates:
    """From how many batches' rows a batch is chosen, and how; a method that asks for no more than losses."""

    factor: int = 1
    method: str = "random"


def train_online(
    sources: Mapping[str, Source],
    weights: Mapping[str, float],
    shape: ModelShape,
    config: TrainingConfig,
    mixing: OnlineMixing,
    *,
    candidates: Candidates | None = None,
    max_epochs: float | None = None,
    seed: int = 0,
    n_validation_rows: int = 64,
) -> tuple[list[ProxyResult], dict[str, Any]]:
    """Train one model with feedback, and measure it as `train_proxies` does.

    Args:
        sources: domain -> its token shards.
        weights: of the mixture at the start, the policy's prior.
        mixing: which policy, how often.
        candidates: rows to choose batches from; None: the loader's batches.
        max_epochs: of each domain.
        seed: of the initial weights and the orders of documents, as of `train_proxies`.
        n_validation_rows: of each domain.
    Returns:
        A result for each checkpoint, with the weights at the start; and what else happened, in plain JSON:
        `epochs`, `token_shares`, and `kept`, candidates and kept rows, by domain; `batch_rows`.
    """
    batch_rows = config.batch_tokens // shape.sequence_length
    loader = StreamingLoader(
        sources,
        weights,
        sequence_length=shape.sequence_length,
        global_batch=batch_rows,
        mask_boundaries=False,
        max_epochs=max_epochs,
        seed=seed,
        steps=config.n_steps * (1 if candidates is None else candidates.factor),
        policy=mixing,
    )
    following = _Following(loader, candidates)
    held_out = {
        domain: validation_rows(source, shape.sequence_length, n_validation_rows)
        for domain, source in sources.items()
    }
    (curve,) = train(shape, [following.batches()], held_out, config, [seed], following)
    stats = loader.stats()
    kept = loader.state_dict().get("superbatches", {}).get("kept", {})
    found = {name: stats[name] for name in ("epochs", "token_shares")} | {
        "kept": kept,
        "batch_rows": batch_rows,
    }
    return results_of(weights, shape.n_parameters, seed, list(held_out), curve), found


class _Following:
    """Makes the batches of a loader, and tells it of their losses."""

    def __init__(self, loader: StreamingLoader, candidates: Candidates | None) -> None:
        self._loader, self._candidates = loader, candidates
        self._models: GroupedTransformer | None = None
        self._last: streaming_batch.Batch | None = None

    def batches(self) -> Iterator[Batch]:
        if self._candidates is None:
            for batch in self._loader:
                self._last = batch
                yield batch.input_ids, batch.labels
            return
        for found in self._loader.superbatches(self._candidates.factor, self._candidates.method):
            scores = self._scores(found.batch)
            self._loader.feedback(found.batch, loss_per_row=scores)
            chosen = found.select(scores=scores)
            yield chosen.input_ids, chosen.labels

    def begin(self, models: GroupedTransformer) -> None:
        self._models = models

    def report(self, row_losses: Tensor) -> None:
        if self._last is not None:
            self._loader.feedback(self._last, loss_per_row=row_losses[0])

    def _scores(self, batch: streaming_batch.Batch) -> Tensor:
        assert self._models is not None
        device = self._models.head.device
        with torch.no_grad():
            return self._models.row_losses(batch.input_ids[None].to(device), batch.labels[None].to(device))[0]

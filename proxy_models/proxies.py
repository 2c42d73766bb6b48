"""From mixtures of token shards to rows of losses: the proxies that a mixer learns from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from ..streaming.loader import StreamingLoader
from ..streaming.shards import TokenStore
from .ngram import NgramProxy
from .pools import repetition_matched
from .training import Batch, LossCurve, TrainingConfig, train
from .transformer import ModelShape
from .zero import sampled_tokens

Source = str | Path  # a domain's folder of token shards


@dataclass(frozen=True)
class ProxyResult:
    """One model at one checkpoint.

    Attributes:
        weights: of the mixture, by training domain.
        n_parameters, n_tokens: the fidelity.
        seed: of the initial weights and the order of the data.
        losses: by validation domain, nats per token; not to be used where there is a failure.
        failure: why the run has no usable losses, or None.
    """

    weights: dict[str, float]
    n_parameters: int
    n_tokens: int
    seed: int
    losses: dict[str, float]
    failure: str | None = None

    def to_row(self) -> dict[str, float | int | str | None]:
        """A row of the run table: weight.<domain>, loss.<domain>, n_parameters, n_tokens, seed, failure.

        >>> ProxyResult({"web": 1.0}, 368_960, 400_000, 0, {"web": 5.1}).to_row()["loss.web"]
        5.1
        """
        return {
            **{f"weight.{domain}": weight for domain, weight in self.weights.items()},
            **{f"loss.{domain}": loss for domain, loss in self.losses.items()},
            "n_parameters": self.n_parameters,
            "n_tokens": self.n_tokens,
            "seed": self.seed,
            "failure": self.failure,
        }


def train_proxies(
    sources: Mapping[str, Source],
    weights: NDArray[np.float64],
    shape: ModelShape,
    config: TrainingConfig,
    *,
    validation: Mapping[str, Source] | None = None,
    seeds: Sequence[int] | None = None,
    n_validation_rows: int = 64,
    models_per_group: int = 4,
    target_tokens: int | None = None,
) -> list[ProxyResult]:
    """Train one proxy per mixture through the loader that real models use.

    With equal seeds, two mixtures start from the same model and read each domain in the same order, so that
    their difference is the mixture's. Groups bound memory: a group holds models_per_group * batch_tokens *
    vocab_size logits.

    Args:
        sources: training domain -> its token shards.
        weights: float64, (n_models, K), mixtures over `sources`, in its order.
        shape: of every model; its vocab_size is the tokenizer's.
        config: of every run. Domains repeat as often as weights and n_tokens ask for.
        validation: validation domain -> token shards with a "validation" split; the training domains by
            default.
        seeds: one per mixture; all 0 by default. Repeat a mixture with another seed to see the noise.
        n_validation_rows: rows of sequence_length per validation domain, the same for all models; all, where
            there are fewer.
        models_per_group: models trained side by side. Another number gives the same losses up to rounding.
        target_tokens: of the run that the mixtures are for: proxies read domains sub-sampled to its epochs
            (`pools.repetition_matched`), seed 0. None: all there is of each domain.
    Returns:
        One result per mixture and checkpoint, mixture by mixture.
    Raises:
        ValueError: weights of another shape; a validation split too short for one row; see also `train`.
    """
    mixtures = np.asarray(weights, dtype=np.float64)
    if mixtures.ndim != 2 or mixtures.shape[1] != len(sources):
        raise ValueError(
            f"weights have shape {mixtures.shape}; expected (n_models, {len(sources)}), one per domain."
        )
    all_seeds = [0] * len(mixtures) if seeds is None else list(seeds)
    if len(all_seeds) != len(mixtures):
        raise ValueError(f"found {len(all_seeds)} seeds for {len(mixtures)} mixtures; give one for each.")
    named = [dict(zip(sources, row.tolist(), strict=True)) for row in mixtures]
    held_out = {
        domain: validation_rows(source, shape.sequence_length, n_validation_rows)
        for domain, source in (validation or sources).items()
    }
    if target_tokens is not None:
        with TemporaryDirectory() as folder:
            pools = repetition_matched(
                sources, config.n_tokens, target_tokens, folder, min_tokens=shape.sequence_length + 1
            )
            return _trained(pools, named, all_seeds, held_out, shape, config, models_per_group)
    return _trained(sources, named, all_seeds, held_out, shape, config, models_per_group)


def _trained(
    sources: Mapping[str, Source],
    named: list[dict[str, float]],
    all_seeds: list[int],
    held_out: Mapping[str, Batch],
    shape: ModelShape,
    config: TrainingConfig,
    models_per_group: int,
) -> list[ProxyResult]:
    """Group by group."""
    results = []
    for first in range(0, len(named), models_per_group):
        group = slice(first, first + models_per_group)
        batches = [
            _training_batches(sources, mixture, shape, config, seed)
            for mixture, seed in zip(named[group], all_seeds[group], strict=True)
        ]
        curves = train(shape, batches, held_out, config, all_seeds[group])
        for mixture, seed, curve in zip(named[group], all_seeds[group], curves, strict=True):
            results += results_of(mixture, shape.n_parameters, seed, list(held_out), curve)
    return results


def validation_rows(source: Source, sequence_length: int, n_rows: int) -> Batch:
    """The first n_rows rows of the "validation" split, shuffled with seed 0; all, where there are fewer."""
    store = TokenStore(source, "validation")
    available = (store.n_tokens - 1) // sequence_length
    if available < 1:
        raise ValueError(
            f"{store.folder}: split '{store.split}' has {store.n_tokens} tokens; a row needs "
            f"{sequence_length + 1}. Hold out more text, or lower sequence_length."
        )
    n_rows = min(n_rows, available)
    loader = StreamingLoader(
        {store.domain: store},
        sequence_length=sequence_length,
        global_batch=n_rows,
        mask_boundaries=False,
        max_epochs=1.0,
        steps=1,
    )
    batch = next(loader)
    return batch.input_ids, batch.labels


def fit_ngram_proxy(
    sources: Mapping[str, Source],
    *,
    validation: Mapping[str, Source] | None = None,
    max_tokens: int | None = None,
    n_validation_pairs: int = 8192,
    seed: int = 0,
) -> NgramProxy:
    """The n-gram proxy of the same shards; its tokens are in memory while it counts.

    Args:
        sources: training domain -> its token shards.
        validation: validation domain -> token shards with a "validation" split; the training domains by
            default.
        max_tokens: of each training domain, in rows of 2,048 drawn at random; None for all.
        n_validation_pairs: as in `NgramProxy.fit`.
        seed: of both samples.
    """
    stores = [TokenStore(source, "train") for source in sources.values()]
    held_out = [TokenStore(source, "validation") for source in (validation or sources).values()]
    return NgramProxy.fit(
        [sampled_tokens(store, max_tokens, seed) for store in stores],
        [store.read(0, store.n_tokens) for store in held_out],
        stores[0].vocab_size,
        n_validation_pairs,
        seed,
        [np.concatenate([[0], np.cumsum(store.lengths)]) for store in held_out],
    )


def _training_batches(
    sources: Mapping[str, Source],
    mixture: Mapping[str, float],
    shape: ModelShape,
    config: TrainingConfig,
    seed: int,
) -> Iterator[Batch]:
    loader = StreamingLoader(
        sources,
        mixture,
        sequence_length=shape.sequence_length,
        global_batch=config.batch_tokens // shape.sequence_length,
        mask_boundaries=False,
        seed=seed,
    )
    return ((batch.input_ids, batch.labels) for batch in loader)


def results_of(
    mixture: Mapping[str, float], n_parameters: int, seed: int, domains: Sequence[str], curve: LossCurve
) -> list[ProxyResult]:
    """A curve's checkpoints, one result each."""
    return [
        ProxyResult(
            dict(mixture),
            n_parameters,
            n_tokens,
            seed,
            dict(zip(domains, losses, strict=True)),
            curve.failure,
        )
        for n_tokens, losses in zip(curve.n_tokens.tolist(), curve.losses.tolist(), strict=True)
    ]

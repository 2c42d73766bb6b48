"""Fidelity zero from token shards: trigram counts of each domain, shard by shard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.permutation import permute
from ..streaming.shards import TokenStore
from .trigram import DEFAULT, HeldOutTrigrams, NgramCounts, Smoothing, TrigramProxy, merged

SAMPLE_ROW = 2048  # tokens read at one place when a domain is sampled


def fit_trigram_proxy(
    sources: Mapping[str, str | Path],
    *,
    validation: Mapping[str, str | Path] | None = None,
    max_tokens: int | None = None,
    n_trigrams: int = 8192,
    smoothing: Smoothing = DEFAULT,
    seed: int = 0,
) -> TrigramProxy:
    """The trigram proxy of token shards; memory for one shard and the held-out sample's counts.

    Args:
        sources: training domain -> its token shards.
        validation: validation domain -> token shards with a "validation" split; the training domains by
            default.
        max_tokens: of each training domain, in rows of 2,048 drawn at random; None for all.
        n_trigrams: held-out trigrams of each validation domain.
        smoothing: of the model.
        seed: of both samples.
    Raises:
        ValueError: no split "validation", or a domain too short for a trigram.
    """
    held_out = [TokenStore(source, "validation") for source in (validation or sources).values()]
    stores = [TokenStore(source, "train") for source in sources.values()]
    sample = HeldOutTrigrams.sample(
        [store.read(0, store.n_tokens) for store in held_out],
        stores[0].vocab_size,
        n_trigrams,
        seed,
        [np.concatenate([[0], np.cumsum(store.lengths)]) for store in held_out],
    )
    return sample.finish([count_store(sample, store, max_tokens, seed) for store in stores], smoothing)


def count_store(sample: HeldOutTrigrams, store: TokenStore, max_tokens: int | None, seed: int) -> NgramCounts:
    """The counts of one domain's shards, or of about max_tokens of their tokens."""
    if max_tokens is None or max_tokens >= store.n_tokens:
        shards = zip(store.pieces, store.offsets, strict=True)
        return merged([sample.observe(tokens, offsets) for tokens, offsets in shards])
    tokens = sampled_tokens(store, max_tokens, seed)
    return sample.observe(tokens, np.append(np.arange(0, len(tokens), SAMPLE_ROW), len(tokens)))


def sampled_tokens(store: TokenStore, max_tokens: int | None, seed: int) -> NDArray[Any]:
    """All tokens, or about max_tokens in rows drawn without replacement, one after another."""
    n_rows = store.n_tokens // SAMPLE_ROW
    n_wanted = n_rows if max_tokens is None else max(1, max_tokens // SAMPLE_ROW)
    if n_wanted >= n_rows:
        return store.read(0, store.n_tokens)
    rows = np.sort(permute(np.arange(n_wanted), n_rows, seed))
    return np.concatenate([store.read(row * SAMPLE_ROW, SAMPLE_ROW) for row in rows.tolist()])

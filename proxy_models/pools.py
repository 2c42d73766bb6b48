"""Domains sub-sampled for proxies: a domain repeats as often in a proxy as it will in the target run."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import cast

import numpy as np

from ..kernels.permutation import permute
from ..streaming.manifest import TokenDtype
from ..streaming.shards import TokenStore, domain_folder, shard_name, write_manifest, write_token_shard


def repetition_matched(
    sources: Mapping[str, str | Path],
    n_tokens: int,
    target_tokens: int,
    folder: str | Path,
    *,
    seed: int = 0,
    min_tokens: int = 2,
) -> dict[str, Path]:
    """Token shards of n_tokens / target_tokens of each domain's training documents, below `folder`.

    A proxy of n_tokens on a mixture w reads w n_tokens of a domain, the target run w target_tokens of it: of
    pools in the same proportion both make the same number of epochs. Documents are drawn by a keyed order of
    (seed, domain name), whatever the other domains, until the pool is full; the last one is cut, so that the
    pool has its tokens exactly. A smaller pool of the same seed is the beginning of a larger one.

    Args:
        sources: training domain -> its token shards.
        n_tokens: of each proxy.
        target_tokens: of the run that the mixture is for; up to n_tokens, the sources serve as they are.
        folder: for the shards; a domain's are in a folder of its own.
        seed: of the draws.
        min_tokens: that a pool must have.
    Returns:
        Domain -> its shards; a pool has a "train" split only.
    Raises:
        ValueError: a domain's pool would have fewer than min_tokens tokens.

    Source: Repetition Mismatch (2606.07597): proxies on pools that are not sub-sampled see scarce domains as
        fresher than the target run will.
    """
    if target_tokens <= n_tokens:
        return {domain: Path(source) for domain, source in sources.items()}
    share, pools = n_tokens / target_tokens, {}
    for domain, source in sources.items():
        store = TokenStore(source, "train")
        wanted = round(share * store.n_tokens)
        if wanted < min_tokens:
            raise ValueError(
                f"domain '{domain}' has {store.n_tokens:,} tokens; a proxy of {n_tokens:,} for a run of "
                f"{target_tokens:,} may see {wanted:,} of them, {min_tokens:,} are needed. Train longer "
                "proxies, or leave the domain out."
            )
        pools[domain] = domain_folder(folder, domain)
        _write_pool(store, domain, wanted, pools[domain], seed)
    return pools


def _write_pool(store: TokenStore, domain: str, n_tokens: int, folder: Path, seed: int) -> None:
    """The first documents of the domain's keyed order that fill the pool."""
    lengths = store.lengths
    digest = blake2b(f"pool {seed} {domain}".encode(), digest_size=8).digest()
    order = permute(np.arange(len(lengths)), len(lengths), int.from_bytes(digest, "little"))
    n_docs = int(np.searchsorted(np.cumsum(lengths[order]), n_tokens)) + 1
    chosen = order[:n_docs]
    kept = lengths[chosen].copy()
    kept[-1] -= kept.sum() - n_tokens
    starts = np.concatenate([[0], np.cumsum(lengths)])
    parts = [store.read(int(starts[doc]), int(n)) for doc, n in zip(chosen, kept, strict=True)]
    offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
    path = folder / shard_name("train", 0)
    write_token_shard(
        path, np.concatenate(parts), offsets, store.doc_ids[chosen], cast(TokenDtype, str(store.dtype))
    )
    write_manifest(
        folder,
        domain=domain,
        vocab_size=store.vocab_size,
        tokenizer_hash=store.tokenizer_hash,
        eos_id=store.eos_id,
    )

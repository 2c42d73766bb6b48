from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from cuvee.streaming.shards import TokenDtype, domain_folder, shard_name, write_manifest, write_token_shard

EOS = 1
VOCAB_SIZE = 60_000
WriteStore = Callable[..., Path]


@pytest.fixture
def write_store(tmp_path: Path) -> WriteStore:
    """Writes a domain's shards, one for each list of documents, and their manifest."""

    def write(
        domain: str,
        shards: Sequence[Sequence[Sequence[int]]],
        split: str = "train",
        dtype: TokenDtype = "uint16",
        tokenizer_hash: str = "t0",
        vocab_size: int = VOCAB_SIZE,
        eos_id: int = EOS,
        repeats: Sequence[int] | None = None,
    ) -> Path:
        folder = domain_folder(tmp_path / "tokens", domain)
        for index, documents in enumerate(shards):
            offsets = np.cumsum([0, *map(len, documents)])
            values = np.array([token for document in documents for token in document], np.int64)
            doc_ids = np.arange(len(documents), dtype=np.uint64) + np.uint64(1000 * index)
            name = shard_name(split, index, 1 if repeats is None else repeats[index])
            write_token_shard(folder / name, values, offsets, doc_ids, dtype)
        write_manifest(
            folder, domain=domain, vocab_size=vocab_size, tokenizer_hash=tokenizer_hash, eos_id=eos_id
        )
        return folder

    return write


@pytest.fixture
def write_stream(write_store: WriteStore) -> WriteStore:
    """Writes a domain of n tokens first, first + 1, ... so that a token tells where it stood."""

    def write(domain: str, n_tokens: int, first: int = 0, n_shards: int = 2, **options: object) -> Path:
        parts = np.array_split(np.arange(first, first + n_tokens), n_shards)
        shards = [[part[:3].tolist(), part[3:].tolist()] for part in parts]
        return write_store(domain, shards, **options)

    return write

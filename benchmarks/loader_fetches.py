"""What a loader fetches in an epoch when its cache holds a part of the data, for benchmarks/loader.py."""

import tempfile
from itertools import islice
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem

from cuvee.streaming import StreamingLoader
from cuvee.streaming.shards import domain_folder, write_manifest, write_token_shard

L, ROWS = 16, 16
# Of each domain; documents and tokens of each shard.
N_SHARDS, N_DOCS, MEAN_LENGTH = 24, 512, 8
WINDOW = 4
CACHED = 0.4  # of the data
N_BATCHES = 100  # of a global shuffle, in which one is like the other


class CountedFiles(LocalFileSystem):
    """Local files that count the bytes read of them."""

    protocol = "counted"
    n_bytes_read = 0

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        data: bytes = super().cat_file(path.removeprefix("counted://"), start=start, end=end, **options)
        CountedFiles.n_bytes_read += len(data)
        return data

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        stripped: str = LocalFileSystem._strip_protocol(str(path).removeprefix("counted://"))
        return stripped


def fetches() -> dict[str, Any]:
    """Bytes fetched in an epoch, in bytes of the shards, by order of the shards, packed by concat.

    A global shuffle touches as many shards as a batch has rows, wherever they lie; a window as many as it
    has of each domain.
    """
    fsspec.register_implementation("counted", CountedFiles, clobber=True)
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sources = {name: _domain(folder, name) for name in ("code", "web")}
        n_bytes = sum(path.stat().st_size for path in folder.rglob("*.arrow"))
        uris = {name: f"counted://{path}" for name, path in sources.items()}
        for window in (None, WINDOW):
            name = "global shuffle" if window is None else f"window of {window} shards"
            found[name] = _fetched(uris, folder / name, int(CACHED * n_bytes), window) / n_bytes
    return {"fetched_of_data": found, "cached_of_data": CACHED}


def _domain(folder: Path, name: str) -> Path:
    random, path = np.random.default_rng(len(name)), domain_folder(folder / "tokens", name)
    for k in range(N_SHARDS):
        lengths = random.integers(1, 2 * MEAN_LENGTH, N_DOCS)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        tokens = random.integers(2, 50_000, int(offsets[-1]), dtype=np.uint16)
        ids = np.arange(N_DOCS, dtype=np.uint64) + k * N_DOCS
        write_token_shard(path / f"train-{k:05d}.arrow", tokens, offsets, ids, "uint16")
    write_manifest(path, domain=name, vocab_size=50_000, tokenizer_hash="benchmark", eos_id=1)
    return path


def _fetched(uris: dict[str, str], cache: Path, cache_bytes: int, window: int | None) -> float:
    """Bytes read in an epoch of both domains; of a global shuffle, in as many rows as an epoch has."""
    CountedFiles.n_bytes_read = 0
    batches = StreamingLoader(
        uris,
        sequence_length=L,
        global_batch=ROWS,
        window=window,
        max_epochs=1,
        prefetch=0,
        cache=cache,
        cache_bytes=cache_bytes,
    )
    n_drawn = sum(1 for _ in islice(batches, N_BATCHES if window is None else None))
    batches.close()
    n_batches = 2 * N_SHARDS * N_DOCS * MEAN_LENGTH / (L * ROWS) if window is None else n_drawn
    return CountedFiles.n_bytes_read * n_batches / n_drawn

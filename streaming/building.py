"""Token shards made of documents that were tokenized already, or of other token shards."""

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels.permutation import mix64
from .documents import Documents
from .manifest import MANIFEST, TokenDtype
from .shards import TokenStore, shard_name, splits_of, write_manifest, write_token_shard

N_TOKENS_OF_SHARD = 1 << 27
TRAIN, VALIDATION = "train", "validation"


class Built(NamedTuple):
    """What was written."""

    n_docs: int
    n_tokens: int
    n_ends_added: int  # documents that had no end-of-sequence token of their own


def build_shards(
    documents: Iterable[Documents],
    folder: str | Path,
    *,
    domain: str,
    vocab_size: int,
    eos_id: int,
    tokenizer_hash: str,
    validation_fraction: float = 0.0,
    seed: int = 0,
    n_tokens_of_shard: int = N_TOKENS_OF_SHARD,
) -> Built:
    """Write documents as one domain's token shards; deterministic, one shard of each split in memory.

    A document that does not end with `eos_id` gets one. It goes to validation where a hash of its number
    falls below `validation_fraction`. A document is never divided, so a shard may be longer than asked for.

    Args:
        folder: the domain's; empty or not there yet.
        vocab_size: every token is below it; up to 65,536 they take two bytes, else four.
        tokenizer_hash: any text that names the tokenizer; loaders mix only domains of the same.
    Raises:
        ValueError: the folder holds files; a token is not in the vocabulary; there are no documents.
    """
    folder = _new_folder(folder)
    dtype: TokenDtype = "uint16" if vocab_size <= 1 << 16 else "uint32"
    if not 0 <= eos_id < vocab_size:
        raise ValueError(f"eos_id is {eos_id}; with vocab_size {vocab_size} it must lie in [0, {vocab_size})")
    writers = {split: _Writer(folder, split, dtype, n_tokens_of_shard) for split in (TRAIN, VALIDATION)}
    n_docs = n_tokens = n_ends_added = 0
    for part in documents:
        ended, n_added = _ended(part, eos_id)
        _check_tokens(ended, vocab_size, n_docs)
        numbers = np.arange(n_docs, n_docs + ended.offsets.size - 1, dtype=np.uint64)
        keys = mix64(numbers, seed)
        held_out = keys < np.uint64(int(validation_fraction * 2**64))
        writers[TRAIN].add(ended, keys, ~held_out)
        writers[VALIDATION].add(ended, keys, held_out)
        n_docs, n_tokens = n_docs + keys.size, n_tokens + ended.values.size
        n_ends_added += n_added
    if n_docs == 0:
        raise ValueError(f"{folder}: there are no documents to write")
    for writer in writers.values():
        writer.flush()
    write_manifest(folder, domain=domain, vocab_size=vocab_size, tokenizer_hash=tokenizer_hash, eos_id=eos_id)
    return Built(n_docs, n_tokens, n_ends_added)


def merge_shards(sources: Sequence[str | Path], folder: str | Path, *, domain: str) -> Built:
    """Put the shards of several domains' folders into one folder, as one domain, in the order given.

    Shards are linked where the file system lets them be, else copied; the sources stay as they are.

    Raises:
        ValueError: the folder holds files; the sources' tokenizers differ; one cannot be opened.
    """
    folder = _new_folder(folder)
    stores = [TokenStore(source, split) for source in sources for split in splits_of(source)]
    if not stores:
        raise ValueError("sources: none given; name at least one folder of token shards")
    first = stores[0]
    for field in ("tokenizer_hash", "vocab_size", "eos_id", "dtype"):
        for store in stores:
            if (found := getattr(store, field)) != (expected := getattr(first, field)):
                raise ValueError(
                    f"{store.folder}: {field} is {found}, in {first.folder} it is {expected}; only shards "
                    "of one tokenizer can be merged"
                )
    folder.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    for store in stores:
        for path, repeat in store.files:
            number = counts.get(store.split, 0)
            _link(path, folder / shard_name(store.split, number, repeat))
            counts[store.split] = number + 1
    write_manifest(
        folder,
        domain=domain,
        vocab_size=first.vocab_size,
        tokenizer_hash=first.tokenizer_hash,
        eos_id=first.eos_id,
    )
    n_docs, n_tokens = (
        sum(getattr(store, f"n_distinct_{what}") for store in stores) for what in ("docs", "tokens")
    )
    return Built(n_docs, n_tokens, 0)


class _Writer:
    """Collects one split's documents until they fill a shard."""

    def __init__(self, folder: Path, split: str, dtype: TokenDtype, n_tokens: int) -> None:
        self._folder, self._split, self._dtype, self._n_tokens = folder, split, dtype, n_tokens
        self._parts: list[tuple[NDArray[Any], NDArray[np.int64], NDArray[np.uint64]]] = []
        self._size = self._number = 0

    def add(self, documents: Documents, keys: NDArray[np.uint64], chosen: NDArray[np.bool_]) -> None:
        if not chosen.any():
            return
        lengths = np.diff(documents.offsets)
        values = documents.values[np.repeat(chosen, lengths)].astype(self._dtype)
        self._parts.append((values, lengths[chosen], keys[chosen]))
        self._size += values.size
        if self._size >= self._n_tokens:
            self.flush()

    def flush(self) -> None:
        if not self._parts:
            return
        values, lengths, keys = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        path = self._folder / shard_name(self._split, self._number)
        write_token_shard(path, values, offsets, keys, self._dtype)
        self._parts, self._size, self._number = [], 0, self._number + 1


def _ended(documents: Documents, eos_id: int) -> tuple[Documents, int]:
    """The documents, each with `eos_id` last, and how many of them lacked it."""
    values, offsets = documents
    lengths = np.diff(offsets)
    lacks = lengths == 0
    lacks[~lacks] = values[offsets[1:][~lacks] - 1] != eos_id
    if not lacks.any():
        return documents, 0
    wide = values.astype(np.int64)  # eos_id may not fit the source's type
    return Documents(
        np.insert(wide, offsets[1:][lacks], eos_id), np.concatenate([[0], np.cumsum(lengths + lacks)])
    ), int(lacks.sum())


def _check_tokens(documents: Documents, vocab_size: int, n_before: int) -> None:
    values = documents.values
    if not values.size or (int(values.min()) >= 0 and int(values.max()) < vocab_size):
        return
    at = int(np.argmax((values < 0) | (values >= vocab_size)))
    doc = int(np.searchsorted(documents.offsets, at, side="right")) - 1
    raise ValueError(
        f"document {n_before + doc}: token {at - documents.offsets[doc]} is {values[at]}; with vocab_size "
        f"{vocab_size} tokens lie in [0, {vocab_size}); give the tokenizer's own vocab_size"
    )


def _new_folder(folder: str | Path) -> Path:
    folder = Path(folder)
    if folder.is_dir() and any(folder.iterdir()):
        what = "token shards" if (folder / MANIFEST).exists() else "files"
        raise ValueError(f"{folder}: holds {what} already; name a new folder, or remove it")
    return folder


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)

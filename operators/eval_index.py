"""The n-grams of evaluation sets: what decontamination looks for."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray

from ..kernels.ngram_index import ngram_hashes, ngram_hashes_at
from ..kernels.shingles import word_hashes
from .files import read_bytes
from .text_column import text_buffers


@dataclass(frozen=True)
class NgramsOfLength:
    """All different n-grams of one length, and the items that each stands in.

    keys: uint64, (n_keys,), ascending.
    item_offsets: int64, (n_keys + 1,), key k stands in items[item_offsets[k]:item_offsets[k + 1]].
    items: int64, (n_pairs,), each item once for a key, ascending.
    """

    n: int
    keys: NDArray[np.uint64]
    item_offsets: NDArray[np.int64]
    items: NDArray[np.int64]


@dataclass(frozen=True)
class EvalIndex:
    """Evaluation items and their n-grams.

    names: of each item, ``dataset:id``.
    lengths: one entry for each length of n-gram that occurs, ascending.
    heads: uint64, (n_heads,), ascending, the first `min_item_words` words of the items shorter than n: one
        look for these finds the candidates of every shorter length.
    n_ngrams: int64, (n_items,), different n-grams of each item; 0 of one too short to be looked for.
    """

    names: tuple[str, ...]
    lengths: tuple[NgramsOfLength, ...]
    heads: NDArray[np.uint64]
    n_ngrams: NDArray[np.int64]


@lru_cache(maxsize=4)
def eval_index(paths: tuple[str, ...], fields: tuple[str, ...], n: int, min_item_words: int) -> EvalIndex:
    """The index over JSONL files of evaluation items.

    An item is its fields one after another. One of fewer than n words has a single n-gram: all of it.

    Args:
        min_item_words: a shorter item is not looked for.
    Raises:
        ValueError: a file cannot be read, or a record has none of `fields`.
    """
    named = [item for path in paths for item in _items(path, fields)]
    data, offsets = text_buffers(pa.chunked_array([[text for _, text in named]], pa.large_string()))
    words, word_offsets = word_hashes(data, offsets)
    n_words = np.diff(word_offsets)
    length = np.where(n_words < min_item_words, 0, np.minimum(n_words, n))
    n_ngrams = np.zeros(len(named), np.int64)
    lengths = []
    for of in (int(of) for of in np.unique(length) if of):
        hashes, starts = ngram_hashes(words, word_offsets, of)
        item = np.repeat(np.arange(len(named)), np.diff(starts))
        pairs = np.stack([hashes, item.astype(np.uint64)], axis=1)[length[item] == of]
        pairs = np.unique(pairs, axis=0)  # (n_pairs, 2), by key, then by item
        keys, first = np.unique(pairs[:, 0], return_index=True)
        items = pairs[:, 1].astype(np.int64)
        n_ngrams += np.bincount(items, minlength=len(named))
        lengths.append(NgramsOfLength(of, keys, np.append(first, len(items)).astype(np.int64), items))
    heads = ngram_hashes_at(words, word_offsets[:-1][(length > 0) & (length < n)], min_item_words)
    return EvalIndex(tuple(name for name, _ in named), tuple(lengths), np.unique(heads), n_ngrams)


def _items(path: str, fields: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(name, text) of each record of a file."""
    stem = PurePosixPath(path).name.split(".")[0]
    for number, line in enumerate(read_bytes(path).split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise ValueError(f"{path}:{number}: {error}; evaluation sets are JSONL files") from error
        if not isinstance(record, dict) or not any(field in record for field in fields):
            found = ", ".join(map(repr, record)) if isinstance(record, dict) else type(record).__name__
            raise ValueError(
                f"{path}:{number}: the item has none of the fields {', '.join(fields)}; it has {found}; "
                "name its text with decontaminate.fields"
            )
        text = "\n".join(_text(record[field]) for field in fields if field in record)
        yield f"{record.get('dataset', stem)}:{record.get('id', number)}", text


def _text(value: Any) -> str:
    """The text in a JSON value: of a list or a mapping, that of its values.

    >>> _text({"text": ["yes", "no"], "label": [0, 1]})
    'yes\\nno\\n0\\n1'
    """
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return "\n".join(map(_text, value))
    return "" if value is None else str(value)

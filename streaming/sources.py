"""What a loader reads from: stores opened by path or URI, all of one tokenizer."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from .cache import Cache
from .manifest import StoredTokens
from .remote import RemoteShard, RemoteTokens, is_uri
from .shards import Shard, TokenStore

Source = str | Path | TokenStore


def open_sources(
    sources: Mapping[str, Source], split: str, cache: str | Path | None, cache_bytes: int | None
) -> tuple[dict[str, TokenStore | RemoteTokens], Cache | None]:
    """The stores by name, in the names' order, and the cache if one is given.

    Raises:
        ValueError: a store cannot be opened, their tokenizers differ, or a URI comes without a cache.
    """
    if not sources:
        raise ValueError("sources: none given; name at least one domain")
    if cache_bytes is not None and (cache is None or cache_bytes < 1):
        raise ValueError(
            f"cache_bytes is {cache_bytes} and cache {cache}; cache names a folder, cache_bytes is at least 1"
        )
    files = None if cache is None else Cache(cache, cache_bytes)
    stores: dict[str, TokenStore | RemoteTokens] = {}
    for name in sorted(sources):
        source = sources[name]
        if isinstance(source, TokenStore):
            stores[name] = source
        elif not is_uri(source):
            stores[name] = TokenStore(source, split)
        elif files is None:
            raise ValueError(
                f"sources: {name!r} is {source}, which is fetched; say where to, by cache='/a/local/folder'"
            )
        else:
            stores[name] = RemoteTokens(str(source), split, files)
    _check_tokenizers(stores)
    return stores, files


def shards_of(stores: Mapping[str, TokenStore | RemoteTokens]) -> list[Shard | RemoteShard]:
    """All shards, one domain's after another's."""
    return [shard for store in stores.values() for shard in cast("list[Shard | RemoteShard]", store.shards)]


def _check_tokenizers(stores: Mapping[str, StoredTokens]) -> None:
    first, *others = stores.items()
    for field in ("tokenizer_hash", "vocab_size", "eos_id", "dtype"):
        expected = getattr(first[1], field)
        for name, store in others:
            if (found := getattr(store, field)) != expected:
                raise ValueError(
                    f"sources: {field} of {name!r} is {found}, of {first[0]!r} it is {expected}; "
                    "tokenize all domains with one tokenizer"
                )

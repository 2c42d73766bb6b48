"""``cuvee tokens``: look at token shards, and compare them with their checksums."""

from pathlib import Path

from rich.table import Table

from ..streaming.shards import MANIFEST, TokenStore, splits_of
from .errors import InputError


def stores_below(folder: Path) -> list[TokenStore]:
    """Every split of every domain: of `folder` itself, or of the folders in it that have a manifest.

    Raises:
        InputError: there is none, or one cannot be opened.
    """
    folders = (
        [folder] if (folder / MANIFEST).exists() else sorted(p.parent for p in folder.glob(f"*/{MANIFEST}"))
    )
    if not folders:
        raise InputError(
            f"{folder}: no {MANIFEST} in it or in a folder of it; give a run's tokens/, or a domain's"
        )
    try:
        return [TokenStore(domain, split) for domain in folders for split in splits_of(domain)]
    except ValueError as error:
        raise InputError(str(error)) from None


def inspect_table(stores: list[TokenStore]) -> Table:
    """Shards, documents and tokens of each store, and the lengths of its documents."""
    columns = ("domain", "split", "shards", "documents", "tokens", "median", "longest", "dtype", "vocabulary")
    table = Table(*columns, box=None, header_style="dim", padding=(0, 2, 0, 0))
    for store in stores:
        lengths = store.lengths[store.lengths > 0]
        lengths.sort()
        table.add_row(
            store.domain,
            store.split,
            f"{store.n_shards:,}",
            f"{store.n_docs:,}",
            f"{store.n_tokens:,}",
            f"{lengths[lengths.size // 2]:,}",
            f"{lengths[-1]:,}",
            str(store.dtype),
            f"{store.vocab_size:,}",
        )
    return table


def problems_of(stores: list[TokenStore]) -> list[str]:
    """What `verify` finds in each shard, all of them."""
    problems = []
    for store in stores:
        for index in range(store.n_shards):
            try:
                store.verify_shard(index)
            except ValueError as error:
                problems.append(str(error))
    return problems

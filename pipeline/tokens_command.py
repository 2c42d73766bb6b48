"""``cuvee tokens``: make token shards of what was tokenized elsewhere, merge, look at and verify them."""

import argparse
import hashlib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from rich.table import Table

from ..streaming.building import Built, build_shards, merge_shards
from ..streaming.documents import Documents, cut_after, read_documents
from ..streaming.manifest import MANIFEST
from ..streaming.shards import TokenStore, splits_of
from .errors import InputError, UsageError
from .manual import console


def add_tokens(commands: Any) -> None:
    """Add ``tokens`` and its verbs to the command line."""
    parser = commands.add_parser("tokens", help="make, merge, list or verify token shards")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    build = verbs.add_parser("build", help="make token shards of documents that were tokenized elsewhere")
    build.add_argument(
        "source",
        nargs="+",
        help="Megatron's .bin beside its .idx, a folder of MosaicML's MDS shards, Parquet or Arrow files",
    )
    build.add_argument("--to", type=Path, required=True, metavar="DIR", help="the domain's new folder")
    build.add_argument("--domain", help="its name (default: the folder's)")
    build.add_argument("--column", help="that holds the tokens (default: input_ids or tokens)")
    build.add_argument("--tokenizer", type=Path, metavar="JSON", help="the tokenizer.json that was used, or")
    build.add_argument("--vocab-size", type=int, metavar="N", help="its size, and")
    build.add_argument("--eos-id", type=int, metavar="ID", help="its end-of-sequence token, and")
    build.add_argument("--tokenizer-name", metavar="NAME", help="any name for it, the same for all domains")
    build.add_argument(
        "--cut-after-eos",
        action="store_true",
        help="the rows were packed: documents end at the end-of-sequence token, not with the rows",
    )
    build.add_argument("--validation-fraction", type=float, default=0.0, metavar="F", help="(default: 0)")
    build.set_defaults(command=_told(_build))

    merge = verbs.add_parser("merge", help="join the shards of several folders as one domain")
    merge.add_argument("source", type=Path, nargs="+", help="a domain's folder of token shards")
    merge.add_argument("--to", type=Path, required=True, metavar="DIR", help="the new folder")
    merge.add_argument("--domain", help="its name (default: the folder's)")
    merge.set_defaults(command=_told(_merge))

    for verb, command, text in (
        ("inspect", _inspect, "list domains, splits, documents and tokens"),
        ("verify", _verify, "read every shard and compare it with its checksum and vocabulary"),
    ):
        parsed = verbs.add_parser(verb, help=text)
        parsed.add_argument("folder", type=Path, help="a run's tokens/, or a domain's folder in it")
        parsed.set_defaults(command=command)


def _told(command: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """`command`, with what is wrong with the data told in one line."""

    def told(arguments: argparse.Namespace) -> None:
        try:
            command(arguments)
        except (ValueError, FileNotFoundError) as error:
            raise error if isinstance(error, UsageError) else InputError(str(error)) from None

    return told


def _build(arguments: argparse.Namespace) -> None:
    vocab_size, eos_id, tokenizer_hash = _tokenizer_of(arguments)
    if not 0 <= arguments.validation_fraction < 1:
        raise UsageError(f"--validation-fraction {arguments.validation_fraction}: it lies in [0, 1)")
    documents: Iterator[Documents] = chain.from_iterable(
        read_documents(source, arguments.column) for source in arguments.source
    )
    if arguments.cut_after_eos:
        documents = cut_after(documents, eos_id)
    built = build_shards(
        documents,
        arguments.to,
        domain=arguments.domain or arguments.to.name,
        vocab_size=vocab_size,
        eos_id=eos_id,
        tokenizer_hash=tokenizer_hash,
        validation_fraction=arguments.validation_fraction,
    )
    _say(arguments.to, built)
    if built.n_ends_added:
        console().print(
            f"{built.n_ends_added:,} documents lacked the end-of-sequence token {eos_id} and got it"
        )


def _tokenizer_of(arguments: argparse.Namespace) -> tuple[int, int, str]:
    """(vocab_size, eos_id, tokenizer_hash), of a tokenizer.json or as given."""
    given = (arguments.vocab_size, arguments.eos_id, arguments.tokenizer_name)
    if arguments.tokenizer is not None:
        from ..operators.tokenize import load_tokenizer

        text = arguments.tokenizer.read_text("utf-8")
        tokenizer, end = load_tokenizer(text)
        eos_id = end if arguments.eos_id is None else arguments.eos_id
        size = tokenizer.get_vocab_size() if arguments.vocab_size is None else arguments.vocab_size
        return size, eos_id, hashlib.sha256(text.encode()).hexdigest()[:16]
    if None in given:
        raise UsageError(
            "which tokenizer made these tokens? Give --tokenizer tokenizer.json, or all of --vocab-size, "
            "--eos-id and --tokenizer-name"
        )
    return arguments.vocab_size, arguments.eos_id, hashlib.sha256(given[2].encode()).hexdigest()[:16]


def _merge(arguments: argparse.Namespace) -> None:
    domain = arguments.domain or arguments.to.name
    _say(arguments.to, merge_shards(arguments.source, arguments.to, domain=domain))


def _say(folder: Path, built: Built) -> None:
    console().print(f"{folder}: {built.n_docs:,} documents, {built.n_tokens:,} tokens")


def _inspect(arguments: argparse.Namespace) -> None:
    console().print(inspect_table(stores_below(arguments.folder)))


def _verify(arguments: argparse.Namespace) -> None:
    stores = stores_below(arguments.folder)
    if problems := problems_of(stores):
        raise InputError("\n".join(problems))
    n_shards = sum(store.n_files for store in stores)
    console().print(f"{arguments.folder}: {n_shards:,} shards match their checksums")


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
    counts = ("shards", "documents", "tokens", "of an epoch")
    columns = ("domain", "split", *counts, "median", "longest", "dtype", "vocabulary")
    table = Table(*columns, box=None, header_style="dim", padding=(0, 2, 0, 0))
    for store in stores:
        lengths = store.lengths[store.lengths > 0]
        lengths.sort()
        table.add_row(
            store.domain,
            store.split,
            f"{store.n_files:,}",
            f"{store.n_distinct_docs:,}",
            f"{store.n_distinct_tokens:,}",
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
        for index in range(store.n_files):
            try:
                store.verify_shard(index)
            except ValueError as error:
                problems.append(str(error))
    return problems

"""Inputs of a recipe -> files -> shards: what there is to read, and in which pieces.

A shard is the unit of work, failure and resume: a byte range of a plain JSONL file or of a gzip WARC file, a
row-group range of a Parquet file, a whole file of any other kind (it has no middle to enter), or a run of
small text files.
"""

import difflib
import itertools
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.utils import glob_translate

from .errors import InputError
from .recipe import Input

SUFFIX_FORMAT = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".warc": "warc",
    ".wet": "wet",
}
SUFFIX_CODEC = {".gz": "gzip", ".zst": "zstd"}
HEAD_BYTES = 1 << 20
"""As much of a file is looked at before anything runs."""
TEXT_TYPES = (pa.string(), pa.large_string(), pa.string_view())


@dataclass(frozen=True)
class File:
    """One file of an input. `relative` is its path below the input's root, the stable part of its ids."""

    uri: str
    relative: str
    n_bytes: int
    stamp: str
    """Whatever tells one version of the file from the next: modification time, or the store's ETag."""

    @property
    def codec(self) -> str | None:
        """The compression that the name's suffix tells, as pyarrow calls it."""
        return SUFFIX_CODEC.get(posixpath.splitext(self.relative)[1])

    @property
    def format(self) -> str:
        """jsonl, parquet, warc, wet or text, by suffix."""
        stem, suffix = posixpath.splitext(self.relative)
        if suffix in SUFFIX_CODEC:
            suffix = posixpath.splitext(stem)[1]
        return SUFFIX_FORMAT.get(suffix, "text")


@dataclass(frozen=True)
class Piece:
    """A part of a file. `start` and `stop` count bytes (jsonl, text, warc, wet) or row groups (parquet)."""

    file: File
    start: int
    stop: int


@dataclass(frozen=True)
class Shard:
    """One unit of work: pieces of one input, all of one format."""

    input_index: int
    format: str
    pieces: tuple[Piece, ...]

    def __str__(self) -> str:
        first = self.pieces[0]
        more = f" and {len(self.pieces) - 1} more files" if len(self.pieces) > 1 else ""
        unit = "row groups" if self.format == "parquet" else "bytes"
        return f"{display(first.file.uri)} ({unit} {first.start} to {first.stop}){more}"


def list_files(source: Input, where: str) -> list[File]:
    """The files of one input, in the order of their paths.

    Raises:
        InputError: nothing matches, or all that matches is empty. `where` is the position in the recipe.
    """
    found: dict[str, tuple[str, Mapping[str, Any]]] = {}
    roots, protocols = [], set()
    for pattern in source.path:
        fs, path = fsspec.core.url_to_fs(pattern)
        root, matches = _matches(fs, path)
        roots.append(root)
        protocols.add(fs.unstrip_protocol("").partition(":")[0])
        files = {name: info for name, info in matches.items() if info["type"] == "file"}
        if not files:
            raise InputError(f"{where}: no file matches {pattern!r}; {_nearest(fs, path)}")
        found.update({fs.unstrip_protocol(name): (name, info) for name, info in files.items()})
    if len(protocols) > 1:
        names = " and ".join(map(repr, sorted(protocols)))
        raise InputError(f"{where}: one input is of one file system; found {names}; give each its own input")
    root = posixpath.commonpath(roots)
    excluded = re.compile("|".join(glob_translate(pattern) for pattern in source.exclude) or r"(?!)")
    listed = [
        File(uri, relative, int(info["size"]), _stamp(info))
        for uri, (name, info) in sorted(found.items())
        if not excluded.match(relative := posixpath.relpath(name, root))
    ]
    if not listed:
        raise InputError(f"{where}: all {len(found)} files that match are excluded by {list(source.exclude)}")
    if not any(file.n_bytes for file in listed):
        raise InputError(f"{where}: all {len(listed)} files are empty, the first is {display(listed[0].uri)}")
    return listed


def _matches(fs: fsspec.AbstractFileSystem, path: str) -> tuple[str, Mapping[str, Any]]:
    """(the folder that all lies below, the files by name): a name that exists means itself, even ``[x]``."""
    if fs.isdir(path):
        return path, fs.find(path, detail=True)
    if fs.isfile(path):
        return posixpath.dirname(path), {path: fs.info(path)}
    return _root(path), fs.glob(path, detail=True) if has_magic(path) else {}


def has_magic(path: str) -> bool:
    """Whether `path` is a pattern."""
    return any(character in path for character in "*?[")


def _root(path: str) -> str:
    """The folder below which all that a pattern matches must lie."""
    parts = path.split("/")
    fixed = next((i for i, part in enumerate(parts) if has_magic(part)), len(parts) - 1)
    return "/".join(parts[:fixed]) or "/"


def _stamp(info: Mapping[str, Any]) -> str:
    return str(
        next((info[key] for key in ("ETag", "etag", "mtime", "LastModified", "updated") if key in info), "")
    )


def _nearest(fs: fsspec.AbstractFileSystem, path: str) -> str:
    """Where a path goes wrong, for a person: the last folder that exists, and a near name in it."""
    folder = _root(path)
    while folder not in ("", "/") and not fs.isdir(folder):
        path, folder = folder, posixpath.dirname(folder)
    names = sorted(posixpath.basename(name.rstrip("/")) for name in fs.ls(folder or "/", detail=False))
    wanted = path[len(folder) :].strip("/").split("/")[0]
    near = difflib.get_close_matches(wanted, names, n=1)
    if near:
        return f"in {folder!r} there is {near[0]!r}: did you mean that?"
    return f"{folder!r} exists and holds {len(names)} entries, none like {wanted!r}"


def list_shards(
    index: int, source: Input, files: Sequence[File], shard_bytes: int, where: str
) -> list[Shard]:
    """The shards of one input, in the order of its rows.

    Args:
        index: the input's position in the recipe.
        shard_bytes: aimed size of a shard, in stored bytes.
    Raises:
        InputError: a file's columns cannot be what the recipe says.
    """
    shards = []
    texts: list[Piece] = []
    for file in files:
        kind = file.format if source.format == "auto" else source.format
        if kind == "text":
            if texts and sum(piece.stop for piece in texts) + file.n_bytes > shard_bytes:
                shards.append(Shard(index, "text", tuple(texts)))
                texts = []
            texts.append(Piece(file, 0, file.n_bytes))
        elif file.n_bytes:
            ranges = _row_groups if kind == "parquet" else _byte_ranges
            shards += [
                Shard(index, kind, (Piece(file, *bounds),))
                for bounds in ranges(file, source, shard_bytes, where)
            ]
    if texts:
        shards.append(Shard(index, "text", tuple(texts)))
    return shards


def _byte_ranges(file: File, source: Input, shard_bytes: int, where: str) -> Iterator[tuple[int, int]]:
    is_archive = (file.format if source.format == "auto" else source.format) in ("warc", "wet")
    if is_archive != (file.codec == "gzip") or file.codec == "zstd":
        yield 0, file.n_bytes
        return
    n_shards = max(1, round(file.n_bytes / shard_bytes))
    edges = [file.n_bytes * i // n_shards for i in range(n_shards + 1)]
    yield from itertools.pairwise(edges)


def _row_groups(file: File, source: Input, shard_bytes: int, where: str) -> Iterator[tuple[int, int]]:
    try:
        with fsspec.open(file.uri) as stream:
            parquet = pq.ParquetFile(stream)
            metadata, schema = parquet.metadata, parquet.schema_arrow
    except (pa.ArrowException, OSError):
        yield 0, 0  # the reader will say what is wrong with it, as of any broken shard
        return
    for name, n_columns in Counter(schema.names).items():
        if n_columns > 1:
            found = f"{display(file.uri)} has {n_columns} columns {name!r}"
            raise InputError(f"{where}: {found}; rename one of them")
    check_columns(source, {field.name: field.type for field in schema}, file.uri, where)
    start, n_bytes = 0, 0
    for group in range(metadata.num_row_groups):
        n_bytes += metadata.row_group(group).total_byte_size
        if n_bytes >= shard_bytes:
            yield start, group + 1
            start, n_bytes = group + 1, 0
    if start < metadata.num_row_groups:
        yield start, metadata.num_row_groups


def check_first_records(source: Input, file: File, where: str) -> None:
    """Refuse a JSONL input whose first records all lack a column that the recipe maps.

    Broken records pass: they are judged one by one where they are read.

    Raises:
        InputError: with the columns that there are, and a near match.
    """
    try:
        with open_stream(file) as stream:
            head = stream.read(HEAD_BYTES)
    except OSError:
        return
    lines = head.split(b"\n")
    records = [record for line in lines if isinstance(record := _json(line), dict)]
    if records:
        check_columns(source, dict.fromkeys(key for record in records for key in record), file.uri, where)


def _json(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return None


def check_columns(source: Input, found: Mapping[str, pa.DataType | None], uri: str, where: str) -> None:
    """Refuse columns that are not there or cannot be text. A type of None is not known yet."""
    file = display(uri)
    for column, name in {"text": "text", **source.columns}.items():
        if name not in found:
            near = difflib.get_close_matches(name, found, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"set columns: {{{column}: NAME}}"
            raise InputError(
                f"{where}: {file} has no column {name!r} for the document's {column}; "
                f"it has {', '.join(map(repr, found))}; {hint}"
            )
    for column in ("text", "id", "url", "lang", "domain"):
        name = source.columns.get(column, column)
        kind = found.get(name)
        plain = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
        if kind is None or plain in TEXT_TYPES:
            continue
        if column == "text":
            raise InputError(
                f"{where}: column {name!r} of {file} holds {kind}, a string column is needed for text; "
                "map another one with columns: {text: NAME}"
            )
        if pa.types.is_nested(plain) or pa.types.is_binary(plain) or pa.types.is_large_binary(plain):
            raise InputError(
                f"{where}: column {name!r} of {file} holds {kind}, a column of strings or numbers is needed "
                f"for {column}; map another one with columns: {{{column}: NAME}}, or rename it"
            )


def open_stream(file: File) -> Any:
    """A binary stream over a file's content, decompressed."""
    raw = fsspec.open(file.uri).open()
    if file.codec is None:
        return raw
    return _Decompressed(pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), file.codec), raw)


class _Decompressed:
    """Reads of a compressed stream, with the file below it closed together with it."""

    def __init__(self, stream: pa.CompressedInputStream, raw: Any) -> None:
        self.stream, self.raw = stream, raw

    def read(self, n_bytes: int) -> bytes:
        return self.stream.read(n_bytes)  # type: ignore[no-any-return]

    def __enter__(self) -> "_Decompressed":
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()
        self.raw.close()


def display(uri: str) -> str:
    """A URI as a person writes it: local files without their protocol."""
    return uri.removeprefix("file://") if os.sep == "/" else uri

"""Shard -> document table. Whatever cannot be read is counted, with its byte offset and the reason.

A record that is broken (not JSON, not UTF-8, no text, too long) is skipped and listed; a file that is broken
(truncated, corrupt) makes its whole shard unreadable: see `BrokenShardError`.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import fsspec
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..operators.base import set_columns
from .listing import File, Piece, Shard, display, open_stream
from .recipe import Input

BLOCK_BYTES = 1 << 20
DOCUMENT_COLUMNS = {
    "id": pa.string(),
    "text": pa.large_string(),
    "source": pa.string(),
    "url": pa.string(),
    "lang": pa.string(),
    "domain": pa.string(),
}
UNREADABLE_SCHEMA = pa.schema(
    [("id", pa.string()), ("source", pa.string()), ("reason", pa.string()), ("read.detail", pa.string())]
)


class BrokenShardError(ValueError):
    """A shard whose file cannot be read to its end. Nothing of it enters the run."""


@dataclass(frozen=True)
class Reader:
    """Everything that reading one input's shards needs; picklable.

    Attributes:
        source: the input as the recipe has it.
        max_document_bytes: a longer record is unreadable, for reason ``too_long``.
        seed, key_limit: with a row limit in the recipe, a row is taken if its `row_keys` is at most `key_limit`.
    """

    source: Input
    max_document_bytes: int
    seed: int = 0
    key_limit: int | None = None

    def read(self, shard: Shard) -> "Reading":
        """The rows of one shard.

        Raises:
            BrokenShardError: a file is truncated or corrupt.
        """
        reading = Reading(self.source)
        for piece in shard.pieces:
            try:
                {"jsonl": self._jsonl, "parquet": self._parquet, "text": self._text}[shard.format](
                    piece, reading
                )
            except (OSError, pa.ArrowException) as error:
                raise BrokenShardError(
                    f"{display(piece.file.uri)}: {error}; restore or remove the file"
                ) from error
        return reading

    def _takes(self, file: File, positions: np.ndarray) -> np.ndarray:
        if self.key_limit is None:
            return np.ones(len(positions), dtype=bool)
        if self.key_limit < 0:
            return np.zeros(len(positions), dtype=bool)
        return row_keys(self.seed, self.source.source, file.relative, positions) <= np.uint64(self.key_limit)

    def _jsonl(self, piece: Piece, reading: "Reading") -> None:
        for offsets, lines in _line_blocks(piece):
            taken = self._takes(piece.file, np.array(offsets))
            reading.n_over_limit += int((~taken).sum())
            for row in np.flatnonzero(taken):
                self._json_line(piece.file, offsets[row], lines[row], reading)

    def _json_line(self, file: File, offset: int, line: bytes, reading: "Reading") -> None:
        if len(line) > self.max_document_bytes:
            reading.reject(file, offset, "too_long", self._too_long(len(line)))
            return
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            reason = "invalid_json" if _is_utf8(line) else "invalid_utf8"
            reading.reject(file, offset, reason, f"{error}; the record begins {line[:80]!r}")
            return
        reading.accept_record(file, offset, record)

    def _parquet(self, piece: Piece, reading: "Reading") -> None:
        with fsspec.open(piece.file.uri) as stream:
            parquet = pq.ParquetFile(stream)
            metadata = parquet.metadata
            first = sum(metadata.row_group(group).num_rows for group in range(piece.start))
            table = parquet.read_row_groups(list(range(piece.start, piece.stop)))
        positions = np.arange(first, first + len(table))
        taken = self._takes(piece.file, positions)
        reading.n_over_limit += int((~taken).sum())
        if not taken.all():
            table, positions = table.filter(pa.array(taken)), positions[taken]
        reading.accept_table(piece.file, positions, table, self.max_document_bytes, self._too_long)

    def _text(self, piece: Piece, reading: "Reading") -> None:
        if not self._takes(piece.file, np.zeros(1, dtype=np.int64))[0]:
            reading.n_over_limit += 1
            return
        if piece.file.n_bytes > self.max_document_bytes:
            reading.reject(piece.file, 0, "too_long", self._too_long(piece.file.n_bytes))
            return
        with open_stream(piece.file) as stream:
            content = b"".join(iter(lambda: stream.read(BLOCK_BYTES), b""))
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            found = content[error.start : error.start + 8]
            reading.reject(piece.file, error.start, "invalid_utf8", f"{error.reason}, found {found!r}")
            return
        reading.accept(f"{self.source.source}/{piece.file.relative}", {"text": text})

    def _too_long(self, n_bytes: int) -> str:
        allowed = f"reading.max_document_bytes is {self.max_document_bytes:,}"
        return f"found {n_bytes:,} bytes, {allowed}; raise it to read this document"


@dataclass
class Reading:
    """What came out of a shard: rows, records that could not be read, and how many the row limit left out."""

    source: Input
    n_over_limit: int = 0
    _ids: list[str] = field(default_factory=list)
    _records: list[dict[str, Any]] = field(default_factory=list)
    _tables: list[pa.Table] = field(default_factory=list)
    _rejected: list[dict[str, str]] = field(default_factory=list)

    def reject(self, file: File, offset: int, reason: str, detail: str) -> None:
        """Count a record that cannot be read."""
        row = {"id": f"{self.source.source}/{file.relative}:{offset}", "source": self.source.source}
        self._rejected.append(
            row | {"reason": reason, "read.detail": f"{display(file.uri)}: byte {offset}: {detail}"}
        )

    def accept_record(self, file: File, offset: int, record: Any) -> None:
        """Take a JSON value as a row, if it is one."""
        text_column = self.source.columns.get("text", "text")
        if not isinstance(record, dict):
            detail = f"found {type(record).__name__}, a JSON object is needed"
            self.reject(file, offset, "not_an_object", detail)
        elif record.get(text_column) is None:
            missing = "is null" if text_column in record else f"is missing, there are {', '.join(record)}"
            self.reject(file, offset, "no_text", f"column {text_column!r} {missing}")
        elif not isinstance(record[text_column], str):
            detail = f"column {text_column!r} holds {type(record[text_column]).__name__}, a string is needed"
            self.reject(file, offset, "text_not_string", detail)
        else:
            self.accept(f"{self.source.source}/{file.relative}:{offset}", record)

    def accept(self, default_id: str, record: dict[str, Any]) -> None:
        """Take one row."""
        self._ids.append(default_id)
        self._records.append(record)

    def accept_table(
        self, file: File, positions: np.ndarray, table: pa.Table, max_bytes: int, too_long: Any
    ) -> None:
        """Take the rows of `table` whose text can be read."""
        text_column = self.source.columns.get("text", "text")
        text = table[text_column].cast(pa.large_string()).combine_chunks()
        n_bytes = pc.fill_null(pc.binary_length(text), 0).to_numpy(zero_copy_only=False)
        good = text.is_valid().to_numpy(zero_copy_only=False) & (n_bytes <= max_bytes)
        broken_utf8 = _invalid_utf8(text)
        good &= ~broken_utf8
        for row in np.flatnonzero(~good):
            if broken_utf8[row]:
                reason, detail = "invalid_utf8", f"column {text_column!r} is not UTF-8"
            elif n_bytes[row] > max_bytes:
                reason, detail = "too_long", too_long(int(n_bytes[row]))
            else:
                reason, detail = "no_text", f"column {text_column!r} is null"
            self._rejected.append(
                {
                    "id": f"{self.source.source}/{file.relative}:{positions[row]}",
                    "source": self.source.source,
                    "reason": reason,
                    "read.detail": f"{display(file.uri)}: row {positions[row]}: {detail}",
                }
            )
        ids = pa.array(
            [f"{self.source.source}/{file.relative}:{row}" for row in positions[good]], pa.string()
        )
        table = set_columns(table, {text_column: text}).filter(pa.array(good))
        self._tables.append(_document_table(self.source, table, ids))

    @property
    def unreadable(self) -> pa.Table:
        """The records that could not be read, as `UNREADABLE_SCHEMA`."""
        return pa.Table.from_pylist(self._rejected, UNREADABLE_SCHEMA)

    def table(self) -> pa.Table:
        """The document table: the document's columns first, then whatever else the input holds."""
        tables = list(self._tables)
        if self._records or not tables:
            names = dict.fromkeys(name for record in self._records for name in record)
            columns = {name: _column([record.get(name) for record in self._records]) for name in names}
            tables.append(_document_table(self.source, pa.table(columns), pa.array(self._ids, pa.string())))
        return pa.concat_tables(tables, promote_options="permissive").combine_chunks()


def _document_table(source: Input, table: pa.Table, default_ids: pa.Array) -> pa.Table:
    """`table` under the document's column names, with what the recipe says where the input is silent."""
    n_rows = len(default_ids)
    mapped = {"text": "text", "id": "id", "url": "url", "lang": "lang"} | source.columns
    if source.domain is None:
        mapped.setdefault("domain", "domain")
    defaults = {
        "id": default_ids,
        "source": pa.array([source.source] * n_rows, pa.string()),
        "domain": pa.array([source.domain or source.source] * n_rows, pa.string()),
    }
    columns = {}
    for name, kind in DOCUMENT_COLUMNS.items():
        held = mapped.get(name)
        values = pa.nulls(n_rows, kind)
        if held in table.column_names and name != "source":
            values = table[held].combine_chunks().cast(kind)
        columns[name] = pc.coalesce(values, defaults[name]) if name in defaults else values
    used = set(mapped.values()) | set(DOCUMENT_COLUMNS)
    rest = {name: table[name].combine_chunks() for name in table.column_names if name not in used}
    return pa.table(columns | rest)


def _column(values: list[Any]) -> pa.Array:
    """An Arrow column of JSON values; values of no common type are kept as their JSON text."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array(
            [None if value is None else orjson.dumps(value).decode() for value in values], pa.string()
        )


def _line_blocks(piece: Piece) -> Iterator[tuple[list[int], list[bytes]]]:
    """Byte offsets and lines, without their ends, of all lines that start inside the piece and are not blank.

    Offsets of a compressed file count its decompressed bytes.
    """
    with open_stream(piece.file) as stream:
        stop = piece.stop if piece.file.codec is None else None
        offset, open_line = 0, []
        if piece.start:
            # The line that crosses the edge belongs to the piece before.
            stream.seek(piece.start - 1)
            open_line = [_skip_line(stream)]
            offset = stream.tell() - len(open_line[0])
        while stop is None or offset < stop:
            block = stream.read(BLOCK_BYTES)
            if block and b"\n" not in block:
                open_line.append(block)
                continue
            lines = b"".join([*open_line, block]).split(b"\n")
            open_line = [lines.pop()] if block else []
            offsets = list(itertools.accumulate((len(line) + 1 for line in lines), initial=offset))
            offset = offsets[-1]
            held = [
                (start, line)
                for start, line in zip(offsets, lines, strict=False)
                if line.strip() and (stop is None or start < stop)
            ]
            yield [start for start, _ in held], [line for _, line in held]
            if not block:
                return


def _skip_line(stream: Any) -> bytes:
    """Move behind the next line end, or to the end of the file; returns the bytes already read from there."""
    while block := stream.read(1 << 16):
        _, newline, rest = block.partition(b"\n")
        if newline:
            return bytes(rest)
    return b""


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _invalid_utf8(text: pa.LargeStringArray) -> np.ndarray:
    """bool, (n_rows,): rows that are not UTF-8. Parquet files may hold such bytes in string columns."""
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        return np.array(
            [value is not None and not _is_utf8(value) for value in text.cast(pa.large_binary()).to_pylist()]
        )
    return np.zeros(len(text), dtype=bool)


def row_keys(seed: int, source: str, relative: str, positions: np.ndarray) -> np.ndarray:
    """uint64, (n,): a hash of (seed, source, file, position) per row, the same however the file is cut.

    Source: the finaliser of splitmix64 (Steele, Lea and Flood 2014) over a BLAKE2b key.
    """
    digest = hashlib.blake2b(f"{seed}\0{source}\0{relative}".encode(), digest_size=8).digest()
    with np.errstate(over="ignore"):
        key = positions.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(
            int.from_bytes(digest, "little")
        )
        key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


def key_limit(reader: Reader, shards: list[Shard]) -> int | None:
    """The largest row key that the input's `max_rows` and `max_bytes` admit; None where there is no limit.

    Rows are taken in the order of their keys until the next one would pass a limit, so a limit is a uniform
    sample of rows without replacement, exact, and the same for any sharding. Costs one reading of the
    input's row lengths.
    """
    source = reader.source
    if source.max_rows is None and source.max_bytes is None:
        return None
    keys, sizes = [], []
    for kind, piece in ((shard.format, piece) for shard in shards for piece in shard.pieces):
        positions, n_bytes = _row_sizes(piece, kind, source)
        keys.append(row_keys(reader.seed, source.source, piece.file.relative, positions))
        sizes.append(n_bytes)
    key, size = np.concatenate(keys), np.concatenate(sizes)
    order = np.argsort(key, kind="stable")
    n_taken = len(order) if source.max_rows is None else min(source.max_rows, len(order))
    if source.max_bytes is not None:
        n_taken = min(n_taken, int(np.searchsorted(np.cumsum(size[order]), source.max_bytes, side="right")))
    return int(key[order[n_taken - 1]]) if n_taken else -1


def _flat(blocks: Iterable[list[int]]) -> np.ndarray:
    return np.fromiter(itertools.chain.from_iterable(blocks), dtype=np.int64)


def _row_sizes(piece: Piece, kind: str, source: Input) -> tuple[np.ndarray, np.ndarray]:
    """(positions, stored bytes), int64, (n_rows,) each."""
    if kind == "text":
        return np.zeros(1, dtype=np.int64), np.array([piece.file.n_bytes], dtype=np.int64)
    if kind == "jsonl":
        blocks = [(offsets, [len(line) for line in lines]) for offsets, lines in _line_blocks(piece)]
        return _flat(offsets for offsets, _ in blocks), _flat(n_bytes for _, n_bytes in blocks)
    with fsspec.open(piece.file.uri) as stream:
        parquet = pq.ParquetFile(stream)
        first = sum(parquet.metadata.row_group(group).num_rows for group in range(piece.start))
        column = source.columns.get("text", "text")
        groups = parquet.read_row_groups(list(range(piece.start, piece.stop)), columns=[column])
    n_bytes = pc.fill_null(pc.binary_length(groups[column]), 0).to_numpy()
    return np.arange(first, first + len(n_bytes)), n_bytes.astype(np.int64)

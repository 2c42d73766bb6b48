"""Shard -> document table. Whatever cannot be read is counted, with its byte offset and the reason.

A record that is broken (not JSON, not UTF-8, no text, too long) is skipped and listed; a file that is broken
(truncated, corrupt) makes its whole shard unreadable: see `BrokenShardError`.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import fsspec
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..operators.base import ROW, set_columns
from .lines import BLOCK_BYTES, Line, lines_of
from .listing import TEXT_TYPES, File, Piece, Shard, display, open_stream
from .recipe import Input
from .row_limits import row_keys
from .web_archive import Damage, NoPage, pages_of

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
        seed, key_limit: with a row limit, a row whose `row_keys` is above `key_limit` stays out.
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
                if shard.format in ("warc", "wet"):
                    self._archive(piece, shard.format, reading)
                else:
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
        for lines in lines_of(piece, self.max_document_bytes):
            taken = self._takes(piece.file, np.array([line.offset for line in lines], dtype=np.int64))
            reading.n_over_limit += int((~taken).sum())
            for row in np.flatnonzero(taken):
                self._json_line(piece.file, lines[row], reading)

    def _json_line(self, file: File, line: Line, reading: "Reading") -> None:
        if line.content is None or line.n_bytes > self.max_document_bytes:
            found = f"found {line.n_bytes:,} bytes"
            reading.reject(file, line.offset, "too_long", self._too_long(found))
            return
        try:
            record = orjson.loads(line.content)
        except orjson.JSONDecodeError as error:
            reason = "invalid_json" if _is_utf8(line.content) else "invalid_utf8"
            reading.reject(file, line.offset, reason, f"{error}; the record begins {line.content[:80]!r}")
            return
        reading.accept_record(file, line.offset, record)

    def _parquet(self, piece: Piece, reading: "Reading") -> None:
        with fsspec.open(piece.file.uri) as stream:
            parquet = pq.ParquetFile(stream)
            metadata = parquet.metadata
            first = sum(metadata.row_group(group).num_rows for group in range(piece.start))
            table = _without_views(parquet.read_row_groups(list(range(piece.start, piece.stop))))
        positions = np.arange(first, first + len(table))
        taken = self._takes(piece.file, positions)
        reading.n_over_limit += int((~taken).sum())
        if not taken.all():
            table, positions = table.filter(pa.array(taken)), positions[taken]
        reading.accept_table(piece.file, positions, table, self.max_document_bytes, self._too_long)

    def _archive(self, piece: Piece, kind: str, reading: "Reading") -> None:
        for found in pages_of(piece, kind, self.max_document_bytes):
            if isinstance(found, Damage):
                reading.reject(piece.file, found.offset, found.reason, found.detail)
            elif isinstance(found, NoPage):
                reading.n_no_page[found.reason] += 1
            elif self._takes(piece.file, np.array([found.position]))[0]:
                name = f"{self.source.source}/{piece.file.relative}:{found.label}"
                reading.accept(name, found.fields)
            else:
                reading.n_over_limit += 1

    def _text(self, piece: Piece, reading: "Reading") -> None:
        if not self._takes(piece.file, np.zeros(1, dtype=np.int64))[0]:
            reading.n_over_limit += 1
            return
        blocks: list[bytes] = []
        n_bytes = 0 if piece.file.codec else piece.file.n_bytes
        with open_stream(piece.file) as stream:
            while n_bytes <= self.max_document_bytes and (block := stream.read(BLOCK_BYTES)):
                blocks.append(block)
                n_bytes = max(n_bytes, sum(map(len, blocks)))
        if n_bytes > self.max_document_bytes:
            found = f"found {n_bytes:,} bytes" + " or more" * bool(piece.file.codec)
            reading.reject(piece.file, 0, "too_long", self._too_long(found))
            return
        content = b"".join(blocks)
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            around = content[error.start : error.start + 8]
            reading.reject(piece.file, error.start, "invalid_utf8", f"{error.reason}, found {around!r}")
            return
        reading.accept(f"{self.source.source}/{piece.file.relative}", {"text": text})

    def _too_long(self, found: str) -> str:
        allowed = f"reading.max_document_bytes is {self.max_document_bytes:,}"
        return f"{found}, {allowed}; raise it to read this document"


@dataclass
class Reading:
    """What came out of a shard: rows, records that could not be read, and how many the row limit left out."""

    source: Input
    n_over_limit: int = 0
    n_no_page: Counter[str] = field(default_factory=Counter)
    """Sound records of web archives that are no documents, by what they are."""
    _ids: list[str] = field(default_factory=list)
    _records: list[Mapping[str, Any]] = field(default_factory=list)
    _tables: list[pa.Table] = field(default_factory=list)
    _rejected: list[dict[str, str]] = field(default_factory=list)

    def reject(self, file: File, offset: int, reason: str, detail: str) -> None:
        """Count a record that cannot be read."""
        self._reject(file, offset, reason, f"byte {offset}: {detail}")

    def _reject(self, file: File, position: int, reason: str, detail: str) -> None:
        row = {"id": f"{self.source.source}/{file.relative}:{position}", "source": self.source.source}
        self._rejected.append(row | {"reason": reason, "read.detail": f"{display(file.uri)}: {detail}"})

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

    def accept(self, default_id: str, record: Mapping[str, Any]) -> None:
        """Take one row."""
        self._ids.append(default_id)
        self._records.append(record)

    def accept_table(
        self, file: File, positions: np.ndarray, table: pa.Table, max_bytes: int, too_long: Any
    ) -> None:
        """Take the rows of `table` whose document columns can be read."""
        text_column = self.source.columns.get("text", "text")
        text = table[text_column].cast(pa.large_string()).combine_chunks()
        table = set_columns(table, {text_column: text})
        n_bytes = pc.fill_null(pc.binary_length(text), 0).to_numpy(zero_copy_only=False)
        wrong: dict[int, tuple[str, str]] = {}
        for row in np.flatnonzero(text.is_null().to_numpy(zero_copy_only=False)).tolist():
            wrong[row] = ("no_text", f"column {text_column!r} is null")
        for row in np.flatnonzero(n_bytes > max_bytes).tolist():
            wrong[row] = ("too_long", too_long(f"found {n_bytes[row]:,} bytes"))
        for column in mapped_columns(self.source).values():
            if column in table.column_names:
                for row in np.flatnonzero(_invalid_utf8(table[column])).tolist():
                    wrong[row] = ("invalid_utf8", f"column {column!r} is not UTF-8")
        for row in sorted(wrong):
            reason, detail = wrong[row]
            self._reject(file, positions[row], reason, f"row {positions[row]}: {detail}")
        good = np.ones(len(table), dtype=bool)
        good[list(wrong)] = False
        ids = [f"{self.source.source}/{file.relative}:{row}" for row in positions[good]]
        rows = table.filter(pa.array(good))
        self._tables.append(_document_table(self.source, rows, pa.array(ids, pa.string())))

    @property
    def unreadable(self) -> pa.Table:
        """The records that could not be read, as `UNREADABLE_SCHEMA`."""
        return pa.Table.from_pylist(self._rejected, UNREADABLE_SCHEMA)

    def table(self) -> pa.Table:
        """The document table: the document's columns first, then whatever else the input holds."""
        tables = list(self._tables)
        if self._records or not tables:
            names = dict.fromkeys(name for record in self._records for name in record)
            of_document = set(mapped_columns(self.source).values())
            columns = {
                name: (_strings if name in of_document else _column)([row.get(name) for row in self._records])
                for name in names
            }
            tables.append(_document_table(self.source, pa.table(columns), pa.array(self._ids, pa.string())))
        return pa.concat_tables(tables, promote_options="permissive").combine_chunks()


def mapped_columns(source: Input) -> dict[str, str]:
    """Document column -> the input's column that it is read from, where the input has it."""
    mapped = {"text": "text", "id": "id", "url": "url", "lang": "lang"} | source.columns
    if source.domain is None:
        mapped.setdefault("domain", "domain")
    return mapped


def _document_table(source: Input, table: pa.Table, default_ids: pa.Array) -> pa.Table:
    """`table` under the document's column names, with what the recipe says where the input is silent."""
    if ROW in table.column_names:
        raise BrokenShardError(f"source {source.source!r}: the column name {ROW!r} is reserved; rename it")
    n_rows = len(default_ids)
    mapped = mapped_columns(source)
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
        if name in defaults:
            is_given = pc.not_equal(values, "")  # null of a null
            values = pc.if_else(pc.fill_null(is_given, False), values, defaults[name])
        columns[name] = values
    used = set(mapped.values()) | set(DOCUMENT_COLUMNS)
    rest = {name: table[name].combine_chunks() for name in table.column_names if name not in used}
    return pa.table(columns | rest)


def _without_views(table: pa.Table) -> pa.Table:
    """`table` with plain strings for string views, which Arrow can neither filter nor measure."""
    views = [field.name for field in table.schema if field.type == pa.string_view()]
    return set_columns(table, {name: table[name].cast(pa.large_string()) for name in views})


def _strings(values: list[Any]) -> pa.Array:
    """Strings of JSON values: strings as they are, others as their JSON text."""
    return pa.array(
        [
            value if value is None or isinstance(value, str) else orjson.dumps(value).decode()
            for value in values
        ],
        pa.large_string(),
    )


def _column(values: list[Any]) -> pa.Array:
    """An Arrow column of JSON values; values of no common type are kept as their JSON text."""
    try:
        column = pa.array(values)
    except (pa.ArrowException, OverflowError):
        return _strings_of_json(values)
    return column if _fits_parquet(column.type) else _strings_of_json(values)


def _strings_of_json(values: list[Any]) -> pa.Array:
    texts = [None if value is None else orjson.dumps(value).decode() for value in values]
    return pa.array(texts, pa.string())


def _fits_parquet(kind: pa.DataType) -> bool:
    """Parquet knows no struct without fields, which is what ``{}`` becomes."""
    if pa.types.is_struct(kind):
        return kind.num_fields > 0 and all(_fits_parquet(field.type) for field in kind)
    return _fits_parquet(kind.value_type) if pa.types.is_list(kind) else True


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _invalid_utf8(column: pa.ChunkedArray) -> np.ndarray:
    """bool, (n_rows,): rows that are not UTF-8. Parquet files may hold such bytes in string columns."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if kind not in TEXT_TYPES:
        return np.zeros(len(column), dtype=bool)
    text = column.cast(pa.large_string())
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        values = text.cast(pa.large_binary()).to_pylist()
        return np.array([value is not None and not _is_utf8(value) for value in values], dtype=bool)
    return np.zeros(len(text), dtype=bool)

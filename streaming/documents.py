"""Documents that were tokenized elsewhere: Megatron's, MosaicML's and Parquet's or Arrow's, as arrays.

Each reader yields the documents in their order, a bounded number of tokens at once, and reads nothing twice.
"""

import bz2
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

N_TOKENS_AT_ONCE = 1 << 24
COLUMNS = ("input_ids", "tokens")
MEGATRON_MAGIC = b"MMIDIDX\x00\x00"
MEGATRON_DTYPES = {1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 8: "uint16"}
MDS_DTYPES = {8: "uint8", 9: "int8", 16: "uint16", 17: "int16", 32: "uint32", 33: "int32"} | {
    64: "uint64",
    65: "int64",
}
# Of MDS shards, by MosaicML's names: what gives n_bytes out of a file's.
DECOMPRESSORS: dict[str, Callable[[bytes, int], bytes]] = {
    "zstd": lambda data, n_bytes: pa.Codec("zstd").decompress(data, n_bytes).to_pybytes(),
    "gz": lambda data, _: gzip.decompress(data),
    "bz2": lambda data, _: bz2.decompress(data),
    "br": lambda data, n_bytes: pa.Codec("brotli").decompress(data, n_bytes).to_pybytes(),
    "snappy": lambda data, n_bytes: pa.Codec("snappy").decompress(data, n_bytes).to_pybytes(),
}


class Documents(NamedTuple):
    """Some documents: document d is values[offsets[d]:offsets[d + 1]]; it may be empty."""

    values: NDArray[np.integer[Any]]  # (n_tokens,)
    offsets: NDArray[np.int64]  # (n_docs + 1,), from 0 to n_tokens


def read_documents(path: str | Path, column: str | None = None) -> Iterator[Documents]:
    """The documents of whatever lies at `path`.

    Args:
        path: ``x.bin``, ``x.idx`` or their prefix ``x`` (Megatron); a folder with an index.json (MosaicML's
            MDS); a .parquet or .arrow file (a Hugging Face dataset on disk, for one), or a folder of them.
        column: that holds the tokens, for all but Megatron; None: input_ids or tokens, whichever is there.
    Raises:
        ValueError: none of these lies there, or it is broken; says where and what was found.
    """
    path = Path(path)
    prefix = path.with_suffix("") if path.suffix in (".bin", ".idx") else path
    if prefix.with_name(f"{prefix.name}.idx").is_file():
        yield from read_megatron(prefix)
    elif (path / "index.json").is_file():
        yield from read_mds(path, column)
    elif path.is_file() and path.suffix in (".parquet", ".arrow"):
        yield from read_columns([path], column)
    elif found := sorted(p for p in path.rglob("*") if p.suffix in (".parquet", ".arrow")):
        yield from read_columns(found, column)
    else:
        raise ValueError(
            f"{path}: no tokens that can be read; give Megatron's .bin beside its .idx, a folder with "
            "MosaicML's index.json, or Parquet or Arrow files"
        )


def read_megatron(prefix: str | Path) -> Iterator[Documents]:
    """The documents of an indexed dataset of Megatron-LM, NeMo or GPT-NeoX, mapped into memory.

    A document is what the index calls one; of several sequences, they are joined.

    Args:
        prefix: of ``prefix.bin`` and ``prefix.idx``.
    Raises:
        ValueError: another format or version, or the two files disagree.
    Source: megatron/core/datasets/indexed_dataset.py of Megatron-LM, version 1 of the index.
    """
    index_path, data_path = Path(f"{prefix}.idx"), Path(f"{prefix}.bin")
    index = index_path.read_bytes()
    head = np.frombuffer(index, "<u8", 1, 9) if len(index) >= 34 else np.zeros(0, "<u8")
    if not index.startswith(MEGATRON_MAGIC) or head.tolist() != [1] or index[17] not in MEGATRON_DTYPES:
        raise ValueError(
            f"{index_path}: begins with {index[:9]!r}, version {head.tolist()}, type {index[17:18]!r}; an "
            f"index begins with {MEGATRON_MAGIC!r}, version [1], one of the types {sorted(MEGATRON_DTYPES)}"
        )
    dtype = np.dtype(MEGATRON_DTYPES[index[17]]).newbyteorder("<")
    n_sequences, n_bounds = (int(n) for n in np.frombuffer(index, "<u8", 2, 18))
    if len(index) < 34 + 12 * n_sequences + 8 * n_bounds:
        raise ValueError(
            f"{index_path}: {len(index)} bytes are too few for {n_sequences} sequences; copy it again"
        )
    lengths = np.frombuffer(index, "<i4", n_sequences, 34).astype(np.int64)
    bounds = np.frombuffer(index, "<i8", n_bounds, 34 + 12 * n_sequences)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    if data_path.stat().st_size != starts[-1] * dtype.itemsize:
        raise ValueError(
            f"{data_path}: {data_path.stat().st_size} bytes, and its index names {starts[-1]} tokens of "
            f"{dtype.itemsize} bytes; copy both again"
        )
    pointers = np.frombuffer(index, "<i8", n_sequences, 34 + 4 * n_sequences)
    if not np.array_equal(pointers, starts[:-1] * dtype.itemsize):
        raise ValueError(
            f"{index_path}: its sequences do not lie one after another; write it again by merging"
        )
    if n_bounds == 0 or bounds[0] != 0 or bounds[-1] != n_sequences or (np.diff(bounds) < 0).any():
        raise ValueError(f"{index_path}: its documents do not run from sequence 0 to {n_sequences}")
    offsets = starts[bounds]
    if offsets[-1]:
        yield from _pieces(np.memmap(data_path, dtype, "r"), offsets)


def read_mds(folder: str | Path, column: str | None = None) -> Iterator[Documents]:
    """The samples of a folder of MosaicML Streaming's shards (MDS), each a document.

    Args:
        column: of type ndarray, or bytes (int64, as LLM Foundry wrote them).
    Raises:
        ValueError: a shard is missing, cut short, not MDS, compressed in another way than
            those of DECOMPRESSORS, or lacks the column.
    Source: streaming/base/format/mds of mosaicml-streaming, version 2.
    """
    folder = Path(folder)
    for shard in json.loads((folder / "index.json").read_bytes())["shards"]:
        if (shard.get("version"), shard.get("format")) != (2, "mds"):
            found = f"format {shard.get('format')!r}, version {shard.get('version')!r}"
            raise ValueError(f"{folder / 'index.json'}: a shard of {found}; those of 'mds', 2 can be read")
        data, path = _mds_bytes(folder, shard)
        encodings = dict(zip(shard["column_names"], shard["column_encodings"], strict=True))
        name = _column(path, list(encodings), column)
        sizes = shard["column_sizes"]
        kind = encodings[name]
        if kind.partition(":")[0] not in ("ndarray", "bytes"):
            raise ValueError(f"{path}: column {name!r} is {kind!r}; tokens are 'ndarray' or 'bytes'")
        ends = np.frombuffer(data, "<u4", shard["samples"] + 1, 4)
        samples = [
            _mds_value(data[start:end], shard["column_names"].index(name), sizes, kind)
            for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
        ]
        if samples:
            lengths = [sample.size for sample in samples]
            yield from _pieces(np.concatenate(samples), np.concatenate([[0], np.cumsum(lengths)]))


def read_columns(paths: Iterable[str | Path], column: str | None = None) -> Iterator[Documents]:
    """The rows of Parquet files, or of Arrow files or streams, each a document.

    Args:
        column: lists of integers.
    Raises:
        ValueError: a file cannot be read, lacks the column, or has a null or no list of integers in it.
    """
    for path in map(Path, paths):
        n_rows = 0
        try:
            for batch in _batches(path, column):
                rows = batch.column(0)
                if rows.null_count or rows.flatten().null_count:
                    raise ValueError(f"{path}: a null in rows {n_rows} to {n_rows + len(rows)} of the tokens")
                lengths = pa.compute.list_value_length(rows).to_numpy(zero_copy_only=False)
                offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
                yield from _pieces(rows.flatten().to_numpy(zero_copy_only=False), offsets)
                n_rows += len(rows)
        except (pa.ArrowInvalid, OSError) as error:
            raise ValueError(f"{path}: cannot be read ({error}); write it again") from error


def cut_after(documents: Iterable[Documents], eos_id: int) -> Iterator[Documents]:
    """The same tokens with other bounds: a document ends where `eos_id` stands, and nowhere else.

    For rows of one length that documents were packed into. What is left behind the last one is a document.

    >>> first, second = np.array([5, 6, 0, 7]), np.array([8, 0])
    >>> rows = [Documents(first, np.array([0, 2, 4])), Documents(second, np.array([0, 2]))]
    >>> [part.values.tolist() for part in cut_after(rows, 0)]
    [[5, 6, 0], [7, 8, 0]]
    """
    rest: NDArray[np.integer[Any]] | None = None
    for part in documents:
        values = part.values if rest is None else np.concatenate([rest, part.values])
        ends = np.flatnonzero(values == eos_id) + 1
        if ends.size:
            yield Documents(values[: ends[-1]], np.concatenate([[0], ends]))
            values = values[ends[-1] :]
        rest = values
    if rest is not None and rest.size:
        yield Documents(rest, np.array([0, rest.size]))


def _pieces(values: NDArray[np.integer[Any]], offsets: NDArray[np.int64]) -> Iterator[Documents]:
    """All documents, in runs of N_TOKENS_AT_ONCE tokens or of one document that is longer."""
    first, n_docs = 0, offsets.size - 1
    while first < n_docs:
        last = int(np.searchsorted(offsets, offsets[first] + N_TOKENS_AT_ONCE, side="right")) - 1
        last = min(n_docs, max(first + 1, last))
        start, end = int(offsets[first]), int(offsets[last])
        yield Documents(values[start:end], offsets[first : last + 1] - start)
        first = last


def _mds_bytes(folder: Path, shard: dict[str, Any]) -> tuple[bytes, Path]:
    """A shard's bytes, decompressed, and the file that they came from."""
    raw, zipped = shard["raw_data"], shard.get("zip_data")
    path = folder / raw["basename"]
    if path.is_file():
        data = path.read_bytes()
    elif zipped and (folder / zipped["basename"]).is_file():
        path = folder / zipped["basename"]
        data = _decompressed(path, str(shard["compression"]), raw["bytes"])
    else:
        raise ValueError(f"{path}: index.json names it and it is not there; copy it again")
    if len(data) != raw["bytes"]:
        raise ValueError(f"{path}: {len(data)} bytes, index.json says {raw['bytes']}; copy it again")
    return data, path


def _decompressed(path: Path, compression: str, n_bytes: int) -> bytes:
    """The n_bytes that a file holds, compressed by an algorithm and perhaps its level, as in "zstd:3"."""
    algorithm = compression.partition(":")[0]
    if algorithm not in DECOMPRESSORS:
        known = ", ".join(DECOMPRESSORS)
        raise ValueError(f"{path}: compressed by {compression!r}; {known} can be read, decompress others")
    try:
        return DECOMPRESSORS[algorithm](path.read_bytes(), n_bytes)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be decompressed ({error}); copy it again") from error


def _mds_value(
    sample: bytes, wanted: int, sizes: Sequence[int | None], kind: str
) -> NDArray[np.integer[Any]]:
    """One column of one sample: the sizes of the columns that have no fixed one come first."""
    n_variable = sum(not size for size in sizes)
    given = iter(np.frombuffer(sample, "<u4", n_variable).tolist())
    lengths = [size or next(given) for size in sizes]
    start = 4 * n_variable + sum(lengths[:wanted])
    value = sample[start : start + lengths[wanted]]
    if kind == "bytes":
        return np.frombuffer(value, "<i8")
    _, dtype, shape, *_ = (*kind.split(":"), "", "")
    if not dtype:
        dtype, value = MDS_DTYPES[value[0]], value[1:]
    if not shape:  # number of axes and width of their lengths in one byte, then the lengths
        value = value[1 + (value[0] >> 2) * (1 << (value[0] & 3)) :]
    return np.frombuffer(value, np.dtype(dtype).newbyteorder("<"))


def _batches(path: Path, column: str | None) -> Iterator[pa.RecordBatch]:
    """The column of tokens, batch by batch."""
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as file:
            name = _column(path, file.schema_arrow.names, column, file.schema_arrow)
            yield from file.iter_batches(columns=[name])
        return
    with pa.memory_map(str(path)) as source:
        is_file = source.read(6) == b"ARROW1"
        source.seek(0)
        reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
        name = _column(path, reader.schema.names, column, reader.schema)
        n_batches = reader.num_record_batches if is_file else None
        for batch in map(reader.get_batch, range(n_batches)) if n_batches is not None else reader:
            yield batch.select([name])


def _column(path: Path, names: Sequence[str], column: str | None, schema: pa.Schema | None = None) -> str:
    """The column to read, which must be lists of integers."""
    found = [name for name in ([column] if column is not None else COLUMNS) if name in names]
    if not found:
        wanted = repr(column) if column is not None else " or ".join(map(repr, COLUMNS))
        raise ValueError(
            f"{path}: no column {wanted}; its columns are {list(names)}; say which holds the tokens"
        )
    if schema is not None:
        kind = schema.field(found[0]).type
        if not (_is_list(kind) and pa.types.is_integer(kind.value_type)):
            raise ValueError(f"{path}: column {found[0]!r} is {kind}; tokens are lists of integers")
    return found[0]


def _is_list(kind: pa.DataType) -> bool:
    tests = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(test(kind) for test in tests)

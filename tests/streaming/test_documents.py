"""Other formats' files, written here by their specifications, read as the documents that they hold."""

import bz2
import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cuvee.streaming import documents as module
from cuvee.streaming.documents import cut_after, read_documents

DOCUMENTS = [[5, 6, 7], [8], [], [9, 300, 11, 12], [13]]


def read(path: Path, column: str | None = None) -> list[list[int]]:
    return [
        part.values[start:end].tolist()
        for part in read_documents(path, column)
        for start, end in zip(part.offsets[:-1], part.offsets[1:], strict=True)
    ]


def write_megatron(
    prefix: Path, documents: Sequence[Sequence[int]], dtype: str = "<u2", code: int = 8, sequences_of: int = 1
) -> None:
    """`sequences_of`: a document of more tokens is cut into sequences of so many."""
    sequences, bounds = [], [0]
    for document in documents:
        step = sequences_of if sequences_of > 1 else max(1, len(document))
        sequences += [document[i : i + step] for i in range(0, len(document), step)] or [[]]
        bounds.append(len(sequences))
    lengths = np.array([len(sequence) for sequence in sequences], "<i4")
    width = np.dtype(dtype).itemsize
    pointers = ((np.cumsum(lengths) - lengths) * width).astype("<i8")
    prefix.with_name(f"{prefix.name}.bin").write_bytes(np.concatenate(sequences).astype(dtype).tobytes())
    prefix.with_name(f"{prefix.name}.idx").write_bytes(
        b"MMIDIDX\x00\x00"
        + np.array([1], "<u8").tobytes()
        + bytes([code])
        + np.array([lengths.size, len(bounds)], "<u8").tobytes()
        + lengths.tobytes()
        + pointers.tobytes()
        + np.array(bounds, "<i8").tobytes()
    )


COMPRESSORS = {"gz": gzip.compress, "bz2": bz2.compress} | {
    name: lambda data, codec=codec: pa.Codec(codec).compress(data).to_pybytes()
    for name, codec in {"zstd": "zstd", "br": "brotli", "snappy": "snappy"}.items()
}


def write_mds(
    folder: Path, documents: Sequence[Sequence[int]], encoding: str, compression: str | None = None
) -> None:
    """Two columns, the tokens second, in shards of two samples."""
    folder.mkdir()
    shards = []
    for number, first in enumerate(range(0, len(documents), 2)):
        samples = []
        for document in documents[first : first + 2]:
            name, value = f"doc {len(document)}".encode(), mds_value(document, encoding)
            sizes = np.array([len(name), len(value)], "<u4").tobytes()
            samples.append(sizes + name + value)
        ends = np.cumsum([4 + 4 * (len(samples) + 1), *map(len, samples)]).astype("<u4")
        data = np.array([len(samples)], "<u4").tobytes() + ends.tobytes() + b"".join(samples)
        raw, zipped = {"basename": f"shard.{number:05d}.mds", "bytes": len(data), "hashes": {}}, None
        if compression:
            algorithm = compression.partition(":")[0]
            packed = COMPRESSORS[algorithm](data)
            zipped = {"basename": f"{raw['basename']}.{algorithm}", "bytes": len(packed), "hashes": {}}
            (folder / str(zipped["basename"])).write_bytes(packed)
        else:
            (folder / str(raw["basename"])).write_bytes(data)
        shards.append(
            {
                "column_names": ["id", "tokens"],
                "column_encodings": ["str", encoding],
                "column_sizes": [None, None],
                "compression": compression,
                "format": "mds",
                "raw_data": raw,
                "samples": len(samples),
                "version": 2,
                "zip_data": zipped,
            }
        )
    (folder / "index.json").write_text(json.dumps({"shards": shards, "version": 2}))


def mds_value(document: Sequence[int], encoding: str) -> bytes:
    if encoding == "bytes":
        return np.array(document, "<i8").tobytes()
    shape = bytes([1 << 2, len(document)])
    if encoding == "ndarray:uint16":
        return shape + np.array(document, "<u2").tobytes()
    return bytes([33]) + shape + np.array(document, "<i4").tobytes()


@pytest.mark.parametrize(("dtype", "code"), [("<u2", 8), ("<i4", 4), ("<i8", 5)])
def test_megatrons_documents(dtype: str, code: int, tmp_path: Path) -> None:
    write_megatron(tmp_path / "web_text", DOCUMENTS, dtype, code)
    for path in ("web_text", "web_text.bin", "web_text.idx"):
        assert read(tmp_path / path) == DOCUMENTS


def test_a_megatron_document_of_several_sequences_is_one_document(tmp_path: Path) -> None:
    write_megatron(tmp_path / "x", DOCUMENTS, sequences_of=2)
    assert read(tmp_path / "x") == DOCUMENTS


@pytest.mark.parametrize("encoding", ["ndarray:uint16", "ndarray", "bytes"])
@pytest.mark.parametrize("compression", [None, "zstd:3", "gz:9", "bz2", "br:11", "snappy"])
def test_mosaics_samples(encoding: str, compression: str | None, tmp_path: Path) -> None:
    filled = [document for document in DOCUMENTS if document]  # MDS has no empty arrays
    write_mds(tmp_path / "mds", filled, encoding, compression)
    assert read(tmp_path / "mds") == filled


@pytest.mark.parametrize("kind", [pa.list_(pa.int32()), pa.large_list(pa.uint16()), pa.list_(pa.int64())])
def test_parquet_and_arrow_columns(kind: pa.DataType, tmp_path: Path) -> None:
    table = pa.table({"n": range(5), "input_ids": pa.array(DOCUMENTS, kind)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    with pa.ipc.new_stream(tmp_path / "b.arrow", table.schema) as stream:
        stream.write_table(table, max_chunksize=2)
    with pa.ipc.new_file(tmp_path / "c.arrow", table.schema) as file:
        file.write_table(table.slice(1))
    assert read(tmp_path / "a.parquet") == DOCUMENTS
    assert read(tmp_path) == DOCUMENTS * 2 + DOCUMENTS[1:]


def test_rows_of_one_length(tmp_path: Path) -> None:
    rows = [[1, 2], [3, 4]]
    pq.write_table(pa.table({"tokens": pa.array(rows, pa.list_(pa.int32(), 2))}), tmp_path / "a.parquet")
    assert read(tmp_path) == rows


def test_pieces_are_small_and_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "N_TOKENS_AT_ONCE", 3)
    write_megatron(tmp_path / "x", DOCUMENTS)
    parts = list(read_documents(tmp_path / "x"))
    assert [part.values.tolist() for part in parts] == [[5, 6, 7], [8], [9, 300, 11, 12], [13]]
    assert read(tmp_path / "x") == DOCUMENTS


@pytest.mark.parametrize("width", [1, 2, 3, 7, 20])
def test_packed_rows_are_cut_where_a_document_ended(width: int, tmp_path: Path) -> None:
    stream = [5, 6, 0, 7, 0, 0, 8, 9, 10, 11, 0, 12]
    rows = [stream[i : i + width] for i in range(0, len(stream), width)]
    pq.write_table(pa.table({"tokens": pa.array(rows, pa.list_(pa.int32()))}), tmp_path / "a.parquet")
    found = [
        part.values[start:end].tolist()
        for part in cut_after(read_documents(tmp_path), 0)
        for start, end in zip(part.offsets[:-1], part.offsets[1:], strict=True)
    ]
    assert found == [[5, 6, 0], [7, 0], [0], [8, 9, 10, 11, 0], [12]]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere: no tokens that can be read; give Megatron's \.bin"):
        read(tmp_path / "nowhere")
    write_megatron(tmp_path / "short", DOCUMENTS)
    (tmp_path / "short.bin").write_bytes(b"1234")
    with pytest.raises(ValueError, match=r"short\.bin: 4 bytes, and its index names 9 tokens of 2 bytes"):
        read(tmp_path / "short")
    index = (tmp_path / "short.idx").read_bytes()
    (tmp_path / "short.idx").write_bytes(index[:40])
    with pytest.raises(ValueError, match="40 bytes are too few for 5 sequences"):
        read(tmp_path / "short")
    (tmp_path / "short.idx").write_bytes(b"TNTIDX\x00\x00" + index[8:])
    with pytest.raises(ValueError, match=r"short\.idx: begins with b'TNTIDX"):
        read(tmp_path / "short")
    write_mds(tmp_path / "mds", [[1], [2], [3]], "bytes")
    (tmp_path / "mds/shard.00001.mds").write_bytes(b"")
    with pytest.raises(ValueError, match=r"shard\.00001\.mds: 0 bytes, index\.json says"):
        read(tmp_path / "mds")
    (tmp_path / "mds/shard.00000.mds").unlink()
    with pytest.raises(ValueError, match=r"shard\.00000\.mds: index\.json names it and it is not there"):
        read(tmp_path / "mds")


def test_a_compressed_shard_that_is_cut_short_or_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    for algorithm in COMPRESSORS:
        folder = tmp_path / algorithm
        write_mds(folder, [[1, 2, 3]], "bytes", algorithm)
        path = folder / f"shard.00000.mds.{algorithm}"
        path.write_bytes(path.read_bytes()[:-9])
        with pytest.raises(ValueError, match=rf"shard\.00000\.mds\.{algorithm}: cannot be decompressed"):
            read(folder)
    index = (folder / "index.json").read_text().replace('"snappy"', '"lzo"')
    (folder / "index.json").write_text(index)
    with pytest.raises(ValueError, match="compressed by 'lzo'; zstd, gz, bz2, br, snappy can be read"):
        read(folder)


def test_columns_that_hold_no_tokens_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"ids": [[1], [2]], "text": ["a", "b"]}), path)
    with pytest.raises(
        ValueError, match=r"no column 'input_ids' or 'tokens'; its columns are \['ids', 'text'\]"
    ):
        read(path)
    with pytest.raises(ValueError, match="column 'text' is string; tokens are lists of integers"):
        read(path, "text")
    assert read(path, "ids") == [[1], [2]]
    pq.write_table(pa.table({"ids": [[1], None]}), path)
    with pytest.raises(ValueError, match="a null in rows 0 to 2 of the tokens"):
        read(path, "ids")
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match="cannot be read"):
        read(path)

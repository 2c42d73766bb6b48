"""`max_rows` and `max_bytes`: which rows of an input are taken, whatever its files are cut into."""

import hashlib
import sys
from collections.abc import Sequence

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from .lines import BLOCK_BYTES, lines_of
from .listing import Piece, Shard, open_stream
from .recipe import Input
from .web_archive import Page, pages_of


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


def key_limit(source: Input, seed: int, shards: Sequence[Shard]) -> int | None:
    """The largest row key that the input's `max_rows` and `max_bytes` admit; None where there is no limit.

    Rows are taken in the order of their keys until the next one would pass a limit, so a limit is a uniform
    sample of rows without replacement, exact, and the same for any sharding. A row that cannot be read counts
    as one. Costs one reading of the input's row lengths: of JSONL the whole line, of the others the text.
    """
    if source.max_rows is None and source.max_bytes is None:
        return None
    keys, sizes = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for kind, piece in ((shard.format, piece) for shard in shards for piece in shard.pieces):
        try:
            positions, n_bytes = _row_sizes(piece, kind, source)
        except (OSError, pa.ArrowException):
            continue  # no row of a broken shard enters the run; reading it will say what is wrong
        keys.append(row_keys(seed, source.source, piece.file.relative, positions))
        sizes.append(n_bytes)
    key, size = np.concatenate(keys), np.concatenate(sizes)
    order = np.argsort(key, kind="stable")
    n_taken = len(order) if source.max_rows is None else min(source.max_rows, len(order))
    if source.max_bytes is not None:
        n_taken = min(n_taken, int(np.searchsorted(np.cumsum(size[order]), source.max_bytes, side="right")))
    return int(key[order[n_taken - 1]]) if n_taken else -1


def _row_sizes(piece: Piece, kind: str, source: Input) -> tuple[np.ndarray, np.ndarray]:
    """(positions, bytes), int64, (n_rows,) each."""
    if kind == "text":
        return np.zeros(1, dtype=np.int64), np.array([_text_bytes(piece)], dtype=np.int64)
    if kind == "jsonl":
        lines = [(line.offset, line.n_bytes) for some in lines_of(piece, BLOCK_BYTES) for line in some]
        found = np.array(lines, dtype=np.int64).reshape(-1, 2)
        return found[:, 0], found[:, 1]
    if kind in ("warc", "wet"):
        pages = [page for page in pages_of(piece, kind, sys.maxsize >> 1) if isinstance(page, Page)]
        sizes = [len((page.fields["text"] or "").encode()) for page in pages]
        return np.array([page.position for page in pages], np.int64), np.array(sizes, np.int64)
    with fsspec.open(piece.file.uri) as stream:
        parquet = pq.ParquetFile(stream)
        first = sum(parquet.metadata.row_group(group).num_rows for group in range(piece.start))
        column = source.columns.get("text", "text")
        groups = parquet.read_row_groups(list(range(piece.start, piece.stop)), columns=[column])
    n_bytes = pc.fill_null(pc.binary_length(groups[column].cast(pa.large_string())), 0).to_numpy()
    return np.arange(first, first + len(n_bytes)), n_bytes.astype(np.int64)


def _text_bytes(piece: Piece) -> int:
    if piece.file.codec is None:
        return piece.file.n_bytes
    try:
        with open_stream(piece.file) as stream:
            return sum(map(len, iter(lambda: stream.read(BLOCK_BYTES), b"")))
    except OSError:
        return piece.file.n_bytes  # it may be taken, so that reading it says what is wrong

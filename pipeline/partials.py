"""Partials on disk in the order of an exchange's partitions, so that one of them is read and not the rest."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .run_directory import written_whole

FIRST_PLACES = b"cuvee.first_places"
BATCH_BYTES = 64 << 10
"""Aimed size of a record batch, the least that is read of a file."""


# 2**64 / golden ratio: odd, so a bijection of uint64.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


def places(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Where keys stand in an exchange, uint64: evenly spread, also if the keys are row numbers or minima of
    hashes. Partitions are equal ranges of places."""
    return keys * _SPREAD


def partitions(keys: NDArray[np.uint64], n_partitions: int) -> NDArray[np.int64]:
    """The partition of each key, from 0.

    >>> np.bincount(partitions(np.arange(1000, dtype=np.uint64), 4))
    array([251, 249, 250, 250])
    """
    return np.searchsorted(_starts(n_partitions), places(keys), side="right") - 1


def write_partial(path: Path, partial: pa.Table, key: str) -> None:
    """Write an Arrow IPC file whole, its rows in the order of the places of `key`, a uint64 column.

    Its schema tells the first place of each record batch.
    """
    place = places(partial[key].to_numpy())
    order = np.argsort(place, kind="stable")  # on every machine the same bytes
    rows_per_batch = max(64, BATCH_BYTES * len(partial) // max(1, partial.nbytes))
    first_places = place[order[::rows_per_batch]].astype("<u8").tobytes()
    partial = partial.take(pa.array(order)).combine_chunks()
    partial = partial.replace_schema_metadata({FIRST_PLACES: first_places})
    with (
        written_whole(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, partial.schema) as writer,
    ):
        writer.write_table(partial, max_chunksize=rows_per_batch)


def rows_of(path: Path, key: str, partition: int, n_partitions: int) -> pa.Table:
    """The rows of a partial whose key falls to `partition`; little else of the file is read."""
    start, *stop = _starts(n_partitions)[partition : partition + 2]
    with pa.OSFile(str(path)) as source:
        reader = pa.ipc.open_file(source)
        first_places = np.frombuffer(reader.schema.metadata[FIRST_PLACES], "<u8")
        # The batch before the first one that begins inside may end inside.
        begin = max(0, int(np.searchsorted(first_places, start)) - 1)
        end = int(np.searchsorted(first_places, stop[0])) if stop else len(first_places)
        batches = [reader.get_batch(i) for i in range(begin, end)]
    table = pa.Table.from_batches(batches, reader.schema).replace_schema_metadata(None)
    place = places(table[key].to_numpy())
    low, *high = np.searchsorted(place, [start, *stop]).tolist()
    return table.slice(low, (high[0] if high else len(place)) - low)


def _starts(n_partitions: int) -> NDArray[np.uint64]:
    """The smallest place of each partition, (n_partitions,)."""
    return np.array([(i << 64) // n_partitions for i in range(n_partitions)], np.uint64)

"""Partials on disk in the order of an exchange's key, so that a partition is read and not the rest."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .run_directory import written_whole

FIRST_KEYS = b"cuvee.first_keys"
BATCH_BYTES = 64 << 10
"""Aimed size of a record batch, the least that is read of a file."""


def write_partial(path: Path, partial: pa.Table, key: str) -> None:
    """Write an Arrow IPC file whole, its rows in the order of `key`, a uint64 column.

    Its schema tells the first key of each record batch.
    """
    keys = partial[key].to_numpy()
    order = np.argsort(keys, kind="stable")  # on every machine the same bytes
    rows_per_batch = max(64, BATCH_BYTES * len(partial) // max(1, partial.nbytes))
    first_keys = keys[order[::rows_per_batch]].astype("<u8").tobytes()
    partial = partial.take(pa.array(order)).combine_chunks().replace_schema_metadata({FIRST_KEYS: first_keys})
    with (
        written_whole(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, partial.schema) as writer,
    ):
        writer.write_table(partial, max_chunksize=rows_per_batch)


def partition_starts(n_partitions: int) -> NDArray[np.uint64]:
    """The smallest key of each partition, (n_partitions,): equal ranges of all uint64.

    >>> partition_starts(4) >> np.uint64(60)
    array([ 0,  4,  8, 12], dtype=uint64)
    """
    return np.array([(i << 64) // n_partitions for i in range(n_partitions)], np.uint64)


def rows_of(path: Path, key: str, partition: int, n_partitions: int) -> pa.Table:
    """The rows of a partial whose key falls to `partition`; little else of the file is read."""
    start, *stop = partition_starts(n_partitions)[partition : partition + 2]
    with pa.OSFile(str(path)) as source:
        reader = pa.ipc.open_file(source)
        first_keys = np.frombuffer(reader.schema.metadata[FIRST_KEYS], "<u8")
        # The batch before the first one that begins inside may end inside.
        begin = max(0, int(np.searchsorted(first_keys, start)) - 1)
        end = int(np.searchsorted(first_keys, stop[0])) if stop else len(first_keys)
        batches = [reader.get_batch(i) for i in range(begin, end)]
    table = pa.Table.from_batches(batches, reader.schema).replace_schema_metadata(None)
    keys = table[key].to_numpy()
    low, *high = np.searchsorted(keys, [start, *stop]).tolist()
    return table.slice(low, (high[0] if high else len(keys)) - low)

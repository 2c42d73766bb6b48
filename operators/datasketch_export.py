"""Signatures as objects of datasketch, for its LSH and the stores behind it (Redis, Cassandra, MongoDB)."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from .files import check_installed
from .minhash_dedup import MinHashDedup


def lean_minhashes(operator: MinHashDedup, table: pa.Table) -> Iterator[tuple[str, Any]]:
    """(id, `datasketch.LeanMinHash`) of each document that has a signature.

    They are those of a `datasketch.MinHash` of scheme "affine32" that was updated with the same shingle
    hashes, so an index may hold both. An index of the operator's bands finds the operator's candidates::

        lsh = datasketch.MinHashLSH(
            num_perm=operator.bands.n_bands * operator.bands.rows_per_band,
            params=tuple(operator.bands),
            storage_config={"type": "redis", "redis": {"host": "localhost", "port": 6379}},
        )
        for name, minhash in lean_minhashes(operator, table):
            lsh.insert(name, minhash)

    Args:
        table: with `id` and `text`.
    Raises:
        ValueError: datasketch is not installed.
    """
    check_installed("datasketch", "datasketch")
    import datasketch

    signatures, has_signature = operator.sign(table)
    ids = table["id"].to_pylist()
    for name, values, signed in zip(ids, signatures, has_signature.tolist(), strict=True):
        if signed:
            yield name, datasketch.LeanMinHash(seed=operator.seed, hashvalues=values, scheme="affine32")

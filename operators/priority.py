"""Which of several documents shall survive, as one int64 a document: the greater is the better."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .base import UnsuitableDataError
from .text_column import one_chunk

UNKNOWN = np.iinfo(np.int64).min
"""The priority of a document whose column is null, NaN or missing: below all others."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def by_length(offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bytes of text, int64, (n_docs,)."""
    return np.diff(offsets)


def by_column(table: pa.Table, column: str, kind: str, where: str) -> NDArray[np.int64]:
    """Priorities that order rows as the values of a column do, int64, (n_docs,).

    Args:
        kind: "newest" takes timestamps, dates, integers, and ISO 8601 texts (UTC where they name no zone);
            "best" takes numbers and booleans.
        where: the parameter's name, for the error.
    Raises:
        UnsuitableDataError: the column holds something else.
    """
    if column not in table.column_names or pa.types.is_null(table[column].type):
        return np.full(len(table), UNKNOWN)
    values = one_chunk(table[column])
    if kind == "newest":
        times = _times(values, table["id"], where)
        return pc.fill_null(times, UNKNOWN).to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]
    kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)
    if not any(is_kind(values.type) for is_kind in kinds):
        raise UnsuitableDataError(f"{where}: column {column!r} holds {values.type}, numbers are needed")
    return _ordered_like(values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))


def check_known(priority: NDArray[np.int64], column: str | None, where: str) -> None:
    """Refuse a column that tells no document from another, as a misspelt one does.

    Raises:
        UnsuitableDataError: no document has a value.
    """
    if column is not None and len(priority) and (priority == UNKNOWN).all():
        raise UnsuitableDataError(
            f"{where}: column {column!r} is null or missing in all {len(priority):,} documents that have "
            "duplicates; name a column that the inputs have, or that an operator above writes"
        )


def _times(values: pa.Array, ids: pa.ChunkedArray, where: str) -> pa.Array:
    """Microseconds since 1970 of times, integers as they are; int64 with nulls."""
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        zoned = values.cast(pa.timestamp("us", getattr(values.type, "tz", None)), safe=False)
        return zoned.cast(pa.int64())
    if pa.types.is_integer(values.type):
        return values.cast(pa.int64())
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        needed = "times, integers or ISO 8601 texts are needed"
        raise UnsuitableDataError(f"{where}: the column holds {values.type}; {needed}")
    found: list[int | None] = []
    for i, text in enumerate(values.to_pylist()):
        try:
            time = None if text is None or not text.strip() else datetime.fromisoformat(text.strip())
        except ValueError:
            raise UnsuitableDataError(
                f"{where}: document {ids[i].as_py()!r} has {text!r}, which is no ISO 8601 time "
                "(2024-05-31, or 2024-05-31T14:00:00Z)"
            ) from None
        found.append(None if time is None else _microseconds(time))
    return pa.array(found, pa.int64())


def _microseconds(time: datetime) -> int:
    since = (time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def _ordered_like(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """The bits of IEEE numbers as integers of the same order (negative numbers count downwards).

    >>> np.argsort(_ordered_like(np.array([0.5, -1.0, float("nan"), -2.0, 3.0]))).tolist()
    [2, 3, 1, 0, 4]
    """
    bits = (numbers + 0.0).view(np.int64)  # -0.0 + 0.0 is 0.0
    ordered = bits ^ ((bits >> 63) & np.int64(2**63 - 1))
    return np.where(np.isnan(numbers), UNKNOWN, ordered)

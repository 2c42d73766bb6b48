"""Tables of runs as files hold them: CSV or Parquet, and what people's columns may contain."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LEAVE_OUT = "Leave the column out, or name it with `on` if it is the runs' key."


def read_table(path: str | Path) -> pa.Table:
    """The columns of a CSV file, or of a Parquet file if its name ends so.

    Raises:
        ValueError: no such file, or it is neither; a column is there twice. The message has the path.
    """
    place = Path(path)
    if not place.exists() or place.is_dir():  # a pipe is read as well
        found = "a folder" if place.is_dir() else "no such file"
        raise ValueError(f"{place}: {found}; give a CSV or Parquet file.")
    try:
        table = pq.read_table(place) if place.suffix == ".parquet" else pa.csv.read_csv(place)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{place}: cannot be read: {error}") from error
    names = table.column_names
    twice = sorted(name for name, n in Counter(names).items() if n > 1)
    if twice:
        raise ValueError(f"{place}: column '{twice[0]}' is there twice; give each column its own name.")
    if len(names) == 1 and any(mark in names[0] for mark in ";\t"):
        raise ValueError(f"{place}: found the one column {names[0]!r}; a CSV has commas between its columns.")
    return table


def check_key(path: str | Path, table: pa.Table, on: str) -> None:
    """Refuse a table without the join column, or with one of its keys missing or repeated."""
    if on not in table.column_names:
        raise ValueError(f"{path}: no column '{on}' to join on; found {', '.join(table.column_names)}.")
    n_without = table[on].null_count
    if n_without:
        raise ValueError(f"{path}: {n_without} rows have no {on}; each run needs a key of its own.")
    repeated = sorted((key for key, n in Counter(table[on].to_pylist()).items() if n > 1), key=str)
    if repeated:
        raise ValueError(
            f"{path}: {on} = {', '.join(map(str, repeated[:5]))} is listed twice; each run has one row."
        )


def matrix(table: pa.Table, where: str = "") -> Floats:
    """The table's columns side by side: float64, (n_rows, n_columns); null becomes NaN."""
    columns = [numbers(table, name, where) for name in table.column_names]
    return np.column_stack(columns) if columns else np.zeros((len(table), 0))


def numbers(table: pa.Table, name: str, where: str = "", advice: str = LEAVE_OUT) -> Floats:
    """A column as float64, (n_rows,); null becomes NaN.

    Args:
        where, advice: before and after what is wrong.
    Raises:
        ValueError: it holds texts, dates or what else is no number.
    """
    column = table[name]
    try:
        found: Floats = pc.cast(column, pa.float64()).to_numpy()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(
            f"{where}column '{name}' holds {column.type}, and a number is needed in each row ({error}). "
            f"{advice}"
        ) from None
    return found


def whole_numbers(table: pa.Table, name: str, where: str = "") -> NDArray[np.int64]:
    """A column as int64, (n_rows,).

    Raises:
        ValueError: a row has none, or a fraction.
    """
    if pa.types.is_integer(table[name].type) and not table[name].null_count:
        return np.asarray(table[name].to_numpy(), dtype=np.int64)  # float64 would round large seeds
    found = numbers(table, name, where)
    broken = np.flatnonzero(~(np.isfinite(found) & (found == np.floor(found))))
    if len(broken):
        raise ValueError(
            f"{where}column '{name}': row {broken[0]} has {found[broken[0]]}; a whole number is needed in "
            "each row, or leave the column out."
        )
    return found.astype(np.int64)

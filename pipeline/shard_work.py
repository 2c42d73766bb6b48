"""What happens to one shard: read, apply the stage's operators, write what is kept and what is dropped."""

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import reduce
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..operators.base import (
    ROW,
    Filter,
    Fit,
    FitFilter,
    FitMap,
    Map,
    Operator,
    UnsuitableDataError,
    set_columns,
)
from .errors import DamagedRunError, InputError
from .listing import Shard
from .partials import write_partial
from .reading import DOCUMENT_COLUMNS, BrokenShardError, Reader, Reading
from .run_directory import damaged, written_whole

ACCOUNTING = b"cuvee.accounting"
SHARD_BITS = 32
BATCH_BYTES = 4 << 20
"""Text that the operators of a stage see at once."""
DICTIONARY_COLUMNS = ["source", "domain", "lang", "dropped_by", "reason"]


class AccountingError(RuntimeError):
    """Rows went missing or appeared from nowhere: a defect of an operator or of cuvee, never of the data."""


@dataclass
class Accounting:
    """Where rows went: rows in = kept + dropped by reason + unreadable by reason."""

    rows_in: int = 0
    rows_kept: int = 0
    bytes_in: int = 0
    bytes_kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    unreadable: dict[str, int] = field(default_factory=dict)
    over_limit: int = 0
    no_page: dict[str, int] = field(default_factory=dict)
    """Sound records of web archives that are no documents and no rows: requests, images, redirects."""

    def check(self, where: str) -> None:
        """Raises:
        AccountingError: the numbers don't add up.
        """
        n_dropped, n_unreadable = sum(self.dropped.values()), sum(self.unreadable.values())
        if self.rows_in != self.rows_kept + n_dropped + n_unreadable:
            raise AccountingError(
                f"{where}: {self.rows_in} rows in, but {self.rows_kept} kept + {n_dropped} dropped + "
                f"{n_unreadable} unreadable = {self.rows_kept + n_dropped + n_unreadable}; nothing was "
                "written"
            )

    def __add__(self, other: "Accounting") -> "Accounting":
        merged: dict[str, Any] = {}
        for name, mine in asdict(self).items():
            theirs = getattr(other, name)
            both = Counter(mine) + Counter(theirs) if isinstance(mine, dict) else mine + theirs
            merged[name] = dict(sorted(both.items())) if isinstance(both, Counter) else both
        return Accounting(**merged)


@dataclass(frozen=True)
class ShardTask:
    """One shard's work, picklable: everything that a thread here or a process elsewhere needs."""

    index: int
    operators: tuple[Operator, ...]
    fit: Fit | None
    folder: Path
    """The stage's folder."""
    state: Path | None
    """The state of the fit that the first operator is, if it is one."""
    upstream: Path | None
    """The part to read, or None in the first stage, which reads `shard` with `reader`."""
    reader: Reader | None = None
    shard: Shard | None = None

    @property
    def part(self) -> Path:
        """The kept rows. That this file exists means that the shard is done."""
        return self.folder / part_name(self.index)

    @property
    def dropped(self) -> Path:
        """The dropped and the unreadable rows."""
        return self.folder / "dropped" / part_name(self.index)

    @property
    def partial(self) -> Path:
        """What the fit observed."""
        return self.folder / "fit" / f"part-{self.index:05d}.arrow"

    @property
    def quarantine(self) -> Path:
        """Why the shard could not be read."""
        return self.folder / "quarantine" / f"part-{self.index:05d}.json"


@dataclass(frozen=True)
class ShardResult:
    """What the driver learns of a shard: its accounting or why it is broken, and CPU seconds by operator."""

    index: int
    accounting: Accounting | None
    broken: str | None
    cpu_seconds: dict[str, float]


def part_name(index: int) -> str:
    """A part's file name."""
    return f"part-{index:05d}.parquet"


class _Clock:
    """CPU seconds of this thread, by name."""

    def __init__(self) -> None:
        self.cpu_seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.thread_time()
        yield
        self.cpu_seconds[name] = self.cpu_seconds.get(name, 0.0) + time.thread_time() - start


def run_shard(task: ShardTask) -> ShardResult:
    """Do one shard of a stage.

    The rows that leave are written first, the part last: a part that exists has all its companions.

    Raises:
        AccountingError: the operators lost or invented rows.
        InputError: the documents are not what an operator's parameters say.
        EnvironmentFailure: the disk is full or cannot be written.
    """
    clock = _Clock()
    with clock("read"):
        try:
            table, reading = _read(task)
        except BrokenShardError as error:
            return ShardResult(task.index, None, str(error), clock.cpu_seconds)
    accounting = Accounting(rows_in=table.num_rows, bytes_in=n_text_bytes(table))
    left = []
    if reading is not None:
        unreadable = reading.unreadable
        accounting.rows_in += unreadable.num_rows
        accounting.unreadable = count(unreadable["reason"])
        accounting.over_limit = reading.n_over_limit
        accounting.no_page = dict(sorted(reading.n_no_page.items()))
        left.append(
            set_columns(unreadable, {"dropped_by": pa.array(["read"] * len(unreadable), pa.string())})
        )
    operators = list(task.operators)

    def step(table: pa.Table, operator: Operator, state: pa.Table | None = None) -> pa.Table:
        with clock(operator.name), _suitable(operator):
            kept, dropped = apply(operator, table, state)
        if dropped is not None:
            for reason, n in count(dropped["reason"]).items():
                name = f"{operator.name}.{reason}"
                accounting.dropped[name] = accounting.dropped.get(name, 0) + n
            left.append(dropped)
        return kept

    table = number_rows(table, task.index)
    if task.state is not None:
        table = step(table, operators.pop(0), read_arrow(task.state))
    batches = [reduce(step, operators, batch) for batch in cut_into_batches(table)]
    table = pa.concat_tables(batches, promote_options="permissive")
    if task.fit is not None:
        with clock(f"{task.fit.name}.observe"), _suitable(task.fit):
            partial = task.fit.observe(number_rows(table, task.index))
            if task.fit.exchange_key is None:
                write_arrow(task.partial, partial)
            else:
                write_partial(task.partial, partial, task.fit.exchange_key)
    with clock("write"):
        kept = without_row(table)
        accounting.rows_kept, accounting.bytes_kept = kept.num_rows, n_text_bytes(kept)
        accounting.check(str(task.part))
        left = [without_row(dropped) for dropped in left] or [_nothing_dropped(kept)]
        write_part(task.dropped, pa.concat_tables(left, promote_options="permissive"), accounting)
        write_part(task.part, kept, accounting)
    return ShardResult(task.index, accounting, None, clock.cpu_seconds)


@contextmanager
def _suitable(operator: Operator) -> Iterator[None]:
    """Say which operator it is that documents do not suit."""
    try:
        yield
    except UnsuitableDataError as error:
        raise InputError(
            str(error) if str(error).startswith(operator.name) else f"{operator.name}: {error}"
        ) from error


def cut_into_batches(table: pa.Table) -> list[pa.Table]:
    """The rows in batches of about `BATCH_BYTES` of text, one at least: no row depends on another, and what
    operators make for a batch stays in the processor's caches."""
    ends = np.cumsum(pc.fill_null(pc.binary_length(table["text"]), 0).to_numpy())
    cuts = (np.flatnonzero(np.diff(ends // BATCH_BYTES)) + 1).tolist()
    bounds = [0, *cuts, len(table)]
    return [table.slice(start, end - start) for start, end in pairwise(bounds)]


def _read(task: ShardTask) -> tuple[pa.Table, Reading | None]:
    if task.upstream is not None:
        return read_part(task.upstream), None
    assert task.reader is not None
    assert task.shard is not None
    reading = task.reader.read(task.shard)
    return reading.table(), reading


def apply(operator: Operator, table: pa.Table, state: pa.Table | None) -> tuple[pa.Table, pa.Table | None]:
    """(kept rows, dropped rows or None): one operator over one table.

    Raises:
        AccountingError: the operator changed the rows' number or order, or other columns than it declares.
    """
    if isinstance(operator, Map | FitMap):
        mapped = operator.apply(table) if isinstance(operator, Map) else operator.apply(table, state)
        check_mapped(operator, table, mapped)
        return mapped, None
    assert isinstance(operator, Filter | FitFilter)
    scores = operator.scores(table) if isinstance(operator, Filter) else operator.scores(table, state)
    if set(scores) != set(operator.writes) or any(len(score) != len(table) for score in scores.values()):
        raise AccountingError(
            f"operator {operator.name!r} must give {', '.join(operator.writes)} for {len(table)} rows; "
            "it gave " + ", ".join(f"{name} ({len(score)})" for name, score in scores.items())
        )
    table = set_columns(table, dict(scores))
    reasons = operator.reasons(scores)
    if len(reasons) != len(table):
        raise AccountingError(
            f"operator {operator.name!r} must decide about {len(table)} rows; it decided about {len(reasons)}"
        )
    keep = reasons.is_null()
    dropped = table.filter(pc.invert(keep))
    by = pa.array([operator.name] * len(dropped), pa.string())
    reason = reasons.filter(reasons.is_valid()).cast(pa.string())
    return table.filter(keep), set_columns(dropped, {"dropped_by": by, "reason": reason})


def check_mapped(operator: Operator, table: pa.Table, mapped: pa.Table) -> None:
    """Hold what a map made of `table` to what a map may do.

    Raises:
        AccountingError: rows went missing, appeared or moved, or columns changed that it does not declare.
    """
    must = f"operator {operator.name!r} must keep every row in order"
    if len(mapped) != len(table):
        raise AccountingError(f"{must}: {len(table)} rows went in, {len(mapped)} came out")
    for name in table.column_names:
        if name not in mapped.column_names:
            raise AccountingError(f"operator {operator.name!r} removed the column {name!r}")
    moved = np.flatnonzero(mapped[ROW].to_numpy() != table[ROW].to_numpy())
    if len(moved):
        raise AccountingError(f"{must}: row {table['id'][int(moved[0])]} is not where it was")
    for name in mapped.column_names:
        if name not in operator.writes and name not in table.column_names:
            raise AccountingError(f"operator {operator.name!r} writes {name!r}, which its writes do not name")
    for name in operator.writes:
        if name not in mapped.column_names:
            raise AccountingError(f"operator {operator.name!r} did not write {name!r}, which its writes name")
    for name in DOCUMENT_COLUMNS:
        if name not in operator.writes and not mapped[name].equals(table[name]):
            raise AccountingError(
                f"operator {operator.name!r} changed the column {name!r}, which its writes do not name"
            )


def number_rows(table: pa.Table, shard_index: int) -> pa.Table:
    """`table` with the column `ROW` laid over it."""
    first = shard_index << SHARD_BITS
    return set_columns(table, {ROW: pa.array(np.arange(first, first + len(table)), pa.int64())})


def without_row(table: pa.Table) -> pa.Table:
    """`table` without the column `ROW`."""
    return table.drop_columns([ROW]) if ROW in table.column_names else table


def count(reasons: pa.ChunkedArray) -> dict[str, int]:
    """How often each reason stands in a column."""
    return dict(sorted(Counter(reasons.to_pylist()).items()))


def n_text_bytes(table: pa.Table) -> int:
    """UTF-8 bytes of all texts."""
    return pc.sum(pc.binary_length(table["text"])).as_py() or 0


def _nothing_dropped(kept: pa.Table) -> pa.Table:
    empty = kept.slice(0, 0)
    return set_columns(empty, {"dropped_by": pa.array([], pa.string()), "reason": pa.array([], pa.string())})


def write_part(path: Path, table: pa.Table, accounting: Accounting) -> None:
    """Write a Parquet part whole, the shard's accounting in its footer."""
    footer = json.dumps(asdict(accounting), sort_keys=True)
    table = table.replace_schema_metadata({ACCOUNTING: footer.encode()})
    dictionary = [name for name in DICTIONARY_COLUMNS if name in table.column_names]
    with written_whole(path) as temporary:
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            use_dictionary=dictionary,
            row_group_size=1 << 16,
            write_page_checksum=True,
        )


def read_part(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a part, or some of its columns, each page held to its checksum.

    Raises:
        DamagedRunError: the part is not what was written.
    """
    try:
        table = pq.read_table(path, columns=columns, memory_map=True, page_checksum_verification=True)
        accounting, _ = read_accounting(path)
    except (OSError, pa.ArrowException) as error:
        raise damaged(path, error) from error
    if len(table) != accounting.rows_kept:
        raise DamagedRunError(
            f"{path}: the footer says {accounting.rows_kept} rows, the file holds {len(table)}; "
            "remove it and run again"
        )
    return table.replace_schema_metadata(None)


def read_accounting(path: Path) -> tuple[Accounting, int]:
    """(accounting, number of rows in the file) from a part's footer, without reading its rows.

    Raises:
        DamagedRunError: the file is no part, or no longer.
    """
    try:
        metadata = pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        raise damaged(path, error) from error
    footer = (metadata.metadata or {}).get(ACCOUNTING)
    if footer is None:
        raise DamagedRunError(f"{path}: not a part of a run, its footer holds no accounting; remove it")
    return Accounting(**json.loads(footer)), metadata.num_rows


def write_arrow(path: Path, table: pa.Table) -> None:
    """Write an Arrow IPC file whole."""
    with (
        written_whole(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)


def read_arrow(path: Path) -> pa.Table:
    """An Arrow IPC file, memory-mapped.

    Raises:
        DamagedRunError: the file is not what was written.
    """
    try:
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).read_all()
    except (OSError, pa.ArrowException) as error:
        raise damaged(path, error) from error

"""From the shards' partials to the state of a fit: exchange, tree reduction, and for some a second look."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..operators.base import ROW, Fit, set_columns
from .earlier import earlier_partials, keep_survivors
from .engines import Engine
from .partials import write_partial
from .shard_work import n_text_bytes, read_arrow, read_part, write_arrow

FOUND = "found.arrow"


@dataclass(frozen=True)
class Observed:
    """A shard's part, the number of its first row, and what the fit observed of it."""

    index: int
    part: Path
    first_row: int
    partial: Path


@dataclass(frozen=True)
class Look:
    """A part's second look, picklable."""

    fit: Fit
    observed: Observed
    found: Path
    partial: Path
    """What it sees. That this file exists means that it is done."""


@dataclass(frozen=True)
class LookResult:
    """What the driver learns of a second look."""

    index: int
    rows_in: int
    bytes_in: int
    cpu_seconds: dict[str, float]


def fit_state(
    engine: Engine,
    fit: Fit,
    observed: Sequence[Observed],
    folder: Path,
    on_look: Callable[[LookResult], None] = lambda _: None,
) -> pa.Table:
    """The state of `fit` over all parts; what is there in `folder` from an earlier attempt is not done again.

    Raises:
        UnsuitableDataError: the documents are not what the fit's parameters say.
        InputError: an earlier run that the fit names cannot serve it.
    """
    earlier = earlier_partials(fit, folder)
    engine.map_shards(
        keep_survivors, [entry for entry in earlier if not entry.target.exists()], lambda _: None
    )
    observed = [*(Observed(e.shard, e.part, e.first_row, e.target) for e in earlier), *observed]
    if fit.second_key is None:
        return reduce_fit(engine, fit, [entry.partial for entry in observed])
    found = folder / FOUND
    if not found.exists():
        write_arrow(found, reduce_fit(engine, fit, [entry.partial for entry in observed]))
    looks = [Look(fit, entry, found, folder / f"again-{entry.partial.name}") for entry in observed]
    engine.map_shards(look_again, [look for look in looks if not look.partial.exists()], on_look)
    verdicts = engine.exchange([look.partial for look in looks], fit.second_key, fit.combine_again)
    return fit.finish_again(read_arrow(found), verdicts)


def reduce_fit(engine: Engine, fit: Fit, partials: Sequence[Path]) -> pa.Table:
    """What one look finds, from the shards' partials, by exchange (if it has a key) and tree reduction."""
    if fit.exchange_key is not None:
        tables = engine.exchange(partials, fit.exchange_key, fit.combine)
    else:
        tables = [read_arrow(path) for path in partials]
    return fit.finish(engine.reduce(tables, fit.merge))


def look_again(look: Look) -> LookResult:
    """Write what the second look sees of one part.

    Raises:
        EnvironmentFailure: the disk is full or cannot be written.
    """
    assert look.fit.second_key is not None
    start = time.thread_time()
    part, first_row = look.observed.part, look.observed.first_row
    there = pq.read_schema(part).names
    table = read_part(part, [name for name in dict.fromkeys(look.fit.second_reads) if name in there])
    rows = pa.array(np.arange(first_row, first_row + len(table)))
    partial = look.fit.observe_again(set_columns(table, {ROW: rows}), read_arrow(look.found))
    write_partial(look.partial, partial, look.fit.second_key)
    cpu_seconds = {f"{look.fit.name}.observe_again": time.thread_time() - start}
    return LookResult(look.observed.index, len(table), n_text_bytes(table), cpu_seconds)

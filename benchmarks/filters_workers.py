"""Two workers of one machine: how much faster than one, and from which size on processes beat threads.

Operators that hold Python's lock make threads wait for each other; processes do not wait, but take seconds to
start. Wall seconds are the least of some turns, so these figures want a quiet machine.
"""

import shutil
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.filters_speed import fineweb_chain, megabytes, write_documents, write_recipe
from cuvee.pipeline import curation
from cuvee.pipeline.engines import LocalEngine
from cuvee.pipeline.plan import make_plan
from cuvee.pipeline.progress import RunProgress
from cuvee.pipeline.recipe import load_recipe

HOLD_THE_LOCK: dict[str, list[Any]] = {
    "language": ["language"],
    "pii": ["pii"],
    "fix_unicode": ["fix_unicode"],
    "c4, icu": [{"c4": {"profile": "icu"}}],
}
N_TURNS = 2
"""Of the filters; the others are measured once at each size."""
N_SHARDS = 16
NEVER = 1 << 60


def two_workers(
    console: Console, scratch: Path, texts: list[str], n_copies: int, sizes: Sequence[int]
) -> dict[str, Any]:
    """How many times as fast two workers curate as one.

    Args:
        n_copies: of `texts` for the filters, whose kernels release the lock.
        sizes: two numbers of copies, for the operators that hold it, as threads and as processes.
    """
    shown = Table("stage", "MB", "one worker", "threads", "processes", title="Wall seconds; two workers each")
    figures: dict[str, Any] = {"two_workers": {}, "processes_pay_mb": {}}
    documents = write_documents(scratch / "workers", texts, n_copies)
    chain = fineweb_chain("datatrove")
    one, threads = (wall_seconds(scratch, documents, chain, n, NEVER, N_TURNS) for n in (1, 2))
    figures["two_workers"]["filters"] = one / threads
    shown.add_row("filters", f"{n_copies * megabytes(texts):.0f}", f"{one:.1f}", f"{threads:.1f}")
    for name, chain in HOLD_THE_LOCK.items():
        walls = {}
        for n in sizes:
            documents = write_documents(scratch / "workers", texts, n)
            one = wall_seconds(scratch, documents, chain, 1, NEVER)
            walls[n] = [wall_seconds(scratch, documents, chain, 2, pays) for pays in (NEVER, 0)]
            row = (f"{seconds:.1f}" for seconds in (one, *walls[n]))
            shown.add_row(name, f"{n * megabytes(texts):.0f}", *row)
            figures["two_workers"][name] = one / min(walls[n])
        figures["processes_pay_mb"][name] = crossing(
            *((n * megabytes(texts), threads - processes) for n, (threads, processes) in walls.items())
        )
    console.print(shown)
    for name, value in figures["two_workers"].items():
        pays = figures["processes_pay_mb"].get(name, "")
        console.print(
            f"{name}: {value:.2f} times as fast" + (f", processes pay from {pays:.0f} MB" if pays else "")
        )
    return figures


def crossing(small: tuple[float, float], large: tuple[float, float]) -> float | None:
    """Where the line through two points (size, gain) crosses 0; None if the gain does not grow.

    >>> crossing((10.0, -1.0), (30.0, 1.0))
    20.0
    """
    slope = (large[1] - small[1]) / (large[0] - small[0])
    return max(small[0] - small[1] / slope, 0.0) if slope > 0 else None


def wall_seconds(
    scratch: Path, documents: Path, chain: Sequence[Any], n_workers: int, processes_pay: int, n_turns: int = 1
) -> float:
    """The least wall seconds of some curations, each with an engine of its own, processes started anew.

    Args:
        processes_pay: bytes of input from which on operators that hold the lock run in processes.
    """
    # Shards enough that no worker waits long for the other's last one.
    n_bytes = max((documents / "documents.jsonl").stat().st_size // N_SHARDS, 1)
    reading = {"shard_bytes": n_bytes}
    loaded = load_recipe(write_recipe(scratch, "workers", documents, chain, reading))
    run_dir = scratch / "workers-run"
    curation.PROCESSES_PAY_BYTES, before = processes_pay, curation.PROCESSES_PAY_BYTES
    found, progress = [], RunProgress(Console(quiet=True))
    for _ in range(n_turns):
        with closing(LocalEngine(n_workers)) as engine:
            plan = make_plan(loaded, run_dir)
            start = time.perf_counter()
            curation.Curation(plan, loaded.recipe, run_dir, engine, progress).run()
            found.append(time.perf_counter() - start)
        shutil.rmtree(run_dir)
    curation.PROCESSES_PAY_BYTES = before
    return min(found)

"""Deduplication of corpora that grow by four: CPU time, memory and exchanged bytes."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.dedup_corpus import paragraphs_of, write_recombined
from benchmarks.dedup_runs import curated, show


def growth(console: Console, folder: Path, documents: list[dict[str, str]], n_max: int) -> dict[str, Any]:
    """CPU, memory and exchanged bytes as documents grow by 4, and where 3 of 10 are one licence."""
    paragraphs = paragraphs_of(documents)
    licence = "\n\n".join(paragraphs[:: len(paragraphs) // 8][:8])
    plain = [_grown(folder, n_max // 4**k, paragraphs) for k in (3, 2, 1, 0)]
    skewed = [_grown(folder, n_max // 4**k, paragraphs, licence) for k in (2, 1)]
    show(console, "Growth, two workers", plain)
    show(console, "The same with 3 of 10 documents one licence", skewed)
    smaller, largest = plain[1], plain[-1]
    more_mb = largest["peak MB"] - smaller["peak MB"]
    exchanged = largest["first look, B per doc"] + largest["second look, B per doc"]
    return {
        "growth": plain,
        "growth_licence": skewed,
        "growth_exponent": exponent(plain[-2:], "CPU s"),  # the last step, in which starting counts least
        "growth_exponent_memory": exponent(plain[-2:], "peak MB"),
        "growth_exponent_licence": exponent(skewed, "CPU s"),
        "bytes_per_document": round(1e6 * more_mb / (largest["n_docs"] - smaller["n_docs"])),
        "peak_mb": largest["peak MB"],
        "n_docs": largest["n_docs"],
        "estimate_per_billion_documents": {
            # Were all on one machine. A cluster's driver holds less: see operators/README.md.
            "memory_gb": round(1e6 * more_mb / (largest["n_docs"] - smaller["n_docs"])),
            "cpu_hours": round(1e9 * largest["CPU s"] / largest["n_docs"] / 3600, 1),
            "exchanged_tb": round(exchanged / 1e3, 2),
            "state_gb": largest["state, B per doc"],
        },
    }


def _grown(folder: Path, n_docs: int, paragraphs: list[str], licence: str | None = None) -> dict[str, Any]:
    name = f"grown-{n_docs}-{licence is not None}"
    path, mb = write_recombined(folder / name, paragraphs, n_docs, licence)
    run_dir, cpu, peak = curated(path, folder / f"{name}-run", n_workers=2)
    looks = {
        look: sum(file.stat().st_size for file in run_dir.glob(f"stages/00-*/fit/{look}-*.arrow")) / n_docs
        for look in ("part", "again-part")
    }
    state = sum(
        next(run_dir.glob(f"stages/00-*/fit/{name}.arrow")).stat().st_size for name in ("found", "state")
    )
    manifest = json.loads(next(run_dir.glob("stages/01-*/manifest.json")).read_text("utf-8"))
    shutil.rmtree(run_dir)
    shutil.rmtree(path)
    return {
        "n_docs": n_docs,
        "MB": round(mb),
        "CPU s": round(cpu, 1),
        "MB per CPU-s": round(mb / cpu, 1),
        "peak MB": round(peak),
        "first look, B per doc": round(looks["part"]),
        "second look, B per doc": round(looks["again-part"]),
        "state, B per doc": round(state / n_docs),
        **manifest["fit_summary"],
    }


def exponent(lines: Sequence[dict[str, Any]], key: str) -> float:
    """The slope of log(key) over log(documents)."""
    x, y = (np.log([line[name] for line in lines]) for name in ("n_docs", key))
    return round(float(np.polyfit(x, y, 1)[0]), 3)

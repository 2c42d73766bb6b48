"""FineWeb's chain, files in and files out, beside datatrove and Dolma; and memory as the corpus grows.

What a tool needs before its first document is measured by a run over one document and taken off, ours and the
peers' alike, so that tools which read corpora of different sizes can be compared. Both figures are shown.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.dedup_runs import measured
from benchmarks.filters_agreement import PEER_SCRIPT, environment, families

TIMES_DOLMA = {"data-juicer 1.6.1": 1.28 / 1.20, "nemo-curator 1.4.0": 1.35 / 1.20}
"""MB per CPU-second of their own English filters as a multiple of Dolma's, taken once on documents of this
corpus on an idle machine, since the two install gigabytes."""
PAPER_COPIES = 4
N_STARTS = 2
"""Runs over one document, of which the shorter one counts."""


class Cost(NamedTuple):
    """One run: megabytes of text, CPU seconds, and those of a run over one document."""

    megabytes: float
    cpu: float
    start: float

    @property
    def rate(self) -> float:
        """Megabytes per CPU-second, without the start."""
        return self.megabytes / (self.cpu - self.start)

    @property
    def whole_rate(self) -> float:
        """Megabytes per CPU-second of the whole process."""
        return self.megabytes / self.cpu


def speed(
    console: Console,
    scratch: Path,
    texts: list[str],
    sample: list[str],
    peers: Sequence[str],
    copies: Sequence[int],
) -> dict[str, Any]:
    """Megabytes per CPU-second of ours and of the peers, and our peak memory for each size of the corpus.

    Args:
        texts: what we read, as often as `copies` says; under the profile `paper` a few times.
        sample: what the peers read.
    """
    costs: dict[str, Cost] = {}
    one = write_documents(scratch / "one", [kept_by_all(texts)])
    starts = {
        profile: min(curated(scratch, profile, one)[0] for _ in range(N_STARTS))
        for profile in ("datatrove", "paper")
    }
    peak_mb = {}
    for n in copies:
        documents = write_documents(scratch / str(n), texts, n)
        cpu, peak_mb[n] = curated(scratch, "datatrove", documents)
        costs["cuvee datatrove"] = Cost(n * megabytes(texts), cpu, starts["datatrove"])
        if n == min(PAPER_COPIES, copies[-1]):
            cpu, _ = curated(scratch, "paper", documents)
            costs["cuvee paper"] = Cost(n * megabytes(texts), cpu, starts["paper"])
        shutil.rmtree(documents)
    folder = write_documents(scratch / "sample", sample)
    for peer in peers:
        command = PEER_COMMANDS[peer]
        start = min(measured(command(one, scratch / f"start-{turn}"))[0] for turn in range(N_STARTS))
        cpu, _ = measured(command(folder, scratch))
        costs[peer] = Cost(megabytes(sample), cpu, start)
    _show(console, costs, peak_mb)
    return _figures(costs, peak_mb)


def kept_by_all(texts: Sequence[str]) -> str:
    """The first text that every filter keeps: a run that drops all it reads is refused."""
    for text in texts:
        table = pa.table({"text": pa.array([text], pa.large_string())})
        filters = [one for profile in ("datatrove", "paper") for one in families(profile).values()]
        if all(one.reasons(one.scores(table)).null_count for one in filters):
            return text
    raise ValueError("no document is kept by every filter")


def _show(console: Console, costs: dict[str, Cost], peak_mb: dict[int, float]) -> None:
    columns = ("tool", "MB", "CPU s", "of them start", "MB/CPU-s", "start included")
    shown = Table(*columns, title="FineWeb's chain, files in, files out, one worker")
    for name, cost in costs.items():
        row = (f"{cost.megabytes:.1f}", f"{cost.cpu:.1f}", f"{cost.start:.1f}")
        shown.add_row(name, *row, f"{cost.rate:.2f}", f"{cost.whole_rate:.2f}")
    console.print(shown)
    sizes = ", ".join(f"x{n}: {value:.0f}" for n, value in peak_mb.items())
    console.print(f"Peak MB of our process by size of the corpus: {sizes}")


def _figures(costs: dict[str, Cost], peak_mb: dict[int, float]) -> dict[str, Any]:
    rates = {name: cost.rate for name, cost in costs.items()}
    ours, dolma = rates["cuvee datatrove"], rates.get("dolma")
    times_dolma = max(1.0, *TIMES_DOLMA.values())
    return {
        "mb_per_cpu_s": rates,
        "mb_per_cpu_s_start_included": {name: cost.whole_rate for name, cost in costs.items()},
        "start_cpu_s": {name: cost.start for name, cost in costs.items()},
        "megabytes": {name: cost.megabytes for name, cost in costs.items()},
        "ratio_datatrove": ours / rates["datatrove"] if "datatrove" in rates else None,
        "ratio_dolma": ours / dolma if dolma else None,
        "ratio_best_other": ours / (times_dolma * dolma) if dolma else None,
        "ratio_best_other_paper": rates["cuvee paper"] / (times_dolma * dolma) if dolma else None,
        "peak_mb": peak_mb,
    }


def megabytes(texts: Sequence[str]) -> float:
    """UTF-8 megabytes."""
    return sum(len(text.encode()) for text in texts) / 1e6


def write_documents(folder: Path, texts: Sequence[str], n_copies: int = 1) -> Path:
    """One JSONL file below `folder`, with all texts `n_copies` times."""
    folder.mkdir(exist_ok=True)
    with (folder / "documents.jsonl").open("wb") as stream:
        for copy in range(n_copies):
            rows = ({"id": f"{copy}-{i}", "text": text, "source": "dev"} for i, text in enumerate(texts))
            stream.writelines(orjson.dumps(row) + b"\n" for row in rows)
    return folder


def write_recipe(
    scratch: Path, name: str, documents: Path, chain: Sequence[Any], reading: dict[str, Any] | None = None
) -> Path:
    """A recipe that curates the documents."""
    recipe = {
        "name": name,
        "inputs": [{"source": "dev", "path": str(documents / "*.jsonl")}],
        "reading": reading or {},
        "curate": list(chain),
    }
    path = scratch / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), "utf-8")
    return path


def fineweb_chain(profile: str) -> list[dict[str, Any]]:
    """FineWeb's filters in its order."""
    return [
        {"gopher_repetition": {"profile": profile}},
        {"gopher_quality": {"profile": profile}},
        {"c4": {"profile": profile, "require_terminal_punctuation": False}},
        {"fineweb": {"profile": profile}},
    ]


def curated(scratch: Path, profile: str, documents: Path) -> tuple[float, float]:
    """(CPU seconds, peak MB) of one worker that reads, filters and writes, in a process of its own."""
    run_dir = scratch / "run"
    recipe = write_recipe(scratch, profile, documents, fineweb_chain(profile))
    cpu, peak_mb = measured([sys.executable, "-m", "benchmarks.curate", recipe, run_dir, "1"])
    shutil.rmtree(run_dir)
    return cpu, float(peak_mb)


def _datatrove_command(documents: Path, scratch: Path) -> list[str | Path]:
    """datatrove's pipeline, dropped documents written too."""
    out = scratch / f"datatrove-{documents.name}"
    return [environment("datatrove"), PEER_SCRIPT, "chain", documents, out]


def _dolma_command(documents: Path, scratch: Path) -> list[str | Path]:
    """dolma's taggers for the same papers: all scores, nothing applied."""
    folder = scratch / f"dolma-{documents.name}" / "documents"
    folder.mkdir(parents=True)
    shutil.copy(documents / "documents.jsonl", folder)
    subprocess.run(["gzip", folder / "documents.jsonl"], check=True)
    dolma = environment("dolma").with_name("dolma")
    taggers = ["--taggers", "gopher_v2", "c4_v2", "--processes", "1"]
    return [dolma, "tag", "--documents", f"{folder}/*.gz", "--experiment", "e", *taggers]


PEER_COMMANDS = {"datatrove": _datatrove_command, "dolma": _dolma_command}

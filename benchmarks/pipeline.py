"""The pipeline on real text: speed and memory by stage, recall of deduplication, resuming, and both engines.

    python -m benchmarks.pipeline [--corpus FOLDER] [--quick] [--json]

FOLDER holds one folder a domain with `*.jsonl*` files (the project's development corpus by default). The last
line with --json is one JSON object; `stages` maps each step to megabytes of text per CPU-second and to the
process's peak resident memory while its stage ran.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import pyarrow.parquet as pq
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.dedup_truth import judge, true_pairs
from benchmarks.resume import Outcome, kill_and_resume
from cuvee.operators.base import ROW
from cuvee.pipeline.curation import Curation
from cuvee.pipeline.engines import LocalEngine
from cuvee.pipeline.outcome import read_timings
from cuvee.pipeline.plan import make_plan, tokenize_operator
from cuvee.pipeline.progress import Bar, RunProgress
from cuvee.pipeline.recipe import load_recipe
from cuvee.pipeline.run_directory import opened
from cuvee.pipeline.shard_work import number_rows, read_arrow
from cuvee.pipeline.tokenizing import tokenize_corpus

T = TypeVar("T")
CORPUS = Path(__file__).resolve().parents[2] / "shared" / "corpus" / "dev"
QUICK_DOMAINS = ("dialogue", "manuals", "wiki")
CURATE: list[Any] = [
    "language",
    {"gopher_quality": {"min_stop_words": 0}},
    "exact_dedup",
    "minhash_dedup",
    "pii",
]
RECALL_AT = 0.8
TINY = {
    "tokenize": {"vocab_size": 512, "max_training_bytes": 500_000},
    "mix": {
        "n_proxies": 4,
        "group_size": 2,
        "proxy": {"d_model": 16, "n_tokens": 8192, "sequence_length": 64},
    },
    "train": {"d_model": 16, "n_tokens": 8192, "sequence_length": 64, "n_evaluations": 2},
}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--quick", action="store_true", help="three domains, one kill for each engine")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    arguments = parser.parse_args()
    if not arguments.corpus.is_dir():
        sys.exit(f"{arguments.corpus} is not there; give a folder of one folder a domain with --corpus")
    domains = sorted(path.name for path in arguments.corpus.iterdir() if path.is_dir())
    domains = [domain for domain in domains if not arguments.quick or domain in QUICK_DOMAINS]
    console = Console(width=100)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tiny = write_recipe(
            folder / "tiny.yaml",
            arguments.corpus,
            domains[-2:],
            max_bytes=300_000 if arguments.quick else 10**6,
            **TINY,
        )
        speed = write_recipe(folder / "speed.yaml", arguments.corpus, domains, tokenize={"vocab_size": 4096})
        stages = in_own_process(measure_stages, tiny, speed, folder)
        show_stages(console, stages)
        recall = minhash_recall(folder / "speed")
        found = f"{recall['n_pairs']:,} pairs of documents with true 5-gram Jaccard >= {RECALL_AT}"
        missed = f"of {recall['n_both_kept']} both are kept: {recall['recall']:.4f}"
        console.print(f"\nMinHash: {found}, {missed}\n")
        resumed = kill_both_engines(tiny, 1 if arguments.quick else 10, folder)
        for engine, outcome in resumed.items():
            console.print(f"{engine}: killed {outcome.n_kills} times, {outcome}")
    if arguments.json:
        figures = {
            "stages": stages,
            "minhash_recall_080": recall["recall"],
            "minhash": recall,
            "resume_identical": resumed["local"].identical,
            # Killed or not, Ray's runs are compared with the local engine's undisturbed one.
            "engines_identical": resumed["ray"].identical,
            "n_kills": {engine: outcome.n_kills for engine, outcome in resumed.items()},
        }
        print(json.dumps(figures))


def kill_both_engines(recipe: Path, n_kills: int, folder: Path) -> dict[str, Outcome]:
    """What killing and resuming gives on each engine, beside one undisturbed run of the local one."""
    undisturbed = folder / "undisturbed"
    return {
        engine: kill_and_resume(
            recipe, engine, n_kills, seed=0, folder=folder / f"killed-{engine}", undisturbed=undisturbed
        )
        for engine in ("local", "ray")
    }


def in_own_process(function: Callable[..., T], *arguments: Any) -> T:
    """The result of a call in a fresh process, whose memory is the call's alone."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def write_recipe(
    path: Path,
    corpus: Path,
    domains: list[str] | tuple[str, ...],
    max_bytes: int | None = None,
    **sections: Any,
) -> Path:
    """A recipe over some domains of the corpus."""
    inputs = [
        {"source": domain, "path": str(corpus / domain / "*.jsonl*")}
        | ({"max_bytes": max_bytes} if max_bytes else {})
        for domain in domains
    ]
    path.write_text(yaml.safe_dump({"inputs": inputs, "curate": CURATE, **sections}), "utf-8")
    return path


class Meter(RunProgress):
    """A run's progress that notes each stage's CPU seconds and the process's peak resident memory in it."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True))
        self.peak_mb: dict[str, float] = {}
        self.cpu_seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str, total: int, n_done: int = 0, unit: str = "rows") -> Iterator[Bar]:
        """See `RunProgress.stage`."""
        process, over, peak = psutil.Process(), threading.Event(), [0]

        def watch() -> None:
            while not over.wait(0.01):
                peak[0] = max(peak[0], process.memory_info().rss)

        watcher, start = threading.Thread(target=watch), time.process_time()
        watcher.start()
        try:
            with super().stage(name, total, n_done, unit) as bar:
                yield bar
        finally:
            over.set()
            watcher.join()
            self.peak_mb[name.strip()] = round(peak[0] / 1e6, 1)
            self.cpu_seconds[name.strip()] = time.process_time() - start


def measure_stages(warm_up: Path, recipe: Path, folder: Path) -> dict[str, dict[str, float]]:
    """MB of text per CPU-second of each step and peak MB of its stage, on one worker with warm kernels."""
    curate(warm_up, folder / "warm-up")
    run_dir = folder / "speed"
    progress = curate(recipe, run_dir)
    seconds: dict[str, float] = defaultdict(float)
    n_bytes: dict[str, float] = defaultdict(float)
    stage_of: dict[str, str] = {}
    for line in read_timings(run_dir):
        for step, cpu in line["cpu_seconds"].items():
            name = f"{line['stage'][:2]} {step}"
            seconds[name] += cpu
            n_bytes[name] += line["bytes_in"]
            stage_of[name] = line["stage"][:2]
    # The tokenizer has threads of its own: its CPU time is the process's while the stage runs.
    title = next(title for title in progress.cpu_seconds if title.endswith(" tokenize"))
    seconds[title], stage_of[title] = progress.cpu_seconds[title], title[:2]
    n_bytes[title] = n_bytes["02 tokenize.observe"]
    return {
        name: {
            "mb_per_cpu_s": round(n_bytes[name] / 1e6 / seconds[name], 2),
            "peak_mb": next(mb for title, mb in progress.peak_mb.items() if title.startswith(stage_of[name])),
        }
        for name in sorted(seconds)
    }


def curate(recipe: Path, run_dir: Path) -> Meter:
    """Curate and tokenize on one worker."""
    loaded, progress = load_recipe(recipe), Meter()
    with opened(run_dir):
        plan = make_plan(loaded, run_dir)
        curation = Curation(plan, loaded.recipe, run_dir, LocalEngine(1), progress)
        curation.run()
        operator = tokenize_operator(loaded.recipe)
        assert operator is not None
        tokenize_corpus(curation, operator)
    return progress


def show_stages(console: Console, stages: dict[str, dict[str, float]]) -> None:
    """The speeds as a table."""
    table = Table("stage", "step", "MB per CPU-s", "peak MB of the stage", box=None, header_style="bold")
    for name, figures in stages.items():
        table.add_row(*name.split(" ", 1), f"{figures['mb_per_cpu_s']:,.1f}", f"{figures['peak_mb']:,.0f}")
    console.print(table)


def minhash_recall(run_dir: Path) -> dict[str, float]:
    """How the removals of the run's `minhash_dedup` stand to every true pair of the documents it saw."""
    (stage,) = run_dir.glob("stages/01-*")
    parts = sorted(stage.glob("part-*.parquet"))
    tables = [number_rows(pq.read_table(part, columns=["text"]), index) for index, part in enumerate(parts)]
    state = read_arrow(stage / "fit" / "state.arrow")
    removed = state.filter(state["rank"].to_numpy() > 0)["row"].to_numpy()
    kept = ~np.isin(np.concatenate([table[ROW].to_numpy() for table in tables]), removed)
    pairs = true_pairs([text for table in tables for text in table["text"].to_pylist()])
    return judge(pairs, kept, RECALL_AT)


if __name__ == "__main__":
    main()

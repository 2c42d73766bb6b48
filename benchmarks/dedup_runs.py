"""Runs of cuvee and of its peers as processes of their own, and tables of what they took."""

import os
import resource
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = {
    "cuvee": ["--editable", str(ROOT)],  # without what tests and development need
    "light": ["rensa", "datasketch>=2"],
    "datatrove": ["datatrove[io,processing]", "spacy"],
    "text-dedup": ["text-dedup==0.4.0"],
}
PEERS = {"rensa": "light", "datasketch": "light", "datatrove": "datatrove", "text-dedup": "text-dedup"}


def measured(command: Sequence[str | Path]) -> tuple[float, str]:
    """(CPU seconds, last line printed) of a command and its children.

    Raises:
        SystemExit: the command failed; with the end of what it said.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # An installed package has its bytecode; one that runs from its sources must be let keep it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=ROOT, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{(done.stdout + done.stderr)[-2000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, done.stdout.strip().rpartition("\n")[2]


def python_of(environment: str) -> Path:
    """The interpreter of an environment, made if it is not there."""
    folder = ROOT / "build" / "peers" / environment
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *ENVIRONMENTS[environment]], check=True)
        (folder / "installed").touch()
    return python


def curated(path: Path, run_dir: Path, n_workers: int = 1, **parameters: Any) -> tuple[Path, float, float]:
    """(run directory, CPU seconds, peak MB) of curating JSONL with `minhash_dedup` alone."""
    recipe = run_dir.with_suffix(".yaml")
    entry = {
        "inputs": [{"source": "corpus", "path": str(path)}],
        "curate": [{"minhash_dedup": parameters}],
    }
    recipe.write_text(yaml.safe_dump(entry), "utf-8")
    command = [python_of("cuvee"), "-m", "benchmarks.curate", recipe, run_dir, str(n_workers)]
    cpu, peak_mb = measured(command)
    return run_dir, cpu, float(peak_mb)


def show(console: Console, title: str, lines: Sequence[dict[str, Any]]) -> None:
    """Dictionaries of the same keys as a table."""
    table = Table(*lines[0], title=f"\n{title}", title_justify="left", box=None, header_style="bold")
    for line in lines:
        table.add_row(*(value if isinstance(value, str) else f"{value:,}" for value in line.values()))
    console.print(table)

"""A run killed with SIGKILL at random moments and started again ends with the bytes of an undisturbed one.

python -m benchmarks.resume RECIPE [--engine ray] [--kills 10] [--seed 0]
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

CONTENTS = ("plan.json", "stages/**/*", "tokens/**/*", "mix/**/*", "train/**/*")
"""What a run leaves that is a function of its recipe and inputs alone."""
FINISHED = (
    "stages/*/part-*.parquet",
    "stages/*/fit/state.arrow",
    "mix/proxies/*.parquet",
    "train/runs/*.parquet",
)
"""Files whose existence says that a unit of work is done."""
Process = subprocess.Popen[str]
SECONDS_TO_DIE = 20.0
SECONDS_TO_END = 600.0


@dataclass(frozen=True)
class Outcome:
    """What killing and resuming did.

    Attributes:
        identical: the same files with the same bytes as of the undisturbed run.
        differing: files that are missing, too many, or differ.
        redone: files of finished work that a later start wrote again.
        leftovers: half-written files at the end.
        n_orphans: processes that outlived their killed run by `SECONDS_TO_DIE`.
        n_kept: files of finished work that kills left and the following starts took over.
    """

    engine: str
    n_kills: int
    identical: bool
    differing: tuple[str, ...]
    redone: tuple[str, ...]
    leftovers: tuple[str, ...]
    n_orphans: int
    n_kept: int

    def __str__(self) -> str:
        faults = [
            f"{len(found)} files {name}, the first {found[0]}"
            for name, found in (
                ("differ", self.differing),
                ("redone", self.redone),
                ("left half-written", self.leftovers),
            )
            if found
        ]
        faults += [f"{self.n_orphans} processes left behind"] if self.n_orphans else []
        what = "the same bytes as undisturbed" if self.identical else "other bytes than undisturbed"
        return f"{what}; {self.n_kept} finished units taken over; " + ("; ".join(faults) or "nothing redone")


def kill_and_resume(
    recipe: Path,
    engine: str,
    n_kills: int,
    seed: int,
    *,
    folder: Path,
    undisturbed: Path,
    n_workers: int = 2,
) -> Outcome:
    """Run `recipe` in `folder`, kill it `n_kills` times and compare what it ends with.

    A run that ends before all its kills are spent is compared too, and another begins from nothing.

    Args:
        undisturbed: the run directory to compare with; where there is none, one is made by the same engine.
    Raises:
        RuntimeError: a run fails instead of ending.
    """
    script = str(Path(sys.executable).with_name("cuvee"))
    command = [script, "run", str(recipe), "--engine", engine, "--workers", str(n_workers), "--run-dir"]
    start_seconds, run_seconds = 4.0, 20.0
    if not (undisturbed / "plan.json").exists():
        start_seconds, run_seconds = _timed(command, undisturbed)
    draw, done = random.Random(seed), 0
    n_orphans = n_kept = n_runs = 0
    differing: set[str] = set()
    redone: set[str] = set()
    leftovers: set[str] = set()
    while done < n_kills or not n_runs:
        run_dir = folder / f"{n_runs}"
        n_runs += 1
        finished: dict[Path, tuple[int, int]] = {}
        plan: tuple[int, int] | None = None
        process = _start(command, run_dir)
        while done < n_kills:
            # Counted from the plan: a kill that only ever hits imports would prove nothing.
            delay = draw.uniform(0, 2 * (run_seconds - start_seconds) / (n_kills + 1))
            if not (_plans(process, run_dir, plan) and _outlasts(process, delay)):
                break
            n_orphans += _kill(process)
            done += 1
            finished, plan = _finished(run_dir), _stat(run_dir / "plan.json")
            n_kept += len(finished)
            process = _start(command, run_dir)
            # What is there now must be there untouched at the next look.
            redone |= {str(path) for path, stat in finished.items() if _stat(path) != stat}
        _end(process, run_dir)
        redone |= {str(path) for path, stat in finished.items() if _stat(path) != stat}
        differing |= set(differences(undisturbed, run_dir))
        leftovers |= {str(path) for path in run_dir.rglob(".*.tmp")}
    return Outcome(
        engine,
        done,
        not differing,
        tuple(sorted(differing)),
        tuple(sorted(redone)),
        tuple(sorted(leftovers)),
        n_orphans,
        n_kept,
    )


def same_bytes(one: Path, other: Path) -> bool:
    """Whether two run directories hold the same files with the same bytes."""
    return not differences(one, other)


def differences(one: Path, other: Path) -> list[str]:
    """The files that only one of two run directories holds, or that differ."""
    names = [{path.relative_to(root) for path in _contents(root)} for root in (one, other)]
    differing = names[0] ^ names[1]
    differing |= {name for name in names[0] & names[1] if not _same(one / name, other / name)}
    return sorted(map(str, differing))


def _contents(run_dir: Path) -> list[Path]:
    return [path for pattern in CONTENTS for path in run_dir.glob(pattern) if path.is_file()]


def _same(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


def _finished(run_dir: Path) -> dict[Path, tuple[int, int]]:
    return {path: _stat(path) for pattern in FINISHED for path in run_dir.glob(pattern)}


def _stat(path: Path) -> tuple[int, int]:
    """What changes when a file is written again: its inode and its time."""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def _start(command: list[str], run_dir: Path) -> Process:
    run_dir.parent.mkdir(parents=True, exist_ok=True)
    log = (run_dir.parent / f"{run_dir.name}.log").open("w")
    with log:
        return subprocess.Popen(
            [*command, str(run_dir)], stdout=log, stderr=log, text=True, start_new_session=True
        )


def _timed(command: list[str], run_dir: Path) -> tuple[float, float]:
    """Run to the end; the seconds until the plan stood, and all of them."""
    begin = time.monotonic()
    process = _start(command, run_dir)
    while process.poll() is None and not (run_dir / "plan.json").exists():
        time.sleep(0.02)
    until_plan = time.monotonic() - begin
    _end(process, run_dir)
    return until_plan, time.monotonic() - begin


def _plans(process: Process, run_dir: Path, before: tuple[int, int] | None) -> bool:
    """Wait until the run has written its plan anew; False if it ends first."""
    plan = run_dir / "plan.json"
    while process.poll() is None:
        if plan.exists() and _stat(plan) != before:
            return True
        time.sleep(0.02)
    return False


def _outlasts(process: Process, seconds: float) -> bool:
    """Wait so long; whether the run still goes on then."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return True
    return False


def _end(process: Process, run_dir: Path) -> None:
    if process.wait(SECONDS_TO_END) != 0:
        log = Path(f"{run_dir}.log").read_text("utf-8")
        raise RuntimeError(f"cuvee ended with {process.returncode}: {log[-2000:]}")


def _kill(process: Process) -> int:
    """SIGKILL to the run's own process alone; the number of its children that do not end by themselves.

    Two agents of Ray do nothing of ours and end by themselves after a minute: nobody waits for them.
    """
    found = psutil.Process(process.pid).children(recursive=True)
    children = [child for child in found if not _is_rays_agent(child)]
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, SECONDS_TO_DIE)
    for child in alive:
        child.kill()
    return len(alive)


def _is_rays_agent(process: psutil.Process) -> bool:
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return "/agent" in command or "Agent" in command


def main() -> None:
    """Print what killing a recipe's run did."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--engine", choices=("local", "ray"), default="local")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        outcome = kill_and_resume(
            arguments.recipe,
            arguments.engine,
            arguments.kills,
            arguments.seed,
            folder=Path(scratch, "killed"),
            undisturbed=Path(scratch, "undisturbed"),
        )
    print(f"killed {outcome.n_kills} times: {outcome}")
    print(json.dumps(asdict(outcome)))


if __name__ == "__main__":
    main()

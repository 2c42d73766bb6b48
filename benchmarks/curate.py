"""The curation stages of a recipe, as a process of its own: its CPU seconds and memory are theirs alone.

It prints its peak resident memory in MB.

python -m benchmarks.curate RECIPE RUN_DIR N_WORKERS
"""

import sys
from pathlib import Path

from rich.console import Console

from cuvee.pipeline.curation import Curation
from cuvee.pipeline.engines import LocalEngine
from cuvee.pipeline.plan import make_plan
from cuvee.pipeline.progress import RunProgress
from cuvee.pipeline.recipe import load_recipe


def main(recipe: Path, run_dir: Path, n_workers: int) -> None:
    """Run the stages."""
    loaded = load_recipe(recipe)
    progress = RunProgress(Console(quiet=True))
    Curation(make_plan(loaded, run_dir), loaded.recipe, run_dir, LocalEngine(n_workers), progress).run()
    # Not ru_maxrss, which counts the parent's memory at the fork.
    (peak,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    print(int(peak.split()[1]) * 1024 / 1e6)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))

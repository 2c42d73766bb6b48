"""A search over two model sizes on RegMix's published runs: every strategy picks among the same mixtures.

    OMP_NUM_THREADS=1 python -m benchmarks.mixers_replay [--tables FOLDER] [--quick]

The 256 mixtures that were trained at 1M and at 60M parameters; a run at 60M costs as much as sixty at 1M. A
strategy ends with one mixture, whose loss at 60M is looked up. Its regret is a share of the gain from the
average mixture to the best: 0 is the best of the 256, 1 is a mixture drawn blindly. One JSON line for each
objective and budget, on stderr a line for each seed.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from benchmarks.mixers_regret import compared, improvement
from cuvee.mixing import Fidelity, RunTable, Search, SearchArguments
from cuvee.mixing.gaussian_process import GaussianProcessMixer
from cuvee.mixing.regression import RegMixMixer

Floats = NDArray[np.float64]

TABLES = Path(__file__).resolve().parents[2] / "shared" / "tables" / "regmix"
PILE_CC = "metric/the_pile_pile_cc_val_loss"
SIZES = {"1m": Fidelity(1_000_000, 10**9), "60m": Fidelity(60_000_000, 10**9)}
COSTS = (1 / 60, 1.0)
BUDGETS = (2.0, 6.0)  # runs at 60M, or their cost; with 4.3 all mixtures run at 1M
N_FIRST = 4  # runs before expected improvement has a model
N_PARALLEL = 8
N_SEEDS = 20


@dataclass(frozen=True, eq=False)
class Published:
    """The runs of one objective.

    Attributes:
        weights: float64, (n, K).
        losses: float64, (n, 2), at 1M and at 60M.
        natural: float64, (K,), the Pile's own mixture, which is none of them.
    """

    weights: Floats
    losses: Floats
    natural: Floats

    def regret(self, chosen: int) -> float:
        """Share of the gain from the average mixture to the best at 60M that is missed."""
        target = self.losses[:, 1]
        return float((target[chosen] - target.min()) / (target.mean() - target.min()))

    def table(self, rows: NDArray[np.int64], size: int) -> RunTable:
        names = tuple(map(str, range(self.weights.shape[1])))
        return RunTable(self.weights[rows], names, self.losses[rows, size : size + 1], ("loss",))


Strategy = Callable[[Published, int], int]  # runs, seed -> the row it ends with


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, default=TABLES)
    parser.add_argument("--quick", action="store_true", help="3 seeds")
    arguments = parser.parse_args()
    if not arguments.tables.is_dir():
        sys.exit(f"{arguments.tables} is not there; give the folder of RegMix's tables with --tables")
    for budget in BUDGETS:
        start = time.process_time()
        for case, found in replay(arguments.tables, arguments.quick, (budget,)):
            seconds = round(time.process_time() - start, 1)
            print(json.dumps({case: found, "cpu_seconds": seconds}), flush=True)


def replay(
    folder: Path, quick: bool = False, budgets: Sequence[float] = BUDGETS
) -> Iterator[tuple[str, dict[str, Any]]]:
    """By case, regret of each strategy with its 95 % interval, and how often the search beats it."""
    for budget, objective in product(budgets, ("pile_cc", "mean")):
        runs, rows = read_published(folder, objective), []
        case, strategies = f"{objective}_for_{budget:g}", _strategies(budget)
        for seed in range(3 if quick else N_SEEDS):
            rows.append({name: runs.regret(pick(runs, seed)) for name, pick in strategies.items()})
            shown = ", ".join(f"{name} {value:.3f}" for name, value in rows[-1].items())
            print(f"{case}, seed {seed}: {shown}", file=sys.stderr, flush=True)
        yield case, compared(rows)


def _strategies(budget: float) -> dict[str, Strategy]:
    """Those of equal cost: expected improvement begins with four runs at 60M."""
    n_cheap, n_target = round(budget / COSTS[0]), int(budget)
    found: dict[str, Strategy] = {
        "random": partial(_random, n=n_target),
        "best_at_1m": partial(_best_at_1m, n=n_cheap),
        "regmix": partial(_regmix, n=n_cheap),
    }
    if n_target > N_FIRST:
        found["expected_improvement"] = partial(_expected_improvement, n=n_target)
    return {**found, "search": partial(_search, budget=budget)}


def read_published(folder: Path, objective: str) -> Published:
    """The test mixtures of RegMix's tables, with Pile-CC's loss or the mean over the domains."""
    tables = [
        RunTable.from_csv(
            folder / f"test_mixture_{size}.csv", folder / f"test_pile_loss_{size}.csv", on="index"
        )
        for size in SIZES
    ]
    assert np.array_equal(tables[0].weights, tables[1].weights)
    column = tables[0].metric_names.index(PILE_CC)
    losses = [t.metrics[:, column] if objective == "pile_cc" else t.metrics.mean(axis=1) for t in tables]
    given = yaml.safe_load((folder / "config_1b_human.yaml").read_text("utf-8"))["train"]
    natural = np.array([given[domain] for domain in tables[0].domain_names])
    return Published(tables[0].weights, np.stack(losses, axis=1), natural / natural.sum())


def _drawn(runs: Published, seed: int, n: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).permutation(len(runs.weights))[:n]


def _random(runs: Published, seed: int, n: int) -> int:
    """The best of n runs at 60M."""
    rows = _drawn(runs, seed, n)
    return int(rows[np.argmin(runs.losses[rows, 1])])


def _best_at_1m(runs: Published, seed: int, n: int) -> int:
    """The best of n runs at 1M."""
    rows = _drawn(runs, seed, n)
    return int(rows[np.argmin(runs.losses[rows, 0])])


def _regmix(runs: Published, seed: int, n: int) -> int:
    """Boosted trees on n runs at 1M, and the mixture of all 256 for which they expect least."""
    rows = _drawn(runs, seed, n)
    trees = RegMixMixer(seed=seed).fit_surface(runs.weights[rows], runs.losses[rows, :1])
    return int(np.argmin(trees(runs.weights)[:, 0]))


def _expected_improvement(runs: Published, seed: int, n: int) -> int:
    """n runs at 60M alone: four drawn ones, then one after another by a process of constant noise."""
    rows = _drawn(runs, seed, N_FIRST)
    while len(rows) < n:
        process = GaussianProcessMixer(noise="constant", floor="none", n_threads=1).fit(runs.table(rows, 1))
        values = improvement(process, runs.weights, runs.losses[rows, 1].min())
        values[rows] = -1.0
        rows = np.append(rows, np.argmax(values))
    return int(rows[np.argmin(runs.losses[rows, 1])])


def _search(runs: Published, seed: int, budget: float) -> int:
    """Ours over both sizes, 8 runs at a time, with the published mixtures as the only ones that may run."""
    numbers = {tuple(w): i for i, w in enumerate(runs.weights.tolist())}
    search = Search(
        SearchArguments(
            domain_names=tuple(map(str, range(runs.weights.shape[1]))),
            natural=tuple(runs.natural.tolist()),
            fidelities=tuple(SIZES.values()),
            budget=budget,
            costs=COSTS,
            trust_region=1e3,
            n_replicates=1,
            seed=seed,
            mixtures=tuple(numbers),
        )
    )
    while not search.is_finished:
        while len(search.pending) < N_PARALLEL and search.ask() is not None:
            pass
        for trial in search.pending:
            search.tell(trial.number, {"loss": runs.losses[numbers[trial.weights], trial.rung]})
    return numbers[tuple(search.recommend().candidate.values())]


if __name__ == "__main__":
    main()

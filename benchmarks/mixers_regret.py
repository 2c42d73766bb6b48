"""Search strategies at equal cost on surfaces of known optimum: what they leave of the possible gain.

    OMP_NUM_THREADS=1 python -m benchmarks.mixers_regret [--quick] [--first-seed 100] [--case NAME ...]

One JSON line for each case, as soon as it is done; on stderr a line for each surface. Seeds from 0 are those
that are reported; tune on others.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from benchmarks.synthetic import TRUST_REGION, SyntheticSurface
from cuvee.mixing import Fidelity, MultiFidelityMixer, RunTable, Search, SearchArguments, recommend
from cuvee.mixing.design import sample_design
from cuvee.mixing.gaussian_process import GaussianProcessMixer
from cuvee.mixing.regression import RegMixMixer

Floats = NDArray[np.float64]
Strategy = Callable[[SyntheticSurface, int], Floats]  # surface, seed -> the mixture it ends with

CASES = {  # domains, fidelities
    "one_fidelity_5_domains": (5, 1),
    "three_fidelities_16_domains": (16, 3),
    "one_fidelity_40_domains": (40, 1),
}
N_RUNS = 24  # at the target, or their cost
COSTS = (0.05, 0.25, 1.0)  # of the three fidelities
BUDGET = 8.0  # of the search over fidelities, in runs at the target
N_SEEDS = 20
N_BOOTSTRAP = 2000
N_TOP, N_SAMPLES = 128, 20_000  # RegMix averages the best 128 of its samples


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="3 seeds")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    arguments = parser.parse_args()
    for case in arguments.case:
        start = time.process_time()
        found = regret(arguments.quick, arguments.first_seed, (case,))
        print(json.dumps({**found, "cpu_seconds": round(time.process_time() - start, 1)}), flush=True)


def regret(quick: bool = False, first_seed: int = 0, cases: Sequence[str] = tuple(CASES)) -> dict[str, Any]:
    """Mean regret of each strategy, its 95 % interval, and how often a search beats it, seed by seed."""
    found = {}
    for case in cases:
        n_domains, n_fidelities = CASES[case]
        strategies = _strategies(N_RUNS) if n_fidelities == 1 else _fidelity_strategies()
        seeds = range(first_seed, first_seed + (3 if quick else N_SEEDS))
        surfaces = [SyntheticSurface(n_domains, seed, n_fidelities) for seed in seeds]
        found[case] = _compare(surfaces, strategies)
    return found


def _strategies(n_runs: int) -> dict[str, Strategy]:
    return {
        "random": partial(_random, n_runs=n_runs),
        "surrogate_of_random": partial(_surrogate_of_random, n_runs=n_runs),
        "regmix": partial(_regmix, n_runs=n_runs, fidelity=0),
        "expected_improvement": partial(_expected_improvement, n_runs=n_runs),
        "search": partial(_search, costs=(1.0,), budget=float(n_runs), n_parallel=1),
        "search_parallel_4": partial(_search, costs=(1.0,), budget=float(n_runs), n_parallel=4),
    }


def _fidelity_strategies() -> dict[str, Strategy]:
    n_target, n_cheap = int(BUDGET), round(BUDGET / COSTS[0])
    return {
        "random": partial(_random, n_runs=n_target),
        "regmix_at_target": partial(_regmix, n_runs=n_target, fidelity=2),
        "regmix_cheapest": partial(_regmix, n_runs=n_cheap, fidelity=0),
        "expected_improvement": partial(_expected_improvement, n_runs=n_target),
        "search_parallel_4": partial(_search, costs=COSTS, budget=BUDGET, n_parallel=4),
    }


def _compare(surfaces: list[SyntheticSurface], strategies: dict[str, Strategy]) -> dict[str, Any]:
    rows = []
    for surface in surfaces:
        rows.append({name: surface.regret(run(surface, surface.seed)) for name, run in strategies.items()})
        shown = ", ".join(f"{name} {value:.3f}" for name, value in rows[-1].items())
        print(f"{surface.n_domains} domains, seed {surface.seed}: {shown}", file=sys.stderr, flush=True)
    return compared(rows)


def compared(rows: list[dict[str, float]]) -> dict[str, Any]:
    """Of regrets by strategy, one row a seed: mean, interval, median, and how often a search is better."""
    regrets = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    searches = [name for name in regrets if name.startswith("search")]
    return {
        name: {
            "mean": float(values.mean()),
            "interval": _interval(values),
            "median": float(np.median(values)),
            **{f"{ours}_is_better": float(np.mean(regrets[ours] < values)) for ours in searches},
        }
        for name, values in regrets.items()
    }


def _interval(values: Floats) -> list[float]:
    """Of the mean, 95 %, by bootstrap over seeds."""
    rows = np.random.default_rng(0).integers(len(values), size=(N_BOOTSTRAP, len(values)))
    return [float(q) for q in np.quantile(values[rows].mean(axis=1), [0.025, 0.975])]


def _runs(surface: SyntheticSurface, weights: Floats, fidelity: int | None, seed: int) -> Floats:
    """The mean loss of a run on each mixture: (n,)."""
    return np.array([surface.run(w, fidelity, 1000 * seed + i).mean() for i, w in enumerate(weights)])


def _design(surface: SyntheticSurface, n: int, seed: int) -> Floats:
    return surface.region.pull_all(sample_design(surface.natural, n, seed))


def _random(surface: SyntheticSurface, seed: int, n_runs: int) -> Floats:
    """The best run of a random design."""
    weights = _design(surface, n_runs, seed)
    return np.asarray(weights[np.argmin(_runs(surface, weights, None, seed))])


def _surrogate_of_random(surface: SyntheticSurface, seed: int, n_runs: int) -> Floats:
    """What our surrogate recommends after the same design: the search without its proposals."""
    weights = _design(surface, n_runs, seed)
    losses = np.array([surface.run(w, None, 1000 * seed + i) for i, w in enumerate(weights)])
    names = tuple(map(str, range(surface.n_domains)))
    runs = RunTable(weights, names, losses, tuple("abc"), seed=np.arange(n_runs))
    mixer = MultiFidelityMixer(n_threads=1).fit(runs)
    found = recommend(mixer, surface.natural, trust_region=TRUST_REGION, seed=seed)
    return np.array(list(found.candidate.values()))


def _regmix(surface: SyntheticSurface, seed: int, n_runs: int, fidelity: int) -> Floats:
    """One design, boosted trees, the average of the best 128 of 20,000 random mixtures."""
    weights = _design(surface, n_runs, seed)
    losses = _runs(surface, weights, fidelity, seed)
    trees = RegMixMixer(seed=seed).fit_surface(weights, losses[:, None])
    drawn = np.random.default_rng(seed).dirichlet(surface.n_domains * surface.natural, N_SAMPLES)
    top = drawn[np.argsort(trees(drawn)[:, 0], kind="stable")[:N_TOP]]
    return surface.region.pull(top.mean(axis=0))


def _expected_improvement(surface: SyntheticSurface, seed: int, n_runs: int) -> Floats:
    """One run after another where a process of constant noise expects most over the best observed loss.

    A quarter of the runs are random, as many candidates as for RegMix, and the best run is what it ends with.
    """
    weights = _design(surface, max(4, n_runs // 4), seed)
    losses = _runs(surface, weights, None, seed)
    names = tuple(map(str, range(surface.n_domains)))
    rng = np.random.default_rng(seed)
    for i in range(len(weights), n_runs):
        runs = RunTable(weights, names, losses[:, None], ("loss",), seed=np.arange(i))
        process = GaussianProcessMixer(noise="constant", floor="none", n_threads=1).fit(runs)
        drawn = rng.dirichlet(surface.n_domains * surface.natural, 1000)
        candidates = surface.region.pull_all(drawn)
        chosen = candidates[np.argmax(improvement(process, candidates, losses.min()))]
        weights = np.vstack([weights, chosen])
        losses = np.append(losses, surface.run(chosen, None, 1000 * seed + i).mean())
    return np.asarray(weights[np.argmin(losses)])


def improvement(process: GaussianProcessMixer, candidates: Floats, best: float) -> Floats:
    """Expected improvement of a run on each candidate over the best observed loss, (M,)."""
    predicted = process.predict(candidates)
    mean, std = predicted.mean[:, 0], predicted.std[:, 0]
    z = (best - mean) / std
    return np.asarray(std * (z * norm.cdf(z) + norm.pdf(z)))


def _search(
    surface: SyntheticSurface,
    seed: int,
    costs: tuple[float, ...],
    budget: float,
    n_parallel: int,
) -> Floats:
    """Ours, n_parallel runs at a time: the next ones are asked for when all of these are done."""
    arguments = SearchArguments(
        domain_names=tuple(map(str, range(surface.n_domains))),
        natural=tuple(surface.natural.tolist()),
        fidelities=tuple(Fidelity(1, 1 + i) for i in range(len(costs))),
        budget=budget,
        costs=costs,
        trust_region=TRUST_REGION,
        seed=seed,
    )
    search = Search(arguments)
    while not search.is_finished:
        while len(search.pending) < n_parallel and search.ask() is not None:
            pass
        for trial in search.pending:
            seen = surface.run(np.array(trial.weights), trial.rung, 1000 * seed + trial.number)
            search.tell(trial.number, dict(zip("abc", seen.tolist(), strict=True)))
    return np.array(list(search.recommend().candidate.values()))


if __name__ == "__main__":
    main()

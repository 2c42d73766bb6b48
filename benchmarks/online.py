"""How well online policies do where the truth is known: simulated domains whose losses follow power laws.

    python -m benchmarks.online [--parts simulation feedback training] [--policies NAME ...] [--jobs 1]
        [--quick] [--json]

simulation: a domain's loss after n of its tokens is E + A (1 + n / n0)**-alpha, and reports add noise. A
policy spends the run's tokens; what counts is the prior's mean of the domains' losses at the end, without
noise. Regret is over the best fixed mixture, which is found with the truth at hand; in percent of the loss.
Seeds begin at FIRST_SEED: the default's `pull`, and how it takes slopes that are uncertain, were chosen on
worlds of the first ten, which are left out.

feedback: CPU time of an update of each policy; of `loader.feedback`, and of the policy's part in asking for
the next batch, with a report every 20 steps (the default) and every step; 64 domains.

training: a tiny transformer on the dev corpus, equal tokens, five seeds, with a mixture that is fixed or
follows its losses. Held-out loss by the natural weights of the domains, and all domains alike; the
differences to the natural mixture are paired by seed.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy: CPU seconds are those of one core

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from cuvee.streaming.online import OnlineMixing  # noqa: E402
from cuvee.streaming.policies import Ado, MirrorDescent, Policy  # noqa: E402
from cuvee.streaming.published_policies import Aioli, Exp3S, GroupDro, Odm, SkillIt  # noqa: E402

from .online_feedback import microseconds_of_feedback, microseconds_of_update  # noqa: E402
from .online_training import CORPUS, ROOT, Corpus, Setting, interval, objectives, prepare, train  # noqa: E402

Floats = NDArray[np.float64]
T = TypeVar("T")
PARTS = ("simulation", "feedback", "training")
N_DOMAINS, N_REPORTS, TOKENS_OF_REPORT = 8, 600, 1e6
FIRST_SEED = 2000
SCENARIOS = ("stationary", "irreducible_noise", "saturating", "drifting", "noisy_learnable")


@dataclass(frozen=True)
class World:
    """Domains whose losses are known."""

    prior: Floats  # (n_domains,)
    level: Floats  # E, nats
    scale: Floats  # A, nats
    alpha: Floats
    noise: Floats  # standard deviation of a report with 1 / n_domains of the tokens
    restart: NDArray[np.int64]  # the report at which a domain becomes new; 0: never

    def losses(self, n_tokens: Floats) -> Floats:
        """(n_domains,), after so many tokens of each."""
        found: Floats = self.level + self.scale * (1 + n_tokens / (TOKENS_OF_REPORT / 2)) ** -self.alpha
        return found

    def objective(self, n_tokens: Floats) -> float:
        return float(self.prior @ self.losses(n_tokens))

    def of_fixed(self, weights: Floats) -> float:
        """The objective at the end when the weights never change."""
        return self.objective(weights * TOKENS_OF_REPORT * (N_REPORTS - self.restart))

    def best_fixed(self) -> float:
        """The least objective of any fixed mixture: convex, so descent by the gradient's ratios finds it."""
        weights = self.prior.copy()
        left = TOKENS_OF_REPORT * (N_REPORTS - self.restart)
        for _ in range(4000):
            n = 1 + weights * left / (TOKENS_OF_REPORT / 2)
            gain = self.prior * self.scale * self.alpha * n ** -(self.alpha + 1) * left
            weights = weights * (gain / (weights @ gain)) ** 0.2
            weights /= weights.sum()
        return self.of_fixed(weights)


def world(scenario: str, seed: int) -> World:
    """One world of a scenario."""
    rng = np.random.default_rng([SCENARIOS.index(scenario), seed])
    prior = rng.dirichlet(np.full(N_DOMAINS, 2.0)) * 0.9 + 0.1 / N_DOMAINS
    level, scale = rng.uniform(1, 2.5, N_DOMAINS), rng.uniform(2, 6, N_DOMAINS)
    alpha, noise = rng.uniform(0.15, 0.45, N_DOMAINS), np.full(N_DOMAINS, 0.03)
    restart = np.zeros(N_DOMAINS, np.int64)
    if scenario == "irreducible_noise":
        # A fifth of the data is noise: its loss is the highest, jumps, and cannot be lowered.
        prior = np.concatenate([[0.2], 0.8 * prior[1:] / prior[1:].sum()])
        level[0], scale[0], noise[0] = 7.0, 0.0, 0.2
    elif scenario == "noisy_learnable":
        # Its reports jump as noise's do, and it is worth its tokens to the end.
        prior = np.concatenate([[0.25], 0.75 * prior[1:] / prior[1:].sum()])
        scale[0], alpha[0], noise[0] = 5.0, 0.3, 0.3
    elif scenario == "saturating":
        level[:3], scale[:3], alpha[:3] = level[:3] + 1, 3.0, 2.0
    elif scenario == "drifting":
        restart[:2] = N_REPORTS // 2
    return World(prior, level, scale, alpha, noise, restart)


def policies(of: World) -> dict[str, Callable[[], Policy]]:
    """Every policy, new; those that need a reference model's losses get the truth of a longer run."""
    reference = of.losses(of.prior * TOKENS_OF_REPORT * N_REPORTS)
    return {
        "mirror_descent (default)": lambda: MirrorDescent(of.prior),
        "mirror_descent, loss": lambda: MirrorDescent(of.prior, reward="loss"),
        "mirror_descent, excess": lambda: MirrorDescent(of.prior, reward="excess", reference=reference),
        "ado": lambda: Ado(of.prior),
        "odm, paper": lambda: Odm(of.prior, form="paper", warm_up=6),
        "odm, released": lambda: Odm(of.prior, form="released", warm_up=6),
        "exp3s": lambda: Exp3S(of.prior),
        "group_dro": lambda: GroupDro(of.prior, reference),
        "skill_it": lambda: SkillIt(of.prior, np.eye(N_DOMAINS)),
        "aioli": lambda: Aioli(of.prior),
    }


def run(of: World, policy: Policy | Floats, seed: int) -> tuple[float, Floats]:
    """The objective at the end, and the shares of all tokens."""
    rng = np.random.default_rng([99, seed])
    n_tokens, spent = np.zeros(N_DOMAINS), np.zeros(N_DOMAINS)
    for report in range(N_REPORTS):
        n_tokens[(of.restart == report) & (report > 0)] = 0
        weights = policy.weights if isinstance(policy, Policy) else policy
        tokens = weights * TOKENS_OF_REPORT
        n_tokens, spent = n_tokens + tokens, spent + tokens
        error = of.noise / np.sqrt(np.maximum(weights * N_DOMAINS, 1e-3)) * rng.normal(size=N_DOMAINS)
        if isinstance(policy, Policy):
            policy.observe(of.losses(n_tokens - tokens / 2) + error, tokens)
    return of.objective(n_tokens), spent / spent.sum()


def simulate(
    n_seeds: int, jobs: int, only: Sequence[str]
) -> tuple[dict[str, dict[str, list[float]]], dict[str, float]]:
    """Regrets in percent, by policy and scenario; and the share of tokens that went to the noise domain."""
    worlds = [(scenario, seed) for scenario in SCENARIOS for seed in range(FIRST_SEED, FIRST_SEED + n_seeds)]
    regrets: dict[str, dict[str, list[float]]] = {}
    to_noise: dict[str, list[float]] = {}
    for (scenario, _), found in zip(worlds, _mapped(partial(_of_world, only), worlds, jobs), strict=True):
        for name, (regret, share) in found.items():
            regrets.setdefault(name, {}).setdefault(scenario, []).append(regret)
            if scenario == "irreducible_noise":
                to_noise.setdefault(name, []).append(share)
    return regrets, {name: float(np.mean(shares)) for name, shares in to_noise.items()}


def _of_world(only: Sequence[str], scenario: str, seed: int) -> dict[str, tuple[float, float]]:
    """By policy: regret in percent, and the share of the first domain, in one world."""
    truth = world(scenario, seed)
    best = truth.best_fixed()
    runs: dict[str, Policy | Floats] = {"prior": truth.prior, "uniform": np.full(N_DOMAINS, 1 / N_DOMAINS)}
    found = {}
    made = {name: make() for name, make in policies(truth).items() if not only or name in only}
    for name, policy in (runs | made).items():
        reached, shares = run(truth, policy, seed)
        found[name] = 100 * (reached / best - 1), float(shares[0])
    return found


def _mapped(work: Callable[..., T], tasks: Sequence[tuple[Any, ...]], jobs: int) -> Iterator[T]:
    """What `work` makes of each task, in order, in so many processes."""
    if jobs == 1:
        yield from (work(*task) for task in tasks)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(work, *zip(*tasks, strict=True))


def training_methods(corpus: Corpus) -> dict[str, tuple[Mapping[str, float], OnlineMixing | None]]:
    """Weights at the start and policy of each method. 200 reports; ODM warms up for 2 % of the run."""
    mixing = partial(OnlineMixing, every=2, lag=2)
    return {
        "natural": (corpus.natural, None),
        "uniform": (corpus.uniform, None),
        "mirror_descent (default)": (corpus.natural, mixing("mirror_descent")),
        "odm, paper": (corpus.natural, mixing("odm_paper", {"warm_up": 4})),
        "odm, released": (corpus.natural, mixing("odm_released", {"warm_up": 4})),
        "ado": (corpus.natural, mixing("ado")),
    }


def _train_one(corpus: Corpus, setting: Setting, method: str, seed: int) -> dict[str, Any]:
    weights, policy = training_methods(corpus)[method]
    found = train(corpus, setting, seed, weights, policy=policy)
    return {"method": method, "seed": seed, "cpu_seconds": found.cpu_seconds, "shares": found.weights} | {
        "objectives": objectives(found.losses, corpus)
    }


def trainings(
    corpus: Corpus, setting: Setting, n_seeds: int, jobs: int, kept: Path
) -> dict[str, dict[str, Any]]:
    """By method: (mean, half of the 95 % interval) of both objectives, and of their excess over natural's.

    Args:
        kept: a file with a line for each training that is done, which is not done again.
    """
    rows = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    done = {(row["method"], row["seed"]) for row in rows if row["setting"] == repr(setting)}
    methods = training_methods(corpus)
    missing = [(m, seed) for seed in range(n_seeds) for m in methods if (m, seed) not in done]
    with kept.open("a") as file:
        for row in _mapped(partial(_train_one, corpus, setting), missing, jobs):
            rows.append(row | {"setting": repr(setting)})
            print(json.dumps(rows[-1]), file=file, flush=True)
    rows = [row for row in rows if row["setting"] == repr(setting) and row["seed"] < n_seeds]
    return {method: _summary(corpus, rows, method) for method in methods}


def _summary(corpus: Corpus, rows: Sequence[Mapping[str, Any]], method: str) -> dict[str, Any]:
    mine, base = (
        sorted((row for row in rows if row["method"] == name), key=lambda row: row["seed"])
        for name in (method, "natural")
    )
    found: dict[str, Any] = {"cpu_seconds": float(np.mean([row["cpu_seconds"] for row in mine]))}
    for objective in ("natural", "uniform"):
        losses = [row["objectives"][objective] for row in mine]
        excess = [loss - row["objectives"][objective] for loss, row in zip(losses, base, strict=True)]
        found[objective], found[f"{objective}_over_natural"] = interval(losses), interval(excess)
    shares = np.mean([list(row["shares"].values()) for row in mine], axis=0)
    return found | {"shares": dict(zip(corpus.sources, shares.round(4).tolist(), strict=True))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "build" / "online", help="of the corpus' tokens"
    )
    parser.add_argument("--policies", nargs="+", default=[], help="of the simulation; all by default")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--quick", action="store_true", help="4 seeds instead of 20, 2 instead of 5")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    arguments = parser.parse_args()
    console, found = Console(file=sys.stdout, width=150), {}
    if "simulation" in arguments.parts:
        found["simulation_regret"] = show_simulation(
            console, *simulate(4 if arguments.quick else 20, arguments.jobs, arguments.policies)
        )
    if "feedback" in arguments.parts:
        found["update_us"] = microseconds_of_update()
        found["feedback_us"] = microseconds_of_feedback()
        for name, spent in {**found["update_us"], **found["feedback_us"]}.items():
            console.print(f"{spent:7.1f} us  {name}", highlight=False)
    if "training" in arguments.parts:
        if not arguments.corpus.is_dir():
            sys.exit(f"{arguments.corpus} is not there; give a folder of domains with --corpus")
        n_seeds = 2 if arguments.quick else 5
        setting = Setting()
        corpus = prepare(arguments.corpus, arguments.folder, setting)
        kept = arguments.folder / "trainings.jsonl"
        found["training"] = trainings(corpus, setting, n_seeds, arguments.jobs, kept)
        show_trainings(console, found["training"], n_seeds)
    if arguments.json:
        print(json.dumps(found))


def show_simulation(
    console: Console, regrets: Mapping[str, Mapping[str, Sequence[float]]], to_noise: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """Print the table of regrets; what the JSON holds of it."""
    table = Table("policy", *SCENARIOS, "worst over prior", "noise's share", box=None)
    prior = regrets["prior"]
    simulation: dict[str, dict[str, float]] = {}
    for name, of in regrets.items():
        means = {scenario: float(np.mean(of[scenario])) for scenario in SCENARIOS}
        worst = max(float(np.max(np.array(of[s]) - np.array(prior[s]))) for s in SCENARIOS)
        simulation[name] = means | {"worst_over_prior": worst, "share_of_noise": to_noise[name]}
        cells = [f"{means[scenario]:.2f} %" for scenario in SCENARIOS]
        table.add_row(name, *cells, f"{worst:+.2f} %", f"{to_noise[name]:.3f}")
    console.print(table)
    console.print(
        "Regret over the best fixed mixture, mean of the seeds; worst over prior: the largest excess of one "
        "seed's regret over that of the prior's weights; the noise domain has 0.2 of the prior."
    )
    return simulation


def show_trainings(console: Console, found: Mapping[str, Mapping[str, Any]], n_seeds: int) -> None:
    """Print the table of trainings."""
    table = Table("method", "natural mean", "over natural", "uniform mean", "over natural", "CPU s", box=None)
    for method, row in found.items():
        cells = [
            f"{row[name][0]:{sign}.4f} ± {row[name][1]:.4f}"
            for name, sign in (
                ("natural", ""),
                ("natural_over_natural", "+"),
                ("uniform", ""),
                ("uniform_over_natural", "+"),
            )
        ]
        table.add_row(method, *cells, f"{row['cpu_seconds']:.1f}")
    console.print(table)
    console.print(
        f"Held-out nats per token, {n_seeds} seeds, 95 % intervals; below zero is better than natural."
    )


if __name__ == "__main__":
    main()

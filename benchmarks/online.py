"""How well online policies do where the truth is known: simulated domains whose losses follow power laws.

    python -m benchmarks.online [--quick] [--json]

A domain's loss after n of its tokens is E + A (1 + n / n0)**-alpha, and reports add noise. A policy spends
the run's tokens; what counts is the prior's mean of the domains' losses at the end, without noise. Regret is
over the best fixed mixture, which is found with the truth at hand; in percent of the loss.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from cuvee.streaming.policies import Ado, MirrorDescent, Policy
from cuvee.streaming.published_policies import Aioli, Exp3S, GroupDro, Odm, SkillIt

Floats = NDArray[np.float64]
N_DOMAINS, N_REPORTS, TOKENS_OF_REPORT = 8, 600, 1e6
SCENARIOS = ("stationary", "irreducible_noise", "saturating", "drifting")


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


def simulate(n_seeds: int) -> tuple[dict[str, dict[str, list[float]]], dict[str, float]]:
    """Regrets in percent, by policy and scenario; and the share of tokens that went to the noise domain."""
    regrets: dict[str, dict[str, list[float]]] = {}
    to_noise: dict[str, list[float]] = {}
    for scenario in SCENARIOS:
        for seed in range(n_seeds):
            truth = world(scenario, seed)
            best = truth.best_fixed()
            fixed: dict[str, Policy | Floats] = {
                "prior": truth.prior,
                "uniform": np.full(N_DOMAINS, 1 / N_DOMAINS),
            }
            for name, policy in (fixed | {n: make() for n, make in policies(truth).items()}).items():
                reached, shares = run(truth, policy, seed)
                regrets.setdefault(name, {}).setdefault(scenario, []).append(100 * (reached / best - 1))
                if scenario == "irreducible_noise":
                    to_noise.setdefault(name, []).append(float(shares[0]))
    return regrets, {name: float(np.mean(shares)) for name, shares in to_noise.items()}


def microseconds_of_update(n_domains: int = 64, n_updates: int = 2000) -> dict[str, float]:
    """CPU time of `observe` and `weights` together, by policy."""
    rng = np.random.default_rng(0)
    prior = rng.dirichlet(np.full(n_domains, 2.0))
    made: Mapping[str, Policy] = {
        "mirror_descent (default)": MirrorDescent(prior),
        "ado": Ado(prior),
        "odm, released": Odm(prior, form="released"),
        "exp3s": Exp3S(prior),
        "group_dro": GroupDro(prior, np.full(n_domains, 2.0)),
    }
    losses, tokens = rng.uniform(2, 4, (n_updates, n_domains)), np.full(n_domains, 1e5)
    found = {}
    for name, policy in made.items():
        begin = time.process_time()
        for row in losses:
            policy.observe(row, tokens)
            _ = policy.weights
        found[name] = 1e6 * (time.process_time() - begin) / n_updates
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="4 seeds instead of 20")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    arguments = parser.parse_args()
    regrets, to_noise = simulate(4 if arguments.quick else 20)
    update = microseconds_of_update()
    table = Table("policy", *SCENARIOS, "worst over prior", "noise's share", "us a report", box=None)
    prior = regrets["prior"]
    simulation: dict[str, dict[str, Any]] = {}
    for name, found in regrets.items():
        means = {scenario: float(np.mean(found[scenario])) for scenario in SCENARIOS}
        worst = max(float(np.max(np.array(found[s]) - np.array(prior[s]))) for s in SCENARIOS)
        simulation[name] = means | {"worst_over_prior": worst, "share_of_noise": to_noise[name]}
        cells = [f"{means[scenario]:.2f} %" for scenario in SCENARIOS]
        spent = f"{update[name]:.0f}" if name in update else ""
        table.add_row(name, *cells, f"{worst:+.2f} %", f"{to_noise[name]:.3f}", spent)
    console = Console(file=sys.stdout)
    console.print(table)
    console.print(
        "Regret over the best fixed mixture, mean of the seeds; worst over prior: the largest excess of one "
        "seed's regret over that of the prior's weights; the noise domain has 0.2 of the prior."
    )
    if arguments.json:
        print(json.dumps({"simulation_regret": simulation, "update_us": update}))


if __name__ == "__main__":
    main()

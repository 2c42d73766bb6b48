"""Fidelity zero beside trained proxies: how n-gram losses rank mixtures, and what the mixture found is worth.

    python -m benchmarks.zero [--corpus FOLDER] [--quick] [--no-race] [--seeds 3] [--width 64] [--json]

Proxies of 700,000 tokens on 32 mixtures of the corpus's domains. The n-grams know nothing of them: their
smoothing is the default, which no proxy was asked about. Then two mixtures are sought, one with the n-grams
and the first 8 proxies, one with all 32 proxies alone, and models are trained on both and on natural and
uniform, with 3 seeds or `--seeds`, the same for all. Trained models are kept below build/: see
`benchmarks.zero_runs`.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy: times are those of one core

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from scipy.stats import spearmanr  # noqa: E402

from benchmarks.online_training import interval  # noqa: E402
from benchmarks.zero_runs import (  # noqa: E402
    CORPUS,
    QUICK,
    Corpus,
    Plan,
    ranking_design,
    tokenised,
    trained,
)
from cuvee.mixing import RunTable, load_mixer, recommend  # noqa: E402
from cuvee.mixing.exact import exact_optimum  # noqa: E402
from cuvee.proxy_models.proxies import fit_ngram_proxy  # noqa: E402
from cuvee.proxy_models.zero import fit_trigram_proxy  # noqa: E402

Floats = NDArray[np.float64]
N_BESIDE = 8  # proxies beside fidelity zero
N_TIMED = 200


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--quick", action="store_true", help="12 proxies of 60,000 tokens: two minutes")
    parser.add_argument("--mixtures", type=int, help="to train proxies on (default: 32)")
    parser.add_argument("--no-race", action="store_true", help="rank correlations only")
    parser.add_argument("--seeds", type=int, help="of the race (default: 3)")
    parser.add_argument("--width", type=int, default=64, help="of the proxies (default: 64)")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    arguments = parser.parse_args()
    if not arguments.corpus.is_dir():
        parser.exit(
            1, f"{arguments.corpus} is not there; give a folder of one folder a domain with --corpus\n"
        )
    plan = replace(QUICK if arguments.quick else Plan(), width=arguments.width)
    plan = replace(plan, n_mixtures=arguments.mixtures or plan.n_mixtures)
    if arguments.seeds:
        plan = replace(plan, race_seeds=tuple(range(1, arguments.seeds + 1)))
    figures = fidelity_zero(arguments.corpus, plan, not arguments.no_race)
    show(Console(width=100), figures)
    if arguments.json:
        print(json.dumps(figures))


def fidelity_zero(folder: Path, plan: Plan, with_race: bool) -> dict[str, Any]:
    """All figures."""
    corpus = tokenised(folder)
    design = ranking_design(corpus, plan)
    rows, seconds = trained(corpus, design, plan.n_tokens, [0] * len(design), plan.shape)
    runs = RunTable.from_arrow(rows)
    models: dict[str, Callable[[Floats], Floats]] = {}
    figures: dict[str, Any] = {
        "n_proxies": runs.n_runs,
        "n_parameters": int(runs.n_parameters[0]),
        "n_tokens": plan.n_tokens,
        "proxies_cpu_s": seconds,
        "rho": {},
        "ms_per_mixture": {},
        "count_cpu_s": {},
    }
    for name, fit in (("bigram", fit_ngram_proxy), ("trigram", fit_trigram_proxy)):
        begun = time.process_time()
        proxy = fit(corpus.folders)
        figures["count_cpu_s"][name] = time.process_time() - begun
        models[name] = lambda w, proxy=proxy: proxy.losses(w, plan.n_tokens)
        figures["rho"][name] = rank_correlations(models[name](runs.weights), runs)
        figures["ms_per_mixture"][name] = ms_per_mixture(models[name], runs.weights)
    if with_race:
        figures["race"] = race(corpus, plan, runs, models["trigram"])
    return figures


def rank_correlations(losses: Floats, runs: RunTable) -> dict[str, Any]:
    """Spearman's rho with the proxies' losses: each domain, their mean, and of the mean of the losses."""
    pairs = zip(losses.T, runs.metrics.T, strict=True)
    each = [float(spearmanr(ours, theirs).statistic) for ours, theirs in pairs]
    of_mean = float(spearmanr(losses.mean(axis=1), runs.metrics.mean(axis=1)).statistic)
    return {
        "domains": dict(zip(runs.metric_names, each, strict=True)),
        "per_domain": float(np.mean(each)),
        "mean": of_mean,
    }


def ms_per_mixture(losses: Callable[[Floats], Floats], weights: Floats) -> dict[str, float]:
    """Of one call for one mixture, compiled: the least and the median of 200, on a clock that others stop."""
    losses(weights[:1])
    times = []
    for i in range(N_TIMED):
        begun = time.perf_counter()
        losses(weights[i % len(weights)][None])
        times.append(1000 * (time.perf_counter() - begun))
    return {"least": min(times), "median": float(np.median(times))}


def race(corpus: Corpus, plan: Plan, runs: RunTable, losses: Callable[[Floats], Floats]) -> dict[str, Any]:
    """Mean losses of models trained on the mixtures found, over seeds none of which the proxies had."""
    natural = corpus.natural
    few = runs.select(np.arange(N_BESIDE))
    names = runs.metric_names
    found = {
        "natural": natural,
        "uniform": np.full(len(natural), 1 / len(natural)),
        "zero_alone": exact_optimum(losses, names, natural).weights,
        "zero_and_8": _candidate(load_mixer("trend_residual", trend=losses).fit(few), natural),
        f"{runs.n_runs}_alone": _candidate(load_mixer("ensemble").fit(runs), natural),
    }
    mixtures = np.repeat(np.stack(list(found.values())), len(plan.race_seeds), axis=0)
    seeds = list(plan.race_seeds) * len(found)
    rows, seconds = trained(corpus, mixtures, plan.race_tokens, seeds, plan.shape)
    ends = RunTable.from_arrow(rows).metrics.mean(axis=1).reshape(len(found), -1)
    return {
        "weights": {name: w.round(6).tolist() for name, w in found.items()},
        "mean_loss": dict(zip(found, ends.tolist(), strict=True)),
        **{
            f"against_{other}": {
                name: interval(row - ends[[*found].index(other)])
                for name, row in zip(found, ends, strict=True)
                if name != other
            }
            for other in ("natural", f"{runs.n_runs}_alone")
        },
        "cpu_s": seconds,
    }


def _candidate(mixer: Any, natural: Floats) -> Floats:
    return np.array(list(recommend(mixer, natural).candidate.values()))


def show(console: Console, figures: dict[str, Any]) -> None:
    """Rank correlations beside each other, then the race."""
    table = Table("rank correlation with proxies", *figures["rho"])
    domains = next(iter(figures["rho"].values()))["domains"]
    for domain in domains:
        table.add_row(domain, *(f"{rho['domains'][domain]:.3f}" for rho in figures["rho"].values()))
    for key, label in (("per_domain", "mean over domains"), ("mean", "of the mean loss")):
        table.add_row(label, *(f"{rho[key]:.3f}" for rho in figures["rho"].values()))
    console.print(table)
    proxies = f"{figures['n_proxies']} proxies of {figures['n_parameters']:,} parameters"
    console.print(f"{proxies} and {figures['n_tokens']:,} tokens: {figures['proxies_cpu_s']:.0f} CPU-s")
    for name, ms in figures["ms_per_mixture"].items():
        console.print(f"{name}: {ms['least']:.2f} ms a mixture at least, median {ms['median']:.2f}")
    if "race" in figures:
        race = figures["race"]
        others = [key for key in race if key.startswith("against_")]
        table = Table("mixture", "mean loss, by seed", *(f"{key.replace('_', ' ')}, 95 %" for key in others))
        for name, ends in race["mean_loss"].items():
            beside = [race[key].get(name, (0.0, 0.0)) for key in others]
            table.add_row(
                name,
                ", ".join(f"{end:.3f}" for end in ends),
                *(f"{mean:+.4f} ± {half:.4f}" for mean, half in beside),
            )
        console.print(table)


if __name__ == "__main__":
    main()

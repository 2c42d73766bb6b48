"""Mixers on RegMix's published runs, beside the paper's own two, fitted in the same run.

    python -m benchmarks.mixers [--tables FOLDER] [--quick] [--parts PART ...] [--json]

Fitted on the 512 runs of 1M parameters; the 256 test mixtures at 1M and 60M parameters are scored once and
used for nothing else. LightGBM runs in an environment of its own below build/, with the paper's settings but
without its early stopping on the test file. The part `zero` is that of `benchmarks.zero`, whose first run
trains proxies for an hour. The last line with --json is one JSON object.
"""

import argparse
import json
import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy: fit times are those of one core

import time  # noqa: E402

import numpy as np  # noqa: E402
import yaml  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from scipy.stats import spearmanr  # noqa: E402

from benchmarks.mixers_regret import regret  # noqa: E402
from benchmarks.mixers_replay import replay  # noqa: E402
from cuvee.mixing import (  # noqa: E402
    Fidelity,
    Mixer,
    Objective,
    RunTable,
    TransferredMixer,
    load_mixer,
    recommend,
)
from cuvee.mixing.gaussian_process import GaussianProcessMixer  # noqa: E402

Floats = NDArray[np.float64]

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("rho_by_n_runs", "transfer", "optimum", "regret", "replay", "zero")
TABLES = ROOT.parent / "shared" / "tables" / "regmix"
CORPUS = ROOT.parent / "shared" / "corpus" / "dev"
TARGET = "metric/the_pile_pile_cc_val_loss"
SMALL, LARGE = Fidelity(1_000_000, 10**9), Fidelity(60_000_000, 10**9)
MIXERS = ("linear", "regmix", "mixing_law", "bimix", "power_law", "gaussian_process")
N_SPLITS, N_ANCHORS = 20, 8
N_SUBSETS = {32: 10, 128: 10}
N_SAMPLES, N_TOP = 100_000, 128  # RegMix's search
LIGHTGBM = """
import sys, time, numpy as np, lightgbm
data = np.load(sys.argv[1])
means, seconds = [], time.process_time()
for y in data["metrics"].T:
    settings = dict(objective="l2", learning_rate=0.01, seed=42, num_threads=1, verbosity=-1)
    model = lightgbm.train(settings, lightgbm.Dataset(data["weights"], y), num_boost_round=1000)
    means.append(model.predict(data["new"]))
seconds = (time.process_time() - seconds) / len(means)
np.savez(sys.argv[2], mean=np.stack(means, axis=1), seconds=seconds)
"""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=Path, default=TABLES)
    parser.add_argument("--quick", action="store_true", help="128 runs and two metrics: under a minute")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=PARTS, help="beside the mixers' table")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    arguments = parser.parse_args()
    if not arguments.tables.is_dir():
        sys.exit(f"{arguments.tables} is not there; give the folder of RegMix's tables with --tables")
    console = Console(width=110)
    train, test, large = read_tables(arguments.tables, arguments.quick)
    fitted, fit_s = fit_all(train)
    peer, fit_s["lightgbm"] = lightgbm(train, test.weights)
    figures: dict[str, Any] = {"n_runs": train.n_runs, "n_metrics": len(train.metric_names)}
    figures["rho"] = {"lightgbm": score(peer, test, large)}
    figures["coverage"] = {}
    for name, mixer in fitted.items():
        predicted = mixer.predict(test.weights, SMALL)
        figures["rho"][name] = score(predicted.mean, test, large)
        figures["coverage"][name] = coverage(predicted.mean, predicted.std, test)
    ranking = fitted["ensemble"].predict(test.weights)  # without a fidelity: for a larger scale
    figures["rho"]["ensemble_at_scale"] = score(ranking.mean, test, large)
    figures["fit_s"] = fit_s
    show(console, figures)
    parts: dict[str, Callable[[], Any]] = {
        "rho_by_n_runs": lambda: by_n_runs(train, test, large),
        "transfer": lambda: transfer(fitted["ensemble"], large),
        "optimum": lambda: optimum(fitted["gaussian_process"], train, test, arguments.tables),
        "regret": lambda: regret(arguments.quick),
        "replay": lambda: dict(replay(arguments.tables, arguments.quick)),
        "zero": lambda: fidelity_zero(arguments.quick),
    }
    possible = {"rho_by_n_runs": not arguments.quick, "zero": CORPUS.is_dir()}
    for name in [name for name in arguments.parts if possible.get(name, True)]:
        figures[name] = parts[name]()
        console.print(f"\n{name}", style="bold")
        console.print_json(data=figures[name])
    if arguments.json:
        print(json.dumps(figures))


def fidelity_zero(quick: bool) -> dict[str, Any]:
    """The figures of `benchmarks.zero`, from a process of its own: it trains with PyTorch."""
    command = [sys.executable, "-m", "benchmarks.zero", "--json", *(["--quick"] if quick else [])]
    shown = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures: dict[str, Any] = json.loads(shown.splitlines()[-1])
    return figures


def read_tables(folder: Path, quick: bool) -> tuple[RunTable, RunTable, RunTable]:
    """The 512 training runs, and the test mixtures at 1M and at 60M parameters."""
    tables = [
        RunTable.from_csv(
            folder / f"{part}_mixture_{size}.csv",
            folder / f"{part}_pile_loss_{size}.csv",
            on="index",
            n_parameters=fidelity.n_parameters,
            n_tokens=fidelity.n_tokens,
        )
        for part, size, fidelity in (("train", "1m", SMALL), ("test", "1m", SMALL), ("test", "60m", LARGE))
    ]
    if quick:
        tables[0] = tables[0].select(np.arange(128))
        tables = [only(table, (TARGET, table.metric_names[0])) for table in tables]
    return tables[0], tables[1], tables[2]


def only(table: RunTable, names: tuple[str, ...]) -> RunTable:
    """The table with some of its metrics."""
    columns = [table.metric_names.index(name) for name in names]
    fidelity = {name: getattr(table, name) for name in ("n_parameters", "n_tokens", "seed")}
    return RunTable(table.weights, table.domain_names, table.metrics[:, columns], names, **fidelity)


def fit_all(train: RunTable) -> tuple[dict[str, Mixer], dict[str, float]]:
    """Each mixer on all runs, with its CPU seconds per metric, refits for its uncertainty included."""
    fitted, seconds = {}, {}
    for name in (*MIXERS, "ensemble"):
        start = time.process_time()
        fitted[name] = load_mixer(name, seed=0).fit(train)
        seconds[name] = (time.process_time() - start) / len(train.metric_names)
    return fitted, seconds


def lightgbm(train: RunTable, new: Floats) -> tuple[Floats, float]:
    """The paper's regression in an environment of its own: losses of new mixtures, CPU seconds per metric."""
    folder = ROOT / "build" / "lightgbm"
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "lightgbm>=4.3"], check=True)
        (folder / "installed").touch()
    np.savez(folder / "in.npz", weights=train.weights, metrics=train.metrics, new=new)
    subprocess.run([python, "-c", LIGHTGBM, folder / "in.npz", folder / "out.npz"], check=True)
    with np.load(folder / "out.npz") as out:
        return out["mean"], float(out["seconds"])


def search(train: RunTable, centre: Floats) -> Floats:
    """RegMix's search with the paper's LightGBM: the average of the best 128 of 100,000 mixtures."""
    samples = np.random.default_rng(42).dirichlet(centre, N_SAMPLES)
    losses, _ = lightgbm(only(train, (TARGET,)), samples)
    return np.asarray(samples[np.argsort(losses[:, 0])[:N_TOP]].mean(axis=0))


def score(predicted: Floats, test: RunTable, large: RunTable) -> dict[str, dict[str, float]]:
    """Spearman's rho with the losses at either scale: Pile-CC, and the mean over the domains."""
    column = test.metric_names.index(TARGET)
    scores = {}
    for scale, table in (("1m", test), ("60m", large)):
        pairs = zip(predicted.T, table.metrics.T, strict=True)
        rho = np.array([spearmanr(p, o).statistic for p, o in pairs])
        scores[scale] = {"cc": float(rho[column]), "mean13": float(rho.mean())}
    return scores


def coverage(mean: Floats, std: Floats, test: RunTable) -> dict[str, float]:
    """Share of the test runs inside the central 68 % and 95 % intervals: all metrics, and Pile-CC."""
    errors, column = np.abs(test.metrics - mean) / std, test.metric_names.index(TARGET)
    return {
        "68": float(np.mean(errors < 1.0)),
        "95": float(np.mean(errors < 1.96)),
        "cc_68": float(np.mean(errors[:, column] < 1.0)),
        "cc_95": float(np.mean(errors[:, column] < 1.96)),
    }


def by_n_runs(train: RunTable, test: RunTable, large: RunTable) -> dict[str, dict[str, dict[str, float]]]:
    """Pile-CC with fewer runs: the mean over random subsets, the lowest at 1M, and the share in intervals."""
    target, column = only(train, (TARGET,)), test.metric_names.index(TARGET)
    observed = (test.metrics[:, column], large.metrics[:, column])
    found: dict[str, dict[str, dict[str, float]]] = {}
    for n, n_subsets in N_SUBSETS.items():
        rho: dict[str, list[list[float]]] = {}
        inside: dict[str, dict[str, list[float]]] = {}
        for seed in range(n_subsets):
            runs = target.select(np.random.default_rng(seed).choice(train.n_runs, n, replace=False))
            for name, (losses, std) in predict_all(runs, test.weights).items():
                constant = np.ptp(losses) == 0  # LightGBM below 40 runs
                scores = [0.0 if constant else float(spearmanr(losses, o).statistic) for o in observed]
                rho.setdefault(name, []).append(scores)
                if std is not None:
                    errors = np.abs(observed[0] - losses) / std
                    shares = inside.setdefault(name, {"in_68": [], "in_95": []})
                    shares["in_68"].append(float(np.mean(errors < 1.0)))
                    shares["in_95"].append(float(np.mean(errors < 1.96)))
        found[str(n)] = {
            name: {
                "1m": float(np.mean([s[0] for s in scores])),
                "60m": float(np.mean([s[1] for s in scores])),
                "1m_lowest": min(s[0] for s in scores),
                **{key: float(np.mean(inside[name][key])) for key in inside.get(name, ())},
            }
            for name, scores in rho.items()
        }
    return found


def predict_all(runs: RunTable, new: Floats) -> dict[str, tuple[Floats, Floats | None]]:
    """One metric of new mixtures, and its standard deviation, by every mixer and the paper's LightGBM."""
    predicted: dict[str, tuple[Floats, Floats | None]] = {"lightgbm": (lightgbm(runs, new)[0][:, 0], None)}
    for name in (*MIXERS, "ensemble"):
        mixer = load_mixer(name, seed=0).fit(runs)
        found = mixer.predict(new, SMALL)
        predicted[name] = found.mean[:, 0], found.std[:, 0]
        if name == "ensemble":
            predicted["ensemble_at_scale"] = mixer.predict(new).mean[:, 0], None
    return predicted


def transfer(source: Mixer, large: RunTable) -> dict[str, float]:
    """The mean of the losses at 60M, ranked from 1M, plain and with 8 runs at 60M: 20 random splits."""
    plain, calibrated, regret, error = [], [], [], []
    for split in range(N_SPLITS):
        shuffled = np.random.default_rng(split).permutation(large.n_runs)
        anchors, rest = large.select(shuffled[:N_ANCHORS]), large.select(shuffled[N_ANCHORS:])
        observed = rest.metrics.mean(axis=1)
        uncalibrated = source.predict(rest.weights, SMALL).mean.mean(axis=1)
        predicted = TransferredMixer(source).fit(anchors).predict(rest.weights).mean.mean(axis=1)
        plain.append(spearmanr(uncalibrated, observed).statistic)
        calibrated.append(spearmanr(predicted, observed).statistic)
        regret.append(observed[np.argmin(predicted)] - observed.min())
        error.append(np.sqrt(np.mean((predicted - observed) ** 2)))
    return {
        "rho_plain": float(np.mean(plain)),
        "rho_calibrated": float(np.mean(calibrated)),
        "rho_calibrated_lowest": float(np.min(calibrated)),
        "regret": float(np.mean(regret)),
        "rmse": float(np.mean(error)),
        "n_anchors": N_ANCHORS,
        "n_splits": N_SPLITS,
    }


def optimum(mixer: Mixer, train: RunTable, test: RunTable, folder: Path) -> dict[str, Any]:
    """Pile-CC at 1M of recommended mixtures, by a process with constant noise fitted on all runs."""
    centre, objective = published(folder, "human", train), Objective("weighted", {TARGET: 1.0})
    upper, column = np.minimum(1.0, 4 * centre), train.metric_names.index(TARGET)
    found = recommend(mixer, centre, objective, trust_region=20.0)
    capped = recommend(mixer, centre, objective, upper, trust_region=20.0)
    samples = np.random.default_rng(42).dirichlet(centre, N_SAMPLES)
    losses = np.concatenate([mixer.predict(part).mean[:, column] for part in np.array_split(samples, 50)])
    points = {
        "gradient": np.array(list(found.candidate.values())),
        "gradient_capped": np.array(list(capped.candidate.values())),
        "process_top128": samples[np.argsort(losses)[:N_TOP]].mean(axis=0),
        "lightgbm_top128": search(train, centre),
        "best_run": train.weights[np.argmin(train.metrics[:, column])],
        "human": centre,
        **{name: published(folder, name, train) for name in ("regmix", "doremi", "pile_cc_only")},
    }
    judged = judge(train, test).predict(np.stack(list(points.values())))
    result: dict[str, Any] = dict(zip(points, judged.mean[:, 0].tolist(), strict=True))
    result["std"] = dict(zip(points, judged.std[:, 0].tolist(), strict=True))
    result["largest_excess_over_caps"] = float(np.maximum(points["gradient_capped"] - upper, 0).max())
    return result


def judge(train: RunTable, test: RunTable) -> GaussianProcessMixer:
    """Another process than the one that recommends, fitted on the test runs too."""
    both = [only(train, (TARGET,)), only(test, (TARGET,))]
    weights, losses = (np.vstack([getattr(t, name) for t in both]) for name in ("weights", "metrics"))
    seeds = np.repeat([0, 1], [t.n_runs for t in both])
    runs = RunTable(weights, train.domain_names, losses, (TARGET,), seed=seeds)
    return GaussianProcessMixer(transform="log", noise="constant").fit(runs)


def published(folder: Path, name: str, train: RunTable) -> Floats:
    """One of the paper's mixtures."""
    weights = yaml.safe_load((folder / f"config_1b_{name}.yaml").read_text("utf-8"))["train"]
    row = np.array([weights.get(domain, 0.0) for domain in train.domain_names])
    return np.asarray(row / row.sum())


def show(console: Console, figures: dict[str, Any]) -> None:
    """Rank correlations, coverage and fit times, one row for each mixer."""
    table = Table("mixer", "cc 1M", "cc 60M", "mean 1M", "mean 60M", "in 68 %", "in 95 %", "fit s/metric")
    for name, rho in figures["rho"].items():
        inside = figures["coverage"].get(name, {})
        shown = [rho["1m"]["cc"], rho["60m"]["cc"], rho["1m"]["mean13"], rho["60m"]["mean13"]]
        covered = [f"{inside[key]:.3f}" if inside else "" for key in ("68", "95")]
        seconds = figures["fit_s"].get(name)
        table.add_row(
            name, *(f"{v:.4f}" for v in shown), *covered, "" if seconds is None else f"{seconds:.2f}"
        )
    console.print(table)


if __name__ == "__main__":
    main()

"""Batches reduced to their coreset: what choosing costs, and what training on the choice brings.

    python -m benchmarks.coreset [--quick] [--json] [--parts kernels selectors share training]
        [--folder FOLDER]

kernels: facility location on clipped cosines, CPU ms a choice, beside submodlib (in an environment of its
own below build/) and a numpy greedy, and the objective of each beside ours. selectors: CPU ms of a whole
selection. share: of `select` in a training step of a proxy of the default size. training: held-out losses of
a small model of the dev corpus, each batch chosen of twice as many candidates, at equal training tokens and
at equal CPU seconds, and the share of them that selection takes; the reference losses of rho and jest count
as stored beforehand, all else that choosing takes is paid for.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy: CPU times are those of one core

import time  # noqa: E402

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from cuvee.kernels.facility_location import facility_location  # noqa: E402
from cuvee.streaming.coreset_selectors import cosines  # noqa: E402
from cuvee.streaming.selectors import Candidates, load_selector  # noqa: E402

Float32s = NDArray[np.float32]
ROOT = Path(__file__).resolve().parents[1]
SIZES = ((128, 32), (512, 64), (4096, 256), (20_000, 1000))
WIDTH = 128  # features of a row
FACTOR = 2  # candidates by batch
SUBMODLIB = """
import sys, time, numpy as np
from submodlib import FacilityLocationFunction
similarity, k = np.load(sys.argv[1]), int(sys.argv[2])
best = float("inf")
for _ in range(int(sys.argv[3])):
    f = FacilityLocationFunction(n=len(similarity), mode="dense", sijs=similarity, separate_rep=False)
    begin = time.process_time()
    chosen = f.maximize(budget=k, optimizer="LazyGreedy", show_progress=False)
    best = min(best, time.process_time() - begin)
print(1000 * best)
print(*(i for i, _ in chosen))
"""
METHODS: dict[str, dict[str, Any]] = {
    "random": {},
    "hard_batches": {"by_source": True},
    "facility_location": {},
    "colm": {},
    "jest": {"by_source": True},
    "rho": {"by_source": True},
}


def similarity_of(n: int) -> Float32s:
    """Clipped cosines of rows in some clusters, as features of a batch are."""
    rng = np.random.default_rng(n)
    centres = rng.normal(size=(max(8, n // 32), WIDTH))
    rows = centres[rng.integers(0, len(centres), n)] + rng.normal(size=(n, WIDTH))
    found = cosines(rows.astype(np.float32))
    return np.maximum(found, 0, out=found)


def numpy_greedy(similarity: Float32s, k: int) -> list[int]:
    """Each choice by the gains of all rows."""
    cover, chosen = np.zeros(len(similarity), np.float32), list[int]()
    for _ in range(k):
        gains = np.maximum(similarity - cover, 0).sum(axis=1)
        gains[chosen] = -1
        chosen.append(int(gains.argmax()))
        np.maximum(cover, similarity[chosen[-1]], out=cover)
    return chosen


def milliseconds(call: Callable[[], Any], n_repeats: int) -> float:
    """The least CPU time of some calls."""
    times = []
    for _ in range(n_repeats):
        begin = time.process_time()
        call()
        times.append(time.process_time() - begin)
    return 1000 * min(times)


def submodlib() -> Path | str:
    """The Python of an environment with submodlib, or why there is none."""
    folder = ROOT / "build" / "submodlib"
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        venv.create(folder, with_pip=True, clear=True)
        done = subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "submodlib-py", "numpy"],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            return "not installed: " + (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        (folder / "installed").touch()
    done = subprocess.run([python, "-c", "import submodlib"], capture_output=True, text=True)
    return python if not done.returncode else "no import: " + done.stderr.strip().splitlines()[-1]


def measure_kernels(sizes: tuple[tuple[int, int], ...]) -> dict[str, Any]:
    """By size: CPU ms of each, and each's objective by ours."""
    peer, found = submodlib(), dict[str, Any]()
    matrix = ROOT / "build" / "similarity.npy"
    for n, k in sizes:
        begin = time.process_time()
        similarity = similarity_of(n)
        gram = 1000 * (time.process_time() - begin)
        n_repeats = 20 if n <= 512 else 3 if n <= 4096 else 1
        ours = facility_location(similarity, k).indices

        def objective(rows: Any, of: Float32s = similarity) -> float:
            return float(of[rows].max(axis=0).sum(dtype=np.float64))

        row: dict[str, Any] = {
            "cuvee": milliseconds(lambda s=similarity, k=k: facility_location(s, k), n_repeats),
            "gram": gram,
        }
        if n <= 4096:
            begin = time.process_time()
            chosen = numpy_greedy(similarity, k)
            row["numpy"] = 1000 * (time.process_time() - begin)
            row["numpy_objective"] = objective(chosen) / objective(ours)
        if isinstance(peer, str):
            row["submodlib"] = peer
        elif n <= 4096:
            np.save(matrix, similarity)
            done = subprocess.run(
                [peer, "-c", SUBMODLIB, matrix, str(k), str(min(n_repeats, 3))],
                capture_output=True,
                text=True,
            )
            if done.returncode:
                row["submodlib"] = "failed: " + done.stderr.strip().splitlines()[-1]
            else:
                spent, chosen_there = done.stdout.strip().splitlines()[-2:]
                row["submodlib"] = float(spent)
                row["submodlib_objective"] = objective([int(i) for i in chosen_there.split()]) / objective(
                    ours
                )
        found[f"{n}->{k}"] = row
    return found


def measure_selectors(n: int = 128, k: int = 32) -> dict[str, float]:
    """CPU ms of a whole selection, features and losses given, by method."""
    rng = np.random.default_rng(0)
    candidates = Candidates(
        rng.integers(0, 8, n),
        rng.gamma(4, 1, n),
        rng.gamma(4, 1, n),
        rng.normal(size=(n, WIDTH)).astype(np.float32),
        rng.integers(0, 2**63, n, dtype=np.uint64),
    )
    names = (*METHODS, "stochastic", "infobatch", "seta", "multistage", "topic", "rs2")
    found = {}
    for name in names:
        selector = load_selector(name, **METHODS.get(name, {}))
        selector.select(candidates, k, rng)
        found[name] = milliseconds(lambda s=selector: s.select(candidates, k, rng), 20)
    return found


class Chooser:
    """Batches by a method, and what choosing them took.

    Args:
        method: of METHODS.
        reference: losses of the candidates under a model trained before.
    """

    def __init__(self, method: str, reference: Callable[[Any], Any] | None) -> None:
        self.method, self._reference = method, reference
        self.stored_seconds = 0.0  # of reference losses, which would lie in a column
        self.select_seconds, self.score_seconds, self.n_steps = 0.0, 0.0, 0

    def __call__(self, proxy: Any, loader: Any) -> Iterator[Any]:
        from cuvee.proxy_models.features import ProxyModel
        from cuvee.streaming.features import FeatureExtractor

        needs = load_selector(self.method, **METHODS[self.method]).needs
        kind = "head_gradients" if "features" in needs else "none"
        extract = FeatureExtractor(ProxyModel(proxy.model), kind, n_dimensions=WIDTH)
        for candidates in loader.superbatches(FACTOR, self.method, **METHODS[self.method]):
            begin = time.process_time()
            given: dict[str, Any] = {}
            if needs:
                losses, features = extract(candidates.batch.input_ids, candidates.batch.labels)
                given["scores"] = losses
                if "features" in needs:
                    given["features"] = features
            self.score_seconds += time.process_time() - begin
            if "reference_losses" in needs:
                assert self._reference is not None
                begin = time.process_time()
                given["reference_losses"] = self._reference(candidates.batch)
                self.stored_seconds += time.process_time() - begin
            begin = time.process_time()
            batch = candidates.select(**given)
            self.select_seconds += time.process_time() - begin
            self.n_steps += 1
            yield batch


def reference_model(corpus: Any, setting: Any) -> Callable[[Any], Any]:
    """Losses of rows under a model that saw as many random rows, in another order."""
    from benchmarks.online_training import Proxy
    from cuvee.proxy_models.features import ProxyModel
    from cuvee.streaming import StreamingLoader
    from cuvee.streaming.features import FeatureExtractor

    loader = StreamingLoader(
        corpus.sources,
        corpus.natural,
        sequence_length=setting.shape.sequence_length,
        global_batch=setting.batch_rows,
        mask_boundaries=False,
        seed=10_000,
    )
    proxy, batches = Proxy(setting, 10_000), iter(loader)
    for _ in range(setting.n_steps):
        proxy.update(next(batches))
    extract = FeatureExtractor(ProxyModel(proxy.model), "none")
    return lambda batch: extract(batch.input_ids, batch.labels)[0]


def measure_training(n_steps: int, n_seeds: int, folder: Path) -> dict[str, Any]:
    """By method: held-out losses at equal tokens and at equal CPU seconds, with differences to random.

    Args:
        folder: of the corpus' tokens, which benchmarks.online has below the same.
    """
    from dataclasses import replace

    from benchmarks.online_training import CORPUS, Setting, objectives, prepare, train

    setting = Setting(n_steps=n_steps)
    corpus = prepare(CORPUS, folder, setting)
    reference = reference_model(corpus, setting)
    tokens: dict[str, list[float]] = {}
    seconds: dict[str, list[float]] = {}
    shares: dict[str, list[float]] = {}
    equal_cpu: dict[str, list[float]] = {}

    def one(method: str, steps: int, seed: int) -> tuple[float, float]:
        if method == "full_batch":
            # Twice the rows, half the steps: the same tokens.
            whole = replace(setting, n_steps=steps // FACTOR, batch_rows=setting.batch_rows * FACTOR)
            found = train(corpus, whole, seed)
            return objectives(found.losses, corpus)["natural"], found.cpu_seconds
        chooser = Chooser(method, reference)
        found = train(corpus, replace(setting, n_steps=steps), seed, batches=chooser)
        spent = found.cpu_seconds - chooser.stored_seconds
        shares.setdefault(method, []).append(chooser.select_seconds / spent)
        return objectives(found.losses, corpus)["natural"], spent

    def summaries() -> dict[str, Any]:
        return {
            method: {
                "tokens": summary(tokens[method], tokens["random"]),
                "cpu": summary(equal_cpu[method], equal_cpu["random"]),
                "cpu_seconds": float(np.mean(seconds[method])),
                "selection_share": float(np.mean(shares.get(method, [0.0]))),
            }
            for method in tokens
        }

    methods = ("random", "full_batch", *(m for m in METHODS if m != "random"))
    for seed in range(n_seeds):
        for method in methods:
            loss, spent = one(method, n_steps, seed)
            tokens.setdefault(method, []).append(loss)
            seconds.setdefault(method, []).append(spent)
        for method in methods:
            ratio = float(np.sum(seconds["random"]) / np.sum(seconds[method]))
            steps = max(FACTOR, round(n_steps * ratio))
            same = tokens["random"][-1] if method == "random" else one(method, steps, seed)[0]
            equal_cpu.setdefault(method, []).append(same)
        print(f"{seed + 1} seeds: {json.dumps(summaries())}", file=sys.stderr, flush=True)
    return summaries()


def summary(losses: list[float], random: list[float]) -> dict[str, float]:
    """Mean, half of its 95 % interval, and both of the paired difference to random."""
    from benchmarks.online_training import interval

    mean, half = interval(losses)
    difference, error = interval([a - b for a, b in zip(losses, random, strict=True)])
    return {"mean": mean, "half": half, "over_random": difference, "over_random_half": error}


def show_kernels(console: Console, found: Mapping[str, Mapping[str, Any]]) -> None:
    table = Table("candidates", "cuvee ms", "numpy ms", "submodlib ms", "its f / ours", "Gram ms", box=None)
    for size, row in found.items():
        there = row.get("submodlib", "")
        table.add_row(
            size,
            f"{row['cuvee']:.3f}",
            f"{row['numpy']:.1f}" if "numpy" in row else "",
            there if isinstance(there, str) else f"{there:.1f}",
            f"{row['submodlib_objective']:.5f}" if "submodlib_objective" in row else "",
            f"{row['gram']:.1f}",
        )
    console.print(table)


def show_training(console: Console, found: Mapping[str, Mapping[str, Any]]) -> None:
    table = Table(
        "method",
        "loss, equal tokens",
        "over random",
        "over random, equal CPU",
        "CPU s",
        "selection",
        box=None,
    )
    for method, row in sorted(found.items(), key=lambda pair: pair[1]["tokens"]["mean"]):
        tokens, cpu = row["tokens"], row["cpu"]
        table.add_row(
            method,
            f"{tokens['mean']:.4f} ± {tokens['half']:.4f}",
            f"{tokens['over_random']:+.4f} ± {tokens['over_random_half']:.4f}",
            f"{cpu['over_random']:+.4f} ± {cpu['over_random_half']:.4f}",
            f"{row['cpu_seconds']:.2f}",
            f"{100 * row['selection_share']:.1f} %",
        )
    console.print(table)
    console.print(
        "Below zero is better than random; ± is half of a 95 % interval of the mean over the seeds."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer sizes, shorter trainings")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--parts", nargs="+", default=["kernels", "selectors", "share", "training"])
    parser.add_argument("--steps", type=int, help="of each training; 300, with --quick 100")
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each method")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "build" / "online", help="of the corpus' tokens"
    )
    arguments = parser.parse_args()
    console, answer = Console(file=sys.stdout, width=120), dict[str, Any]()
    if "kernels" in arguments.parts:
        answer["facility_location_ms"] = measure_kernels(SIZES[:3] if arguments.quick else SIZES)
        show_kernels(console, answer["facility_location_ms"])
    if "selectors" in arguments.parts:
        answer["selection_ms"] = measure_selectors()
        table = Table("selection, 128 -> 32", "CPU ms", box=None)
        for name, spent in answer["selection_ms"].items():
            table.add_row(name, f"{spent:.2f}")
        console.print(table)
    if "share" in arguments.parts:
        from .coreset_share import share_of_a_step

        answer["selection_share"] = share_of_a_step(METHODS, FACTOR, WIDTH)
        table = Table("of 8 candidates 4", "step CPU ms", "scoring", "select", "share of a step", box=None)
        for name, row in answer["selection_share"].items():
            cells = [f"{row[key]:.2f}" for key in ("step_ms", "score_ms", "select_ms")]
            table.add_row(name, *cells, f"{100 * row['share']:.1f} %")
        console.print(table)
    if "training" in arguments.parts:
        steps = arguments.steps or (100 if arguments.quick else 300)
        answer["training"] = measure_training(steps, arguments.seeds, arguments.folder)
        show_training(console, answer["training"])
    if arguments.json:
        print(json.dumps(answer, default=lambda value: None if math.isnan(value) else float(value)))


if __name__ == "__main__":
    main()

"""The streaming loader beside a raw copy, a memmap crop and other loaders: speed, resuming, order.

    python -m benchmarks.loader [--quick] [--json] [--no-peers] [--parts speeds,peers,...] [--peers ...]

On uint16 tokens in 8 domains with log-normal document lengths (200 M; --quick: 20 M), batches of 16 x 2048
int64. CPU time is of the whole process tree. torchdata, litData, MosaicML Streaming and Grain run in
environments of their own, made below build/peers (benchmarks/loader_peer.py says how each is set up).
The last line with --json is one JSON object.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from rich.console import Console
from rich.table import Table

from benchmarks.loader_fetches import fetches
from benchmarks.loader_peers import PACKAGES, peers
from cuvee.streaming import StreamingLoader
from cuvee.streaming.batch import FIELDS
from cuvee.streaming.shards import domain_folder, write_manifest, write_token_shard
from cuvee.streaming.warm_up import kernels

L, ROWS = 2048, 16
N_ROUNDS = 5
WEIGHTS = dict(
    zip([f"domain-{k}" for k in range(8)], [0.35, 0.20, 0.12, 0.10, 0.10, 0.06, 0.05, 0.02], strict=True)
)
MILLIONS = [60, 40, 30, 25, 20, 12, 8, 5]
MEDIANS = [500, 300, 100, 1_000, 2_000, 4_000, 12_665, 700]
MASKED = ("input_ids", "labels", "position_ids", "cu_seqlens")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="20 M tokens, shorter runs: under a minute")
    parser.add_argument("--no-peers", action="store_true", help="without other libraries")
    parser.add_argument("--json", action="store_true", help="end with one JSON line")
    parser.add_argument("--parts", default=",".join(PARTS), help="some of %(default)s")
    parser.add_argument("--peers", default=",".join(PACKAGES), help="some of %(default)s")
    arguments = parser.parse_args()
    console, parts = Console(width=100), arguments.parts.split(",")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        sources = write_corpus(folder, 0.1 if arguments.quick else 1.0)
        kernels.done(wait=True)
        figures: dict[str, Any] = {"mtok_per_cpu_s": {}}
        for part in parts:
            if part != "peers":
                figures |= (found := PARTS[part](sources, folder, arguments.quick))
                print(f"{part}: {found}", file=sys.stderr)
        if "peers" in parts and not arguments.no_peers:
            of_peers, absent = peers(
                folder, arguments.peers.split(","), cpu_seconds=1 if arguments.quick else 4
            )
            for name, of_peer in of_peers.items():
                figures["mtok_per_cpu_s"][name] = of_peer.pop("mtok_per_cpu_s")
            figures |= {"peers": of_peers, "absent": absent}
    show(console, figures)
    if arguments.json:
        print(json.dumps(figures))


def write_corpus(folder: Path, scale: float) -> dict[str, Path]:
    """Eight domains of random tokens, in shards of some 10 M; and each as a flat file for the peers."""
    random, sources = np.random.default_rng(0), {}
    for name, millions, median in zip(WEIGHTS, MILLIONS, MEDIANS, strict=True):
        n_tokens = int(millions * 1e6 * scale)
        lengths = np.maximum(2, random.lognormal(np.log(median), 1.0, 2 * n_tokens // median + 100)).astype(
            np.int64
        )
        lengths = lengths[: np.searchsorted(np.cumsum(lengths), n_tokens) + 1]
        tokens = random.integers(2, 50_000, int(lengths.sum()), dtype=np.uint16)
        tokens[np.cumsum(lengths) - 1] = 1
        tokens.tofile(folder / f"{name}.bin")
        sources[name] = domain_folder(folder / "tokens", name)
        begin = 0
        for k, part in enumerate(np.array_split(lengths, max(1, n_tokens // 10_000_000))):
            offsets = np.concatenate([[0], np.cumsum(part)])
            ids = np.arange(part.size, dtype=np.uint64)
            path = sources[name] / f"train-{k:05d}.arrow"
            write_token_shard(path, tokens[begin : begin + offsets[-1]], offsets, ids, "uint16")
            begin += int(offsets[-1])
        write_manifest(sources[name], domain=name, vocab_size=50_000, tokenizer_hash="benchmark", eos_id=1)
    (folder / "weights.json").write_text(json.dumps(WEIGHTS))
    return sources


def loader(sources: dict[str, Path], **options: Any) -> StreamingLoader:
    arguments = {"sequence_length": L, "global_batch": ROWS, "prefetch": 0, **options}
    return StreamingLoader(sources, WEIGHTS, **arguments)


def cpu_seconds() -> float:
    """Of this process, and of its children, whether they live or have ended."""
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    living = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return sum(part.ru_utime + part.ru_stime for part in parts) + sum(t.user + t.system for t in living)


def rates(steps: dict[str, Callable[[], object]], n_batches: int) -> dict[str, list[float]]:
    """Million tokens per CPU-second of each, in N_ROUNDS: every round runs all, so that load is the same."""
    for step in steps.values():
        for _ in range(n_batches):  # mapped pages are touched, processes started
            step()
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(N_ROUNDS):
        for name, step in steps.items():
            begin = cpu_seconds()
            for _ in range(n_batches):
                step()
            found[name].append(n_batches * ROWS * L / (cpu_seconds() - begin) / 1e6)
    return found


def speeds(sources: dict[str, Path], folder: Path, n_batches: int) -> dict[str, dict[str, float]]:
    """By executor, with the limits that they are measured against, and their CPU time in inline's."""
    kinds: dict[str, dict[str, Any]] = {
        "inline": {},
        "inline, no labels masked": {"mask_boundaries": False},
        "inline, positions, cu_seqlens": {"emit": MASKED},
        "inline, best_fit, positions, cu_seqlens": {"emit": MASKED, "packing": "best_fit"},
        "inline, vsl, positions, cu_seqlens": {"emit": MASKED, "packing": "vsl"},
        "thread": {"prefetch": 2},
        "one worker process": {"workers": 1, "prefetch": 4},
    }
    loaders = {name: loader(sources, **options) for name, options in kinds.items()}
    steps = {"copy_limit": copy_limit(folder), "memmap crop": memmap_crop(folder)}
    steps |= {name: partial(next, batches) for name, batches in loaders.items()}
    found = rates(steps, n_batches // N_ROUNDS)
    for batches in loaders.values():
        batches.close()
    inline = np.array(found["inline"])
    return {
        "mtok_per_cpu_s": {name: float(np.median(values)) for name, values in found.items()},
        "cpu_of_inline": {name: float(np.median(inline / values)) for name, values in found.items()},
    }


def copy_limit(folder: Path) -> Callable[[], object]:
    """Widen rows of a RAM array into one buffer: nothing planned, no labels."""
    tokens = np.fromfile(folder / "domain-0.bin", np.uint16)
    out, random = np.empty((ROWS, L), np.int64), np.random.default_rng(0)
    starts = iter(random.integers(0, tokens.size - L - 1, (10**6, ROWS)).tolist())

    def step() -> None:
        for row, start in enumerate(next(starts)):
            out[row] = tokens[start : start + L]

    return step


def memmap_crop(folder: Path) -> Callable[[], object]:
    """What small trainers do: random offsets of memory-mapped files, stacked, inputs and labels."""
    import torch

    files = [np.memmap(folder / f"{name}.bin", np.uint16, mode="r") for name in WEIGHTS]
    random, weights = np.random.default_rng(0), list(WEIGHTS.values())

    def step() -> object:
        rows = []
        for k in random.choice(len(files), ROWS, p=weights).tolist():
            start = int(random.integers(0, files[k].size - L - 1))
            rows.append(files[k][start : start + L + 1])
        batch = torch.from_numpy(np.stack(rows).astype(np.int64))
        return batch[:, :-1].contiguous(), batch[:, 1:].contiguous()

    return step


def first_batch(sources: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Milliseconds from construction to the first batch, in fresh processes, after the imports.

    By the clock, and of the CPU time of the thread that asks: kernels load beside it.
    """
    script = (
        "import sys, json, time, torch; from cuvee.streaming import StreamingLoader\n"
        "sources, weights, packing = json.loads(sys.argv[1])\n"
        "t, u = time.perf_counter(), time.thread_time()\n"
        f"options = dict(sequence_length={L}, global_batch={ROWS}, packing=packing)\n"
        "batches = StreamingLoader(sources, weights, **options)\n"
        "next(batches); print(json.dumps([1e3 * (time.perf_counter() - t), 1e3 * (time.thread_time() - u)]))"
    )
    found: dict[str, dict[str, float]] = {"first_batch_ms": {}, "first_batch_cpu_ms": {}}
    for packing in ("concat", "best_fit"):
        given = json.dumps([{name: str(folder) for name, folder in sources.items()}, WEIGHTS, packing])
        command = [sys.executable, "-c", script, given]
        runs = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(5)]
        for name, value in zip(found, np.median(runs, axis=0).tolist(), strict=True):
            found[name][packing] = value
    return found


def resume(sources: dict[str, Path]) -> dict[str, dict[str, dict[str, float]]]:
    """Milliseconds from load_state_dict to the next batch, by packing and rows drawn of each domain.

    By the clock, and of CPU time: a machine with other work to do adds to the first alone.
    """
    found: dict[str, dict[str, dict[str, float]]] = {"resume_ms": {}, "resume_cpu_ms": {}}
    for packing in ("concat", "best_fit"):
        for n_rows in (10, 10**6, 10**9):
            saved = loader(sources, packing=packing)
            state = saved.state_dict()
            state["step"] = n_rows
            for domain, planned in zip(state["domains"].values(), saved._planner.domains, strict=True):
                # The second block, where there is one: the first of best_fit is small.
                block = min(1, planned.packing.n_blocks_in(0) - 1)
                domain |= {"rows_drawn": n_rows, "position": [n_rows // 1000, block, 7]}
            times = []
            for _ in range(5):
                resumed = loader(sources, packing=packing)
                begin = np.array([time.perf_counter(), time.process_time()])
                resumed.load_state_dict(state)
                next(resumed)
                times.append(1e3 * (np.array([time.perf_counter(), time.process_time()]) - begin))
            for name, value in zip(found, np.median(times, axis=0).tolist(), strict=True):
                found[name].setdefault(packing, {})[str(n_rows)] = value
    return found


def state_and_fill(sources: dict[str, Path]) -> dict[str, Any]:
    """Bytes of a state in mid-run, and what part of the rows of best_fit's whole epoch is no padding."""
    n_bytes: dict[str, int] = {}
    for packing in ("concat", "best_fit", "vsl"):
        batches = loader(sources, packing=packing, max_epochs=1, emit=("input_ids",))
        for _ in range(100):
            next(batches)
        n_bytes[packing] = len(json.dumps(batches.state_dict()))
        if packing == "best_fit":
            for _ in batches:
                pass
            fill = batches.stats()["fill"]
    return {"state_bytes": n_bytes, "fill": fill}


def planning(sources: dict[str, Path]) -> dict[str, float]:
    """CPU microseconds of planning one batch, and the part of a step at 1e5 tokens/s that is."""
    found = {}
    for packing in ("concat", "best_fit"):
        planner = loader(sources, packing=packing)._planner
        cursor = planner.start()
        _, cursor = planner.plan(cursor, 256)
        begin = time.process_time()
        for _ in range(20):
            _, cursor = planner.plan(cursor, 256)
        found[packing] = 1e6 * (time.process_time() - begin) / (20 * 256)
    step_us = 1e6 * ROWS * L / 1e5
    return {"plan_us": found, "plan_share_of_step": max(found.values()) / step_us}


def order(sources: dict[str, Path], n_steps: int) -> dict[str, Any]:
    """Hash chains over world sizes, executors and prefetch, with kill and resume at every step."""
    options: dict[str, Any] = {"global_batch": 24, "sequence_length": 256, "emit": FIELDS, "max_epochs": 2}
    identical = {}
    for packing in ("concat", "best_fit"):
        expected = list(chain([loader(sources, packing=packing, **options)], n_steps))
        for world_size in (1, 2, 3, 4, 6, 8):
            for prefetch in (0, 3):
                ranks = ranks_of(sources, world_size, packing=packing, **{**options, "prefetch": prefetch})
                identical[f"{packing}, world {world_size}, prefetch {prefetch}"] = (
                    list(chain(ranks, n_steps)) == expected
                )
        workers = loader(sources, packing=packing, **{**options, "workers": 2, "prefetch": 4})
        identical[f"{packing}, 2 workers"] = list(chain([workers], n_steps)) == expected
        workers.close()
        identical[f"{packing}, resumed at every step"] = resumed_at_every_step(
            sources, packing, options, expected
        )
    return {"order_identical": all(identical.values()), "order_cases": len(identical), "n_steps": n_steps}


def resumed_at_every_step(
    sources: dict[str, Path], packing: str, options: dict[str, Any], expected: list[str]
) -> bool:
    """Each step's state, loaded at three other world sizes in turn, leads to the same following batches."""
    running, same = loader(sources, packing=packing, **options), True
    worlds = (1, 2, 3, 4, 6, 8)
    for step in range(len(expected) - 4):
        state = json.dumps(running.state_dict())
        for again in range(3):  # resumed, run one step, saved, and resumed at the next world size
            ranks = ranks_of(sources, worlds[(step + again) % len(worlds)], packing=packing, **options)
            for rank in ranks:
                rank.load_state_dict(json.loads(state))
            same &= list(chain(ranks, 1)) == expected[step + again : step + again + 1]
            states = {json.dumps(rank.state_dict()) for rank in ranks}
            same &= len(states) == 1
            state = states.pop()
        next(running)
    return same


def ranks_of(sources: dict[str, Path], world_size: int, **options: Any) -> list[StreamingLoader]:
    return [loader(sources, rank=rank, world_size=world_size, **options) for rank in range(world_size)]


def chain(ranks: list[StreamingLoader], n_steps: int) -> Iterator[str]:
    """A hash of each global batch."""
    for _ in range(n_steps):
        parts = [next(rank) for rank in ranks]
        digest = hashlib.blake2b(str(parts[0].step).encode())
        for name in ("input_ids", "labels", "position_ids", "domain_ids", "row_ids", "weights"):
            for part in parts:
                digest.update(part[name].numpy().tobytes())
        yield digest.hexdigest()


def memory_growth(sources: dict[str, Path], n_batches: int) -> float:
    """Peak resident MB that a run adds after its first tenth; mapped shards are all read before."""
    batches = loader(sources, sequence_length=128, prefetch=2)
    for folder in sources.values():
        for path in folder.glob("*.arrow"):
            path.read_bytes()
    for _ in range(n_batches // 10):
        next(batches)
    before = anonymous_mb()
    for _ in range(n_batches - n_batches // 10):
        next(batches)
    return anonymous_mb() - before


def anonymous_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return float("nan")


# What a run measures, and how much of it with --quick; "peers" come last in `main`.
PARTS: dict[str, Callable[[dict[str, Path], Path, bool], dict[str, Any]]] = {
    "speeds": lambda sources, folder, quick: speeds(sources, folder, 1000 if quick else 6000),
    "first_batch": lambda sources, _, __: first_batch(sources),
    "resume": lambda sources, _, __: resume(sources),
    "state": lambda sources, _, __: state_and_fill(sources),
    "plan": lambda sources, _, __: planning(sources),
    "order": lambda sources, _, quick: order(sources, n_steps=20 if quick else 200),
    "memory": lambda sources, _, quick: {
        "rss_growth_mb": memory_growth(sources, 5_000 if quick else 100_000)
    },
    "fetches": lambda _, __, ___: fetches(),
    "peers": lambda _, __, ___: {},
}


def show(console: Console, figures: dict[str, Any]) -> None:
    table = Table("loader", "Mtok / CPU s", box=None, header_style="dim")
    for name, value in figures["mtok_per_cpu_s"].items():
        table.add_row(name, f"{value:,.0f}")
    console.print(table)
    for name, value in figures.items():
        if name != "mtok_per_cpu_s":
            console.print(f"{name}: {value}")


if __name__ == "__main__":
    main()

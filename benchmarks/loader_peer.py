"""One other loader over the benchmark's tokens, in its own environment: no import from this project.

    python loader_peer.py (torchdata|litdata|mosaic|grain) FOLDER N_WORKERS CPU_SECONDS

FOLDER holds `weights.json` and, for each domain in it, NAME.bin: uint16 tokens one after another. litdata and
mosaic have formats of their own, which their own writers write below FOLDER first (not counted). Each loader
is set up as its documentation has it for pre-tokenized rows of 2048 and one token more: sources mixed by the
weights, shuffled, batches of 16 as two int64 tensors, inputs and labels (grain's are numpy's). No document
is looked at: none of them packs or masks.

Prints JSON: `mtok_per_cpu_s`, the median of three stretches of CPU_SECONDS / 3, of this process and of its
children; `first_batch_ms`, from construction; `resume_ms`, from a saved state to the next batch, in a new
loader; `resumes_exactly`, whether the four batches after it are those that the saved run gave.
"""

import json
import os
import pickle
import resource
import statistics
import sys
import time
import types
from pathlib import Path

import numpy as np

L, ROWS = 2048, 16


class Rows:
    """Row r of a memory-mapped file: L tokens and the next."""

    def __init__(self, path):
        self.tokens = np.memmap(path, np.uint16, mode="r")

    def __len__(self):
        return (self.tokens.size - 1) // L

    def __getitem__(self, r):
        return self.tokens[r * L : r * L + L + 1]


def pair(rows):
    """Inputs and labels as torch tensors."""
    import torch

    batch = torch.from_numpy(np.stack(rows).astype(np.int64))
    return batch[:, :-1], batch[:, 1:]


class Torchdata:
    """torchdata.nodes: a weighted sampler over map-style sources, each shuffled; threads as workers."""

    def __init__(self, folder, weights, n_workers):
        import torch
        from torch.utils.data import RandomSampler
        from torchdata.nodes import (
            Batcher,
            Loader,
            Mapper,
            MapStyleWrapper,
            MultiNodeWeightedSampler,
            ParallelMapper,
        )

        sources = {}
        for seed, name in enumerate(weights):
            rows, generator = Rows(folder / f"{name}.bin"), torch.Generator().manual_seed(seed)
            sources[name] = MapStyleWrapper(rows, RandomSampler(rows, generator=generator))
        mixed = Batcher(MultiNodeWeightedSampler(sources, weights, seed=0), ROWS)
        made = ParallelMapper(mixed, pair, n_workers, method="thread") if n_workers else Mapper(mixed, pair)
        self.loader = Loader(made)

    def state(self):
        return self.loader.state_dict()

    def load(self, state):
        self.loader.load_state_dict(state)


class Litdata:
    """litData: a CombinedStreamingDataset of token chunks, one block of L + 1 tokens a sample."""

    def __init__(self, folder, weights, n_workers):
        from litdata import CombinedStreamingDataset, StreamingDataLoader, StreamingDataset, TokensLoader

        parts = [
            StreamingDataset(
                str(folder / "litdata" / name), item_loader=TokensLoader(block_size=L + 1), shuffle=True
            )
            for name in weights
        ]
        mixed = CombinedStreamingDataset(parts, weights=list(weights.values()), iterate_over_all=False)
        self.loader = StreamingDataLoader(
            mixed, batch_size=ROWS, num_workers=n_workers, collate_fn=litdata_pair
        )

    @staticmethod
    def write(folder, weights):
        from litdata import TokensLoader
        from litdata.streaming.cache import Cache

        for name in weights:  # what `litdata.optimize` does, without its processes
            target = folder / "litdata" / name
            target.mkdir(parents=True, exist_ok=True)
            cache = Cache(str(target), chunk_size=(L + 1) * 4096, item_loader=TokensLoader(L + 1))
            rows = Rows(folder / f"{name}.bin")
            for r in range(len(rows)):
                cache[r] = np.array(rows[r])
            cache.done()
            cache.merge()

    def state(self):
        return self.loader.state_dict()

    def load(self, state):
        self.loader.load_state_dict(state)


def litdata_pair(rows):
    return pair([np.asarray(row) for row in rows])


class Mosaic:
    """MosaicML Streaming: one Stream for each domain with its proportion, shuffled by py1e."""

    def __init__(self, folder, weights, n_workers):
        without_images()
        from streaming.base.util import clean_stale_shared_memory

        from streaming import Stream, StreamingDataLoader, StreamingDataset

        clean_stale_shared_memory()
        streams = [
            Stream(local=str(folder / "mds" / name), proportion=weight) for name, weight in weights.items()
        ]
        dataset = StreamingDataset(
            streams=streams, batch_size=ROWS, shuffle=True, shuffle_algo="py1e", num_canonical_nodes=1
        )
        self.loader = StreamingDataLoader(
            dataset, batch_size=ROWS, num_workers=n_workers, collate_fn=mosaic_pair
        )

    @staticmethod
    def write(folder, weights):
        without_images()
        from streaming import MDSWriter

        for name in weights:
            rows = Rows(folder / f"{name}.bin")
            columns = {"tokens": f"ndarray:uint16:{L + 1}"}
            with MDSWriter(out=str(folder / "mds" / name), columns=columns) as out:
                for r in range(len(rows)):
                    out.write({"tokens": np.asarray(rows[r])})

    def state(self):
        return self.loader.state_dict()

    def load(self, state):
        self.loader.load_state_dict(state)


def without_images():
    """Leaves out the part that imports torchvision, whose build must be that of torch to the letter."""
    sys.modules["streaming.vision"] = types.ModuleType("streaming.vision")


def mosaic_pair(rows):
    """A dictionary: the loader counts samples by the length of a batch's first value."""
    inputs, labels = pair([row["tokens"] for row in rows])
    return {"input_ids": inputs, "labels": labels}


class Grain:
    """Grain: MapDataset.mix of shuffled, endless sources."""

    def __init__(self, folder, weights, n_workers):
        import grain

        sources = [
            grain.MapDataset.source(Rows(folder / f"{name}.bin")).seed(0).shuffle().repeat(None)
            for name in weights
        ]
        mixed = grain.MapDataset.mix(sources, weights=list(weights.values()))
        batches = mixed.batch(ROWS, batch_fn=grain_pair)
        options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        made = batches.to_iter_dataset(options)
        if n_workers:
            made = made.mp_prefetch(grain.MultiprocessingOptions(num_workers=n_workers))
        self.loader = self.iterator = iter(made)

    def state(self):
        return self.iterator.get_state()

    def load(self, state):
        self.iterator.set_state(state)


def grain_pair(rows):
    batch = np.stack(rows).astype(np.int64)
    return batch[:, :-1], batch[:, 1:]


PEERS = {"torchdata": Torchdata, "litdata": Litdata, "mosaic": Mosaic, "grain": Grain}


def endless(loader):
    """Batches, epoch after epoch."""
    while True:
        yield from loader


def inputs_of(batch):
    inputs = batch["input_ids"] if isinstance(batch, dict) else batch[0]
    return np.asarray(inputs).tobytes()


def cpu_seconds():
    """Of this process, of its children that ended, and of those that run."""
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    ended = sum(part.ru_utime + part.ru_stime for part in parts)
    return ended + sum(of_process(pid) for pid in descendants(os.getpid()))


def descendants(pid):
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def of_process(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rate(batches, seconds):
    """Million tokens per CPU-second: the median of three stretches."""
    for _ in range(50):
        next(batches)
    found = []
    for _ in range(3):
        begin, n_batches, spent = cpu_seconds(), 0, 0.0
        while spent < seconds / 3:
            for _ in range(50):
                next(batches)
            n_batches += 50
            spent = cpu_seconds() - begin
        found.append(n_batches * ROWS * L / spent / 1e6)
    return statistics.median(found)


def resume(peer, folder, weights, n_workers):
    """Saved after 40 batches, loaded in a new loader: milliseconds, whether the next four are the same."""
    running = peer(folder, weights, n_workers)
    batches = iter(running.loader)
    for _ in range(40):
        next(batches)
    state = pickle.dumps(running.state())
    expected = [inputs_of(next(batches)) for _ in range(4)]
    del running, batches
    begin = time.perf_counter()
    resumed = peer(folder, weights, n_workers)
    resumed.load(pickle.loads(state))
    batches = iter(resumed.loader)
    found = [inputs_of(next(batches))]
    resume_ms = 1e3 * (time.perf_counter() - begin)
    found += [inputs_of(next(batches)) for _ in range(3)]
    return {"resume_ms": resume_ms, "resumes_exactly": found == expected}


def main():
    peer, folder = PEERS[sys.argv[1]], Path(sys.argv[2])
    n_workers, seconds = int(sys.argv[3]), float(sys.argv[4])
    weights = json.loads((folder / "weights.json").read_text())
    written = folder / f"{sys.argv[1]}.written"
    if hasattr(peer, "write") and not written.exists():
        peer.write(folder, weights)
        written.touch()
    peer(folder, weights, n_workers)  # imports
    begin = time.perf_counter()
    made = peer(folder, weights, n_workers)
    batches = endless(made.loader)
    next(batches)
    figures = {"first_batch_ms": 1e3 * (time.perf_counter() - begin)}
    figures["mtok_per_cpu_s"] = rate(batches, seconds)
    batches.close()
    del made, batches
    try:
        figures |= resume(peer, folder, weights, n_workers)
    except Exception as error:  # noqa: BLE001 (a peer that cannot resume is a figure, too)
        figures["resumes_exactly"] = f"{type(error).__name__}: {error}"
    print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "grain" and int(sys.argv[3]):  # its workers want absl's flags parsed
        from absl import app

        app.run(lambda _: main(), argv=sys.argv[:1])
    else:
        main()

"""What a policy costs a trainer, by the CPU clock of its thread around the very calls: see online.py."""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cuvee.streaming import Batch, StreamingLoader
from cuvee.streaming.online import Online, OnlineMixing
from cuvee.streaming.policies import Ado, MirrorDescent, Policy
from cuvee.streaming.published_policies import Exp3S, GroupDro, Odm
from cuvee.streaming.shards import domain_folder, shard_name, write_manifest, write_token_shard

N_BLOCKS = 25
EVERY = (20, 1)  # steps between reports: the default, and the most there can be


def microseconds_of_update(n_domains: int = 64, n_updates: int = 1000) -> dict[str, float]:
    """CPU time of `observe` and `weights` together, by policy: the median of blocks of updates."""
    rng = np.random.default_rng(0)
    prior = rng.dirichlet(np.full(n_domains, 2.0))
    makers: Mapping[str, Callable[[], Policy]] = {
        "mirror_descent (default)": lambda: MirrorDescent(prior),
        "ado": lambda: Ado(prior),
        "odm, released": lambda: Odm(prior, form="released"),
        "exp3s": lambda: Exp3S(prior),
        "group_dro": lambda: GroupDro(prior, np.full(n_domains, 2.0)),
    }
    losses, tokens = rng.uniform(2, 4, (n_updates, n_domains)), np.full(n_domains, 1e5)

    def typical(policy: Policy) -> float:
        blocks = []
        for block in np.array_split(losses, N_BLOCKS):
            begin = time.thread_time_ns()
            for row in block:
                policy.observe(row, tokens)
                _ = policy.weights
            blocks.append((time.thread_time_ns() - begin) / len(block))
        return statistics.median(blocks) / 1000

    return {name: typical(make()) for name, make in makers.items()}


class _Timed(StreamingLoader):
    """A loader that knows what its policy took in asking for batches."""

    def __init__(self, *args: Any, **arguments: Any) -> None:
        super().__init__(*args, **arguments)
        self.report_ns, self.report = 0, self._run._report
        self._run._report = self._timed_report  # type: ignore[method-assign]

    def _timed_report(self, online: Online) -> None:
        begin = time.thread_time_ns()
        self.report(online)
        self.report_ns += time.thread_time_ns() - begin


def microseconds_of_feedback(
    n_domains: int = 64, n_rows: int = 256, steps_of_block: int = 200
) -> dict[str, float]:
    """CPU time a step of `feedback` and of the policy's reports, medians of N_BLOCKS blocks of steps.

    Rows of 64 tokens, losses on the CPU. Twice: the calls of a block one after another, and each between
    making two batches, which empty the caches as a training step does; that includes reading the clock.
    """
    import torch

    losses, found = torch.rand(n_rows), dict[str, float]()
    with tempfile.TemporaryDirectory() as folder:
        names = [f"d{k:02d}" for k in range(n_domains)]
        sources = {name: write_stream(Path(folder), name) for name in names}
        for every in EVERY:
            loader = _Timed(
                sources,
                sequence_length=64,
                global_batch=n_rows,
                policy=OnlineMixing(every=every),
                prefetch=0,
                seed=1,
            )
            blocks = [_block(loader, losses, steps_of_block) for _ in range(N_BLOCKS + 1)]
            # The first block loads kernels.
            alone, together, between = map(statistics.median, zip(*blocks[1:], strict=True))
            found |= {
                f"feedback, report every {every}": alone,
                f"feedback and policy, report every {every}": together,
                f"feedback and policy, report every {every}, between batches": between,
            }
    return found


def _block(loader: _Timed, losses: Any, n_steps: int) -> tuple[float, float, float]:
    """Microseconds a step: feedback alone, with reports, and both between batches."""
    loader.report_ns, between = 0, 0
    for _ in range(n_steps):
        batch = next(loader)
        begin = time.thread_time_ns()
        loader.feedback(batch, loss_per_row=losses)
        between += time.thread_time_ns() - begin
    between += loader.report_ns
    alone = _told(loader, losses, [next(loader) for _ in range(n_steps)], 0)
    online = loader._online
    assert online is not None
    batches = [next(loader) for _ in range(n_steps)]
    return alone, _told(loader, losses, batches, online.mixing.every), between / n_steps / 1000


def _told(loader: _Timed, losses: Any, batches: Sequence[Batch], every: int) -> float:
    """Microseconds a step of telling of batches one after another, with a report to the policy every so many.

    Reports come early then, which the loader makes up for: the next ones are due later.
    """
    online = loader._online
    assert online is not None
    begin = time.thread_time_ns()
    for number, batch in enumerate(batches, start=1):
        loader.feedback(batch, loss_per_row=losses)
        if every and number % every == 0:
            loader.report(online)
    return (time.thread_time_ns() - begin) / len(batches) / 1000


def write_stream(folder: Path, domain: str) -> Path:
    """A domain of 2**18 tokens."""
    path = domain_folder(folder, domain)
    values = np.random.default_rng(0).integers(0, 1000, 2**18)
    offsets = np.arange(0, 2**18 + 1, 2**12)
    documents = np.arange(offsets.size - 1, dtype=np.uint64)
    write_token_shard(path / shard_name("train", 0), values, offsets, documents, "uint16")
    write_manifest(path, domain=domain, vocab_size=1000, tokenizer_hash="none", eos_id=0)
    return path

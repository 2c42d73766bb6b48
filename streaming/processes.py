"""Worker processes as an executor: they read tokens into a ring of shared memory, the loader widens them."""

import collections
import json
import mmap
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..kernels.gather import TokenStream
from .assemble import RankRows
from .batch import Batch
from .executors import Maker, Planned
from .warm_up import kernels
from .worker import Slot


class WorkerProcesses:
    """`n_workers` processes, one batch each in turn, up to n_ahead batches before they are asked for.

    For token shards whose reading waits: a network's file system, a cold disk. Workers are started as
    programs, not forked: no lock is copied, no main guard is needed. They end with this object and with this
    process, however it ends; shared memory has no name and goes with the last process that maps it.

    Args:
        steps: the plan.
        maker: picks this rank's rows, and makes the batches out of what workers copied.
        shards: files of the maker's stream, in its order.
        n_workers: processes.
        n_ahead: batches that are being filled while the trainer has one.
        max_rows: of any batch of this rank.
    Raises:
        RuntimeError: a worker ended.
    """

    def __init__(
        self,
        steps: Iterator[Planned],
        maker: Maker,
        shards: Sequence[Path],
        n_workers: int,
        n_ahead: int,
        max_rows: int,
    ) -> None:
        self._steps, self._maker, self.max_rows = steps, maker, max_rows
        self._n_ahead = max(n_ahead, n_workers)
        assembler = maker.assembler
        max_tokens, dtype = max_rows * assembler.sequence_length, assembler.stream.dtype
        n_slots = -(-self._n_ahead // n_workers)
        self._pending: collections.deque[tuple[Planned, RankRows, int]] = collections.deque()
        self._n_asked = 0
        self._slots: list[list[Slot]] = []
        self._workers: list[subprocess.Popen[bytes]] = []
        self._finalizer = weakref.finalize(self, _end_workers, self._workers)
        for _ in range(n_workers):
            file = _nameless_file(n_slots * Slot.n_bytes(max_tokens, dtype))
            try:
                memory = mmap.mmap(file, 0)
                self._slots.append([Slot(memory, k, max_tokens, dtype) for k in range(n_slots)])
                self._workers.append(_start(file, shards, n_slots, max_tokens))
            finally:
                os.close(file)

    def next(self) -> tuple[Planned, Batch] | None:
        while len(self._pending) < self._n_ahead and self._ask():
            pass
        if not self._pending:
            return None
        step, rows, number = self._pending.popleft()
        worker, slot = self._place(number)
        self._wait_for(worker, step)
        return step, self._widen(rows, self._slots[worker][slot])

    def drain(self) -> None:
        """Wait for what workers were asked for, and throw it away."""
        while self._pending:
            step, _, number = self._pending.popleft()
            self._wait_for(self._place(number)[0], step)

    def follow(self, steps: Iterator[Planned]) -> None:
        """Go on with another plan; nothing may be pending."""
        self._steps = steps

    def close(self) -> None:
        self._finalizer()

    def _wait_for(self, worker: int, step: Planned) -> None:
        answers = self._workers[worker].stdout
        assert answers is not None
        if not answers.read(1):
            raise self._death(worker, step)

    def _place(self, number: int) -> tuple[int, int]:
        worker = number % len(self._workers)
        return worker, number // len(self._workers) % len(self._slots[worker])

    def _ask(self) -> bool:
        """Send one more request, if the run has one."""
        step = next(self._steps, None)
        if step is None:
            return False
        rows = self._maker.rows_of(step)
        worker, slot = self._place(self._n_asked)
        requests = self._workers[worker].stdin
        assert requests is not None
        try:
            requests.write(np.concatenate([[slot, rows.starts.size], rows.starts, rows.lengths]).tobytes())
        except BrokenPipeError:
            raise self._death(worker, step) from None
        self._pending.append((step, rows, self._n_asked))
        self._n_asked += 1
        return True

    def _widen(self, rows: RankRows, slot: Slot) -> Batch:
        n_tokens = int(rows.lengths.sum()) + rows.lengths.size
        copied = TokenStream([slot.tokens[:n_tokens]], [slot.ends[: slot.n_ends[0]]])
        starts = np.cumsum(rows.lengths + 1) - rows.lengths - 1
        return self._maker.assembler.assemble(
            rows, compiled=kernels.done_already(), stream=copied, starts=starts
        )

    def _death(self, worker: int, step: Planned) -> RuntimeError:
        self.close()
        code = self._workers[worker].returncode
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}; its error is above"
        return RuntimeError(
            f"worker process {worker} of the loader {how}, while it read step {step.step}; "
            "load the last state into a new loader (with workers=0 if it happens again)"
        )


def _nameless_file(n_bytes: int) -> int:
    """A descriptor of zeroed memory without a name."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("cuvee-loader")
    else:
        with tempfile.TemporaryFile() as temporary:
            file = os.dup(temporary.fileno())
    os.ftruncate(file, n_bytes)
    return file


def _start(file: int, shards: Sequence[Path], n_slots: int, max_tokens: int) -> subprocess.Popen[bytes]:
    worker = subprocess.Popen(
        [sys.executable, "-m", "cuvee.streaming.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(file,),
        bufsize=0,
    )
    setup = {
        "shards": [str(path.resolve()) for path in shards],
        "memory": file,
        "n_slots": n_slots,
        "max_tokens": max_tokens,
    }
    assert worker.stdin is not None
    worker.stdin.write(json.dumps(setup).encode() + b"\n")
    return worker


def _end_workers(workers: Sequence["subprocess.Popen[bytes]"]) -> None:
    """They end when their input does; one that is still reading after a second is stopped."""
    for worker in workers:
        for pipe in (worker.stdin, worker.stdout):
            if pipe is not None:
                pipe.close()
    for worker in workers:
        try:
            worker.wait(timeout=1)
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()

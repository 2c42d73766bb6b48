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
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .batch import Batch
from .executors import Maker, Planned, group_size
from .rank_rows import RankRows
from .warm_up import kernels
from .worker import Slot


class _Group(NamedTuple):
    """Batches that are asked for at once, and come in one slot."""

    worker: int
    slot: Slot
    steps: list[Planned]
    rows: RankRows
    starts: NDArray[np.int64]  # (n_segments,), in the slot
    n_tokens: int  # of the slot that are used


class WorkerProcesses:
    """`n_workers` processes, one group of batches each in turn, up to n_ahead groups ahead of the trainer.

    For token shards whose reading waits: a network's file system, a cold disk. Workers are started as
    programs, not forked: no lock is copied, no main guard is needed. They end with this object and with this
    process, however it ends; shared memory has no name and goes with the last process that maps it.

    Args:
        groups: the plan.
        maker: picks this rank's rows, and makes the batches out of what workers copied.
        paths: of the maker's shards, in their order.
        n_workers: processes.
        n_ahead: groups that are being copied, the trainer's included.
        max_rows: of any batch of this rank.
    Raises:
        OSError: this system hands no open files to processes.
        RuntimeError: a worker ended.
    """

    def __init__(
        self,
        groups: Iterator[list[Planned]],
        maker: Maker,
        paths: Sequence[str],
        n_workers: int,
        n_ahead: int,
        max_rows: int,
    ) -> None:
        if os.name == "nt":
            raise OSError("workers: Windows hands no open files to processes; use prefetch, which needs none")
        self._groups, self._maker, self.max_rows = groups, maker, max_rows
        self._n_ahead = max(n_ahead, n_workers)
        n_tokens, dtype = max_rows * maker.assembler.sequence_length, maker.residency.dtype
        max_tokens = n_tokens * group_size(n_tokens)
        n_slots = -(-self._n_ahead // n_workers)
        self._asked: collections.deque[_Group] = collections.deque()
        self._made: list[tuple[Planned, Batch]] = []  # of a group, the next one last
        self._n_asked = 0
        self._slots: list[list[Slot]] = []
        self._workers: list[subprocess.Popen[bytes]] = []
        self._finalizer = weakref.finalize(self, _end_workers, self._workers)
        shards = maker.residency.description(paths)
        for _ in range(n_workers):
            file = _nameless_file(n_slots * Slot.n_bytes(max_tokens, dtype))
            try:
                memory = mmap.mmap(file, 0)
                self._slots.append([Slot(memory, k, max_tokens, dtype) for k in range(n_slots)])
                self._workers.append(_start(file, shards, n_slots, max_tokens))
            finally:
                os.close(file)

    def next(self) -> tuple[Planned, Batch] | None:
        if not self._made:
            self._ask_ahead()
            if not self._asked:
                return None
            group = self._asked.popleft()
            self._wait_for(group)
            self._made = list(zip(group.steps, self._widened(group), strict=True))[::-1]
            self._ask_ahead()  # the slot may be filled anew
        return self._made.pop()

    def drain(self) -> None:
        """Wait for what workers were asked for, and throw it away."""
        self._made = []
        while self._asked:
            self._wait_for(self._asked.popleft())

    def follow(self, groups: Iterator[list[Planned]]) -> None:
        """Go on with another plan; after `drain`."""
        self._groups = groups

    def close(self) -> None:
        self._finalizer()

    def _ask_ahead(self) -> None:
        while len(self._asked) < self._n_ahead and self._ask():
            pass

    def _ask(self) -> bool:
        """Send one more request, if the run has one."""
        steps = next(self._groups, None)
        if steps is None:
            return False
        worker, turn = self._n_asked % len(self._workers), self._n_asked // len(self._workers)
        index = turn % len(self._slots[worker])
        rows = self._maker.rows_of(steps)
        ends = np.cumsum(rows.lengths + 1)  # each segment is copied with the token after it
        slot = self._slots[worker][index]
        group = _Group(worker, slot, steps, rows, ends - rows.lengths - 1, int(ends[-1]))
        requests = self._workers[worker].stdin
        assert requests is not None
        request = np.concatenate([[index, rows.lengths.size], rows.starts, rows.lengths])
        try:
            _write(requests, request.tobytes())
        except BrokenPipeError:
            raise self._death(group) from None
        self._asked.append(group)
        self._n_asked += 1
        return True

    def _wait_for(self, group: _Group) -> None:
        answers = self._workers[group.worker].stdout
        assert answers is not None
        if not answers.read(1):
            raise self._death(group)

    def _widened(self, group: _Group) -> list[Batch]:
        compiled = kernels.done_already()
        stream = group.slot.stream(group.n_tokens, compiled=compiled)
        return self._maker.assembler.assemble(group.rows, stream, group.starts, compiled=compiled)

    def _death(self, group: _Group) -> RuntimeError:
        self.close()
        worker, step = group.worker, group.steps[0].step
        code = self._workers[worker].returncode
        how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}; its error is above"
        return RuntimeError(
            f"worker process {worker} of the loader {how}, while it read step {step}; "
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


def _start(file: int, shards: dict[str, Any], n_slots: int, max_tokens: int) -> subprocess.Popen[bytes]:
    worker = subprocess.Popen(
        [sys.executable, "-m", "cuvee.streaming.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(file,),
        bufsize=0,
    )
    setup = {
        "residency": shards,
        "loader": os.getpid(),
        "memory": file,
        "n_slots": n_slots,
        "max_tokens": max_tokens,
    }
    assert worker.stdin is not None
    _write(worker.stdin, json.dumps(setup).encode() + b"\n")
    return worker


def _write(pipe: IO[bytes], data: bytes) -> None:
    """Write all of it: a signal that the trainer handles may end a write when the pipe is full."""
    left = memoryview(data)
    while left:
        left = left[pipe.write(left) :]


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

"""Engines: where the shards' work is done. One small interface, two implementations, the same bytes.

`LocalEngine` runs threads in this process: it starts in milliseconds, and the kernels release the GIL.
`RayEngine` (ray_engine.py) runs the same functions on a Ray cluster.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol, TypeVar

import pyarrow as pa

from .errors import EnvironmentFailure
from .partials import rows_of

T = TypeVar("T")
R = TypeVar("R")
Merge = Callable[[Sequence[pa.Table]], pa.Table]

MERGE_WIDTH = 8
"""Partials merged at once: the reduction is a tree of this width."""
EXCHANGE_BYTES = 16 << 20
"""Aimed size of one partition of an exchange."""


class Engine(Protocol):
    """Where work is done. Functions and tasks are picklable; results arrive in any order."""

    name: str
    n_workers: int

    def map_shards(
        self,
        function: Callable[[T], R],
        tasks: Sequence[T],
        on_result: Callable[[R], None],
        *,
        isolated: bool = False,
    ) -> None:
        """Call `function` on every task, and `on_result` here, in this thread, as each one ends.

        Args:
            isolated: in processes of one task at a time, for work that sets process-wide state (torch's
                threads).
        Raises:
            Exception: the first that a call raised; calls that have not begun are not made.
        """
        ...

    def reduce(self, partials: Sequence[pa.Table], merge: Merge) -> pa.Table:
        """All partials merged into one."""
        ...

    def exchange(
        self, paths: Sequence[Path], key: str, combine: Callable[[pa.Table], pa.Table]
    ) -> list[pa.Table]:
        """`combine` of each partition of the Arrow files' rows; rows of one key meet in one partition.

        Args:
            paths: as `write_partial` leaves them, in the order of `key`.
        """
        ...

    def close(self) -> None:
        """Let go of threads, processes and clusters that the engine started."""
        ...


class LocalEngine:
    """Threads of this process, and processes for isolated work, which stay for the next such work."""

    name = "local"

    def __init__(self, n_workers: int | None = None) -> None:
        self.n_workers = n_workers or os.cpu_count() or 1
        self._processes: ProcessPoolExecutor | None = None
        self._other_children: list[BaseProcess] = []

    def map_shards(
        self,
        function: Callable[[T], R],
        tasks: Sequence[T],
        on_result: Callable[[R], None],
        *,
        isolated: bool = False,
    ) -> None:
        """See `Engine.map_shards`."""
        if not isolated:
            with ThreadPoolExecutor(self.n_workers) as threads:
                _map(threads, function, tasks, on_result)
            return
        try:
            _map(self._pool(), function, tasks, on_result)
        except BrokenProcessPool as error:
            self._kill()
            raise EnvironmentFailure(
                "a worker process was ended from outside, as the kernel does when memory runs out; give the "
                "run more memory or fewer workers (--workers), and run the same command again"
            ) from error
        except KeyboardInterrupt:
            self._kill()
            raise

    def _pool(self) -> ProcessPoolExecutor:
        if self._processes is None:
            self._other_children = active_children()
            self._processes = ProcessPoolExecutor(
                self.n_workers, get_context("spawn"), _begin_worker, (os.getpid(),)
            )
        return self._processes

    def _kill(self) -> None:
        """End the worker processes without waiting: what they write is whole or absent."""
        for process in active_children():
            if process not in self._other_children:
                process.kill()
        self.close()

    def reduce(self, partials: Sequence[pa.Table], merge: Merge) -> pa.Table:
        """See `Engine.reduce`."""
        level = list(partials)
        while len(level) > 1:
            groups = [level[i : i + MERGE_WIDTH] for i in range(0, len(level), MERGE_WIDTH)]
            with ThreadPoolExecutor(self.n_workers) as executor:
                level = list(executor.map(merge, groups))
        return level[0]

    def exchange(
        self, paths: Sequence[Path], key: str, combine: Callable[[pa.Table], pa.Table]
    ) -> list[pa.Table]:
        """See `Engine.exchange`. One partition a worker is in memory, and of the files its rows alone."""
        n_partitions = n_exchange_partitions(sum(path.stat().st_size for path in paths), self.n_workers)

        def partition(index: int) -> pa.Table:
            return combine(pa.concat_tables([rows_of(path, key, index, n_partitions) for path in paths]))

        with ThreadPoolExecutor(self.n_workers) as executor:
            return list(executor.map(partition, range(n_partitions)))

    def close(self) -> None:
        """See `Engine.close`."""
        if self._processes is not None:
            self._processes.shutdown(cancel_futures=True)
            self._processes = None


def _map(
    executor: Executor, function: Callable[[T], R], tasks: Sequence[T], on_result: Callable[[R], None]
) -> None:
    futures = [executor.submit(function, task) for task in tasks]
    try:
        for future in as_completed(futures):
            on_result(future.result())
    except BaseException:
        for future in futures:
            future.cancel()
        raise


def n_exchange_partitions(n_bytes: int, n_workers: int) -> int:
    """Partitions such that each worker has work and none holds much more than `EXCHANGE_BYTES`."""
    return max(n_workers, -(-n_bytes // EXCHANGE_BYTES))


def _begin_worker(parent: int) -> None:
    """In a worker process: leave Ctrl-C to the parent, and exit when the parent is gone, however it went.

    The queue's pipe would not tell, since the sibling processes hold its other end too.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

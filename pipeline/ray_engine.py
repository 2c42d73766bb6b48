"""The engine on a Ray cluster: Ray Data over shard descriptors, its shuffle, its retries for lost nodes.

Paths are shared: every node must see the inputs and the run directory under the same names.
"""

import logging
import os
import pickle
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from . import engines
from .engines import MERGE_WIDTH, Merge, n_exchange_partitions
from .errors import UsageError
from .partials import partitions
from .shard_work import read_arrow

T = TypeVar("T")
R = TypeVar("R")
PARTITION = "_partition"


class RayEngine:
    """The interface of `Engine` on Ray.

    Args:
        n_workers: CPUs to use; of the local cluster that is started without an `address`, all it has.
        address: a cluster's address (``auto``, ``host:6379``, ``ray://host:10001``); None starts one here.
    Raises:
        UsageError: Ray is not installed.
    """

    name = "ray"

    def __init__(self, n_workers: int | None = None, address: str | None = None) -> None:
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise UsageError(
                "engine.kind is ray, but Ray is not installed: pip install 'cuvee[ray]'"
            ) from error
        address = address or os.environ.get("RAY_ADDRESS")  # a submitted job's own cluster
        self._owns_cluster = not ray.is_initialized()
        if self._owns_cluster:
            here: dict[str, Any] = {} if address else {"num_cpus": n_workers, "include_dashboard": False}
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **here)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        self._ray = ray
        self.n_workers = n_workers or int(ray.cluster_resources().get("CPU", 1))  # type: ignore[no-untyped-call]

    def map_shards(
        self,
        function: Callable[[T], R],
        tasks: Sequence[T],
        on_result: Callable[[R], None],
        *,
        isolated: bool = False,
    ) -> None:
        """See `Engine.map_shards`. Ray's workers are processes with one task at a time: always isolated."""
        if not tasks:
            return
        pickled = [pickle.dumps(task) for task in tasks]
        work = self._ray.data.from_items([{"task": task} for task in pickled], override_num_blocks=len(tasks))
        done = work.map(_Call(function), num_cpus=1)
        for row in done.iter_rows():
            outcome = pickle.loads(row["outcome"])
            if isinstance(outcome, _Raised):
                raise outcome.error
            on_result(outcome)

    def reduce(self, partials: Sequence[pa.Table], merge: Merge) -> pa.Table:
        """See `Engine.reduce`."""
        remote = self._ray.remote(lambda *group: merge(group))
        level = [self._ray.put(partial) for partial in partials]
        while len(level) > 1:
            level = [remote.remote(*level[i : i + MERGE_WIDTH]) for i in range(0, len(level), MERGE_WIDTH)]
        return self._ray.get(level[0])

    def exchange(
        self, paths: Sequence[Path], key: str, combine: Callable[[pa.Table], pa.Table]
    ) -> list[pa.Table]:
        """See `Engine.exchange`: Ray Data's shuffle, or one task where all fits into one partition."""
        n_bytes = sum(path.stat().st_size for path in paths)
        if n_bytes <= engines.EXCHANGE_BYTES:
            whole = self._ray.remote(lambda: combine(pa.concat_tables(map(read_arrow, paths))))
            return [self._ray.get(whole.remote())]
        n_partitions = n_exchange_partitions(n_bytes, self.n_workers)

        def tagged(batch: dict[str, Any]) -> pa.Table:
            table = pa.concat_tables([read_arrow(Path(path)) for path in batch["path"]])
            return table.append_column(PARTITION, pa.array(partitions(table[key].to_numpy(), n_partitions)))

        def combined(group: pa.Table) -> pa.Table:
            return combine(group.drop_columns([PARTITION]))

        rows = self._ray.data.from_items(
            [{"path": str(path)} for path in paths], override_num_blocks=len(paths)
        ).map_batches(tagged, batch_size=1)
        # Unless told, Ray Data makes 200 partitions and an aggregating process for each CPU.
        groups = rows.groupby(PARTITION, num_partitions=n_partitions).map_groups(
            combined, batch_format="pyarrow"
        )
        tables = [table for table in self._ray.get(groups.to_arrow_refs()) if table.num_columns]
        return tables or [combine(read_arrow(paths[0]).slice(0, 0))]  # of no rows Ray makes no groups

    def close(self) -> None:
        """Stop the cluster if this engine started it."""
        if self._owns_cluster:
            self._ray.shutdown()


class _Raised:
    """An exception on its way to the driver as itself, with where it was raised as a note."""

    def __init__(self, error: Exception) -> None:
        raised_at = "".join(traceback.format_exception(error))
        try:
            self.error: Exception = pickle.loads(pickle.dumps(error))
        except Exception:  # noqa: BLE001 - one that cannot travel goes by its name and message
            self.error = RuntimeError(f"{type(error).__name__}: {error}")
        self.error.add_note(f"On a Ray worker:\n{raised_at}")


class _Call:
    """A task row -> its outcome, pickled."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function = function

    def __call__(self, row: dict[str, Any]) -> dict[str, bytes]:
        try:
            outcome = self.function(pickle.loads(row["task"]))
        except Exception as error:  # noqa: BLE001 - raised again by the driver
            outcome = _Raised(error)
        return {"outcome": pickle.dumps(outcome)}

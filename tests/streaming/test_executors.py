import gc
import hashlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest
import torch

from cuvee.streaming import StreamingLoader
from cuvee.streaming.batch import FIELDS
from cuvee.streaming.decomposition import Vsl
from cuvee.streaming.executors import BackgroundThread
from cuvee.streaming.warm_up import kernels

EXECUTORS = [{"prefetch": 0}, {"prefetch": 1}, {"prefetch": 5}, {"workers": 1}, {"workers": 2, "prefetch": 5}]


@pytest.fixture
def sources(write_stream):
    return {
        name: write_stream(name, n, first=10_000 * k, n_shards=3)
        for k, (name, n) in enumerate({"code": 100, "web": 400, "wiki": 61}.items())
    }


def loader(sources, **options) -> StreamingLoader:
    arguments = {"sequence_length": 8, "global_batch": 12, "emit": FIELDS, "prefetch": 0, **options}
    return StreamingLoader(sources, {"code": 0.3, "web": 0.5, "wiki": 0.2}, **arguments)


def digest(batch) -> str:
    values = [batch[name] for name in batch.keys()]  # noqa: SIM118 (a Batch is no dict)
    parts = [bytes(v) if isinstance(v, int) else v.numpy().tobytes() for v in values]
    return hashlib.blake2b(b"".join([bytes(batch.step), *parts])).hexdigest()


def take(batches: StreamingLoader, n: int) -> list[str]:
    return [digest(batch) for batch in itertools.islice(batches, n)]


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "cuvee-loader"]


@pytest.mark.parametrize(
    ("executor", "packing"),
    [
        *itertools.product(EXECUTORS[:3], ["concat", "best_fit"]),
        (EXECUTORS[3], "concat"),
        (EXECUTORS[4], "best_fit"),
    ],
    ids=str,
)
def test_every_executor_gives_the_batches_that_inline_gives(sources, executor, packing: str) -> None:
    options = {"packing": packing, "max_epochs": {"wiki": 2}, "steps": 40}
    running = loader(sources, **options, **executor)
    assert take(running, 50) == take(loader(sources, **options), 50)
    assert list(running) == []
    running.close()


@pytest.mark.parametrize("packing", ["concat", "best_fit", "vsl"])
def test_ranks_that_make_batches_in_groups_share_the_batches_of_one(sources, packing: str) -> None:
    options = {"packing": packing, "sequence_length": 16 if packing == "vsl" else 8}
    if packing == "vsl":
        options["packing"] = Vsl(min_length=4)
    whole = itertools.islice(loader(sources, **options), 20)
    parts = [loader(sources, **options, rank=rank, world_size=3, prefetch=2) for rank in range(3)]
    for batch, *of_ranks in zip(whole, *(itertools.islice(part, 20) for part in parts), strict=True):
        for name in ("input_ids", "labels", "position_ids", "domain_ids", "row_ids", "weights"):
            assert torch.equal(torch.cat([part[name] for part in of_ranks]), batch[name])
    for part in parts:
        part.close()


@pytest.mark.parametrize("executor", EXECUTORS[1:4], ids=str)
def test_the_state_is_of_the_last_batch_handed_out_not_of_those_ahead(sources, executor) -> None:
    undisturbed = take(loader(sources), 30)
    running, seen = loader(sources, **executor), []
    for _ in range(2):
        seen += take(running, 3)
        state = json.loads(json.dumps(running.state_dict()))
        assert state["step"] == len(seen)
        running.close()
        running = loader(sources, **executor)
        running.load_state_dict(state)
    assert seen + take(running, 2) == undisturbed[:8]
    running.set_weights({"code": 0.0, "web": 0.0, "wiki": 1.0})
    assert set(next(running).domain_ids.tolist()) == {2}
    running.set_global_batch(24)
    assert next(running).domain_ids.tolist() == [2] * 24
    running.close()


def test_batches_made_while_kernels_load_are_those_of_the_kernels(sources, monkeypatch) -> None:
    kernels.done(wait=True)
    for packing in ("concat", "crop", "best_fit"):
        expected = take(loader(sources, packing=packing), 12)
        monkeypatch.setattr(kernels, "done_already", lambda: False)
        assert take(loader(sources, packing=packing), 12) == expected
        monkeypatch.undo()


def test_a_thread_ends_with_its_loader_and_with_the_run(sources) -> None:
    running = loader(sources, prefetch=3)
    take(running, 2)
    assert len(loader_threads()) == 1
    del running
    gc.collect()
    assert loader_threads() == []
    ended = loader(sources, prefetch=3, steps=2)
    assert len(take(ended, 9)) == 2
    for thread in loader_threads():
        thread.join(5)
    assert loader_threads() == []


def test_a_thread_that_collects_its_own_executor_ends(monkeypatch) -> None:
    may_collect, errors = threading.Event(), list[object]()
    monkeypatch.setattr("sys.unraisablehook", errors.append)

    def make(group) -> list[int]:
        may_collect.wait()
        gc.collect()
        return group

    gc.disable()
    try:
        executor = BackgroundThread(iter([[1], [2], [3]]), make, n_ahead=1)
        executor.itself = executor  # as a loader with super-batches, which hold the loader
        thread = executor._thread
        del executor
        may_collect.set()
        thread.join(60)
    finally:
        gc.enable()
    assert not thread.is_alive()
    assert errors == []


def test_an_error_in_the_thread_is_raised_where_the_batch_is_asked_for(sources, monkeypatch) -> None:
    running = loader(sources, prefetch=2)
    take(running, 1)

    def broken(*_: object, **__: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("cuvee.streaming.assemble.gather", broken)
    with pytest.raises(OSError, match="No space left"):
        take(running, 9)


@pytest.mark.parametrize(
    ("executor", "place", "error"),
    [
        (EXECUTORS[0], "assemble.Assembler.assemble", KeyboardInterrupt),
        (EXECUTORS[0], "plan.Planner.plan", KeyboardInterrupt),
        (EXECUTORS[1], "assemble.Assembler.assemble", OSError),
        (EXECUTORS[3], "processes.WorkerProcesses._wait_for", KeyboardInterrupt),
    ],
    ids=str,
)
def test_who_asks_again_after_an_error_misses_no_batch(
    sources, executor, place: str, error: type[BaseException], monkeypatch
) -> None:
    options = {"packing": "best_fit", "max_epochs": 2}
    expected = take(loader(sources, **options), 99)
    running = loader(sources, **options, **executor)
    found = take(running, 1)

    def broken(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(f"cuvee.streaming.{place}", broken)
        with pytest.raises(error):
            found.extend(map(digest, running))
    assert running.state_dict()["step"] == len(found)
    assert found + take(running, 99) == expected
    running.close()


def test_batches_go_on_after_a_close_that_was_interrupted(sources, monkeypatch) -> None:
    expected, running = take(loader(sources), 9), loader(sources, prefetch=1)
    found = take(running, 4)

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("cuvee.streaming.plan.Planner.advance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            running.close()
    assert found + take(running, 5) == expected
    running.close()


def test_a_thread_pays_for_large_batches_only(sources) -> None:
    assert loader(sources, prefetch=None)._run.n_ahead == 0
    assert loader(sources, prefetch=None, global_batch=2**15)._run.n_ahead == 2
    assert loader(sources, prefetch=None, global_batch=2**15, world_size=2)._run.n_ahead == 0


def test_workers_stay_when_weights_change_and_end_with_their_loader(sources) -> None:
    running = loader(sources, workers=2)
    take(running, 2)
    before = [worker.pid for worker in running._run.executor._workers]
    running.set_weights({"code": 0.0, "web": 0.0, "wiki": 1.0})
    assert set(next(running).domain_ids.tolist()) == {2}
    assert [worker.pid for worker in running._run.executor._workers] == before
    processes = [psutil.Process(worker.pid) for worker in running._run.executor._workers]
    assert len(processes) == 2
    del running
    gc.collect()
    assert not any(process.is_running() for process in processes)


class CutShort(subprocess.Popen):
    """A process to which 99 bytes are written at a time, as where signals end a write."""

    class Pipe(io.FileIO):
        def write(self, data) -> int:
            return super().write(bytes(data)[:99])

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        whole, self.stdin = self.stdin, self.Pipe(os.dup(self.stdin.fileno()), "w")
        whole.close()


def test_requests_that_signals_cut_short_reach_a_worker_whole(sources, monkeypatch) -> None:
    monkeypatch.setattr("subprocess.Popen", CutShort)
    running = loader(sources, workers=1)
    assert take(running, 9) == take(loader(sources), 9)
    running.close()


def test_a_worker_that_was_killed_is_reported(sources) -> None:
    running = loader(sources, workers=2)
    take(running, 1)
    os.kill(running._run.executor._workers[1].pid, signal.SIGKILL)
    with pytest.raises(
        RuntimeError, match="worker process 1 of the loader was ended by signal 9, while it read"
    ):
        take(running, 99)


def test_a_loader_killed_with_9_leaves_no_process_and_no_shared_memory(sources) -> None:
    folders = {name: str(folder) for name, folder in sources.items()}
    script = f"""
    import os, signal, sys
    from cuvee.streaming import StreamingLoader
    sources = {folders!r}
    loader = StreamingLoader(sources, sequence_length=8, global_batch=12, workers=1)
    for _ in range(5): next(loader)
    maps = open("/proc/self/maps").read() if sys.platform == "linux" else ""
    print(*(worker.pid for worker in loader._run.executor._workers), "/dev/shm" in maps, flush=True)
    if os.fork() == 0:  # a child that holds the pipes open, as a trainer's own workers do
        os.execvp("sleep", ["sleep", "20"])
    os.kill(os.getpid(), signal.SIGKILL)
    """
    before = set(Path("/dev/shm").iterdir()) if Path("/dev/shm").is_dir() else set()
    *pids, has_named_memory = _first_line(textwrap.dedent(script)).split()
    assert (len(pids), has_named_memory) == (1, "False")
    deadline = time.monotonic() + 15
    while any(psutil.pid_exists(pid) and _is_ours(pid) for pid in map(int, pids)):
        assert time.monotonic() < deadline, "a worker outlived its loader"
        time.sleep(0.05)
    after = set(Path("/dev/shm").iterdir()) if Path("/dev/shm").is_dir() else set()
    assert not {path for path in after - before if "cuvee" in path.name}


def test_a_worker_whose_loader_was_killed_before_it_was_ready_ends(sources, monkeypatch) -> None:
    dumps = json.dumps

    def of_another(setup, **options: object) -> str:
        """The setup as a worker reads it that became a child of another process meanwhile."""
        return dumps({**setup, "loader": os.getppid()}, **options)

    monkeypatch.setattr("cuvee.streaming.processes.json.dumps", of_another)
    executor = loader(sources, workers=1)._run._new_executor()
    assert executor._workers[0].wait(60) == 0  # though its input is open
    executor.close()


def _first_line(script: str) -> str:
    """The first line that a script prints; it may leave a child that holds its output open."""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert process.wait(60) == -signal.SIGKILL
    process.stdout.close()
    return line


def _is_ours(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_pinned_batches_hold_what_others_hold(sources) -> None:
    expected = take(loader(sources), 20)
    for prefetch in (0, 3):
        running, found = loader(sources, pin_memory=True, prefetch=prefetch), []
        for batch in itertools.islice(running, 20):
            assert batch.input_ids.is_pinned()
            found.append(digest(batch.to("cuda", non_blocking=True).to("cpu")))
        assert found == expected

"""How a function becomes a compiled kernel: one decorator for all of them; and how to get them in time."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.compiler_lock import global_compiler_lock
from numpy.typing import NDArray

try:
    import fcntl
except ImportError:  # Windows: processes that need a kernel at the same time each compile it
    fcntl = None  # type: ignore[assignment]

F = TypeVar("F", bound=Callable[..., object])
PATIENCE = 300.0
"""Seconds to wait for another process that compiles a kernel, before it is compiled here too."""


def kernel(function: F) -> F:
    """`function`, compiled on first call, releasing the GIL, cached on disk, its type kept.

    No fastmath: NaN and infinities keep their meaning. The cache knows a kernel's own file only: after
    editing a kernel that others call, remove ``kernels/__pycache__``.

    >>> @kernel
    ... def add(a: int, b: int) -> int:
    ...     return a + b
    >>> add(2, 3)
    5
    """
    return _compiled(function)


def uncounted(function: F) -> F:
    """`function` as a kernel that makes no array, so that references to those it is given need no count.

    numba counts a reference wherever an array gets a name. These are calls that LLVM cannot see into: in a
    loop over words they can take most of the time.
    """
    return _compiled(function, _nrt=False)


def inlined(function: F) -> F:
    """`function` as part of each kernel that calls it: for small steps of inner loops, which make no array.

    LLVM puts it there. numba could, too (``inline="always"``), before it looks at types: then each copy is
    compiled anew, which is most of the work for a large kernel.
    """
    return _compiled(function, _nrt=False, forceinline=True)


def read_only(*arrays: NDArray[Any]) -> tuple[Any, ...]:
    """The arrays as Arrow's are: numba compiles a kernel once more for those that may be written to."""
    views = tuple(array.view() for array in arrays)
    for view in views:
        view.flags.writeable = False
    return views


def _compiled(function: F, **options: bool) -> F:
    # A doctest's or a notebook's function has no file to keep a cache beside.
    has_file = not function.__code__.co_filename.startswith("<")
    njit = cast(Any, numba.njit)  # its types leave some options out
    dispatcher = njit(nogil=True, cache=has_file, **options)(function)
    # Not where kernels run as plain Python (NUMBA_DISABLE_JIT).
    if has_file and fcntl is not None and hasattr(dispatcher, "overloads"):
        dispatcher.compile = _once(dispatcher)
    return cast(F, dispatcher)


def _once(dispatcher: Any) -> Callable[[Any], Any]:
    """The dispatcher's `compile`, by one process at a time: the others find the kernel in the cache.

    Ray's workers, or a test's processes, need the same kernels at the same moment. Kernels that call each
    other in a circle would wait for each other: there are none.
    """
    compile_now, cache = dispatcher.compile, dispatcher._cache

    def compile_once(signature: Any) -> Any:
        # numba's own lock first, here as in every thread: the other order could end in a deadlock.
        with global_compiler_lock, _alone(Path(cache.cache_path) / f"{cache._impl.filename_base}.lock"):
            return compile_now(signature)

    return compile_once


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold a file while no other process does; after `PATIENCE`, or where that cannot be, go on without."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        yield
        return
    try:
        until = time.monotonic() + PATIENCE
        while not _locked(descriptor) and time.monotonic() < until:
            time.sleep(0.05)
        yield
    finally:
        # Unlocked by name: a process forked meanwhile has the file open, too.
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    """Whether this process holds the file now, or no one ever can."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


class InBackground:
    """Loads kernels on a thread: numba takes about a second for its first one in a process, cached or not.

    Args:
        load: calls each kernel once.

    >>> loading = InBackground(lambda: None)
    >>> loading.done(wait=True)
    True
    """

    def __init__(self, load: Callable[[], object]) -> None:
        self._load, self._lock = load, threading.Lock()
        self._thread: threading.Thread | None = None
        self._may_begin = threading.Event()
        self._is_done, self._error, self._given_up = False, cast(BaseException | None, None), False
        # A process forked while the thread holds numba's locks must never ask for a kernel.
        if hasattr(os, "register_at_fork"):  # Windows does not fork
            os.register_at_fork(after_in_child=self._forked)

    def done(self, *, wait: bool = False) -> bool:
        """Whether the kernels are loaded; the first call begins to load them.

        Args:
            wait: until they are loaded.
        Raises:
            Exception: what loading them raised.
        """
        if self._is_done or self._given_up:
            return self._is_done
        try:
            with self._lock:
                if self._thread is None:
                    # Not a daemon: LLVM must not be at work when the process ends.
                    self._thread = threading.Thread(target=self._run, name="cuvee-kernels", daemon=False)
                    self._thread.start()
        finally:  # of an interrupted call, too: the process would wait at its end for a thread that waits
            self._may_begin.set()
        if wait:
            self._thread.join()
        if self._error is not None:
            raise self._error
        return self._is_done

    def done_already(self) -> bool:
        """Whether the kernels are loaded, without beginning to load them."""
        return self._is_done

    def _run(self) -> None:
        # Who starts a thread waits until it runs, and it would then keep the interpreter's lock for 5 ms.
        self._may_begin.wait()
        try:
            self._load()
            self._is_done = True
        except BaseException as error:  # noqa: BLE001 (raised again by `done`)
            self._error = error

    def _forked(self) -> None:
        self._given_up = not self._is_done and self._thread is not None

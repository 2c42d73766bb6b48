"""How a function becomes a compiled kernel: one decorator for all of them; and how to get them in time."""

import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


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
    # A doctest's or a notebook's function has no file to keep a cache beside.
    has_file = not function.__code__.co_filename.startswith("<")
    return cast(F, numba.njit(nogil=True, cache=has_file)(function))


def uncounted(function: F) -> F:
    """`function` as a kernel that makes no array, so that references to those it is given need no count.

    numba counts a reference wherever an array gets a name, and each inlined call gives names. These are calls
    that LLVM cannot see into: in a loop over words they took two thirds of the time.
    """
    has_file = not function.__code__.co_filename.startswith("<")
    njit = cast(Any, numba.njit)  # its types leave this option out
    return cast(F, njit(nogil=True, cache=has_file, _nrt=False)(function))


def inlined(function: F) -> F:
    """`function` as part of each kernel that calls it: for small steps of inner loops.

    numba counts a reference to each array at every call of another kernel, with an atomic instruction each.
    """
    return cast(F, numba.njit(nogil=True, inline="always")(function))


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
        with self._lock:
            if self._thread is None:
                # Not a daemon: LLVM must not be at work when the process ends.
                self._thread = threading.Thread(target=self._run, name="cuvee-kernels", daemon=False)
                self._thread.start()
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

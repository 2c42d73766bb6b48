"""How a function becomes a compiled kernel: one decorator for all of them."""

from collections.abc import Callable
from typing import TypeVar, cast

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


def inlined(function: F) -> F:
    """`function` as part of each kernel that calls it: for small steps of inner loops.

    numba counts a reference to each array at every call of another kernel, with an atomic instruction each.
    """
    return cast(F, numba.njit(nogil=True, inline="always")(function))

"""The one place that names numba: every compiled kernel of the project is made by `kernel`."""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., object])


def kernel(function: F) -> F:
    """`function`, compiled on first call, releasing the GIL, cached on disk, with its Python type kept.

    No fastmath: NaN and infinities keep their meaning. Shapes and dtypes are the kernel's own docstring's business.

    >>> @kernel
    ... def add(a: int, b: int) -> int:
    ...     return a + b
    >>> add(2, 3)
    5
    """
    # A doctest's or a notebook's function has no file to keep a cache beside.
    has_file = not function.__code__.co_filename.startswith("<")  # type: ignore[attr-defined]
    return cast(F, numba.njit(nogil=True, cache=has_file)(function))

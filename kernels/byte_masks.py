"""Sixty-four bytes of a text as the bits of one number, bit k for byte k.

Which bytes are white space or letters is one comparison of vectors; where words begin and end is arithmetic
on bits, without a branch for each byte. numba has no word for such a comparison, so it is written in LLVM's,
which makes the vectors of whatever processor there is. Beside this module only `jit` and `instructions` name
numba.
"""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.extending import intrinsic
from numpy.typing import NDArray

from .jit import inlined

WIDTH = 64
"""Bytes of a mask."""
ALL, NONE, ONE = ~np.uint64(0), np.uint64(0), np.uint64(1)
_VECTOR, _BITS = ir.VectorType(ir.IntType(8), WIDTH), ir.IntType(WIDTH)


def _full_mask(_: Any, data: Any, i: Any, first: Any, last: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        start = builder.gep(array.data, [arguments[1]])
        found = builder.load(builder.bitcast(start, _VECTOR.as_pointer()), align=1)
        low, high = (_everywhere(builder, bound) for bound in arguments[2:])
        # What is below `low` has a difference beyond all others: one comparison asks for both bounds.
        inside = builder.icmp_unsigned("<=", builder.sub(found, low), builder.sub(high, low))
        return builder.bitcast(inside, _BITS)

    return types.uint64(data, types.intp, types.uint8, types.uint8), build


def _everywhere(builder: Any, byte: Any) -> Any:
    none = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(none, byte, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, none, ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH))


def _counted(name: str) -> Callable[..., Any]:
    def typed(_: Any, mask: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if name == "ctpop":
                return builder.ctpop(arguments[0])
            return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

        return types.int64(types.uint64), build

    return typed


full_mask = cast(Callable[[NDArray[np.uint8], int, int, int], np.uint64], intrinsic(_full_mask))
"""The bytes of data[i:i + 64] from `first` to `last`, round 255 if `last` is less; all must be there."""
n_ones = cast(Callable[[np.uint64], int], intrinsic(_counted("ctpop")))
"""How many bytes a mask has."""
first_one = cast(Callable[[np.uint64], int], intrinsic(_counted("cttz")))
"""The first byte of a mask; 64 if it has none."""


@inlined
def in_range(data: NDArray[np.uint8], i: int, first: int, last: int) -> np.uint64:
    """The bytes of data[i:i + 64] from `first` to `last`, round 255 if `last` is less; those behind the end
    of `data` are none of them.

    `data` has `WIDTH` bytes or more (`wide`).
    """
    at = min(i, len(data) - WIDTH)
    return full_mask(data, at, first, last) >> np.uint64(i - at)


@inlined
def white_bytes(data: NDArray[np.uint8], i: int) -> np.uint64:
    """The bytes of data[i:i + 64] that are white space of ASCII, as ``str.isspace`` has it."""
    return in_range(data, i, 9, 13) | in_range(data, i, 28, 32)


@inlined
def letter_bytes(data: NDArray[np.uint8], i: int) -> np.uint64:
    """The bytes of data[i:i + 64] that are letters of ASCII."""
    return in_range(data, i, 0x41, 0x5A) | in_range(data, i, 0x61, 0x7A)


@inlined
def lowest(mask: np.uint64) -> np.uint64:
    """The mask of its first byte alone."""
    return mask & (~mask + ONE)


@inlined
def below(n_bytes: int) -> np.uint64:
    """The first `n_bytes` bytes of a mask, all of them if that is more."""
    return ALL if n_bytes >= WIDTH else (ONE << np.uint64(n_bytes)) - ONE


@inlined
def first_white(data: NDArray[np.uint8], i: int, end: int) -> int:
    """The first white space of ASCII in data[i:end]; `end` if there is none."""
    while i < end:
        found = first_one(white_bytes(data, i))
        i += found
        if found < WIDTH:
            break
    return min(i, end)


@inlined
def first_in_range(data: NDArray[np.uint8], i: int, end: int, first: int, last: int) -> int:
    """The first byte of data[i:end] from `first` to `last`, round 255 if `last` is less; `end` if there is
    none."""
    while i < end:
        found = first_one(in_range(data, i, first, last))
        i += found
        if found < WIDTH:
            break
    return min(i, end)


def wide(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """`data`, with zeros behind it if it has fewer than `WIDTH` bytes."""
    if len(data) >= WIDTH:
        return data
    padded = np.zeros(WIDTH, np.uint8)
    padded[: len(data)] = data
    padded.flags.writeable = data.flags.writeable  # or a kernel would be compiled once more
    return padded

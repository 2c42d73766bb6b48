"""Rows of tokens out of many memory-mapped arrays, widened for the model, in one compiled call."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import carray, types  # type: ignore[attr-defined]
from numba.extending import intrinsic
from numpy.typing import NDArray

from .jit import kernel

Tokens = NDArray[np.uint16] | NDArray[np.uint32]


class TokenStream:
    """Token arrays one after another, addressed as one array without being copied together.

    Args:
        pieces: each uint16 or uint32, (n_tokens of the piece,), contiguous; one dtype; empty ones allowed.
    Raises:
        ValueError: there is no piece, dtypes differ or are not allowed, or a piece is not contiguous.

    >>> stream = TokenStream([np.arange(3, dtype=np.uint16), np.arange(3, 8, dtype=np.uint16)])
    >>> stream.n_tokens, stream.bounds.tolist()
    (8, [0, 3, 8])
    """

    def __init__(self, pieces: Sequence[Tokens]) -> None:
        dtypes = sorted({str(piece.dtype) for piece in pieces})
        if dtypes not in (["uint16"], ["uint32"]):
            raise ValueError(f"pieces have dtypes {dtypes}; they must all be uint16 or all be uint32")
        if not all(piece.flags.c_contiguous for piece in pieces):
            raise ValueError("a piece is not contiguous; pass np.ascontiguousarray(piece)")
        # The kernel sees addresses only; this tuple keeps the memory alive.
        self.pieces = tuple(pieces)
        self.dtype = pieces[0].dtype
        self.addresses = np.array([piece.__array_interface__["data"][0] for piece in pieces], np.int64)
        self.bounds = np.concatenate([[0], np.cumsum([piece.size for piece in pieces])]).astype(np.int64)
        self.n_tokens = int(self.bounds[-1])


def gather(
    stream: TokenStream, starts: NDArray[np.int64], inputs: NDArray[np.int64], labels: NDArray[np.int64]
) -> None:
    """Fill `inputs` with the tokens from each start on, and `labels` with the tokens that follow them.

    inputs[r, j] = stream[starts[r] + j] and labels[r, j] = stream[starts[r] + j + 1]. A row may span pieces.
    O(rows · (log pieces + L)); releases the GIL.

    Args:
        stream: the tokens.
        starts: int64, (rows,).
        inputs: int64, (rows, L), C order, overwritten.
        labels: int64, (rows, L), C order, overwritten.
    Raises:
        ValueError: shapes disagree, or a row would leave the stream.

    >>> stream = TokenStream([np.arange(3, dtype=np.uint16), np.arange(3, 8, dtype=np.uint16)])
    >>> inputs, labels = np.empty((2, 3), np.int64), np.empty((2, 3), np.int64)
    >>> gather(stream, np.array([1, 4]), inputs, labels)
    >>> inputs.tolist(), labels.tolist()
    ([[1, 2, 3], [4, 5, 6]], [[2, 3, 4], [5, 6, 7]])
    """
    _check(stream, starts, inputs, labels)
    _gather(stream.pieces[0][:0], stream.addresses, stream.bounds, starts, inputs, labels)


def gather_reference(
    stream: TokenStream, starts: NDArray[np.int64], inputs: NDArray[np.int64], labels: NDArray[np.int64]
) -> None:
    """`gather`, by copying the pieces together first."""
    _check(stream, starts, inputs, labels)
    tokens = np.concatenate(stream.pieces)
    positions = starts[:, None] + np.arange(inputs.shape[1])
    inputs[:], labels[:] = tokens[positions], tokens[positions + 1]


def _check(
    stream: TokenStream, starts: NDArray[np.int64], inputs: NDArray[np.int64], labels: NDArray[np.int64]
) -> None:
    if inputs.shape != labels.shape or inputs.ndim != 2 or starts.shape != inputs.shape[:1]:
        raise ValueError(
            f"starts {starts.shape}, inputs {inputs.shape} and labels {labels.shape} "
            "must be (rows,), (rows, L) and (rows, L)"
        )
    last = stream.n_tokens - inputs.shape[1] - 1
    if starts.size and (starts.min() < 0 or starts.max() > last):
        raise ValueError(
            f"starts run from {starts.min()} to {starts.max()}; rows of {inputs.shape[1]} + 1 tokens "
            f"of a stream of {stream.n_tokens} must start in [0, {last}]"
        )


def _void_pointer(_context: Any, address: Any) -> tuple[Any, Any]:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.voidptr(address), generate


_pointer: Any = intrinsic(_void_pointer)


@kernel
def _widen(tokens: Tokens, out: NDArray[np.int64]) -> None:
    # A function of its own, over two plain arrays: LLVM vectorises this loop, not the same inside _gather.
    for j in range(out.shape[0]):
        out[j] = tokens[j]


@kernel
def _gather(
    of_dtype: Tokens,
    addresses: NDArray[np.int64],
    bounds: NDArray[np.int64],
    starts: NDArray[np.int64],
    inputs: NDArray[np.int64],
    labels: NDArray[np.int64],
) -> None:
    """`of_dtype` is an empty array: numba takes the tokens' type from it when it compiles."""
    length = inputs.shape[1]
    for r in range(starts.shape[0]):
        piece = np.searchsorted(bounds, starts[r], side="right") - 1
        begin = 0  # tokens of this row that are copied: 0..length, the last for labels only
        while begin <= length:
            n_left = bounds[piece + 1] - starts[r] - begin
            end = min(length + 1, begin + n_left)
            offset = (starts[r] + begin - bounds[piece]) * of_dtype.itemsize
            tokens = carray(_pointer(addresses[piece] + offset), (end - begin,), of_dtype.dtype)
            _widen(tokens, inputs[r, begin:end])
            _widen(tokens[1:] if begin == 0 else tokens, labels[r, max(begin - 1, 0) : end - 1])
            begin = end
            piece += 1

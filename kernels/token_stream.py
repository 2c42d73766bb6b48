"""Many memory-mapped arrays of tokens as one stream: where each lies, and where its documents end."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .instructions import carray, pointer, prefetch
from .jit import kernel

Tokens = NDArray[np.uint16] | NDArray[np.uint32]
PAGE = 4096  # bytes of memory that an access finds at once


class TokenLayout:
    """Where documents lie in pieces of tokens one after another; the tokens may be elsewhere.

    Args:
        sizes: n_tokens of each piece; 0 allowed.
        offsets: of each piece's documents, int64, (n_docs of the piece + 1,), from 0 to the piece's n_tokens.
            By default each piece is one document.
    Raises:
        ValueError: there is no piece, offsets are not contiguous or do not span their piece.
    """

    def __init__(self, sizes: Sequence[int], offsets: Sequence[NDArray[np.int64]] | None = None) -> None:
        if not sizes:
            raise ValueError("no pieces of tokens; at least one is needed")
        if offsets is None:
            offsets = [np.array([0, size]) for size in sizes]
        for size, ends in zip(sizes, offsets, strict=True):
            if not ends.flags.c_contiguous:
                raise ValueError("offsets are not contiguous; pass np.ascontiguousarray(offsets)")
            if ends.dtype != np.int64 or not ends.size or ends[0] != 0 or ends[-1] != size:
                raise ValueError(f"offsets are {ends}; they must be int64 and run from 0 to {size}")
        # The kernels see addresses only; this tuple keeps the memory alive.
        self.offsets = tuple(offsets)
        self.offset_addresses = np.array([_address(ends) for ends in offsets], np.int64)
        self.bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self.doc_bounds = np.concatenate([[0], np.cumsum([e.size - 1 for e in offsets])]).astype(np.int64)
        self.n_tokens = int(self.bounds[-1])


class TokenStream(TokenLayout):
    """Token arrays one after another, addressed as one array without being copied together.

    Args:
        pieces: each uint16 or uint32, (n_tokens of the piece,), contiguous; one dtype; empty ones allowed.
        offsets: as for `TokenLayout`.
    Raises:
        ValueError: as for `TokenLayout`; dtypes differ or are not allowed, a piece is not contiguous.

    >>> stream = TokenStream([np.arange(3, dtype=np.uint16), np.arange(3, 8, dtype=np.uint16)])
    >>> stream.n_tokens, stream.bounds.tolist(), stream.read(2, 3).tolist(), stream.document_ends(1, 5)
    (8, [0, 3, 8], [2, 3, 4], [3])
    """

    def __init__(self, pieces: Sequence[Tokens], offsets: Sequence[NDArray[np.int64]] | None = None) -> None:
        dtypes = sorted({str(piece.dtype) for piece in pieces})
        if dtypes not in (["uint16"], ["uint32"]):
            raise ValueError(f"pieces have dtypes {dtypes}; they must all be uint16 or all be uint32")
        if not all(piece.flags.c_contiguous for piece in pieces):
            raise ValueError("a piece is not contiguous; pass np.ascontiguousarray(piece)")
        super().__init__([piece.size for piece in pieces], offsets)
        self.pieces = tuple(pieces)  # alive as long as their addresses are known
        self.dtype = pieces[0].dtype
        self.addresses = np.array([_address(piece) for piece in pieces], np.int64)

    def read(self, start: int, n_tokens: int) -> Tokens:
        """A copy of tokens [start, start + n_tokens), or of those up to the end of the stream."""
        first, last = np.searchsorted(self.bounds, [start, start + n_tokens], side="right") - 1
        parts = [
            self.pieces[k][max(0, start - self.bounds[k]) : start + n_tokens - self.bounds[k]]
            for k in range(first, min(last + 1, len(self.pieces)))
        ]
        return np.concatenate(parts)  # type: ignore[return-value]

    def document_ends(self, start: int, n_tokens: int) -> list[int]:
        """Where documents end in (start, start + n_tokens], ascending."""
        ends: list[int] = []
        for k in range(len(self.pieces)):
            begin = int(self.bounds[k])
            if begin < start + n_tokens and start < self.bounds[k + 1]:
                first, last = np.searchsorted(
                    self.offsets[k], [start - begin, start + n_tokens - begin], "right"
                )
                ends += (begin + self.offsets[k][first:last]).tolist()
        return sorted(set(ends))


def _address(array: NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


@kernel
def find(
    itemsize: int,
    addresses: NDArray[np.int64],
    bounds: NDArray[np.int64],
    offset_addresses: NDArray[np.int64],
    doc_bounds: NDArray[np.int64],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    pieces: NDArray[np.int64],
    docs: NDArray[np.int64],
) -> None:
    """The piece that each segment begins in, and, if docs are wanted, its document (the count of offsets that
    are at most its start).

    Segments lie anywhere in memory, and the first access to each waits for that. Here all wait at once: for
    tokens by prefetching, for the ends of documents by searching for all segments step by step.
    """
    most = 1
    for s in range(starts.shape[0]):
        piece = np.searchsorted(bounds, starts[s], side="right") - 1
        pieces[s] = piece
        begin = addresses[piece] + (starts[s] - bounds[piece]) * itemsize
        end = begin + min(lengths[s], bounds[piece + 1] - starts[s]) * itemsize
        prefetch(begin)
        prefetch(begin + 64)
        for page in range((begin // PAGE + 1) * PAGE, end, PAGE):
            prefetch(page)
        if docs.shape[0] > 0:
            docs[s] = 0
            most = max(most, doc_bounds[piece + 1] - doc_bounds[piece] + 1)
    if docs.shape[0] == 0:
        return
    step = 1
    while 2 * step <= most:
        step *= 2
    while step > 0:
        for s in range(starts.shape[0]):
            piece = pieces[s]
            n_offsets = doc_bounds[piece + 1] - doc_bounds[piece] + 1
            offsets = carray(pointer(offset_addresses[piece]), (n_offsets,), np.int64)
            after = docs[s] + step
            if after <= n_offsets and offsets[after - 1] <= starts[s] - bounds[piece]:
                docs[s] = after
        step //= 2

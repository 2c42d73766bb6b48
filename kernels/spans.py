"""Byte spans of documents: copied out of them, or left out of them."""

import numpy as np
from numpy.typing import NDArray

from .jit import kernel


def without_spans(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    span_offsets: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The documents with some of their bytes left out.

    Args:
        data: uint8, (n_bytes,).
        offsets: int64, (n_docs + 1,), document d is data[offsets[d]:offsets[d + 1]].
        span_offsets: int64, (n_docs + 1,), document d's spans are those of span_offsets[d] to
            span_offsets[d + 1].
        starts, stops: int64, (n_spans,), bytes counted from the document's first one; a document's spans lie
            in it, ascend and don't overlap.
    Returns:
        data: uint8, (n_bytes_left,), and offsets: int64, (n_docs + 1,).

    >>> data, offsets = np.frombuffer(b"abcdef", np.uint8), np.array([0, 4, 6])
    >>> left, ends = without_spans(data, offsets, np.array([0, 2, 2]), np.array([0, 3]), np.array([2, 4]))
    >>> left.tobytes(), ends
    (b'cef', array([0, 1, 3]))
    """
    return _without_spans(data, offsets, span_offsets, starts, stops)


def without_spans_reference(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    span_offsets: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """`without_spans` in plain Python."""
    left = []
    for d in range(len(offsets) - 1):
        document = bytearray(data[offsets[d] : offsets[d + 1]].tobytes())
        for s in reversed(range(span_offsets[d], span_offsets[d + 1])):
            del document[starts[s] : stops[s]]
        left.append(bytes(document))
    return np.frombuffer(b"".join(left), np.uint8), np.cumsum([0, *map(len, left)], dtype=np.int64)


@kernel
def _without_spans(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    span_offsets: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    left = np.empty(offsets[-1] - offsets[0], np.uint8)
    left_offsets = np.zeros(len(offsets), np.int64)
    n_bytes = 0
    for d in range(len(offsets) - 1):
        at = offsets[d]
        for s in range(span_offsets[d], span_offsets[d + 1]):
            n_kept = offsets[d] + starts[s] - at
            left[n_bytes : n_bytes + n_kept] = data[at : at + n_kept]
            n_bytes += n_kept
            at = offsets[d] + stops[s]
        n_kept = offsets[d + 1] - at
        left[n_bytes : n_bytes + n_kept] = data[at : at + n_kept]
        n_bytes += n_kept
        left_offsets[d + 1] = n_bytes
    return left[:n_bytes], left_offsets


def copy_ranges(
    data: NDArray[np.uint8], starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Byte ranges, one after another.

    Args:
        data: uint8, (n_bytes,).
        starts, lengths: int64, (n_ranges,), range r is data[starts[r]:starts[r] + lengths[r]].
    Returns:
        data: uint8, (sum of lengths,), and offsets: int64, (n_ranges + 1,).
    """
    offsets = np.zeros(len(starts) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return _copy_ranges(data, starts, offsets), offsets


def copy_ranges_reference(
    data: NDArray[np.uint8], starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """`copy_ranges` in plain Python."""
    ranges = [data[a : a + n].tobytes() for a, n in zip(starts, lengths, strict=True)]
    return np.frombuffer(b"".join(ranges), np.uint8), np.cumsum([0, *map(len, ranges)], dtype=np.int64)


@kernel
def _copy_ranges(
    data: NDArray[np.uint8], starts: NDArray[np.int64], offsets: NDArray[np.int64]
) -> NDArray[np.uint8]:
    copied = np.empty(offsets[-1], np.uint8)
    for r in range(len(starts)):
        n = offsets[r + 1] - offsets[r]
        copied[offsets[r] : offsets[r + 1]] = data[starts[r] : starts[r] + n]
    return copied

"""Arrow columns as the flat arrays that kernels read, without a copy where Arrow allows it."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def text_buffers(column: pa.ChunkedArray) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The UTF-8 bytes of a string column and where each row's begin and end; a null reads as the empty text.

    Returns:
        data: uint8, (n_bytes,), which may hold more than the rows' bytes.
        offsets: int64, (n_rows + 1,), row r is data[offsets[r]:offsets[r + 1]].

    >>> data, offsets = text_buffers(pa.chunked_array([["a", "bc"], [None, "d"]]))
    >>> bytes(data), offsets
    (b'abcd', array([0, 1, 3, 3, 4]))
    """
    array = one_chunk(column.cast(pa.large_string()))
    if array.null_count:
        array = pc.fill_null(array, "")
    _, offsets, data = array.buffers()
    if not len(array):
        return np.empty(0, np.uint8), np.zeros(1, np.int64)
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return np.frombuffer(data or b"", np.uint8), ends


def integers(column: pa.ChunkedArray) -> NDArray[Any]:
    """An integer column without nulls as a numpy array; a memory-mapped column of one chunk stays on disk."""
    return one_chunk(column).to_numpy()  # type: ignore[no-any-return]


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """The whole column as one array."""
    return (
        column.chunk(0)
        if column.num_chunks == 1
        else pa.concat_arrays(column.chunks or [pa.array([], column.type)])
    )


def ratio(numerator: NDArray[np.int64], denominator: NDArray[np.int64]) -> pa.Array:
    """double, (n_rows,): the quotients, null where the denominator is 0."""
    return pa.array(numerator / np.maximum(denominator, 1), mask=denominator == 0)


def large_strings(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> pa.Array:
    """The large_string array over these buffers, without a copy.

    >>> large_strings(np.frombuffer(b"abc", np.uint8), np.array([0, 1, 3])).to_pylist()
    ['a', 'bc']
    """
    return pa.LargeStringArray.from_buffers(len(offsets) - 1, pa.py_buffer(offsets), pa.py_buffer(data))


def binary_column(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> pa.Array:
    """A large_binary array over the buffers that kernels make, without a copy.

    >>> binary_column(np.frombuffer(b"abc", np.uint8), np.array([0, 1, 3])).to_pylist()
    [b'a', b'bc']
    """
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(offsets) - 1, buffers)


def binary_buffers(array: pa.Array) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The buffers of a large_binary array without nulls, as `text_buffers` gives those of text."""
    if not len(array):
        return np.empty(0, np.uint8), np.zeros(1, np.int64)
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return np.frombuffer(data or b"", np.uint8), ends

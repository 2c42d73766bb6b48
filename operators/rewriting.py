"""What the operators share that cut spans out of texts."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..kernels.spans import without_spans
from .text_column import one_chunk, text_buffers


def cut_out(
    column: pa.ChunkedArray,
    span_offsets: NDArray[np.int64],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
) -> pa.Array:
    """A text column without some spans of its rows; a null stays null.

    Args:
        span_offsets: int64, (n_rows + 1,), row r's spans are those of span_offsets[r] to span_offsets[r + 1].
        starts, stops: int64, (n_spans,), bytes of UTF-8, on the borders of characters.

    >>> column = pa.chunked_array([["abcd", None, "éf"]], pa.large_string())
    >>> cut_out(column, np.array([0, 1, 1, 2]), np.array([1, 0]), np.array([3, 2])).to_pylist()
    ['ad', None, 'f']
    """
    text = one_chunk(column)
    if not len(starts):
        return text
    data, offsets = without_spans(*text_buffers(column), span_offsets, starts, stops)
    left = pa.LargeStringArray.from_buffers(len(text), pa.py_buffer(offsets), pa.py_buffer(data))
    return pc.if_else(pc.is_valid(text), left.cast(text.type), pa.scalar(None, text.type))


def span_lists(
    span_offsets: NDArray[np.int64], starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> pa.Array:
    """Spans as the column that shows them: list<int64>, (n_rows,), start and stop of each in turn.

    >>> span_lists(np.array([0, 0, 2]), np.array([0, 7]), np.array([3, 9])).to_pylist()
    [[], [0, 3, 7, 9]]
    """
    edges = np.stack([starts, stops], axis=1).ravel()
    return pa.ListArray.from_arrays(
        pa.array((2 * span_offsets).astype(np.int32)), pa.array(edges, pa.int64())
    )

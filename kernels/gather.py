"""Rows of tokens out of many memory-mapped arrays, widened for the model, in one compiled call."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .instructions import carray, pointer
from .jit import kernel
from .token_stream import Tokens, TokenStream, find

IGNORED_LABEL = -100  # what cross-entropy losses leave out


class RowArrays(NamedTuple):
    """Where `gather` writes; an array of size 0 is not wanted."""

    inputs: NDArray[np.int64]  # (rows, L)
    labels: NDArray[np.int64]  # (rows, L)
    positions: NDArray[np.int64]  # (rows, L) or (0, 0)
    cu_seqlens: NDArray[np.int32]  # (rows * L + 1,) or (0,)


def gather(
    stream: TokenStream,
    starts: NDArray[np.int64],
    at: NDArray[np.int64],
    lengths: NDArray[np.int64],
    rows: RowArrays,
    *,
    pad_id: int,
    mask_boundaries: bool,
    compiled: bool = True,
) -> tuple[int, int]:
    """Fill rows with segments of the stream, and mark the documents in them.

    Segment s copies tokens [starts[s], starts[s] + lengths[s]) to the flattened inputs from at[s] on; the
    label of a token is the one after it in the stream. What no segment covers is padding. A sequence is a
    stretch of one document inside one segment, or a padded stretch: positions count from 0 in each, and
    cu_seqlens holds their bounds in the flattened batch. O(tokens + segments · log documents); releases
    the GIL.

    Args:
        stream: the tokens and where their documents end.
        starts: int64, (n_segments,), positions in the stream.
        at: int64, (n_segments,), ascending; a segment lies within one row and overlaps no other; each row
            begins with one.
        lengths: int64, (n_segments,), >= 1.
        rows: overwritten.
        pad_id: the input where there is padding. Its label is IGNORED_LABEL.
        mask_boundaries: put IGNORED_LABEL where a document ends, instead of another document's token.
        compiled: False for `gather_reference`, which needs no compiled code.
    Returns:
        (n_sequences, tokens of the longest); cu_seqlens[: n_sequences + 1] is valid. (0, 0) when neither
        positions, cu_seqlens nor masks are asked for.
    Raises:
        ValueError: shapes disagree, a segment leaves the stream or its row, or segments overlap.

    >>> pieces = [np.arange(3, dtype=np.uint16), np.arange(3, 8, dtype=np.uint16)]
    >>> inputs, labels, positions = np.empty((3, 2, 3), np.int64)
    >>> rows = RowArrays(inputs, labels, positions, np.empty(7, np.int32))
    >>> gather(
    ...     TokenStream(pieces),
    ...     np.array([1, 4]),
    ...     np.array([0, 3]),
    ...     np.array([3, 2]),
    ...     rows,
    ...     pad_id=9,
    ...     mask_boundaries=True,
    ... )
    (4, 2)
    >>> inputs.tolist(), labels.tolist()
    ([[1, 2, 3], [4, 5, 9]], [[2, -100, 4], [5, 6, -100]])
    >>> positions.tolist(), rows.cu_seqlens[:5].tolist()
    ([[0, 1, 0], [0, 1, 0]], [0, 2, 3, 5, 6])
    """
    if not compiled:
        return gather_reference(
            stream, starts, at, lengths, rows, pad_id=pad_id, mask_boundaries=mask_boundaries
        )
    _check(starts, at, lengths, rows)
    n_sequences, longest = _gather(
        stream.pieces[0][:0],
        stream.addresses,
        stream.bounds,
        stream.offset_addresses,
        stream.doc_bounds,
        starts,
        at,
        lengths,
        rows.inputs.reshape(-1),
        rows.labels.reshape(-1),
        rows.positions.reshape(-1),
        rows.cu_seqlens,
        rows.inputs.shape[1],
        pad_id,
        mask_boundaries,
    )
    if n_sequences < 0:
        _refuse(stream, starts, at, lengths, rows.inputs.shape)
    return n_sequences, longest


def gather_reference(
    stream: TokenStream,
    starts: NDArray[np.int64],
    at: NDArray[np.int64],
    lengths: NDArray[np.int64],
    rows: RowArrays,
    *,
    pad_id: int,
    mask_boundaries: bool,
) -> tuple[int, int]:
    """`gather`, a numpy slice for each sequence."""
    _check(starts, at, lengths, rows)
    ends = at + lengths
    row_length = rows.inputs.shape[1]
    if starts.size and (
        starts.min() < 0
        or lengths.min() < 1
        or (starts + lengths).max() > stream.n_tokens
        or at[0] < 0
        or (at[1:] < ends[:-1]).any()
        or (at // row_length != (ends - 1) // row_length).any()
        or ends[-1] > rows.inputs.size
    ):
        _refuse(stream, starts, at, lengths, rows.inputs.shape)
    inputs, labels = rows.inputs.reshape(-1), rows.labels.reshape(-1)
    inputs[:], labels[:] = pad_id, IGNORED_LABEL
    bounds, filled = [0], 0
    for start, begin, length in zip(starts.tolist(), at.tolist(), lengths.tolist(), strict=True):
        tokens = stream.read(start, length + 1)
        inputs[begin : begin + length] = tokens[:length]
        labels[begin : begin + tokens.size - 1] = tokens[1:]
        if not (mask_boundaries or rows.positions.size or rows.cu_seqlens.size):
            continue
        ended = [begin + end - start for end in stream.document_ends(start, length)]
        if mask_boundaries:
            labels[[end - 1 for end in ended]] = IGNORED_LABEL
        bounds += [begin] * (begin > filled) + [*ended] + [begin + length] * (begin + length not in ended)
        filled = begin + length
    if not (mask_boundaries or rows.positions.size or rows.cu_seqlens.size):
        return 0, 0
    bounds += [inputs.size] * (inputs.size > filled)
    lengths_of = np.diff(bounds)
    if rows.positions.size:
        rows.positions.reshape(-1)[:] = np.arange(inputs.size) - np.repeat(bounds[:-1], lengths_of)
    if rows.cu_seqlens.size:
        rows.cu_seqlens[: len(bounds)] = bounds
    return len(bounds) - 1, int(lengths_of.max(initial=0))


def _check(
    starts: NDArray[np.int64],
    at: NDArray[np.int64],
    lengths: NDArray[np.int64],
    rows: RowArrays,
) -> None:
    shape, n_wanted = rows.inputs.shape, rows.inputs.size + 1
    if not (
        len(shape) == 2
        and rows.labels.shape == shape
        and (rows.positions.shape == shape or not rows.positions.size)
        and rows.cu_seqlens.size in (0, n_wanted)
        and starts.shape == at.shape == lengths.shape
    ):
        raise ValueError(
            f"inputs {shape}, labels {rows.labels.shape}, positions {rows.positions.shape}, cu_seqlens "
            f"{rows.cu_seqlens.shape}, starts {starts.shape}, at {at.shape} and lengths {lengths.shape} "
            "must be (rows, L) three times, (rows * L + 1,) and (n_segments,) three times"
        )


def _refuse(
    stream: TokenStream,
    starts: NDArray[np.int64],
    at: NDArray[np.int64],
    lengths: NDArray[np.int64],
    shape: tuple[int, ...],
) -> None:
    """Say what is wrong with the first segment that makes no sense, if one does."""
    s = int(_first_wrong(starts, at, lengths, stream.n_tokens, *shape))
    if s < starts.size:
        n_rows, row_length = shape
        raise ValueError(
            f"segment {s} holds tokens [{starts[s]}, {starts[s] + lengths[s]}) at {at[s]}; it must have "
            f"one or more of the {stream.n_tokens} in the stream, lie within a row of {row_length} "
            f"of the {n_rows}, and follow the segments before it"
        )


@kernel
def _widen(tokens: Tokens, out: NDArray[np.int64]) -> None:
    # A function of its own, over two plain arrays: LLVM vectorises this loop, not the same inside _gather.
    for j in range(out.shape[0]):
        out[j] = tokens[j]


@kernel
def _first_wrong(
    starts: NDArray[np.int64],
    at: NDArray[np.int64],
    lengths: NDArray[np.int64],
    n_tokens: int,
    n_rows: int,
    row_length: int,
) -> int:
    """The first segment that leaves the stream, its row, or its place behind the others; or n_segments."""
    filled = 0
    for s in range(starts.shape[0]):
        end = at[s] + lengths[s]
        if (
            starts[s] < 0
            or lengths[s] < 1
            or starts[s] > n_tokens - lengths[s]
            or at[s] < filled
            or end > n_rows * row_length
            or at[s] // row_length != (end - 1) // row_length
        ):
            return s
        filled = end
    n_segments: int = starts.shape[0]
    return n_segments


@kernel
def _count_up(out: NDArray[np.int64]) -> None:
    for j in range(out.shape[0]):
        out[j] = j


@kernel
def _gather(
    of_dtype: Tokens,
    addresses: NDArray[np.int64],
    bounds: NDArray[np.int64],
    offset_addresses: NDArray[np.int64],
    doc_bounds: NDArray[np.int64],
    starts: NDArray[np.int64],
    at: NDArray[np.int64],
    lengths: NDArray[np.int64],
    inputs: NDArray[np.int64],
    labels: NDArray[np.int64],
    positions: NDArray[np.int64],
    cu_seqlens: NDArray[np.int32],
    row_length: int,
    pad_id: int,
    mask: bool,
) -> tuple[int, int]:
    """`of_dtype` is an empty array: numba takes the tokens' type from it when it compiles.

    Returns (-1, 0) for segments that make no sense, before anything is read or written.
    """
    n_rows = inputs.shape[0] // max(1, row_length)
    if _first_wrong(starts, at, lengths, bounds[-1], n_rows, row_length) < starts.shape[0]:
        return -1, 0
    n_sequences, longest, filled = 0, 0, 0
    marked = mask or positions.shape[0] > 0 or cu_seqlens.shape[0] > 0
    if cu_seqlens.shape[0] > 0:
        cu_seqlens[0] = 0
    pieces = np.empty(starts.shape[0], np.int64)
    docs = np.empty(starts.shape[0] if marked else 0, np.int64)
    find(of_dtype.itemsize, addresses, bounds, offset_addresses, doc_bounds, starts, lengths, pieces, docs)
    for s in range(starts.shape[0] + 1):
        begin = at[s] if s < starts.shape[0] else inputs.shape[0]
        if begin > filled:
            inputs[filled:begin] = pad_id
            labels[filled:begin] = IGNORED_LABEL
            if marked:
                n_sequences += 1
                longest = max(longest, begin - filled)
                _mark(positions, cu_seqlens, filled, begin, n_sequences)
        if s == starts.shape[0]:
            break
        start, length = starts[s], lengths[s]
        filled = begin + length
        piece = pieces[s]
        copied = 0  # tokens of this segment: 0..length, the last for its label only
        while copied <= length and piece < addresses.shape[0]:
            low, high = (
                start - bounds[piece],
                start + length + 1 - bounds[piece],
            )  # of the segment in the piece
            size = bounds[piece + 1] - bounds[piece]
            first, end = max(low, 0), min(high, size)
            n = end - first
            tokens = carray(pointer(addresses[piece] + first * of_dtype.itemsize), (n,), of_dtype.dtype)
            out = begin + copied
            _widen(tokens, inputs[out : min(out + n, filled)])
            _widen(tokens[1:], labels[out : out + n - 1])
            if copied > 0 and n > 0 and not mask:  # a piece ends a document
                labels[out - 1] = tokens[0]
            if marked and first < low + length:
                n_docs = doc_bounds[piece + 1] - doc_bounds[piece]
                offsets = carray(pointer(offset_addresses[piece]), (n_docs + 1,), np.int64)
                doc = docs[s] if copied == 0 else np.searchsorted(offsets, first, side="right")
                while first < min(low + length, size):
                    doc_end = min(offsets[doc], low + length)
                    if doc_end > first:
                        n_sequences += 1
                        longest = max(longest, doc_end - first)
                        _mark(positions, cu_seqlens, begin + first - low, begin + doc_end - low, n_sequences)
                        if mask and doc_end == offsets[doc]:
                            labels[begin + doc_end - low - 1] = IGNORED_LABEL
                        first = doc_end
                    doc += 1
            copied += n
            piece += 1
        if copied <= length:  # the stream ends with this segment: its last token has none after it
            labels[filled - 1] = IGNORED_LABEL
    return n_sequences, longest


@kernel
def _mark(
    positions: NDArray[np.int64], cu_seqlens: NDArray[np.int32], begin: int, end: int, n_sequences: int
) -> None:
    if positions.shape[0] > 0:
        _count_up(positions[begin:end])
    if cu_seqlens.shape[0] > 0:
        cu_seqlens[n_sequences] = end

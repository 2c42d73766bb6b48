"""Segments of a token stream: where documents lie in it, and copies of them for another process."""

import numpy as np
from numpy.typing import NDArray

from .instructions import carray, pointer
from .jit import kernel, read_only
from .token_stream import TokenLayout, Tokens, TokenStream, find


def copy_segments(
    stream: TokenStream,
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    tokens: Tokens,
    ends: NDArray[np.int64],
    *,
    compiled: bool = True,
) -> int:
    """Copy segments, each with the token after it, one after another and as narrow as they are.

    `gather` from TokenStream([tokens], [ends[:n]]), where segment s begins at the sum of (length + 1) of
    those before it, gives what it gives from `stream`.

    Args:
        stream: the tokens and where their documents end.
        starts, lengths: int64, (n_segments,), as for `gather`.
        tokens: the stream's dtype, (sum of (lengths + 1),), overwritten. After the stream's last token: 0.
        ends: int64, (at least 2 + sum of lengths,), overwritten: 0, where documents end, the size of tokens.
        compiled: False for the same in numpy, which needs no compiled code.
    Returns:
        n, the number of ends.
    """
    if compiled:
        starts, lengths = read_only(starts, lengths)  # as a worker reads them from its pipe
        n: int = _copy_segments(
            stream.addresses,
            stream.bounds,
            stream.offset_addresses,
            stream.doc_bounds,
            starts,
            lengths,
            tokens,
            ends,
        )
        return n
    found, at = [0], 0
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        read = stream.read(start, length + 1)
        tokens[at : at + length + 1] = 0
        tokens[at : at + read.size] = read
        found += [at + end - start for end in stream.document_ends(start, length)]
        at += length + 1
    found.append(at)
    ends[: len(found)] = found
    return len(found)


@kernel
def _copy(source: Tokens, out: Tokens) -> None:
    for j in range(out.shape[0]):
        out[j] = source[j]


@kernel
def _copy_segments(
    addresses: NDArray[np.int64],
    bounds: NDArray[np.int64],
    offset_addresses: NDArray[np.int64],
    doc_bounds: NDArray[np.int64],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    tokens: Tokens,
    ends: NDArray[np.int64],
) -> int:
    ends[0] = 0
    n_ends, at = 1, 0
    pieces, docs = np.empty(starts.shape[0], np.int64), np.empty(starts.shape[0], np.int64)
    find(tokens.itemsize, addresses, bounds, offset_addresses, doc_bounds, starts, lengths, pieces, docs)
    for s in range(starts.shape[0]):
        start, length, piece = starts[s], lengths[s], pieces[s]
        copied = 0
        while copied <= length and piece < addresses.shape[0]:
            low = start - bounds[piece]
            size = bounds[piece + 1] - bounds[piece]
            first, end = max(low, 0), min(low + length + 1, size)
            source = carray(pointer(addresses[piece] + first * tokens.itemsize), (end - first,), tokens.dtype)
            _copy(source, tokens[at + copied : at + copied + end - first])
            n_docs = doc_bounds[piece + 1] - doc_bounds[piece]
            offsets = carray(pointer(offset_addresses[piece]), (n_docs + 1,), np.int64)
            doc = docs[s] if copied == 0 else np.searchsorted(offsets, first, side="right")
            while doc <= n_docs and offsets[doc] <= low + length:
                if at + offsets[doc] - low > ends[n_ends - 1]:
                    ends[n_ends] = at + offsets[doc] - low
                    n_ends += 1
                doc += 1
            copied += end - first
            piece += 1
        if copied <= length:
            tokens[at + length] = 0
        at += length + 1
    ends[n_ends] = at
    return n_ends + 1


def document_spans(
    stream: TokenLayout, docs: NDArray[np.int64], *, compiled: bool = True
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where documents begin in the stream, and how many tokens each has.

    O(n_docs · log pieces).

    Args:
        stream: where documents end.
        docs: int64, (n_docs,), each in [0, documents of the stream).
        compiled: False for the same in Python, which needs no compiled code.
    Returns:
        starts: int64, (n_docs,).
        lengths: int64, (n_docs,).
    Raises:
        ValueError: a document is not in the stream.

    >>> stream = TokenStream([np.zeros(3, np.uint16), np.zeros(5, np.uint16)])
    >>> [values.tolist() for values in document_spans(stream, np.array([1, 0]))]
    [[3, 0], [5, 3]]
    """
    if docs.size and (docs.min() < 0 or docs.max() >= stream.doc_bounds[-1]):
        raise ValueError(
            f"documents run from {docs.min()} to {docs.max()}; the stream has {stream.doc_bounds[-1]}"
        )
    starts, lengths = np.empty_like(docs), np.empty_like(docs)
    if compiled:
        _document_spans(stream.offset_addresses, stream.bounds, stream.doc_bounds, docs, starts, lengths)
        return starts, lengths
    pieces = np.searchsorted(stream.doc_bounds, docs, side="right") - 1
    for piece in np.flatnonzero(np.bincount(pieces)).tolist():
        (here,) = np.nonzero(pieces == piece)
        local = docs[here] - stream.doc_bounds[piece]
        begins = stream.offsets[piece][local]
        starts[here], lengths[here] = stream.bounds[piece] + begins, stream.offsets[piece][local + 1] - begins
    return starts, lengths


@kernel
def _document_spans(
    offset_addresses: NDArray[np.int64],
    bounds: NDArray[np.int64],
    doc_bounds: NDArray[np.int64],
    docs: NDArray[np.int64],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
) -> None:
    for i in range(docs.shape[0]):
        piece = np.searchsorted(doc_bounds, docs[i], side="right") - 1
        n_docs = doc_bounds[piece + 1] - doc_bounds[piece]
        offsets = carray(pointer(offset_addresses[piece]), (n_docs + 1,), np.int64)
        doc = docs[i] - doc_bounds[piece]
        starts[i] = bounds[piece] + offsets[doc]
        lengths[i] = offsets[doc + 1] - offsets[doc]


def split(
    starts: NDArray[np.int64], lengths: NDArray[np.int64], most: int, *, compiled: bool = True
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Documents in pieces of at most `most` tokens, in order.

    The last piece of several has two tokens or more: of most + 1 tokens the last is only a label. O(pieces).

    Args:
        starts, lengths: int64, (n_docs,), of documents of one token or more.
        compiled: False for the same in numpy, which needs no compiled code.
    Returns:
        starts, lengths: int64, (n_pieces,).

    >>> [pieces.tolist() for pieces in split(np.array([0, 4, 9]), np.array([4, 5, 6]), 4)]
    [[0, 4, 9, 13], [4, 4, 4, 2]]
    """
    if compiled:
        n_pieces = int(_n_pieces(lengths, most))
        piece_starts, piece_lengths = np.empty(n_pieces, np.int64), np.empty(n_pieces, np.int64)
        _split(starts, lengths, most, piece_starts, piece_lengths)
        return piece_starts, piece_lengths
    counts = np.maximum(1, -(-(lengths - 1) // most))
    piece_of = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    rest = np.repeat(lengths, counts) - piece_of * most
    return np.repeat(starts, counts) + piece_of * most, np.minimum(rest, most)


@kernel
def _n_pieces(lengths: NDArray[np.int64], most: int) -> int:
    n_pieces: int = lengths.shape[0]
    for length in lengths:
        if length > most + 1:  # few are: the division waits for nothing else
            n_pieces += (length - 2) // most
    return n_pieces


@kernel
def _split(
    starts: NDArray[np.int64],
    lengths: NDArray[np.int64],
    most: int,
    piece_starts: NDArray[np.int64],
    piece_lengths: NDArray[np.int64],
) -> None:
    n = 0
    for d in range(starts.shape[0]):
        start, rest = starts[d], lengths[d]
        while rest > most + 1:
            piece_starts[n], piece_lengths[n] = start, most
            start, rest, n = start + most, rest - most, n + 1
        piece_starts[n], piece_lengths[n] = start, min(rest, most)
        n += 1

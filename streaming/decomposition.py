"""Dataset decomposition: documents cut into pieces of power-of-two lengths, one bucket for each length.

A document's tokens with a target, all but its last, are L tokens as often as they go, and the rest by its
binary digits, longest first, down to `min_length`. No piece has tokens of two documents, but for those of
joined remainders. L tokens of pieces of one length make a row of the plan, so that every step has as many
tokens: a batch of B rows is B L / l sequences of l tokens.
"""

import threading
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from ..kernels.permutation import mix64
from ..kernels.segments import document_spans
from ..kernels.token_stream import TokenLayout
from .orders import Order, stream_key
from .packing import DocumentBlocks, Position, Segments, ranges

Remainders = Literal["join", "drop"]
# The odds of lengths are powers of a base, ascending from the shortest (1) or descending (-1).
CURRICULA: dict[str, tuple[int, int]] = {
    "uniform": (1, 1),
    "grow_p2": (2, -1),
    "grow_p100": (100, -1),
    "shrink_p100": (100, 1),
}
N_SAMPLED_DOCS = 1 << 14
N_KEPT_BLOCKS_OF_LENGTH = 2


@dataclass(frozen=True)
class Vsl:
    """`packing="vsl"` with other values than its defaults: dataset decomposition, rows of varying length.

    Args:
        min_length: tokens of the shortest sequences; a power of two, at most sequence_length, which is one
            too.
        remainders: what becomes of the last tokens of documents, fewer than min_length. "join" joins those of
            one block of documents and cuts them every min_length tokens, boundaries masked. "drop" leaves
            them out, as published, and with them every document that is shorter.
        curriculum: the odds of a length being a step's, shortest first, while its bucket lasts in a cycle:
            "grow_p2" (.. 4 : 2 : 1), "grow_p100", "shrink_p100", or "uniform".
        cycle_steps: of a cycle. Each has every length in proportion to its tokens, so the curriculum starts
            again with each; the authors divide a run into 8.
    Raises:
        ValueError: a value that is not allowed.

    Source: Pouransari et al. 2024, "Dataset decomposition" (arXiv 2405.13226), sections 2 and 3. Departures:
        documents above L tokens are cut every L, not at random powers; an end-of-sequence token is a target
        only; pieces of a block that do not fill a row of the plan are halved into the next shorter bucket.
    """

    min_length: int = 256
    remainders: Remainders = "join"
    curriculum: str = "grow_p2"
    cycle_steps: int = 1024

    def __post_init__(self) -> None:
        if self.min_length < 1 or self.min_length & (self.min_length - 1):
            raise ValueError(f"vsl: min_length is {self.min_length}; it must be a power of two")
        if self.remainders not in get_args(Remainders):
            raise ValueError(f"vsl: remainders is {self.remainders!r}; it is one of 'join', 'drop'")
        if self.curriculum not in CURRICULA:
            raise ValueError(f"vsl: curriculum is {self.curriculum!r}; it is one of {', '.join(CURRICULA)}")
        if self.cycle_steps < 1:
            raise ValueError(f"vsl: cycle_steps is {self.cycle_steps}; it must be at least 1")

    def lengths(self, sequence_length: int) -> list[int]:
        """Of the buckets, shortest first.

        >>> Vsl().lengths(1024)
        [256, 512, 1024]
        """
        if sequence_length & (sequence_length - 1) or sequence_length < self.min_length:
            raise ValueError(
                f"sequence_length is {sequence_length}; vsl takes a power of two of min_length "
                f"({self.min_length}) or more"
            )
        bits = range(self.min_length.bit_length() - 1, sequence_length.bit_length())
        return [1 << bit for bit in bits]

    def odds(self, n_lengths: int) -> tuple[int, ...]:
        """Of each length, shortest first.

        >>> Vsl().odds(6)
        (32, 16, 8, 4, 2, 1)
        """
        base, direction = CURRICULA[self.curriculum]
        return tuple(base**k for k in range(n_lengths)[::direction])


class Sequences(NamedTuple):
    """Sequences of one length as they are drawn: s has segments [bounds[s], bounds[s + 1])."""

    bounds: NDArray[np.int64]  # (n_sequences + 1,)
    starts: NDArray[np.int64]  # (n_segments,)
    lengths: NDArray[np.int64]  # (n_segments,)


class Decomposed:
    """The documents of one domain in a keyed order, cut block by block.

    Args:
        name, seed: of the domain and of the shuffle.
        stream: the loader's.
        first_doc: the domain's first document in the stream.
        blocks: of the documents.
        sequence_length: L.
        vsl: the rest.
        order: of the documents.
    """

    def __init__(
        self,
        name: str,
        seed: int,
        stream: TokenLayout,
        first_doc: int,
        blocks: DocumentBlocks,
        sequence_length: int,
        vsl: Vsl,
        order: Order,
    ) -> None:
        self._name, self._seed, self._stream, self._first_doc = name, seed, stream, first_doc
        self._order = order
        self.blocks, self.sequence_length, self.vsl = blocks, sequence_length, vsl
        self.lengths = vsl.lengths(sequence_length)
        self._kept: dict[tuple[int, int], list[Sequences]] = {}
        self._lock = threading.Lock()  # a state may be asked for while a thread plans

    def block(self, epoch: int, block: int, compiled: bool) -> list[Sequences]:
        """The sequences of each length of a block."""
        with self._lock:
            found = self._kept.pop((epoch, block), None) or self._cut(epoch, block, compiled)
            self._kept[epoch, block] = found  # the last of the dict is the one used last
            if len(self._kept) > N_KEPT_BLOCKS_OF_LENGTH * len(self.lengths):
                del self._kept[next(iter(self._kept))]
            return found

    def token_shares(self, *, compiled: bool = True) -> tuple[NDArray[np.int64], float]:
        """Tokens of each length, (n_lengths,), and the part of all tokens that no sequence has.

        Of the first N_SAMPLED_DOCS documents in the order of epoch 0: of all, where there are no more.
        """
        docs = self._docs(0, 0, min(N_SAMPLED_DOCS, self.blocks.n_docs), compiled)
        starts, lengths = document_spans(self._stream, docs, compiled=compiled)
        pieces, (_, rests) = cut(starts, lengths, self.lengths)
        n_tokens = np.array([part.size for part in pieces], np.int64) * np.array(self.lengths, np.int64)
        if self.vsl.remainders == "join":
            n_tokens[0] += rests.sum() // self.lengths[0] * self.lengths[0]
        return n_tokens, 1 - float(n_tokens.sum() / max(1, lengths.sum()))

    def _docs(self, epoch: int, first: int, end: int, compiled: bool) -> NDArray[np.int64]:
        return self._first_doc + self._order(np.arange(first, end), epoch, compiled=compiled)

    def _cut(self, epoch: int, block: int, compiled: bool) -> list[Sequences]:
        docs = self._docs(epoch, self.blocks.edge(block), self.blocks.edge(block + 1), compiled)
        pieces, rests = cut(*document_spans(self._stream, docs, compiled=compiled), self.lengths)
        key, found = stream_key(self._seed, self._name, epoch, block), list[Sequences]()
        for i in reversed(range(len(self.lengths))):
            length, n_of_row = self.lengths[i], self.sequence_length // self.lengths[i]
            parts = [_whole(pieces[i], length)]
            if i == 0 and self.vsl.remainders == "join":
                parts.append(joined(*rests, length))
            counts = np.concatenate([np.diff(part.bounds) for part in parts])
            firsts = np.cumsum(counts) - counts
            starts, lengths = (np.concatenate(arrays) for arrays in zip(*(p[1:] for p in parts), strict=True))
            order = np.argsort(mix64(np.arange(counts.size, dtype=np.uint64), key ^ i))
            n_kept = counts.size // n_of_row * n_of_row
            if i:  # what does not fill a row is halved
                left = pieces[i][order[n_kept:]]
                pieces[i - 1] = np.concatenate([pieces[i - 1], left, left + length // 2])
            order = order[:n_kept]
            segments = ranges(firsts[order], counts[order])
            bounds = np.concatenate([[0], np.cumsum(counts[order])])
            found.append(Sequences(bounds, starts[segments], lengths[segments]))
        return found[::-1]


class Bucket:
    """The rows of one length: row r has the sequences [r n, (r + 1) n) of a block, n = L / length.

    Args:
        decomposed: the domain.
        index: of the length.
    """

    def __init__(self, decomposed: Decomposed, index: int) -> None:
        self._decomposed, self._index, self._blocks = decomposed, index, decomposed.blocks
        self._n_of_row = decomposed.sequence_length // decomposed.lengths[index]

    def n_blocks_in(self, _epoch: int) -> int:
        return self._blocks.n_blocks

    def n_rows(self, epoch: int, block: int, *, compiled: bool = True) -> int:
        return (self._sequences(epoch, block, compiled).bounds.size - 1) // self._n_of_row

    def rows(self, epoch: int, block: int, begin: int, end: int, *, compiled: bool = True) -> Segments:
        found = self._sequences(epoch, block, compiled)
        bounds = found.bounds[begin * self._n_of_row : end * self._n_of_row + 1 : self._n_of_row]
        segments = slice(bounds[0], bounds[-1])
        row_ids = block * 2**32 + np.arange(begin, end)
        return Segments(row_ids, np.diff(bounds), found.starts[segments], found.lengths[segments])

    def n_tokens(self, _epoch: int, _block: int, begin: int, end: int, *, compiled: bool = True) -> int:
        return (end - begin) * self._decomposed.sequence_length

    def block_of(self, row_id: int) -> int:
        return row_id // 2**32

    def at_fraction(self, epoch: int, fraction: float, *, compiled: bool = True) -> tuple[int, int]:
        return self._blocks.at_fraction(fraction, lambda block: self.n_rows(epoch, block, compiled=compiled))

    def fraction_at(self, position: Position) -> float:
        return self._blocks.fraction_at(position, lambda block: self.n_rows(position.epoch, block))

    def _sequences(self, epoch: int, block: int, compiled: bool) -> Sequences:
        return self._decomposed.block(epoch, block, compiled)[self._index]


def cut(
    starts: NDArray[np.int64], lengths: NDArray[np.int64], of_lengths: list[int]
) -> tuple[list[NDArray[np.int64]], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Where the pieces of each length start, and what is left of the documents.

    Args:
        starts, lengths: int64, (n_docs,), of documents, their last token counted.
        of_lengths: powers of two, ascending, each twice the one before.
    Returns:
        For each length the pieces' starts, int64, (n_pieces,); then starts and lengths of the remainders,
        int64, (n_remainders,), each of 1 to of_lengths[0] - 1 tokens.

    >>> pieces, rests = cut(np.array([0]), np.array([24]), [4, 8])  # 23 tokens have a target
    >>> [starts.tolist() for starts in pieces], [values.tolist() for values in rests]
    ([[16], [0, 8]], [[20], [3]])
    """
    n_tokens = np.maximum(lengths - 1, 0)
    longest = of_lengths[-1]
    n_whole = n_tokens // longest
    pieces = [ranges(np.zeros_like(n_whole), n_whole) * longest + np.repeat(starts, n_whole)]
    for length in reversed(of_lengths[:-1]):
        has = (n_tokens & length) > 0
        pieces.append((starts + n_tokens // (2 * length) * (2 * length))[has])
    rests = n_tokens % of_lengths[0]
    has = rests > 0
    return pieces[::-1], ((starts + n_tokens - rests)[has], rests[has])


def joined(starts: NDArray[np.int64], lengths: NDArray[np.int64], length: int) -> Sequences:
    """Remainders one after another, cut every `length` tokens; fewer than `length` of the last are left out.

    >>> found = joined(np.array([10, 20, 30]), np.array([3, 2, 2]), 4)
    >>> found.bounds.tolist(), found.starts.tolist(), found.lengths.tolist()
    ([0, 2], [10, 20], [3, 1])
    """
    ends = np.cumsum(lengths)
    n_sequences = int(ends[-1]) // length if ends.size else 0
    edges = np.sort(np.concatenate([ends[ends < n_sequences * length], np.arange(n_sequences + 1) * length]))
    edges = edges[np.concatenate([[True], np.diff(edges) > 0])] if edges.size else edges
    begins = edges[:-1]
    of = np.searchsorted(ends, begins, side="right")
    bounds = np.searchsorted(edges, np.arange(n_sequences + 1) * length)
    return Sequences(bounds, starts[of] + begins - (ends - lengths)[of], np.diff(edges))


def _whole(starts: NDArray[np.int64], length: int) -> Sequences:
    return Sequences(np.arange(starts.size + 1), starts, np.full(starts.size, length, np.int64))

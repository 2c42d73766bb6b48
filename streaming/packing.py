"""How a domain's documents become rows: which rows an epoch has, in which order, and what each holds.

    concat     documents one after another as they lie in the shards, cut every L tokens, rows shuffled
    crop       concat, cut at other places in every epoch
    best_fit   documents shuffled, then packed whole; only a document longer than a row is split
    vsl        documents cut into powers of two, a batch of one length each: decomposition.py, curriculum.py

A row is a list of segments of the domain's tokens, L tokens in all or fewer. Rows come in blocks: one for
each epoch where documents are cut; for best_fit as many documents as fill some N_BLOCK_ROWS rows (the first
N_FIRST_ROWS), packed when the plan comes to them. A block is a function of (documents, seed, domain, epoch,
block), so a position is three numbers and nothing that is half packed belongs to a state.
"""

import math
import threading
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from ..kernels.bin_packing import best_fit_decreasing
from ..kernels.permutation import mix64
from ..kernels.segments import document_spans, split
from ..kernels.token_stream import TokenLayout
from .orders import Order, stream_key

PackingName = Literal["concat", "crop", "best_fit", "vsl"]
PACKINGS: tuple[PackingName, ...] = get_args(PackingName)
# The last row of a block is half empty, and a few thousand documents leave hardly a gap in the others.
N_BLOCK_ROWS, N_BLOCK_DOCS = 1024, 2048
# An epoch's first block is small: without compiled kernels, which the first batch does not wait for, packing
# a whole one for each of 8 domains takes 100 ms.
N_FIRST_ROWS, N_FIRST_DOCS = 64, 32
N_KEPT_BLOCKS = 3  # of a domain: the plan's first, its last, and one between


class Position(NamedTuple):
    """The next row of a domain."""

    epoch: int
    block: int
    row: int  # how many of the block were drawn


class Segments(NamedTuple):
    """Rows of one domain: row i has the next counts[i] of the segments."""

    row_ids: NDArray[np.int64]  # (n_rows,), what names a row within its epoch
    counts: NDArray[np.int64]  # (n_rows,)
    starts: NDArray[np.int64]  # (n_segments,), positions in the loader's stream
    lengths: NDArray[np.int64]  # (n_segments,)


class RowsById(Protocol):
    """The rows of one domain, as their ids name them."""

    def n_rows(self, epoch: int, block: int, *, compiled: bool = True) -> int:
        """Rows of a block, which may have none."""
        ...

    def rows(self, epoch: int, block: int, begin: int, end: int, *, compiled: bool = True) -> Segments:
        """Rows [begin, end) of a block, in the order in which they are drawn."""
        ...

    def block_of(self, row_id: int) -> int:
        """The block that a row lies in."""
        ...


class Packing(RowsById, Protocol):
    """The rows of one domain, epoch by epoch."""

    def n_blocks_in(self, epoch: int) -> int:
        """Blocks of an epoch, one or more."""
        ...

    def n_tokens(self, epoch: int, block: int, begin: int, end: int, *, compiled: bool = True) -> int:
        """Tokens of rows [begin, end) of a block, without padding."""
        ...

    def at_fraction(self, epoch: int, fraction: float, *, compiled: bool = True) -> tuple[int, int]:
        """The block and the row that lie behind a fraction, in [0, 1), of an epoch."""
        ...

    def fraction_at(self, position: Position) -> float:
        """The fraction of its epoch that lies before a position."""
        ...


class _Even:
    """A packing whose epochs all have the same number of blocks, of about the same size."""

    n_blocks: int

    def n_blocks_in(self, _epoch: int) -> int:
        return self.n_blocks

    def n_rows(self, epoch: int, block: int, *, compiled: bool = True) -> int:
        raise NotImplementedError

    def at_fraction(self, epoch: int, fraction: float, *, compiled: bool = True) -> tuple[int, int]:
        block = math.floor(blocks := fraction * self.n_blocks)
        if blocks == block:
            return block, 0
        return block, math.floor((blocks - block) * self.n_rows(epoch, block, compiled=compiled))

    def fraction_at(self, position: Position) -> float:
        n_rows = max(1, self.n_rows(position.epoch, position.block))
        return (position.block + position.row / n_rows) / self.n_blocks


class Concat(_Even):
    """Row r is L tokens from r L on and the label after them; (n_tokens - 1) mod L tokens are left over.

    Args:
        name: of the domain.
        seed: of the shuffle.
        n_tokens: of the domain.
        sequence_length: L.
        first_token: where the domain begins in the loader's stream.
        moving: cut at other places in every epoch (crop): row r begins at r L and an offset below L, drawn
            by seed, name and epoch. So every token comes at most once in an epoch, and fewer than 2 L
            tokens are left over.
        shards: tokens before each of the domain's shards, and all; needed by a window.
        window: shards whose rows are shuffled together; rows are cut within each then. None: all as one.
    """

    n_blocks = 1

    def __init__(
        self,
        name: str,
        seed: int,
        n_tokens: int,
        sequence_length: int,
        first_token: int = 0,
        *,
        moving: bool = False,
        shards: Sequence[int] = (),
        window: int | None = None,
    ) -> None:
        self._name, self._seed, self._length, self._first = name, seed, sequence_length, first_token
        # With a window, rows are cut within shards: one that ended in another would fetch that for itself.
        bounds = np.array([0, n_tokens] if window is None else shards, np.int64)
        self._begins, sizes = bounds[:-1], np.diff(bounds)
        n_rows = (sizes - 1) // sequence_length
        if moving:
            n_rows -= (n_rows > 1) & (sizes - n_rows * sequence_length < sequence_length)
        self._first_rows = np.concatenate([[0], np.cumsum(n_rows)])
        self._n_rows = int(self._first_rows[-1])
        room = (sizes - n_rows * sequence_length)[n_rows > 0]
        self._n_offsets = int(room.min(initial=sequence_length)) if moving else 1
        self._order = Order(name, seed, self._first_rows.tolist(), window)

    def n_rows(self, _epoch: int, _block: int, *, compiled: bool = True) -> int:
        return self._n_rows

    def rows(self, epoch: int, block: int, begin: int, end: int, *, compiled: bool = True) -> Segments:
        row_ids = self._order(np.arange(begin, end), epoch, compiled=compiled)
        offset = 0
        if self._n_offsets > 1:
            offset = stream_key(self._seed, self._name, epoch, block) % self._n_offsets
        part = np.searchsorted(self._first_rows, row_ids, side="right") - 1
        within = row_ids - self._first_rows[part]
        starts = self._first + self._begins[part] + offset + within * self._length
        return Segments(row_ids, np.ones_like(row_ids), starts, np.full(row_ids.size, self._length, np.int64))

    def n_tokens(self, epoch: int, block: int, begin: int, end: int, *, compiled: bool = True) -> int:
        return (end - begin) * self._length

    def block_of(self, _row_id: int) -> int:
        return 0


class _Block(NamedTuple):
    """Rows packed by best_fit: row r has segments [bounds[r], bounds[r + 1])."""

    bounds: NDArray[np.int64]  # (n_rows + 1,)
    starts: NDArray[np.int64]  # (n_segments,)
    lengths: NDArray[np.int64]  # (n_segments,)
    order: NDArray[np.int64]  # (n_rows,), rows as they are drawn
    n_tokens: NDArray[np.int64]  # (n_rows + 1,), of the rows drawn before each


class DocumentBlocks:
    """Documents in a keyed order divided into blocks: a small one, and others of about the same size.

    Args:
        n_docs, n_tokens: of the domain.
        sequence_length: L.
    """

    def __init__(self, n_docs: int, n_tokens: int, sequence_length: int) -> None:
        docs_of_row = sequence_length * n_docs / max(1, n_tokens)
        docs_of_block = max(N_BLOCK_DOCS, math.ceil(N_BLOCK_ROWS * docs_of_row))
        self.n_docs = n_docs
        self._n_first = max(N_FIRST_DOCS, math.ceil(N_FIRST_ROWS * docs_of_row))
        if self._n_first >= min(n_docs, docs_of_block):
            self._n_first = 0
        self._n_even = max(1, (n_docs - self._n_first) // docs_of_block)
        self.n_blocks = self._n_even + (self._n_first > 0)

    def edge(self, block: int) -> int:
        """Documents of an epoch before a block."""
        if self._n_first:
            if block == 0:
                return 0
            block -= 1
        return self._n_first + block * (self.n_docs - self._n_first) // self._n_even

    def at_fraction(self, fraction: float, n_rows_of: Callable[[int], int]) -> tuple[int, int]:
        """As `Packing.at_fraction`, given the rows of each block."""
        n_docs = fraction * self.n_docs
        block = bisect_right(range(self.n_blocks), n_docs, key=self.edge) - 1
        begin, end = self.edge(block), self.edge(block + 1)
        if n_docs == begin:
            return block, 0
        return block, math.floor((n_docs - begin) / (end - begin) * n_rows_of(block))

    def fraction_at(self, position: Position, n_rows_of: Callable[[int], int]) -> float:
        """As `Packing.fraction_at`, given the rows of each block."""
        begin, end = self.edge(position.block), self.edge(position.block + 1)
        if not position.row:
            return begin / max(1, self.n_docs)
        return (begin + (end - begin) * position.row / n_rows_of(position.block)) / self.n_docs


class BestFit:
    """Documents in a keyed order, packed block by block by best-fit decreasing; rows shuffled in the block.

    A document of more than L + 1 tokens is split every L tokens, each label staying the document's next
    token; its last piece is packed like a document. (Of L + 1 tokens the last is only a label.) A row id is
    block · 2**32 + row of the block.

    Resuming packs one block: O(documents of a block), whatever the position.

    Args:
        name: of the domain.
        seed: of the shuffle.
        stream: the loader's.
        first_doc: the domain's first document in the stream.
        n_docs, n_tokens: of the domain.
        sequence_length: L.
        order: of the documents; by default a shuffle of all.
    Source: Ding et al. 2024 (kernels/bin_packing.py), in blocks instead of over the whole corpus: an index
        of all documents would cost time and memory at every start. Fill is within 0.1 % of full
        (benchmarks/loader.py); the online form with 64 open rows reaches the same and has those in its state.
    """

    def __init__(
        self,
        name: str,
        seed: int,
        stream: TokenLayout,
        first_doc: int,
        n_docs: int,
        n_tokens: int,
        sequence_length: int,
        order: Order | None = None,
    ) -> None:
        self._name, self._seed, self._stream, self._length = name, seed, stream, sequence_length
        self._order = order or Order(name, seed, [0, n_docs], None)
        self._first_doc, self._n_docs = first_doc, n_docs
        self._parts = DocumentBlocks(n_docs, n_tokens, sequence_length)
        self.n_blocks = self._parts.n_blocks
        self._blocks: dict[tuple[int, int], _Block] = {}
        self._lock = threading.Lock()  # a state may be asked for while a thread plans

    def n_blocks_in(self, _epoch: int) -> int:
        return self.n_blocks

    def n_rows(self, epoch: int, block: int, *, compiled: bool = True) -> int:
        return self._block(epoch, block, compiled).bounds.size - 1

    def rows(self, epoch: int, block: int, begin: int, end: int, *, compiled: bool = True) -> Segments:
        packed = self._block(epoch, block, compiled)
        rows = packed.order[begin:end]
        counts = packed.bounds[rows + 1] - packed.bounds[rows]
        segments = ranges(packed.bounds[rows], counts)
        return Segments(block * 2**32 + rows, counts, packed.starts[segments], packed.lengths[segments])

    def n_tokens(self, epoch: int, block: int, begin: int, end: int, *, compiled: bool = True) -> int:
        n_tokens = self._block(epoch, block, compiled).n_tokens
        return int(n_tokens[end] - n_tokens[begin])

    def block_of(self, row_id: int) -> int:
        return row_id // 2**32

    def at_fraction(self, epoch: int, fraction: float, *, compiled: bool = True) -> tuple[int, int]:
        return self._parts.at_fraction(fraction, lambda block: self.n_rows(epoch, block, compiled=compiled))

    def fraction_at(self, position: Position) -> float:
        return self._parts.fraction_at(position, lambda block: self.n_rows(position.epoch, block))

    def _block(self, epoch: int, block: int, compiled: bool) -> _Block:
        with self._lock:
            packed = self._blocks.pop((epoch, block), None) or self._pack(epoch, block, compiled)
            self._blocks[epoch, block] = packed  # the last of the dict is the one used last
            if len(self._blocks) > N_KEPT_BLOCKS:
                del self._blocks[next(iter(self._blocks))]
            return packed

    def _pack(self, epoch: int, block: int, compiled: bool) -> _Block:
        first, end = self._parts.edge(block), self._parts.edge(block + 1)
        docs = self._order(np.arange(first, end), epoch, compiled=compiled)
        starts, lengths = document_spans(self._stream, self._first_doc + docs, compiled=compiled)
        if not lengths.all():
            starts, lengths = starts[lengths > 0], lengths[lengths > 0]
        starts, lengths = split(starts, lengths, self._length, compiled=compiled)
        row_of, n_rows = best_fit_decreasing(lengths, self._length, compiled=compiled)
        # numpy sorts 16 bits by radix, ten times faster than 64.
        order = np.argsort(row_of.astype(np.uint16) if n_rows < 2**16 else row_of, kind="stable")
        bounds = np.concatenate([[0], np.cumsum(np.bincount(row_of, minlength=n_rows))])
        # Sorted by hashes, as all are wanted at once.
        shuffle = mix64(np.arange(n_rows, dtype=np.uint64), stream_key(self._seed, self._name, epoch, block))
        row_order = np.argsort(shuffle)
        filled = np.bincount(row_of, lengths, minlength=n_rows).astype(np.int64)
        n_tokens = np.concatenate([[0], np.cumsum(filled[row_order])])
        return _Block(bounds, starts[order], lengths[order], row_order, n_tokens)


def ranges(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """starts[0], starts[0] + 1, ... counts[0] of them, then those of starts[1], ...

    >>> ranges(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(int(counts.sum()))


def first_position(packing: Packing, epoch: int = 0, block: int = 0, *, compiled: bool = True) -> Position:
    """The first row at or after a block's begin, blocks without rows being passed over.

    A domain without any rows stays at the block.
    """
    at = Position(epoch, block, 0)
    for _ in range(packing.n_blocks_in(epoch) + packing.n_blocks_in(epoch + 1)):
        if at.block < packing.n_blocks_in(at.epoch) and packing.n_rows(*at[:2], compiled=compiled):
            return at
        at = following(packing, at.epoch, at.block)
    return Position(epoch, block, 0)


def following(packing: Packing, epoch: int, block: int) -> Position:
    """The begin of the block after this one."""
    if block + 1 < packing.n_blocks_in(epoch):
        return Position(epoch, block + 1, 0)
    return Position(epoch + 1, 0, 0)


def end_position(packing: Packing, max_epochs: float, *, compiled: bool = True) -> Position:
    """The first row that max_epochs forbids: a fraction of the blocks, and of the last block's rows."""
    epoch = math.floor(max_epochs)
    return Position(epoch, *packing.at_fraction(epoch, max_epochs - epoch, compiled=compiled))


def epochs_at(packing: Packing, position: Position) -> float:
    """How many epochs were drawn, in parts of one."""
    return position.epoch + packing.fraction_at(position)

"""Lines of a JSONL file, or of a byte range of one, with their offsets."""

import itertools
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from .listing import Piece, open_stream

BLOCK_BYTES = 1 << 20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class Line(NamedTuple):
    """One line that holds something."""

    offset: int
    """Of its first byte in the file; in a compressed file, in the decompressed bytes."""
    n_bytes: int
    """Without its end."""
    content: bytes | None
    """None of a line that is longer than was asked for."""


def lines_of(piece: Piece, max_bytes: int) -> Iterator[list[Line]]:
    """The lines that start inside the piece and are not blank, some at a time.

    Memory is bounded by `max_bytes`: of a longer line only the length is known.
    """
    with open_stream(piece.file) as stream:
        stop = piece.stop if piece.file.codec is None else None
        offset = 0
        if piece.start:
            # The line that crosses the edge belongs to the piece before.
            offset = _after_line_end(stream, piece.start - 1)
            stream.seek(offset)
        opened = _OpenLine(max_bytes)
        while stop is None or offset < stop:
            block = stream.read(BLOCK_BYTES)
            head, newline, rest = block.partition(b"\n")
            opened.add(head)
            if block and not newline:
                continue
            first, is_blank = opened.close(offset)
            *lines, begun = rest.split(b"\n")
            ends = (len(line) + 1 for line in lines)
            starts = list(itertools.accumulate(ends, initial=offset + first.n_bytes + 1))
            offset = starts[-1]
            opened.add(begun)
            found = [] if is_blank else [first]
            found += [
                Line(start, len(line), line)
                for start, line in zip(starts, lines, strict=False)
                if line.strip()
            ]
            yield [line for line in found if stop is None or line.offset < stop]
            if not block:
                return


class _OpenLine:
    """A line whose end has not been seen; its bytes are let go when they are too many."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.n_bytes, self.is_blank = 0, True
        self.blocks: list[bytes] = []

    def add(self, block: bytes) -> None:
        self.n_bytes += len(block)
        self.is_blank = self.is_blank and not block.strip()
        self.blocks.append(block)
        if self.n_bytes > self.max_bytes:
            self.blocks = []

    def close(self, offset: int) -> tuple[Line, bool]:
        """The line that began at `offset`, and whether it holds nothing."""
        content = None if self.n_bytes > self.max_bytes else b"".join(self.blocks)
        is_blank = self.is_blank
        if not offset and content is not None:
            content = content.removeprefix(BYTE_ORDER_MARK)
            is_blank = not content.strip()
        line = Line(offset, self.n_bytes, content)
        self.n_bytes, self.is_blank, self.blocks = 0, True, []
        return line, is_blank


def _after_line_end(stream: BinaryIO, start: int) -> int:
    """The offset behind the first line end at or behind `start`, or of the end of the file."""
    stream.seek(start)
    while block := stream.read(1 << 16):
        position = block.find(b"\n")
        if position >= 0:
            return start + position + 1
        start += len(block)
    return start

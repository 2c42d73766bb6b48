"""A worker process, `python -m cuvee.streaming.worker`: it copies segments into shared memory.

The loader writes on its standard input: one line of JSON (which shards, how much room, who it is), then for
each batch two int64 (slot, n_segments) and the segments' starts and lengths, int64. The worker answers with
one byte when the slot is filled, and ends when the loader's process does. The memory is a file without a
name, so nothing is left behind whoever is killed.
"""

import json
import mmap
import os
import select
import sys
from io import FileIO

import numpy as np
from numpy.typing import NDArray

from ..kernels.segments import copy_segments
from ..kernels.token_stream import Tokens, TokenStream
from .residency import residency_of

# How often a worker looks whether its loader still lives. (A process forked from the loader's holds the pipe
# open, so the end of the input alone does not tell.)
SECONDS_BETWEEN_LOOKS = 1.0


class Slot:
    """One batch's room in shared memory: n_ends, the ends of documents, and tokens.

    Args:
        memory: of all slots.
        index: of this one.
        max_tokens: of a batch, padding included.
        dtype: of the tokens.
    """

    def __init__(self, memory: mmap.mmap, index: int, max_tokens: int, dtype: np.dtype[np.generic]) -> None:
        begin = index * self.n_bytes(max_tokens, dtype)
        self.n_ends = np.frombuffer(memory, np.int64, 1, begin)
        self.ends = np.frombuffer(memory, np.int64, max_tokens + 2, begin + 8)
        self.tokens: Tokens = np.frombuffer(memory, dtype, 2 * max_tokens, begin + 8 + self.ends.nbytes)
        self.ends[0], self.ends[-1] = 0, self.tokens.size
        self._stream = TokenStream([self.tokens], [self.ends])

    def stream(self, n_tokens: int, *, compiled: bool) -> TokenStream:
        """What was copied, for `gather`."""
        if not compiled:
            return TokenStream([self.tokens[:n_tokens]], [self.ends[: self.n_ends[0]]])
        # The kernel looks at addresses and bounds alone: the same stream, ended elsewhere.
        self._stream.doc_bounds[1] = self.n_ends[0] - 1
        return self._stream

    @staticmethod
    def n_bytes(max_tokens: int, dtype: np.dtype[np.generic]) -> int:
        """Of one slot, whole pages. Pages that are never touched take no memory."""
        # Each segment, of one token at least, brings the token after it.
        used = 8 + 8 * (max_tokens + 2) + 2 * max_tokens * dtype.itemsize
        return -(-used // mmap.PAGESIZE) * mmap.PAGESIZE


def main() -> None:
    """Fill slots until the input ends or the loader's process is gone."""
    requests, answers = FileIO(sys.stdin.fileno(), closefd=False), sys.stdout.fileno()
    setup = json.loads(_read_line(requests))
    residency = residency_of(setup["residency"])
    memory = mmap.mmap(setup["memory"], 0)
    slots = [Slot(memory, k, setup["max_tokens"], residency.dtype) for k in range(setup["n_slots"])]
    received = Received(requests, setup["loader"])
    while (header := received.take(2)) is not None:
        segments = received.take(2 * int(header[1]))
        if segments is None:
            return
        slot = slots[header[0]]
        starts, lengths = segments.reshape(2, -1)
        with residency.holding(starts, lengths) as (stream, at):
            slot.n_ends[0] = copy_segments(stream, at, lengths, slot.tokens, slot.ends)
        os.write(answers, b"\0")


class Received:
    """int64 values from a pipe, as many at once as it holds."""

    def __init__(self, requests: FileIO, loader: int) -> None:
        self._requests, self._loader, self._buffer, self._at = requests, loader, b"", 0

    def take(self, n_values: int) -> NDArray[np.int64] | None:
        """The next values: int64, (n_values,); None when there will be none."""
        end = self._at + 8 * n_values
        while len(self._buffer) < end:
            ready, _, _ = select.select([self._requests], [], [], SECONDS_BETWEEN_LOOKS)
            if not ready and os.getppid() == self._loader:
                continue
            part = self._requests.read(2**16) if ready else b""
            if not part:
                return None
            self._buffer, end, self._at = self._buffer[self._at :] + part, end - self._at, 0
        values = np.frombuffer(self._buffer, np.int64, n_values, self._at)
        self._at = end
        return values


def _read_line(requests: FileIO) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = requests.read(1)
        if not byte:
            sys.exit(0)
        line += byte
    return bytes(line)


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, KeyboardInterrupt):  # the loader is gone, or its terminal's user wants to stop
        sys.exit(0)

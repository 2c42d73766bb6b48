"""A worker process, `python -m cuvee.streaming.worker`: it copies segments into shared memory.

The loader writes on its standard input: one line of JSON (which shards, how much room), then for each
batch two int64 (slot, n_segments) and the segments' starts and lengths, int64. The worker answers with one
byte when the slot is filled, and ends when the loader's process does. The memory is a file without a name, so
nothing is left behind whoever is killed.
"""

import json
import mmap
import os
import select
import sys
from io import FileIO

import numpy as np
from numpy.typing import NDArray

from ..kernels.gather import Tokens, TokenStream, copy_segments
from .shards import open_shard

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

    @staticmethod
    def n_bytes(max_tokens: int, dtype: np.dtype[np.generic]) -> int:
        """Of one slot, whole pages. Pages that are never touched take no memory."""
        # Each segment, of one token at least, brings the token after it.
        used = 8 + 8 * (max_tokens + 2) + 2 * max_tokens * dtype.itemsize
        return -(-used // mmap.PAGESIZE) * mmap.PAGESIZE


def main() -> None:
    """Fill slots until the input ends or the loader's process is gone."""
    requests, answers = FileIO(sys.stdin.fileno(), closefd=False), sys.stdout.fileno()
    loader = os.getppid()
    setup = json.loads(_read_line(requests))
    shards = [open_shard(path) for path in setup["shards"]]
    stream = TokenStream([shard.tokens for shard in shards], [shard.offsets for shard in shards])
    memory = mmap.mmap(setup["memory"], 0)
    slots = [Slot(memory, k, setup["max_tokens"], stream.dtype) for k in range(setup["n_slots"])]
    while (header := _read(requests, 16, loader)) is not None:
        index, n_segments = np.frombuffer(header, np.int64).tolist()
        request = _read(requests, 16 * n_segments, loader)
        if request is None:
            return
        _fill(stream, slots[index], np.frombuffer(request, np.int64).reshape(2, n_segments))
        os.write(answers, b"\0")


def _fill(stream: TokenStream, slot: Slot, segments: NDArray[np.int64]) -> None:
    starts, lengths = segments
    slot.n_ends[0] = copy_segments(stream, starts, lengths, slot.tokens, slot.ends)


def _read_line(requests: FileIO) -> bytes:
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = requests.read(1)
        if not byte:
            sys.exit(0)
        line += byte
    return bytes(line)


def _read(requests: FileIO, n_bytes: int, loader: int) -> bytes | None:
    """So many bytes; None when there will be none."""
    read = bytearray()
    while len(read) < n_bytes:
        ready, _, _ = select.select([requests], [], [], SECONDS_BETWEEN_LOOKS)
        if not ready:
            if os.getppid() != loader:
                return None
            continue
        part = requests.read(n_bytes - len(read))
        if not part:
            return None
        read += part
    return bytes(read)


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, KeyboardInterrupt):  # the loader is gone, or its terminal's user wants to stop
        sys.exit(0)

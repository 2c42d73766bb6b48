"""The order of a domain's rows or documents in an epoch: a shuffle of all, or of some shards at a time."""

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..kernels.permutation import permute

Indices = NDArray[np.int64]


def stream_key(seed: int, domain: str, epoch: int, block: int | None = None) -> int:
    """The 64-bit key of a domain's order in one epoch, or of the order of rows in one of its blocks.

    By the domain's name, so that other domains don't matter.

    >>> len({stream_key(0, "web", 0), stream_key(0, "web", 1), stream_key(0, "web", 0, block=0)})
    3
    """
    which = b"" if block is None else b"block" + block.to_bytes(8, "little")
    digest = blake2b(f"{seed}/{epoch}/{domain}".encode(), digest_size=8, person=which).digest()
    return int.from_bytes(digest, "little")


class _Windows(NamedTuple):
    """An epoch's shards in the order in which they are drawn from, `window` at a time."""

    firsts: Indices  # (n_shards,), the first element of each
    before: Indices  # (n_shards + 1,), elements of the shards before each
    edges: list[int]  # (n_windows + 1,), shards before each window


class Order:
    """A keyed bijection of [0, n) for each epoch: of all elements alike, or of one window after another.

    With a window, the shards are shuffled for each epoch, and their elements come in a shuffle of `window`
    shards, then in one of the next. So a batch touches that many shards of a domain, and a cache that holds
    them fetches each once in an epoch. What is mixed is less: the elements of a window only.

    Args:
        name, seed: of the domain and of the shuffle.
        bounds: elements before each shard, ascending from 0 to n: (n_shards + 1,).
        window: shards; None: all.
    """

    def __init__(self, name: str, seed: int, bounds: Sequence[int], window: int | None) -> None:
        self._name, self._seed, self._window = name, seed, window
        self._bounds, self.n = np.array(bounds, np.int64), int(bounds[-1])
        if window is not None and window >= len(bounds) - 1:
            self._window = None
        self._of_epoch = lru_cache(maxsize=4)(self._windows)

    def __call__(self, indices: Indices, epoch: int, *, compiled: bool = True) -> Indices:
        """The elements at these places of an epoch: int64, (n_indices,); the places ascend."""
        if not indices.size:
            return indices.copy()
        if self._window is None:
            return permute(indices, self.n, stream_key(self._seed, self._name, epoch), compiled=compiled)
        shards = self._of_epoch(epoch)
        starts = shards.before[shards.edges]
        found, at = np.empty_like(indices), 0
        while at < indices.size:
            k = int(np.searchsorted(starts, indices[at], side="right")) - 1
            end = int(np.searchsorted(indices, starts[k + 1]))
            mixed = permute(
                indices[at:end] - starts[k],
                int(starts[k + 1] - starts[k]),
                stream_key(self._seed, f"{self._name}/window", epoch, k),
                compiled=compiled,
            )
            places = mixed + starts[k]
            of = np.searchsorted(shards.before, places, side="right") - 1
            found[at:end] = shards.firsts[of] + places - shards.before[of]
            at = end
        return found

    def _windows(self, epoch: int) -> _Windows:
        assert self._window is not None
        sizes = np.diff(self._bounds)
        key = stream_key(self._seed, f"{self._name}/shards", epoch)
        shuffled = permute(np.arange(sizes.size), sizes.size, key, compiled=False)
        shuffled = shuffled[sizes[shuffled] > 0]
        before = np.concatenate([[0], np.cumsum(sizes[shuffled])])
        edges = [*range(0, shuffled.size, self._window), shuffled.size]
        return _Windows(self._bounds[:-1][shuffled], before, edges)

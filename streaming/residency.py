"""Which shards are mapped into memory: local ones always, others while a batch is copied from them."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.token_stream import TokenStream
from .cache import Cache, Lease, NoRoom
from .remote import RemoteShard
from .shards import Shard, open_shard

N_MAPPED = 64  # shards that stay mapped after their batch, each an open file


class Residency:
    """All domains' shards as one stream of tokens, of which a batch sees the shards that it needs.

    One thread at a time holds shards; the cache is shared. A shard of the cache is in use while a batch is
    copied from it, and stays mapped after that until another needs its room.

    Args:
        shards: one after another; a path is mapped at once.
        cache: for remote ones.
        reads_next: whether the token after a document is read, which may lie in the next shard.
        n_bytes_besides: of the offsets of documents, which the loader holds in the cache.
    Raises:
        ValueError: the cache is too small for the largest shard.
    """

    def __init__(
        self,
        shards: Sequence[str | RemoteShard | Shard],
        cache: Cache | None = None,
        *,
        reads_next: bool = True,
        n_bytes_besides: int = 0,
    ) -> None:
        found = [open_shard(shard) if isinstance(shard, str) else shard for shard in shards]
        self._remote = {k: shard for k, shard in enumerate(found) if isinstance(shard, RemoteShard)}
        self._local = {k: shard for k, shard in enumerate(found) if isinstance(shard, Shard)}
        self._cache, self._reads_next, self._n_bytes_besides = cache, reads_next, n_bytes_besides
        sizes = [s.entry["n_tokens"] if isinstance(s, RemoteShard) else s.tokens.size for s in found]
        self.bounds = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        first = found[0]
        self.dtype = np.dtype(first.dtype if isinstance(first, RemoteShard) else first.tokens.dtype)
        self._mapped: dict[int, Lease[Shard]] = {}  # the last was used last
        self._lock = threading.Lock()
        # Of all that are mapped, and which they are: int64, (n_mapped,).
        self._stream: tuple[NDArray[np.int64], TokenStream] | None = None
        # All shards, where all are local.
        self.whole = None if self._remote else _stream_of(list(self._local.values()))
        if self._remote:
            self._check_room(max(map(self.n_bytes, self._remote)), "the largest shard")

    @property
    def max_bytes_ahead(self) -> int:
        """How much may be fetched for later batches without driving out what earlier ones need."""
        assert self._cache is not None
        return 2**62 if self._cache.max_bytes is None else self._cache.max_bytes // 2

    def n_bytes(self, piece: int) -> int:
        """Of a shard in the cache."""
        return self._remote[piece].entry["n_bytes"] if piece in self._remote else 0

    def span(
        self, starts: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The first and the last shard that each segment is read from: int64, (n_segments,) twice."""
        ends = np.minimum(starts + lengths - (not self._reads_next), self.bounds[-1] - 1)
        first, last = (np.searchsorted(self.bounds, at, side="right") - 1 for at in (starts, ends))
        return first, last

    def pieces(self, starts: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[int]:
        """The shards that segments are read from, ascending."""
        first, last = self.span(starts, lengths)
        change = np.zeros(self.bounds.size, np.int64)
        np.add.at(change, first, 1)
        np.add.at(change, last + 1, -1)
        pieces: list[int] = np.flatnonzero(np.cumsum(change) > 0).tolist()
        return pieces

    def fetch(self, piece: int) -> None:
        """Bring a shard into the cache, if it is remote and there is room. For any thread."""
        if piece in self._remote:
            assert self._cache is not None
            self._cache.lease(self._remote[piece].wanted()).close()

    @contextlib.contextmanager
    def holding(
        self, starts: NDArray[np.int64], lengths: NDArray[np.int64]
    ) -> Iterator[tuple[TokenStream, NDArray[np.int64]]]:
        """A stream with the tokens of these segments, and where they start in it.

        Raises:
            ValueError: the cache is too small for their shards, or one is corrupt.
            OSError: one cannot be fetched.
        """
        if self.whole is not None:
            yield self.whole, starts
            return
        pieces = self.pieces(starts, lengths)
        with self._lock:
            yield from self._held(pieces, starts)

    def _held(
        self, pieces: list[int], starts: NDArray[np.int64]
    ) -> Iterator[tuple[TokenStream, NDArray[np.int64]]]:
        self._hold(pieces)
        try:
            mapped, stream = self._stream_of_mapped()
            at = np.searchsorted(self.bounds, starts, side="right") - 1
            yield stream, starts - self.bounds[at] + stream.bounds[np.searchsorted(mapped, at)]
        finally:
            for piece in pieces:
                if piece in self._mapped:
                    self._mapped[piece].release()
            self._forget([*self._mapped][: max(0, len(self._mapped) - N_MAPPED)])

    def close(self) -> None:
        """Unmap the shards of the cache."""
        self._forget([*self._mapped])

    def _stream_of_mapped(self) -> tuple[NDArray[np.int64], TokenStream]:
        if self._stream is None:
            mapped = sorted([*self._local, *self._mapped])
            shards = [self._local.get(piece) or self._mapped[piece].opened for piece in mapped]
            self._stream = np.array(mapped), _stream_of(shards)
        return self._stream

    def _hold(self, pieces: Sequence[int]) -> None:
        """Map the remote ones of these shards, each held."""
        assert self._cache is not None
        remote = [piece for piece in pieces if piece in self._remote]
        files = {self._remote[piece].uri: self.n_bytes(piece) for piece in remote}  # a repeated shard is one
        self._check_room(sum(files.values()), f"the {len(files)} shards of one batch")
        self._forget([piece for piece, held in self._mapped.items() if held.was_removed()])
        try:
            for piece in remote:
                held = self._mapped.pop(piece, None)
                if held is None or not held.renew():
                    self._stream = None
                    held = self._cache.lease(self._remote[piece].wanted())
                self._mapped[piece] = held
        except NoRoom:
            self.close()  # nothing may be held while others are waited for
            leases = self._cache.wait_for([self._remote[piece].wanted() for piece in remote])
            self._mapped, self._stream = dict(zip(remote, leases, strict=True)), None
        except BaseException:
            self.close()
            raise

    def _check_room(self, n_bytes: int, what: str) -> None:
        assert self._cache is not None
        besides = " and the offsets of documents" if self._n_bytes_besides else ""
        self._cache.check_room(n_bytes + self._n_bytes_besides, what + besides)

    def _forget(self, pieces: Sequence[int]) -> None:
        for piece in pieces:
            self._mapped.pop(piece).close()
            self._stream = None  # which would keep it mapped

    def description(self, paths: Sequence[str]) -> dict[str, Any]:
        """What `residency_of` makes the same of in another process: plain JSON values.

        Args:
            paths: of all shards; those of remote ones are not needed.
        """
        cache = self._cache
        return {
            "shards": [self._remote.get(k, path) for k, path in enumerate(paths)],
            "cache": None if cache is None else [str(cache.folder.resolve()), cache.max_bytes],
            "reads_next": self._reads_next,
            "n_bytes_besides": self._n_bytes_besides,
        }


def residency_of(description: dict[str, Any]) -> Residency:
    """The residency that was described."""
    shards = [shard if isinstance(shard, str) else RemoteShard(*shard) for shard in description["shards"]]
    cache = None if description["cache"] is None else Cache(*description["cache"])
    return Residency(
        shards,
        cache,
        reads_next=description["reads_next"],
        n_bytes_besides=description["n_bytes_besides"],
    )


def _stream_of(shards: Sequence[Shard]) -> TokenStream:
    return TokenStream([shard.tokens for shard in shards], [shard.offsets for shard in shards])

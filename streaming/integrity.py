"""Checksums, verified when a shard is first used; rows of a corrupt shard are replaced by others."""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .manifest import StoredTokens
from .orders import stream_key
from .packing import RowsById
from .rank_rows import RankRows
from .residency import Residency

log = logging.getLogger("cuvee.streaming")
MAX_ATTEMPTS = 1000


@dataclass(frozen=True)
class Quarantined:
    """A shard whose contents do not match its checksum, found when `step` first needed it."""

    step: int
    domain: str
    shard: str


class Verifier:
    """Lets through rows of shards that match their checksums, and puts others in the place of the rest.

    A shard is read through once, when this rank's rows first touch it (about 1 GB/s), before any of its
    tokens are handed out. A row that touches a corrupt shard is replaced by a row of the same block, drawn by
    (seed, domain, epoch, row, attempt): a function of the plan and of which shards are corrupt alone. So a
    resumed run, another rank and another executor replace it by the same one, and a state need not hold it.
    The replacement comes twice in its epoch.

    Args:
        stores: domain -> its store, in the planner's order.
        packings: of the domains.
        residency: over all stores' shards one after another.
        seed: of the loader.
    """

    def __init__(
        self,
        stores: Mapping[str, StoredTokens],
        packings: Sequence[RowsById],
        residency: Residency,
        seed: int,
    ) -> None:
        self._names, self._residency, self._seed = list(stores), residency, seed
        self.packings = packings
        self._places = [(name, store, k) for name, store in stores.items() for k in range(store.n_shards)]
        self._is_good: dict[int, bool] = {}  # by piece of the stream
        self._lock = threading.Lock()  # rows of super-batches are checked while a thread makes batches
        self.quarantined: list[Quarantined] = []

    def checked(self, rows: RankRows, *, compiled: bool = True) -> RankRows:
        """The rows, with replacements where they are needed.

        Raises:
            ValueError: a domain has no row whose shards match their checksums.
        """
        is_good = self._good(rows.starts, rows.lengths, rows.step)
        if is_good.all():
            return rows
        bounds = np.concatenate([[0], np.cumsum(rows.counts)])
        row_ids, counts = rows.row_ids.copy(), rows.counts.copy()
        starts, lengths = [], []
        for r in range(rows.domains.size):
            mine = slice(bounds[r], bounds[r + 1])
            found = rows.starts[mine], rows.lengths[mine]
            if not is_good[mine].all():
                row_ids[r], found = self._replacement(rows, r, compiled)
                counts[r] = found[0].size
            starts.append(found[0])
            lengths.append(found[1])
        return rows._replace(
            row_ids=row_ids, counts=counts, starts=np.concatenate(starts), lengths=np.concatenate(lengths)
        )

    def _replacement(
        self, rows: RankRows, r: int, compiled: bool
    ) -> tuple[int, tuple[NDArray[np.int64], NDArray[np.int64]]]:
        k, epoch, row_id = int(rows.domains[r]), int(rows.epochs[r]), int(rows.row_ids[r])
        packing, name = self.packings[k], self._names[k]
        block = packing.block_of(row_id)
        n_rows = packing.n_rows(epoch, block, compiled=compiled)
        for attempt in range(MAX_ATTEMPTS):
            at = stream_key(self._seed, f"{name}/{row_id}/{attempt}", epoch) % n_rows
            found = packing.rows(epoch, block, at, at + 1, compiled=compiled)
            if self._good(found.starts, found.lengths, rows.step).all():
                return int(found.row_ids[0]), (found.starts, found.lengths)
        raise ValueError(
            f"domain {name!r}: no row was found whose shards match their checksums, after {MAX_ATTEMPTS} "
            f"attempts; run `cuvee tokens verify` and write its shards again"
        )

    def _good(self, starts: NDArray[np.int64], lengths: NDArray[np.int64], step: int) -> NDArray[np.bool_]:
        """Whether all shards that each segment is read from are good: bool, (n_segments,)."""
        first, last = self._residency.span(starts, lengths)
        good = np.ones(starts.size, np.bool_)
        for piece in self._residency.pieces(starts, lengths):
            if not self._verify(piece, step):
                good &= (first > piece) | (last < piece)
        return good

    def _verify(self, piece: int, step: int) -> bool:
        with self._lock:
            if piece not in self._is_good:
                name, store, shard = self._places[piece]
                try:
                    store.verify_shard(shard)
                    self._is_good[piece] = True
                except ValueError as error:
                    self._is_good[piece] = False
                    self.quarantined.append(Quarantined(step, name, store.shard_places[shard]))
                    # Not the error, with which a record that is kept would keep the loader and its threads.
                    log.warning("%s; its rows are replaced by others of domain %r", str(error), name)
            return self._is_good[piece]

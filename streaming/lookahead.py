"""Shards of planned batches are fetched before their turn comes."""

import collections
import contextlib
import queue
import threading
from collections.abc import Callable, Iterator

from .executors import Planned
from .remote import N_FETCHERS
from .residency import Residency

MAX_STEPS_AHEAD = 256


def fetched_ahead(
    steps: Iterator[Planned],
    pieces_of: Callable[[Planned], list[int]],
    residency: Residency,
    most: int = MAX_STEPS_AHEAD,
) -> Iterator[Planned]:
    """The same steps, while threads bring the shards of those that follow into the cache.

    The first is passed on before any other is looked at. The shards of the steps ahead take up to half the
    cache, so that they do not drive out each other.

    Args:
        pieces_of: the shards that a step's batch is read from.
        most: steps that are looked at ahead.
    """
    fetchers = Fetchers(residency.fetch)
    ahead: collections.deque[tuple[Planned, list[int]]] = collections.deque()
    n_users: collections.Counter[int] = collections.Counter()  # steps ahead, by shard
    n_bytes, max_steps = 0, 1
    try:
        while True:
            while len(ahead) < max_steps and (not ahead or n_bytes <= residency.max_bytes_ahead):
                if (step := next(steps, None)) is None:
                    break
                pieces = pieces_of(step)
                ahead.append((step, pieces))
                new = [piece for piece in pieces if not n_users[piece] and residency.n_bytes(piece)]
                n_users.update(pieces)
                n_bytes += sum(map(residency.n_bytes, new))
                fetchers.ask(new)
            if not ahead:
                return
            step, pieces = ahead.popleft()
            yield step
            n_users.subtract(pieces)
            n_bytes -= sum(residency.n_bytes(piece) for piece in pieces if not n_users[piece])
            max_steps = most
    finally:
        fetchers.close()


class Fetchers:
    """Threads that fetch what they are asked for, in order; they end with `close` or with the program."""

    def __init__(self, fetch: Callable[[int], None]) -> None:
        self._asked: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=_fetch_all, args=(fetch, self._asked), name="cuvee-fetch", daemon=True)
            for _ in range(N_FETCHERS)
        ]
        for thread in self._threads:
            thread.start()

    def ask(self, pieces: list[int]) -> None:
        for piece in pieces:
            self._asked.put(piece)

    def close(self) -> None:
        """Forget what is not begun; a thread ends after the shard that it is fetching."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._asked.get_nowait()
        for _ in self._threads:
            self._asked.put(None)


def _fetch_all(fetch: Callable[[int], None], asked: "queue.SimpleQueue[int | None]") -> None:
    while (piece := asked.get()) is not None:
        with contextlib.suppress(Exception):  # it is tried again, and raised, when its batch comes
            fetch(piece)

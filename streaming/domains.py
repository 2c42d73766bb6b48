"""Domains as the planner knows them, made from their stores and a loader's arguments."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise

from ..kernels.token_stream import TokenLayout
from .growth import Grown, Growth, after_appending
from .manifest import StoredTokens
from .orders import Order
from .packing import BestFit, Concat, Packing, PackingName, end_position, first_position
from .plan import Cursor, Domain, Event


@dataclass(frozen=True)
class DomainMaker:
    """Makes each domain's rows, for all its shards or for those that a state knows.

    Args:
        stores: by domain, in the order of the loader's stream.
        layout: of that stream; needed by best_fit.
        packing, seed, sequence_length: the loader's.
        max_epochs: by domain.
        window: shards of a domain that are shuffled together; None: all.
    """

    stores: Mapping[str, StoredTokens]
    layout: TokenLayout | None
    packing: PackingName
    seed: int
    sequence_length: int
    max_epochs: Mapping[str, float | None]
    window: int | None = None

    def domain(self, name: str, growth: Growth, *, compiled: bool = True) -> Domain:
        """A domain with the shards that it came to have."""
        packing = self._part(name, 0, growth.n_shards[-1])
        if len(growth.n_shards) > 1:
            bounds = list(pairwise((0, *growth.n_shards)))
            sizes = [self.stores[name].n_tokens_between(*part) for part in bounds]
            packing = Grown(growth.epoch, [self._part(name, *part) for part in bounds], sizes, packing)
        cap = self.max_epochs[name]
        end = None if cap is None else end_position(packing, cap, compiled=compiled)
        return Domain(name, packing, end)

    def resumed(
        self,
        saved: Mapping[str, Growth],
        cursor: Cursor,
        growths: Mapping[str, Growth],
        domains: Mapping[str, Domain],
    ) -> tuple[dict[str, Growth], list[Domain], Cursor]:
        """Shards and rows of each domain at a state's cursor, and the cursor: with what was appended since.

        Args:
            saved: of each domain of the state.
            growths, domains: as they are, to be used again where they are the same.
        """
        found: dict[str, Growth] = {}
        positions, events = list(cursor.positions), list(cursor.events)
        made = []
        for k, (name, store) in enumerate(self.stores.items()):
            growth = saved.get(name, Growth(0, (store.n_shards,)))
            n_before, position = growth.n_shards[-1], positions[k]
            n_appended = store.n_shards - n_before
            if n_appended:
                before = self.domain(name, growth)
                growth, position = after_appending(
                    growth, before.packing, position, before.end, store.n_shards
                )
            found[name] = growth
            made.append(domains[name] if growth == growths[name] else self.domain(name, growth))
            if n_appended:
                if position.row == 0:  # the begin of a block, which may have no rows
                    position = first_position(made[k].packing, position.epoch, position.block)
                n_tokens = store.n_tokens_between(n_before, store.n_shards)
                what = f"appended {n_appended} shards, {n_tokens} tokens"
                events.append(Event(cursor.step, name, what))
            positions[k] = position
        return found, made, replace(cursor, positions=tuple(positions), events=tuple(events))

    def _part(self, name: str, begin: int, end: int) -> Packing:
        """The rows of shards [begin, end) of a domain, as if it had no others."""
        store = self.stores[name]
        others = list(self.stores.values())[: list(self.stores).index(name)]
        # Appended shards are shuffled by a key of their own.
        key, n_tokens = name if begin == 0 else f"{name}+{begin}", store.n_tokens_between(begin, end)
        if self.packing == "best_fit":
            assert self.layout is not None
            first_doc = sum(other.n_docs for other in others) + store.n_docs_between(0, begin)
            n_docs = store.n_docs_between(begin, end)
            order = Order(key, self.seed, store.docs_before(begin, end), self.window)
            return BestFit(
                key, self.seed, self.layout, first_doc, n_docs, n_tokens, self.sequence_length, order
            )
        first_token = sum(other.n_tokens for other in others) + store.n_tokens_between(0, begin)
        moving = self.packing == "crop"
        return Concat(
            key,
            self.seed,
            n_tokens,
            self.sequence_length,
            first_token,
            moving=moving,
            shards=store.tokens_before(begin, end),
            window=self.window,
        )

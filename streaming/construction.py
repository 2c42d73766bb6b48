"""Parts of a loader, made from its arguments: where documents lie, who plans, what the weights follow."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..kernels.token_stream import TokenLayout
from .curriculum import LengthPlanner, domains_by_length
from .decomposition import Vsl
from .domains import DomainMaker
from .growth import Growth
from .online import Online, OnlineMixing
from .packing import PackingName
from .plan import Bounds, Planner
from .ranks import Ranks
from .remote import RemoteTokens
from .schedule import Ramp
from .shards import TokenStore
from .warm_up import kernels

Stores = Mapping[str, TokenStore | RemoteTokens]


def packing_of(packing: PackingName | Vsl) -> tuple[PackingName, Vsl | None, str]:
    """The packing's name, how sequences vary if they do, and what a state must agree with."""
    if packing == "vsl":
        packing = Vsl()
    if isinstance(packing, Vsl):
        return "vsl", packing, repr(packing)
    return packing, None, packing


def layout_of(stores: Stores, packing: PackingName) -> tuple[TokenLayout | None, int]:
    """Where documents lie, for packings that plan by them, and how much of the cache the offsets take."""
    if packing not in ("best_fit", "vsl"):
        return None, 0
    offsets = [ends for store in stores.values() for ends in store.offsets]
    layout = TokenLayout([int(ends[-1]) for ends in offsets], offsets)
    return layout, sum(store.n_offset_bytes for store in stores.values())


def planner_of(
    maker: DomainMaker,
    growths: Mapping[str, Growth],
    global_batch: int,
    shares: NDArray[np.int64] | Ramp,
    bounds: Bounds | None,
) -> Planner:
    """The planner of rows that are sequences."""
    compiled = kernels.done_already()
    domains = [maker.domain(name, growth, compiled=compiled) for name, growth in growths.items()]
    return Planner(domains, global_batch, shares, bounds, compiled=compiled)


def length_planner_of(
    maker: DomainMaker, stores: Stores, global_batch: int, shares: NDArray[np.int64] | Ramp, vsl: Vsl
) -> LengthPlanner:
    """The planner of sequences of varying length."""
    compiled = kernels.done_already()
    assert maker.layout is not None
    assert not isinstance(shares, Ramp)
    by_length = domains_by_length(
        stores,
        maker.layout,
        maker.seed,
        maker.sequence_length,
        vsl,
        maker.max_epochs,
        maker.window,
        compiled=compiled,
    )
    return LengthPlanner(
        by_length, global_batch, shares, maker.sequence_length, vsl, maker.seed, compiled=compiled
    )


def online_of(
    policy: OnlineMixing | str,
    schedule: object,
    emit: Sequence[str],
    planner: Planner,
    stores: Stores,
    domains: Sequence[str],
    sequence_length: int,
    ranks: Ranks,
) -> Online:
    """What a run's weights follow.

    Raises:
        ValueError: the policy is something else, there is a schedule too, or batches do not say which
            domain a row is of.
    """
    mixing = OnlineMixing(policy) if isinstance(policy, str) else policy
    if not isinstance(mixing, OnlineMixing):
        raise ValueError(
            f"policy is a {type(policy).__name__}; it must be a name or an OnlineMixing, such as "
            "OnlineMixing(lambda prior, domains: ...) for a Policy of your own"
        )
    if schedule is not None:
        raise ValueError("policy: a schedule sets weights, too; leave one of the two out")
    if "domain_ids" not in emit:
        raise ValueError("policy: it needs the domain of each row; add 'domain_ids' to emit")
    return Online(mixing, list(stores), planner.schedule[0][1], domains, sequence_length, ranks)


def max_rows_of(
    stores: Stores, max_epochs: Mapping[str, float | None], sequence_length: int
) -> NDArray[np.float64]:
    """Rows that max_epochs allows of each domain, but for padding: float64, (n_domains,), inf: no limit."""
    caps = [max_epochs[name] for name in stores]
    n_rows = [store.n_tokens / sequence_length for store in stores.values()]
    return np.array([np.inf if cap is None else cap * n for cap, n in zip(caps, n_rows, strict=True)])

"""What a loader says of the batches handed out so far."""

from collections.abc import Iterable, Sequence
from typing import TypedDict

from ..kernels.apportion import ROW
from .curriculum import LengthPlanner
from .integrity import Quarantined
from .plan import Cursor, Planner


class Stats(TypedDict):
    """What `StreamingLoader.stats` returns: plain JSON values, over the global batches handed out so far."""

    step: int
    n_tokens: dict[str, int]
    n_padding: dict[str, int]
    fill: float
    token_shares: dict[str, float]
    epochs: dict[str, float]
    weights: dict[str, float]
    events: list[dict[str, int | str]]
    left_out: dict[str, float]


def stats_of(
    planner: Planner,
    cursor: Cursor,
    names: Sequence[str],
    domains: Sequence[str],
    room: int,
    quarantined: Iterable[Quarantined],
) -> Stats:
    """`StreamingLoader.stats`.

    Args:
        cursor: behind the last batch handed out.
        names: of the domains, in the planner's order.
        domains: the same in the trainer's order.
        room: tokens of a row.
        quarantined: shards whose rows were replaced.
    """
    shares = planner.shares_at(cursor)
    drawn = dict(zip(names, planner.drawn(cursor), strict=True))
    ours = {name: k for k, name in enumerate(names)}
    total = max(1, cursor.n_rows)
    events: list[dict[str, int | str]] = [
        {"step": e.step, "domain": e.domain, "event": e.what} for e in cursor.events
    ]
    events += [
        {"step": found.step, "domain": found.domain, "event": f"quarantined {found.shard}"}
        for found in quarantined
    ]
    left_out = dict.fromkeys(domains, 0.0)
    if isinstance(planner, LengthPlanner):
        left_out |= {domain.name: domain.left_out for domain in planner.by_length}
    return Stats(
        step=cursor.step,
        n_tokens={name: drawn[name].n_tokens for name in domains},
        n_padding={name: drawn[name].n_rows * room - drawn[name].n_tokens for name in domains},
        fill=sum(cursor.tokens_drawn) / (total * room) if cursor.n_rows else 1.0,
        token_shares={name: drawn[name].n_rows / total for name in domains},
        epochs={name: drawn[name].epochs for name in domains},
        weights={name: 0.0 if shares is None else int(shares[ours[name]]) / ROW for name in domains},
        events=events,
        left_out=left_out,
    )

"""A loader's state in plain JSON: what is written, and what is refused by name when it is read."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from .growth import Growth
from .packing import Position
from .plan import Cursor, CyclePlace, Event, Planner, Schedule

STATE_VERSION = 4

PARTS = {
    "online": {"policy", "n_reports", "n_ignored", "domains"},
    "superbatches": {"factor", "requeue", "selectors", "queue", "kept"},
}
"""Parts that a state may have, and what is in them."""

_REMEDIES = {
    "sequence_length": "rows would be cut elsewhere; load it with the saved sequence_length",
    "global_batch": "load it with the saved global_batch, and then set_global_batch",
    "seed": "the order would differ; load it with the saved seed",
    "packing": "rows would be others; load it with the saved packing",
    "window": "the order would differ; load it with the saved window (0: none)",
    "policy": "build the loader with the saved run's policy and parameters",
    "weights": "build the loader with the saved run's weights, schedule and bounds, and then set_weights",
    "fingerprint": "the data changed; give the shards that the run had, and others only behind them",
    "max_epochs": "load it with the saved max_epochs",
}


def encode(
    planner: Planner,
    cursor: Cursor,
    arguments: Mapping[str, int | str],
    identities: Mapping[str, Mapping[str, int | float | str | None]],
    growths: Mapping[str, Growth],
) -> dict[str, Any]:
    """The state at `cursor`. Its size does not grow with the run: past weights are left out.

    Args:
        arguments: of the loader, those that a state must agree with.
        identities: by domain, in the planner's order: what a state must agree with in each.
        growths: by domain, its shards.
    """
    names = list(identities)
    return {
        "version": STATE_VERSION,
        "step": cursor.step,
        **arguments,
        "domains": {
            name: {
                **identities[name],
                "growth": [growths[name].epoch, list(growths[name].n_shards)],
                **_encode_domain(cursor, k, len(cursor.positions) // len(names)),
            }
            for k, name in enumerate(names)
        },
        **({} if cursor.place is None else {"cycle": list(cursor.place)}),
        "schedule": encode_schedule(planner.entries_from(cursor.step), names),
        "batch_sizes": [list(entry) for entry in planner.batch_sizes_from(cursor.step)],
        "events": [[event.step, event.domain, event.what] for event in cursor.events],
    }


def decode(
    state: Mapping[str, Any],
    arguments: Mapping[str, int | str],
    identities: Mapping[str, Mapping[str, int | float | str | None]],
    fresh: Cursor,
) -> tuple[Cursor, Schedule, list[tuple[int, int]]]:
    """Cursor, schedule and batch sizes of a state.

    Args:
        fresh: where a new run begins: domains that the state does not know begin there.
    Raises:
        ValueError: names the field that differs.
    """
    if (version := state.get("version")) != STATE_VERSION:
        raise ValueError(f"state: version is {version!r}; this version of cuvee reads {STATE_VERSION}")
    if missing := {"step", "domains", "schedule", "batch_sizes", "events", *arguments} - state.keys():
        raise ValueError(f"state: {', '.join(sorted(missing))} missing; this is not a loader's whole state")
    for part, fields in PARTS.items():
        if part in state and (missing := fields - (state[part] or {}).keys()):
            raise ValueError(
                f"state: {part}: {', '.join(sorted(missing))} missing; this is not a loader's whole state"
            )
    saved: Mapping[str, Mapping[str, Any]] = state["domains"]
    if lost := sorted(set(saved) - set(identities)):
        raise ValueError(f"state: domains: {lost} not among the sources; add them (weight 0 leaves one out)")
    for field, ours in arguments.items():
        _check_same(field, state[field], ours)
    for name, identity in identities.items():
        for field, ours_of_domain in identity.items() if name in saved else ():
            _check_same(f"domains.{name}.{field}", saved[name][field], ours_of_domain)
    names = list(identities)
    n_lengths = len(fresh.positions) // len(names)
    fresh_positions = {
        name: fresh.positions[k * n_lengths : (k + 1) * n_lengths] for k, name in enumerate(names)
    }
    cursor = Cursor(
        step=state["step"],
        positions=tuple(
            position
            for name in names
            for position in (
                _positions(saved[name]["position"], fresh) if name in saved else fresh_positions[name]
            )
        ),
        rows_drawn=_of_each(names, saved, "rows_drawn", n_lengths),
        tokens_drawn=_of_each(names, saved, "tokens_drawn", n_lengths),
        credit=_of_each(names, saved, "credit", n_lengths),
        events=tuple(Event(*event) for event in state["events"]),
        place=None if fresh.place is None else _place(*state["cycle"]),
    )
    schedule = [
        (start, np.array([shares.get(name, 0) for name in names], np.int64))
        for start, shares in state["schedule"]
    ]
    return cursor, schedule, [(start, rows) for start, rows in state["batch_sizes"]]


def saved_growths(state: Mapping[str, Any]) -> dict[str, Growth]:
    """The shards of each domain of a state; none of one that is not a whole state, which `decode` refuses."""
    if state.get("version") != STATE_VERSION:
        return {}
    return {
        name: Growth(domain["growth"][0], tuple(domain["growth"][1]))
        for name, domain in state.get("domains", {}).items()
    }


def encode_schedule(schedule: Schedule, names: Sequence[str]) -> list[tuple[int, dict[str, int]]]:
    """The schedule in plain JSON; domains without a share are left out, so that adding one is free."""
    return [
        (start, {name: share for name, share in zip(names, shares.tolist(), strict=True) if share})
        for start, shares in schedule
    ]


def given_weights(planner: Planner, names: Sequence[str], *, by_tokens: bool) -> str:
    """A hash of the weights that a loader was built with; domains that never have one do not matter.

    Args:
        by_tokens: they were the domains' tokens, which may become more.
    """

    def named(values: Iterable[int]) -> dict[str, int]:
        return {name: value for name, value in zip(names, values, strict=True) if value}

    given: list[object] = (
        [names, encode_schedule(planner.schedule[1:], names)]
        if by_tokens
        else [encode_schedule(planner.schedule, names)]
    )
    if planner.ramp is not None:
        given += [planner.ramp.starts, [named(shares) for shares in planner.ramp.shares], planner.ramp.shape]
    if planner.bounds is not None:
        given += [named(bound) for bound in planner.bounds]
    return blake2b(repr(given).encode(), digest_size=8).hexdigest()


def _encode_domain(cursor: Cursor, k: int, n_lengths: int) -> dict[str, Any]:
    """A domain's part of a cursor: of each length a list, where there are several."""
    fields: dict[str, Sequence[Any]] = {
        "position": [list(position) for position in cursor.positions],
        "rows_drawn": cursor.rows_drawn,
        "tokens_drawn": cursor.tokens_drawn,
        "credit": cursor.credit,
    }
    if cursor.place is None:
        return {name: values[k] for name, values in fields.items()}
    return {name: list(values[k * n_lengths : (k + 1) * n_lengths]) for name, values in fields.items()}


def _positions(saved: Sequence[Any], fresh: Cursor) -> list[Position]:
    return [Position(*saved)] if fresh.place is None else [Position(*position) for position in saved]


def _place(cycle: int, turn: int, counts: Sequence[int], credit: Sequence[int]) -> CyclePlace:
    return CyclePlace(cycle, turn, tuple(counts), tuple(credit))


def _of_each(
    names: Sequence[str], saved: Mapping[str, Mapping[str, Any]], field: str, n_lengths: int
) -> tuple[int, ...]:
    found: list[int] = []
    for name in names:
        value = saved[name][field] if name in saved else [0] * n_lengths
        found += value if isinstance(value, list) else [value]
    return tuple(found)


def _check_same(field: str, saved: object, ours: object) -> None:
    if saved != ours:
        raise ValueError(
            f"state: {field} is {saved!r}, this loader's is {ours!r}; {_REMEDIES[field.split('.')[-1]]}"
        )

"""What the loader refuses of its arguments, alone or together."""

from collections.abc import Mapping, Sequence

from .batch import FIELDS
from .growth import Growth
from .packing import PACKINGS
from .schedule import WeightSchedule
from .weights import check_names, is_whole


def check_counts(
    sequence_length: int, global_batch: int, rank: int, world_size: int, prefetch: int = 0, workers: int = 0
) -> None:
    """Refuse sizes and ranks that no loader has.

    Raises:
        ValueError: names the argument.
    """
    for name, value in (
        ("sequence_length", sequence_length),
        ("global_batch", global_batch),
        ("world_size", world_size),
    ):
        if not is_whole(value) or value < 1:
            raise ValueError(f"{name} is {value!r}; it must be a whole number, at least 1")
    for name, value in (("prefetch", prefetch), ("workers", workers)):
        if value < 0:
            raise ValueError(f"{name} is {value}; it must be at least 0")
    if global_batch % world_size:
        raise ValueError(f"world_size {world_size} does not divide global_batch {global_batch}")
    if not 0 <= rank < world_size:
        raise ValueError(f"rank is {rank}; with world_size {world_size} it must lie in [0, {world_size})")


def check_window(window: int | None) -> None:
    """Refuse a window of no shards.

    Raises:
        ValueError: names the argument.
    """
    if window is not None and window < 1:
        raise ValueError(f"window is {window}; it must be at least 1 shard")


def check_packing(packing: str, emit: Sequence[str], mask_boundaries: bool) -> None:
    """Refuse a packing or fields that do not go together.

    Raises:
        ValueError: names the argument.
    """
    check_names("packing", [packing], PACKINGS, "packing")
    check_names("emit", emit, FIELDS, "field")
    if "input_ids" not in emit:
        raise ValueError(f"emit: {tuple(emit)} lacks 'input_ids'; a batch always has them")
    if packing in ("best_fit", "vsl") and not mask_boundaries:
        raise ValueError(
            f"mask_boundaries: {packing} puts documents side by side in no order that a label could follow; "
            "leave it True, or pack by 'concat'"
        )


def check_vsl(*, schedule: object, floors: object, ceilings: object, policy: object) -> None:
    """Refuse what sequences of varying length do not support.

    Raises:
        ValueError: names the argument.
    """
    if isinstance(schedule, WeightSchedule):
        raise ValueError("schedule: vsl takes weights by steps, [(step, weights), ...], no WeightSchedule")
    for name, value in (
        ("floors", floors),
        ("ceilings", ceilings),
        ("policy", policy),
    ):
        if value:
            raise ValueError(f"{name}: not supported with packing 'vsl'; leave it out, or pack by 'best_fit'")


def check_not_grown(saved: Mapping[str, Growth], now: Mapping[str, Growth]) -> None:
    """Refuse a state whose domains have had shards appended since.

    Raises:
        ValueError: names the domain.
    """
    for name, growth in saved.items():
        if growth != now[name]:
            raise ValueError(
                f"state: domains.{name} had {growth.n_shards[-1]} shards and has {now[name].n_shards[-1]}; "
                "vsl cannot go on with appended shards, give the shards that the run had"
            )

"""Weights over time: points in tokens with a shape between them, and the bounds that hold at every step."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from ..kernels.apportion import ROW, largest_remainder
from .weights import WeightReader, check_names, shares_of

Shape = Literal["step", "linear", "cosine"]
# Between two points the weights take at most this many values: fine enough for any trainer, and a plan of
# many steps stays one of few stretches with constant weights.
N_LEVELS = 1024


@dataclass(frozen=True)
class WeightSchedule:
    """Mixture weights by tokens of the run.

    Args:
        points: (n_tokens, weights), ascending from 0 tokens on; weights as `StreamingLoader` takes them.
            After the last point its weights hold. A point takes effect at the first step that begins at or
            after its tokens, positions in rows counted (padding too).
        shape: between points: "step" holds the last point's weights; "linear" and "cosine" go over to the
            next one's, in N_LEVELS levels, cosine with level ends.
    Raises:
        ValueError: no points, the first is not at 0, they do not ascend, or an unknown shape.

    Source: blends that change at a fraction of the run (Parmar et al. 2024, arXiv 2407.07263); replay of old
        data as a ramp (Ibrahim et al. 2024, arXiv 2403.08763).
    """

    points: Sequence[tuple[int, Mapping[str, float]]]
    shape: Shape = "linear"

    def __post_init__(self) -> None:
        if self.shape not in get_args(Shape):
            raise ValueError(f"schedule: shape is {self.shape!r}; it is one of {', '.join(get_args(Shape))}")
        tokens = [n_tokens for n_tokens, _ in self.points]
        if not tokens or tokens[0] != 0 or any(a >= b for a, b in pairwise(tokens)):
            raise ValueError(f"schedule: points at {tokens} tokens; they must ascend from 0 on")

    def ramp(self, domains: Sequence[str], sequence_length: int) -> "Ramp":
        """The schedule in whole numbers, in the order of `domains`."""
        starts = tuple(-(-n_tokens // sequence_length) for n_tokens, _ in self.points)
        shares = tuple(tuple(shares_of(weights, domains).tolist()) for _, weights in self.points)
        return Ramp(starts, shares, self.shape)


class Ramp(NamedTuple):
    """A WeightSchedule in rows and shares of ROW."""

    starts: tuple[int, ...]  # rows of the run
    shares: tuple[tuple[int, ...], ...]
    shape: Shape

    def level(self, n_rows: int) -> tuple[int, int]:
        """Which point holds when n_rows were drawn, and how far the way to the next has gone, of N_LEVELS.

        >>> Ramp((0, 8), ((ROW,), (ROW,)), "linear").level(3)
        (0, 384)
        """
        k = sum(start <= n_rows for start in self.starts[1:])
        if self.shape == "step" or k + 1 == len(self.starts):
            return k, 0
        begin, end = self.starts[k : k + 2]
        passed = (n_rows - begin) * N_LEVELS // (end - begin)
        if self.shape == "cosine":
            passed = round(N_LEVELS * (1 - math.cos(math.pi * passed / N_LEVELS)) / 2)
        return k, passed

    def at(self, level: tuple[int, int]) -> NDArray[np.int64]:
        """The shares at a level: int64, (n_domains,), summing to ROW."""
        k, passed = level
        now, then = self.shares[k], self.shares[min(k + 1, len(self.shares) - 1)]
        mixed = [a * (N_LEVELS - passed) + b * passed for a, b in zip(now, then, strict=True)]
        return largest_remainder(np.array(mixed, object), ROW)


def shares_at_start(
    weights: Mapping[str, float] | None,
    schedule: object,
    reader: WeightReader,
    n_tokens: Sequence[int],
    sequence_length: int,
) -> "NDArray[np.int64] | Ramp":
    """The weights that a run begins with, or the ramp that holds from its start.

    Args:
        weights, schedule: as `StreamingLoader` takes them.
        n_tokens: of the domains, their weights where none are given.
    Raises:
        ValueError: as `shares_of`; weights and a WeightSchedule are given both.
    """
    names = list(reader.tokens_of_doc)
    if isinstance(schedule, WeightSchedule):
        if weights is not None:
            raise ValueError("weights: a WeightSchedule has them already, at 0 tokens; leave them out")
        points = [(at, reader.in_tokens(point)) for at, point in schedule.points]
        return replace(schedule, points=points).ramp(names, sequence_length)
    if weights is None:
        return largest_remainder(np.array(n_tokens), ROW)
    return reader.shares(weights)


def bounds_of(
    floors: Mapping[str, float] | None, ceilings: Mapping[str, float] | None, domains: Sequence[str]
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Floors and ceilings in units of ROW, in the order of `domains`; None where there are none.

    Raises:
        ValueError: an unknown domain, a bound outside 0..1, a floor above its ceiling, floors that sum to
            more than one or ceilings that sum to less.

    >>> bounds_of({"web": 0.25}, None, ["code", "web"]) == ((0, ROW // 4), (ROW, ROW))
    True
    """
    if not floors and not ceilings:
        return None
    for where, bounds in (("floors", floors or {}), ("ceilings", ceilings or {})):
        check_names(where, bounds, domains)
        for name, bound in bounds.items():
            if not 0 <= bound <= 1:
                raise ValueError(f"{where}: {name!r} is {bound}; a share of the tokens is 0 to 1")
    low = tuple(math.floor((floors or {}).get(name, 0) * ROW) for name in domains)
    high = tuple(math.ceil((ceilings or {}).get(name, 1) * ROW) for name in domains)
    for name, floor, ceiling in zip(domains, low, high, strict=True):
        if floor > ceiling:
            raise ValueError(
                f"floors: {name!r} has {floor / ROW:g} and the ceiling {ceiling / ROW:g}; lower the floor"
            )
    if sum(low) > ROW:
        raise ValueError(f"floors: they sum to {sum(low) / ROW:g}; they must not sum to more than 1")
    if sum(high) < ROW:
        raise ValueError(f"ceilings: they sum to {sum(high) / ROW:g}; no weights would reach 1")
    return low, high


@lru_cache(maxsize=4096)
def bounded(shares: tuple[int, ...], low: tuple[int, ...], high: tuple[int, ...]) -> tuple[int, ...]:
    """The shares in proportion, each within its bounds: clip(factor · share, low, high) summing to ROW.

    Where the ceilings sum to less than ROW (the other domains are exhausted) the shares are in proportion
    to them; where only domains without a share are left below their ceiling, those are treated alike.

    Args:
        shares: >= 0, (n_domains,).
        low, high: 0 <= low <= high, (n_domains,), in units of ROW; both 0 for a domain that is out.
    Returns:
        (n_domains,), summing to ROW, within one unit of the bounds.

    >>> bounded((3, 1, 0), (0, 0, ROW // 10), (ROW // 2, ROW, ROW)) == (
    ...     ROW // 2, ROW - ROW // 2 - ROW // 10, ROW // 10)
    True
    """
    if sum(high) <= ROW:
        return tuple(largest_remainder(np.array(high, object), ROW).tolist())
    free = [k for k, top in enumerate(high) if top]
    fixed: dict[int, int] = {}
    while True:
        left = ROW - sum(fixed.values())
        weights = {k: shares[k] for k in free}
        if not any(weights.values()):
            weights = dict.fromkeys(free, 1)
        quotas = {k: Fraction(w * left, sum(weights.values())) for k, w in weights.items()}
        clipped = {k: min(max(q, Fraction(low[k])), Fraction(high[k])) for k, q in quotas.items()}
        excess = sum(clipped.values()) - left
        if excess == 0:
            break
        # More than is left: the raised ones stay where they are, and the others get less. Or the reverse.
        held = [k for k in free if (quotas[k] < low[k] if excess > 0 else quotas[k] > high[k])]
        fixed |= {k: int(clipped[k]) for k in held}
        free = [k for k in free if k not in held]
    result = [fixed.get(k, 0) for k in range(len(shares))]
    if free and left:
        exact = largest_remainder(np.array([clipped[k] for k in free], object), left).tolist()
        for k, share in zip(free, exact, strict=True):
            result[k] = share
    return tuple(result)

"""What users write about mixtures (weights, caps) into whole numbers, or an error that says what to write."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ..kernels.apportion import ROW, largest_remainder

# A float32 softmax misses one by about 1e-7; a sum that misses it by more is a mistake.
SUM_TOLERANCE = 1e-6


def shares_of(weights: Mapping[str, float], domains: Sequence[str]) -> NDArray[np.int64]:
    """Mixture weights as shares of ROW, in the order of `domains`.

    Args:
        weights: one weight >= 0 for each domain, 0 to leave it out. They sum to one within SUM_TOLERANCE.
        domains: every domain there is.
    Returns:
        int64, (n_domains,), summing to ROW. A weight below 1 / (2 * ROW) may become zero.
    Raises:
        ValueError: unknown or missing domains; a weight that is negative, NaN or infinite; another sum.

    >>> shares_of({"web": 0.75, "code": 0.25}, ["code", "web"]) / ROW
    array([0.25, 0.75])
    """
    check_names("weights", weights, domains)
    if missing := sorted(set(domains) - set(weights)):
        raise ValueError(
            f"weights: none for {', '.join(map(repr, missing))}; give each domain one, 0 to leave it out"
        )
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"weights: {name!r} is {weight}; a weight is finite and >= 0")
    total = math.fsum(weights.values())
    if abs(total - 1) > SUM_TOLERANCE:
        hint = "divide each by their sum" if total > 0 else "give at least one domain a weight"
        raise ValueError(
            f"weights: they sum to {total:.9g}; they must sum to 1 within {SUM_TOLERANCE:g}; {hint}"
        )
    return largest_remainder(np.array([weights[name] for name in domains], np.float64), ROW)


def row_limits(
    max_epochs: float | Mapping[str, float] | None, n_rows: Mapping[str, int]
) -> dict[str, int | None]:
    """How many rows each domain may give in all: floor(max_epochs · its rows), or None for no limit.

    Args:
        max_epochs: for all domains, or by name (a domain that is not named has no limit).
        n_rows: rows of one epoch of each domain.
    Raises:
        ValueError: an unknown domain, or a cap that is not above zero.

    >>> row_limits({"wiki": 1.5}, {"web": 100, "wiki": 5})
    {'web': None, 'wiki': 7}
    """
    caps = max_epochs if isinstance(max_epochs, Mapping) else dict.fromkeys(n_rows, max_epochs)
    check_names("max_epochs", caps, n_rows)
    for name, cap in caps.items():
        if cap is not None and not cap > 0:
            raise ValueError(
                f"max_epochs: {name!r} is {cap}; it must be above 0 (a weight of 0 leaves a domain out)"
            )
    return {
        name: None if (cap := caps.get(name)) is None or math.isinf(cap) else math.floor(cap * rows)
        for name, rows in n_rows.items()
    }


def check_names(where: str, given: Iterable[str], domains: Iterable[str]) -> None:
    """Refuse names that are not domains, with the nearest one that is.

    >>> check_names("weights", ["wbe"], ["web", "code"])
    Traceback (most recent call last):
    ValueError: weights: unknown domain 'wbe'; did you mean 'web'? The domains are 'code', 'web'
    """
    known = sorted(domains)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f" did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"{where}: unknown domain {name!r};{hint} The domains are {', '.join(map(repr, known))}"
            )

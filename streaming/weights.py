"""What users write about mixtures (weights, caps) into whole numbers, or an error that says what to write."""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..kernels.apportion import ROW, largest_remainder

WeightUnit = Literal["tokens", "rows", "documents"]
# A float32 softmax misses one by about 1e-7; a sum that misses it by more is a mistake.
SUM_TOLERANCE = 1e-6


def shares_of(
    weights: Mapping[str, float], domains: Sequence[str], where: str = "weights"
) -> NDArray[np.int64]:
    """Mixture weights as shares of ROW, in the order of `domains`.

    Args:
        weights: one weight >= 0 for each domain, 0 to leave it out. They sum to one within SUM_TOLERANCE.
        domains: every domain there is.
        where: the argument's name, for errors.
    Returns:
        int64, (n_domains,), summing to ROW. A weight below 1 / (2 * ROW) may become zero.
    Raises:
        ValueError: unknown or missing domains; a weight that is negative, NaN or infinite; another sum.

    >>> shares_of({"web": 0.75, "code": 0.25}, ["code", "web"]) / ROW
    array([0.25, 0.75])
    """
    check_names(where, weights, domains)
    if missing := sorted(set(domains) - set(weights)):
        raise ValueError(
            f"{where}: none for {', '.join(map(repr, missing))}; give each domain one, 0 to leave it out"
        )
    for name, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"{where}: {name!r} is {weight}; a weight is finite and >= 0")
    total = math.fsum(weights.values())
    if abs(total - 1) > SUM_TOLERANCE:
        hint = "divide each by their sum" if total > 0 else "give at least one domain a weight"
        raise ValueError(
            f"{where}: they sum to {total:.9g}; they must sum to 1 within {SUM_TOLERANCE:g}; {hint}"
        )
    return largest_remainder(np.array([weights[name] for name in domains], np.float64), ROW)


def token_weights(
    weights: Mapping[str, float], unit: WeightUnit, tokens_of_doc: Mapping[str, float]
) -> dict[str, float]:
    """Weights in `unit` as weights by tokens, which sum to one.

    Args:
        weights: as `shares_of` takes them.
        unit: "tokens"; "rows", which is the same, as all rows have room for as many; or "documents": a
            domain's weight is its part of the documents, which have its mean length.
        tokens_of_doc: mean tokens of a document, by domain.
    Raises:
        ValueError: as `shares_of`; an unknown unit.

    >>> token_weights({"web": 0.5, "books": 0.5}, "documents", {"web": 100.0, "books": 300.0})
    {'web': 0.25, 'books': 0.75}
    """
    check_names("weight_unit", [unit], get_args(WeightUnit), "unit")
    if unit != "documents":
        return dict(weights)
    shares_of(weights, list(tokens_of_doc))
    tokens = {name: weight * tokens_of_doc[name] for name, weight in weights.items()}
    total = math.fsum(tokens.values())
    return {name: part / total for name, part in tokens.items()}


@dataclass(frozen=True)
class WeightReader:
    """Reads weights that are given in one unit, for the rest of a loader's life.

    Args:
        unit: of the weights.
        tokens_of_doc: mean tokens of a document, by domain, in the planner's order.
    """

    unit: WeightUnit
    tokens_of_doc: Mapping[str, float]

    def in_tokens(self, weights: Mapping[str, float]) -> dict[str, float]:
        """As `token_weights`."""
        return token_weights(weights, self.unit, self.tokens_of_doc)

    def shares(self, weights: Mapping[str, float]) -> NDArray[np.int64]:
        """As `shares_of`: by tokens, in the planner's order."""
        return shares_of(self.in_tokens(weights), list(self.tokens_of_doc))


def epoch_caps(
    max_epochs: float | Mapping[str, float] | None, domains: Iterable[str]
) -> dict[str, float | None]:
    """How often each domain may be gone through; None for no limit.

    Args:
        max_epochs: for all domains, or by name (a domain that is not named has no limit).
        domains: every domain there is.
    Raises:
        ValueError: an unknown domain, or a cap that is not above zero.

    >>> epoch_caps({"wiki": 1.5}, ["web", "wiki"])
    {'web': None, 'wiki': 1.5}
    """
    domains = list(domains)
    caps = max_epochs if isinstance(max_epochs, Mapping) else dict.fromkeys(domains, max_epochs)
    check_names("max_epochs", caps, domains)
    for name, cap in caps.items():
        if cap is not None and not cap > 0:
            raise ValueError(
                f"max_epochs: {name!r} is {cap}; it must be above 0 (a weight of 0 leaves a domain out)"
            )
    return {name: None if (cap := caps.get(name)) is None or math.isinf(cap) else cap for name in domains}


def is_whole(value: object) -> bool:
    """Whether it is a whole number, of Python's or of numpy's."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_names(where: str, given: Iterable[str], known: Iterable[str], kind: str = "domain") -> None:
    """Refuse names that are not known, with the nearest one that is.

    >>> check_names("weights", ["wbe"], ["web", "code"])
    Traceback (most recent call last):
    ValueError: weights: unknown domain 'wbe'; did you mean 'web'? The domains are 'code', 'web'
    """
    known = sorted(known)
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, n=1)
            hint = f" did you mean {near[0]!r}?" if near else ""
            kinds = f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"
            raise ValueError(
                f"{where}: unknown {kind} {name!r};{hint} The {kinds} are {', '.join(map(repr, known))}"
            )

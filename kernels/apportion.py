"""Mixture weights into an order of rows whose every prefix keeps the weights, in integers."""

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from .jit import kernel

# One row, in the unit that shares and credits are counted in: weights are resolved to 1e-12, and credits of
# up to 4,096 rows are exact in JSON (below 2**53).
ROW = 2**40


def largest_remainder(weights: NDArray[np.generic], total: int) -> NDArray[np.int64]:
    """`total` divided in proportion to the weights, in whole numbers that sum to it exactly.

    Each gets the floor of its quota, and what is left goes by ones to the largest fractional parts (ties: the
    first). Exact rational arithmetic, so every machine gets the same counts. O(n log n).

    Args:
        weights: int or float, (n_domains,), finite, >= 0, not all zero. They need not sum to one.
        total: what to divide, >= 0.
    Returns:
        int64, (n_domains,); each less than one from its quota; zero where the weight is zero.
    Raises:
        ValueError: a weight is negative, NaN or infinite, or all are zero.
    Source: Hamilton's method of apportionment (1792).

    >>> largest_remainder(np.array([0.5, 0.3, 0.2]), 9).tolist()
    [4, 3, 2]
    """
    values = weights.tolist()
    if not np.isfinite(np.asarray(values, np.float64)).all() or min(values, default=0) < 0 or not any(values):
        raise ValueError(f"weights are {values}; they must be finite and >= 0, at least one above zero")
    exact = [Fraction(value) for value in values]
    quotas = [w * total / sum(exact) for w in exact]
    counts = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(counts)), key=lambda k: (counts[k] - quotas[k], k))
    for k in by_remainder[: total - sum(counts)]:
        counts[k] += 1
    return np.array(counts, np.int64)


def apportion(
    shares: NDArray[np.int64],
    credit: NDArray[np.int64],
    n_rows: int,
    available: NDArray[np.int64],
    *,
    compiled: bool = True,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which domain each of the next rows comes from, and the credit carried on.

    A domain's credit is the integral of its weight less the rows that it was given. Each row adds the shares
    to the credits and takes one row from the most urgent domain with a share:

    1. one that is overdue (credit above 1 - m rows): the largest credit;
    2. else, of those that are owed (credit at least m), the one that would be overdue soonest;
    3. else the largest credit.

    Ties go to the first. m = 1 / (2 K - 2) for K domains with a share.

    With constant shares and credits that start at zero, every credit stays within 1 - m rows at every prefix:
    no domain is ever a whole row from its weight. Shares that change can break any online rule (withdraw the
    share of each domain just before its turn: about ln K rows); under random changes credits stay below two
    rows (tests/kernels/test_apportion.py). A call for a + b rows gives what calls for a, then b give.

    Args:
        shares: int64, (n_domains,), weights in units of ROW, so that they sum to ROW. A domain without a
            share is never drawn and keeps its credit.
        credit: int64, (n_domains,), in units of ROW, as the last call returned it; zeros at first.
        n_rows: rows wanted.
        available: int64, (n_domains,), rows that each domain still has.
        compiled: False for `apportion_reference`, which needs no compiled code.
    Returns:
        domains: int64, (n_rows,), or fewer: it ends with the row that takes a domain's last, so that the
            caller can share out its weight.
        credit: int64, (n_domains,), sums to what it summed to before.
    Raises:
        ValueError: shares do not sum to ROW, or a domain with a share has no row available.
    Source: Tijdeman 1980, "The chairman assignment problem" (the bound 1 - m; rule 2). Rule 1 is ours:
        without it small domains that are overdue hold up the large ones after a change of weights. The
        largest deficit alone (rule 3; Megatron-LM's blend) passes one row from four domains on.

    >>> shares = largest_remainder(np.array([2, 1]), ROW)
    >>> domains, credit = apportion(shares, np.zeros(2, np.int64), n_rows=6, available=np.full(2, 9))
    >>> domains.tolist()
    [0, 1, 0, 0, 1, 0]
    """
    if not compiled:
        return apportion_reference(shares, credit, n_rows, available)
    _check(shares, n_rows, available)
    domains, carried = np.empty(n_rows, np.int64), credit.copy()
    n_drawn = _apportion(shares, carried, available.astype(np.int64), _margin(shares), domains)
    return domains[:n_drawn], carried


def apportion_reference(
    shares: NDArray[np.int64],
    credit: NDArray[np.int64],
    n_rows: int,
    available: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`apportion`, as its docstring puts it."""
    _check(shares, n_rows, available)
    margin, credit, available = _margin(shares), credit.copy(), available.copy()
    active: list[int] = np.flatnonzero(shares).tolist()
    domains: list[int] = []

    def urgency(k: int) -> tuple[int, int, int]:
        owed, share = int(credit[k]), int(shares[k])
        if owed > ROW - margin:
            return 1, -owed, k
        if owed >= margin:
            return 2, (ROW - margin - owed) // share, k
        return 3, -owed, k

    while len(domains) < n_rows and (available[active] > 0).all():
        credit += shares
        drawn = min(active, key=urgency)
        credit[drawn] -= ROW
        available[drawn] -= 1
        domains.append(drawn)
    return np.array(domains, np.int64), credit


def _margin(shares: NDArray[np.int64]) -> int:
    return ROW // max(1, 2 * int(np.count_nonzero(shares)) - 2)


def _check(shares: NDArray[np.int64], n_rows: int, available: NDArray[np.int64]) -> None:
    if shares.sum() != ROW or shares.min() < 0:
        raise ValueError(f"shares are {shares.tolist()}; they must be >= 0 and sum to {ROW}, one row")
    if n_rows < 0:
        raise ValueError(f"n_rows is {n_rows}; it must be >= 0")
    for k in np.flatnonzero((shares > 0) & (available <= 0)):
        raise ValueError(f"domain {k} has a share of {shares[k]} and no row available; set its share to zero")


@kernel
def _urgency(credit: int, share: int, margin: int) -> tuple[int, int]:
    if credit > ROW - margin:
        return 1, -credit
    if credit >= margin:
        return 2, (ROW - margin - credit) // share
    return 3, -credit


@kernel
def _apportion(
    shares: NDArray[np.int64],
    credit: NDArray[np.int64],
    available: NDArray[np.int64],
    margin: int,
    domains: NDArray[np.int64],
) -> int:
    active = np.flatnonzero(shares)
    for t in range(domains.shape[0]):
        drawn, most_urgent = 0, (4, 0)
        for i in range(active.shape[0]):
            k = int(active[i])
            credit[k] += shares[k]
            urgency = _urgency(int(credit[k]), int(shares[k]), margin)
            if urgency < most_urgent:
                drawn, most_urgent = k, urgency
        credit[drawn] -= ROW
        available[drawn] -= 1
        domains[t] = drawn
        if available[drawn] == 0:
            return t + 1
    return len(domains)

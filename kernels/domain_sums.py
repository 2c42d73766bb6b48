"""Sums of losses and counts of tokens by domain, in whole numbers: they do not depend on any order."""

import numpy as np
from numpy.typing import NDArray

from .jit import kernel

Ints = NDArray[np.int64]


def domain_sums(
    domains: Ints,
    values: NDArray[np.float64],
    n_tokens: Ints,
    n_domains: int,
    *,
    unit: int,
    largest: float,
    compiled: bool = True,
) -> Ints:
    """Each domain's sum of rounded(value · unit) · n_tokens, its tokens, and how many values were left out.

    Args:
        domains: int64, (n_rows,), in [0, n_domains).
        values: float64, (n_rows,), a mean of each row's tokens; left out if not finite or above `largest`.
        n_tokens: int64, (n_rows,), behind each value; a row of none is as if absent.
        compiled: by the kernel, else by the reference: equal bit for bit, wrapped round 2**63 alike.
    Returns:
        int64, (2 n_domains + 1,): the sums, the tokens, and the number left out.

    >>> values = np.array([1.0, 2.0, np.nan])
    >>> domain_sums(np.array([0, 1, 1]), values, np.array([2, 3, 3]), 2, unit=4, largest=9.0).tolist()
    [8, 24, 2, 3, 1]
    """
    if not compiled:
        return domain_sums_reference(domains, values, n_tokens, n_domains, unit=unit, largest=largest)
    found = np.zeros(2 * n_domains + 1, np.int64)
    _sums(domains, values, n_tokens, unit, largest, found)
    return found


def domain_sums_reference(
    domains: Ints, values: NDArray[np.float64], n_tokens: Ints, n_domains: int, *, unit: int, largest: float
) -> Ints:
    """`domain_sums` in numpy."""
    is_good = (np.abs(values) <= largest) & (n_tokens > 0)  # False for NaN, too
    found = np.zeros(2 * n_domains + 1, np.int64)
    found[-1] = np.count_nonzero(~is_good & (n_tokens > 0))
    domains, values, n_tokens = domains[is_good], values[is_good], n_tokens[is_good]
    np.add.at(found, domains, np.rint(values * unit).astype(np.int64) * n_tokens)
    np.add.at(found, n_domains + domains, n_tokens)
    return found


def domain_means(sums: Ints, unit: int) -> tuple[NDArray[np.float64], NDArray[np.float64], int]:
    """What `domain_sums` of `unit` found, as numbers.

    Returns:
        float64, (n_domains,), each domain's mean loss, NaN where it has no tokens; float64, (n_domains,), its
        tokens; and how many values were left out.
    """
    means, n_tokens = np.empty(sums.size // 2), np.empty(sums.size // 2)
    _means(sums, unit, means, n_tokens)
    return means, n_tokens, int(sums[-1])


@kernel
def _means(sums: Ints, unit: int, means: NDArray[np.float64], n_tokens: NDArray[np.float64]) -> None:
    n_domains = means.size
    for k in range(n_domains):
        n_tokens[k] = sums[n_domains + k]
        means[k] = np.float64(sums[k]) / (n_tokens[k] * unit) if n_tokens[k] > 0 else np.nan


@kernel
def _sums(
    domains: Ints, values: NDArray[np.float64], n_tokens: Ints, unit: int, largest: float, found: Ints
) -> None:
    n_domains = found.size // 2
    for r in range(domains.size):
        if n_tokens[r] <= 0:
            continue
        if abs(values[r]) <= largest:
            found[domains[r]] += np.int64(np.rint(values[r] * unit)) * n_tokens[r]
            found[n_domains + domains[r]] += n_tokens[r]
        else:
            found[2 * n_domains] += 1

"""Budgets that are met by rank and by chance, so that a pruned corpus does not lose its usual documents."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..kernels.hashing import hash_ranges
from .text_column import text_buffers


def needed_fraction(
    rank: NDArray[np.float64], chance: NDArray[np.float64], random_fraction: float
) -> NDArray[np.float64]:
    """The smallest budget r with which a document stays, by rank or by chance.

    By rank it stays where ``rank < (1 - a) r``, with a = `random_fraction`; else where ``chance < p(r)``,
    the probability ``a r / (1 - (1 - a) r)`` that fills the budget, which rises with r.

    >>> needed_fraction(np.array([0.1, 0.9, 0.9]), np.array([0.9, 0.9, 0.01]), 0.5).round(2).tolist()
    [0.2, 0.95, 0.02]
    """
    a = random_fraction
    by_rank = rank / (1 - a) if a < 1 else np.full_like(rank, np.inf)
    by_chance = chance / (a + chance * (1 - a)) if a else np.full_like(rank, np.inf)
    return np.minimum(by_rank, by_chance)


def documents_stood_for(
    rank: NDArray[np.float64], keep_fraction: float, random_fraction: float
) -> NDArray[np.float64]:
    """How many documents one stands for that stays: 1 by rank, the inverse of its probability by chance.

    Where nothing stays by chance every document stands for itself, and weighed losses are biased.

    >>> documents_stood_for(np.array([0.1, 0.9]), 0.5, 0.5).tolist()  # by chance 1/4 of the last 3/4
    [1.0, 3.0]
    """
    by_rank = (1 - random_fraction) * keep_fraction
    by_chance = random_fraction * keep_fraction / (1 - by_rank) if by_rank < 1 else 0.0
    return np.where((rank < by_rank) | (by_chance == 0), 1.0, 1 / max(by_chance, 1e-300))


def budget_columns(
    rank: NDArray[np.float64],
    chance: NDArray[np.float64],
    is_ranked: NDArray[np.bool_],
    keep_fraction: float,
    random_fraction: float,
) -> dict[str, pa.Array]:
    """`rank`, `needs` and `weight` of all documents, double; null, null and 1 for those without a rank.

    Args:
        rank, chance: float64, (n_ranked,), in [0, 1).
        is_ranked: bool, (n_docs,), of which n_ranked are true.

    >>> columns = budget_columns(np.array([0.1]), np.array([0.9]), np.array([True, False]), 0.5, 0.5)
    >>> columns["rank"].to_pylist(), columns["weight"].to_pylist()
    ([0.1, None], [1.0, 1.0])
    """
    columns = {
        "rank": rank,
        "needs": needed_fraction(rank, chance, random_fraction),
        "weight": documents_stood_for(rank, keep_fraction, random_fraction),
    }
    result = {}
    for name, values in columns.items():
        whole = np.ones(len(is_ranked))
        whole[is_ranked] = values
        result[name] = pa.array(whole, mask=~is_ranked & (name != "weight"))
    return result


def uniforms(ids: pa.ChunkedArray, seed: int) -> NDArray[np.float64]:
    """float64, (n,), in [0, 1): a hash of (seed, id)."""
    return (hash_ranges(*text_buffers(ids), seed=seed) >> np.uint64(11)) / 2.0**53

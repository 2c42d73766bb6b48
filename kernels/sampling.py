"""Rows drawn by their scores, without replacement and repeatably: what batch selection is made of.

In blocks, each unlike the blocks before: blocked_sampling.py.
"""

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from .permutation import mix64

Law = Literal["softmax", "power", "softrank"]
LAWS: tuple[Law, ...] = get_args(Law)


def uniforms(n: int, key: int) -> NDArray[np.float64]:
    """n numbers in (0, 1), a function of (place, key) alone: float64, (n,)."""
    return (mix64(np.arange(n, dtype=np.uint64), key) >> np.uint64(11)).astype(np.float64) / 2**53 + 2**-54


def gumbel_top_k(
    scores: NDArray[np.float64], k: int, *, key: int, law: Law = "softmax", beta: float = 1.0
) -> NDArray[np.int64]:
    """k rows drawn one after another without replacement, with odds by their scores; int64, (k,), as drawn.

    The odds of a row with score s are exp(beta s) (softmax), s**beta (power), or rank**-beta, the greatest
    score having rank 1 (softrank). beta 0 draws evenly; as beta grows, the top k are drawn.

    Args:
        scores: (n,), no NaN; -inf is never drawn, unless nothing else is left. Power takes scores >= 0.
        k: 0 <= k <= n.
        key: of the random numbers, 0 <= key < 2**64: the same gives the same rows.
    Raises:
        ValueError: names the argument, what was found and what is allowed.
    Source: Kirsch et al. 2021, "Stochastic batch acquisition for deep active learning" (arXiv 2106.12059),
        section 3 and table 1; the Gumbel top-k trick is of Kool et al. 2019.

    >>> gumbel_top_k(np.array([0.0, 30.0, 60.0]), 2, key=1).tolist()
    [2, 1]
    """
    perturbed, _ = _perturbed(scores, k, key, law, beta)
    return np.argsort(-perturbed, kind="stable")[:k].astype(np.int64)


def drawn_top_k(
    scores: NDArray[np.float64], k: int, *, key: int, law: Law = "softmax", beta: float = 1.0
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The rows of `gumbel_top_k`, and with which chance each was drawn, given the luck of those not drawn.

    The sum over drawn rows of f(row) / chance is in expectation the sum of f over all rows that can be drawn.

    Returns:
        indices: int64, (k,), as drawn.
        chances: float64, (k,), in (0, 1]: 1 - exp(-exp(logit - t)), t the greatest perturbed logit not drawn.
    Source: Kool et al. 2019, "Stochastic beams and where to find them" (arXiv 1903.06059), section 4.2.
    """
    perturbed, logits = _perturbed(scores, k, key, law, beta)
    order = np.argsort(-perturbed, kind="stable").astype(np.int64)
    drawn = order[:k]
    threshold = perturbed[order[k]] if k < order.size else -np.inf
    if threshold == -np.inf:
        return drawn, np.ones(k)
    return drawn, np.maximum(-np.expm1(-np.exp(logits[drawn] - threshold)), 1e-300)


def _perturbed(
    scores: NDArray[np.float64], k: int, key: int, law: Law, beta: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logits with Gumbel noise, whose order is that of the draw; and without."""
    scores = checked_scores(scores, k, beta)
    if law not in LAWS:
        raise ValueError(f"law is {law!r}; it must be one of {LAWS}")
    if law == "power":
        if scores.size and scores.min() < 0:
            raise ValueError(f"scores[{scores.argmin()}] is {scores.min()}; the power law takes scores >= 0")
        with np.errstate(divide="ignore"):
            logits = beta * np.log(scores) if beta else np.zeros_like(scores)
    elif law == "softrank":
        ranks = np.empty(scores.size)
        ranks[np.argsort(-scores, kind="stable")] = np.arange(1, scores.size + 1)
        logits = np.where(scores == -np.inf, -np.inf, -beta * np.log(ranks))
    else:
        logits = beta * scores if beta else np.where(scores == -np.inf, -np.inf, 0.0)
    return logits - np.log(-np.log(uniforms(scores.size, key))), logits


def checked_scores(scores: NDArray[np.float64], k: int, beta: float) -> NDArray[np.float64]:
    """Scores as float64, if `k` of them can be drawn, and with such a `beta`.

    Raises:
        ValueError: names the argument, what was found and what is allowed.
    """
    scores = np.ascontiguousarray(scores, np.float64)
    if scores.ndim != 1 or not 0 <= k <= scores.size:
        raise ValueError(f"k is {k}; of scores of shape {scores.shape} none to all can be drawn")
    if np.isnan(scores).any() or (scores == np.inf).any():
        at = int(np.argmax(np.isnan(scores) | (scores == np.inf)))
        raise ValueError(
            f"scores[{at}] is {scores[at]}; scores must be numbers, or -inf for what is not drawn"
        )
    if not 0 <= beta < np.inf:
        raise ValueError(f"beta is {beta}; it must be finite and >= 0")
    return scores

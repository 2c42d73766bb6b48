"""Which mixtures to try: caps from the tokens there are, and a random design inside them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

MIN_WEIGHT = 2e-4  # RegMix: a domain below it is left out
MIN_DISTANCE = 0.01  # olmix: mixtures nearer than this (Euclidean) count as one
# RegMix has (0.1, 5.0): mostly one or two domains, far from any mixture one would train on.
STRENGTHS = (1.0, 20.0)
TOLERANCE = 1e-9


def caps(tokens: ArrayLike, budget: float, max_epochs: ArrayLike = 4.0) -> Floats:
    """The largest weight each domain can carry: min(1, max_epochs * tokens / budget).

    Args:
        tokens: (K,), available tokens per domain.
        budget: tokens of the run that the mixture is for (not of its proxies).
        max_epochs: one number, or (K,). Up to 4 epochs cost about as little as fresh text (Muennighoff et al.
            2023).
    Returns:
        float64, (K,), in [0, 1].
    Raises:
        ValueError: the caps sum to less than one, so no mixture fills the budget.

    >>> caps([3.9e9, 500e9], budget=100e9)
    array([0.156, 1.   ])
    """
    available = np.asarray(max_epochs, dtype=np.float64) * np.asarray(tokens, dtype=np.float64)
    if budget <= 0 or not np.all(available >= 0):
        raise ValueError(
            f"caps: budget is {budget:g} tokens, tokens * max_epochs are {available.tolist()}; "
            "the budget must be positive and the others not negative."
        )
    upper, usable = np.minimum(1.0, available / budget), float(available.sum())
    if usable == 0:
        raise ValueError("caps: no domain may be used, for tokens * max_epochs are all 0; raise max_epochs.")
    if upper.sum() < 1 - TOLERANCE:
        raise ValueError(
            f"a budget of {_tokens(budget)} tokens cannot be filled: the {upper.size} domains hold "
            f"{_tokens(float(np.sum(tokens)))}, which max_epochs turns into {_tokens(usable)}. "
            f"Lower the budget to at most {_tokens(usable)}, or raise max_epochs by a factor of "
            f"{budget / usable:.3g}."
        )
    return upper


def project_to_capped_simplex(w: ArrayLike, caps: ArrayLike) -> Floats:
    """The mixture nearest to w, in Kullback-Leibler divergence, that obeys the caps: min(cap_i, s * w_i).

    Domains that hit their cap stay there, the others keep their ratios. Where the domains with positive
    weight cannot fill the mixture, the rest goes to the others in proportion to their caps.

    Args:
        w: (K,), not negative, any positive sum.
        caps: (K,), the largest weights, summing to one or more.
    Returns:
        float64, (K,), summing to one, below the caps to rounding.
    Raises:
        ValueError: shapes differ, w is not a mixture, or the caps sum to less than one.

    >>> project_to_capped_simplex([0.6, 0.3, 0.1], caps=[0.4, 1.0, 1.0]).round(3)
    array([0.4 , 0.45, 0.15])
    """
    weights, upper = np.array(w, dtype=np.float64), np.asarray(caps, dtype=np.float64)
    _check_projection(weights, upper)
    capped = np.zeros(len(weights), dtype=bool)
    while True:
        free = ~capped & (weights > 0)
        rest = 1.0 - upper[capped].sum()
        if not free.any():
            unused = ~capped
            share = upper[unused] / upper[unused].sum() if rest > TOLERANCE else 0.0
            weights[capped], weights[unused] = upper[capped], rest * share
            return weights
        scaled = weights * (rest / weights[free].sum())
        above = free & (scaled > upper)
        if not above.any():
            return np.where(capped, upper, scaled)
        capped |= above


def sample_design(
    natural: ArrayLike,
    n: int,
    seed: int = 0,
    caps: ArrayLike | None = None,
    temperature: float = 0.5,
    strengths: tuple[float, float] = STRENGTHS,
) -> Floats:
    """n distinct mixtures to train proxies on: the natural one, the uniform one, then random ones.

    A random mixture is one draw of Dirichlet(s q) with q proportional to natural ** temperature and s
    log-uniform in `strengths`; weights below 2e-4 become zero; the result is projected into the caps.

    Args:
        natural: (K,), each domain's share of the available tokens, summing to one.
        n: rows wanted, 2 or more.
        caps: (K,), the largest weights; None for no caps.
        temperature: 1 follows the natural mixture, 0 the uniform one.
        strengths: range of the Dirichlet's total concentration.
    Returns:
        float64, (n, K); every row sums to one and obeys the caps to 1e-9.
    Raises:
        ValueError: n is below 2, or the caps leave no room for n distinct mixtures.

    Source: RegMix (Liu et al. 2024), its public sampler. It rejects draws above the caps, so that tight caps
    leave nothing, and rounds to 2e-4, so that rows no longer sum to one; we project and do not round. Its
    concentrations are lower (see STRENGTHS): with 12 or 24 runs, ours find better mixtures.
    """
    if n < 2:
        raise ValueError(
            f"a design of {n} mixtures has no room for the natural and the uniform one; take 2 or more."
        )
    prior = np.asarray(natural, dtype=np.float64)
    upper = np.ones_like(prior) if caps is None else np.asarray(caps, dtype=np.float64)
    rows = _distinct_mixtures(prior, n, seed, upper, temperature, strengths, patience=100 * n)
    if len(rows) < n:
        raise ValueError(
            f"only {len(rows)} of n = {n} mixtures found at least {MIN_DISTANCE} apart: the caps sum to "
            f"{upper.sum():.4g} and leave little room above 1. Lower n or the budget, or raise max_epochs."
        )
    return rows


def sample_candidates(natural: ArrayLike, n: int, seed: int, caps: ArrayLike) -> Floats:
    """`sample_design`'s mixtures to choose among: fewer than n where two domains or the caps have no room.

    >>> len(sample_candidates([0.5, 0.5], 200, seed=0, caps=[0.501, 0.501]))
    1
    """
    prior, upper = np.asarray(natural, dtype=np.float64), np.asarray(caps, dtype=np.float64)
    return _distinct_mixtures(prior, n, seed, upper, 0.5, STRENGTHS, patience=n)


def _distinct_mixtures(
    prior: Floats,
    n: int,
    seed: int,
    upper: Floats,
    temperature: float,
    strengths: tuple[float, float],
    patience: int,
) -> Floats:
    """Up to n mixtures; no more are sought after `patience` draws in a row that were too near to others."""
    tempered = np.where(prior > 0, prior, 1e-12) ** temperature
    tempered /= tempered.sum()
    rng = np.random.default_rng(seed)
    rows = [project_to_capped_simplex(prior, upper)]
    uniform = project_to_capped_simplex(np.ones_like(prior), upper)
    if np.linalg.norm(uniform - rows[0]) >= MIN_DISTANCE:
        rows.append(uniform)
    n_near = 0
    for _ in range(100 * n):
        if len(rows) == n or n_near == patience:
            break
        strength = np.exp(rng.uniform(*np.log(strengths)))
        draw = rng.dirichlet(np.maximum(strength * tempered, 1e-9))
        candidate = _drop_small(project_to_capped_simplex(draw, upper), upper)
        if np.linalg.norm(np.stack(rows) - candidate, axis=1).min() >= MIN_DISTANCE:
            rows.append(candidate)
            n_near = 0
        else:
            n_near += 1
    return np.stack(rows)


def kl_divergence(w: ArrayLike, reference: ArrayLike) -> float:
    """sum_i w_i log(w_i / reference_i) in nats; infinite where w uses a domain that the reference lacks.

    >>> round(kl_divergence([0.5, 0.5], [0.9, 0.1]), 3)
    0.511
    """
    weights, p = np.asarray(w, dtype=np.float64), np.asarray(reference, dtype=np.float64)
    used = weights > 0
    if np.any(p[used] <= 0):
        return float("inf")
    return float(np.sum(weights[used] * np.log(weights[used] / p[used])))


def _drop_small(w: Floats, upper: Floats) -> Floats:
    """w without its weights below MIN_WEIGHT, unless the caps need them."""
    return project_to_capped_simplex(np.where(w < MIN_WEIGHT, 0.0, w), upper)


def _check_projection(weights: Floats, upper: Floats) -> None:
    if weights.shape != upper.shape or weights.ndim != 1:
        raise ValueError(
            f"weights of shape {weights.shape} and caps of shape {upper.shape}; both must be (K,)."
        )
    if not (np.all(np.isfinite(weights)) and np.all(weights >= 0) and weights.sum() > 0):
        raise ValueError(
            f"weights are {weights.tolist()}; they must be finite, not negative, and not all zero."
        )
    if not np.all(upper >= 0) or upper.sum() < 1 - TOLERANCE:
        raise ValueError(
            f"caps sum to {upper.sum():.6g}, but weights sum to 1. Lower the budget or raise max_epochs."
        )


def _tokens(n: float) -> str:
    """A token count for a person: 3.9B, 120M.

    >>> _tokens(3.9e9), _tokens(999)
    ('3.9B', '999')
    """
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= size:
            return f"{n / size:.3g}{unit}"
    return f"{n:.3g}"

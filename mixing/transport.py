"""Entropic optimal transport from mixtures of point sets to a fixed one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SHARE_OF_MEDIAN = 0.05  # regularisation, in medians of the cost
N_STEPS, TOLERANCE = 500, 1e-6


def squared_distances(a: Floats, b: Floats) -> Floats:
    """Between the rows of a, (n, d), and of b, (m, d): float64, (n, m)."""
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1) - 2 * (a @ b.T)
    return np.asarray(np.maximum(squares, 0.0))


def transport_costs(cost: Floats, masses: Floats, n_steps: int = N_STEPS) -> Floats:
    """What it costs to move each row of masses to equal masses at m points, by Sinkhorn's iterations.

    The minimum over couplings P of <P, cost> + eps KL(P || masses x 1/m), eps 5 % of the cost's median, as
    its dual: smooth in the masses, at most eps log m above the transport cost itself. All rows iterate
    together, (n, m) times (m, M) products, until the largest relative violation of a marginal is below 1e-6.

    Args:
        cost: float64, (n, m), not negative.
        masses: float64, (M, n), each row sums to one; zeros are allowed.
    Returns:
        float64, (M,).

    Source: Cuturi 2013, algorithm 1; the objective with a divergence, Feydy et al. 2019.

    >>> cost = np.array([[0.0, 1.0], [1.0, 0.0]])
    >>> transport_costs(cost, np.array([[0.5, 0.5], [1.0, 0.0]])).round(2)
    array([0.02, 0.5 ])
    """
    scale = float(np.median(cost)) or float(cost.mean()) or 1.0
    eps = SHARE_OF_MEDIAN * scale
    kernel = np.exp(-np.minimum(cost / eps, 600.0))  # (n, m); beyond that nothing moves anyway
    v = np.ones((len(masses), cost.shape[1]))
    for _ in range(n_steps):
        u = 1.0 / np.maximum((v / cost.shape[1]) @ kernel.T, 1e-300)  # (M, n)
        step = 1.0 / np.maximum((masses * u) @ kernel, 1e-300)
        change = np.max(np.abs(step / v - 1.0), initial=0.0)
        v = step
        if change < TOLERANCE:
            break
    potentials = masses * np.log(u)
    return np.asarray(eps * (potentials.sum(axis=1) + np.log(v).mean(axis=1)))

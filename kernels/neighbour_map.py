"""A map in the plane on which neighbours stay neighbours: t-SNE, for the documents that a report shows."""

import numpy as np
from numpy.typing import NDArray

from .embedding import UNIT
from .jit import kernel

Floats = NDArray[np.float64]

PERPLEXITY = 20.0
N_ITERATIONS, N_EXAGGERATED = 400, 100
EXAGGERATION = 12.0
LEAST_RATE = 50.0


def neighbour_map(vectors: NDArray[np.int16]) -> Floats:
    """float64, (n, 2): positions whose neighbours are the vectors' neighbours; far apart means nothing.

    It begins at the two leading principal components, so the same vectors give the same map.

    Cost: `N_ITERATIONS` times n**2; for some thousand vectors.
    Source: van der Maaten and Hinton 2008, with the beginning and the learning rate n / `EXAGGERATION` of
        Kobak and Berens 2019.
    """
    n = len(vectors)
    if n < 4:
        return np.eye(n, 2)
    affinities = joint_affinities(vectors, min(PERPLEXITY, (n - 1) / 3))
    position = _principal_components(vectors)
    rate = max(n / EXAGGERATION, LEAST_RATE)
    velocity, gains = np.zeros((n, 2)), np.ones((n, 2))
    for iteration in range(N_ITERATIONS):
        early = iteration < N_EXAGGERATED
        gradient = tsne_gradient(position, affinities * (EXAGGERATION if early else 1.0))
        gains = np.where(gradient * velocity > 0, gains * 0.8, gains + 0.2).clip(0.01)
        velocity = (0.5 if early else 0.8) * velocity - rate * gains * gradient
        position = position + velocity
    found: Floats = position - position.mean(axis=0)
    return found


def _principal_components(vectors: NDArray[np.int16]) -> Floats:
    """float64, (n, 2), of a small extent; the vector farthest along each has a positive coordinate."""
    centred = np.pad(vectors - vectors.mean(axis=0), ((0, 0), (0, max(0, 2 - vectors.shape[1]))))
    _, directions = np.linalg.eigh(centred.T @ centred)
    position = centred @ directions[:, :-3:-1]
    farthest = position[np.abs(position).argmax(axis=0), [0, 1]]
    beginning: Floats = position * np.where(farthest < 0, -1e-4, 1e-4) / max(position[:, 0].std(), 1e-12)
    return beginning


def joint_affinities(vectors: NDArray[np.int16], perplexity: float) -> Floats:
    """float64, (n, n), symmetric, its sum 1: how near two vectors are, by Gaussians of equal perplexity."""
    n = len(vectors)
    cosines = vectors.astype(np.float64) @ vectors.T.astype(np.float64) / UNIT**2
    distances = np.maximum(1 - cosines, 0)
    np.fill_diagonal(distances, np.inf)
    least, most = np.full(n, 1e-3), np.full(n, 1e6)
    for _ in range(50):
        beta = np.sqrt(least * most)
        weights = np.exp(-(distances - distances.min(axis=1, keepdims=True)) * beta[:, None])
        shares = weights / weights.sum(axis=1, keepdims=True)
        entropy = -(shares * np.log(np.maximum(shares, 1e-300))).sum(axis=1)
        too_wide = entropy > np.log(perplexity)
        least, most = np.where(too_wide, beta, least), np.where(too_wide, most, beta)
    joint: Floats = (shares + shares.T) / (2 * n)
    return joint


def tsne_gradient(position: Floats, affinities: Floats) -> Floats:
    """float64, (n, 2): of the Kullback-Leibler divergence from `affinities` to those of the map.

    Args:
        position: float64, (n, 2); affinities: float64, (n, n), 0 on the diagonal.
    """
    return _gradient(position, affinities)


def tsne_gradient_reference(position: Floats, affinities: Floats) -> Floats:
    """`tsne_gradient` in numpy (van der Maaten and Hinton 2008, equation 5)."""
    differences = position[:, None] - position[None]
    kernels = 1 / (1 + (differences**2).sum(axis=2))
    np.fill_diagonal(kernels, 0)
    forces = (affinities - kernels / kernels.sum()) * kernels
    gradient: Floats = 4 * (forces[:, :, None] * differences).sum(axis=1)
    return gradient


@kernel
def _gradient(position: Floats, affinities: Floats) -> Floats:
    n = len(position)
    attraction, repulsion = np.zeros((n, 2)), np.zeros((n, 2))
    total = 0.0
    for i in range(n):
        for j in range(i):
            x, y = position[i, 0] - position[j, 0], position[i, 1] - position[j, 1]
            nearness = 1 / (1 + x * x + y * y)
            total += 2 * nearness
            pull, push = affinities[i, j] * nearness, nearness * nearness
            attraction[i, 0] += pull * x
            attraction[i, 1] += pull * y
            attraction[j, 0] -= pull * x
            attraction[j, 1] -= pull * y
            repulsion[i, 0] += push * x
            repulsion[i, 1] += push * y
            repulsion[j, 0] -= push * x
            repulsion[j, 1] -= push * y
    return 4 * (attraction - repulsion / total)

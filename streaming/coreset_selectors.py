"""Selectors that look at what rows teach: few rows whose gradients stand for those of all."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from ..kernels.blocked_sampling import blocked_sequential_sampling
from ..kernels.facility_location import facility_location
from ..kernels.facility_location_torch import facility_location_torch
from ..kernels.line_medoids import line_medoids
from .scored_selectors import excess_losses, key_of, known_losses, standardised
from .selection import (
    Candidates,
    Floats,
    Ints,
    Selector,
    mean_one,
    proportional_budgets,
    shares,
)

Float32s = NDArray[np.float32]


class FacilityLocation(Selector):
    """The k rows that leave every candidate near one of them: sum of the greatest cosines, chosen greedily.

    Args:
        by_source: choose from each source in proportion to its candidates; a row may stand for any.
        quality: what the hardest row is worth beside the easiest, in candidates covered wholly. 0: coverage
            alone, and losses are not needed.
        weighted: weigh each row by the candidates that are nearest to it, else all alike.
        device: where torch computes cosines and gains, "cuda" for one; None: the compiled kernels, which are
            faster than torch on a CPU.
    Source: facility location as in kernels/facility_location.py, where the greedy bound is; as a batch
        selector: Mirzasoleiman et al. 2020, "Coresets for data-efficient training" (CRAIG, arXiv 1906.01827),
        section 3, there over an epoch, with the weights.
    """

    def __init__(
        self,
        *,
        by_source: bool = True,
        quality: float = 0.0,
        weighted: bool = False,
        device: str | None = None,
    ) -> None:
        super().__init__()
        if not 0 <= quality < np.inf:
            raise ValueError(f"quality is {quality}; it must be finite and >= 0")
        self.by_source, self.quality, self.weighted = by_source, quality, weighted
        self.device = device
        self.needs = frozenset({"features", "losses"} if quality else {"features"})

    def _select(self, candidates: Candidates, k: int, random: np.random.Generator) -> tuple[Ints, Floats]:
        assert candidates.features is not None
        bonus = None
        if self.quality:
            losses = known_losses(candidates)
            bonus = self.quality * (losses - losses.min()) / max(float(np.ptp(losses)), 1e-300)
        sources = candidates.sources if self.by_source else np.zeros_like(candidates.sources)
        budgets = proportional_budgets(np.bincount(sources), k)
        limits: dict[str, Any] = {"groups": sources, "budgets": budgets, "bonus": bonus}
        if self.device is None:
            found = facility_location(cosines(candidates.features), k, **limits)
        else:
            found = facility_location_torch(cosines_on(self.device, candidates.features), k, **limits)
        weights = mean_one(np.maximum(found.sizes, 1.0)) if self.weighted else np.ones(k)
        return found.indices, weights


class CoLM(Selector):
    """Medoids of each source by what Adam would make of their gradients; small sources are kept whole.

    A source that would have fewer than `keep_below` rows in the batch is kept whole, the smallest first, with
    at most half of the batch: medoids would miss it. Of the others each has its share of the rest. Features
    (gradients, projected or not) become Adam's steps u = m' / (sqrt(v') + 1e-8), with the moments' means over
    the rows chosen before as their past; of each source those coordinates stay in which its mean step is
    largest, and its medoids are chosen greedily by L1 distance. Features of one number (one direction of
    zeroth-order differences) are points on a line, whose medoids are exact.

    Args:
        n_coordinates: that stay of a source's.
        keep_below: expected rows of a source in the batch below which it is kept whole.
        betas: Adam's.
        weighted: weigh a medoid by the rows nearest to it, and a row kept whole by itself.
    Source: Nguyen et al. 2024, "Mini-batch coresets for memory-efficient language model training on data
        mixtures" (arXiv 2407.19580), algorithm 1, and its released code, whose list of kept sources is a rule
        here. The code keeps 2,560 of 327,680 coordinates of one zeroth-order direction, in which all rows are
        multiples of one vector; features of features.py have several directions, so few coordinates are
        left out. Where kept sources overflow the batch it takes the first few rows; here half is the bound.
    """

    state = ("m", "v")

    def __init__(
        self,
        *,
        n_coordinates: int = 64,
        keep_below: float = 1.0,
        betas: tuple[float, float] = (0.9, 0.999),
        weighted: bool = False,
    ) -> None:
        super().__init__()
        if n_coordinates < 1 or not keep_below >= 0 or not all(0 <= beta < 1 for beta in betas):
            raise ValueError(
                f"n_coordinates, keep_below and betas are {n_coordinates}, {keep_below}, {betas}; they are "
                "1 or more, 0 or more, and two numbers in [0, 1)"
            )
        self.n_coordinates, self.keep_below, self.betas = n_coordinates, keep_below, betas
        self.weighted, self.needs = weighted, frozenset({"features"})
        self.m, self.v = np.empty(0), np.empty(0)  # (d,), means over the rows chosen last

    def _select(self, candidates: Candidates, k: int, random: np.random.Generator) -> tuple[Ints, Floats]:
        assert candidates.features is not None
        sources, n = candidates.sources, candidates.sources.size
        m, v = self._moments(candidates.features.astype(np.float64))
        steps = self._steps(m, v)
        kept = kept_whole(np.bincount(sources), k, self.keep_below)
        whole = np.flatnonzero(kept[sources])
        others = np.flatnonzero(~kept[sources])
        rows, weights = [whole], [np.full(whole.size, k / n)]
        for own, budget in shares(sources[others], k - whole.size):
            chosen, sizes = medoids(steps[others[own]], budget, self.n_coordinates)
            rows.append(others[own[chosen]])
            weights.append(sizes * k / n)
        found = np.concatenate(rows)
        self.m, self.v = m[found].mean(axis=0), v[found].mean(axis=0)
        return found, np.concatenate(weights) if self.weighted else np.ones(k)

    def _moments(self, gradients: Floats) -> tuple[Floats, Floats]:
        d = gradients.shape[1]
        if not self.m.size:
            self.m, self.v = np.zeros(d), np.zeros(d)
        if self.m.size != d:
            raise ValueError(f"features have {d} columns, those before had {self.m.size}; keep one extractor")
        b1, b2 = self.betas
        return b1 * self.m + (1 - b1) * gradients, b2 * self.v + (1 - b2) * gradients**2

    def _steps(self, m: Floats, v: Floats) -> Floats:
        t = self.n_selections + 1
        b1, b2 = self.betas
        return m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + 1e-8)


class Jest(Selector):
    """Rows drawn in blocks by their score, less their likeness to the rows of the blocks before.

    Args:
        score: "excess" (learnability: loss above the reference model's) or "loss"; standardised.
        n_blocks: in which the k rows are drawn.
        redundancy: what likeness to all chosen rows costs, in half deviations of the score; 0 needs no
            features.
        beta: sharpness of the draw.
        by_source: choose from each source in proportion to its candidates.
    Source: Evans et al. 2024, "Data curation via joint example selection" (arXiv 2406.17711), algorithm 1;
        how it is carried over to language models: kernels/blocked_sampling.py. There a fifth of the
        candidates is kept.
    """

    def __init__(
        self,
        *,
        score: str = "excess",
        n_blocks: int = 16,
        redundancy: float = 1.0,
        beta: float = 1.0,
        by_source: bool = False,
    ) -> None:
        super().__init__()
        if score not in ("excess", "loss") or n_blocks < 1 or not (redundancy >= 0 and beta >= 0):
            raise ValueError(
                f"score, n_blocks, redundancy and beta are {score!r}, {n_blocks}, {redundancy}, {beta}; "
                "allowed are 'excess' or 'loss', 1 or more, and numbers >= 0"
            )
        self.score, self.n_blocks, self.redundancy, self.beta = score, n_blocks, redundancy, beta
        self.by_source = by_source
        needs = {"losses"} | ({"reference_losses"} if score == "excess" else set())
        self.needs = frozenset(needs | ({"features"} if redundancy else set()))

    def _select(self, candidates: Candidates, k: int, random: np.random.Generator) -> tuple[Ints, Floats]:
        scores = excess_losses(candidates) if self.score == "excess" else known_losses(candidates)
        n = scores.size
        features = candidates.features if candidates.features is not None else np.zeros((n, 1), np.float32)
        budgets = shares(candidates.sources, k) if self.by_source else [(np.arange(n), k)]
        rows = [
            own if budget == own.size else own[self._drawn(scores[own], features[own], budget, random)]
            for own, budget in budgets
        ]
        return np.concatenate(rows), np.ones(k)

    def _drawn(self, scores: Floats, features: Float32s, k: int, random: np.random.Generator) -> Ints:
        return blocked_sequential_sampling(
            standardised(scores),
            features,
            k,
            key=key_of(random),
            n_blocks=self.n_blocks,
            redundancy=self.redundancy,
            beta=self.beta,
        )


def cosines(features: Float32s) -> Float32s:
    """float32, (n, n), the cosine of each two rows; a row of zeros is like none."""
    wide = features.astype(np.float64)
    lengths = np.sqrt(np.square(wide).sum(axis=1, keepdims=True))
    lengths[lengths == 0] = 1
    unit = (wide / lengths).astype(np.float32)
    found: Float32s = unit @ unit.T
    return found


def cosines_on(device: str, features: Float32s) -> Any:
    """`cosines` as a tensor on a device, by torch's float32 products."""
    import torch

    unit = torch.nn.functional.normalize(torch.from_numpy(features).to(device), eps=1e-30)
    return unit @ unit.T


def kept_whole(sizes: Ints, k: int, keep_below: float) -> NDArray[np.bool_]:
    """bool, (n_sources,): sources with less than `keep_below` rows to expect of k, up to k / 2 rows in all.

    >>> kept_whole(np.array([60, 1, 2, 1]), 16, 1.0).tolist()  # 15, 1/4, 1/2 and 1/4 rows of 16 expected
    [False, True, True, True]
    """
    kept, n_kept, of_each = np.zeros(sizes.size, bool), 0, sizes.tolist()
    n = sum(of_each)
    for source in sorted(range(len(of_each)), key=of_each.__getitem__):
        size = of_each[source]
        if size * k >= keep_below * n or n_kept + size > k / 2:
            break
        kept[source], n_kept = size > 0, n_kept + size
    return kept


def sparse(steps: Floats, n_coordinates: int) -> Floats:
    """The coordinates in which the mean step is largest: (n, min(n_coordinates, d)), in their order."""
    if steps.shape[1] <= n_coordinates:
        return steps
    strength = -np.abs(steps.mean(axis=0))
    return steps[:, np.sort(np.argsort(strength, kind="stable")[:n_coordinates])]


def medoids(points: Floats, k: int, n_coordinates: int) -> tuple[Ints, Ints]:
    """k of n points and the points nearest to each, by the coordinates that `sparse` leaves: exact for one,
    greedy by L1 for more."""
    if k == len(points):
        return np.arange(k), np.ones(k, np.int64)
    points = sparse(points, n_coordinates)
    if points.shape[1] == 1:
        return line_medoids(points[:, 0], k)
    distances = cdist(points, points, "cityblock")
    if k == 1:
        return distances.sum(axis=1).argmin(keepdims=True), np.array([len(points)])
    found = facility_location(distances.max() - distances, k)
    # At the greatest distance from every medoid a point is nobody's: it counts for the first.
    sizes = found.sizes.copy()
    sizes[0] += len(points) - sizes.sum()
    return found.indices, sizes

"""Selectors that look at a score of each row: chance, the loss, the loss beside a reference model's."""

from abc import abstractmethod
from typing import Literal, get_args

import numpy as np

from ..kernels.sampling import LAWS, Law, drawn_top_k, gumbel_top_k
from .selection import Candidates, Floats, Ints, Selector, filled, shares

Score = Literal["loss", "excess"]


class RandomRows(Selector):
    """Any k rows, all alike: the bar that every other method has to clear.

    Source: Okanovic et al. 2023, "Repeated random sampling for minimizing the time-to-accuracy of learning"
        (arXiv 2305.18424), which beats thirty ways of pruning; across epochs: `rs2`.
    """

    def _select(self, candidates: Candidates, k: int, random: np.random.Generator) -> tuple[Ints, Floats]:
        return random.choice(candidates.sources.size, k, replace=False, shuffle=False), np.ones(k)


class ScoredSelector(Selector):
    """Rows by a score of each.

    Args:
        by_source: choose within each source in proportion to its candidates, so that the mixture stays what
            the weights made it. Without, hard sources crowd out the others.
    """

    def __init__(self, *, by_source: bool = False) -> None:
        super().__init__()
        self.by_source = by_source

    @abstractmethod
    def scores(self, candidates: Candidates) -> Floats:
        """float64, (n,), finite; the greater, the rather chosen."""

    @abstractmethod
    def _choose(self, scores: Floats, k: int, random: np.random.Generator) -> tuple[Ints, Floats]:
        """k of the rows, and their weights."""

    def _select(self, candidates: Candidates, k: int, random: np.random.Generator) -> tuple[Ints, Floats]:
        scores = self.scores(candidates)
        if not self.by_source:
            return self._choose(scores, k, random)
        rows, weights = list[Ints](), list[Floats]()
        for own, budget in shares(candidates.sources, k):
            if budget == own.size:
                rows.append(own)
                weight = np.ones(budget)
            else:
                chosen, weight = self._choose(scores[own], budget, random)
                rows.append(own[chosen])
            # A source whose share was rounded counts for its candidates all the same.
            weights.append(weight if self._is_plain else weight * own.size * k / (budget * scores.size))
        return np.concatenate(rows), np.concatenate(weights)

    _is_plain = True
    """Whether all weights are one."""


class HardBatches(ScoredSelector):
    """The k rows of the greatest loss. Rows without a report count as their source's mean.

    Noise is hard, too, and no training makes it easier: `rho` subtracts what a reference finds hard.

    Source: Kawaguchi and Lu 2020, "Ordered SGD" (arXiv 1907.04371), algorithm 1, the q greatest losses of a
        batch; with `by_source` that within each source, which is not in the paper.
    """

    needs = frozenset({"losses"})

    def scores(self, candidates: Candidates) -> Floats:
        return known_losses(candidates)

    def _choose(self, scores: Floats, k: int, random: np.random.Generator) -> tuple[Ints, Floats]:
        return np.argsort(-scores, kind="stable")[:k], np.ones(k)


class Rho(HardBatches):
    """The k rows whose loss is furthest above a reference model's: learnable, worth learning, not yet learnt.

    Args:
        noise: scale of Gumbel noise on scores of deviation one; 0 is the paper's top k, in which rows that
            say the same are chosen together.
        by_source: see `ScoredSelector`.
    Source: Mindermann et al. 2022, "Prioritized training on points that are learnable, worth learning, and
        not yet learnt" (arXiv 2206.07137), equation 3 and algorithm 1 (there k is a tenth of the candidates).
        The noise is that of `stochastic`.
    """

    needs = frozenset({"losses", "reference_losses"})

    def __init__(self, *, noise: float = 0.0, by_source: bool = False) -> None:
        super().__init__(by_source=by_source)
        if not 0 <= noise < np.inf:
            raise ValueError(f"noise is {noise}; it must be finite and >= 0")
        self.noise = noise

    def scores(self, candidates: Candidates) -> Floats:
        return excess_losses(candidates)

    def _choose(self, scores: Floats, k: int, random: np.random.Generator) -> tuple[Ints, Floats]:
        if self.noise:
            key = key_of(random)
            return gumbel_top_k(standardised(scores), k, key=key, beta=1 / self.noise), np.ones(k)
        return super()._choose(scores, k, random)


class Stochastic(ScoredSelector):
    """Rows drawn without replacement with odds by their score: a top k that cannot get stuck.

    Args:
        law: of the odds: exp(beta · score), "softmax"; score**beta, "power"; rank**-beta, "softrank".
        beta: 0 draws evenly, much is the top k.
        score: "loss", or "excess" over the reference model. Under "power" an excess below 0 counts as 0.
        unbiased: weigh each row by 1 / (n · q), q its chance of being among the k given the others' luck, so
            that the weighted sum over the k rows, divided by k, is in expectation the mean over all
            candidates. Then weights have mean one in expectation, not each time, and are large for rows that
            had little chance; with "power" and a score of 0 such a row is left out, and the mean is that of
            the others.
        by_source: see `ScoredSelector`.
    Source: Kirsch et al. 2021, "Stochastic batch acquisition for deep active learning" (arXiv 2106.12059),
        section 3; the weights: Kool et al. 2019, "Stochastic beams and where to find them" (arXiv
        1903.06059), section 4.2, of Duffield et al. 2007, "Priority sampling".
    """

    def __init__(
        self,
        *,
        law: Law = "power",
        beta: float = 1.0,
        score: Score = "loss",
        unbiased: bool = False,
        by_source: bool = False,
    ) -> None:
        super().__init__(by_source=by_source)
        if law not in LAWS or score not in get_args(Score) or not 0 <= beta < np.inf:
            raise ValueError(
                f"law, score and beta are {law!r}, {score!r}, {beta}; allowed are {LAWS}, {get_args(Score)} "
                "and finite numbers >= 0"
            )
        self.law, self.beta, self.score, self.unbiased = law, beta, score, unbiased
        self.needs = frozenset({"losses"} | ({"reference_losses"} if score == "excess" else set()))
        self._is_plain = not unbiased

    def scores(self, candidates: Candidates) -> Floats:
        found = known_losses(candidates) if self.score == "loss" else excess_losses(candidates)
        return np.maximum(found, 0) if self.law == "power" else found

    def _choose(self, scores: Floats, k: int, random: np.random.Generator) -> tuple[Ints, Floats]:
        key = key_of(random)
        if not self.unbiased:
            return gumbel_top_k(scores, k, key=key, law=self.law, beta=self.beta), np.ones(k)
        rows, chances = drawn_top_k(scores, k, key=key, law=self.law, beta=self.beta)
        return rows, k / (scores.size * chances)


def key_of(random: np.random.Generator) -> int:
    """A key for the kernels' random numbers."""
    return int(random.integers(2**64, dtype=np.uint64))


def known_losses(candidates: Candidates) -> Floats:
    """The learner's losses, `filled`."""
    assert candidates.losses is not None
    return filled(candidates.losses, candidates.sources)


def excess_losses(candidates: Candidates) -> Floats:
    """Loss minus the reference model's; where either is missing, as its source's mean."""
    assert candidates.losses is not None
    assert candidates.reference_losses is not None
    return filled(candidates.losses - candidates.reference_losses, candidates.sources)


def standardised(scores: Floats) -> Floats:
    """Of mean 0 and deviation 1; all 0 if they are equal."""
    centred = scores - scores.mean()
    deviation = float(np.sqrt((centred**2).mean()))
    return centred / deviation if deviation > 1e-12 * float(np.abs(scores).max()) else np.zeros_like(scores)

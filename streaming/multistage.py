"""Rows worth a backward pass, or even a forward pass, by a threshold of the loss learnt as they pass."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .selection import Candidates, Floats, Ints, Selector, filled


class Multistage(Selector):
    """Rows above a moving threshold of the loss first, then the hardest of the others.

    While it warms up rows come by chance. Then the threshold tau is where a share 1 - `keep` of losses lies
    below, followed by tau += step · ((1 - keep) - share of the candidates below tau); rows above come by
    chance where they are more than k, and the greatest below fill what is missing, so that all ranks have
    their rows. With `predictor` losses need not be known: those that are missing are guessed from the
    features by a ridge regression, which learns from the rows trained on (`observe`).

    Args:
        keep: share of the rows above the threshold, in (0, 1).
        rate: at which the threshold forgets, for each candidate, in (0, 1].
        warm_up: selections by chance.
        predictor: guess the losses that candidates lack; needs features instead of losses. Its state has
            (d + 1)**2 numbers.
        memory: of the regression, in rows: as many ago a row counts 1 / e.
        ridge: weight of the penalty on the regression's coefficients, in rows.
    Source: Ouyang et al. 2022, "Efficient NLP model finetuning via multistage data filtering" (arXiv
        2207.14386), section 3: a loss threshold by warm-up, then a meta predictor in front of the forward
        pass. It departs in the threshold's rule (Robbins and Monro 1951, for a quantile), in a ridge
        regression on features for a neural predictor on words, and in filling the batch.
    """

    state = ("threshold", "spread", "n_seen", "gram", "moment")

    def __init__(
        self,
        *,
        keep: float = 0.5,
        rate: float = 0.01,
        warm_up: int = 20,
        predictor: bool = False,
        memory: int = 10_000,
        ridge: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < keep < 1 or not 0 < rate <= 1 or warm_up < 0 or memory < 1 or not ridge > 0:
            raise ValueError(
                f"keep, rate, warm_up, memory and ridge are {keep}, {rate}, {warm_up}, {memory}, {ridge}; "
                "they lie in (0, 1), (0, 1], [0, inf), [1, inf) and (0, inf)"
            )
        self.keep, self.rate, self.warm_up = keep, rate, warm_up
        self.memory, self.ridge = memory, ridge
        self.predictor, self.needs = predictor, frozenset({"features" if predictor else "losses"})
        self.threshold, self.spread, self.n_seen = 0.0, 0.0, 0
        self.gram, self.moment = (
            np.empty((0, 0)),
            np.empty(0),
        )  # of features and a one

    def observe(self, trained: Candidates) -> None:
        if self.predictor and trained.losses is not None and trained.features is not None:
            known = np.isfinite(trained.losses)
            if known.any():
                self._regress(_with_one(trained.features[known]), trained.losses[known])

    def predicted(self, candidates: Candidates) -> Floats:
        """float64, (n,), nats per token: the loss of each row, guessed where it is missing."""
        n = candidates.sources.size
        losses = candidates.losses if candidates.losses is not None else np.full(n, np.nan)
        losses = np.where(np.isfinite(losses), losses, np.nan)
        if self.predictor and self.moment.size and candidates.features is not None:
            penalty = np.full(self.moment.size, self.ridge)
            penalty[-1] = 1e-9  # the mean is not shrunk
            weights = np.linalg.solve(self.gram + np.diag(penalty), self.moment)
            losses = np.where(
                np.isnan(losses), self._checked(_with_one(candidates.features)) @ weights, losses
            )
        return filled(losses, candidates.sources)

    def _select(self, candidates: Candidates, k: int, random: np.random.Generator) -> tuple[Ints, Floats]:
        losses = self.predicted(candidates)
        is_warm = self.n_selections >= self.warm_up
        # A row above the threshold comes before any below; by chance among the former, by loss the latter.
        order = random.random(losses.size)
        if is_warm and self.n_seen:
            order = np.where(losses >= self.threshold, order - 2, self.threshold - losses)
        if candidates.losses is not None or self.moment.size:
            self._follow(losses)
        return np.argsort(order, kind="stable")[:k], np.ones(k)

    def _follow(self, losses: Floats) -> None:
        """One step of the threshold for these candidates, longer while few have been seen."""
        quantile = 1 - self.keep
        if not self.n_seen:
            self.threshold = float(np.quantile(losses, quantile))
            self.spread = float(np.abs(losses - self.threshold).mean())
        self.n_seen += losses.size
        step = 1 - (1 - max(self.rate, 1 / self.n_seen)) ** losses.size
        self.spread += step * (float(np.abs(losses - self.threshold).mean()) - self.spread)
        # At a quantile of spread s the density is about 1 / (4 s): Newton's step, softened by `step`.
        self.threshold += step * 4 * self.spread * (quantile - float((losses < self.threshold).mean()))

    def _regress(self, features: Floats, losses: Floats) -> None:
        d = features.shape[1]
        if not self.moment.size:
            self.gram, self.moment = np.zeros((d, d)), np.zeros(d)
        kept = float(np.exp(-losses.size / self.memory))
        self.gram = kept * self.gram + self._checked(features).T @ features
        self.moment = kept * self.moment + features.T @ losses

    def _checked(self, features: Floats) -> Floats:
        if features.shape[1] != self.moment.size:
            raise ValueError(
                f"features have {features.shape[1] - 1} columns, those before had {self.moment.size - 1}; "
                "keep one extractor"
            )
        return features


def _with_one(features: NDArray[np.floating[Any]]) -> Floats:
    return np.concatenate([features.astype(np.float64), np.ones((len(features), 1))], axis=1)

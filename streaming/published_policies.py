"""Published policies for online mixing: baselines, and for those whose setting they are made for.

Odm             Exp3 on the losses, as published and as released
Exp3S           Exp3 for rewards that change
GroupDro        weights to the largest excess over a reference (DoReMi)
SkillIt, Aioli  a linear law of how each domain helps each other
Schedule        weights that are known in advance
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..kernels.simplex import softmax
from .policies import Floats, Policy, distribution, vector
from .weights import is_whole

OdmForm = Literal["paper", "released"]
MAX_IMPORTANCE = 20.0
"""Largest importance weight of a domain that was not in every report."""


class Odm(Policy):
    """Online data mixing: Exp3 with the domain's loss as its reward.

    "paper": moving means of loss / weight, softmax with a step that shrinks as exploration does. "released":
    moving means of exp(loss), weights in proportion. The two differ: the first forgets its evidence and ends
    uniform, the second samples by perplexity; both are here as baselines. A domain that is absent from a
    report keeps its mean. If every domain is in the report, there is nothing to weigh by importance, which
    the paper's form does all the same.

    Args:
        form: "paper" or "released".
        warm_up: reports with the prior's weights, about 1 % of the run.
        smoothing: of the moving means.
    Source: Albalak et al. 2023, "Efficient online data mixing for language model pre-training"
        (arXiv 2312.02406), algorithm 1; and its released code.
    """

    state = ("means", "_weights", "exploration")

    def __init__(
        self, prior: Floats, *, form: OdmForm = "paper", warm_up: int = 0, smoothing: float = 0.9
    ) -> None:
        super().__init__(prior)
        if form not in get_args(OdmForm):
            raise ValueError(f"form is {form!r}; it must be one of {get_args(OdmForm)}")
        if not (0 <= smoothing < 1 and warm_up >= 0):
            raise ValueError(
                f"smoothing and warm_up are {smoothing} and {warm_up}; they lie in [0, 1) and [0, inf)"
            )
        self.form, self.warm_up, self.smoothing = form, warm_up, smoothing
        n = self.prior.size
        self.means, self._weights, self.exploration = np.zeros(n), self.prior.copy(), 1 / n

    @property
    def weights(self) -> Floats:
        return self.prior.copy() if self.n_reports <= self.warm_up else self._weights.copy()

    def _update(self, losses: Floats, n_tokens: Floats, is_there: NDArray[np.bool_]) -> None:
        n = self.prior.size
        if self.form == "paper":
            reward = losses[is_there] / np.maximum(self._weights[is_there], 1e-12)
        else:
            reward = np.exp(np.minimum(losses[is_there], 50))
        self.means[is_there] = self.smoothing * self.means[is_there] + (1 - self.smoothing) * reward
        before = self.exploration
        self.exploration = min(1 / n, float(np.sqrt(np.log(n) / (n * self.n_reports)))) if n > 1 else 0.0
        found = softmax(before * self.means) if self.form == "paper" else self.means / self.means.sum()
        self._weights = (1 - n * self.exploration) * found + self.exploration


class Exp3S(Policy):
    """Exp3 that shares weight among all domains at each report, so that it can follow changes.

    Rewards are losses, standardised over the domains of the report and brought to 0..1. A domain that is in
    every report needs no importance weight; where some are absent, the others' rewards are divided by their
    weights, at most MAX_IMPORTANCE times.

    Args:
        exploration: share of the uniform distribution, in (0, 1].
        share: of the mean weight that each domain gets at a report.
    Source: Auer et al. 2002, "The nonstochastic multiarmed bandit problem", section 8 (Exp3.S).
    """

    state = ("log_weights",)

    def __init__(self, prior: Floats, *, exploration: float = 0.1, share: float = 0.001) -> None:
        super().__init__(prior)
        if not (0 < exploration <= 1 and 0 <= share <= 1):
            raise ValueError(
                f"exploration and share are {exploration} and {share}; they lie in (0, 1] and [0, 1]"
            )
        self.exploration, self.share = exploration, share
        self.log_weights = np.log(self.prior)

    @property
    def weights(self) -> Floats:
        return (1 - self.exploration) * softmax(self.log_weights) + self.exploration / self.prior.size

    def _update(self, losses: Floats, n_tokens: Floats, is_there: NDArray[np.bool_]) -> None:
        spread = losses[is_there].std()
        if spread > 0:
            scores = np.clip((losses[is_there] - losses[is_there].mean()) / spread, -3, 3)
            reward = (scores + 3) / 6
            if not is_there.all():
                reward = reward * np.minimum(MAX_IMPORTANCE, 1 / self.weights[is_there])
            self.log_weights[is_there] += self.exploration * reward / self.prior.size
        weights = softmax(self.log_weights)
        self.log_weights = np.log((weights + np.e * self.share / weights.size) / (1 + np.e * self.share))


class GroupDro(Policy):
    """Weights grow with the excess of a domain's loss over a reference model's, as in DoReMi's proxy.

    The excess is clipped at 0; a domain that is absent keeps its last. `mean_weights` over the whole run is
    what DoReMi trains the large model with.

    Args:
        reference: (n_domains,), losses of the reference model.
        rate: of a report.
        smoothing: share of the uniform distribution.
    Source: Xie et al. 2023, "DoReMi" (arXiv 2305.10429), algorithm 1. It clips each token's excess; reports
        hold means, so here the mean's is clipped.
    """

    state = ("log_weights", "excess", "total", "n_total")

    def __init__(
        self, prior: Floats, reference: Floats, *, rate: float = 1.0, smoothing: float = 1e-3
    ) -> None:
        super().__init__(prior)
        self.reference = vector("reference", reference, self.prior.size)
        if not (0 < rate < np.inf and 0 <= smoothing <= 1):
            raise ValueError(
                f"rate and smoothing are {rate} and {smoothing}; they lie in (0, inf) and [0, 1]"
            )
        self.rate, self.smoothing = rate, smoothing
        self.log_weights, self.excess = np.log(self.prior), np.zeros(self.prior.size)
        self.total, self.n_total = np.zeros(self.prior.size), 0

    @property
    def weights(self) -> Floats:
        return softmax(self.log_weights)

    @property
    def mean_weights(self) -> Floats:
        """The mean of the weights over all reports: float64, (n_domains,)."""
        return self.total / self.n_total if self.n_total else self.prior.copy()

    def _update(self, losses: Floats, n_tokens: Floats, is_there: NDArray[np.bool_]) -> None:
        self.excess[is_there] = np.maximum(losses - self.reference, 0)[is_there]
        weights = softmax(self.log_weights + self.rate * self.excess)
        weights = (1 - self.smoothing) * weights + self.smoothing / weights.size
        self.log_weights = np.log(weights)
        self.total, self.n_total = self.total + weights, self.n_total + 1


class SkillIt(Policy):
    """Weights by how much each domain helps those with high losses, along a graph that is known.

    weights = prior · exp(rate · sum over j of graph[i, j] · (sum of j's last `window` losses)), normalised.

    Args:
        graph: (n_domains, n_domains), >= 0: how much training on i lowers the loss of j.
        rate, window: of the update.
    Source: Chen et al. 2023, "Skill-it!" (arXiv 2307.14430), algorithm 1. Reports take the place of its
        validation losses.
    """

    state = ("recent",)

    def __init__(self, prior: Floats, graph: Floats, *, rate: float = 0.2, window: int = 3) -> None:
        super().__init__(prior)
        self.graph = np.asarray(graph, np.float64)
        n = self.prior.size
        is_graph = self.graph.shape == (n, n) and (self.graph >= 0).all() and np.isfinite(self.graph).all()
        if not (is_graph and 0 < rate < np.inf and is_whole(window) and window >= 1):
            raise ValueError(
                f"graph has shape {self.graph.shape}, rate is {rate}, window is {window}; needed are "
                f"{(n, n)} numbers >= 0, a rate above 0, finite, and a whole number of reports, at least 1"
            )
        self.rate, self.window = rate, window
        self.recent = np.zeros((window, n))

    @property
    def weights(self) -> Floats:
        return softmax(np.log(self.prior) + self.rate * self.graph @ self.recent.sum(axis=0))

    def _update(self, losses: Floats, n_tokens: Floats, is_there: NDArray[np.bool_]) -> None:
        newest = np.where(is_there, losses, self.recent[-1])
        self.recent = np.concatenate([self.recent[1:], newest[None]])


class Aioli(Policy):
    """Weights by a linear law that is learned anew again and again from short probes.

    In a probe one domain has `own` of the weight and the others the rest alike; how much each loss falls,
    for each domain's probe, gives the law L_i(t + 1) = L_i(t) - sum_j A_ij p_j. Then weights are multiplied
    by exp(rate · sum over i of A_ij), A between 0 and summing to one, until the next probes.

    Args:
        every: reports with the same weights between probes.
        rounds: probes of each domain at a time.
        own: share of the probed domain, in (1 / n_domains, 1).
        rate: of an update.
    Source: Chen et al. 2024, "Aioli" (arXiv 2411.05735), algorithm 1 and its released code. Reports take the
        place of validation losses, and domains are probed in their order instead of shuffled.
    """

    state = ("log_weights", "phase", "before", "drops")

    def __init__(
        self, prior: Floats, *, every: int = 50, rounds: int = 2, own: float = 0.7, rate: float = 0.2
    ) -> None:
        super().__init__(prior)
        n = self.prior.size
        if n < 2 or not 1 / n < own < 1 or every < 1 or rounds < 1 or not 0 < rate < np.inf:
            raise ValueError(
                f"own, every, rounds and rate are {own}, {every}, {rounds}, {rate} for {n} domains; needed "
                "are a share between 1 / n and 1, one report, one round, a finite rate above 0, two domains"
            )
        self.every, self.rounds, self.own, self.rate = every, rounds, own, rate
        self.log_weights, self.phase = np.log(self.prior), 0
        self.before, self.drops = np.full(n, np.nan), np.zeros((n, n))  # drops[i, j]: of loss i in j's probes

    @property
    def weights(self) -> Floats:
        n = self.prior.size
        if self.phase >= n * self.rounds:
            return softmax(self.log_weights)
        probe = np.full(n, (1 - self.own) / (n - 1))
        probe[self.phase % n] = self.own
        return probe

    def _update(self, losses: Floats, n_tokens: Floats, is_there: NDArray[np.bool_]) -> None:
        n_probes = self.prior.size * self.rounds
        if self.phase < n_probes:
            both = is_there & np.isfinite(self.before)
            self.drops[both, self.phase % self.prior.size] += (self.before - losses)[both]
        self.before = np.where(is_there, losses, self.before)
        self.phase += 1
        if self.phase == n_probes:
            self._learn()
        elif self.phase == n_probes + self.every:
            self.phase, self.drops = 0, np.zeros_like(self.drops)

    def _learn(self) -> None:
        n = self.prior.size
        mixing = np.full((n, n), (1 - self.own) / (n - 1))
        np.fill_diagonal(mixing, self.own)
        law = np.linalg.solve(mixing.T, (self.drops / self.rounds).T).T
        law = law - min(0.0, float(law.min()))
        if law.sum() > 0:
            self.log_weights += self.rate * (law / law.sum()).sum(axis=0)
            self.log_weights -= np.logaddexp.reduce(self.log_weights)


class Schedule(Policy):
    """Weights that are known in advance, by reports; what is reported does not matter.

    Between two points weights go over from one to the next in a straight line, or in steps; before the first
    the prior holds, after the last its weights.

    Args:
        points: (n_reports, weights: float64, (n_domains,), > 0, summing to one), ascending.
        shape: "linear" or "step".
    Source: blends that change once or gradually, as in Parmar et al. 2024 (arXiv 2407.07263). By tokens and
        without a policy: the loader's `schedule`.
    """

    def __init__(
        self,
        prior: Floats,
        points: Sequence[tuple[int, Floats]],
        *,
        shape: Literal["linear", "step"] = "linear",
    ) -> None:
        super().__init__(prior)
        at = [n for n, _ in points]
        if not at or at[0] < 0 or any(a >= b for a, b in pairwise(at)) or shape not in ("linear", "step"):
            raise ValueError(
                f"points are at reports {at}, shape is {shape!r}; points ascend from 0 on, at least one, and "
                "the shape is 'linear' or 'step'"
            )
        has_start = at[0] == 0
        self._at = np.array(at if has_start else [0, *at])
        found = [distribution(weights) for _, weights in points]
        self._weights = np.stack(found if has_start else [self.prior, *found])
        if self._weights.shape[1] != self.prior.size:
            raise ValueError(f"points have {self._weights.shape[1]} weights for {self.prior.size} domains")
        self.shape = shape

    @property
    def weights(self) -> Floats:
        k = int(np.searchsorted(self._at, self.n_reports, side="right")) - 1
        if self.shape == "step" or k + 1 == self._at.size:
            return np.array(self._weights[k])
        way = (self.n_reports - self._at[k]) / (self._at[k + 1] - self._at[k])
        found: Floats = (1 - way) * self._weights[k] + way * self._weights[k + 1]
        return found

    def _update(self, losses: Floats, n_tokens: Floats, is_there: NDArray[np.bool_]) -> None:
        pass

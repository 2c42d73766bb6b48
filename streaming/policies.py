"""Online mixing: what the losses of each domain say about the weights of the next batches.

A policy sees a report every few steps (the mean loss of each domain's tokens since the last one) and gives
weights over the domains. It is numbers in, numbers out: the loader carries them.

    MirrorDescent   weights to domains whose next token lowers the objective most; near the prior (default)
    Ado             the same from power laws fitted to each domain's losses

More, as published: published_policies.py.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..kernels.mirror_descent import Evidence, Step, mirror_descent, slopes
from ..kernels.simplex import bounded_softmax, bounded_weights

Floats = NDArray[np.float64]
Reward = Literal["slope", "validation", "loss", "excess", "alignment"]
SLOPES: tuple[Reward, ...] = ("slope", "validation")


class Policy(ABC):
    """Weights over domains that follow reports.

    Args:
        prior: (n_domains,), > 0, summing to one: the weights of the objective, and those at the start.
    Raises:
        ValueError: names the argument, what was found and what is allowed.
    """

    state: ClassVar[tuple[str, ...]] = ()
    """Attributes that decide the weights to come, arrays or numbers; all else are arguments."""
    reads: Literal["losses", "rewards", "validation"] = "losses"
    """What reports hold: losses of the tokens trained on, rewards that are worked out elsewhere (the higher
    the better), or losses of held-out tokens, whose n_tokens are those trained on."""

    def __init__(self, prior: Floats) -> None:
        self.prior = distribution(prior)
        self.n_reports, self.n_ignored = 0, 0

    @property
    @abstractmethod
    def weights(self) -> Floats:
        """float64, (n_domains,), >= 0, summing to one."""

    def observe(self, losses: Floats, n_tokens: Floats) -> None:
        """Take in a report.

        Args:
            losses: (n_domains,), mean loss of the tokens since the last report, in nats. What is not finite
                counts as absent; infinities and NaN of domains with tokens are counted in `n_ignored`.
            n_tokens: (n_domains,), tokens behind each mean; 0: the domain is absent.
        """
        losses, n_tokens = np.asarray(losses, np.float64), np.asarray(n_tokens, np.float64)
        if losses.shape != self.prior.shape or n_tokens.shape != self.prior.shape:
            raise ValueError(
                f"losses and n_tokens have shapes {losses.shape} and {n_tokens.shape}; each needs one "
                f"number for each of {self.prior.size} domains"
            )
        has_tokens = n_tokens > 0
        is_there = np.isfinite(losses) & has_tokens
        n_there = np.count_nonzero(is_there)
        self.n_ignored += int(np.count_nonzero(has_tokens) - n_there)
        self.n_reports += 1
        if 0 < n_there < losses.size:
            losses, n_tokens = np.where(is_there, losses, np.nan), np.where(is_there, n_tokens, 0.0)
        if n_there:
            self._update(losses, n_tokens, is_there)

    @abstractmethod
    def _update(self, losses: Floats, n_tokens: Floats, is_there: NDArray[np.bool_]) -> None:
        """Take in a report with one domain or more; NaN and 0 stand for those that are absent."""

    def rewards(self) -> Floats:
        """What drew the last weights to each domain: float64, (n_domains,); NaN for a policy without any."""
        return np.full(self.prior.size, np.nan)

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON, enough to go on exactly."""
        names = ("n_reports", "n_ignored", *self.state)
        found = {name: getattr(self, name) for name in names}
        return {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in found.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            ValueError: it is of another policy or of another number of domains.
        """
        names = ("n_reports", "n_ignored", *self.state)
        if set(state) != set(names):
            raise ValueError(f"state has {sorted(state)}; a {type(self).__name__} needs {sorted(names)}")
        for name in names:
            now = getattr(self, name)
            if isinstance(now, np.ndarray):
                found = np.array(state[name], now.dtype)
                if found.shape != now.shape:
                    raise ValueError(f"state: {name} has shape {found.shape}, this policy's is {now.shape}")
                setattr(self, name, found)
            else:
                setattr(self, name, state[name])


class MirrorDescent(Policy):
    """Steps of at most `rate` towards domains whose next token helps the objective most; the default.

    The objective is the prior's mean of the domains' losses. It is least, for the tokens to be spent, where
    prior_k · (-dL_k / dn_k) is the same for all domains with weights; so the weight of a domain grows while
    its marginal gain is above the mean of the weights and shrinks while it is below, by a factor within
    1 +- `rate` a report. Noise that no training removes has no slope. A slope that cannot be told from noise
    counts as none (it is scaled by 1 - (standard error / slope)**2), and steps are the smaller the larger the
    standard errors are beside the gains. That a domain is worth less than the mean counts only as far as its
    own standard error allows (a step down is scaled by 1 / (1 + standard error / mean gain)): one that noise
    hides drifts to its prior, for a domain that is starved brings no evidence back.

    "validation" is the slope of held-out losses, which reports hold then in place of those trained on.

    Other rewards are standardised over domains, clipped to three deviations, and a step is a third of that:
    "loss" is ODM's, which follows irreducible noise; "excess" is the loss over `reference`; "alignment" is
    what reports hold then, such as how well a row's gradient agrees with that of held-out rows.

    A domain that a report lacks keeps what is known of it. Slopes are by the domain's own tokens and levels
    are means, so neither needs an importance weight, whether all domains report or some.

    Args:
        reward: "slope", "validation", "loss", "excess" or "alignment".
        reference: (n_domains,), losses of a reference model, for "excess".
        rate: of a report, in (0, 0.5].
        pull: of log-weights towards the prior's at each report, in [0, 1].
        floor, ceiling: of each weight, times its prior.
        half_lives: of the moving means whose difference is the slope, in reports, (fast, slow).
        warm_up: reports before the first step.
    Source: mirror descent with entropy, whose step is multiplicative (Beck & Teboulle 2003). Learning
        progress as reward: Graves et al. 2017, "Automated curriculum learning for neural networks", section
        4.1; power laws in place of slopes: `Ado`.
    """

    state = ("log_weights", "fast", "slow", "variance", "n_seen", "n_tokens")

    def __init__(
        self,
        prior: Floats,
        *,
        reward: Reward = "slope",
        reference: Floats | None = None,
        rate: float = 0.1,
        pull: float = 0.03,
        floor: float = 0.1,
        ceiling: float = 5.0,
        half_lives: tuple[float, float] = (8, 32),
        warm_up: int = 20,
    ) -> None:
        super().__init__(prior)
        if reward not in get_args(Reward):
            raise ValueError(f"reward is {reward!r}; it must be one of {get_args(Reward)}")
        if (reward == "excess") != (reference is not None):
            raise ValueError("reward 'excess' and a reference come together; one of the two is missing")
        if not (0 < rate <= 0.5 and 0 <= pull <= 1 and 0 <= floor <= 1 <= ceiling and warm_up >= 0):
            raise ValueError(
                f"rate, pull, floor, ceiling and warm_up are {rate}, {pull}, {floor}, {ceiling}, {warm_up}; "
                "they lie in (0, 0.5], [0, 1], [0, 1], [1, inf) and [0, inf)"
            )
        if np.shape(half_lives) != (2,) or not 0 < half_lives[0] < half_lives[1]:
            raise ValueError(
                f"half_lives are {half_lives}; two numbers, the first above 0 and below the second"
            )
        self.reward, self.rate, self.pull, self.warm_up = reward, rate, pull, warm_up
        self.reference = None if reference is None else vector("reference", reference, self.prior.size)
        self.low, self.high = floor * self.prior, np.minimum(1.0, ceiling * self.prior)
        decays = np.array([1 - 0.5 ** (1 / half_life) for half_life in half_lives])
        level = np.zeros_like(self.prior) if self.reference is None else self.reference
        by_slope = reward in SLOPES
        self._step = Step(decays, self.prior, np.log(self.prior), level, rate, pull, by_slope)
        self.log_weights = self._step.log_prior.copy()
        self._of, self._weights = np.empty(0), np.empty(0)  # the weights of these log-weights, once asked for
        if reward in ("alignment", "validation"):
            self.reads = "rewards" if reward == "alignment" else "validation"
        # Means of (loss, tokens so far) that forget fast and slowly: (2, n_domains) each.
        self.fast, self.slow = np.zeros((2, self.prior.size)), np.zeros((2, self.prior.size))
        self.variance, self.n_seen = np.zeros(self.prior.size), np.zeros(self.prior.size)
        self.n_tokens = np.zeros(self.prior.size)

    @property
    def weights(self) -> Floats:
        if self._of is not self.log_weights:
            self._of = self.log_weights
            self._weights = bounded_softmax(self.log_weights, self.low, self.high)
        return self._weights.copy()

    @property
    def evidence(self) -> Evidence:
        """What is known of each domain."""
        return Evidence(self.fast, self.slow, self.variance, self.n_seen, self.n_tokens)

    def slopes(self) -> tuple[Floats, Floats]:
        """Nats by which a token of the domain lowers its loss, noise taken out, and the standard error.

        float64, (n_domains,) each, >= 0; of a domain that has not moved both are 0.
        """
        return slopes(self.evidence, self._step.decays)

    def rewards(self) -> Floats:
        found = self.prior * self.slopes()[0] if self._step.by_slope else self.slow[0] - self._step.reference
        return np.where(self.n_seen > 0, found, np.nan)

    def _update(self, losses: Floats, n_tokens: Floats, is_there: NDArray[np.bool_]) -> None:
        is_warm = self.n_reports > self.warm_up
        stepped = mirror_descent(
            losses, n_tokens, is_there, self.evidence, self.weights, self._step, is_warm=is_warm
        )
        if is_warm:
            self.log_weights = stepped


class Ado(Policy):
    """Adaptive data optimization: power laws of each domain's loss say what its next token is worth.

    L(n) = E + A n**-alpha is fitted to the domain's losses at the tokens n it had seen, every `refit`
    reports.
    The preference for a domain is prior · alpha (L - E) / n · sqrt(its moving share); weights are nine tenths
    of the preferences' mean so far and one tenth of the last, and no domain falls below `floor`.

    Args:
        refit: reports between fits.
        warm_up: reports that are not fitted to and have the prior's weights.
        floor: of a weight.
    Source: Jiang et al. 2024, "Adaptive data optimization" (arXiv 2410.11820), section 3 and its released
        code. It departs in the fit: least squares for each of N_EXPONENTS alphas in [0.05, 0.8] over N_BINS
        bins of n, where the code has 512 starts of L-BFGS over the whole history, which grows with the run.
    """

    N_BINS, BINS_OF_OCTAVE, N_EXPONENTS = 80, 2, 31
    state = ("bins", "laws", "n_tokens", "share", "mean", "_weights", "n_mean")

    def __init__(self, prior: Floats, *, refit: int = 20, warm_up: int = 20, floor: float = 0.01) -> None:
        super().__init__(prior)
        n = self.prior.size
        if not 0 <= floor * n < 1 or refit < 1 or warm_up < 1:
            raise ValueError(
                f"floor, refit and warm_up are {floor}, {refit}, {warm_up}; for {n} domains the floor is "
                f"below {1 / n:.3g}, the others at least 1"
            )
        self.refit, self.warm_up, self.floor = refit, warm_up, floor
        self.bins = np.zeros((n, self.N_BINS, 3))  # reports, sum of log n, sum of losses
        self.laws = np.zeros((n, 3))  # E, A, alpha; alpha 0: none yet
        self.n_tokens, self.share, self.mean = np.zeros(n), self.prior.copy(), self.prior.copy()
        self._weights, self.n_mean = self.prior.copy(), 1

    @property
    def weights(self) -> Floats:
        return self._weights.copy()

    def _update(self, losses: Floats, n_tokens: Floats, is_there: NDArray[np.bool_]) -> None:
        middle = self.n_tokens + n_tokens / 2
        self.n_tokens += n_tokens
        self.share = 0.9 * self.share + 0.1 * n_tokens / n_tokens.sum()
        if self.n_reports <= self.warm_up:
            return
        (rows,) = np.nonzero(is_there)
        places = np.minimum(self.N_BINS - 1, (np.log2(middle[rows]) * self.BINS_OF_OCTAVE).astype(np.int64))
        self.bins[rows, places] += np.stack([np.ones(rows.size), np.log(middle[rows]), losses[rows]], axis=1)
        if (self.n_reports - self.warm_up) % self.refit == 0:
            self.laws = np.array([self._law(found) for found in self.bins])
        if not (self.laws[:, 2] > 0).any():
            return
        level, scale, alpha = self.laws.T
        gain = alpha * scale * np.maximum(self.n_tokens, 1.0) ** -(alpha + 1)
        preference = self.prior * gain * np.sqrt(self.share)
        if preference.sum() <= 0:
            return
        preference = preference / preference.sum()
        self._weights = bounded_weights(
            0.9 * self.mean + 0.1 * preference, np.full_like(level, self.floor), np.ones_like(level)
        )
        self.mean += (preference - self.mean) / (self.n_mean + 1)
        self.n_mean += 1

    def _law(self, found: Floats) -> Floats:
        """(E, A, alpha) of one domain; alpha 0 where losses do not fall."""
        counts, log_n, loss = found[found[:, 0] > 0].T
        if counts.size < 3:
            return np.zeros(3)
        log_n, loss = log_n / counts, loss / counts
        alphas = np.linspace(0.05, 0.8, self.N_EXPONENTS)
        x = np.exp(-alphas[:, None] * log_n)
        share = counts / counts.sum()
        x_mean, y_mean = x @ share, loss @ share
        x_rest, y_rest = x - x_mean[:, None], loss - y_mean
        scale = (x_rest * y_rest) @ share / ((x_rest**2) @ share)
        # A loss is never negative: E >= 0 caps A.
        scale = np.where(scale * x_mean > y_mean, (x * loss) @ share / ((x**2) @ share), scale)
        level = np.maximum(y_mean - scale * x_mean, 0.0)
        misses = ((level[:, None] + scale[:, None] * x - loss) ** 2) @ share
        best = int(np.argmin(misses))
        return np.array([level[best], scale[best], alphas[best]]) if scale[best] > 0 else np.zeros(3)


def distribution(prior: Floats) -> Floats:
    """A prior, checked."""
    found = np.array(prior, np.float64)
    if found.ndim != 1 or not found.size or not (found > 0).all() or abs(found.sum() - 1) > 1e-6:
        raise ValueError(f"prior is {found.tolist()}; it must be numbers > 0 that sum to 1, one a domain")
    found /= found.sum()
    return found


def vector(name: str, values: Floats, n: int) -> Floats:
    """A number for each domain, checked."""
    found = np.asarray(values, np.float64)
    if found.shape != (n,) or not np.isfinite(found).all():
        raise ValueError(f"{name} is {found.tolist()}; one finite number for each of {n} domains is needed")
    return found

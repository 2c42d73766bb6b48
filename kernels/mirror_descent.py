"""A step of mirror descent on mixture weights, from a report of each domain's loss.

What it follows, and why: `MirrorDescent` of streaming/policies.py. One call a report, for numpy's many small
ones cost ten times the arithmetic.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .jit import kernel

Floats = NDArray[np.float64]
MAX_DEVIATIONS = 3.0
"""At which standardised levels are clipped, and by which they are divided."""


class Evidence(NamedTuple):
    """What is known of each domain; changed in place by each report. All float64."""

    fast: Floats  # (2, n_domains), moving means of (loss, tokens so far) that forget fast
    slow: Floats  # (2, n_domains), and slowly
    variance: Floats  # (n_domains,), of a report's loss about the fast mean
    n_seen: Floats  # (n_domains,), reports
    n_tokens: Floats  # (n_domains,), so far


class Step(NamedTuple):
    """What a step is made of, besides the evidence."""

    decays: Floats  # (2,), of the fast and the slow means at a report
    prior: Floats  # (n_domains,), > 0, summing to one
    log_prior: Floats
    reference: Floats  # (n_domains,), which is taken from levels
    rate: float  # most that a weight grows or shrinks by
    pull: float  # of log-weights towards the prior's
    by_slope: bool  # the reward is the slope, else the level


def mirror_descent(
    losses: Floats,
    n_tokens: Floats,
    is_there: NDArray[np.bool_],
    evidence: Evidence,
    weights: Floats,
    step: Step,
    *,
    is_warm: bool = True,
) -> Floats:
    """Log-weights after a report: float64, (n_domains,), normalised; those of `weights` while not warm.

    Args:
        losses: float64, (n_domains,), finite where the domain is there.
        n_tokens: float64, (n_domains,), tokens behind each, 0 where it is not.
        is_there: bool, (n_domains,).
        evidence: takes the report in, in place.
        weights: float64, (n_domains,), > 0: those in force.
        is_warm: whether there is a step.
    Returns:
        That of `mirror_descent_reference` within 1e-12, for sums are in another order; the evidence is the
        same bit for bit.
    """
    decays, prior, log_prior, reference, rate, pull, by_slope = step
    numbers = decays, prior, log_prior, reference
    return _report(losses, n_tokens, is_there, *evidence, weights, *numbers, rate, pull, by_slope, is_warm)


def mirror_descent_reference(
    losses: Floats,
    n_tokens: Floats,
    is_there: NDArray[np.bool_],
    evidence: Evidence,
    weights: Floats,
    step: Step,
    *,
    is_warm: bool = True,
) -> Floats:
    """`mirror_descent` in numpy."""
    fast, slow, variance, n_seen, so_far = evidence
    found = np.stack([losses, so_far + n_tokens / 2])
    so_far += n_tokens
    n_seen += is_there
    # In the first reports all count alike, as in a plain mean.
    first = 1 / np.maximum(n_seen, 1)
    forget_fast, forget_slow = (np.maximum(decay, first) * is_there for decay in step.decays)
    found = np.where(is_there, found, 0.0)
    miss = (found[0] - fast[0]) * (n_seen > 1)
    variance += forget_slow * (miss * miss - variance)
    fast += forget_fast * (found - fast)
    slow += forget_slow * (found - slow)
    if not is_warm:
        return np.log(weights)
    advantage = _by_slope(evidence, weights, step) if step.by_slope else _by_level(evidence, step)
    stepped = np.log(weights * (1 + step.rate * np.clip(advantage, -1, 1)))
    stepped += step.pull * (step.log_prior - stepped)
    normalised: Floats = stepped - np.log(np.exp(stepped).sum())
    return normalised


def slopes(evidence: Evidence, decays: Floats) -> tuple[Floats, Floats]:
    """Nats by which a token of the domain lowers its loss, noise taken out, and the standard error.

    float64, (n_domains,) each, >= 0; of a domain that has not moved both are 0.
    """
    drop = evidence.slow[0] - evidence.fast[0]
    moved = evidence.fast[1] - evidence.slow[1]
    fast, slow = decays.tolist()
    squared = evidence.variance * (fast / (2 - fast) + slow / (2 - slow))
    moves = moved > 0
    per_token = moves / np.where(moves, moved, 1.0)
    rises = drop > 0
    kept = 1 - squared / np.where(rises, drop * drop, 1.0)
    return np.maximum(kept, 0) * (drop * rises) * per_token, np.sqrt(squared) * per_token


def _by_slope(evidence: Evidence, weights: Floats, step: Step) -> Floats:
    """By how much each domain's gain is above the mean of the weights; 0 for one that never reported."""
    of, errors = slopes(evidence, step.decays)
    gain, error = step.prior * of, step.prior * errors
    mean = float(weights @ gain)
    if mean <= 0:
        return np.zeros_like(gain)
    above = (gain - mean) / (mean + float(weights @ error))
    return np.where(above < 0, above * (mean / (mean + error)), above)


def _by_level(evidence: Evidence, step: Step) -> Floats:
    """Levels standardised over the domains that reported; 0 for the others."""
    level, known = evidence.slow[0] - step.reference, evidence.n_seen > 0
    spread = float(level[known].std())
    if spread == 0:
        return np.zeros_like(level)
    deviations = (level - level[known].mean()) / spread
    return np.where(known, np.clip(deviations, -MAX_DEVIATIONS, MAX_DEVIATIONS) / MAX_DEVIATIONS, 0.0)


@kernel
def _follow(
    losses: Floats,
    n_tokens: Floats,
    is_there: NDArray[np.bool_],
    fast: Floats,
    slow: Floats,
    variance: Floats,
    n_seen: Floats,
    so_far: Floats,
    decays: Floats,
) -> None:
    for k in range(losses.size):
        if not is_there[k]:
            continue
        middle = so_far[k] + n_tokens[k] / 2
        so_far[k] += n_tokens[k]
        n_seen[k] += 1
        forget_fast, forget_slow = max(decays[0], 1 / n_seen[k]), max(decays[1], 1 / n_seen[k])
        miss = losses[k] - fast[0, k] if n_seen[k] > 1 else 0.0
        variance[k] += forget_slow * (miss * miss - variance[k])
        fast[0, k] += forget_fast * (losses[k] - fast[0, k])
        fast[1, k] += forget_fast * (middle - fast[1, k])
        slow[0, k] += forget_slow * (losses[k] - slow[0, k])
        slow[1, k] += forget_slow * (middle - slow[1, k])


@kernel
def _advantage_by_slope(
    fast: Floats, slow: Floats, variance: Floats, weights: Floats, decays: Floats, prior: Floats
) -> Floats:
    n = weights.size
    advantage, errors = np.zeros(n), np.zeros(n)
    factor = decays[0] / (2 - decays[0]) + decays[1] / (2 - decays[1])
    mean, mean_error = 0.0, 0.0
    for k in range(n):
        drop, moved = slow[0, k] - fast[0, k], fast[1, k] - slow[1, k]
        if moved > 0:
            squared = variance[k] * factor
            if drop > 0:
                advantage[k] = prior[k] * (max(1 - squared / (drop * drop), 0.0) * drop * (1 / moved))
            errors[k] = prior[k] * (np.sqrt(squared) * (1 / moved))
        mean += weights[k] * advantage[k]
        mean_error += weights[k] * errors[k]
    if mean <= 0:
        return np.zeros(n)
    for k in range(n):
        above = (advantage[k] - mean) / (mean + mean_error)
        advantage[k] = above * (mean / (mean + errors[k])) if above < 0 else above
    return advantage


@kernel
def _advantage_by_level(slow: Floats, n_seen: Floats, reference: Floats) -> Floats:
    advantage, n, mean, squares = np.zeros(n_seen.size), 0, 0.0, 0.0
    for k in range(n_seen.size):
        if n_seen[k] > 0:
            n += 1
            mean += slow[0, k] - reference[k]
    mean /= n
    for k in range(n_seen.size):
        if n_seen[k] > 0:
            squares += (slow[0, k] - reference[k] - mean) ** 2
    spread = np.sqrt(squares / n)
    for k in range(n_seen.size):
        if n_seen[k] > 0 and spread > 0:
            deviations = (slow[0, k] - reference[k] - mean) / spread
            advantage[k] = min(max(deviations, -MAX_DEVIATIONS), MAX_DEVIATIONS) / MAX_DEVIATIONS
    return advantage


@kernel
def _report(
    losses: Floats,
    n_tokens: Floats,
    is_there: NDArray[np.bool_],
    fast: Floats,
    slow: Floats,
    variance: Floats,
    n_seen: Floats,
    so_far: Floats,
    weights: Floats,
    decays: Floats,
    prior: Floats,
    log_prior: Floats,
    reference: Floats,
    rate: float,
    pull: float,
    by_slope: bool,
    is_warm: bool,
) -> Floats:
    _follow(losses, n_tokens, is_there, fast, slow, variance, n_seen, so_far, decays)
    if not is_warm:
        as_they_are: Floats = np.log(weights)
        return as_they_are
    if by_slope:
        advantage = _advantage_by_slope(fast, slow, variance, weights, decays, prior)
    else:
        advantage = _advantage_by_level(slow, n_seen, reference)
    stepped, total = np.empty(weights.size), 0.0
    for k in range(weights.size):
        value = np.log(weights[k] * (1 + rate * min(max(advantage[k], -1.0), 1.0)))
        stepped[k] = value + pull * (log_prior[k] - value)
        total += np.exp(stepped[k])
    normalised: Floats = stepped - np.log(total)
    return normalised

"""What every mixer offers: a table of runs in, losses of any mixture with their uncertainty out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .table import RunTable

if TYPE_CHECKING:
    from .objective import Objective
    from .proposals import Acquisition

Floats = NDArray[np.float64]
Surfaces = Callable[[Floats], Floats]  # weights (M, K) -> losses (n_draws, M, J)

CORRELATION_PRIOR = 0.5
GAUSSIAN_QUANTILES = ((0.6827, 1.0), (0.9545, 2.0))  # share of |errors| below, in standard deviations


@dataclass(frozen=True)
class Fidelity:
    """How large a run is: parameters of the model, tokens of training."""

    n_parameters: int
    n_tokens: int


@dataclass(frozen=True, eq=False)
class Prediction:
    """Losses that new runs would have.

    Attributes:
        mean: float64, (M, J), in the metrics' unit.
        std: float64, (M, J), of one new run: it holds the run-to-run noise and what the mixer does not know.
    """

    mean: Floats
    std: Floats


class Mixer(Protocol):
    """A regression from mixtures to metrics, fitted on a `RunTable`."""

    @property
    def is_smooth(self) -> bool:
        """Whether predictions have a gradient; without one, a search samples mixtures."""

    @property
    def runs(self) -> RunTable:
        """The table it was fitted on."""

    def fit(self, runs: RunTable) -> Self:
        """Learn from finished runs; returns the mixer."""

    def predict(self, weights: Floats, fidelity: Fidelity | None = None) -> Prediction:
        """Metrics of new runs on the mixtures (M, K); by default at the fidelity of the runs."""

    def leave_one_out(self) -> Prediction:
        """Each run, (n_runs, J), predicted by a mixer that has not seen it."""

    def propose(
        self,
        n: int,
        pending: ArrayLike | None = None,
        *,
        natural: ArrayLike | None = None,
        objective: Objective = ...,
        caps: ArrayLike | None = None,
        trust_region: float = 0.5,
        acquisition: Acquisition = "noisy_ei",
        seed: int = 0,
    ) -> Floats:
        """n mixtures to run next, (n, K), while those in `pending` run."""

    def draw_surfaces(self, n_draws: int, seed: int = 0) -> Surfaces:
        """Functions drawn from the posterior of the expected metrics, without run-to-run noise.

        One draw is one consistent world: differences between mixtures, and sums over metrics, have the right
            spread.
        """


def check_runs(runs: RunTable, min_runs: int) -> None:
    """Refuse too few runs, and runs of several fidelities."""
    fidelities = sorted(set(zip(runs.n_parameters.tolist(), runs.n_tokens.tolist(), strict=True)))
    if runs.n_runs < min_runs:
        raise ValueError(f"found {runs.n_runs} runs; a mixer needs {min_runs} or more.")
    if len(fidelities) > 1:
        raise ValueError(
            f"found runs of {len(fidelities)} fidelities (n_parameters, n_tokens): {fidelities[:4]}; "
            "this mixer reads one. Select it with runs.select(runs.n_tokens == ...)."
        )


def fidelity_of(runs: RunTable) -> Fidelity:
    """The fidelity of a table that has one."""
    return Fidelity(int(runs.n_parameters[0]), int(runs.n_tokens[0]))


def check_fidelity(runs: RunTable, asked: Fidelity | None) -> None:
    """Refuse a fidelity that the runs do not have."""
    if asked is not None and asked != fidelity_of(runs):
        raise ValueError(
            f"asked for {asked}, fitted on {fidelity_of(runs)}; this mixer does not extrapolate in fidelity. "
            "A few runs at that fidelity calibrate it: see TransferredMixer."
        )


def error_correlation(errors: Floats) -> Floats:
    """Correlation between metrics of standardised leave-one-out errors (n_runs, J), shrunk: float64, (J, J).

    The prior, a correlation of 1/2 between any two metrics, has the weight of J runs.
    """
    n_runs, n_metrics = errors.shape
    observed = errors.T @ errors
    scale = np.sqrt(np.diag(observed)) + 1e-12
    prior = CORRELATION_PRIOR + (1 - CORRELATION_PRIOR) * np.eye(n_metrics)
    shrunk = (n_runs * observed / np.outer(scale, scale) + n_metrics * prior) / (n_runs + n_metrics)
    root = np.sqrt(np.diag(shrunk))
    return np.asarray(shrunk / np.outer(root, root))


def spread_of(errors: Floats) -> float:
    """The factor on standard deviations that makes standardised errors (n,) look Gaussian.

    The geometric mean of what the 68 % and the 95 % quantile ask for: heavy tails satisfy no factor at both.

    >>> from scipy.special import ndtri
    >>> round(spread_of(3 * ndtri((np.arange(1000) + 0.5) / 1000)), 2)
    3.0
    """
    ratios = [np.quantile(np.abs(errors), share) / quantile for share, quantile in GAUSSIAN_QUANTILES]
    return float(np.exp(np.mean(np.log(np.maximum(ratios, 1e-3)))))

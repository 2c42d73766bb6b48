"""What every mixer offers: a table of runs in, losses of any mixture with their uncertainty out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from .table import RunTable

Floats = NDArray[np.float64]
Surfaces = Callable[[Floats], Floats]  # weights (M, K) -> losses (n_draws, M, J)


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
    def runs(self) -> RunTable:
        """The table it was fitted on."""

    def fit(self, runs: RunTable) -> Self:
        """Learn from finished runs; returns the mixer."""

    def predict(self, weights: Floats, fidelity: Fidelity | None = None) -> Prediction:
        """Metrics of new runs on the mixtures (M, K); by default at the fidelity of the runs."""

    def leave_one_out(self) -> Prediction:
        """Each run, (n_runs, J), predicted by a mixer that has not seen it."""

    def draw_surfaces(self, n_draws: int, seed: int = 0) -> Surfaces:
        """Functions drawn from the posterior of the expected metrics, without run-to-run noise.

        One draw is one consistent world: differences between mixtures, and sums over metrics, have the right
            spread.
        """

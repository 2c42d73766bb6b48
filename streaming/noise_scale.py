"""The gradient noise scale: how large a batch may grow before more rows stop paying.

The actuator is `StreamingLoader.set_global_batch(n, at_step)`, which loses no row.
"""

import math
from collections.abc import Mapping
from typing import Any


class NoiseScale:
    """Estimates B = tr(S) / |G|**2 from the squared norms of gradients of two batch sizes.

    E|g_B|**2 = |G|**2 + tr(S) / B for the mean gradient of B rows, so from sizes b < B

        |G|**2 = (B |g_B|**2 - b |g_b|**2) / (B - b)        tr(S) = (|g_b|**2 - |g_B|**2) / (1 / b - 1 / B)

    are unbiased; each is smoothed, and then they are divided, for a ratio of noisy numbers is biased. With
    data parallelism b is a rank's rows and B all of them; with gradient accumulation, a micro-batch's. Where
    |g_b|**2 is a mean over parts, the estimate is the surer.

    A batch much smaller than B wastes steps, a much larger one wastes rows: at B itself both cost twice their
    least.

    Args:
        half_life: of the moving means, in observations.
    Raises:
        ValueError: half_life is not above 0.
    Source: McCandlish et al. 2018, "An empirical model of large-batch training" (arXiv 1812.06162), section
        2.2 and appendix A.1. Its moving means are chosen by hand; ours have the start's bias taken out.

    >>> noise = NoiseScale()
    >>> noise.observe(small=1 + 40 / 4, n_small=4, large=1 + 40 / 32, n_large=32)  # tr(S) = 40
    >>> round(noise.scale, 6)
    40.0
    """

    def __init__(self, half_life: float = 50) -> None:
        if not half_life > 0:
            raise ValueError(f"half_life is {half_life}; it must be above 0 observations")
        self._decay = 1 - 0.5 ** (1 / half_life)
        self._signal, self._noise, self._weight = 0.0, 0.0, 0.0
        self.n_observations, self.n_ignored = 0, 0

    def observe(self, small: float, n_small: float, large: float, n_large: float) -> None:
        """Take in the squared norms of one step's gradients; what is not finite is counted and left out.

        Args:
            small: |g_b|**2, or its mean over parts of the batch.
            n_small: b, in rows or tokens: the unit of `scale`.
            large: |g_B|**2 of the whole batch, before clipping.
            n_large: B.
        Raises:
            ValueError: n_small is not below n_large.
        """
        # Norms come as tensors, which a state could not hold.
        small, n_small, large, n_large = float(small), float(n_small), float(large), float(n_large)
        if not 0 < n_small < n_large:
            raise ValueError(
                f"n_small is {n_small:g} and n_large {n_large:g}; two sizes are needed, the first smaller"
            )
        if not (math.isfinite(small) and math.isfinite(large)):
            self.n_ignored += 1
            return
        signal = (n_large * large - n_small * small) / (n_large - n_small)
        noise = (small - large) / (1 / n_small - 1 / n_large)
        self._signal += self._decay * (signal - self._signal)
        self._noise += self._decay * (noise - self._noise)
        self._weight += self._decay * (1 - self._weight)
        self.n_observations += 1

    @property
    def scale(self) -> float:
        """B, in the unit of the sizes; NaN before anything was observed, inf where no signal is left."""
        if not self.n_observations:
            return math.nan
        return max(0.0, self._noise) / self._signal if self._signal > 0 else math.inf

    @property
    def signal(self) -> float:
        """|G|**2, smoothed."""
        return self._signal / self._weight if self._weight else math.nan

    @property
    def noise(self) -> float:
        """tr(S), smoothed."""
        return self._noise / self._weight if self._weight else math.nan

    def next_batch(self, now: int, least: int, most: int, multiple: int = 1) -> int:
        """Rows of the next batches: towards `scale`, at most twice or half of `now`.

        Args:
            now: rows of a batch.
            least, most: bounds.
            multiple: of which it must be one, such as world_size times a micro-batch.
        Raises:
            ValueError: no multiple lies between the bounds.
        """
        low, high = -(-least // multiple) * multiple, most // multiple * multiple
        if not 0 < low <= high:
            raise ValueError(f"no multiple of {multiple} lies between least {least} and most {most}")
        wanted = now if math.isnan(self.scale) else min(max(self.scale, now / 2), now * 2.0)
        return int(min(max(round(wanted / multiple) * multiple, low), high))

    def state_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "signal": self._signal,
            "noise": self._noise,
            "weight": self._weight,
            "n_observations": self.n_observations,
            "n_ignored": self.n_ignored,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._signal, self._noise, self._weight = state["signal"], state["noise"], state["weight"]
        self.n_observations, self.n_ignored = state["n_observations"], state["n_ignored"]

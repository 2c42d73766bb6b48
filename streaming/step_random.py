"""Random numbers that are a function of a seed, a step and a purpose alone."""

import numpy as np


class StepRandom:
    """Generators for one step after another; each call rewinds the one generator there is.

    `np.random.default_rng([seed, step, purpose])` hashes its seed each time, which takes ten times as long;
    here they are the key and the counter of a Philox (Salmon et al. 2011, "Parallel random numbers: as easy
    as 1, 2, 3").

    Args:
        seed: >= 0.

    >>> random = StepRandom(7)
    >>> first = random(3, purpose=1).random()
    >>> first == random(4, purpose=1).random(), first == random(3, purpose=1).random()
    (False, True)
    """

    def __init__(self, seed: int) -> None:
        self._bits = np.random.Philox(key=seed)
        self._generator = np.random.Generator(self._bits)
        self._state = self._bits.state

    def __call__(self, step: int, purpose: int) -> np.random.Generator:
        """The generator at the beginning of a step's numbers for a purpose; both are >= 0."""
        # The counter's first word counts blocks of numbers, so that steps and purposes never overlap.
        self._state["state"]["counter"][:] = 0, step, purpose, 0
        self._bits.state = self._state
        return self._generator

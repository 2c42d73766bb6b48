import numpy as np

from cuvee.streaming.step_random import StepRandom


def numbers(random: StepRandom, step: int, purpose: int) -> list[float]:
    return random(step, purpose).random(5).tolist()


def test_numbers_do_not_depend_on_what_was_drawn_before() -> None:
    random, expected = StepRandom(3), numbers(StepRandom(3), 8, 1)
    # Whole blocks, a part of one, and halves of 64-bit words, which wait for the next draw.
    for draw in (
        lambda g: g.random(7),
        lambda g: g.integers(2**31, size=3, dtype=np.uint32),
        lambda g: g.choice(9, 4, replace=False),
    ):
        draw(random(2, 0))
        assert numbers(random, 8, 1) == expected


def test_seeds_steps_and_purposes_have_numbers_of_their_own() -> None:
    found = [numbers(StepRandom(s), step, p) for s in range(3) for step in range(30) for p in range(2)]
    flat = np.concatenate(found)
    assert np.unique(flat).size == flat.size
    assert abs(flat.mean() - 0.5) < 5 / np.sqrt(12 * flat.size)

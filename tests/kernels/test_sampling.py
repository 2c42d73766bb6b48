from itertools import permutations

import numpy as np
import pytest

from cuvee.kernels.sampling import Law, gumbel_top_k, uniforms


def expected_odds(odds: np.ndarray, k: int) -> dict[tuple[int, ...], float]:
    """Of each sequence of k rows when one after another is drawn in proportion to `odds`."""
    found = {}
    for rows in permutations(range(odds.size), k):
        left, probability = odds.sum(), 1.0
        for row in rows:
            probability *= odds[row] / left
            left -= odds[row]
        found[rows] = probability
    return found


@pytest.mark.parametrize(
    ("law", "odds"),
    [
        ("softmax", np.exp([1.0, 0.0, 2.0, 1.5])),
        ("power", np.array([1, 0, 4, 2.25])),
        ("softrank", 1 / np.array([9, 16, 1, 4])),
    ],
)
def test_sequences_come_as_often_as_their_law_says(law: Law, odds: np.ndarray) -> None:
    scores, beta, n_draws = np.array([1.0, 0.0, 2.0, 1.5]), 1.0 if law == "softmax" else 2.0, 6000
    counts = dict.fromkeys(permutations(range(4), 2), 0)
    for key in range(n_draws):
        first, second = gumbel_top_k(scores, 2, key=key, law=law, beta=beta)
        counts[int(first), int(second)] += 1
    for rows, probability in expected_odds(odds, 2).items():
        error = np.sqrt(probability * (1 - probability) / n_draws)
        assert abs(counts[rows] / n_draws - probability) <= 4.5 * error, rows


def test_no_row_is_drawn_twice_and_the_same_key_draws_the_same() -> None:
    scores = np.linspace(0, 3, 50)
    for law in ("softmax", "power", "softrank"):
        rows = gumbel_top_k(scores, 50, key=7, law=law)
        assert sorted(rows.tolist()) == list(range(50))
        np.testing.assert_array_equal(rows[:9], gumbel_top_k(scores, 9, key=7, law=law))
        assert (rows != gumbel_top_k(scores, 50, key=8, law=law)).any()


def test_a_great_beta_takes_the_best_and_none_takes_all_alike() -> None:
    scores = np.array([3.0, 1.0, 2.0, 0.0])
    for law in ("softmax", "power", "softrank"):
        assert gumbel_top_k(scores, 3, key=5, law=law, beta=500).tolist() == [0, 2, 1]
        firsts = [int(gumbel_top_k(scores, 1, key=key, law=law, beta=0)[0]) for key in range(4000)]
        assert np.abs(np.bincount(firsts, minlength=4) / 4000 - 0.25).max() < 0.03


def test_what_is_minus_infinite_is_never_drawn_before_the_rest() -> None:
    scores = np.array([-np.inf, 1.0, -np.inf, 0.0])
    for key in range(100):
        for beta in (0.0, 1.0):
            assert set(gumbel_top_k(scores, 2, key=key, beta=beta).tolist()) == {1, 3}
        assert set(gumbel_top_k(scores, 2, key=key, law="softrank").tolist()) == {1, 3}


def test_uniform_numbers_are_uniform() -> None:
    numbers = uniforms(100_000, 3)
    assert 0 < numbers.min() < numbers.max() < 1
    assert np.abs(np.histogram(numbers, 20, (0, 1))[0] - 5000).max() < 5 * np.sqrt(5000)


def test_what_cannot_be_drawn_is_refused() -> None:
    scores = np.array([1.0, np.nan])
    with pytest.raises(ValueError, match=r"scores\[1\] is nan"):
        gumbel_top_k(scores, 1, key=0)
    scores[1] = -1
    with pytest.raises(ValueError, match="the power law takes scores >= 0"):
        gumbel_top_k(scores, 1, key=0, law="power")
    with pytest.raises(ValueError, match="k is 3"):
        gumbel_top_k(scores, 3, key=0)
    with pytest.raises(ValueError, match="beta is -1"):
        gumbel_top_k(scores, 1, key=0, beta=-1)
    with pytest.raises(ValueError, match="law is 'best'"):
        gumbel_top_k(scores, 1, key=0, law="best")  # type: ignore[arg-type]

import numpy as np
import pytest

from cuvee.kernels.blocked_sampling import (
    blocked_sequential_sampling,
    blocked_sequential_sampling_reference,
)
from cuvee.kernels.permutation import mix64, mix64_of
from cuvee.kernels.sampling import gumbel_top_k


@pytest.mark.parametrize("k", [0, 1, 7, 32, 59, 60])
@pytest.mark.parametrize("n_blocks", [1, 3, 16, 100])
@pytest.mark.parametrize(
    ("redundancy", "beta"), [(0.0, 1.0), (1.0, 1.0), (3.0, 0.3), (1.0, 0.0), (0.5, 90.0)]
)
def test_the_kernel_draws_what_the_reference_draws(
    k: int, n_blocks: int, redundancy: float, beta: float
) -> None:
    for seed, d in enumerate((1, 8, 13, 64)):
        rng = np.random.default_rng(seed)
        scores, features = rng.normal(size=60), rng.normal(size=(60, d))
        features[rng.integers(0, 60, 4)] = 0
        given = {"key": 2**64 - 1 - seed, "n_blocks": n_blocks, "redundancy": redundancy, "beta": beta}
        drawn = blocked_sequential_sampling(scores, features, k, **given)
        np.testing.assert_array_equal(
            drawn, blocked_sequential_sampling_reference(scores, features, k, **given)
        )
        assert np.unique(drawn).size == k


def test_one_block_is_a_gumbel_top_k() -> None:
    scores = np.random.default_rng(0).normal(size=40)
    its_key = int(mix64(np.zeros(1, np.uint64), 5)[0])
    np.testing.assert_array_equal(
        blocked_sequential_sampling(scores, np.ones((40, 2)), 9, key=5, n_blocks=1),
        gumbel_top_k(scores, 9, key=its_key),
    )


def test_one_value_is_hashed_as_many_are() -> None:
    values = np.array([0, 1, 2**63, 2**64 - 1], np.uint64)
    for key in (0, 7, 2**64 - 1):
        expected = mix64(values, key).tolist()
        assert [int(mix64_of(value, np.uint64(key))) for value in values] == expected


def test_rows_that_say_the_same_are_not_all_drawn() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(4), 25)
    features = np.eye(4)[groups] + 0.01 * rng.normal(size=(100, 4))
    scores = np.where(groups == 0, 1.0, 0.9)
    drawn = blocked_sequential_sampling(scores, features, 20, key=1, n_blocks=10, redundancy=0, beta=200)
    assert (groups[drawn] == 0).all()
    drawn = blocked_sequential_sampling(scores, features, 20, key=1, n_blocks=10, redundancy=1, beta=200)
    assert np.bincount(groups[drawn], minlength=4).min() >= 4
    assert np.unique(drawn).size == 20
    again = blocked_sequential_sampling(scores, features, 20, key=1, n_blocks=10, redundancy=1, beta=200)
    np.testing.assert_array_equal(drawn, again)


def test_what_cannot_be_drawn_is_refused() -> None:
    scores, features = np.zeros(2), np.ones((2, 2))
    with pytest.raises(ValueError, match=r"features have shape \(3, 2\); for 2 scores \(2, d\) is needed"):
        blocked_sequential_sampling(scores, np.ones((3, 2)), 1, key=0)
    with pytest.raises(ValueError, match=r"shape \(2,\); for 2"):
        blocked_sequential_sampling(scores, np.ones(2), 1, key=0)
    with pytest.raises(ValueError, match="a score or a feature is not finite"):
        blocked_sequential_sampling(scores, features * np.inf, 1, key=0)
    with pytest.raises(ValueError, match="a score or a feature is not finite"):
        blocked_sequential_sampling(np.array([0, -np.inf]), features, 1, key=0)
    with pytest.raises(ValueError, match="n_blocks is 0"):
        blocked_sequential_sampling(scores, features, 1, key=0, n_blocks=0)
    with pytest.raises(ValueError, match="redundancy nan"):
        blocked_sequential_sampling(scores, features, 1, key=0, redundancy=np.nan)
    with pytest.raises(ValueError, match="k is 3"):
        blocked_sequential_sampling(scores, features, 3, key=0)
    with pytest.raises(ValueError, match="beta is -1"):
        blocked_sequential_sampling(scores, features, 1, key=0, beta=-1)

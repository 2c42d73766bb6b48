import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cuvee.kernels.permutation import invert, permute, permute_reference

KEYS = st.integers(0, 2**64 - 1)
SIZES = st.one_of(st.integers(1, 300), st.integers(3, 62).flatmap(lambda b: st.integers(2**b - 1, 2**b + 1)))


def chi_square(counts: np.ndarray) -> float:
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2 / expected).sum())


def five_sigma(degrees_of_freedom: int) -> float:
    """A chi-square variable has mean k and variance 2 k."""
    return degrees_of_freedom + 5 * math.sqrt(2 * degrees_of_freedom)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 255, 256, 257, 1000, 4095, 4096, 4097])
def test_every_index_is_hit_once(n: int) -> None:
    np.testing.assert_array_equal(np.sort(permute(np.arange(n), n, key=n)), np.arange(n))


@given(n=st.integers(1, 2000), key=KEYS)
@settings(deadline=None)
def test_it_is_a_bijection_for_every_size_and_key(n: int, key: int) -> None:
    assert len(set(permute(np.arange(n), n, key).tolist())) == n


@given(n=SIZES, key=KEYS, seed=st.integers(0, 2**32 - 1))
@example(n=2**63 - 1, key=2**64 - 1, seed=0)
@example(n=2**33 + 1, key=0, seed=1)
@settings(deadline=None)
def test_kernel_and_reference_agree_and_the_inverse_undoes_them(n: int, key: int, seed: int) -> None:
    indices = np.random.default_rng(seed).integers(0, n, size=8)
    shuffled = permute(indices, n, key)
    np.testing.assert_array_equal(shuffled, permute_reference(indices, n, key))
    np.testing.assert_array_equal(shuffled, permute(indices, n, key, compiled=False))
    np.testing.assert_array_equal(invert(shuffled, n, key), indices)
    assert (shuffled >= 0).all()
    assert (shuffled < n).all()


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_all_orders_of_a_few_rows_are_equally_likely(n: int) -> None:
    orders = dict.fromkeys(itertools.permutations(range(n)), 0)
    for key in range(400 * len(orders)):
        orders[tuple(permute(np.arange(n), n, key).tolist())] += 1
    assert chi_square(np.array(list(orders.values()))) < five_sigma(len(orders) - 1)


@pytest.mark.parametrize("n", [37, 64])
def test_every_row_is_as_likely_at_every_position(n: int) -> None:
    counts = np.zeros((n, n))
    for key in range(100 * n):
        counts[np.arange(n), permute(np.arange(n), n, key)] += 1
    assert chi_square(counts) < five_sigma((n - 1) ** 2)


@pytest.mark.parametrize("n", [13, 16])
def test_every_pair_of_rows_is_as_likely_to_be_adjacent(n: int) -> None:
    counts = np.zeros((n, n))
    for key in range(100 * n * (n - 1)):
        # One pair for each key: the pairs of one order are not independent of each other.
        first, second = permute(np.array([key % (n - 1), key % (n - 1) + 1]), n, key)
        counts[first, second] += 1
    assert chi_square(counts[~np.eye(n, dtype=bool)]) < five_sigma(n * (n - 1) - 1)


def test_neighbours_in_a_large_order_are_unrelated() -> None:
    n = 1_000_003
    steps = np.diff(permute(np.arange(100_001), n, key=1)) % n
    assert chi_square(np.bincount(steps * 100 // n, minlength=100)) < five_sigma(99)


def test_keys_that_differ_in_one_bit_give_unrelated_orders() -> None:
    n = 10_000
    base = permute(np.arange(n), n, key=0)
    for bit in range(64):
        n_fixed = int((base == permute(np.arange(n), n, key=1 << bit)).sum())
        assert n_fixed <= 10  # Poisson with mean 1: beyond 10 once in 10**8


def test_sizes_keys_and_indices_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"n is 0; a permutation needs 1 <= n < 2\*\*63"):
        permute(np.arange(0), 0, key=1)
    with pytest.raises(ValueError, match=r"key is -1; it must lie in \[0, 2\*\*64\)"):
        permute(np.arange(3), 3, key=-1)
    with pytest.raises(ValueError, match=r"indices run from 0 to 3; they must lie in \[0, 3\)"):
        permute(np.arange(4), 3, key=1)


def test_no_indices_give_no_indices() -> None:
    assert permute(np.empty(0, np.int64), 5, key=1).shape == (0,)

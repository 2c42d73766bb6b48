from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cuvee.kernels.facility_location import (
    Selection,
    facility_location,
    facility_location_reference,
    facility_location_stochastic,
)
from cuvee.kernels.facility_location_sparse import facility_location_sparse
from cuvee.kernels.sieve import Sieve


def objective(similarity: np.ndarray, chosen: object) -> float:
    """f, in float64."""
    return float(np.maximum(similarity[np.asarray(chosen)].astype(np.float64), 0).max(axis=0).sum())


def similarities(n_rows: int, n_items: int, seed: int = 0) -> np.ndarray:
    """Cosines of points around a few centres."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(5, 8))
    points = centres[rng.integers(0, 5, n_rows + n_items)] + rng.normal(size=(n_rows + n_items, 8))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return (points[:n_rows] @ points[n_rows:].T).astype(np.float32)


def assert_equal(found: Selection, expected: Selection) -> None:
    for name, one, other in zip(Selection._fields, found, expected, strict=True):
        np.testing.assert_array_equal(one, other, err_msg=name)


@given(st.data())
def test_the_lazy_choice_is_the_naive_one_bit_for_bit(data: st.DataObject) -> None:
    n_rows, n_items = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 70))
    values = st.floats(-2, 4, width=32) | st.sampled_from([0.0, 1.0, 1.0, 0.5])
    similarity = data.draw(arrays(np.float32, (n_rows, n_items), elements=values))
    k, n_groups = data.draw(st.integers(1, n_rows)), data.draw(st.integers(1, 3))
    groups = data.draw(arrays(np.int64, n_rows, elements=st.integers(0, n_groups - 1)))
    budgets = data.draw(arrays(np.int64, n_groups, elements=st.integers(0, 4)))
    bonus = data.draw(st.none() | arrays(np.float32, n_rows, elements=st.floats(0, 2, width=32)))
    for given_groups, given_budgets in ((None, None), (groups, budgets)):
        limits = {"groups": given_groups, "budgets": given_budgets, "bonus": bonus}
        found = facility_location(similarity, k, **limits)
        assert_equal(found, facility_location_reference(similarity, k, **limits))
    assert found.indices.size == min(
        k, int(np.minimum(np.bincount(groups, minlength=n_groups), budgets).sum())
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_lazy_choice_is_the_naive_one_where_many_items_round(seed: int) -> None:
    similarity = similarities(60, 501, seed)
    assert_equal(facility_location(similarity, 20), facility_location_reference(similarity, 20))


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e-38, 1e34])
def test_the_lazy_choice_is_the_naive_one_to_the_last_row_that_adds_nothing(scale: float) -> None:
    # Near the end gains are a millionth of the first ones, equal, or none: bounds must not fall below them.
    rng = np.random.default_rng(0)
    points = np.repeat(rng.normal(size=(40, 2)), 2, axis=0) + np.where(np.arange(80) % 3, 0, 1e-6)[:, None]
    distances = np.linalg.norm(points[:, None] - points, axis=2)
    similarity = (scale * (distances.max() - distances)).astype(np.float32)
    bonus = np.where(np.arange(80) % 5, 0, scale * 1e-3).astype(np.float32)
    for given_bonus in (None, bonus):
        found = facility_location(similarity, 80, bonus=given_bonus)
        assert_equal(found, facility_location_reference(similarity, 80, bonus=given_bonus))


@pytest.mark.parametrize("n_items", [31, 32, 8192, 8225])
def test_the_lazy_choice_is_the_naive_one_where_bytes_are_summed_in_parts(n_items: int) -> None:
    # Rows grow, so the greatest similarity, which the bytes are scaled to, is known at the last one.
    rng = np.random.default_rng(n_items)
    similarity = (np.linspace(0.1, 9, 30)[:, None] * rng.random((30, n_items)) ** 4).astype(np.float32)
    assert_equal(facility_location(similarity, 12), facility_location_reference(similarity, 12))


@pytest.mark.parametrize("seed", range(10))
def test_the_choice_keeps_its_bound_beside_the_best_of_all(seed: int) -> None:
    similarity = np.maximum(similarities(9, 12, seed), 0)
    best = max(objective(similarity, subset) for subset in combinations(range(9), 3))
    found = facility_location(similarity, 3)
    assert objective(similarity, found.indices) >= (1 - 1 / np.e) * best
    assert objective(similarity, found.indices) == pytest.approx(found.gains.sum(dtype=np.float64), rel=1e-5)


def test_sizes_count_the_items_that_each_row_stands_for() -> None:
    similarity = similarities(40, 40)
    found = facility_location(similarity, 7)
    nearest = similarity[found.indices].argmax(axis=0)
    is_similar = similarity[found.indices].max(axis=0) > 0
    np.testing.assert_array_equal(found.sizes, np.bincount(nearest[is_similar], minlength=7))


def test_a_sparse_graph_of_all_pairs_gives_the_dense_choice() -> None:
    similarity = (
        np.round(np.maximum(similarities(30, 25), 0) * 64) / 64
    )  # sums of these are exact in any order
    rows, items = np.nonzero(similarity)
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=30))])
    found = facility_location_sparse(starts, items, similarity[rows, items], 25, 10)
    assert_equal(found, facility_location(similarity, 10))


def test_samples_lose_little_and_repeat() -> None:
    similarity = similarities(400, 300)
    full = facility_location(similarity, 40).gains.sum()
    found = facility_location_stochastic(similarity, 40, seed=3)
    assert np.unique(found.indices).size == 40
    assert 0.97 * full < found.gains.sum() <= full * 1.001
    assert_equal(found, facility_location_stochastic(similarity, 40, seed=3))
    assert (facility_location_stochastic(similarity, 40, seed=4).indices != found.indices).any()
    every_row = facility_location_stochastic(similarity, 40, epsilon=1e-40)
    assert_equal(every_row, facility_location(similarity, 40))


@pytest.mark.parametrize("order", ["as it comes", "worst first"])
def test_a_stream_keeps_nearly_half_of_the_best(order: str) -> None:
    similarity = np.maximum(similarities(200, 80), 0)
    if order == "worst first":
        similarity = similarity[np.argsort(similarity.sum(axis=1))]
    sieve = Sieve(k=12, n_items=80, epsilon=0.05)
    for number, row in enumerate(similarity):
        sieve.add(number, row)
    chosen = sieve.chosen()
    assert len(set(chosen)) == len(chosen) <= 12
    assert objective(similarity, chosen) >= 0.45 * objective(
        similarity, facility_location(similarity, 12).indices
    )
    assert Sieve(2, 3).chosen() == []


def test_what_cannot_be_chosen_from_is_refused() -> None:
    square = np.ones((3, 3), np.float32)
    with pytest.raises(ValueError, match="k is 4; of 3 rows 1 to 3 can be chosen"):
        facility_location(square, 4)
    with pytest.raises(ValueError, match=r"similarity has shape \(0, 3\)"):
        facility_location(square[:0], 1)
    square[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"similarity\[1, 2\] is nan; all values must be finite"):
        facility_location(square, 1)
    for value in (-np.inf, np.inf):
        square[1, 2] = value
        with pytest.raises(ValueError, match=r"similarity\[1, 2\] is -?inf; all values must be finite"):
            facility_location(square, 1)
    with pytest.raises(ValueError, match="a row whose sum is beyond float32"):
        facility_location(np.full((3, 3), 2e38, np.float32), 1)
    square[1, 2] = 0
    with pytest.raises(ValueError, match="groups and budgets come together"):
        facility_location(square, 1, groups=np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="run from 0 to 2; one of 0 to 1 is needed"):
        facility_location(square, 1, groups=np.arange(3), budgets=np.ones(2, np.int64))
    with pytest.raises(ValueError, match="each row needs one >= 0"):
        facility_location(square, 1, bonus=np.array([1.0, -1.0, 0.0]))
    with pytest.raises(ValueError, match="epsilon is 1"):
        facility_location_stochastic(square, 1, epsilon=1)
    with pytest.raises(ValueError, match=r"items run from 0 to 5; they must lie in \[0, 3\)"):
        facility_location_sparse(np.array([0, 2]), np.array([0, 5]), np.ones(2, np.float32), 3, 1)
    with pytest.raises(ValueError, match="they rise from 0 to 2"):
        facility_location_sparse(np.array([0, 1]), np.array([0, 1]), np.ones(2, np.float32), 3, 1)
    with pytest.raises(ValueError, match="k, n_items and epsilon are 0, 3"):
        Sieve(0, 3)

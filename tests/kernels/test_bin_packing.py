import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.kernels.bin_packing import best_fit_decreasing, best_fit_decreasing_reference


@given(st.integers(1, 70).flatmap(lambda c: st.tuples(st.just(c), st.lists(st.integers(1, c), max_size=60))))
def test_rows_equal_those_of_the_reference_and_hold_what_they_can(case: tuple[int, list[int]]) -> None:
    capacity, sizes = case
    lengths = np.array(sizes, np.int64)
    rows, n_rows = best_fit_decreasing(lengths, capacity)
    expected, n_expected = best_fit_decreasing_reference(lengths, capacity)
    np.testing.assert_array_equal(rows, expected)
    assert n_rows == n_expected
    filled = np.bincount(rows, lengths, minlength=n_rows)
    assert filled.size == n_rows
    assert not sizes or (filled.max() <= capacity and filled.min() > 0)
    # No two rows would fit into one: at most one row is half empty.
    assert (2 * filled <= capacity).sum() <= 1


@pytest.mark.parametrize("capacity", [63, 64, 65, 4095, 4096, 5000, 300_000])
def test_rooms_of_any_size_are_found(capacity: int) -> None:
    random = np.random.default_rng(capacity)
    lengths = np.concatenate([random.integers(1, capacity + 1, 300), random.integers(1, 65, 300)])
    lengths = np.minimum(lengths, capacity)
    rows, n_rows = best_fit_decreasing(lengths, capacity)
    expected, n_expected = best_fit_decreasing_reference(lengths, capacity)
    np.testing.assert_array_equal(rows, expected)
    assert n_rows == n_expected


def test_a_case_worked_by_hand() -> None:
    # 6 opens row 0 (room 4), 5 row 1 (room 5); 4 fits row 0 best; 3 goes to row 1; 2 fills row 1.
    rows, n_rows = best_fit_decreasing(np.array([2, 3, 4, 5, 6]), 10)
    assert (rows.tolist(), n_rows) == ([1, 1, 0, 1, 0], 2)


def test_lognormal_documents_fill_999_rows_of_a_thousand() -> None:
    lengths = np.minimum(np.random.default_rng(0).lognormal(6, 1.2, 8192).astype(np.int64) + 1, 2048)
    rows, n_rows = best_fit_decreasing(lengths, 2048)
    assert lengths.sum() / (2048 * n_rows) > 0.999
    assert rows.max() == n_rows - 1


def test_pieces_that_fit_no_row_are_refused() -> None:
    for lengths in ([0, 3], [3, 9]):
        with pytest.raises(ValueError, match="a row takes pieces of 1 to 8 tokens"):
            best_fit_decreasing(np.array(lengths), 8)


def test_no_pieces_need_no_row() -> None:
    rows, n_rows = best_fit_decreasing(np.empty(0, np.int64), 8)
    assert (rows.size, n_rows) == (0, 0)

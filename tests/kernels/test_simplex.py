"""Weights within bounds and in whole numbers, against numpy and by their properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.kernels.simplex import (
    bounded_softmax,
    bounded_weights,
    bounded_weights_reference,
    softmax,
    whole_weights,
    whole_weights_reference,
)

rows_of_bounds = st.lists(
    st.tuples(st.floats(0.01, 10), st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8
)


def of_rows(rows: list[tuple[float, float, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    weights, one, other = map(np.array, zip(*rows, strict=True))
    low, high = np.minimum(one, other) / len(rows), np.maximum(one, other)
    return weights, low, np.maximum(high, 1 / len(rows))


@given(rows_of_bounds)
def test_bounded_weights_are_in_proportion(rows: list[tuple[float, float, float]]) -> None:
    weights, low, high = of_rows(rows)
    found = bounded_weights(weights, low, high)
    assert found.sum() == pytest.approx(1, abs=1e-9)
    assert (found >= low - 1e-12).all()
    assert (found <= high + 1e-12).all()
    inside = (found > low + 1e-9) & (found < high - 1e-9)
    if inside.any():
        factors = found[inside] / weights[inside]
        np.testing.assert_allclose(factors, factors[0], rtol=1e-6)


@given(rows_of_bounds)
def test_bounds_are_kept_as_numpy_keeps_them(rows: list[tuple[float, float, float]]) -> None:
    weights, low, high = of_rows(rows)
    expected = bounded_weights_reference(weights, low, high)
    np.testing.assert_allclose(bounded_weights(weights, low, high), expected, rtol=0, atol=3e-12)
    expected = bounded_weights_reference(softmax(weights), low, high)
    np.testing.assert_allclose(bounded_softmax(weights, low, high), expected, rtol=0, atol=3e-12)


@given(
    st.lists(st.sampled_from([0.0, 1e-9, 1.0, 1.0, 2.0, 3.7]), min_size=1, max_size=70).filter(any),
    st.integers(2**20, 2**40),
    st.sampled_from([1, 7, 2**12]),
)
def test_whole_weights_are_those_of_numpy(parts: list[float], total: int, unit: int) -> None:
    weights = np.array(parts) / sum(parts)
    found = whole_weights(weights, total, unit)
    np.testing.assert_array_equal(found, whole_weights_reference(weights, total, unit))
    assert found.sum() == total
    assert found.min() > 0
    # Every part is within two units of its due, but that of the greatest, which makes up for all others.
    assert np.count_nonzero(found % unit) <= 1
    assert np.count_nonzero(abs(found - weights * total) >= 2 * unit) <= 1

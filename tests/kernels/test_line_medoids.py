import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.kernels.line_medoids import line_medoids, line_medoids_reference


@given(st.lists(st.floats(-1e3, 1e3) | st.sampled_from([0.0, 1.0, 2.0]), min_size=1, max_size=9), st.data())
def test_no_other_choice_is_nearer(numbers: list[float], data: st.DataObject) -> None:
    values, k = np.array(numbers), data.draw(st.integers(1, len(numbers)))
    indices, sizes = line_medoids(values, k)
    distances = np.abs(values[:, None] - values[indices])
    assert distances.min(axis=1).sum() == pytest.approx(line_medoids_reference(values, k), abs=1e-9)
    assert indices.size == k == np.unique(indices).size
    assert (np.diff(values[indices]) >= 0).all()
    assert sizes.min() > 0
    assert sizes.sum() == values.size


def test_many_values_in_clear_groups_find_their_groups() -> None:
    rng = np.random.default_rng(0)
    centres = np.arange(40) * 100.0 + 1e9  # far from zero: sums must keep their digits
    values = rng.permutation(np.repeat(centres, 50) + rng.normal(size=2000))
    indices, sizes = line_medoids(values, 40)
    assert (sizes == 50).all()
    assert np.abs(values[indices] - centres).max() < 0.5


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(ValueError, match="k is 3"):
        line_medoids(np.zeros(2), 3)
    with pytest.raises(ValueError, match=r"values\[1\] is nan"):
        line_medoids(np.array([0, np.nan]), 1)

"""Sums by domain, against numpy."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cuvee.kernels.domain_sums import domain_means, domain_sums, domain_sums_reference

UNIT, LARGEST = 2**20, 1000.0


@given(
    st.lists(
        st.tuples(
            st.integers(0, 4),
            st.floats(-2e3, 2e3) | st.sampled_from([np.nan, np.inf, -np.inf, 0.5 / UNIT, 1.5 / UNIT]),
            st.sampled_from([0, 1, 64, 2**33]),
        ),
        max_size=40,
    )
)
def test_sums_are_those_of_numpy_to_the_last_digit(rows: list[tuple[int, float, int]]) -> None:
    domains, n_tokens = (np.array([row[at] for row in rows], np.int64) for at in (0, 2))
    values = np.array([row[1] for row in rows], np.float64)
    found = domain_sums(domains, values, n_tokens, 5, unit=UNIT, largest=LARGEST)
    expected = domain_sums_reference(domains, values, n_tokens, 5, unit=UNIT, largest=LARGEST)
    np.testing.assert_array_equal(found, expected)
    means, tokens, n_ignored = domain_means(found, UNIT)
    np.testing.assert_array_equal(tokens, found[5:10])
    assert n_ignored == found[10]
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(means, found[:5] / (found[5:10] * float(UNIT)))


def test_sums_are_exact_however_large() -> None:
    # 2**40 tokens of a nat, and one more of 3 units: float64 would lose those beside 2**60.
    values, n_tokens = np.array([1.0, 3 / UNIT, -1.0]), np.array([2**40, 1, 5])
    for compiled in (True, False):
        found = domain_sums(
            np.array([0, 0, 1]), values, n_tokens, 2, unit=UNIT, largest=LARGEST, compiled=compiled
        )
        assert found.tolist() == [2**60 + 3, -5 * UNIT, 2**40 + 1, 5, 0]

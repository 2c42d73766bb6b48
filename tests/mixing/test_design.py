"""Caps and designs: every row is a mixture that could be trained."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.mixing.design import MIN_DISTANCE, MIN_WEIGHT, caps, project_to_capped_simplex, sample_design

NATURAL = np.array([0.5, 0.2, 0.15, 0.1, 0.04, 0.01])


@st.composite
def weights_and_caps(draw):
    """Any weights, zeros among them, and caps that sum to one or more."""
    n = draw(st.integers(1, 12))
    numbers = st.floats(0, 1, allow_subnormal=False)
    w = np.array(draw(st.lists(numbers, min_size=n, max_size=n)))
    upper = np.array(draw(st.lists(numbers, min_size=n, max_size=n)))
    w[draw(st.integers(0, n - 1))] += 0.1
    upper[draw(st.integers(0, n - 1))] += 0.1
    return w, upper / min(1.0, upper.sum())


@given(weights_and_caps())
def test_a_projection_is_a_mixture_inside_the_caps_and_stays_there(case):
    w, upper = case
    projected = project_to_capped_simplex(w, upper)
    assert abs(projected.sum() - 1) <= 1e-9
    assert (projected >= 0).all()
    assert (projected <= upper + 1e-9).all()
    np.testing.assert_allclose(project_to_capped_simplex(projected, upper), projected, atol=1e-9)


@given(weights_and_caps())
def test_a_projection_keeps_the_ratios_of_domains_below_their_cap(case):
    w, upper = case
    projected = project_to_capped_simplex(w, upper)
    below = (projected < upper - 1e-6) & (w > 1e-6)
    if below.sum() > 1:
        np.testing.assert_allclose(
            projected[below] / projected[below].sum(), w[below] / w[below].sum(), rtol=1e-6
        )


def test_domains_without_weight_fill_what_the_caps_of_the_others_leave():
    # 0.3 and 0.2 are capped; 0.5 remains for two domains whose caps are 3 : 1.
    projected = project_to_capped_simplex([0.5, 0.5, 0, 0], [0.3, 0.2, 0.6, 0.2])
    np.testing.assert_allclose(projected, [0.3, 0.2, 0.375, 0.125])


def test_a_cap_is_the_share_that_the_allowed_epochs_fill():
    np.testing.assert_allclose(caps([10, 20, 1000], budget=100, max_epochs=[4, 1, 4]), [0.4, 0.2, 1.0])


def test_a_budget_that_cannot_be_filled_says_what_to_change():
    message = (
        r"budget of 100B tokens .* 2 domains hold 7.9B, .* 31.6B. Lower .* at most 31.6B, .* factor of 3.16"
    )
    with pytest.raises(ValueError, match=message):
        caps([3.9e9, 4e9], budget=100e9, max_epochs=4)


def test_caps_below_one_in_all_are_refused_by_the_projection():
    with pytest.raises(ValueError, match=r"caps sum to 0.8, but weights sum to 1"):
        project_to_capped_simplex([0.5, 0.5], [0.4, 0.4])


@pytest.mark.parametrize("upper", [None, np.array([0.4, 0.3, 0.3, 0.2, 0.16, 0.04])])
def test_every_row_of_a_design_is_a_mixture_inside_the_caps(upper):
    design = sample_design(NATURAL, 64, seed=1, caps=upper)
    assert design.shape == (64, 6)
    assert np.abs(design.sum(axis=1) - 1).max() <= 1e-9
    assert (design <= (1 if upper is None else upper) + 1e-9).all()
    assert ((design == 0) | (design >= MIN_WEIGHT)).all()


def test_a_design_starts_with_the_natural_and_the_uniform_mixture_inside_the_caps():
    upper = np.array([0.4, 0.3, 0.3, 0.2, 0.16, 0.04])
    design = sample_design(NATURAL, 4, caps=upper)
    np.testing.assert_array_equal(design[0], project_to_capped_simplex(NATURAL, upper))
    np.testing.assert_array_equal(design[1], project_to_capped_simplex(np.ones(6), upper))


def test_no_two_mixtures_of_a_design_are_near_duplicates():
    design = sample_design(NATURAL, 64, seed=1)
    distances = np.linalg.norm(design[:, None] - design[None], axis=2)
    assert distances[np.triu_indices(64, 1)].min() >= MIN_DISTANCE


def test_a_seed_repeats_its_design_and_another_gives_another():
    np.testing.assert_array_equal(sample_design(NATURAL, 8, seed=5), sample_design(NATURAL, 8, seed=5))
    assert not np.array_equal(sample_design(NATURAL, 8, seed=5), sample_design(NATURAL, 8, seed=6))


def test_a_long_design_is_a_short_one_continued():
    np.testing.assert_array_equal(sample_design(NATURAL, 16)[:8], sample_design(NATURAL, 8))


def test_caps_that_leave_one_mixture_are_told():
    with pytest.raises(ValueError, match=r"only 1 of n = 4 mixtures .* caps sum to 1 "):
        sample_design(NATURAL, 4, caps=NATURAL)


def test_no_epochs_of_any_domain_fill_no_budget():
    with pytest.raises(ValueError, match=r"tokens \* max_epochs are all 0; raise max_epochs"):
        caps([1e9, 2e9], budget=1e9, max_epochs=0.0)

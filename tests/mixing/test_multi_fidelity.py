"""One surrogate over mixture and fidelity: its likelihood beside the plain one, and what cheap runs tell."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from cuvee.mixing import Fidelity, MultiFidelityMixer, RunTable, load_mixer
from cuvee.mixing.design import sample_design
from cuvee.mixing.fidelity_likelihood import (
    FidelityPosterior,
    Ladder,
    fidelity_posterior_reference,
    fidelity_prior,
)

NAMES = ("a", "b", "c")
SMALL, SHORT, LARGE = Fidelity(10, 1000), Fidelity(10, 300), Fidelity(60, 1000)
SPREAD = {SHORT: np.array([1.0, 1.0]), SMALL: np.array([0.9, 0.8]), LARGE: np.array([0.1, 0.6])}


@settings(max_examples=10)
@given(seed=st.integers(0, 10_000), n_levels=st.sampled_from([0, 2]))
def test_value_and_gradient_are_those_of_the_reference(seed, n_levels):
    rng = np.random.default_rng(seed)
    x, y, level = rng.standard_normal((15, 3)), rng.standard_normal(15), rng.standard_normal((15, n_levels))
    fidelity = rng.permutation([0] * 8 + [1] * 4 + [2] * 3)
    ladder = Ladder.of(np.array([[10, 300], [10, 1000], [60, 1000]]), np.array([8, 4, 3]))
    mean, precision = fidelity_prior(3, ladder, n_levels)
    theta = mean + 0.5 * np.diag(precision) ** -0.5 * rng.standard_normal(len(mean))

    def reference(t):
        return fidelity_posterior_reference(t, x, fidelity, y, level, ladder)

    value, gradient = FidelityPosterior(x, fidelity, y, level, ladder)(theta)
    assert value == pytest.approx(reference(theta), rel=1e-9)
    steps = 1e-5 * np.eye(len(theta))
    numeric = [(reference(theta + s) - reference(theta - s)) / 2e-5 for s in steps]
    # A difference of two values of this size keeps fewer digits than its smallest entries need.
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-5 + 1e-7 * np.abs(numeric).max())


@pytest.mark.parametrize("size", [40.0, 400.0, 1e6])
def test_parameters_too_large_for_a_covariance_are_worth_nothing_and_warn_of_nothing(size):
    rng = np.random.default_rng(0)
    ladder = Ladder.of(np.array([[10, 300], [10, 1000], [60, 1000]]), np.array([8, 4, 3]))
    x, y, level = rng.standard_normal((15, 3)), rng.standard_normal(15), rng.standard_normal((15, 2))
    posterior = FidelityPosterior(x, np.repeat([0, 1, 2], [8, 4, 3]), y, level, ladder)
    mean, _ = fidelity_prior(3, ladder, 2)
    value, gradient = posterior(mean + size)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert value > posterior(mean)[0]


def _expected(w: np.ndarray, fidelity: Fidelity) -> np.ndarray:
    worth = np.array([[0.8, 0.1], [0.2, 0.3], [0.1, 0.7]])
    return 3 - fidelity.n_parameters / 100 - SPREAD[fidelity] * (np.sqrt(w) @ worth)


def _runs(sizes: dict[Fidelity, int], noise: float = 0.004, seed: int = 0) -> RunTable:
    parts, rng = [], np.random.default_rng(seed)
    for i, (fidelity, n) in enumerate(sizes.items()):
        w = sample_design(np.ones(3) / 3, n, seed=seed + 7 * i)
        losses = _expected(w, fidelity) + noise * SPREAD[fidelity] * rng.standard_normal((n, 2))
        parts.append((w, losses, np.full(n, fidelity.n_parameters), np.full(n, fidelity.n_tokens)))
    w, losses, n_parameters, n_tokens = (np.concatenate(column) for column in zip(*parts, strict=True))
    return RunTable(w, NAMES, losses, ("x", "y"), n_parameters=n_parameters, n_tokens=n_tokens)


def test_eight_target_runs_beside_cheap_ones_rank_the_mean_at_the_target():
    mixer = MultiFidelityMixer().fit(_runs({SHORT: 40, SMALL: 20, LARGE: 8}))
    w = sample_design(np.ones(3) / 3, 100, seed=50)
    true = _expected(w, LARGE).mean(axis=1)
    alone = load_mixer("gaussian_process").fit(_runs({SHORT: 40}))
    assert spearmanr(alone.predict(w).mean.mean(axis=1), true).statistic < 0.8
    assert spearmanr(mixer.predict(w).mean.mean(axis=1), true).statistic > 0.97


def test_a_target_without_runs_is_extrapolated_by_the_spreads_of_two_sizes():
    between = Fidelity(25, 1000)
    SPREAD[between] = SPREAD[SMALL] * (SPREAD[LARGE] / SPREAD[SMALL]) ** (np.log(2.5) / np.log(6))
    mixer = MultiFidelityMixer(target=LARGE).fit(_runs({SMALL: 60, between: 40}))
    w = sample_design(np.ones(3) / 3, 100, seed=50)
    true = _expected(w, LARGE).mean(axis=1)
    plain = spearmanr(mixer.predict(w, SMALL).mean.mean(axis=1), true).statistic
    assert spearmanr(mixer.predict(w).mean.mean(axis=1), true).statistic > max(0.9, plain)


def test_errors_at_the_target_are_of_the_stated_size():
    mixer = MultiFidelityMixer().fit(_runs({SHORT: 40, SMALL: 20, LARGE: 12}))
    w = sample_design(np.ones(3) / 3, 200, seed=50)
    noise = 0.004 * SPREAD[LARGE] * np.random.default_rng(1).standard_normal((200, 2))
    predicted = mixer.predict(w)
    inside = np.abs(_expected(w, LARGE) + noise - predicted.mean) <= 2 * predicted.std
    # 95 % are promised; errors of one fit are common to many mixtures.
    assert inside.mean() > 0.85
    assert predicted.std.mean() < 0.5 * _expected(w, LARGE).std()


def test_surfaces_scatter_around_the_prediction_at_the_target():
    mixer = MultiFidelityMixer().fit(_runs({SHORT: 30, LARGE: 5}))
    w = sample_design(np.ones(3) / 3, 6, seed=9)
    drawn = mixer.draw_surfaces(200, seed=1)(w)
    np.testing.assert_allclose(drawn.mean(axis=0), mixer.predict(w).mean, atol=1e-7)
    assert (drawn.std(axis=0) <= 1.3 * mixer.predict(w).std).all()


def test_leaving_one_out_is_leaving_one_out():
    runs = _runs({SHORT: 10, LARGE: 5})
    mixer = MultiFidelityMixer().fit(runs)
    p = mixer.processes[1]
    c = p.h.covariance(p.x, p.fidelity, p.x, p.fidelity, p.ladder) + np.diag(p.noise)
    for i in (0, 12):
        others = np.delete(np.arange(15), i)
        k = c[i, others] @ np.linalg.inv(c[np.ix_(others, others)])
        mean = k @ p.y[others]
        error = (p.y[i] - mean) / np.sqrt(c[i, i] - k @ c[others, i]) / p.spread
        assert p.standardised_errors()[i] == pytest.approx(error, rel=1e-6)


def test_few_target_runs_leave_the_evidence_to_the_fidelity_with_most():
    mixer = MultiFidelityMixer().fit(_runs({SHORT: 30, LARGE: 5}))
    assert mixer.runs.n_runs == 30
    np.testing.assert_allclose(mixer.leave_one_out().mean, mixer.runs.metrics, atol=0.05)
    assert np.abs(mixer.runs.metrics - _expected(mixer.runs.weights, LARGE)).max() < 0.1
    assert MultiFidelityMixer().fit(_runs({SHORT: 30, LARGE: 12})).runs.n_runs == 12


def test_a_run_at_the_target_tells_more_of_it_than_a_cheap_one():
    mixer = MultiFidelityMixer().fit(_runs({SHORT: 30, LARGE: 5}))
    w = np.array([0.7, 0.2, 0.1])
    assert mixer.information(w, LARGE) > mixer.information(w, SHORT) > 0


def test_a_trend_that_is_right_needs_four_runs():
    def trend(w, fidelity):
        return _expected(w, fidelity) + 0.3

    mixer = MultiFidelityMixer(trend=trend, target=LARGE).fit(_runs({SHORT: 4, LARGE: 2}))
    w = sample_design(np.ones(3) / 3, 50, seed=50)
    assert spearmanr(mixer.predict(w).mean.mean(axis=1), _expected(w, LARGE).mean(axis=1)).statistic > 0.95


def test_a_fidelity_that_is_neither_seen_nor_the_target_is_refused():
    mixer = MultiFidelityMixer().fit(_runs({SHORT: 5}))
    with pytest.raises(ValueError, match="does not extrapolate in fidelity beyond its target"):
        mixer.predict(np.ones(3) / 3, LARGE)

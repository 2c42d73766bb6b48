"""The mixer's predictions, their uncertainty, and its leave-one-out in closed form."""

import numpy as np
import pytest

from cuvee.mixing.mixer import Fidelity
from cuvee.mixing.table import RunTable
from cuvee.mixing.trend_residual import TrendResidualMixer

DOMAINS = tuple("abcde")


def _runs(metrics: np.ndarray, weights: np.ndarray, **columns) -> RunTable:
    names = tuple(f"m{j}" for j in range(metrics.shape[1]))
    return RunTable(weights, DOMAINS, metrics, names, **columns)


def _weights(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(len(DOMAINS)), n)


def _surface(seed: int, n_metrics: int = 1):
    """A random function of the family that the mixer assumes: linear in sqrt(w)."""
    slopes = np.random.default_rng(seed).normal(size=(len(DOMAINS), n_metrics))
    return lambda w: 3 + np.sqrt(w) @ slopes


def _trend(w: np.ndarray) -> np.ndarray:
    return 4 - np.log(w[:, :1] + 0.1)


def test_intervals_cover_new_runs_as_often_as_they_say():
    inside = {1.0: 0, 1.96: 0}
    n_surfaces = 400
    for seed in range(n_surfaces):
        rng, surface, w = np.random.default_rng(seed), _surface(seed), _weights(25, seed)
        y = surface(w) + 0.3 * rng.standard_normal((25, 1))
        prediction = TrendResidualMixer().fit(_runs(y[:24], w[:24])).predict(w[24:])
        error = abs(prediction.mean[0, 0] - y[24, 0]) / prediction.std[0, 0]
        inside = {z: count + (error <= z) for z, count in inside.items()}
    # One independent test run per surface: binomial, n = 400, within 4 standard errors.
    for z, nominal in ((1.0, 0.683), (1.96, 0.95)):
        assert abs(inside[z] / n_surfaces - nominal) <= 4 * np.sqrt(nominal * (1 - nominal) / n_surfaces)


@pytest.mark.parametrize("trend", [None, _trend])
def test_leaving_one_out_in_closed_form_is_fitting_without_it(trend):
    w = _weights(30, 0)
    y = _surface(0)(w) + 0.1 * np.random.default_rng(0).standard_normal((30, 1))
    closed = TrendResidualMixer(trend).fit(_runs(y, w)).leave_one_out()
    for run in range(5):
        rest = np.arange(30) != run
        refitted = TrendResidualMixer(trend).fit(_runs(y[rest], w[rest])).predict(w[run : run + 1])
        # The scales of columns and priors are those of 30 runs, not 29: a few per cent of the error.
        assert abs(closed.mean[run, 0] - refitted.mean[0, 0]) <= 0.1 * refitted.std[0, 0]
        assert closed.std[run, 0] == pytest.approx(refitted.std[0, 0], rel=0.1)


def test_with_four_runs_a_trend_is_followed_up_to_a_shift():
    w, new = _weights(4, 1), _weights(50, 2)
    prediction = TrendResidualMixer(_trend).fit(_runs(_trend(w) + 0.7, w)).predict(new)
    np.testing.assert_allclose(prediction.mean, _trend(new) + 0.7, atol=0.02)


def test_eight_runs_that_scatter_around_a_trend_hardly_bend_it():
    bent = []
    for seed in range(40):
        w, new = _weights(8, seed), _weights(50, seed + 100)
        y = _trend(w) + 0.1 * np.random.default_rng(seed).standard_normal((8, 1))
        correction = TrendResidualMixer(_trend).fit(_runs(y, w)).predict(new).mean - _trend(new)
        bent.append(correction.std())
    # Six coefficients from eight runs with noise of .1 leave .1 sqrt(6 / 8) where nothing holds them.
    assert np.mean(bent) < 0.1 * np.sqrt(6 / 8) / 3


def test_many_runs_correct_a_wrong_trend():
    w, new = _weights(200, 1), _weights(50, 2)
    surface = _surface(3)
    prediction = TrendResidualMixer(_trend).fit(_runs(surface(w), w)).predict(new)
    # 200 noise-free runs of the family: what is left is the shrinkage, far below the surface's spread, 0.4.
    assert np.abs(prediction.mean - surface(new)).max() < 0.02


def test_a_good_trend_makes_few_runs_go_further():
    w, new = _weights(8, 4), _weights(200, 5)
    y, truth = _trend(w) + 0.05 * np.sqrt(w[:, 1:2]), _trend(new) + 0.05 * np.sqrt(new[:, 1:2])
    errors = [
        np.abs(TrendResidualMixer(trend).fit(_runs(y, w)).predict(new).mean - truth).mean()
        for trend in (_trend, None)
    ]
    assert errors[0] < errors[1]


def test_draws_have_the_predictions_mean_and_what_it_does_not_know():
    w, new = _weights(12, 6), _weights(3, 7)
    y = _surface(6, 2)(w) + 0.2 * np.random.default_rng(6).standard_normal((12, 2))
    mixer = TrendResidualMixer().fit(_runs(y, w))
    draws, prediction = mixer.draw_surfaces(20_000)(new), mixer.predict(new)
    standard_error = draws.std(axis=0) / np.sqrt(20_000)
    assert (np.abs(draws.mean(axis=0) - prediction.mean) <= 5 * standard_error + 1e-3).all()
    assert (draws.std(axis=0) < prediction.std).all()


def test_metrics_that_err_together_are_drawn_together():
    w, rng = _weights(40, 8), np.random.default_rng(8)
    noise = 0.3 * rng.standard_normal((40, 1))
    y = np.hstack([_surface(1)(w) + noise, _surface(2)(w) + noise, _surface(3)(w) - noise])
    draws = TrendResidualMixer().fit(_runs(y, w)).draw_surfaces(4000)(w[:1])[:, 0]
    correlation = np.corrcoef(draws.T)
    assert correlation[0, 1] > 0.5
    assert correlation[0, 2] < -0.5


def test_permuting_domains_changes_no_prediction():
    w, order = _weights(20, 9), [3, 1, 4, 0, 2]
    y = _surface(9)(w)
    straight = TrendResidualMixer().fit(_runs(y, w)).predict(w)
    permuted = TrendResidualMixer().fit(_runs(y, w[:, order])).predict(w[:, order])
    np.testing.assert_allclose(permuted.mean, straight.mean, rtol=1e-8)


def test_three_runs_are_too_few():
    with pytest.raises(ValueError, match="found 3 runs; a mixer needs 4 or more"):
        TrendResidualMixer().fit(_runs(np.ones((3, 1)), _weights(3, 0)))


def test_runs_of_several_fidelities_are_refused():
    with pytest.raises(ValueError, match=r"2 fidelities .* \[\(0, 5\), \(0, 9\)\]; this mixer reads one"):
        TrendResidualMixer().fit(_runs(np.ones((4, 1)), _weights(4, 0), n_tokens=[5, 5, 9, 9]))


def test_another_fidelity_than_the_runs_is_refused():
    mixer = TrendResidualMixer().fit(_runs(np.ones((4, 1)), _weights(4, 0), n_tokens=[5] * 4))
    mixer.predict(_weights(1, 0), Fidelity(0, 5))
    with pytest.raises(ValueError, match="does not extrapolate in fidelity"):
        mixer.predict(_weights(1, 0), Fidelity(0, 10))


def test_a_trend_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"gave shape \(4, 2\), expected \(4, 1\): .* metrics m0"):
        TrendResidualMixer(lambda w: np.ones((len(w), 2))).fit(_runs(np.ones((4, 1)), _weights(4, 0)))


def test_a_mixer_without_runs_says_what_to_call():
    with pytest.raises(ValueError, match=r"call fit\(runs\) first"):
        TrendResidualMixer().predict(_weights(1, 0))

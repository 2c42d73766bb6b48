"""The Gaussian process: its likelihood beside the plain one, its shortcuts beside the long way."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.mixing import RunTable
from cuvee.mixing.design import sample_design
from cuvee.mixing.floor import Floor, FlooredPosterior, gap_unit, warped
from cuvee.mixing.gaussian_process import GaussianProcessMixer
from cuvee.mixing.marginal_likelihood import (
    OWN_STD,
    Hyperparameters,
    Posterior,
    correlated_slopes,
    linear_kernel,
    linear_variance,
    negative_log_posterior_reference,
    prior,
)

NAMES = ("a", "b", "c")


def _problem(seed: int, n: int = 14, n_levels: int = 2):
    rng = np.random.default_rng(seed)
    x, y, level = rng.standard_normal((n, 3)), rng.standard_normal(n), rng.standard_normal((n, n_levels))
    median, precision = prior(3, n_levels)
    return median + 0.5 * np.diag(precision) ** -0.5 * rng.standard_normal(len(median)), x, y, level


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), n_levels=st.sampled_from([0, 2]))
def test_value_and_gradient_are_those_of_the_reference(seed, n_levels):
    theta, x, y, level = _problem(seed, n_levels=n_levels)
    value, gradient = Posterior(x, y, level)(theta)
    assert value == pytest.approx(negative_log_posterior_reference(theta, x, y, level), rel=1e-9)
    steps = 1e-5 * np.eye(len(theta))
    numeric = [
        (
            negative_log_posterior_reference(theta + s, x, y, level)
            - negative_log_posterior_reference(theta - s, x, y, level)
        )
        / 2e-5
        for s in steps
    ]
    # A difference of two values of this size keeps fewer digits than its smallest entries need.
    np.testing.assert_allclose(gradient, numeric, rtol=1e-4, atol=1e-5 + 1e-7 * np.abs(numeric).max())


def test_each_length_scale_has_the_published_prior_and_most_of_it_is_shared():
    _, precision = prior(40, 2)
    covariance = np.linalg.inv(precision)
    np.testing.assert_allclose(np.diag(covariance)[:40], 3.0)
    np.testing.assert_allclose(covariance[:40, :40][~np.eye(40, dtype=bool)], 3.0 - OWN_STD**2)
    np.testing.assert_allclose(covariance[:40, 40:], 0, atol=1e-12)


def test_drawn_slopes_have_the_linear_kernel_whose_domains_agree_by_half():
    root, x = correlated_slopes(np.eye(5)), np.random.default_rng(0).standard_normal((4, 5))
    slopes = root @ root.T
    np.testing.assert_allclose(slopes / slopes[0, 0], 0.5 + 0.5 * np.eye(5))
    np.testing.assert_allclose(x @ slopes @ x.T, linear_kernel(x, x))
    np.testing.assert_allclose(np.diag(linear_kernel(x, x)), linear_variance(x))


def test_fewer_runs_than_domains_tell_what_all_domains_have_in_common():
    w = sample_design(np.ones(40) / 40, 100, seed=0)
    mean = -np.sqrt(w).sum(axis=1)
    y = mean + 0.1 * mean.std() * np.random.default_rng(0).standard_normal(100)
    runs = RunTable(w[:16], tuple(map(str, range(40))), y[:16, None], ("loss",))
    predicted = GaussianProcessMixer().fit(runs).predict(w[16:]).mean[:, 0]
    # With noise of a tenth of the spread, one slope from 16 runs misses 1 / 1600 of the variance.
    assert np.corrcoef(predicted, mean[16:])[0, 1] > 0.95


def _runs(n_runs: int = 40, seed: int = 0) -> RunTable:
    w = sample_design(np.ones(3) / 3, n_runs, seed=seed)
    mean = 3 - np.sqrt(w) @ np.array([[0.5, 0.1], [0.2, 0.4], [0.3, 0.3]])
    noise = 0.02 * np.random.default_rng(seed).standard_normal((n_runs, 2))
    return RunTable(w, NAMES, mean + noise, ("a", "b"))


def test_leaving_one_out_in_closed_form_is_leaving_one_out():
    mixer = GaussianProcessMixer(noise="constant", floor="none").fit(_runs(12))
    process, left_out = mixer._processes[0], mixer.leave_one_out()
    covariance = process.h.covariance(process.x, process.x) + np.diag(process.noise)
    for i in range(12):
        others = np.delete(np.arange(12), i)
        k = covariance[i, others] @ np.linalg.inv(covariance[np.ix_(others, others)])
        mean = k @ process.y[others]
        variance = covariance[i, i] - k @ covariance[others, i]
        assert left_out.mean[i, 0] == pytest.approx(process.mean + process.std * mean, rel=1e-8)
        std = process.std * process.left_out_spread * np.sqrt(variance)
        assert left_out.std[i, 0] == pytest.approx(std, rel=1e-6)


def test_draws_have_the_posteriors_mean_and_spread():
    mixer = GaussianProcessMixer(noise="constant", floor="none").fit(_runs())
    w = np.random.default_rng(1).dirichlet(np.ones(3), 6)
    drawn, predicted = mixer.draw_surfaces(250)(w), mixer.predict(w)
    process = mixer._processes[0]
    noise = process.std * process.spread * np.sqrt(process.noise[0])
    latent = np.sqrt(predicted.std[:, 0] ** 2 - noise**2)
    np.testing.assert_allclose(drawn.mean(axis=0), predicted.mean, atol=1e-8)
    # Five standard errors of a standard deviation from 250 draws, and 1 / sqrt(256) for the frequencies.
    np.testing.assert_allclose(drawn[:, :, 0].std(axis=0) / latent, 1, atol=5 / np.sqrt(500) + 1 / 16)


def test_many_draws_come_in_blocks_that_repeat():
    mixer, w = GaussianProcessMixer(floor="none").fit(_runs()), np.eye(3)
    surfaces = mixer.draw_surfaces(600, seed=4)
    np.testing.assert_array_equal(surfaces(w), surfaces(w))
    np.testing.assert_allclose(surfaces(w).mean(axis=0), mixer.predict(w).mean, atol=1e-8)


def test_noise_that_grows_with_the_loss_is_found():
    w = sample_design(np.ones(3) / 3, 160, seed=0)
    mean = 3 - np.sqrt(w) @ np.array([0.9, 0.1, 0.1])
    std = 0.01 * np.exp(2.3 * (mean - mean.min()) / np.ptp(mean))
    y = mean + std * np.random.default_rng(0).standard_normal(160)
    mixer = GaussianProcessMixer().fit(RunTable(w, NAMES, y[:, None], ("a",)))
    stated = mixer.predict(w).std[:, 0]
    # 160 runs know a variance to 11 %, the two ends of a fitted slope to some 3 times that.
    for part in (std < 0.02, std > 0.05):
        assert 0.65 < np.median(stated[part] / std[part]) < 1.5


def _multiplied(n_runs: int, seed: int = 0) -> RunTable:
    """Losses of 2 and a product of powers of the weights, whose noise grows with what lies above 2."""
    w = sample_design(np.ones(3) / 3, n_runs, seed=seed)
    above = 0.3 * np.exp(np.sqrt(w) @ np.array([-2.0, 1.0, 1.5]))
    noise = np.exp(0.02 * np.random.default_rng(seed).standard_normal(n_runs))
    return RunTable(w, NAMES, (2 + above * noise)[:, None], ("a",))


@pytest.mark.parametrize("log_gap", [-1.0, 0.5, 4.0])
def test_the_floors_gradient_is_that_of_the_value(log_gap):
    x, metric = np.random.default_rng(0).standard_normal((14, 3)), _multiplied(14).metrics[:, 0]
    posterior, theta = FlooredPosterior(x, metric), np.append(prior(3, 0)[0], log_gap)
    _, gradient = posterior(theta)
    step = np.zeros_like(theta)
    for i in range(len(theta)):
        step[i] = 1e-6
        numeric = (posterior(theta + step)[0] - posterior(theta - step)[0]) / 2e-6
        assert gradient[i] == pytest.approx(numeric, rel=1e-4, abs=1e-6)
        step[i] = 0.0


def test_the_density_of_a_warped_metric_is_that_of_its_map():
    metric = _multiplied(14).metrics[:, 0]
    above = metric - metric.min() + np.exp(0.3) * gap_unit(metric)
    at = warped(metric, 0.3)
    np.testing.assert_allclose([at.y.mean(), at.y.std()], [0, 1], atol=1e-12)
    assert at.log_density == pytest.approx(-np.log(above * np.log(above).std()).sum())


def test_the_floor_of_a_product_is_found_and_straight_lines_have_none_near():
    process = GaussianProcessMixer(noise="constant").fit(_multiplied(120)).processes[0]
    assert process.floor.value == pytest.approx(2.0, abs=0.05)
    runs = _runs(120)
    straight = GaussianProcessMixer(noise="constant").fit(runs).processes[0]
    assert runs.metrics[:, 0].min() - straight.floor.value > runs.metrics[:, 0].std()


def test_a_learned_floor_predicts_a_product_from_fewer_runs():
    runs, new = _multiplied(24), _multiplied(300, seed=1)
    errors = [
        np.abs(GaussianProcessMixer(floor=floor).fit(runs).predict(new.weights).mean - new.metrics).mean()
        for floor in ("learned", "none")
    ]
    assert errors[0] < 0.7 * errors[1]


def test_moments_above_a_floor_are_those_of_samples():
    rng = np.random.default_rng(0)
    values = rng.normal(-0.5, 0.3, 200_000)
    runs = 1.5 + np.exp(values + rng.normal(0, 0.2, values.size))
    expected, std = Floor(1.5, top=5.0).moments(np.array([-0.5]), np.array([0.09]), np.array([0.04]))
    assert expected[0] == pytest.approx(1.5 + np.exp(values).mean(), rel=2e-3)
    assert std[0] == pytest.approx(runs.std(), rel=0.01)


def test_the_way_back_is_straight_where_no_run_has_been():
    floor = Floor(2.0, top=0.5)
    metric = np.array([2.1, 3.0, 2.0 + np.exp(0.5)])
    np.testing.assert_allclose(floor.unwarped(floor.warped(metric)), metric)
    np.testing.assert_allclose(np.diff(floor.unwarped(np.array([0.5, 1.5, 2.5]))), np.exp(0.5))


@pytest.mark.parametrize("seed", range(5))
def test_runs_that_diverged_do_not_make_predictions_diverge(seed):
    rng = np.random.default_rng(seed)
    w, diverged = rng.dirichlet(np.ones(4), 20), rng.random(20) < 0.3
    losses = np.where(diverged, 9.0, 3.0) + 0.01 * rng.standard_normal(20)
    mixer = GaussianProcessMixer().fit(RunTable(w, ("a", "b", "c", "d"), losses[:, None], ("loss",)))
    new = rng.dirichlet(np.ones(4), 50)
    predicted, drawn = mixer.predict(new), mixer.draw_surfaces(50)(new)
    assert 0 < predicted.mean.min() < predicted.mean.max() < 40
    assert predicted.std.max() < 40
    assert drawn.max() < 100


def test_draws_above_a_floor_have_the_posteriors_mean_and_stay_above():
    mixer = GaussianProcessMixer(noise="constant").fit(_multiplied(60))
    w = np.random.default_rng(1).dirichlet(np.ones(3), 6)
    drawn, predicted = mixer.draw_surfaces(250)(w), mixer.predict(w)
    np.testing.assert_allclose(drawn.mean(axis=0), predicted.mean, rtol=2e-3)
    assert drawn.min() > mixer.processes[0].floor.value


@pytest.mark.parametrize("n_runs", [16, 32])
def test_intervals_of_few_runs_hold_what_they_promise(n_runs):
    inside = []
    for seed in range(20):
        w = np.random.default_rng(seed).dirichlet(np.ones(8), n_runs + 60)
        slopes = np.random.default_rng(100 + seed).standard_normal(8)
        mean = np.sqrt(w) @ slopes + np.sin(6 * w[:, 0])
        y = mean + 0.1 * np.random.default_rng(200 + seed).standard_normal(len(w))
        runs = RunTable(w[:n_runs], tuple("abcdefgh"), y[:n_runs, None], ("loss",))
        predicted = GaussianProcessMixer().fit(runs).predict(w[n_runs:])
        inside.append(np.abs(y[n_runs:] - predicted.mean[:, 0]) < predicted.std[:, 0])
    assert 0.6 < np.mean(inside) < 0.85


def test_a_domain_that_never_varies_changes_nothing():
    runs = _runs()
    padded = np.column_stack([runs.weights, np.zeros(runs.n_runs)])
    wide = RunTable(padded, (*NAMES, "absent"), runs.metrics, runs.metric_names)
    new = np.random.default_rng(1).dirichlet(np.ones(3), 5)
    straight = GaussianProcessMixer().fit(runs).predict(new).mean
    again = GaussianProcessMixer().fit(wide).predict(np.column_stack([new, np.zeros(5)])).mean
    # The prior of the length-scales knows K, so the two fits agree to less than the noise of .02.
    np.testing.assert_allclose(again, straight, atol=0.01)


def test_hyperparameters_unpack_as_they_were_packed():
    theta = np.arange(8.0)
    np.testing.assert_allclose(Hyperparameters.unpack(theta, 3).pack(), theta)


def test_an_unknown_transform_is_refused():
    with pytest.raises(ValueError, match=r"transform is 'cube'; it is 'sqrt' or 'log'"):
        GaussianProcessMixer("cube")

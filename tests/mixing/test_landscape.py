"""What a mixer believes around a mixture, against surfaces whose answers are worked by hand."""

import json
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cuvee.mixing import landscape
from cuvee.mixing.landscape import MAX_DOMAINS, N_DRAWS, STEP, Landscape, slice_weights, survey
from cuvee.mixing.mixer import Fidelity, Prediction, Surfaces
from cuvee.mixing.objective import Objective
from cuvee.mixing.proposals import Proposing
from cuvee.mixing.table import RunTable
from cuvee.mixing.trend_residual import TrendResidualMixer

Floats = NDArray[np.float64]
MEAN = Objective("mean")


class KnownMixer(Proposing):
    """Knows its surface, but for one constant that all mixtures share, and for the first domain's slope."""

    is_smooth = False

    def __init__(self, surface: Callable[[Floats], Floats], n_domains: int, slope_std: float = 0.0) -> None:
        self.surface, self.slope_std = surface, slope_std
        weights = np.random.default_rng(0).dirichlet(np.ones(n_domains), 12)
        metrics = surface(weights)
        names = tuple(f"d{k}" for k in range(n_domains))
        self._table = RunTable(weights, names, metrics, tuple(f"m{j}" for j in range(metrics.shape[1])))

    @property
    def runs(self) -> RunTable:
        return self._table

    def fit(self, runs: RunTable) -> "KnownMixer":
        return self

    def predict(self, weights: Floats, fidelity: Fidelity | None = None) -> Prediction:
        mean = self.surface(np.atleast_2d(weights))
        return Prediction(mean, np.ones_like(mean))

    def leave_one_out(self) -> Prediction:
        return Prediction(self.runs.metrics + 0.1, np.full_like(self.runs.metrics, 0.5))

    def draw_surfaces(self, n_draws: int, seed: int = 0) -> Surfaces:
        random = np.random.default_rng(seed)
        constants, slopes = random.normal(0, 9, (n_draws, 1, 1)), random.normal(size=(n_draws, 1, 1))
        slopes = self.slope_std * (slopes - slopes.mean()) / slopes.std()
        return lambda w: self.surface(w)[None] + constants + slopes * w[None, :, :1]


def product(weights: Floats) -> Floats:
    return 3 + (weights[:, 0] * weights[:, 1])[:, None]


def linear(weights: Floats) -> Floats:
    return 3 + weights @ np.arange(2.0 * weights.shape[1]).reshape(weights.shape[1], 2) / 10


CENTRE = np.array([0.5, 0.3, 0.2])


def test_a_slice_is_the_surface_less_its_value_at_the_centre() -> None:
    caps = np.array([0.8, 0.9, 0.9])
    found = survey(KnownMixer(product, 3), MEAN, CENTRE, CENTRE, caps).slices[0]
    w = np.array(found.weights)
    assert (w.min(), w.max()) == (0.0, 0.8)
    expected = w * (1 - w) * 0.6 - 0.15  # the second domain has 3/5 of what the first leaves
    np.testing.assert_allclose(found.change.mean, expected, atol=2e-9)


def test_what_all_mixtures_share_widens_no_slice_and_a_slopes_doubt_grows_from_the_centre() -> None:
    found = survey(KnownMixer(product, 3, slope_std=2.0), MEAN, CENTRE, CENTRE).slices[0]
    w, width = np.array(found.weights), np.subtract(found.change.high, found.change.low)
    assert width[np.argmin(np.abs(w - 0.5))] == 0
    unit = width[-1] / 0.5
    np.testing.assert_allclose(width, unit * np.abs(w - 0.5), atol=1e-8)
    # A quantile q of n normals has the standard error sqrt(q (1 - q) / n) / density(q).
    error = 2.0 * np.sqrt(2 * 0.05 * 0.95 / N_DRAWS) / 0.1031
    assert unit == pytest.approx(2 * 1.6449 * 2.0, abs=5 * error)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_slices_are_mixtures_below_the_caps_that_keep_ratios_where_caps_let_them(data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 6))
    numbers = st.floats(0.01, 1.0)
    centre = np.array(data.draw(st.lists(numbers, min_size=n, max_size=n)))
    centre /= centre.sum()
    upper = np.minimum(1, centre + np.array(data.draw(st.lists(numbers, min_size=n, max_size=n))))
    k = data.draw(st.integers(0, n - 1))
    weights = slice_weights(centre, k, upper)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-12)
    assert np.all(weights <= upper + 1e-9)
    assert np.all(np.diff(weights[:, k]) > 0)
    np.testing.assert_allclose(weights[np.argmin(np.abs(weights[:, k] - centre[k]))], centre, atol=1e-12)
    free = (weights < upper - 1e-9) & (np.arange(n) != k)
    for row, is_free in zip(weights, free, strict=True):
        ratios = row[is_free] / centre[is_free]
        np.testing.assert_allclose(ratios, ratios[:1].repeat(len(ratios)), rtol=1e-6, atol=1e-9)


def test_a_slice_from_a_mixture_of_one_domain_gives_the_rest_to_the_others() -> None:
    weights = slice_weights(np.array([1.0, 0.0, 0.0]), 0, np.array([1.0, 0.6, 0.6]), 3)
    np.testing.assert_allclose(weights, [[0, 0.5, 0.5], [0.5, 0.25, 0.25], [1, 0, 0]])


def test_the_interaction_of_a_product_is_the_one_worked_by_hand() -> None:
    found = survey(KnownMixer(product, 3, slope_std=2.0), MEAN, CENTRE, CENTRE).interactions
    assert found is not None
    # Steps h (1 - w0, -w1, -w2) and h (-w0, 1 - w1, -w2); of w0 w1, h**2 ((1 - w0) (1 - w1) + w0 w1) is left.
    by_pair = dict(zip(zip(*np.triu_indices(3), strict=True), found.pairs.mean, strict=True))
    assert by_pair[0, 1] == pytest.approx(STEP**2 * (0.5 * 0.7 + 0.5 * 0.3), abs=1e-9)
    assert by_pair[0, 0] == pytest.approx(STEP**2 * 2 * 0.5 * -0.3, abs=1e-9)
    np.testing.assert_allclose(found.pairs.high, found.pairs.low, atol=2e-9)  # slopes are no interaction


def test_linear_surfaces_have_no_interactions() -> None:
    found = survey(KnownMixer(linear, 4), MEAN, np.full(4, 0.25), np.full(4, 0.25)).interactions
    assert found is not None
    np.testing.assert_allclose(found.pairs.mean, 0, atol=1e-9)


def test_the_front_is_of_the_two_metrics_that_pull_apart_the_most() -> None:
    slopes = np.array([1.0, -1.0, 2.0, -1e-3])  # m3 pulls apart from m0 as perfectly, over nothing

    def surface(weights: Floats) -> Floats:
        return 3 + weights[:, :1] * slopes

    front = survey(KnownMixer(surface, 3), MEAN, CENTRE, CENTRE).front
    assert front is not None
    assert front.metrics == ("m1", "m2")
    assert front.correlation == pytest.approx(-1)
    np.testing.assert_allclose(front.probability, 1)  # all mixtures are on it, in every draw
    mean, weights = np.array(front.mean), np.array(front.weights)
    np.testing.assert_allclose(mean[:, 1] - mean[:, 0], 3 * weights[:, 0], atol=1e-8)
    assert front.others["recommended"] == front.others["natural"]


def test_left_out_objectives_have_the_intervals_of_their_errors() -> None:
    mixer = KnownMixer(product, 3)
    found = survey(mixer, MEAN, CENTRE, CENTRE).left_out
    predicted = mixer.leave_one_out().mean[:, 0]
    error = 0.5 * np.sqrt(0.05 * 0.95 / N_DRAWS) / 0.1031
    np.testing.assert_allclose(found.low, predicted - 1.6449 * 0.5, atol=5 * error)
    np.testing.assert_allclose(found.high, predicted + 1.6449 * 0.5, atol=5 * error)


def test_a_landscape_is_the_same_each_time_and_after_a_way_through_json() -> None:
    random = np.random.default_rng(1)
    weights = random.dirichlet(np.ones(3), 10)
    losses = 3 + np.sqrt(weights) @ random.normal(size=(3, 2)) + 0.01 * random.normal(size=(10, 2))
    mixer = TrendResidualMixer().fit(RunTable(weights, ("a", "b", "c"), losses, ("a", "b")))
    first, again = (survey(mixer, MEAN, CENTRE, CENTRE, seed=3) for _ in range(2))
    assert first == again
    assert Landscape.from_dict(json.loads(json.dumps(first.to_dict()))) == first


def test_what_cannot_be_shown_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    found = survey(KnownMixer(product, 2), MEAN, CENTRE[:2] / 0.8, CENTRE[:2] / 0.8)
    assert found.interactions is None
    assert found.front is None
    assert found.notes == ("There is no front of two metrics: the runs have one metric, m0.",)
    monkeypatch.setattr(landscape, "N_RANDOM", 3)
    tight = survey(KnownMixer(linear, 3), MEAN, CENTRE, CENTRE, CENTRE + 1e-4)
    assert tight.front is None
    assert "the caps leave no room for a second mixture" in tight.notes[0]


def test_of_many_domains_those_with_the_largest_weights_are_shown_in_their_order() -> None:
    n_domains = MAX_DOMAINS + 6
    weights = np.random.default_rng(2).permutation(np.arange(1.0, n_domains + 1))
    found = survey(KnownMixer(linear, n_domains), MEAN, weights / weights.sum(), weights / weights.sum())
    expected = tuple(f"d{k}" for k in range(n_domains) if weights[k] > 6)
    assert tuple(s.domain for s in found.slices) == expected
    assert found.interactions is not None
    assert found.interactions.domains == expected

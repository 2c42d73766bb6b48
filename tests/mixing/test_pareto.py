"""The Pareto set: against all pairs, on a front that is known, and with its uncertainty."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.mixing import Objective, RunTable, load_mixer
from cuvee.mixing.design import caps, kl_divergence, sample_design
from cuvee.mixing.pareto import nondominated, nondominated_share, pareto_set

DOMAINS = ("books", "code", "web")
NATURAL = np.array([0.2, 0.2, 0.6])
TARGETS = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3]])
OBJECTIVES = {"prose": Objective("weighted", {"a": 1.0}), "programs": Objective("weighted", {"b": 1.0})}


def _mixer(noise: float):
    """Two losses, each least at a mixture of its own: the front lies between them."""
    w = sample_design(NATURAL, 40, seed=0)
    losses = 3 + np.stack([((np.sqrt(w) - np.sqrt(t)) ** 2).sum(axis=1) for t in TARGETS], axis=1)
    losses += noise * np.random.default_rng(0).standard_normal(losses.shape)
    return load_mixer("gaussian_process").fit(RunTable(w, DOMAINS, losses, ("a", "b")))


def _brute_force(values) -> list[bool]:
    def beats(a, b):
        return all(x <= y for x, y in zip(a, b, strict=True)) and any(
            x < y for x, y in zip(a, b, strict=True)
        )

    return [not any(beats(other, row) for other in values) for row in values]


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), min_size=1, max_size=12))
@settings(max_examples=50)
def test_nondominated_rows_are_those_of_all_pairs(rows):
    values = np.array(rows, dtype=float)
    assert nondominated(values).tolist() == _brute_force(rows)
    assert nondominated_share(values[None]).tolist() == [float(kept) for kept in _brute_force(rows)]


def test_shares_are_means_over_draws():
    draws = np.random.default_rng(0).standard_normal((70, 5, 2))
    expected = np.mean([nondominated(draw) for draw in draws], axis=0)
    np.testing.assert_allclose(nondominated_share(draws), expected)


def test_the_front_lies_between_the_objectives_optima():
    found = pareto_set(_mixer(0.0), OBJECTIVES, NATURAL, trust_region=3.0)
    assert found.objective_names == ("prose", "programs")
    assert np.all(np.diff(found.mean[:, 0]) >= 0)
    assert np.all(np.diff(found.mean[:, 1]) <= 0)
    # Between sqrt(t_a) and sqrt(t_b) the true front is the arc of the sphere through both.
    roots = np.sqrt(TARGETS)
    normal = np.cross(*roots) / np.linalg.norm(np.cross(*roots))
    off = np.abs(np.sqrt(found.weights) @ normal)
    assert np.median(off) < 0.02
    assert np.abs(found.weights[0] - TARGETS[0]).max() < 0.05
    assert np.abs(found.weights[-1] - TARGETS[1]).max() < 0.05
    assert found.natural_probability < 0.05


def test_noise_makes_the_front_less_sure():
    sure, unsure = (pareto_set(_mixer(noise), OBJECTIVES, NATURAL, trust_region=3.0) for noise in (0.0, 0.1))
    assert np.all((sure.probability >= 0) & (sure.probability <= 1))
    assert unsure.std.mean() > 3 * sure.std.mean()
    assert unsure.probability.mean() < sure.probability.mean()


def test_every_mixture_of_the_front_obeys_caps_and_trust_region():
    upper = caps([3.0, 3.0, 10.0], budget=10.0, max_epochs=1.0)
    found = pareto_set(_mixer(0.01), OBJECTIVES, NATURAL, upper, trust_region=0.05)
    assert (found.weights <= upper + 1e-9).all()
    assert all(kl_divergence(w, NATURAL) <= 0.05 + 1e-9 for w in found.weights)


def test_one_objective_has_no_front():
    with pytest.raises(ValueError, match="found 1 objectives; a front needs two"):
        pareto_set(_mixer(0.01), {"mean": Objective()}, NATURAL)


@pytest.mark.parametrize("caps", [None, [0.501, 0.501]])
def test_two_domains_and_tight_caps_have_a_front_whose_mixtures_are_listed_once(caps):
    w = np.random.default_rng(0).dirichlet(np.ones(2), 24)
    runs = RunTable(w, ("web", "code"), 3 - np.sqrt(w), ("web", "code"))
    objectives = {name: Objective("weighted", {name: 1.0}) for name in runs.metric_names}
    front = pareto_set(load_mixer("linear").fit(runs), objectives, [0.5, 0.5], caps)
    assert len(np.unique(front.weights.round(4), axis=0)) == len(front.weights)
    assert np.all(front.weights <= np.array(caps or [1.0, 1.0]) + 1e-9)

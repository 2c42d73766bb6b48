"""The optimum of a known surface: found, inside its bounds."""

import numpy as np
import pytest

from cuvee.mixing.design import kl_divergence
from cuvee.mixing.exact import exact_optimum
from cuvee.mixing.objective import Objective

TARGETS = np.array([[0.6, 0.3, 0.1], [0.1, 0.2, 0.7]])
NATURAL = np.array([0.2, 0.5, 0.3])


def _cross_entropies(w: np.ndarray) -> np.ndarray:
    """-sum_k t_k log w_k of two targets: each is least at its target, their mean at the targets' mean."""
    return -np.log(np.maximum(w, 1e-12)) @ TARGETS.T


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (Objective("mean"), TARGETS.mean(axis=0)),
        (Objective("weighted", {"a": 1.0}), TARGETS[0]),
        (Objective("expression", expression="a + 3 * b"), 0.25 * TARGETS[0] + 0.75 * TARGETS[1]),
    ],
)
def test_the_least_mixture_of_cross_entropies_is_their_target(objective, expected):
    found = exact_optimum(_cross_entropies, ("a", "b"), NATURAL, objective, trust_region=5.0)
    # Finite differences of 1e-4 leave the flat optimum within about a percent.
    np.testing.assert_allclose(found.weights, expected, atol=0.01)
    assert found.gain == pytest.approx(found.objective["natural"] - found.objective["optimum"])
    np.testing.assert_allclose(found.metrics["optimum"], _cross_entropies(found.weights[None])[0])


def test_caps_and_trust_region_hold():
    upper = np.array([0.3, 1.0, 1.0])
    found = exact_optimum(
        _cross_entropies, ("a", "b"), NATURAL, Objective("weighted", {"a": 1.0}), upper, trust_region=0.02
    )
    assert (found.weights <= upper + 1e-9).all()
    assert kl_divergence(found.weights, NATURAL) <= 0.02 + 1e-9
    assert found.gain > 0


def test_a_natural_mixture_that_is_best_already_stays():
    found = exact_optimum(_cross_entropies, ("a", "b"), TARGETS[0], Objective("weighted", {"a": 1.0}))
    assert found.gain == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(found.weights, TARGETS[0], atol=0.01)

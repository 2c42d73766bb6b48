"""A step of mirror descent against numpy's, along whole runs of reports."""

import numpy as np
import pytest

from cuvee.kernels.mirror_descent import (
    Evidence,
    Step,
    mirror_descent,
    mirror_descent_reference,
)


def new_evidence(n: int) -> Evidence:
    return Evidence(np.zeros((2, n)), np.zeros((2, n)), np.zeros(n), np.zeros(n), np.zeros(n))


@pytest.mark.parametrize("by_slope", [True, False])
@pytest.mark.parametrize("n_domains", [1, 2, 7, 64])
def test_reports_move_weights_as_numpy_moves_them(n_domains: int, by_slope: bool) -> None:
    rng = np.random.default_rng(n_domains)
    prior = rng.dirichlet(np.ones(n_domains)) * 0.9 + 0.1 / n_domains
    step = Step(
        np.array([0.08, 0.02]), prior, np.log(prior), rng.uniform(0, 1, n_domains), 0.1, 0.03, by_slope
    )
    ours, theirs = new_evidence(n_domains), new_evidence(n_domains)
    weights, expected = prior, prior
    alpha = rng.uniform(0, 0.4, n_domains)
    for report in range(200):
        is_there = rng.random(n_domains) < (1.0 if report % 3 else 0.7)
        if not is_there.any():
            continue
        losses = np.where(is_there, 3 * (1 + report) ** -alpha + 0.05 * rng.normal(size=n_domains), np.nan)
        n_tokens = np.where(is_there, rng.integers(1, 10**6, n_domains), 0).astype(np.float64)
        given, is_warm = (losses, n_tokens, is_there), report >= 5
        found = mirror_descent(*given, ours, weights, step, is_warm=is_warm)
        wanted = mirror_descent_reference(*given, theirs, expected, step, is_warm=is_warm)
        # 200 reports of sums of 64 terms, each off by at most 64 roundings of 1.1e-16.
        np.testing.assert_allclose(found, wanted, rtol=0, atol=200 * 64 * 1.2e-16)
        weights, expected = np.exp(found), np.exp(wanted)
        for name in Evidence._fields:
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    assert (abs(np.log(weights / prior)) > 0.01).any() or n_domains == 1


def test_domains_with_equal_levels_stay_where_they_are() -> None:
    prior = np.array([0.7, 0.2, 0.1])
    step = Step(np.array([0.08, 0.02]), prior, np.log(prior), np.zeros(3), 0.1, 0.0, False)
    everywhere = np.ones(3, bool)
    for move in (mirror_descent, mirror_descent_reference):
        found = move(np.ones(3), np.ones(3), everywhere, new_evidence(3), prior, step)
        np.testing.assert_allclose(np.exp(found), prior, atol=1e-15)

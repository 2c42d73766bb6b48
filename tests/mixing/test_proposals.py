"""Proposals: inside the region, apart from what is pending, near the optimum, repeatable."""

import sys

import numpy as np
import pytest

from cuvee.mixing import Fidelity, MultiFidelityMixer, Objective, RunTable, load_mixer
from cuvee.mixing.design import MIN_DISTANCE, kl_divergence, sample_design
from cuvee.mixing.proposals import expected_improvement, propose
from cuvee.mixing.region import Region

DOMAINS = ("books", "code", "web", "wiki")
NATURAL = np.array([0.1, 0.1, 0.7, 0.1])
CAPS = np.array([0.3, 0.35, 1.0, 0.4])
IMPORTANCE = np.array([0.1, 0.6, 0.3, 0.5])
REGION = Region.around(NATURAL, CAPS, 0.8)


def _runs(n: int = 30, seed: int = 0) -> RunTable:
    w = sample_design(NATURAL, n, seed=seed)
    mean = 3 - np.sqrt(w) @ IMPORTANCE
    losses = mean[:, None] + 0.005 * np.random.default_rng(seed).standard_normal((n, 2))
    return RunTable(w, DOMAINS, losses, ("a", "b"))


@pytest.fixture(scope="module")
def process():
    return load_mixer("gaussian_process").fit(_runs())


@pytest.fixture(scope="module", params=["noisy_ei", "mean", "thompson", "botorch"])
def acquisition(request):
    if request.param == "botorch":
        pytest.importorskip("botorch", reason="botorch is not installed (cuvee[search])")
    return request.param


def test_proposals_obey_the_region_and_keep_apart_from_pending_ones(process, acquisition):
    pending = np.array([[0.1, 0.35, 0.2, 0.35], [0.05, 0.3, 0.3, 0.35]])
    found = process.propose(
        3, pending, natural=NATURAL, caps=CAPS, trust_region=0.8, acquisition=acquisition, seed=1
    )
    assert found.shape == (3, 4)
    for w in found:
        assert abs(w.sum() - 1) <= 1e-9
        assert (w <= CAPS + 1e-9).all()
        assert kl_divergence(w, NATURAL) <= 0.8 + 1e-9
    together = np.vstack([pending, found])
    distances = np.linalg.norm(together[:, None] - together[None], axis=2) + np.eye(5)
    assert distances.min() >= MIN_DISTANCE


def test_a_batch_is_what_single_proposals_with_pending_ones_are(process):
    batch = propose(process, 3, REGION, seed=5)
    single: list[np.ndarray] = []
    for _ in range(3):
        single.append(propose(process, 1, REGION, pending=np.array(single), seed=5)[0])
    np.testing.assert_array_equal(batch, np.array(single))


def test_proposals_are_better_than_the_natural_mixture(process, acquisition):
    found = propose(process, 3, REGION, acquisition=acquisition, seed=2)
    gains = np.sqrt(found) @ IMPORTANCE - np.sqrt(NATURAL) @ IMPORTANCE
    best = np.sqrt(REGION.pull(IMPORTANCE**2)) @ IMPORTANCE - np.sqrt(NATURAL) @ IMPORTANCE
    assert gains.min() > 0.5 * best


@pytest.mark.parametrize("name", ["power_law", "trend_residual", "linear"])
def test_every_mixer_proposes(name):
    mixer = load_mixer(name).fit(_runs())
    found = mixer.propose(2, natural=NATURAL, caps=CAPS, trust_region=0.8)
    assert (found <= CAPS + 1e-9).all()
    assert not np.array_equal(found[0], found[1])


def test_many_mixtures_are_pulled_as_each_one_is():
    w = np.random.default_rng(0).dirichlet(np.full(4, 0.3), 40)
    np.testing.assert_allclose(REGION.pull_all(w), [REGION.pull(row) for row in w], atol=1e-12)


def test_what_is_beaten_by_itself_improves_on_nothing(process):
    w = sample_design(NATURAL, 5, seed=3)
    gains = expected_improvement(process, Objective(), w, w, seed=0)
    np.testing.assert_allclose(gains, 0, atol=1e-12)  # BLAS may round equal rows of a product apart


def test_botorch_models_have_our_posterior(process):
    pytest.importorskip("botorch", reason="botorch is not installed (cuvee[search])")
    import torch

    from cuvee.mixing.botorch_models import at_target, to_botorch, unwarped

    runs = _runs(20)
    n_tokens = np.repeat([100, 300], [14, 6])
    several = RunTable(runs.weights, DOMAINS, runs.metrics, ("a", "b"), n_tokens=n_tokens)
    multi = MultiFidelityMixer(target=Fidelity(0, 300)).fit(several)
    w = np.random.default_rng(1).dirichlet(np.ones(4), 6)
    for mixer in (process, multi):
        posterior = to_botorch(mixer).posterior(at_target(mixer, torch.from_numpy(w)))
        columns = zip(mixer.processes, posterior.mean.numpy().T, posterior.variance.numpy().T, strict=True)
        moments = [p.floor.moments(mean, variance, np.zeros(6)) for p, mean, variance in columns]
        mean, std = (np.stack(column, axis=1) for column in zip(*moments, strict=True))
        np.testing.assert_allclose(mean, mixer.predict(w).mean, atol=2e-5)
        # 400 draws know a standard deviation to 3.5 %, their frequencies to 6 % and 5 % too low.
        np.testing.assert_allclose(mixer.draw_surfaces(400)(w).std(axis=0) / std, 0.95, atol=0.3)
        sampled = unwarped(mixer, posterior.rsample(torch.Size([4000]))).detach().numpy()
        np.testing.assert_allclose(sampled.mean(axis=0), mean, atol=5 * std.max() / np.sqrt(4000))


def test_botorch_is_asked_for_by_name_where_it_is_missing(process, monkeypatch):
    monkeypatch.setitem(sys.modules, "botorch.acquisition.logei", None)
    monkeypatch.delitem(sys.modules, "cuvee.mixing.botorch_models", raising=False)
    with pytest.raises(ValueError, match=r"need botorch: pip install 'cuvee\[search\]'"):
        propose(process, 1, REGION, acquisition="botorch")


def test_a_mixer_that_botorch_cannot_hold_is_refused():
    pytest.importorskip("botorch", reason="botorch is not installed (cuvee[search])")
    with pytest.raises(ValueError, match="needs a Gaussian process without a trend, found PowerLawMixer"):
        propose(load_mixer("power_law").fit(_runs()), 1, REGION, acquisition="botorch")


def test_an_unknown_acquisition_is_refused(process):
    with pytest.raises(ValueError, match="unknown acquisition 'ucb'; it is one of noisy_ei, mean, thompson"):
        propose(process, 1, REGION, acquisition="ucb")

"""From a small scale to a larger one: means of metrics rank again, and a ranking that breaks is told."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from cuvee.mixing import Objective, RunTable, TransferredMixer, check_transfer, load_mixer, recommend
from cuvee.mixing.design import sample_design

DOMAINS, NAMES = ("code", "web", "wiki"), ("code", "wiki")
NATURAL = np.array([0.2, 0.6, 0.2])
WORTH = np.array([[0.8, 0.1], [0.2, 0.3], [0.1, 0.7]])
SHRINK = np.array([0.05, 0.6])  # of each metric's spread from small to large


def _table(n: int, seed: int, scale: np.ndarray, noise: float = 0.003, n_parameters: int = 1) -> RunTable:
    w = sample_design(NATURAL, n, seed=seed)
    rng = np.random.default_rng(seed + 100)
    losses = 3 - scale * (np.sqrt(w) @ WORTH) + noise * rng.standard_normal((n, 2))
    return RunTable(w, DOMAINS, losses, NAMES, n_parameters=np.full(n, n_parameters))


@pytest.fixture(scope="module")
def source():
    return load_mixer("gaussian_process").fit(_table(80, 0, np.ones(2)))


def test_eight_runs_restore_the_ranking_of_the_mean(source):
    mixer = TransferredMixer(source).fit(_table(8, 1, SHRINK, n_parameters=60))
    new = _table(100, 2, SHRINK, noise=0.0)
    plain, calibrated = (
        spearmanr(m.predict(new.weights).mean.mean(axis=1), new.metrics.mean(axis=1)).statistic
        for m in (source, mixer)
    )
    assert plain < 0.8
    assert calibrated > 0.97


def test_predictions_are_on_the_targets_scale_with_their_errors(source):
    mixer = TransferredMixer(source).fit(_table(8, 1, SHRINK, n_parameters=60))
    new = _table(200, 3, SHRINK)
    predicted = mixer.predict(new.weights)
    assert np.mean(np.abs(new.metrics - predicted.mean) <= 2 * predicted.std) > 0.85
    assert np.sqrt(np.mean((new.metrics - predicted.mean) ** 2)) < 0.015


def test_a_ranking_that_holds_is_told_and_recommended(source):
    mixer = TransferredMixer(source).fit(_table(12, 1, SHRINK, n_parameters=60))
    report = check_transfer(mixer)
    assert report.transfers
    assert report.lower_bound >= 0.3
    found = recommend(mixer, NATURAL, Objective("mean"), trust_region=0.5)
    assert found.verdict == "supported"
    assert found.weights["wiki"] > 0.3


def test_a_ranking_that_does_not_transfer_is_told_with_its_evidence(source):
    n_refused = 0
    for seed in range(20):
        target = _table(12, seed, SHRINK)
        noise = np.random.default_rng(seed).standard_normal((12, 2))
        mixer = TransferredMixer(source).fit(RunTable(target.weights, DOMAINS, 3 + noise, NAMES))
        report = check_transfer(mixer)
        n_refused += not report.transfers
        if not report.transfers:
            assert report.sentence.startswith("This proxy ranking does not transfer to the target: rank corr")
    # The 90 % bound passes .3 in at most a tenth of worlds of no correlation: 2 of 20, give or take 1.3.
    assert n_refused >= 15


def test_metrics_that_the_source_lacks_are_refused(source):
    target = _table(8, 1, SHRINK)
    other = RunTable(target.weights, DOMAINS, target.metrics, ("code", "maths"))
    with pytest.raises(ValueError, match=r"the metrics code, maths; the source has"):
        TransferredMixer(source).fit(other)


def test_three_runs_at_the_target_are_too_few(source):
    with pytest.raises(ValueError, match="found 3 runs; a mixer needs 4"):
        TransferredMixer(source).fit(_table(3, 1, SHRINK))

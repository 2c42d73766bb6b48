import json
import math

import numpy as np
import pytest
import torch

from cuvee.streaming.noise_scale import NoiseScale


def squared_norms(rng: np.random.Generator, n_small: int, n_large: int, scale: float) -> tuple[float, float]:
    """|g_b|**2 as a mean over parts, and |g_B|**2, of rows with |G|**2 = 1 and tr(S) = scale."""
    d = 50
    mean = np.full(d, 1 / np.sqrt(d))
    rows = mean + rng.normal(size=(n_large, d)) * np.sqrt(scale / d)
    parts = rows.reshape(-1, n_small, d).mean(axis=1)
    return float((parts**2).sum(axis=1).mean()), float((rows.mean(axis=0) ** 2).sum())


@pytest.mark.parametrize("scale", [3.0, 60.0])
def test_the_estimate_finds_the_noise_scale_of_known_gradients(scale: float) -> None:
    """Over n observations the signal's error is near 2 sqrt(scale / B) / sqrt(n), the noise's smaller."""
    rng, noise = np.random.default_rng(0), NoiseScale(half_life=1e6)
    for _ in range(2000):
        small, large = squared_norms(rng, 4, 32, scale)
        noise.observe(small, 4, large, 32)
    assert noise.n_observations == 2000
    tolerance = 5 * (2 * math.sqrt(scale / 32) + scale / 32) / math.sqrt(2000)
    assert noise.scale == pytest.approx(scale, rel=tolerance + 0.02)
    assert noise.signal == pytest.approx(1, rel=tolerance)
    assert noise.noise == pytest.approx(scale, rel=0.05)


def test_the_first_observations_are_not_biased_towards_zero() -> None:
    noise = NoiseScale(half_life=1000)
    noise.observe(1 + 8 / 2, 2, 1 + 8 / 16, 16)
    assert (noise.signal, noise.noise) == (pytest.approx(1), pytest.approx(8))


def test_it_follows_a_scale_that_grows() -> None:
    noise = NoiseScale(half_life=10)
    for scale in (8.0, 80.0):
        for _ in range(200):
            noise.observe(1 + scale / 4, 4, 1 + scale / 32, 32)
        assert noise.scale == pytest.approx(scale, rel=1e-3)


def test_a_gradient_without_signal_asks_for_the_largest_batch() -> None:
    noise = NoiseScale()
    noise.observe(8.0, 4, 1.0, 32)
    assert noise.scale == math.inf
    assert noise.next_batch(32, 8, 1024) == 64


@pytest.mark.parametrize(
    ("scale", "now", "expected"),
    [(100.0, 64, 96), (1000.0, 64, 128), (2.0, 64, 32), (2.0, 16, 16), (9e9, 400, 496)],
)
def test_batches_go_towards_the_scale_in_multiples_and_bounds(scale: float, now: int, expected: int) -> None:
    noise = NoiseScale()
    noise.observe(1 + scale / 4, 4, 1 + scale / 32, 32)
    assert noise.next_batch(now, least=10, most=511, multiple=16) == expected


def test_what_is_not_finite_is_left_out_and_the_state_goes_on() -> None:
    noise = NoiseScale()
    assert math.isnan(noise.scale)
    assert noise.next_batch(32, 8, 64) == 32
    noise.observe(3.0, 4, 1.5, 32)
    noise.observe(math.nan, 4, 1.5, 32)
    noise.observe(3.0, 4, math.inf, 32)
    assert (noise.n_observations, noise.n_ignored) == (1, 2)
    resumed = NoiseScale()
    resumed.load_state_dict(json.loads(json.dumps(noise.state_dict())))
    for each in (noise, resumed):
        each.observe(5.0, 4, 2.0, 32)
    assert noise.scale == resumed.scale


def test_norms_may_be_tensors() -> None:
    noise, plain = NoiseScale(), NoiseScale()
    noise.observe(torch.tensor(3.0), 4, torch.tensor(1.5), torch.tensor(32))
    plain.observe(3.0, 4, 1.5, 32)
    assert json.loads(json.dumps(noise.state_dict())) == plain.state_dict()


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(ValueError, match="n_small is 8 and n_large 8"):
        NoiseScale().observe(1, 8, 1, 8)
    with pytest.raises(ValueError, match="half_life is 0"):
        NoiseScale(0)
    with pytest.raises(ValueError, match="no multiple of 64 lies between least 65 and most 100"):
        NoiseScale().next_batch(64, 65, 100, 64)

"""Training is deterministic, failures stay with the model that failed, and bad input is told."""

import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from cuvee.proxy_models import training
from cuvee.proxy_models.training import Batch, TrainingConfig, train
from cuvee.proxy_models.transformer import ModelShape

SHAPE = ModelShape(vocab_size=32, sequence_length=16, n_layers=1, d_model=16, n_heads=2, d_ff=16)
CONFIG = TrainingConfig(
    n_tokens=64 * 40, batch_tokens=64, eval_every=64 * 20, learning_rate=1e-2, device="cpu"
)


def counting_batches(seed: int, stride: int = 1) -> Iterator[Batch]:
    """Rows that count in steps of `stride` from a random start: easy to learn."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        start = torch.randint(0, 32, (4, 1), generator=generator)
        rows = (start + stride * torch.arange(17)) % 32
        yield rows[:, :-1], rows[:, 1:]


def validation() -> dict[str, Batch]:
    return {"ones": next(counting_batches(9)), "threes": next(counting_batches(9, stride=3))}


def losses_in_hex() -> str:
    curves = train(SHAPE, [counting_batches(0), counting_batches(1)], validation(), CONFIG)
    return " ".join(value.hex() for curve in curves for value in curve.losses.ravel().tolist())


def test_the_same_run_gives_the_same_bits_in_a_fresh_process():
    script = f"import runpy; print(runpy.run_path({__file__!r})['losses_in_hex']())"
    fresh = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert fresh.stdout.strip() == losses_in_hex()


def test_losses_fall_on_the_domain_that_was_trained_on():
    ones, threes = train(SHAPE, [counting_batches(0), counting_batches(0, stride=3)], validation(), CONFIG)
    assert ones.n_tokens.tolist() == [64 * 20, 64 * 40]
    assert ones.losses[-1, 0] < ones.losses[0, 0] < np.log(32)
    assert ones.losses[-1, 0] < ones.losses[-1, 1]
    assert threes.losses[-1, 1] < threes.losses[-1, 0]


def test_the_number_of_threads_is_restored():
    before = torch.get_num_threads()
    config = TrainingConfig(n_tokens=64, batch_tokens=64, n_threads=before + 1, device="cpu")
    train(SHAPE, [counting_batches(0)], validation(), config)
    assert torch.get_num_threads() == before


def test_a_model_that_fails_says_when_and_leaves_the_others_alone(monkeypatch):
    step = 0

    class Poisoned(training.GroupedTransformer):
        def losses(self, input_ids, labels):
            nonlocal step
            step += self.training and torch.is_grad_enabled()
            losses = super().losses(input_ids, labels)
            return losses * torch.tensor([1.0, float("nan")]) if step == 25 else losses

    healthy = train(SHAPE, [counting_batches(0), counting_batches(1)], validation(), CONFIG)[0]
    monkeypatch.setattr(training, "GroupedTransformer", Poisoned)
    first, second = train(SHAPE, [counting_batches(0), counting_batches(1)], validation(), CONFIG)
    assert second.failure == "the training loss was not finite after 1,600 tokens"
    assert np.isfinite(second.losses[0]).all()
    assert np.isnan(second.losses[1]).all()
    assert first.failure is None
    np.testing.assert_array_equal(first.losses, healthy.losses)


def test_a_diverged_model_is_reported_as_failed():
    config = TrainingConfig(n_tokens=64 * 20, batch_tokens=64, learning_rate=2.0, device="cpu")
    curve = train(SHAPE, [counting_batches(0)], validation(), config)[0]
    assert curve.failure is not None
    assert "a uniform guess has 3.47" in curve.failure


def test_a_source_that_ends_early_is_an_error():
    source = iter([next(counting_batches(0))] * 3)
    with pytest.raises(ValueError, match=r"batches\[0\] ended before step 4: .* raise max_epochs"):
        train(SHAPE, [source], validation(), CONFIG)


def test_a_batch_of_another_shape_is_an_error():
    wrong = iter([(torch.zeros(2, 16, dtype=torch.int64), torch.zeros(2, 16, dtype=torch.int64))])
    with pytest.raises(ValueError, match=r"step 1: found shapes \(2, 16\) and \(2, 16\), expected \(4, 16\)"):
        train(SHAPE, [wrong], validation(), CONFIG)


def test_a_batch_that_does_not_hold_whole_rows_is_refused():
    with pytest.raises(ValueError, match="100 is no multiple of sequence_length 16; take 96"):
        train(SHAPE, [counting_batches(0)], validation(), TrainingConfig(n_tokens=1000, batch_tokens=100))


def test_ignored_labels_do_not_count_in_validation():
    input_ids, labels = next(counting_batches(9))
    padded = torch.cat([labels[:2], torch.full_like(labels[2:], -100)])
    held_out = {"half": (input_ids[:2], labels[:2]), "padded": (input_ids, padded)}
    losses = train(SHAPE, [counting_batches(0)], held_out, CONFIG)[0].losses[-1]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)

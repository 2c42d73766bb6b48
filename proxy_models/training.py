"""Train a group of proxy models side by side and measure their held-out losses per domain."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .transformer import IGNORED_LABEL, GroupedTransformer, ModelShape

Batch = tuple[Tensor, Tensor]  # input_ids and labels: int64, (rows, sequence_length)
EVALUATION_ROWS = 32  # rows of one forward pass: bounds the memory of the logits


@dataclass(frozen=True)
class TrainingConfig:
    """How each proxy is trained: AdamW with betas .9 and .95, and a warm-up, stable, decay (WSD) learning
    rate.

    The defaults are measured with `ModelShape(vocab_size=2048)`, 300,000 tokens, text of eleven domains:
    batches of 512 tokens end at 5.09 nats per token, of 256 at 5.18 (the unigram entropy is 6.68). Step Law's
    learning rate for this size and length would be 2.4e-2, six times the best one found: it was fitted above
    200 M parameters.

    Attributes:
        n_tokens: training tokens of each model, rounded down to whole batches.
        batch_tokens: tokens of one step of one model, a multiple of the sequence length.
        learning_rate: at the plateau; linear warm-up before it, linear decay to zero after it.
        warmup_fraction, decay_fraction: of the steps. A checkpoint before the decay is not comparable with an
            end.
        clip_norm: bound on the gradient's norm, for each model apart.
        eval_every: tokens between checkpoints; None for one at the end.
        n_threads: of PyTorch, while training. The same number gives the same bits.
        device: "auto" takes cuda, then mps, then cpu. Only the CPU is tested.
    """

    n_tokens: int = 400_000
    batch_tokens: int = 512
    learning_rate: float = 4e-3
    warmup_fraction: float = 0.05
    decay_fraction: float = 0.3
    weight_decay: float = 0.1
    clip_norm: float = 1.0
    eval_every: int | None = None
    n_threads: int = 1
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.n_tokens < self.batch_tokens:
            raise ValueError(
                f"TrainingConfig.n_tokens: {self.n_tokens:,} is less than one batch, "
                f"{self.batch_tokens:,} tokens."
            )
        if not 0 <= self.warmup_fraction + self.decay_fraction <= 1:
            raise ValueError(
                f"TrainingConfig: warmup_fraction {self.warmup_fraction} and decay_fraction "
                f"{self.decay_fraction} must not sum to more than 1."
            )

    @property
    def n_steps(self) -> int:
        return self.n_tokens // self.batch_tokens

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of step 1..n_steps.

        >>> config = TrainingConfig(51_200, learning_rate=1.0, warmup_fraction=0.1, decay_fraction=0.5)
        >>> [round(config.learning_rate_at(step), 2) for step in (1, 10, 50, 76, 100)]
        [0.1, 1.0, 1.0, 0.5, 0.02]
        """
        warmup = step / max(1.0, self.warmup_fraction * self.n_steps)
        decay = (self.n_steps - step + 1) / max(1.0, self.decay_fraction * self.n_steps)
        return self.learning_rate * min(1.0, warmup, decay)

    def checkpoints(self) -> list[int]:
        """Steps after which to evaluate: every eval_every tokens, and the last."""
        stride = self.n_steps if self.eval_every is None else max(1, self.eval_every // self.batch_tokens)
        return sorted({*range(stride, self.n_steps + 1, stride), self.n_steps})


@dataclass(frozen=True, eq=False)
class LossCurve:
    """Held-out losses of one model while it trained.

    Attributes:
        n_tokens: int64, (n_checkpoints,).
        losses: float64, (n_checkpoints, J), nats per token; NaN from the checkpoint on at which the model had
            failed.
        failure: why the losses cannot be used, or None.
    """

    n_tokens: NDArray[np.int64]
    losses: NDArray[np.float64]
    failure: str | None


class Follower(Protocol):
    """Whom a training tells how it goes: a loader whose mixture or rows depend on it."""

    def begin(self, models: GroupedTransformer) -> None:
        """The models, before their first batch is asked for."""
        ...

    def report(self, row_losses: Tensor) -> None:
        """The losses of the rows of the last batches, before they were trained on: (G, rows)."""
        ...


def train(
    shape: ModelShape,
    batches: Sequence[Iterator[Batch]],
    validation: Mapping[str, Batch],
    config: TrainingConfig,
    seeds: Sequence[int] | None = None,
    follower: Follower | None = None,
) -> list[LossCurve]:
    """Train one model per source of batches and evaluate all of them on the same rows.

    Bit-identical in a fresh process for the same arguments, thread count and PyTorch build. A model whose
    loss stops being finite, or which trains to worse than a uniform guess, is reported in
    `LossCurve.failure` and leaves the others untouched.

    Args:
        shape: the shape of every model.
        batches: one iterator per model, of (input_ids, labels): int64, (n_rows, sequence_length), with
            n_rows * sequence_length = config.batch_tokens.
        validation: the same per domain, with any number of rows; a label of -100 is not counted.
        seeds: of the initial weights, one per model; by default all 0: models differ by their data alone.
        follower: is told of the models and of each step's losses. All rows then weigh alike, whatever labels
            they lack.
    Returns:
        One curve per model; the losses' columns are in the order of `validation`.
    Raises:
        ValueError: a batch of another shape, an iterator that ends, or batch_tokens that are not whole rows.
    """
    n_rows, rest = divmod(config.batch_tokens, shape.sequence_length)
    if rest:
        raise ValueError(
            f"TrainingConfig.batch_tokens: {config.batch_tokens} is no multiple of sequence_length "
            f"{shape.sequence_length}; take {max(1, n_rows) * shape.sequence_length}."
        )
    device = _device(config.device)
    with _torch_threads(config.n_threads):
        models = GroupedTransformer(shape, seeds if seeds is not None else [0] * len(batches)).to(device)
        optimizer = _adamw(models, config, fused=device.type != "mps")
        if follower is not None:
            follower.begin(models)
        checkpoints = config.checkpoints()
        failed_at = torch.zeros(len(batches), dtype=torch.int64, device=device)  # step, 0 for none
        recent = torch.full((len(batches),), math.log(shape.vocab_size), device=device)  # training loss
        losses: list[NDArray[np.float64]] = []
        for step in range(1, config.n_steps + 1):
            input_ids, labels = _next_group(batches, (n_rows, shape.sequence_length), step)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate_at(step)
            if follower is None:
                loss = models.losses(input_ids.to(device), labels.to(device))
            else:
                row_losses = models.row_losses(input_ids.to(device), labels.to(device))
                loss = row_losses.mean(1)
                follower.report(row_losses.detach())
            optimizer.zero_grad()
            torch.autograd.backward(loss.sum())
            clip_each_model(models, config.clip_norm)
            optimizer.step()
            failed_at = torch.where((failed_at == 0) & ~loss.detach().isfinite(), step, failed_at)
            recent = 0.9 * recent + 0.1 * loss.detach()
            if step in checkpoints:
                losses.append(evaluate(models, validation))
    n_tokens = np.array(checkpoints, dtype=np.int64) * config.batch_tokens
    table = np.stack(losses, axis=1)  # (G, n_checkpoints, J)
    return [
        _curve(n_tokens, curve, int(step) * config.batch_tokens, training_loss, math.log(shape.vocab_size))
        for curve, step, training_loss in zip(table, failed_at.tolist(), recent.tolist(), strict=True)
    ]


def evaluate(models: GroupedTransformer, validation: Mapping[str, Batch]) -> NDArray[np.float64]:
    """Mean losses of each model on each domain's rows: float64, (G, J), nats per token."""
    device = models.head.device
    columns = []
    with torch.inference_mode():
        for input_ids, labels in validation.values():
            total = np.zeros(models.n_models)
            for rows in range(0, len(labels), EVALUATION_ROWS):
                x, y = (
                    part[rows : rows + EVALUATION_ROWS].to(device).expand(models.n_models, -1, -1)
                    for part in (input_ids, labels)
                )
                n_labels = int((y[0] != IGNORED_LABEL).sum())
                total += models.losses(x, y).double().cpu().numpy() * n_labels
            columns.append(total / int((labels != IGNORED_LABEL).sum()))
    return np.stack(columns, axis=1)


def clip_each_model(models: GroupedTransformer, clip_norm: float) -> None:
    """Scale every model's gradient to a norm of at most clip_norm; another model's NaN does not matter."""
    gradients = [p.grad for p in models.parameters() if p.grad is not None]
    norms = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()  # (G,)
    scale = (clip_norm / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale.view(-1, *[1] * (gradient.dim() - 1)))


def _adamw(models: GroupedTransformer, config: TrainingConfig, fused: bool) -> torch.optim.AdamW:
    """Weight decay on matrices; none on the gains of the norms, which are vectors per model."""
    matrices = [p for p in models.parameters() if p.dim() > 2]
    gains = [p for p in models.parameters() if p.dim() == 2]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": gains, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), fused=fused)


def _next_group(batches: Sequence[Iterator[Batch]], size: tuple[int, int], step: int) -> Batch:
    """The models' next batches as one: int64, (G, rows, sequence_length)."""
    parts = []
    for model, source in enumerate(batches):
        batch = next(source, None)
        if batch is None:
            raise ValueError(
                f"batches[{model}] ended before step {step}: its source holds fewer tokens than n_tokens "
                "asks for. Lower n_tokens, or raise max_epochs."
            )
        if any(tuple(part.shape) != size for part in batch):
            found = " and ".join(str(tuple(part.shape)) for part in batch)
            raise ValueError(f"batches[{model}], step {step}: found shapes {found}, expected {size} twice.")
        parts.append(batch)
    return torch.stack([x for x, _ in parts]), torch.stack([y for _, y in parts])


def _curve(
    n_tokens: NDArray[np.int64],
    losses: NDArray[np.float64],
    failed_at: int,
    training_loss: float,
    uniform_loss: float,
) -> LossCurve:
    """The curve, and whether its loss was not finite at `failed_at` tokens (0 for never) or diverged."""
    failure = None
    if failed_at:
        failure = f"the training loss was not finite after {failed_at:,} tokens"
        losses = np.where(n_tokens[:, None] >= failed_at, np.nan, losses)
    elif training_loss > uniform_loss:
        failure = (
            f"diverged: the training loss ended at {training_loss:.2f} nats per token, a uniform guess has "
            f"{uniform_loss:.2f}"
        )
    return LossCurve(n_tokens, losses, failure)


def _device(name: str) -> torch.device:
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@contextmanager
def _torch_threads(n_threads: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)

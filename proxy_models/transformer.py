"""Many tiny decoder-only language models of one shape, computed as one batched model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IGNORED_LABEL = -100  # PyTorch's convention: a label that carries no loss
ROTARY_BASE = 10_000.0
INIT_STD = 0.02  # GPT-2; the residual projections are scaled down by sqrt(2 n_layers)
# With a head of zeros: 5.09 nats per token after 300,000 tokens. A tied head of INIT_STD reached 5.55.
EMBEDDING_STD = 1.0


@dataclass(frozen=True)
class ModelShape:
    """The shape that all models of a group share.

    >>> ModelShape(vocab_size=2048).n_parameters
    368960
    """

    vocab_size: int
    sequence_length: int = 128
    n_layers: int = 2
    d_model: int = 64
    n_heads: int = 2
    d_ff: int = 192

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ValueError(f"ModelShape.{name}: found {value}, allowed is 1 or more.")
        if self.d_model % (2 * self.n_heads):
            raise ValueError(
                f"ModelShape.d_model: {self.d_model} does not split into {self.n_heads} heads of an even "
                f"width; choose a multiple of {2 * self.n_heads}."
            )

    @property
    def n_parameters(self) -> int:
        """Trained parameters of one model, embedding and output head among them."""
        attention, gated = 4 * self.d_model**2, 3 * self.d_model * self.d_ff
        norms = (2 * self.n_layers + 1) * self.d_model
        return 2 * self.vocab_size * self.d_model + self.n_layers * (attention + gated) + norms


class GroupedTransformer(nn.Module):
    """G independent language models: every parameter has a leading dimension G, every linear layer is a bmm.

    Pre-norm blocks with RMSNorm, rotary positions, causal attention, SwiGLU, and an untied output head.
    Model g depends on seeds[g] alone: its initial weights are the same in any group, and its training
    agrees with a group of one up to the order of summation in bmm (tests/proxy_models/test_transformer.py:
    1e-4 in the weights after ten steps).

    Args:
        shape: the shape of each model.
        seeds: one seed per model; two models with one seed start from the same weights.
    """

    def __init__(self, shape: ModelShape, seeds: Sequence[int]) -> None:
        super().__init__()
        self.shape, self.seeds = shape, tuple(seeds)
        d, n_layers = shape.d_model, shape.n_layers
        residual_std = INIT_STD / (2 * n_layers) ** 0.5
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]

        def normal(*size: int, std: float = INIT_STD) -> nn.Parameter:
            return nn.Parameter(torch.stack([torch.randn(size, generator=g) * std for g in generators]))

        def ones(*size: int) -> nn.Parameter:
            return nn.Parameter(torch.ones(len(generators), *size))

        self.embedding = normal(shape.vocab_size, d, std=EMBEDDING_STD)
        self.head = nn.Parameter(torch.zeros(len(generators), d, shape.vocab_size))
        self.qkv = nn.ParameterList([normal(d, 3 * d) for _ in range(n_layers)])
        self.attention_out = nn.ParameterList([normal(d, d, std=residual_std) for _ in range(n_layers)])
        self.gate_up = nn.ParameterList([normal(d, 2 * shape.d_ff) for _ in range(n_layers)])
        self.down = nn.ParameterList([normal(shape.d_ff, d, std=residual_std) for _ in range(n_layers)])
        self.attention_norm = nn.ParameterList([ones(d) for _ in range(n_layers)])
        self.mlp_norm = nn.ParameterList([ones(d) for _ in range(n_layers)])
        self.final_norm = ones(d)
        self.cos: Tensor
        self.sin: Tensor
        cos, sin = _rotary_tables(shape.sequence_length, d // shape.n_heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    @property
    def n_models(self) -> int:
        return len(self.seeds)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits: float32, (G, batch, length, vocab_size), from input_ids: int64, (G, batch, length)."""
        n_models, n_rows, length = input_ids.shape
        x = self.normed(self.blocks(input_ids, self.shape.n_layers))
        return torch.bmm(x, self.head).view(n_models, n_rows, length, self.shape.vocab_size)

    def blocks(self, input_ids: Tensor, n_layers: int) -> Tensor:
        """What comes out of the first n_layers blocks: (G, batch * length, d_model)."""
        n_models, n_rows, length = input_ids.shape
        x = self._embed(input_ids.reshape(n_models, n_rows * length))
        for layer in range(n_layers):
            x = self.block(layer, x, n_rows, length)
        return x

    def block(self, layer: int, x: Tensor, n_rows: int, length: int) -> Tensor:
        """One block: (G, batch * length, d_model) to the same."""
        x = x + self._attend(layer, _rms_norm(x, self.attention_norm[layer]), n_rows, length)
        gate, up = torch.bmm(_rms_norm(x, self.mlp_norm[layer]), self.gate_up[layer]).chunk(2, dim=-1)
        return x + torch.bmm(F.silu(gate) * up, self.down[layer])

    def normed(self, x: Tensor) -> Tensor:
        """What the head is applied to."""
        return _rms_norm(x, self.final_norm)

    def row_losses(self, input_ids: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of each row: float32, (G, rows), nats; labels of -100 carry no loss."""
        logits = self(input_ids)
        per_token = F.cross_entropy(
            logits.flatten(0, 2), labels.flatten(), ignore_index=IGNORED_LABEL, reduction="none"
        )
        n_labels = (labels != IGNORED_LABEL).sum(2)
        return per_token.view(labels.shape).sum(2) / n_labels.clamp(min=1)

    def losses(self, input_ids: Tensor, labels: Tensor) -> Tensor:
        """Mean cross-entropy of each model: float32, (G,), nats per token; labels of -100 carry no loss."""
        logits = self(input_ids)
        per_token = F.cross_entropy(
            logits.flatten(0, 2), labels.flatten(), ignore_index=IGNORED_LABEL, reduction="none"
        )
        n_labels = (labels != IGNORED_LABEL).flatten(1).sum(1)
        return per_token.view(len(labels), -1).sum(1) / n_labels.clamp(min=1)

    def _embed(self, token_ids: Tensor) -> Tensor:
        """One gather from the G embeddings laid end to end."""
        first_row = torch.arange(len(token_ids), device=token_ids.device) * self.shape.vocab_size
        return F.embedding(token_ids + first_row[:, None], self.embedding.flatten(0, 1))

    def _attend(self, layer: int, x: Tensor, n_rows: int, length: int) -> Tensor:
        """Causal self-attention within each row: (G, rows * length, d_model) to the same."""
        n_models, n_tokens, d = x.shape
        qkv = torch.bmm(x, self.qkv[layer]).view(n_models * n_rows, length, 3, self.shape.n_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (G * rows, heads, length, d_head)
        cos, sin = self.cos[:length], self.sin[:length]
        y = F.scaled_dot_product_attention(_rotate(q, cos, sin), _rotate(k, cos, sin), v, is_causal=True)
        return torch.bmm(y.transpose(1, 2).reshape(n_models, n_tokens, d), self.attention_out[layer])


def _rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """RMSNorm of (G, tokens, d_model) with one gain per model: (G, d_model)."""
    return F.rms_norm(x, x.shape[-1:]) * weight[:, None]


def _rotary_tables(length: int, d_head: int) -> tuple[Tensor, Tensor]:
    """cos and sin: float32, (length, d_head / 2)."""
    frequencies = ROTARY_BASE ** (-torch.arange(0, d_head, 2) / d_head)
    angles = torch.arange(length)[:, None] * frequencies
    return angles.cos(), angles.sin()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding (Su et al. 2021), first half of the head against the second."""
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)

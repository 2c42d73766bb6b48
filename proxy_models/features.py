"""The proxies as models whose rows can be told apart: see streaming/features.py."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .transformer import GroupedTransformer


class ProxyModel:
    """One model of a group as a `CausalModel` of streaming/features.py.

    Args:
        models: the group.
        member: which of its models.

    >>> import torch
    >>> from ..streaming.features import FeatureExtractor
    >>> from .transformer import ModelShape
    >>> model = ProxyModel(GroupedTransformer(ModelShape(vocab_size=64, sequence_length=8), seeds=[0]))
    >>> losses, features = FeatureExtractor(model, n_dimensions=16)(*torch.zeros(2, 3, 8, dtype=torch.int64))
    >>> losses.round(2).tolist(), features.shape  # log 64 nats: its head is still zero
    ([4.16, 4.16, 4.16], (3, 16))
    """

    def __init__(self, models: GroupedTransformer, member: int = 0) -> None:
        self.module, self.member = models, member

    def before_last(self, input_ids: Tensor, **inputs: Any) -> tuple[Tensor, int, int]:
        """The last block's input in all models of the group, and the shape of the rows."""
        if inputs:
            raise ValueError(f"proxies take token ids alone; leave {sorted(inputs)} out")
        n_rows, length = input_ids.shape
        group = input_ids.expand(self.module.n_models, -1, -1)
        return self.module.blocks(group, self.module.shape.n_layers - 1), n_rows, length

    def hidden(self, before: tuple[Tensor, int, int]) -> Tensor:
        x, n_rows, length = before
        x = self.module.normed(self.module.block(self.module.shape.n_layers - 1, x, n_rows, length))
        return x[self.member].view(n_rows, length, -1)

    def logits(self, hidden: Tensor) -> Tensor:
        return hidden @ self.module.head[self.member]

    @property
    def value_weight(self) -> Tensor:
        """float32, (d_model, d_model)."""
        d = self.module.shape.d_model
        weight: Tensor = self.module.qkv[-1][self.member, :, 2 * d :]
        return weight

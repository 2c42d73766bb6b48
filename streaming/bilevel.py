"""Weights by what helps a held-out set, from gradients: a trainer's helper with two copies of its model.

Also the reward of gradient alignment, for policies that read rewards.
"""

import copy
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..kernels.simplex import softmax
from .policies import distribution

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

Floats = NDArray[np.float64]


class Bilevel:
    """Mixture weights that lower a validation loss after training on them, in first-order steps.

    The problem min over lambda of L1(w*) with w* = argmin L2(w, lambda), where L1 is the validation loss and
    L2 = sum_i softmax(lambda)_i L_i the training loss, becomes min over lambda and w, max over u of

        L1(w) + penalty (L2(w, lambda) - L2(u, lambda)).

    In a step u goes down L2, w goes down L1 + penalty L2, and lambda down penalty (L2(w) - L2(u)). A domain
    that w, which also minds the validation set, has learnt better than u gains weight.

    Args:
        model: w; it is trained in place. u is a copy.
        prior: float64, (n_domains,), the weights at the start.
        row_losses: (model, batch) -> tensor (rows,), nats per token.
        make_optimizer: from a model's parameters to its optimizer.
        penalty: alpha.
        rate: of lambda.
    Source: Pan et al. 2024, "ScaleBiO" (arXiv 2406.19976), algorithm 1, and its released code: a domain's
        loss is the mean over its rows in the batch. Its memory-saving choice of layers is the optimizer's
        business here; u and w share no state. A domain that a batch lacks keeps its lambda in that step, and
        the others' weights count as if they were all.
    """

    def __init__(
        self,
        model: "nn.Module",
        prior: Floats,
        row_losses: Callable[["nn.Module", Any], "Tensor"],
        make_optimizer: Callable[[Any], "Optimizer"],
        *,
        penalty: float = 10.0,
        rate: float = 1e-2,
    ) -> None:
        if not (penalty > 0 and rate > 0):
            raise ValueError(f"penalty and rate are {penalty} and {rate}; both are above 0")
        self.logits = np.log(distribution(prior))
        self.model, self.copy = model, copy.deepcopy(model)
        self._row_losses, self._penalty, self._rate = row_losses, penalty, rate
        self._optimizers = [make_optimizer(each.parameters()) for each in (self.model, self.copy)]

    @property
    def weights(self) -> Floats:
        """softmax(lambda): float64, (n_domains,), in the order of the prior."""
        return softmax(self.logits)

    def step(self, batch: Any, domain_ids: "Tensor", validation: Any) -> Floats:
        """Move w, u and lambda by one step each; returns the weights.

        Args:
            batch: rows to train on, and their domains: int64, (rows,).
            validation: rows of the validation set.
        """
        import torch

        weights = torch.from_numpy(self.weights).to(torch.float32)
        losses = []
        for model, optimizer in zip((self.model, self.copy), self._optimizers, strict=True):
            by_domain, is_there = domain_means(self._row_losses(model, batch), domain_ids, weights.numel())
            mixture = weights.to(by_domain.device) * is_there
            loss = (mixture / mixture.sum() * by_domain).sum()
            if model is self.model:
                loss = self._penalty * loss + self._row_losses(model, validation).mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            losses.append(by_domain.detach())
        excess = (losses[0] - losses[1]).double().cpu().numpy()
        p = self.weights * is_there.cpu().numpy()
        p /= p.sum()
        self.logits = self.logits - self._rate * self._penalty * p * (excess - p @ excess)
        self.logits -= np.log(np.exp(self.logits).sum())
        return self.weights

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers, without the model itself, which the trainer saves."""
        return {
            "logits": self.logits.tolist(),
            "copy": self.copy.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self._optimizers],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken; load the model before."""
        self.logits = np.array(state["logits"])
        self.copy.load_state_dict(state["copy"])
        for optimizer, found in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(found)


def domain_means(losses: "Tensor", domain_ids: "Tensor", n_domains: int) -> tuple["Tensor", "Tensor"]:
    """Mean of each domain's rows, 0 where it has none, and which have some: (n_domains,) each."""
    import torch

    counts = torch.bincount(domain_ids, minlength=n_domains).to(losses)
    sums = torch.zeros(n_domains, dtype=losses.dtype, device=losses.device).index_add(0, domain_ids, losses)
    return sums / counts.clamp(min=1), (counts > 0).to(losses)


def gradient_alignment(features: "Tensor", held_out: "Tensor") -> "Tensor":
    """How well each row's gradient agrees with the mean of the held-out rows': cosines, (rows,).

    Args:
        features: (rows, d), gradients or projections of them (features.py).
        held_out: (n_held_out, d), of the same projection.
    Source: Fan et al. 2023, "DoGE" (arXiv 2310.15393), whose weights follow these products of gradients.

    >>> import torch
    >>> gradient_alignment(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0]])).tolist()
    [1.0, 0.0]
    """
    from torch.nn.functional import cosine_similarity

    return cosine_similarity(features, held_out.mean(dim=0, keepdim=True), dim=1)

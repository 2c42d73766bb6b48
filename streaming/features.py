"""What a row would teach, from forward passes alone: losses and features for the selectors.

    HeadGradients    the gradient of the output head, projected: inner products hold in expectation
    value_slopes     derivatives along several directions of the last value projection, by differences
    hidden_means     where the row stands in the last hidden states

`FeatureExtractor` gives losses and one of these for a causal language model of transformers, or any model
with the few methods of `CausalModel`; that of the proxies is in proxy_models/features.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

Kind = Literal["head_gradients", "value_slopes", "hidden_means", "none"]
IGNORED_LABEL = -100  # PyTorch's convention: a label that carries no loss
CHUNK_TOKENS = 2048  # whose logits are in memory at a time


class CausalModel(Protocol):
    """What the features need of a language model: everything up to its last block, that block, its head."""

    def before_last(self, input_ids: Tensor, **inputs: Any) -> Any:
        """What the last block needs of these rows; int64, (n_rows, length)."""

    def hidden(self, before: Any) -> Tensor:
        """(n_rows, length, width): what the head is applied to."""

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., vocab_size)."""

    @property
    def value_weight(self) -> Tensor:
        """The last block's value projection: a parameter, or a view of the part of one."""

    @property
    def module(self) -> nn.Module:
        """The model itself."""


class HeadGradients:
    """Random projections of each row's gradient in the output head, (vocab_size, width).

    The head's gradient of a row's mean loss is G = (1/n) sum over its n labelled tokens of
    (p_t - e(y_t)) h_t', with p_t the predicted distribution, e(y_t) the label, h_t the hidden state. Features
    are R1 G R2', R1 with `n_vocabulary` rows of +-1 / sqrt(n_vocabulary), R2 likewise; the inner product of
    two rows' features is in expectation over R1 and R2 that of their gradients. G itself is never formed:
    a token costs 2 n_vocabulary (vocab_size + n_hidden) operations, and the head itself 2 width vocab_size.

    Args:
        vocab_size: of the logits.
        width: of the hidden states.
        n_vocabulary, n_hidden: of directions; features have n_vocabulary · n_hidden dimensions.
        seed: of the directions.
    Source: last-layer gradients as what tells rows apart: Ash et al. 2020, "Deep batch active learning by
        diverse, uncertain gradient lower bounds" (BADGE, arXiv 1906.03671), section 3; projections:
        Achlioptas 2003, "Database-friendly random projections", and as in LESS (Xia et al. 2024, arXiv
        2402.04333), there of the gradients of adapters.
    """

    def __init__(
        self, vocab_size: int, width: int, n_vocabulary: int = 8, n_hidden: int = 32, seed: int = 0
    ) -> None:
        if min(vocab_size, width, n_vocabulary, n_hidden) < 1:
            raise ValueError(
                f"vocab_size, width, n_vocabulary and n_hidden are {vocab_size}, {width}, {n_vocabulary}, "
                f"{n_hidden}; all must be 1 or more"
            )
        generator = torch.Generator().manual_seed(seed)
        self.by_token = _signs(vocab_size, n_vocabulary, generator)  # R1'
        self.by_hidden = _signs(width, n_hidden, generator)  # R2'

    @property
    def n_dimensions(self) -> int:
        return self.by_token.shape[1] * self.by_hidden.shape[1]

    def __call__(
        self, logits: Callable[[Tensor], Tensor], hidden: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Losses and features of rows.

        Args:
            logits: the head, for (n, width) -> (n, vocab_size); it is called for few tokens at a time.
            hidden: (n_rows, length, width).
            labels: int64, (n_rows, length), the token that follows each; -100 carries no loss.
        Returns:
            float32, (n_rows,), mean loss in nats per token; float32, (n_rows, n_dimensions). Of a row without
            a label the loss is NaN and all features are 0.
        """
        self._move(hidden.device)
        n_rows = len(hidden)
        row, at = (labels != IGNORED_LABEL).nonzero(as_tuple=True)
        losses = hidden.new_zeros(n_rows, dtype=torch.float32)
        features = hidden.new_zeros(
            (n_rows, self.by_token.shape[1], self.by_hidden.shape[1]), dtype=torch.float32
        )
        for begin in range(0, len(row), CHUNK_TOKENS):
            rows, columns = row[begin : begin + CHUNK_TOKENS], at[begin : begin + CHUNK_TOKENS]
            states, targets = hidden[rows, columns], labels[rows, columns]
            log_p = logits(states).float().log_softmax(-1)
            losses.index_add_(0, rows, -log_p.gather(1, targets[:, None])[:, 0])
            errors = log_p.exp_() @ self.by_token - self.by_token[targets]  # (n, n_vocabulary)
            products = errors[:, :, None] * (states.float() @ self.by_hidden)[:, None, :]
            features.index_add_(0, rows, products)
        n_labels = torch.bincount(row, minlength=n_rows).float()
        features /= n_labels.clamp(min=1)[:, None, None]
        return losses / n_labels, features.flatten(1)

    def _move(self, device: torch.device) -> None:
        if self.by_token.device != device:
            self.by_token, self.by_hidden = self.by_token.to(device), self.by_hidden.to(device)


def row_losses(logits: Callable[[Tensor], Tensor], hidden: Tensor, labels: Tensor) -> Tensor:
    """(n_rows,): mean loss of each row in nats per token, float32, or float64 if the hidden states are.

    Arguments as of `HeadGradients`.
    """
    row, at = (labels != IGNORED_LABEL).nonzero(as_tuple=True)
    wide = torch.promote_types(hidden.dtype, torch.float32)
    losses = hidden.new_zeros(len(hidden), dtype=wide)
    for begin in range(0, len(row), CHUNK_TOKENS):
        rows, columns = row[begin : begin + CHUNK_TOKENS], at[begin : begin + CHUNK_TOKENS]
        found = F.cross_entropy(
            logits(hidden[rows, columns]).to(wide), labels[rows, columns], reduction="none"
        )
        losses.index_add_(0, rows, found)
    return losses / torch.bincount(row, minlength=len(hidden)).to(wide)


def hidden_means(hidden: Tensor, labels: Tensor) -> Tensor:
    """float32, (n_rows, width): the mean hidden state of each row's labelled tokens."""
    is_labelled = (labels != IGNORED_LABEL).float()
    sums = torch.einsum("nlw,nl->nw", hidden.float(), is_labelled)
    return sums / is_labelled.sum(1, keepdim=True).clamp(min=1)


def value_slopes(
    losses: Callable[[], Tensor],
    weight: Tensor,
    n_directions: int = 8,
    epsilon: float = 1e-3,
    seed: int = 0,
) -> Tensor:
    """Each row's derivative along random directions of a weight, by differences of losses.

    Feature j of a row is (loss(W + epsilon Z_j) - loss(W - epsilon Z_j)) / (2 epsilon sqrt(n_directions)),
    with Z_j standard normal and the same for all rows: inner products of rows are in expectation those of
    their gradients in W. One direction makes all rows multiples of one vector, which says nothing of how they
    differ; the weight is as it was afterwards, bit for bit.

    Args:
        losses: evaluates the rows, (n_rows,), with the weight as it then is.
        weight: a parameter or a view of one, changed in place and restored. Of 16 bits, epsilon should be
            larger, as a step smaller than the weights' spacing is lost.
    Returns:
        float32, (n_rows, n_directions).
    Source: Spall 1992 (simultaneous perturbation); CoLM (Nguyen et al. 2024, arXiv 2407.19580), section 4.2,
        which has one direction and multiplies it by the difference.
    """
    if n_directions < 1 or not epsilon > 0:
        raise ValueError(
            f"n_directions and epsilon are {n_directions}, {epsilon}; allowed are 1 or more and above 0"
        )
    original, columns = weight.clone(), list[Tensor]()
    generator = torch.Generator().manual_seed(seed)
    try:
        for _ in range(n_directions):
            step = epsilon * torch.randn(weight.shape, generator=generator).to(weight)
            weight.copy_(original + step)
            above = losses()
            weight.copy_(original - step)
            columns.append((above - losses()) / (2 * epsilon * n_directions**0.5))
    finally:
        weight.copy_(original)
    return torch.stack(columns, dim=1).float()


class FeatureExtractor:
    """Losses and features of rows under a model as it is now: two to a few forward passes, none backward.

    Args:
        model: a causal language model of transformers, or a `CausalModel`.
        features: which; "none" gives losses alone.
        n_dimensions: of head gradients and slopes; the former have 8 directions of the vocabulary, so a
            multiple of 8.
        seed: of the directions, the same in every call.
        epsilon: of the slopes' differences.

    For `selector.select(Candidates(sources, losses=..., features=...), ...)`:

        extract = FeatureExtractor(model, "head_gradients", n_dimensions=128)
        losses, features = extract(batch["input_ids"], batch["labels"])
    """

    def __init__(
        self,
        model: nn.Module | CausalModel,
        features: Kind = "head_gradients",
        *,
        n_dimensions: int = 256,
        seed: int = 0,
        epsilon: float = 1e-3,
    ) -> None:
        if features not in get_args(Kind):
            raise ValueError(f"features is {features!r}; it must be one of {get_args(Kind)}")
        if n_dimensions < 1 or (features == "head_gradients" and n_dimensions % 8):
            raise ValueError(
                f"n_dimensions is {n_dimensions}; it must be 1 or more, and of head gradients a multiple of 8"
            )
        self.model = TransformersModel(model) if isinstance(model, nn.Module) else model
        self.features, self.n_dimensions, self.seed, self.epsilon = features, n_dimensions, seed, epsilon
        self._head_gradients: HeadGradients | None = None

    def __call__(
        self, input_ids: Tensor, labels: Tensor, **inputs: Any
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Losses, float64 (n_rows,), nats per token, and features, float32 (n_rows, d).

        Args:
            input_ids: int64, (n_rows, length).
            labels: int64, (n_rows, length), the token that follows each, as the loader gives them (not as
                transformers shifts them); -100 carries no loss.
            inputs: what else the model takes: position_ids, attention_mask.
        """
        with torch.no_grad(), evaluating(self.model.module):
            before = self.model.before_last(input_ids, **inputs)
            hidden = self.model.hidden(before)
            losses, features = self._measured(before, hidden, labels)
        return losses.double().cpu().numpy(), features.cpu().numpy()

    def _measured(self, before: Any, hidden: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        head = self.model.logits
        if self.features == "head_gradients":
            if self._head_gradients is None:
                vocab_size = head(hidden[:1, :1]).shape[-1]
                self._head_gradients = HeadGradients(
                    vocab_size, hidden.shape[-1], 8, self.n_dimensions // 8, self.seed
                )
            return self._head_gradients(head, hidden, labels)
        losses = row_losses(head, hidden, labels)
        if self.features == "hidden_means":
            return losses, hidden_means(hidden, labels)
        if self.features == "none":
            return losses, hidden.new_zeros((len(hidden), 0), dtype=torch.float32)
        slopes = value_slopes(
            lambda: row_losses(head, self.model.hidden(before), labels),
            self.model.value_weight,
            self.n_dimensions,
            self.epsilon,
            self.seed,
        )
        return losses, torch.nan_to_num(slopes)


class TransformersModel:
    """A causal language model of transformers as a `CausalModel`.

    The last block is the last of the module list with `num_hidden_layers` entries; what transformers runs
    behind it (a norm) is found by watching. The value projection is called `v_proj`, or is the last third of
    GPT-2's `c_attn`; for other names give `value_weight`.

    Raises:
        ValueError: a part is not found, or the model does more with its logits than its output embedding.
    """

    def __init__(self, model: nn.Module, value_weight: Tensor | None = None) -> None:
        self.module: Any = model
        self._value_weight, self._is_checked = value_weight, False

    def before_last(self, input_ids: Tensor, **inputs: Any) -> Any:
        body, block = self.module.base_model, self._last_block()
        seen: dict[str, Any] = {}

        def entered(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            seen["block"] = args, kwargs

        def left(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor) and "block" in seen:
                seen.setdefault("after", []).append((module, output))

        hooks = [block.register_forward_pre_hook(entered, with_kwargs=True)]
        hooks += [child.register_forward_hook(left) for child in self._siblings(block)]
        try:
            last = body(input_ids=input_ids, use_cache=False, **inputs).last_hidden_state
        finally:
            for hook in hooks:
                hook.remove()
        after = [module for module, output in seen.get("after", []) if output.data_ptr() == last.data_ptr()]
        before = (*seen["block"], after[-1] if after else nn.Identity(), last, self.value_version())
        if not self._is_checked:
            self._check(before, input_ids[:1], {k: v[:1] for k, v in inputs.items()})
        return before

    def hidden(self, before: Any) -> Tensor:
        args, kwargs, after, last, version = before
        if version == self.value_version():
            return last  # type: ignore[no-any-return]
        return self._again(args, kwargs, after).view_as(last)

    def logits(self, hidden: Tensor) -> Tensor:
        return self.module.get_output_embeddings()(hidden)  # type: ignore[no-any-return]

    def value_version(self) -> int:
        """A number that changes with every change of the block's value projection in place."""
        return sum(parameter._version for parameter in self._last_block().parameters())

    @property
    def value_weight(self) -> Tensor:
        if self._value_weight is not None:
            return self._value_weight
        for name, module in self._last_block().named_modules():
            if name.endswith("v_proj"):
                return cast(Tensor, module.weight)
            if name.endswith("c_attn"):
                weight = cast(Tensor, module.weight)
                return weight[:, -(weight.shape[1] // 3) :]
        raise ValueError(
            f"{type(self.module).__name__}: the last block has neither v_proj nor c_attn; give value_weight, "
            "or choose other features than value_slopes"
        )

    def _last_block(self) -> nn.Module:
        n_layers = getattr(self.module.config, "num_hidden_layers", 0)
        for module in self.module.base_model.modules():
            if isinstance(module, nn.ModuleList) and len(module) == n_layers:
                return module[-1]
        raise ValueError(
            f"{type(self.module).__name__}: no module list of {n_layers} layers (config.num_hidden_layers) "
            "was found; write a CausalModel for it"
        )

    def _siblings(self, block: nn.Module) -> list[nn.Module]:
        for module in self.module.base_model.modules():
            for child in module.children():
                if isinstance(child, nn.ModuleList) and len(child) and child[-1] is block:
                    return [other for other in module.children() if other is not child]
        return []

    def _again(self, args: tuple[Any, ...], kwargs: dict[str, Any], after: nn.Module) -> Tensor:
        output = self._last_block()(*args, **kwargs)
        found: Tensor = after(output[0] if isinstance(output, tuple) else output)
        return found

    def _check(self, before: Any, input_ids: Tensor, inputs: dict[str, Any]) -> None:
        """Whether the model is what it is taken for, on one row."""
        args, kwargs, after, last, _ = before
        name = type(self.module).__name__
        if not _are_close(self._again(args, kwargs, after).view_as(last), last):
            raise ValueError(
                f"{name}: what runs behind its last block was not understood, as running that block again "
                "gives other hidden states; write a CausalModel for it"
            )
        if not _are_close(
            self.logits(last[:1]), self.module(input_ids=input_ids, use_cache=False, **inputs).logits
        ):
            raise ValueError(
                f"{name} does more with its logits than its output embedding (a scale, a cap); write a "
                "CausalModel whose `logits` does the same"
            )
        self._is_checked = True


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Without dropout; afterwards as it was."""
    was_training = {name: part.training for name, part in module.named_modules()}
    module.eval()
    try:
        yield
    finally:
        for name, part in module.named_modules():
            part.training = was_training[name]


def _are_close(found: Tensor, expected: Tensor) -> bool:
    """Within a hundredth of the largest value: what 16 bits allow."""
    return bool((found.float() - expected.float()).abs().max() <= 1e-2 * expected.float().abs().max())


def _signs(n: int, n_directions: int, generator: torch.Generator) -> Tensor:
    """float32, (n, n_directions), +-1 / sqrt(n_directions)."""
    bits = torch.randint(0, 2, (n, n_directions), generator=generator)
    return cast(Tensor, (2 * bits - 1).float() / n_directions**0.5)

"""Features from forward passes, against gradients from autograd."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")

from cuvee.proxy_models.features import ProxyModel  # noqa: E402
from cuvee.proxy_models.transformer import GroupedTransformer, ModelShape  # noqa: E402
from cuvee.streaming.features import (  # noqa: E402
    FeatureExtractor,
    HeadGradients,
    TransformersModel,
    hidden_means,
    value_slopes,
)
from cuvee.streaming.loss_column import LossColumn  # noqa: E402

VOCAB, LENGTH, ROWS = 50, 12, 5
SHAPE = ModelShape(vocab_size=VOCAB, sequence_length=LENGTH, n_layers=2, d_model=16, n_heads=2, d_ff=24)


def proxy() -> ProxyModel:
    models = GroupedTransformer(SHAPE, seeds=[3, 4])
    with torch.no_grad():
        models.head.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
    return ProxyModel(models, member=1)


def tiny(name: str) -> Any:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch.manual_seed(0)
    if name == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=VOCAB,
            n_positions=LENGTH,
            n_embd=16,
            n_layer=2,
            n_head=2,
            bos_token_id=0,
            eos_token_id=0,
        )
        return transformers.GPT2LMHeadModel(config)
    config = transformers.LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        pad_token_id=0,
    )
    return transformers.LlamaForCausalLM(config)


def model_of(name: str) -> Any:
    return proxy() if name == "proxy" else TransformersModel(tiny(name).eval())


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    rows = torch.randint(0, VOCAB, (ROWS, LENGTH + 1), generator=torch.Generator().manual_seed(1))
    labels = rows[:, 1:].clone()
    labels[0, 5:] = -100
    labels[1, ::2] = -100
    return rows[:, :-1], labels


def true_losses(model: Any, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """By the model's own forward pass, with a graph."""
    if isinstance(model, ProxyModel):
        logits = model.module(input_ids.expand(2, -1, -1))[1]
    else:
        logits = model.module(input_ids=input_ids).logits
    found = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=-100, reduction="none"
    )
    return found.view(len(labels), -1).sum(1) / (labels != -100).sum(1)


def true_gradients(losses: torch.Tensor, weight: torch.Tensor) -> list[torch.Tensor]:
    return [torch.autograd.grad(loss, weight, retain_graph=True)[0] for loss in losses]


each_model = pytest.mark.parametrize("name", ["proxy", "gpt2", "llama"])


@each_model
def test_head_gradients_are_projections_of_autograds(name: str) -> None:
    model, (input_ids, labels) = model_of(name), batch()
    extract = FeatureExtractor(model, n_dimensions=64, seed=7)
    losses, features = extract(input_ids, labels)
    expected = true_losses(model, input_ids, labels)
    np.testing.assert_allclose(losses, expected.detach(), rtol=1e-5)
    if name == "proxy":  # (d_model, vocab_size) of member 1
        gradients = [g[1].T for g in true_gradients(expected, model.module.head)]
    else:
        head = model.module.get_output_embeddings()
        if name == "gpt2":  # tied to the embedding: let the gradient be the head's alone
            head.weight = torch.nn.Parameter(head.weight.detach().clone())
            expected = true_losses(model, input_ids, labels)
        gradients = true_gradients(expected, head.weight)
    projections = extract._head_gradients
    assert projections is not None
    for row, gradient in enumerate(gradients):
        projected = projections.by_token.T @ gradient @ projections.by_hidden
        np.testing.assert_allclose(features[row], projected.flatten(), rtol=1e-3, atol=1e-6)


def test_inner_products_of_head_gradients_hold_in_expectation() -> None:
    model, (input_ids, labels) = proxy(), batch()
    expected = true_losses(model, input_ids, labels)
    gradients = torch.stack([g[1].T.flatten() for g in true_gradients(expected, model.module.head)])
    truth = (gradients @ gradients.T).numpy()
    with torch.no_grad():
        hidden = model.hidden(model.before_last(input_ids))
        found = []
        for seed in range(200):
            _, features = HeadGradients(VOCAB, 16, 4, 8, seed)(model.logits, hidden, labels)
            found.append((features @ features.T).numpy())
    error = np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - truth) < 5 * error).all()
    assert error.max() < 0.2 * truth.max()


def test_rows_without_a_label_have_no_loss_and_no_gradient() -> None:
    input_ids, labels = batch()
    labels[2] = -100
    for kind in ("head_gradients", "value_slopes", "hidden_means"):
        losses, features = FeatureExtractor(proxy(), kind, n_dimensions=16)(input_ids, labels)
        assert np.isnan(losses).tolist() == [False, False, True, False, False]
        assert (features[2] == 0).all()
        assert np.isfinite(features).all()


@each_model
def test_value_slopes_are_derivatives_along_their_directions(name: str) -> None:
    model, (input_ids, labels) = model_of(name), batch()
    model.module.double()
    weight = model.value_weight
    before = {key: value.clone() for key, value in model.module.state_dict().items()}
    _, features = FeatureExtractor(model, "value_slopes", n_dimensions=3, seed=5, epsilon=1e-3)(
        input_ids, labels
    )
    assert all(torch.equal(value, before[key]) for key, value in model.module.state_dict().items())

    base = weight._base if weight._base is not None else weight
    gradients = true_gradients(true_losses(model, input_ids, labels), base)
    place = {
        "proxy": lambda g: g[1, :, 32:],
        "gpt2": lambda g: g[:, 32:],
        "llama": lambda g: g,
    }[name]
    generator = torch.Generator().manual_seed(5)
    for j in range(3):
        direction = torch.randn(weight.shape, generator=generator).double()
        for row, gradient in enumerate(gradients):
            slope = float((place(gradient) * direction).sum()) / 3**0.5
            # Llama's norm has 32 bits: losses of 4 nats are 4.8e-7 apart, divided here by 2e-3 · 3**0.5.
            assert features[row, j] == pytest.approx(slope, abs=6e-4)


def test_value_slopes_restore_the_weight_when_the_losses_fail() -> None:
    weight = torch.randn(4, 4)
    before = weight.clone()

    def fail() -> torch.Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        value_slopes(fail, weight)
    assert torch.equal(weight, before)
    with pytest.raises(ValueError, match="n_directions and epsilon are 0"):
        value_slopes(fail, weight, 0)


@each_model
def test_hidden_means_are_those_of_labelled_tokens(name: str) -> None:
    model, (input_ids, labels) = model_of(name), batch()
    _, features = FeatureExtractor(model, "hidden_means")(input_ids, labels)
    with torch.no_grad():
        hidden = model.hidden(model.before_last(input_ids))
    for row in range(ROWS):
        np.testing.assert_allclose(
            features[row], hidden[row][labels[row] != -100].mean(0), rtol=1e-4, atol=1e-6
        )
    assert hidden_means(hidden, labels).shape == (ROWS, 16)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_model_of_transformers_is_taken_as_it_is_and_left_so(name: str) -> None:
    model, (input_ids, labels) = tiny(name), batch()
    model.train()
    first = FeatureExtractor(model, n_dimensions=16)(input_ids, labels)
    assert model.training
    again = FeatureExtractor(model, n_dimensions=16)(input_ids, labels)
    for a, b in zip(first, again, strict=True):  # without dropout, which GPT-2 has
        np.testing.assert_array_equal(a, b)


def test_a_model_whose_logits_are_scaled_is_refused() -> None:
    model = tiny("llama")
    plain = model.forward

    def scaled(*args: Any, **kwargs: Any) -> Any:
        output = plain(*args, **kwargs)
        output.logits = output.logits * 3
        return output

    model.forward = scaled
    with pytest.raises(ValueError, match="does more with its logits than its output embedding"):
        FeatureExtractor(model)(*batch())


def test_what_cannot_be_extracted_is_refused() -> None:
    with pytest.raises(ValueError, match="features is 'gradients'"):
        FeatureExtractor(proxy(), "gradients")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="n_dimensions is 20"):
        FeatureExtractor(proxy(), n_dimensions=20)
    with pytest.raises(ValueError, match=r"leave \['position_ids'\] out"):
        FeatureExtractor(proxy())(*batch(), position_ids=batch()[0])


def test_a_column_of_losses_gives_what_was_written_last(tmp_path: Any) -> None:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 2**64, 1000, dtype=np.uint64)
    losses = rng.gamma(4, 1, 1000)
    losses[7] = np.nan
    path = tmp_path / "losses.arrow"
    LossColumn.write(path, np.concatenate([ids, ids[:5]]), np.concatenate([losses, [9.0] * 5]))
    column = LossColumn(path)
    assert len(column) == 999
    found = column.get(ids)
    np.testing.assert_array_equal(found[:5], 9.0)
    np.testing.assert_array_equal(found[5:], losses[5:].astype(np.float32))
    assert np.isnan(column.get(np.array([1, 2], np.uint64))).all()
    LossColumn.write(path, ids[:0], losses[:0])
    assert np.isnan(LossColumn(path).get(ids[:2])).all()
    with pytest.raises(ValueError, match="have shapes"):
        LossColumn.write(path, ids, losses[:1])
    (tmp_path / "other").write_bytes(b"text")
    with pytest.raises(ValueError, match="not a column of losses"):
        LossColumn(tmp_path / "other")

"""A group of models is the same models alone."""

import pytest
import torch

from cuvee.proxy_models.training import clip_each_model
from cuvee.proxy_models.transformer import IGNORED_LABEL, GroupedTransformer, ModelShape

SHAPE = ModelShape(vocab_size=32, sequence_length=16, n_layers=2, d_model=16, n_heads=2, d_ff=24)
SEEDS = [3, 1, 4]


def _rows(n_models: int, n_steps: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 32, (n_steps, n_models, 4, SHAPE.sequence_length + 1), generator=generator)


def _train(seeds: list[int], rows: torch.Tensor) -> tuple[GroupedTransformer, torch.Tensor]:
    models = GroupedTransformer(SHAPE, seeds)
    optimizer = torch.optim.AdamW(models.parameters(), lr=1e-3)
    for batch in rows:
        loss = models.losses(batch[..., :-1], batch[..., 1:])
        optimizer.zero_grad()
        loss.sum().backward()
        clip_each_model(models, 0.5)
        optimizer.step()
    return models, loss.detach()


def test_initial_weights_depend_on_the_models_own_seed_alone():
    group = GroupedTransformer(SHAPE, SEEDS)
    for index, seed in enumerate(SEEDS):
        alone = GroupedTransformer(SHAPE, [seed])
        for ours, theirs in zip(group.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(ours[index], theirs[0], rtol=0, atol=0)


def test_a_model_trains_in_a_group_as_it_does_alone():
    rows = _rows(len(SEEDS), n_steps=10)
    group, group_loss = _train(SEEDS, rows)
    for index, seed in enumerate(SEEDS):
        alone, loss = _train([seed], rows[:, index : index + 1])
        torch.testing.assert_close(group_loss[index], loss[0], rtol=1e-5, atol=1e-5)
        for ours, theirs in zip(group.parameters(), alone.parameters(), strict=True):
            # Ten AdamW steps of 1e-3 move a weight by 1e-2; orders of summation may differ by 1 % of that.
            torch.testing.assert_close(ours[index], theirs[0], rtol=0, atol=1e-4)


def test_a_token_changes_no_loss_before_it():
    models, row = GroupedTransformer(SHAPE, [0]), _rows(1)[0, :, :1, :-1]
    torch.nn.init.normal_(models.head)
    changed = row.clone()
    changed[..., 8] = (changed[..., 8] + 1) % 32
    before, after = models(row)[..., :8, :], models(changed)[..., :8, :]
    torch.testing.assert_close(before, after, rtol=0, atol=0)
    assert not torch.equal(models(row)[..., 8, :], models(changed)[..., 8, :])


def test_order_matters_through_the_rotary_positions():
    models = GroupedTransformer(SHAPE, [0])
    torch.nn.init.normal_(models.head)
    row = torch.tensor([[[1, 2, 3, 4]]])
    swapped = torch.tensor([[[2, 1, 3, 4]]])
    assert not torch.allclose(models(row)[..., -1, :], models(swapped)[..., -1, :])


def test_an_untrained_model_guesses_uniformly():
    rows = _rows(2)[0]
    losses = GroupedTransformer(SHAPE, [0, 1]).losses(rows[..., :-1], rows[..., 1:])
    torch.testing.assert_close(losses, torch.full((2,), 32.0).log())


def test_ignored_labels_carry_no_loss():
    models, rows = GroupedTransformer(SHAPE, [0]), _rows(1)[0]
    torch.nn.init.normal_(models.head)
    labels = rows[..., 1:].clone()
    labels[..., 8:] = IGNORED_LABEL
    torch.testing.assert_close(
        models.losses(rows[..., :-1], labels),
        models.losses(rows[..., :8], rows[..., 1:9]),
        rtol=1e-5,
        atol=1e-5,
    )


def test_n_parameters_counts_those_of_one_model():
    models = GroupedTransformer(SHAPE, SEEDS)
    assert sum(p.numel() for p in models.parameters()) == len(SEEDS) * SHAPE.n_parameters


def test_a_width_that_does_not_split_into_heads_is_refused():
    with pytest.raises(ValueError, match=r"64 does not split into 3 heads .* choose a multiple of 6"):
        ModelShape(vocab_size=32, n_heads=3)

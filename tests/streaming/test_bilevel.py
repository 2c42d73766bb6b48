import numpy as np
import pytest
import torch
from torch import nn

from cuvee.streaming.bilevel import Bilevel, domain_means

D = 8


def row_losses(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    inputs, targets = batch
    return (model(inputs)[:, 0] - targets).square()


def made(seed: int = 0) -> Bilevel:
    torch.manual_seed(seed)
    model = nn.Linear(D, 1)
    return Bilevel(
        model, np.full(3, 1 / 3), row_losses, lambda p: torch.optim.SGD(p, lr=0.01), penalty=2, rate=0.05
    )


def rows(generator: torch.Generator, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Inputs, targets, domains, held-out targets: 0 follows the held-out law, 1 its opposite, 2 is noise."""
    inputs = torch.randn(n, D, generator=generator)
    truth = inputs.sum(dim=1) / D**0.5
    domains = torch.arange(n) % 3
    noise = torch.randn(n, generator=generator)
    targets = torch.where(domains == 0, truth, torch.where(domains == 1, -truth, noise))
    return inputs, targets, domains, truth


def test_weights_go_to_the_domain_that_helps_the_validation_set() -> None:
    bilevel, generator = made(), torch.Generator().manual_seed(1)
    for _ in range(400):
        inputs, targets, domains, truth = rows(generator, 30)
        bilevel.step((inputs, targets), domains, (inputs, truth))
    weights = bilevel.weights
    assert weights.sum() == pytest.approx(1)
    assert weights[0] > 0.5
    assert weights[0] > weights[2] > weights[1]


def test_a_run_goes_on_from_its_state() -> None:
    whole, generator = made(), torch.Generator().manual_seed(2)
    batches = [rows(generator, 12) for _ in range(20)]
    for inputs, targets, domains, truth in batches[:10]:
        whole.step((inputs, targets), domains, (inputs, truth))
    resumed = made(seed=5)
    resumed.model.load_state_dict(whole.model.state_dict())
    resumed.load_state_dict(whole.state_dict())
    for inputs, targets, domains, truth in batches[10:]:
        for each in (whole, resumed):
            each.step((inputs, targets), domains, (inputs, truth))
    np.testing.assert_array_equal(whole.weights, resumed.weights)


def test_a_domain_that_a_batch_lacks_keeps_its_odds_to_an_average_one() -> None:
    bilevel, generator = made(), torch.Generator().manual_seed(3)
    inputs, targets, _, truth = rows(generator, 12)
    bilevel.step((inputs, targets), torch.zeros(12, dtype=torch.int64), (inputs, truth))
    np.testing.assert_allclose(bilevel.weights, np.full(3, 1 / 3))


def test_domain_means_by_hand() -> None:
    means, is_there = domain_means(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 2]), 3)
    assert means.tolist() == [2, 0, 5]
    assert is_there.tolist() == [1, 0, 1]


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="penalty and rate are 0 and 1"):
        Bilevel(
            nn.Linear(1, 1), np.ones(1), row_losses, lambda p: torch.optim.SGD(p, lr=1), penalty=0, rate=1
        )

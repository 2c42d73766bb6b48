"""Selectors that look at scores, and what all selectors promise."""

import json
from typing import Any

import numpy as np
import pytest

from cuvee.streaming.selection import RowTable, proportional_budgets
from cuvee.streaming.selectors import SELECTORS, Candidates, Selection, Selector, load_selector


def candidates(n: int = 40, seed: int = 0, n_sources: int = 3) -> Candidates:
    rng = np.random.default_rng(seed)
    return Candidates(
        sources=rng.integers(0, n_sources, n),
        losses=rng.gamma(4, 0.7, n),
        reference_losses=rng.gamma(4, 0.6, n),
        features=rng.normal(size=(n, 8)).astype(np.float32),
        row_ids=rng.permutation(200)[:n].astype(np.uint64) + 2**63,
    )


def chosen(selector: Selector, rows: Candidates, k: int, seed: int = 0) -> Selection:
    return selector.select(rows, k, np.random.default_rng(seed))


each_method = pytest.mark.parametrize("name", SELECTORS)


@each_method
@pytest.mark.parametrize("k", [0, 1, 13, 40])
def test_k_distinct_rows_come_in_order_with_weights(name: str, k: int) -> None:
    selector = load_selector(name)
    for step in range(3):
        found = chosen(selector, candidates(seed=step), k, seed=step)
        assert found.indices.dtype == np.int64
        assert found.weights.dtype == np.float32
        assert found.indices.size == found.weights.size == k
        assert (np.diff(found.indices) > 0).all()
        assert k == 0 or (found.indices[0] >= 0 and found.indices[-1] < 40)
        assert np.isfinite(found.weights).all()
        assert (found.weights > 0).all()


@each_method
def test_a_selector_that_is_resumed_chooses_as_one_that_never_stopped(name: str) -> None:
    def step(selector: Selector, number: int) -> Selection:
        rows = candidates(seed=number)
        found = chosen(selector, rows, 12, seed=number)
        selector.observe(rows.take(found.indices))
        return found

    straight = load_selector(name)
    expected = [step(straight, number) for number in range(8)]
    for stop in range(8):
        before = load_selector(name)
        for number in range(stop):
            step(before, number)
        after = load_selector(name)
        after.load_state_dict(json.loads(json.dumps(before.state_dict())))
        for number in range(stop, 8):
            found = step(after, number)
            np.testing.assert_array_equal(found.indices, expected[number].indices)
            np.testing.assert_array_equal(found.weights, expected[number].weights)
        assert after.state_dict() == straight.state_dict()


@each_method
def test_what_a_method_needs_and_lacks_is_named(name: str) -> None:
    selector = load_selector(name)
    rows = candidates()
    for field in selector.needs:
        arrays = {other: getattr(rows, other) for other in ("sources", *selector.needs) if other != field}
        with pytest.raises(ValueError, match=f"needs {field}, which these candidates lack"):
            chosen(selector, Candidates(**arrays), 3)
    with pytest.raises(ValueError, match="k is 41; of 40 candidates"):
        chosen(selector, rows, 41)


@each_method
def test_rows_that_nothing_is_known_of_can_be_chosen(name: str) -> None:
    rows = candidates()
    unknown = Candidates(
        rows.sources, np.full(40, np.nan), np.full(40, np.nan), np.zeros((40, 8), np.float32), rows.row_ids
    )
    assert chosen(load_selector(name), unknown, 17).indices.size == 17


def test_a_state_of_another_method_or_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"state is of method 'Rho'.*this is 'RandomRows'"):
        load_selector("random").load_state_dict(load_selector("rho").state_dict())


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("rhoo", {}, "unknown selector 'rhoo'; did you mean 'rho'"),
        ("stochastic", {"low": "power"}, "unknown parameter 'low'; did you mean 'law'"),
        ("random", {"seed": 1}, r"random has no parameters, but \['seed'\] were given"),
        ("stochastic", {"law": "best"}, "'best'"),
        ("rho", {"noise": -1}, "noise is -1"),
    ],
)
def test_what_a_user_gets_wrong_is_named(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_selector(name, **parameters)


def test_candidates_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match=r"losses have shape \(2,\); there are 3 candidates"):
        Candidates(np.zeros(3, np.int64), losses=np.zeros(2))
    with pytest.raises(ValueError, match=r"features have shape \(3,\).*\(3, d\) is needed"):
        Candidates(np.zeros(3, np.int64), features=np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=r"features\[1\] has values that are not finite"):
        Candidates(np.zeros(2, np.int64), features=np.array([[1.0], [np.nan]], np.float32))
    with pytest.raises(ValueError, match="none below 0"):
        Candidates(np.array([0, -1]))


def test_every_row_is_chosen_as_often_as_another_at_random() -> None:
    rows, selector, n_draws = Candidates(np.zeros(20, np.int64)), load_selector("random"), 4000
    counts = np.zeros(20)
    for seed in range(n_draws):
        counts[chosen(selector, rows, 5, seed).indices] += 1
    assert np.abs(counts / n_draws - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / n_draws)


def test_hard_batches_are_the_greatest_losses_and_rho_the_greatest_excess() -> None:
    rows = candidates()
    assert rows.losses is not None
    assert rows.reference_losses is not None
    by_loss = sorted(range(40), key=lambda i: -rows.losses[i])[:9]
    assert chosen(load_selector("hard_batches"), rows, 9).indices.tolist() == sorted(by_loss)
    by_excess = sorted(range(40), key=lambda i: rows.reference_losses[i] - rows.losses[i])[:9]
    assert chosen(load_selector("rho"), rows, 9).indices.tolist() == sorted(by_excess)
    assert chosen(load_selector("rho", noise=1e-6), rows, 9).indices.tolist() == sorted(by_excess)


def test_a_row_without_a_loss_counts_as_its_source_does() -> None:
    rows = Candidates(np.array([0, 0, 1, 1, 1]), losses=np.array([1.0, np.nan, 5.0, np.nan, 2.0]))
    assert chosen(load_selector("hard_batches"), rows, 2).indices.tolist() == [2, 3]  # 5, and (5 + 2) / 2


@pytest.mark.parametrize("name", ["hard_batches", "rho", "stochastic"])
def test_by_source_keeps_the_mixture(name: str) -> None:
    rng = np.random.default_rng(1)
    sources = np.repeat([0, 1, 2], [20, 15, 5])
    losses = rng.gamma(4, 0.7, 40) + 9 * (sources == 2)
    rows = Candidates(sources, losses=losses, reference_losses=np.ones(40))
    plain = chosen(load_selector(name), rows, 8)
    assert np.bincount(sources[plain.indices], minlength=3)[2] > 1
    found = chosen(load_selector(name, by_source=True), rows, 8)
    assert np.bincount(sources[found.indices], minlength=3).tolist() == [4, 3, 1]


@pytest.mark.parametrize("law", ["softmax", "power", "softrank"])
@pytest.mark.parametrize("by_source", [False, True])
def test_weights_make_the_mean_over_drawn_rows_unbiased(law: str, by_source: bool) -> None:
    rows = candidates(30, seed=3)
    values = np.random.default_rng(4).normal(size=30) + rows.sources
    selector = load_selector("stochastic", law=law, unbiased=True, by_source=by_source)
    means = []
    for seed in range(1000):
        found = chosen(selector, rows, 10, seed)
        means.append((found.weights * values[found.indices]).mean())
    error = np.std(means) / np.sqrt(len(means))
    assert abs(np.mean(means) - values.mean()) < 5 * error
    assert error < 0.03  # of values with a deviation of about 1.3


def test_budgets_are_proportional_and_what_is_left_goes_to_the_smallest() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        sizes = rng.integers(0, 30, rng.integers(1, 8))
        k = int(rng.integers(0, sizes.sum() + 1))
        budgets = proportional_budgets(sizes, k)
        exact = sizes * k / max(sizes.sum(), 1)
        assert budgets.sum() == k
        assert (budgets <= sizes).all()
        assert (np.abs(budgets - exact) <= 1).all()


def test_a_row_table_forgets_only_for_newcomers() -> None:
    table, rng = RowTable(64), np.random.default_rng(0)
    held: dict[int, float] = {}
    for step in range(50):
        ids, values = rng.integers(0, 2**64, 4, dtype=np.uint64), rng.normal(size=4).astype(np.float32)
        table.put(ids, values)
        np.testing.assert_array_equal(table.get(ids[-1:]), values[-1:])
        held |= dict(zip(ids.tolist(), values.tolist(), strict=True))
        found = table.get(np.array(list(held), np.uint64))
        still = ~np.isnan(found)
        np.testing.assert_array_equal(found[still], np.array(list(held.values()), np.float32)[still])
        assert still.sum() == (~np.isnan(table.values)).sum()
        assert step > 3 or still.sum() >= len(held) - 4
    twin = RowTable(64).loaded("t", json.loads(json.dumps(table.state_dict())))
    np.testing.assert_array_equal(twin.row_ids, table.row_ids)
    np.testing.assert_array_equal(twin.values, table.values)
    with pytest.raises(ValueError, match="t is a table of 64 rows, this selector's has 128"):
        RowTable(128).loaded("t", table.state_dict())

"""Selectors that remember or move: InfoBatch, SeTa, RS2, multistage."""

from itertools import pairwise

import numpy as np
import pytest

from cuvee.streaming.epoch_selectors import InfoBatch, Rs2, SeTa, exact_draw, grouped
from cuvee.streaming.multistage import Multistage
from cuvee.streaming.selection import Candidates, Selection, Selector


def chosen(selector: Selector, rows: Candidates, k: int, seed: int = 0) -> Selection:
    return selector.select(rows, k, np.random.default_rng(seed))


def rows_of(losses: np.ndarray, first_id: int = 0) -> Candidates:
    return Candidates(
        np.zeros(losses.size, np.int64),
        losses=losses,
        row_ids=np.arange(first_id, first_id + losses.size, dtype=np.uint64),
    )


def test_rows_are_drawn_each_with_its_chance_and_their_number_is_exact() -> None:
    rng, n_draws = np.random.default_rng(0), 5000
    chances = rng.random(12)
    chances *= 5 / chances.sum()
    assert chances.max() < 1
    counts = np.zeros(12)
    for _ in range(n_draws):
        rows = exact_draw(chances, rng)
        assert np.unique(rows).size == 5
        counts[rows] += 1
    error = np.sqrt(chances * (1 - chances) / n_draws)
    assert (np.abs(counts / n_draws - chances) < 5 * error).all()


@pytest.mark.parametrize(("k", "ratio"), [(10, 0.5), (25, 0.5), (28, 0.9), (5, 0.0)])
def test_infobatch_is_unbiased_whatever_k_and_ratio(k: int, ratio: float) -> None:
    rng = np.random.default_rng(0)
    losses = rng.gamma(2, 1, 30)
    values, rows, means = losses**2 + rng.normal(size=30), rows_of(losses), list[float]()
    hard = np.zeros(30)
    for seed in range(600):
        found = chosen(InfoBatch(ratio=ratio), rows, k, seed)
        means.append(float((found.weights * values[found.indices]).mean()))
        hard[found.indices] += 1 / 600
    assert abs(np.mean(means) - values.mean()) < 5 * np.std(means) / np.sqrt(600) + 1e-9
    is_low = losses < losses.mean()
    high, low = hard[~is_low].mean(), hard[is_low].mean()
    assert ratio == 0 or low < high
    if k == 10:  # neither side is full: exactly the ratio
        assert low / high == pytest.approx(1 - ratio, abs=5 * np.sqrt(0.25 / 600 / 10) / high)


def test_infobatch_goes_by_the_last_loss_that_it_was_told() -> None:
    ids = np.arange(20, dtype=np.uint64) + 2**60
    selector = InfoBatch(ratio=0.9)
    blind = Candidates(np.zeros(20, np.int64), row_ids=ids)
    told = np.where(np.arange(20) < 10, 5.0, 1.0)
    told[3] = np.nan
    selector.observe(Candidates(np.zeros(20, np.int64), losses=told, row_ids=ids))
    # Row 3 was not reported: it counts as the mean of the others, which is below the mean of none.
    counts = np.zeros(20)
    for seed in range(300):
        counts[chosen(selector, blind, 9, seed).indices] += 1
    assert counts[:3].min() > 3 * counts[10:].max()


def test_infobatch_leaves_nothing_out_at_the_end_of_a_run() -> None:
    selector = InfoBatch(ratio=0.9, n_total=16)
    rows = rows_of(np.arange(20.0))
    weights = [chosen(selector, rows, 8, seed).weights for seed in range(16)]
    assert all((w != 1).all() for w in weights[:14])
    assert all((w == 1).all() for w in weights[14:])


def test_rs2_uses_every_row_before_any_comes_again() -> None:
    selector, counts = Rs2(table_size=1 << 20), np.zeros(60, int)
    batches = [rows_of(np.zeros(20), first_id=first) for first in (0, 20, 40)]
    for epoch in range(8):
        for number, batch in enumerate(batches):
            found = chosen(selector, batch, 5, seed=10 * epoch + number)
            counts[20 * number + found.indices] += 1
        assert np.ptp(counts) <= 1
        assert counts.sum() == 15 * (epoch + 1)
    assert (counts == 2).all()


def test_rs2_with_other_batches_each_epoch_uses_nearly_every_row_once() -> None:
    selector, counts, rng = Rs2(table_size=1 << 20), np.zeros(400, int), np.random.default_rng(0)
    for _ in range(4):
        order = rng.permutation(400)
        for start in range(0, 400, 40):
            ids = order[start : start + 40]
            batch = Candidates(np.zeros(40, np.int64), row_ids=ids.astype(np.uint64))
            counts[ids[selector.select(batch, 10, rng).indices]] += 1
    by_chance = 400 * 0.75**4  # rows that independent draws would never have used
    assert (counts == 0).sum() < 0.4 * by_chance


def test_setas_window_slides_from_easy_to_hard_and_begins_again() -> None:
    selector = SeTa(ratio=0.0, n_groups=5, scale=0.4, period=2)
    losses = np.random.default_rng(0).permutation(np.repeat(np.arange(5.0), 8))
    means = []
    for seed in range(10):
        found = chosen(selector, rows_of(losses), 8, seed)
        means.append(losses[found.indices].mean())
        first = seed // 2 % 4
        assert set(losses[found.indices]) <= {first, first + 1.0}
    assert means[6] > means[4] > means[2] > means[0]
    assert means[8] < 1


def test_seta_fills_from_the_nearest_groups_and_ends_with_all() -> None:
    losses = np.repeat(np.arange(5.0), 8)
    found = chosen(SeTa(ratio=0.0, n_groups=5, scale=0.2, period=0), rows_of(losses), 12)
    assert np.bincount(losses[found.indices].astype(int), minlength=5).tolist() == [8, 4, 0, 0, 0]
    selector = SeTa(n_groups=5, scale=0.2, period=1000, n_total=8)
    seen = [set(losses[chosen(selector, rows_of(losses), 8, seed).indices]) for seed in range(8)]
    assert all(len(values) <= 2 for values in seen[:7])
    assert len(seen[7]) > 2


def test_groups_are_runs_of_rising_losses() -> None:
    losses = np.random.default_rng(0).gamma(3, 1, 50)
    groups = grouped(losses, 6)
    ends = [(losses[groups == g].min(), losses[groups == g].max()) for g in range(6)]
    assert all(a[1] < b[0] for a, b in pairwise(ends))
    assert grouped(losses[:3], 6).tolist() == np.argsort(np.argsort(losses[:3])).tolist()


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.8])
def test_the_threshold_follows_a_quantile_that_moves(keep: float) -> None:
    selector, rng = Multistage(keep=keep, warm_up=0, rate=0.002), np.random.default_rng(0)
    for level in (3.0, 1.0):
        shares = []
        for step in range(200):
            losses = level + rng.gamma(3, 0.3, 64)
            if step >= 100:
                shares.append((losses >= selector.threshold).mean())
            chosen(selector, rows_of(losses), 32, seed=step)
        # 6,400 losses, and a threshold that is itself worth some 1 / (2 · rate) of them: 250.
        error = np.sqrt(keep * (1 - keep) * (1 / 6400 + 1 / 250))
        assert abs(np.mean(shares) - keep) < 5 * error


def test_multistage_fills_the_batch_by_chance_above_and_by_loss_below() -> None:
    selector, losses = Multistage(keep=0.25, warm_up=0), np.random.default_rng(0).permutation(np.arange(40.0))
    chosen(selector, rows_of(losses), 20)
    few = [chosen(selector, rows_of(losses), 5, seed).indices for seed in range(30)]
    assert all((losses[rows] >= 28).all() for rows in few)
    assert len({tuple(rows.tolist()) for rows in few}) > 20
    many = losses[chosen(selector, rows_of(losses), 20).indices]
    assert sorted(many) == list(range(20, 40))


def test_the_predictor_chooses_hard_rows_without_their_losses() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=6)
    selector = Multistage(predictor=True, warm_up=10, keep=0.25)

    def batch() -> tuple[Candidates, np.ndarray]:
        features = rng.normal(size=(64, 6)).astype(np.float32)
        return Candidates(np.zeros(64, np.int64), features=features), 3 + features @ truth

    for step in range(40):
        rows, losses = batch()
        found = chosen(selector, rows, 16, seed=step)
        trained = Candidates(
            rows.sources[found.indices],
            losses[found.indices],
            features=rows.features[found.indices],  # type: ignore[index]
        )
        selector.observe(trained)
    rows, losses = batch()
    np.testing.assert_allclose(selector.predicted(rows), losses, atol=0.1)
    found = chosen(selector, rows, 16)
    assert losses[found.indices].mean() > losses.mean() + 0.8 * losses.std()
    with pytest.raises(ValueError, match="features have 5 columns, those before had 6"):
        chosen(selector, Candidates(np.zeros(4, np.int64), features=np.ones((4, 5), np.float32)), 2)

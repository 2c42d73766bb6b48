"""Selectors by features, against slow restatements of their papers."""

from itertools import combinations
from typing import Any

import numpy as np
import pytest

from cuvee.streaming.coreset_selectors import CoLM, FacilityLocation, Jest, kept_whole, medoids
from cuvee.streaming.selection import Candidates, Selection, Selector, proportional_budgets
from cuvee.streaming.topic_selector import Topic, halved


def chosen(selector: Selector, rows: Candidates, k: int, seed: int = 0) -> Selection:
    return selector.select(rows, k, np.random.default_rng(seed))


def candidates(n: int, d: int, seed: int, sources: Any = None, **fields: Any) -> Candidates:
    rng = np.random.default_rng(seed)
    where = rng.integers(0, 3, n) if sources is None else np.asarray(sources)
    return Candidates(where, features=rng.normal(size=(n, d)).astype(np.float32), **fields)


def coverage(features: np.ndarray, rows: Any) -> float:
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    return float(np.maximum(unit[list(rows)] @ unit.T, 0).max(axis=0).sum())


@pytest.mark.parametrize("seed", range(4))
def test_facility_location_covers_nearly_as_much_as_the_best_rows_do(seed: int) -> None:
    rows = candidates(11, 3, seed)
    assert rows.features is not None
    found = chosen(FacilityLocation(by_source=False), rows, 4)
    best = max(coverage(rows.features, subset) for subset in combinations(range(11), 4))
    assert coverage(rows.features, found.indices) >= (1 - 1 / np.e) * best - 1e-5


def test_facility_location_takes_one_row_of_each_cluster_and_weighs_it_by_the_cluster() -> None:
    sizes, rng = [12, 5, 3], np.random.default_rng(0)
    features = np.eye(3)[np.repeat(range(3), sizes)] + 0.01 * rng.normal(size=(20, 3))
    rows = Candidates(np.zeros(20, np.int64), features=features.astype(np.float32))
    found = chosen(FacilityLocation(weighted=True), rows, 3)
    np.testing.assert_allclose(found.weights, np.array(sizes) * 3 / 20, rtol=1e-6)
    assert [i < 12 for i in found.indices] == [True, False, False]


def test_quality_turns_coverage_into_the_hardest_rows() -> None:
    losses = np.random.default_rng(1).gamma(4, 0.7, 60)
    rows = candidates(60, 8, 0, losses=losses)
    plain, hard = (chosen(FacilityLocation(quality=q, by_source=False), rows, 15) for q in (0.0, 1e4))
    assert sorted(np.argsort(-losses)[:15]) == hard.indices.tolist()
    assert plain.indices.tolist() != hard.indices.tolist()


def greedy_medoids(points: np.ndarray, k: int) -> tuple[list[int], np.ndarray]:
    """Medoids by L1 distance, each choice from scratch, and how similar each two points are."""
    apart = np.array([[sum(abs(p - q)) for q in points] for p in points])
    similar, found = apart.max() - apart, list[int]()
    for _ in range(k):
        left = [i for i in range(len(points)) if i not in found]
        found.append(max(left, key=lambda i: similar[[*found, i]].max(axis=0).sum()))
    return found, similar


def check_colm(
    batch: Candidates, found: Selection, t: int, past: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """One step of the paper for k = 10 of 24 rows and 4 coordinates; gives the moments after it."""
    assert batch.features is not None
    gradients, weights = batch.features.astype(float), dict(zip(found.indices, found.weights, strict=True))
    m = np.array([0.9 * past[0] + 0.1 * g for g in gradients])
    v = np.array([0.999 * past[1] + 0.001 * g**2 for g in gradients])
    u = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    small = np.flatnonzero(batch.sources == 2)  # 2 of 24 rows: 0.83 expected of 10
    assert all(weights[i] == pytest.approx(10 / 24) for i in small)
    for source, budget in ((0, 5), (1, 3)):  # 8 · 14 / 22 = 5.1, 8 · 8 / 22 = 2.9
        rows = np.flatnonzero(batch.sources == source)
        strength = np.abs(u[rows].mean(axis=0))
        kept = sorted(range(10), key=lambda c: -strength[c])[:4]
        expected, similar = greedy_medoids(u[rows][:, kept], budget)
        medoids_ = [list(rows).index(i) for i in found.indices if i in rows]
        assert len(medoids_) == budget
        # Two points that are left beside each other are equally good: choices may differ, not their worth.
        worth = similar[medoids_].max(axis=0).sum()
        assert worth == pytest.approx(similar[expected].max(axis=0).sum(), rel=1e-5)
        nearest = np.bincount(similar[medoids_].argmax(axis=0), minlength=budget)
        np.testing.assert_allclose([weights[rows[i]] for i in medoids_], nearest * 10 / 24, rtol=1e-5)
    return m[found.indices].mean(axis=0), v[found.indices].mean(axis=0)


def test_colm_does_what_its_paper_says_step_by_step() -> None:
    rng = np.random.default_rng(3)
    selector, past = CoLM(n_coordinates=4, keep_below=1.0, weighted=True), (np.zeros(10), np.zeros(10))
    for t in range(1, 7):
        batch = candidates(24, 10, t, sources=rng.permutation([0] * 14 + [1] * 8 + [2] * 2))
        found = chosen(selector, batch, 10)
        if t == 1:  # Adam's first steps are signs: medoids are many, so only the moments are compared
            assert batch.features is not None
            gradients = batch.features[found.indices].astype(float)
            past = 0.1 * gradients.mean(axis=0), 0.001 * (gradients**2).mean(axis=0)
        else:
            past = check_colm(batch, found, t, past)
        assert found.weights.mean() == pytest.approx(1)
        np.testing.assert_allclose(selector.m, past[0])
        np.testing.assert_allclose(selector.v, past[1])


def test_colm_on_one_number_a_row_finds_the_medoids_of_a_line() -> None:
    values = np.random.default_rng(0).normal(size=12)
    found, sizes = medoids(values[:, None], 3, 1)
    costs = {
        subset: np.abs(values[:, None] - values[list(subset)]).min(axis=1).sum()
        for subset in combinations(range(12), 3)
    }
    assert costs[tuple(sorted(found.tolist()))] == pytest.approx(min(costs.values()))
    assert sizes.sum() == 12


def test_small_sources_are_kept_up_to_half_of_the_batch() -> None:
    assert kept_whole(np.array([30, 1, 1, 1, 1]), 4, 1.0).tolist() == [False, True, True, False, False]
    assert not kept_whole(np.array([20, 20]), 10, 1.0).any()
    assert not kept_whole(np.array([39, 1]), 1, 1.0).any()


def test_colm_refuses_features_of_another_width() -> None:
    selector = CoLM()
    chosen(selector, candidates(8, 4, 0), 4)
    with pytest.raises(ValueError, match="features have 5 columns, those before had 4"):
        chosen(selector, candidates(8, 5, 0), 4)


def test_colm_keeps_more_of_the_mean_gradient_than_chance() -> None:
    # Gradients of four directions: medoids, weighted by those they stand for, have nearly the mean of all.
    rng, errors = np.random.default_rng(0), {"colm": list[float](), "random": list[float]()}
    for seed in range(30):
        directions = rng.normal(size=(4, 16))
        gradients = directions[rng.integers(0, 4, 64)] + 0.05 * rng.normal(size=(64, 16))
        rows = Candidates(np.zeros(64, np.int64), features=gradients.astype(np.float32))
        found = chosen(CoLM(weighted=True), rows, 8, seed)
        kept = (found.weights[:, None] * gradients[found.indices]).mean(axis=0)
        by_chance = gradients[rng.choice(64, 8, replace=False)].mean(axis=0)
        errors["colm"].append(float(np.linalg.norm(kept - gradients.mean(axis=0))))
        errors["random"].append(float(np.linalg.norm(by_chance - gradients.mean(axis=0))))
    assert np.mean(errors["colm"]) < 0.3 * np.mean(errors["random"])


def test_jest_draws_learnable_rows_that_differ() -> None:
    topic = np.repeat(np.arange(8), 8)
    rng = np.random.default_rng(0)
    features = (np.eye(8)[topic] + 0.01 * rng.normal(size=(64, 8))).astype(np.float32)
    excess = 3.0 * (topic < 4)
    rows = Candidates(np.zeros(64, np.int64), excess + 1.0, np.ones(64), features)
    counts = {redundancy: np.zeros(8) for redundancy in (0.0, 4.0)}
    for redundancy, count in counts.items():
        for seed in range(100):
            found = chosen(Jest(redundancy=redundancy, beta=8.0, n_blocks=8), rows, 8, seed)
            count += np.bincount(topic[found.indices], minlength=8)
            assert redundancy == 0 or np.bincount(topic[found.indices]).max() <= 3
        assert count[4:].sum() < 0.02 * count.sum()
    by_source = chosen(Jest(by_source=True), Candidates(topic // 2, excess, np.ones(64), features), 8)
    assert np.bincount(topic[by_source.indices] // 2).tolist() == [2, 2, 2, 2]


def test_topics_come_in_whole_clusters() -> None:
    topic = np.random.default_rng(0).permutation(np.repeat(np.arange(8), 8))
    features = np.eye(8)[topic] + 0.01 * np.random.default_rng(1).normal(size=(64, 8))
    rows = Candidates(np.zeros(64, np.int64), features=features.astype(np.float32))
    for seed in range(5):
        counts = np.bincount(topic[chosen(Topic(rows=8), rows, 16, seed).indices], minlength=8)
        assert set(counts.tolist()) <= {0, 8}
        whole = np.bincount(topic[chosen(Topic(form="ngame", rows=8), rows, 16, seed).indices], minlength=8)
        assert (whole > 0).sum() <= 4


@pytest.mark.parametrize("form", ["tas", "ngame"])
def test_every_row_of_a_topic_batch_has_the_same_chance(form: Any) -> None:
    topic = np.repeat([0, 1, 2, 3], [4, 8, 12, 16])
    features = (np.eye(4)[topic] + 1e-3 * np.random.default_rng(1).normal(size=(40, 4))).astype(np.float32)
    rows, counts, n_draws = Candidates(np.zeros(40, np.int64), features=features), np.zeros(40), 150
    for seed in range(n_draws):
        counts[chosen(Topic(form=form, rows=4), rows, 8, seed).indices] += 1
    # Rows of a topic come together, so their mean over the topic is as noisy as two turns of four rows.
    error = np.sqrt(0.2 * 0.8 / n_draws)
    for number in range(4):
        assert abs(counts[topic == number].mean() / n_draws - 0.2) < 5 * error


def test_halving_makes_clusters_of_like_size_and_like_rows() -> None:
    rng = np.random.default_rng(0)
    topic = np.repeat(np.arange(8), 16)
    features = np.eye(8)[topic] + 0.02 * rng.normal(size=(128, 8))
    which = halved(features, 20, rng)
    assert np.bincount(which).tolist() == [16] * 8
    # Halving cannot part eight equal topics wrongly more than at a few borders; by chance 1/8 would agree.
    agree = np.mean([np.bincount(topic[which == c]).max() / 16 for c in range(8)])
    assert agree > 0.6
    assert np.bincount(halved(rng.normal(size=(13, 3)), 1, rng)).tolist() == [1] * 13


def test_ngame_begins_with_rows_of_no_topic_and_doubles() -> None:
    topic = np.random.default_rng(0).permutation(np.repeat(np.arange(16), 4))
    features = (np.eye(16)[topic] + 1e-3 * np.random.default_rng(1).normal(size=(64, 16))).astype(np.float32)
    rows, selector = (
        Candidates(np.zeros(64, np.int64), features=features),
        Topic(form="ngame", rows=4, double_every=20),
    )
    n_topics = []
    for seed in range(60):
        found = chosen(selector, rows, 8, seed)
        n_topics.append(np.unique(topic[found.indices]).size)
    first, last = np.mean(n_topics[:20]), np.mean(n_topics[40:])
    assert first > 1.5 * last


def test_budgets_by_source_hold_for_facility_location() -> None:
    rows = candidates(50, 6, 0)
    found = chosen(FacilityLocation(), rows, 20)
    expected = proportional_budgets(np.bincount(rows.sources), 20)
    assert np.bincount(rows.sources[found.indices]).tolist() == expected.tolist()

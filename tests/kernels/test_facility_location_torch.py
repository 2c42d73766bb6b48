"""Facility location on tensors against the compiled kernel."""

import numpy as np
import pytest

from cuvee.kernels.facility_location import facility_location
from cuvee.kernels.facility_location_sparse import facility_location_sparse
from cuvee.kernels.facility_location_torch import facility_location_torch, nearest_cosines
from cuvee.streaming.selectors import Candidates, load_selector

torch = pytest.importorskip("torch")


def features_of(n_rows: int, seed: int) -> np.ndarray:
    """Points around a few centres, some of them twice."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(6, 8))[rng.integers(0, 6, n_rows)] + rng.normal(size=(n_rows, 8))
    points[1::5] = points[::5][: len(points[1::5])]
    return points.astype(np.float32)


@pytest.mark.parametrize("limits", ["none", "groups and bonus"])
@pytest.mark.parametrize("n_items", [1, 31, 130, 700])
def test_tensors_are_chosen_as_arrays_are_bit_for_bit(n_items: int, limits: str) -> None:
    rng = np.random.default_rng(n_items)
    similarity = features_of(90, 0) @ features_of(n_items, 1).T
    similarity[3] = similarity[70]  # of equals the first
    given = {}
    if limits != "none":
        bonus = rng.integers(0, 3, 90).astype(np.float32)
        given = {"groups": rng.integers(0, 3, 90), "budgets": np.array([9, 0, 25]), "bonus": bonus}
    found = facility_location_torch(torch.from_numpy(similarity), 60, **given)
    expected = facility_location(similarity, 60, **given)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_cannot_be_chosen_from_is_refused_alike() -> None:
    square = torch.ones(3, 3)
    square[1, 2] = float("nan")
    with pytest.raises(ValueError, match=r"similarity\[1, 2\] is nan; all values must be finite"):
        facility_location_torch(square, 1)
    with pytest.raises(ValueError, match="k is 4; of 3 rows 1 to 3 can be chosen"):
        facility_location_torch(square, 4)
    with pytest.raises(ValueError, match="n_neighbours is 9; of 3 rows 1 to 3 can be the nearest"):
        nearest_cosines(square, 9)


def test_nearest_rows_are_those_of_all_pairs_and_can_be_chosen_from() -> None:
    features = np.random.default_rng(2).normal(size=(150, 16)).astype(np.float32)
    features[5] = 0
    starts, items, similarity = nearest_cosines(torch.from_numpy(features), 12, rows_at_once=64)
    unit = features.astype(np.float64) / np.maximum(np.linalg.norm(features, axis=1), 1e-30)[:, None]
    cosines = unit @ unit.T
    greatest = -np.sort(-cosines, axis=1)[:, :12]
    # Sums of 16 products of float32 below 1: 16 roundings of 6e-8.
    np.testing.assert_allclose(similarity.reshape(150, 12), greatest, atol=2e-6)
    np.testing.assert_allclose(cosines[np.repeat(np.arange(150), 12), items], similarity, atol=2e-6)
    assert facility_location_sparse(starts, items, similarity, 150, 30).indices.size == 30


def test_a_selector_on_a_device_chooses_what_it_does_without_one() -> None:
    features = features_of(64, 3)
    candidates = Candidates(np.arange(64) % 3, features=features)
    chosen = [
        load_selector("facility_location", device=device).select(candidates, 16, np.random.default_rng(0))
        for device in (None, "cpu")
    ]
    # Which of two equal rows is first may hang on the last digit of a product, not what they cover.
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    one, other = ((unit @ unit[found.indices].T).max(axis=1).sum(dtype=np.float64) for found in chosen)
    assert one == pytest.approx(other, rel=1e-5)

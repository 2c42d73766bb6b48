"""The map keeps neighbours together, and repeats itself."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from cuvee.kernels.embedding import to_unit
from cuvee.kernels.neighbour_map import (
    joint_affinities,
    neighbour_map,
    tsne_gradient,
    tsne_gradient_reference,
)

SEEDS = st.integers(0, 2**32 - 1)


@given(seed=SEEDS, n=st.integers(2, 12))
def test_the_gradient_is_that_of_the_reference(seed, n):
    random = np.random.default_rng(seed)
    affinities = random.random((n, n))
    affinities = np.triu(affinities, 1) + np.triu(affinities, 1).T
    position = random.normal(size=(n, 2))
    # Two orders of summation of some n**2 terms of order 1.
    np.testing.assert_allclose(
        tsne_gradient(position, affinities), tsne_gradient_reference(position, affinities), atol=1e-9
    )


def test_affinities_are_symmetric_shares_of_the_perplexity_asked_for():
    vectors = to_unit(np.random.default_rng(0).normal(size=(60, 5)))
    affinities = joint_affinities(vectors, 10.0)
    np.testing.assert_allclose(affinities, affinities.T)
    assert affinities.sum() == pytest.approx(1)
    assert not np.diag(affinities).any()


def test_clouds_lie_apart_and_the_map_is_the_same_each_time():
    random = np.random.default_rng(0)
    which = np.repeat(np.arange(3), 40)
    vectors = to_unit(np.eye(6)[which] + 0.2 * random.normal(size=(120, 6)))
    position = neighbour_map(vectors)
    distances = np.linalg.norm(position[:, None] - position[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    assert (which[distances.argmin(axis=1)] == which).all()
    np.testing.assert_array_equal(neighbour_map(vectors), position)


@pytest.mark.parametrize("n", [0, 1, 3, 4, 5])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_few_or_equal_documents_have_finite_places(n, d):
    assert neighbour_map(to_unit(np.ones((n, d)))).shape == (n, 2)
    assert np.isfinite(neighbour_map(to_unit(np.ones((n, d))))).all()

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from cuvee.kernels.union_find import components, components_reference

NODES = st.integers(-3, 12) | st.sampled_from([-(2**63), 2**63 - 1])
EDGES = st.lists(st.tuples(NODES, NODES), max_size=20)


def _columns(edges):
    return np.array(edges, np.int64).reshape(-1, 2).T


@given(EDGES)
def test_kernel_and_reference_agree_on_every_graph(edges):
    for found, expected in zip(
        components(*_columns(edges)), components_reference(*_columns(edges)), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@given(EDGES, st.randoms(use_true_random=False))
def test_the_order_and_direction_of_edges_do_not_matter(edges, random):
    turned = [random.choice([(a, b), (b, a)]) for a, b in edges]
    random.shuffle(turned)
    for found, expected in zip(components(*_columns(turned)), components(*_columns(edges)), strict=True):
        np.testing.assert_array_equal(found, expected)


@given(EDGES, EDGES)
def test_a_forest_stands_for_the_edges_it_was_made_of(left, right):
    forests = [np.array(components(*_columns(edges))) for edges in (left, right)]
    for found, expected in zip(
        components(*np.concatenate(forests, axis=1)), components(*_columns(left + right)), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_a_path_through_all_nodes_is_one_component():
    a = np.random.default_rng(0).permutation(100_000)
    nodes, roots = components(a[:-1], a[1:])
    assert (nodes == np.arange(100_000)).all()
    assert (roots == 0).all()

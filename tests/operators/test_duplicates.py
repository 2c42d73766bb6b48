"""Both deduplications, by way of what they share."""

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from pydantic import ValidationError

from cuvee.operators.exact_dedup import ExactDedup
from cuvee.operators.minhash_dedup import MinHashDedup

OPERATORS = [
    ExactDedup(),
    ExactDedup(keep="longest", normalise="whitespace_case"),
    ExactDedup(keep="best", by="stars"),
    MinHashDedup(),
    MinHashDedup(keep="longest", ngram=2, n_bands=20, rows_per_band=2, threshold=0.3, seed=7),
    MinHashDedup(unit="characters", ngram=12, keep="best", by="stars"),
    MinHashDedup(verify="signature", threshold=0.5),
    MinHashDedup(verify="none", keep="longest"),
]
ROWS = st.integers(0, 12) | st.integers(0, 3).map(lambda shard: shard << 32 | 5)
CLUSTERS = st.lists(st.sets(ROWS, min_size=1), max_size=6)


def _observe(clusters, keep):
    """Observations in which the rows of a cluster share a key; row r has priority 7 r mod 5."""
    rows = [(key, row) for key, members in enumerate(clusters) for row in members]
    columns = {"key": pa.array([key for key, _ in rows], pa.uint64())}
    columns["_row"] = pa.array([row for _, row in rows], pa.int64())
    if keep == "longest":
        columns["priority"] = pa.array([row * 7 % 5 for _, row in rows], pa.int64())
    return pa.table(columns)


def _expected_state(clusters, keep):
    merged = []
    for cluster in map(set, clusters):
        for other in [other for other in merged if other & cluster]:
            merged.remove(other)
            cluster |= other
        merged.append(cluster)
    rows = {}
    for cluster in filter(lambda cluster: len(cluster) > 1, merged):
        best = sorted(cluster, key=lambda row: (-(row * 7 % 5) if keep == "longest" else 0, row))
        rows |= {row: (best[0], len(cluster), rank) for rank, row in enumerate(best)}
    return [(row, *rows[row]) for row in sorted(rows)]


@pytest.mark.parametrize("operator", OPERATORS)
def test_it_keeps_the_contract_of_an_operator(operator, documents, check_operator):
    check_operator(operator, documents)


@pytest.mark.parametrize("keep", ["first", "longest"])
@given(clusters=CLUSTERS)
def test_the_state_names_every_cluster_and_its_keeper(keep, clusters):
    operator = MinHashDedup(verify="none", keep=keep)
    state = operator.finish(operator.merge([operator.combine(_observe(clusters, keep))]))
    assert state.column_names == ["row", "keeper", "cluster_size", "rank"]
    assert list(zip(*state.to_pydict().values(), strict=True)) == _expected_state(clusters, keep)


@pytest.mark.parametrize("keep", ["first", "longest"])
@given(parts=st.lists(CLUSTERS, min_size=1, max_size=4), order=st.randoms(use_true_random=False))
def test_merges_in_any_order_give_the_same_bytes(keep, parts, order):
    operator = MinHashDedup(verify="none", keep=keep)
    partials = [operator.combine(_observe(clusters, keep)) for clusters in parts]
    at_once = operator.merge(partials)
    while len(partials) > 1:
        order.shuffle(partials)
        partials.append(operator.merge([partials.pop(), partials.pop()]))
    assert operator.merge(partials).equals(at_once)


@given(parts=st.lists(CLUSTERS, min_size=1, max_size=3))
def test_a_forest_is_never_larger_than_the_documents_named(parts):
    operator = MinHashDedup(verify="none")
    forest = operator.merge([operator.combine(_observe(clusters, "first")) for clusters in parts])
    named = {row for clusters in parts for cluster in clusters for row in cluster}
    assert forest.num_rows <= len(named)


def test_equal_texts_leave_but_the_first(documents, check_operator):
    result = check_operator(ExactDedup(), documents)
    assert np.flatnonzero(result["reason"].is_valid()).tolist() == [5, 11]
    assert result["exact_dedup.keeper"].to_pylist() == [0, 1, 2, 3, 4, 0, 6, 7, 8, 9, 10, 1, 12]
    assert result["exact_dedup.cluster_size"].to_pylist() == [2, 2, 1, 1, 1, 2, 1, 1, 1, 1, 1, 2, 1]


def test_case_and_white_space_may_be_overlooked(documents, check_operator):
    result = check_operator(ExactDedup(normalise="whitespace_case"), documents)
    assert np.flatnonzero(result["reason"].is_valid()).tolist() == [5, 6, 7, 11]


def test_the_longest_may_stay(documents, check_operator):
    result = check_operator(ExactDedup(keep="longest", normalise="whitespace_case"), documents)
    assert np.flatnonzero(result["reason"].is_null()).tolist() == [1, 2, 3, 6, 7, 8, 9, 10, 12]
    assert result["exact_dedup.rank"].to_pylist()[:8] == [1, 0, 0, 0, 1, 2, 0, 0]


def test_texts_that_share_half_of_their_hash_are_not_the_same():
    operator = ExactDedup()
    columns = {"key": pa.array([1, 1, 1], pa.uint64()), "check": pa.array([5, 6, 5], pa.uint64())}
    forest = operator.combine(pa.table({**columns, "_row": pa.array([4, 3, 9], pa.int64())}))
    assert operator.finish(forest)["row"].to_pylist() == [4, 9]


def test_near_duplicates_leave(documents, check_operator):
    result = check_operator(MinHashDedup(), documents)
    # 2 differs from 0 in two words and 12 in five more; 5 and 7 are 0 again, 11 is 1.
    assert {2, 5, 7, 11, 12} <= set(np.flatnonzero(result["reason"].is_valid()).tolist())
    assert set(result["reason"].drop_null().to_pylist()) == {"duplicate"}


def test_documents_shorter_than_a_shingle_always_stay(table_of, check_operator):
    result = check_operator(MinHashDedup(), table_of("a b c d", "a b c d", ""))
    assert result["reason"].null_count == 3


def test_similar_documents_are_candidates_as_often_as_the_theory_says():
    operator = MinHashDedup(ngram=1, n_bands=14, rows_per_band=3, verify="none")
    n_pairs, text = 400, []
    for pair in range(n_pairs):
        words = [f"w{pair}x{i}" for i in range(150)]
        text += [" ".join(words[:100]), " ".join(words[50:])]
    table = pa.table(
        {"text": pa.array(text, pa.large_string()), "_row": pa.array(range(2 * n_pairs), pa.int64())}
    )
    state = operator.finish(operator.merge([operator.combine(operator.observe(table))]))
    found = state.num_rows / 2 / n_pairs
    # J = 50 / 150 = 1/3: P = 1 - (1 - 1/27)**14 = 0.4105; 5 standard errors of a binomial of 400.
    assert abs(found - 0.4105) < 5 * (0.4105 * 0.5895 / n_pairs) ** 0.5


@pytest.mark.parametrize(
    "wrong", [{"ngram": 0}, {"n_bands": "14"}, {"keep": "best"}, {"seed": -1}, {"num_perm": 128}]
)
def test_a_wrong_parameter_is_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        MinHashDedup(**wrong)

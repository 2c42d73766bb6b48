import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.operators.rehydrate import Rehydrate, weights_of_rates


def _repeat(sizes, scores=None, **parameters):
    table = pa.table({"minhash_dedup.cluster_size": pa.array(sizes, pa.int64())})
    if scores is not None:
        table = table.append_column("score", pa.array(scores, pa.float32()))
    return Rehydrate(**parameters).apply(table)["rehydrate.repeat"].to_pylist()


def test_it_keeps_the_contract_of_an_operator(documents, check_operator):
    sizes = pa.array([1, 2, 3, 4, 5, 99, 100, 999, 1000, 10**9, 1, 1, None], pa.int64())
    check_operator(Rehydrate(), documents.append_column("minhash_dedup.cluster_size", sizes))


def test_the_default_weights_are_those_of_fineweb2():
    sizes = [1, 2, 3, 4, 5, 99, 100, 999, 1000, 50_000, None]
    assert _repeat(sizes) == [1, 2, 3, 3, 5, 5, 8, 8, 1, 1, None]


def test_quality_multiplies_and_a_missing_score_does_not_count():
    weights = {0.0: 0.5, 0.5: 1.0, 0.9: 2.0}
    found = _repeat([5, 5, 5, 5], [0.1, 0.5, 0.95, None], quality="score", quality_weights=weights)
    assert found == [2.5, 5, 10, 5]


def test_the_columns_read_are_those_of_the_parameters():
    assert Rehydrate.columns_read({}) == ("minhash_dedup.cluster_size",)
    parameters = {"cluster_size": "exact_dedup.cluster_size", "quality": "language.confidence"}
    assert Rehydrate.columns_read(parameters) == ("exact_dedup.cluster_size", "language.confidence")


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"no column 'exact_dedup\.cluster_size'; there are minhash_dedup"):
        _repeat([1], cluster_size="exact_dedup.cluster_size")


@pytest.mark.parametrize(
    ("weights", "message"), [({2: 1.0}, "from 1 on"), ({1: -1.0}, "is -1"), ({}, "at least 1")]
)
def test_weights_that_cannot_be_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        Rehydrate(weights=weights)


def test_a_size_that_filters_remove_least_gets_the_largest_weight():
    # Removed: half of size 1, a tenth of size 2, and of all 1200 / 3000 = 0.4; size 3 is as the average.
    assert weights_of_rates([1000, 1000, 1000], [700, 100, 400], max_weight=10) == {1: 1, 2: 10, 3: 1}


def test_small_sizes_share_one_rate():
    assert weights_of_rates([1000, 1000, 10, 10], [800, 200, 0, 10], max_weight=4) == {1: 1, 2: 4, 3: 1}


@given(
    st.lists(st.tuples(st.integers(1, 2000), st.floats(0, 1)), min_size=1, max_size=30), st.integers(1, 10)
)
def test_weights_lie_between_1_and_the_maximum(counts, max_weight):
    n_docs = [n for n, _ in counts]
    n_removed = [int(n * share) for n, share in counts]
    weights = weights_of_rates(n_docs, n_removed, max_weight)
    assert set(weights) >= {1}
    assert all(1 <= weight <= max_weight for weight in weights.values())
    assert Rehydrate(weights=weights).weights == weights


def test_rates_without_documents_are_refused():
    with pytest.raises(ValueError, match="found 1 sizes with 0 documents"):
        weights_of_rates([0], [0])
    assert np.isfinite(list(weights_of_rates([200, 0, 300], [0, 0, 100]).values())).all()

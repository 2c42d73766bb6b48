"""Duplicates by their vectors: which stays, who stands for whom, and where."""

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from cuvee.kernels.embedding import to_unit
from cuvee.operators import semantic_dedup
from cuvee.operators.semantic_dedup import SemanticDedup


def _vectors(cosines_to_first, leaves, similarities=None):
    """Documents whose vectors lie in a plane, at these cosines to the axis."""
    angles = np.arccos(cosines_to_first)
    n = len(angles)
    vectors = to_unit(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    return pa.table(
        {
            "id": [f"doc-{i}" for i in range(n)],
            "cluster.leaf": pa.array(leaves, pa.int64()),
            "cluster.similarity": pa.array(similarities or [0.5] * n, pa.float64()),
            "cluster.vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 2),
        }
    )


def test_what_resembles_a_document_that_stays_goes_and_no_chain_does(check_operator):
    # 0, 15 and 30 degrees: neighbours at 0.966, the ends at 0.866. The second goes, so the third stays.
    table = _vectors(np.cos(np.radians([0, 15, 30, 0])), [0, 0, 0, 1])
    result = check_operator(SemanticDedup(max_similarity=0.95), table)
    assert result["reason"].to_pylist() == [None, "semantic_duplicate", None, None]
    assert result["semantic_dedup.keeper"].to_pylist() == [0, 0, 2, 3]
    assert result["semantic_dedup.keeper_id"].to_pylist() == [None, "doc-0", None, None]
    # Rounding moves a cosine by 0.0001 in the mean.
    assert result["semantic_dedup.similarity"][1].as_py() == pytest.approx(np.cos(np.radians(15)), abs=5e-4)


@pytest.mark.parametrize(("keep", "stays"), [("hard", 2), ("easy", 1), ("first", 0)])
def test_who_stays_is_chosen_by_the_distance_to_the_centre(keep, stays, check_operator):
    table = _vectors([1.0, 1.0, 1.0], [0, 0, 0], [0.8, 0.9, 0.7])
    result = check_operator(SemanticDedup(keep=keep), table)
    assert np.flatnonzero(result["reason"].is_null()).tolist() == [stays]
    assert set(result["semantic_dedup.keeper"].to_pylist()) == {stays}


def test_a_document_without_a_cluster_stays(check_operator):
    result = check_operator(SemanticDedup(), _vectors([1.0, 1.0], [None, None]))
    assert result["reason"].null_count == 2


def test_a_leaf_too_large_to_compare_all_pairs_is_clustered_again(check_operator, monkeypatch):
    monkeypatch.setattr(semantic_dedup, "MAX_LEAF", 20)
    angles = np.repeat(np.linspace(0, np.pi, 60), 3)
    result = check_operator(SemanticDedup(max_similarity=0.999), _vectors(np.cos(angles), [0] * 180))
    # Neighbours are 3 degrees apart, cosine 0.9986: of each three equal documents, one stays.
    assert result["reason"].null_count == 60


def test_no_leaf_of_equal_documents_is_too_large(check_operator, monkeypatch):
    monkeypatch.setattr(semantic_dedup, "MAX_LEAF", 20)
    result = check_operator(SemanticDedup(), _vectors([1.0] * 100, [0] * 100))
    assert result["reason"].null_count == 1


def test_a_wrong_parameter_is_refused():
    with pytest.raises(ValidationError, match="max_similarity"):
        SemanticDedup(max_similarity=2.0)

"""Domains from words, and duplicates by their vectors."""

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from cuvee.kernels.embedding import UNIT
from cuvee.operators.cluster import UNCLUSTERED, Cluster
from cuvee.operators.semantic_dedup import SemanticDedup

TOPICS = {
    "wine": "cellar barrel grape vintage cork bottle vineyard oak tannin harvest",
    "code": "function variable compiler loop pointer thread integer array memory syntax",
    "law": "court statute appeal judge plaintiff clause verdict contract damages counsel",
}
CLUSTER = Cluster(n_clusters=3, dimensions=8, n_buckets=4096)


@pytest.fixture(scope="module")
def topics():
    random = np.random.default_rng(0)
    rows = [
        (topic, " ".join(random.choice(words.split(), 30)))
        for topic, words in TOPICS.items()
        for _ in range(40)
    ]
    order = random.permutation(len(rows))
    texts = [*(rows[i][1] for i in order), "", None]
    return pa.table(
        {
            "id": [f"doc-{i}" for i in range(len(texts))],
            "text": pa.array(texts, pa.large_string()),
            "topic": pa.array([*(rows[i][0] for i in order), "none", "none"]),
            "domain": pa.array(["given"] * len(texts), pa.string()),
        }
    )


def test_documents_of_one_topic_are_one_domain_named_by_its_words(topics, check_operator):
    result = check_operator(CLUSTER, topics)
    pairs = set(zip(result["topic"].to_pylist(), result["domain"].to_pylist(), strict=True))
    assert len(pairs) == 4, "one domain for each topic, and one for documents without words"
    for topic, domain in pairs:
        expected = {UNCLUSTERED} if topic == "none" else set(TOPICS[topic].split())
        assert set(domain.split("-")) <= expected


def test_vectors_have_one_length_and_similarities_are_their_cosines(topics, check_operator):
    result = check_operator(CLUSTER, topics)
    vectors = np.array(result["cluster.vector"].to_pylist(), float)
    assert (np.abs(np.linalg.norm(vectors[:-2], axis=1) - UNIT) < 2).all()
    assert (
        result["cluster.id"].to_pylist()[-2:] == result["cluster.similarity"].to_pylist()[-2:] == [None, None]
    )
    similarity = np.array(result["cluster.similarity"].to_pylist()[:-2])
    assert ((similarity > 0.5) & (similarity <= 1.001)).all()


def test_the_domain_may_stay_as_it_was(topics, check_operator):
    result = check_operator(CLUSTER.model_copy(update={"set_domain": False}), topics)
    assert set(result["domain"].to_pylist()) == {"given"}


def test_a_sample_decides_for_all_documents(topics, check_operator):
    result = check_operator(CLUSTER.model_copy(update={"sample_documents": 30}), topics)
    assert len(set(zip(result["topic"].to_pylist(), result["domain"].to_pylist(), strict=True))) == 4


def test_there_are_no_more_domains_than_different_documents(table_of, check_operator):
    table = table_of("one text", "one text", "another").append_column("id", pa.array(["a", "b", "c"]))
    table = table.append_column("domain", pa.nulls(3, pa.string()))
    result = check_operator(Cluster(dimensions=4), table)
    assert sorted(result["cluster.id"].to_pylist()) == [0, 0, 1]


def _vectors(cosines_to_first, clusters, similarities=None):
    """Documents whose vectors lie in a plane, at these cosines to the axis."""
    angles = np.arccos(cosines_to_first)
    vectors = np.rint(UNIT * np.stack([np.cos(angles), np.sin(angles)], axis=1)).astype(np.int16)
    n = len(angles)
    return pa.table(
        {
            "id": [f"doc-{i}" for i in range(n)],
            "cluster.id": pa.array(clusters, pa.int64()),
            "cluster.similarity": pa.array(similarities or [0.5] * n, pa.float64()),
            "cluster.vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 2),
        }
    )


def test_what_resembles_a_document_that_stays_goes_and_no_chain_does(check_operator):
    # 0, 15 and 30 degrees: neighbours at 0.966, the ends at 0.866. The second goes, so the third stays.
    table = _vectors(np.cos(np.radians([0, 15, 30, 0])), [0, 0, 0, 1])
    result = check_operator(SemanticDedup(), table)
    assert result["reason"].to_pylist() == [None, "semantic_duplicate", None, None]
    assert result["semantic_dedup.keeper"].to_pylist() == [0, 0, 2, 3]
    assert result["semantic_dedup.similarity"][1].as_py() == pytest.approx(np.cos(np.radians(15)), abs=1e-4)


@pytest.mark.parametrize(("keep", "stays"), [("hard", 2), ("easy", 1), ("first", 0)])
def test_who_stays_is_chosen_by_the_distance_to_the_centre(keep, stays, check_operator):
    table = _vectors([1.0, 1.0, 1.0], [0, 0, 0], [0.8, 0.9, 0.7])
    result = check_operator(SemanticDedup(keep=keep), table)
    assert np.flatnonzero(result["reason"].is_null()).tolist() == [stays]
    assert set(result["semantic_dedup.keeper"].to_pylist()) == {stays}


def test_a_document_without_a_cluster_stays(check_operator):
    result = check_operator(SemanticDedup(), _vectors([1.0, 1.0], [None, None]))
    assert result["reason"].null_count == 2


@pytest.mark.parametrize(
    ("operator", "wrong"),
    [(Cluster, {"n_clusters": 0}), (Cluster, {"dimensions": 0}), (SemanticDedup, {"max_similarity": 2.0})],
)
def test_a_wrong_parameter_is_refused(operator, wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        operator(**wrong)

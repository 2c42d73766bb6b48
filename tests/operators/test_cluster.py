"""Domains from words, and what they are called."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import ValidationError

from cuvee.kernels.embedding import UNIT
from cuvee.operators.base import ROW
from cuvee.operators.cluster import NO_CLUSTERS, Cluster
from cuvee.operators.cluster_names import name_clusters

from ..conftest import fit

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
        (topic, " ".join(random.choice([*words.split(), "the", "and"], 30)))
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


def _state(operator, table):
    table = table.append_column(ROW, pa.array(range(len(table)), pa.int64()))
    return fit(operator, [table]).to_pylist()[0]


def test_documents_of_one_topic_are_one_domain_named_by_its_words(topics, check_operator):
    result = check_operator(CLUSTER, topics)
    result = result.filter(result["cluster.id"].is_valid())
    pairs = set(zip(result["topic"].to_pylist(), result["domain"].to_pylist(), strict=True))
    assert len(pairs) == 3, "one domain for each topic"
    for topic, domain in pairs:
        assert set(domain.split("-")) <= set(TOPICS[topic].split()), "a stop word is no name"


def test_a_document_without_words_joins_the_largest_domain_and_has_no_cluster(topics, check_operator):
    result = check_operator(CLUSTER, topics)
    largest = pc.mode(result["cluster.id"])[0]["mode"].as_py()
    name = result.filter(pc.equal(result["cluster.id"], largest))["domain"][0].as_py()
    assert result["domain"].to_pylist()[-2:] == [name, name]
    for column in ("cluster.id", "cluster.leaf", "cluster.similarity"):
        assert result[column].to_pylist()[-2:] == [None, None]
    empty = check_operator(CLUSTER, topics.slice(len(topics) - 2))
    assert empty["domain"].to_pylist() == [NO_CLUSTERS] * 2


def test_vectors_have_one_length_and_similarities_are_their_cosines(topics, check_operator):
    result = check_operator(CLUSTER, topics)
    vectors = np.array(result["cluster.vector"].to_pylist(), float)
    assert (np.abs(np.linalg.norm(vectors[:-2], axis=1) - UNIT) < 2).all()
    similarity = np.array(result["cluster.similarity"].to_pylist()[:-2])
    assert ((similarity > 0.5) & (similarity <= 1.001)).all()


def test_shards_bring_the_texts_of_one_sample_together(topics):
    operator = CLUSTER.model_copy(update={"sample_documents": 30})
    table = topics.append_column(ROW, pa.array(range(len(topics)), pa.int64()))
    shards = [table.slice(start, 50) for start in range(0, len(table), 50)]
    partials = [operator.observe(shard) for shard in shards]
    assert all(partial.nbytes <= 24 * 30 for partial in partials)
    found = operator.finish(operator.merge(partials))
    again = [operator.observe_again(shard, found) for shard in shards]
    assert sum(len(texts) for texts in again) == 30


def test_documents_of_one_id_are_drawn_by_what_they_say(topics):
    operator = CLUSTER.model_copy(update={"sample_documents": 7})
    same = topics.set_column(0, "id", pa.array(["same"] * len(topics)))
    drawn = []
    for table in (same, same.take(pa.array(range(len(same))[::-1]))):
        table = table.append_column(ROW, pa.array(range(len(table)), pa.int64()))
        found = operator.finish(operator.observe(table))
        drawn.append(sorted(operator.observe_again(table, found)["text"].to_pylist()))
    assert drawn[0] == drawn[1]


def test_the_domain_may_stay_as_it_was(topics, check_operator):
    result = check_operator(CLUSTER.model_copy(update={"set_domain": False}), topics)
    assert set(result["domain"].to_pylist()) == {"given"}


def test_a_sample_decides_for_all_documents(topics, check_operator):
    result = check_operator(CLUSTER.model_copy(update={"sample_documents": 30}), topics)
    result = result.filter(result["cluster.id"].is_valid())
    assert len(set(zip(result["topic"].to_pylist(), result["domain"].to_pylist(), strict=True))) == 3


def test_leaves_lie_within_clusters_in_proportion_to_their_sizes(topics, check_operator):
    operator = CLUSTER.model_copy(update={"n_clusters": 2, "leaves_per_cluster": 3})
    result = check_operator(operator, topics).filter(
        pc.is_valid(check_operator(operator, topics)["cluster.id"])
    )
    pairs = set(zip(result["cluster.leaf"].to_pylist(), result["cluster.id"].to_pylist(), strict=True))
    assert len(pairs) == len(dict(pairs)) == 6, "a leaf has one cluster"
    # 80 documents of 120 have 4 of the 6 leaves, 40 have 2.
    assert sorted(np.bincount(list(dict(pairs).values()))) == [2, 4]


def test_a_balanced_clustering_gives_no_domain_more_than_its_share(topics, check_operator):
    # Two of the three topics would be one domain of 80 of the 120 documents.
    operator = CLUSTER.model_copy(update={"n_clusters": 2, "max_imbalance": 1.1})
    result = check_operator(operator, topics)
    sizes = np.bincount(result["cluster.id"].drop_null().to_numpy())
    assert sizes.max() <= 66


def test_small_clusters_are_dissolved(topics):
    few = pa.concat_tables(
        [
            topics.slice(0, 100),
            pa.table(
                {
                    "id": ["x", "y"],
                    "text": pa.array(["alpha beta gamma delta"] * 2, pa.large_string()),
                    "topic": ["odd"] * 2,
                    "domain": pa.nulls(2, pa.string()),
                }
            ),
        ]
    )
    operator = CLUSTER.model_copy(update={"n_clusters": 4, "n_restarts": 5})
    assert min(_state(operator, few)["n_sampled"]) >= operator.min_documents
    assert min(_state(operator.model_copy(update={"min_documents": 1}), few)["n_sampled"]) == 2


def test_clear_topics_are_stable_and_well_apart_and_noise_is_not(topics):
    state = _state(CLUSTER, topics)
    assert state["rand_index"] == 1
    assert state["stability"] == [1, 1, 1]
    assert min(state["silhouette"]) > 0.5
    shuffled = np.random.default_rng(0).permutation(
        [w for words in TOPICS.values() for w in words.split()] * 120
    )
    noise = topics.slice(0, 120).set_column(
        1, "text", pa.array([" ".join(words) for words in shuffled.reshape(120, 30)], pa.large_string())
    )
    state = _state(CLUSTER, noise)
    assert state["rand_index"] < 0.5
    assert max(state["silhouette"]) < 0.5


def test_there_are_no_more_domains_than_different_documents(table_of, check_operator):
    table = table_of("one text", "one text", "another")
    table = table.append_column("domain", pa.nulls(3, pa.string()))
    result = check_operator(Cluster(dimensions=4), table)
    assert sorted(result["cluster.id"].to_pylist()) == [0, 0, 1]


def test_names_leave_out_what_is_said_everywhere_and_tell_equal_names_apart():
    topics = ("wine", "wine", "code", "code", "law", "law")
    texts = [f"the {topic} of the {topic} page, see https://{topic}.example/{topic}x" for topic in topics]
    assert name_clusters(texts, np.arange(6) // 2, 3) == ["wine", "code", "law"]
    same = name_clusters(["one word"] * 3, np.arange(3), 3)
    assert same == ["cluster", "cluster-2", "cluster-3"], "words of all clusters name none"


def test_scripts_without_spaces_and_with_vowel_signs_give_whole_names():
    texts = ["我们提供葡萄酒和葡萄酒", "葡萄酒在酒窖", "हिन्दी भाषा", "हिन्दी किताब", "river", "river"]
    names = name_clusters(texts, np.arange(6) // 2, 3)
    assert "葡萄" in names[0]
    assert names[1].startswith("हिन्दी")


@pytest.mark.parametrize(
    "wrong", [{"n_clusters": 0}, {"dimensions": 0}, {"max_imbalance": 1.0}, {"min_documents": 0}]
)
def test_a_wrong_parameter_is_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        Cluster(**wrong)

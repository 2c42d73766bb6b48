"""Pruning by distance to the centre: the budget is met, and chance keeps what ranks would lose."""

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from cuvee.operators.budget import needed_fraction
from cuvee.operators.prototype_pruning import PrototypePruning

N = 4000


@pytest.fixture(scope="module")
def documents():
    random = np.random.default_rng(0)
    cluster = np.repeat([0, 1], [N - N // 4, N // 4])
    similarity = np.where(cluster == 0, 0.8, 0.4) + 0.1 * random.random(N)
    order = random.permutation(N)
    table = pa.table(
        {
            "id": [f"doc-{i}" for i in range(N)],
            "cluster.id": pa.array(cluster[order]),
            "cluster.similarity": similarity[order],
        }
    )
    unknown = pa.table(
        {
            "id": ["a", "b"],
            "cluster.id": pa.nulls(2, pa.int64()),
            "cluster.similarity": pa.nulls(2, pa.float64()),
        }
    )
    return pa.concat_tables([table, unknown])


def _kept(result):
    return np.asarray(result["reason"].combine_chunks().is_null())[:N]


@pytest.mark.parametrize("keep_fraction", [0.05, 0.5, 1.0])
@pytest.mark.parametrize("random_fraction", [0.0, 0.3, 1.0])
def test_the_budget_is_met_in_each_cluster(keep_fraction, random_fraction, documents):
    operator = PrototypePruning(keep_fraction=keep_fraction, random_fraction=random_fraction)
    state = operator.finish(operator.observe(documents))
    scores = operator.scores(documents, state)
    kept = np.asarray(operator.reasons(scores).is_null())
    assert kept[N:].all(), "without a cluster, nothing is known of it"
    for cluster in (0, 1):
        inside = documents["cluster.id"].to_numpy()[:N] == cluster
        n, expected = inside.sum(), keep_fraction
        # 5 standard errors of a binomial: both halves of the choice are draws by a hash.
        assert abs(kept[:N][inside].mean() - expected) <= 5 * np.sqrt(expected * (1 - expected) / n)


def test_the_farthest_stay_by_rank_and_the_others_by_chance_and_weigh_their_odds(documents, check_operator):
    result = check_operator(PrototypePruning(keep_fraction=0.3, random_fraction=0.5), documents)
    rank = np.array(result["prototype_pruning.rank"].to_pylist()[:N])
    weight = result["prototype_pruning.weight"].to_numpy()[:N]
    similarity, kept = result["cluster.similarity"].to_numpy()[:N], _kept(result)
    inside = result["cluster.id"].to_numpy()[:N] == 0
    assert np.corrcoef(rank[inside], similarity[inside])[0, 1] > 0.99
    assert kept[rank < 0.15].all()
    assert (weight[rank < 0.15] == 1).all()
    # Of the 85 % beyond, 15 of 85 stay by chance, and each stands for 85 / 15.
    assert np.allclose(weight[rank >= 0.15], 85 / 15)
    # The weights of what stays estimate the number of all, here within 5 standard errors of the draw.
    n_beyond, p = (rank >= 0.15).sum(), 15 / 85
    assert abs(weight[kept].sum() - N) <= 5 * np.sqrt(n_beyond * p * (1 - p)) / p


def test_easy_keeps_the_nearest(documents, check_operator):
    result = check_operator(PrototypePruning(keep_fraction=0.5, random_fraction=0.0, keep="easy"), documents)
    similarity, inside = result["cluster.similarity"].to_numpy()[:N], result["cluster.id"].to_numpy()[:N] == 1
    kept = _kept(result)
    assert similarity[inside & kept].min() >= similarity[inside & ~kept].max() - 2 / 4096


def test_within_the_corpus_the_cluster_of_the_farthest_comes_first(documents, check_operator):
    operator = PrototypePruning(keep_fraction=0.25, random_fraction=0.0, within="corpus")
    result = check_operator(operator, documents)
    assert set(result["cluster.id"].to_numpy()[:N][_kept(result)]) == {1}


def test_a_larger_budget_keeps_all_that_a_smaller_one_keeps():
    random = np.random.default_rng(0)
    rank, chance = random.random((2, 5000))
    needs = needed_fraction(rank, chance, 0.3)
    for budget in (0.1, 0.4, 0.9):
        by_rank = rank < 0.7 * budget
        by_chance = chance < 0.3 * budget / (1 - 0.7 * budget)
        np.testing.assert_array_equal(needs < budget, by_rank | by_chance)


@pytest.mark.parametrize("wrong", [{"keep_fraction": 0.0}, {"random_fraction": 1.5}, {"within": "leaf"}])
def test_a_wrong_parameter_is_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        PrototypePruning(**wrong)

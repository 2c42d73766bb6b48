"""Offline selection: by losses of models, by vectors, and with chance."""

from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from cuvee.kernels.embedding import UNIT, to_unit
from cuvee.kernels.facility_location import facility_location_reference
from cuvee.kernels.shingles import words_reference
from cuvee.operators.budget import documents_stood_for
from cuvee.operators.dataset_quantization import DatasetQuantization
from cuvee.operators.difference_sampling import DifferenceSampling
from cuvee.operators.ingenious import Ingenious
from cuvee.operators.ngram_loss import NgramLoss
from cuvee.operators.random_calibrated import RandomCalibrated
from cuvee.operators.salt import Salt

N = 600


def kept(result: pa.Table) -> np.ndarray:
    return np.asarray(result["reason"].combine_chunks().is_null())


def scored(seed: int = 0) -> pa.Table:
    rng = np.random.default_rng(seed)
    small, large = rng.gamma(4, 1, N), rng.gamma(4, 1, N)
    small[:3] = np.nan
    return pa.table(
        {
            "id": [f"doc-{i}" for i in range(N)],
            "small": pa.array(small, from_pandas=True),
            "large": large,
            "ngram_loss.learnable": pa.array(small, from_pandas=True),
        }
    )


def with_vectors(n: int, n_topics: int, seed: int = 0) -> tuple[pa.Table, np.ndarray]:
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, n_topics, n)
    vectors = to_unit(np.eye(n_topics, 16)[topic] + 0.1 * rng.normal(size=(n, 16)))
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.int16()), 16)
    return pa.table({"id": [f"d{i}" for i in range(n)], "cluster.vector": column}), vectors


def test_difference_sampling_keeps_where_the_large_model_is_ahead(check_operator):
    documents = scored()
    operator = DifferenceSampling(small="small", large="large", keep_fraction=0.3)
    result = check_operator(operator, documents)
    difference = np.array(documents["small"].to_pylist()[3:], float) - documents["large"].to_numpy()[3:]
    stays = kept(result)
    assert stays[:3].all()
    assert abs(stays[3:].sum() - 0.3 * (N - 3)) <= 1
    # Ranks are exact to a thousandth of the score.
    assert difference[stays[3:]].min() >= difference[~stays[3:]].max() * (1 - 2e-3) - 1e-9
    np.testing.assert_allclose(result["difference_sampling.score"].to_numpy()[3:], difference)
    assert (result["difference_sampling.weight"].to_numpy() == 1).all()


def test_ranks_order_negative_scores_too():
    scores = np.concatenate([-np.geomspace(1e-6, 1e6, 50), [0.0, -0.0], np.geomspace(1e-6, 1e6, 50)])
    table = pa.table({"id": [str(i) for i in range(102)], "x": np.random.default_rng(0).permutation(scores)})
    operator = RandomCalibrated(score_column="x", random_fraction=0.0)
    rank = operator.scores(table, operator.finish(operator.observe(table)))[
        "random_calibrated.rank"
    ].to_numpy()
    order = np.argsort(-table["x"].to_numpy(), kind="stable")
    assert (np.abs(rank[order] - np.arange(102) / 102) < 2 / 102).all()


@pytest.mark.parametrize("keep", ["high", "low"])
def test_random_calibrated_weights_make_sums_over_what_stays_unbiased(keep, check_operator):
    documents, sums = scored(), []
    values = documents["large"].to_numpy()
    for seed in range(60):
        operator = RandomCalibrated(
            score_column="large", keep_fraction=0.4, random_fraction=0.5, keep=keep, seed=seed
        )
        state = operator.finish(operator.observe(documents))
        scores = operator.scores(documents, state)
        stays = np.asarray(operator.reasons(scores).is_null())
        sums.append((scores["random_calibrated.weight"].to_numpy() * values)[stays].sum())
    assert abs(np.mean(sums) - values.sum()) < 5 * np.std(sums) / np.sqrt(60)
    best = np.sort(values)[-50:] if keep == "high" else np.sort(values)[:50]
    assert set(best) <= set(values[stays])
    check_operator(operator, documents)
    assert documents_stood_for(np.array([0.9]), 1.0, 0.0).tolist() == [1.0]


def test_salt_keeps_the_greatest_medians_and_what_has_none(check_operator):
    documents = scored()
    result = check_operator(Salt(keep_fraction=0.5), documents)
    score, stays = np.array(documents["ngram_loss.learnable"].to_pylist(), float), kept(result)
    assert stays[:3].all()
    assert np.nanmin(score[3:][stays[3:]]) >= np.nanmax(score[3:][~stays[3:]]) * (1 - 2e-3)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
def test_ingenious_keeps_its_share_of_each_part(fraction, check_operator):
    documents, _ = with_vectors(N, 6)
    operator = Ingenious(keep_fraction=fraction, partitions=4, part_documents=80)
    result = check_operator(operator, documents)
    # Some 8 pieces, each of which rounds its share.
    assert abs(kept(result).sum() - fraction * N) <= 8


def test_ingenious_draws_by_the_greedy_gains_of_its_paper():
    _, vectors = with_vectors(120, 5, seed=2)
    similarity = (vectors.astype(np.float64) @ vectors.T.astype(np.float64) / UNIT**2).astype(np.float32)
    expected = facility_location_reference(similarity, 120)
    gains = np.empty(120)
    gains[expected.indices] = expected.gains
    x = gains / gains.max()
    odds = 1 + x + x**2 / 2
    firsts = np.zeros(120)
    for seed in range(300):
        rng = np.random.default_rng(seed)
        found = Ingenious().choose(similarity, rng.random(120))
        np.testing.assert_allclose(found["gain"], gains)
        firsts[np.argmin(found["needs"])] += 1
    # The first of the draw comes with odds by gain: compare the few great gains with the rest.
    great = np.argsort(-gains)[:5]
    share = odds[great].sum() / odds.sum()
    assert abs(firsts[great].sum() / 300 - share) < 5 * np.sqrt(share * (1 - share) / 300)
    assert gains[great].min() > 10 * np.median(gains)


def test_bins_of_a_quantized_part_are_greedy_choices_of_what_is_left():
    _, vectors = with_vectors(30, 4, seed=1)
    similarity = (vectors.astype(np.float64) @ vectors.T.astype(np.float64) / UNIT**2).astype(np.float32)
    found = DatasetQuantization(bins=4).choose(similarity, np.random.default_rng(0).random(30))
    left = list(range(30))
    for number, size in enumerate([7, 8, 7, 8]):
        chosen = facility_location_reference(similarity[np.ix_(left, left)], size).indices
        members = {left[i] for i in chosen}
        assert set(np.flatnonzero(found["bin"] == number)) == members
        needs = np.sort(found["needs"][list(members)])
        np.testing.assert_allclose(np.diff(needs), 1 / size)
        assert 0 <= needs[0] < 1 / size
        left = [i for i in left if i not in members]


def test_a_quantized_corpus_keeps_its_share_of_every_bin(check_operator):
    documents, _ = with_vectors(N, 6)
    operator = DatasetQuantization(keep_fraction=0.4, partitions=3, part_documents=100, bins=5)
    result = check_operator(operator, documents)
    bins, stays = result["dataset_quantization.bin"].to_numpy(), kept(result)
    for number in range(5):
        assert abs(stays[bins == number].mean() - 0.4) < 0.05
    shares = [
        kept_share(documents, DatasetQuantization(keep_fraction=0.3, partitions=40, bins=10, seed=seed))
        for seed in range(12)
    ]
    assert abs(np.mean(shares) - 0.3) < 5 * np.std(shares) / np.sqrt(12) + 1e-9


def kept_share(documents: pa.Table, operator: DatasetQuantization) -> float:
    table = documents.append_column("_row", pa.array(np.arange(N), pa.int64()))
    state = operator.finish(operator.merge([operator.combine(operator.observe(table))]))
    return float(np.asarray(operator.reasons(operator.scores(table, state)).is_null()).mean())


TEXTS = [
    "the cat sat on the mat and the cat slept",
    "the dog sat on the log",
    "a treatise on the mat",
    "",
    "the",
    "zebras quarrel quietly",
    "The Cat sat, and sat, and sat!",
]
DOMAINS = ["a", "a", "b", "a", "b", "b", None]


def corpus() -> pa.Table:
    return pa.table(
        {
            "id": [str(i) for i in range(len(TEXTS))],
            "text": pa.array(TEXTS, pa.large_string()),
            "domain": pa.array(DOMAINS, pa.string()),
        }
    )


def losses_restated(texts: list[str], text: str, top: int) -> tuple[float | None, float | None, float | None]:
    """By dictionaries: the model of `texts`, the losses of `text`."""
    documents, words = [words_reference(t) for t in texts], words_reference(text)
    unigrams = Counter(w for d in documents for w in d)
    follows: dict[str, Counter[str]] = defaultdict(Counter)
    for document in documents:
        for a, b in pairwise(document):
            follows[a][b] += 1
    total, distinct = sum(unigrams.values()), len(unigrams)
    if not words:
        return None, None, None
    unigram, bigram, guessed = [], [], []
    for i, b in enumerate(words):
        q = (unigrams[b] + 0.5) / (total + 0.5 * (distinct + 1))
        after = follows[words[i - 1]] if i else Counter()
        p = (after[b] + len(after) * q) / (after.total() + len(after)) if after else q
        unigram.append(-np.log(q))
        bigram.append(-np.log(p))
        if after and after[b] >= max(sorted(after.values(), reverse=True)[:top][-1], 1):
            guessed.append(-np.log(p))
    median = sorted(guessed)[(len(guessed) - 1) // 2] if guessed else None
    return float(np.mean(bigram)), float(np.mean(unigram)), median


def check_losses(result: pa.Table, expected: list[tuple[float | None, ...]]) -> None:
    names = ("ngram_loss.loss", "ngram_loss.unigram_loss", "ngram_loss.learnable")
    for number, values in enumerate(expected):
        for name, value in zip(names, values, strict=True):
            found = result[name][number].as_py()
            assert (found is None) == (value is None), (number, name)
            assert value is None or found == pytest.approx(value, rel=1e-12), (number, name)


def test_losses_are_those_of_dictionaries_of_words(tmp_path, check_operator):
    path = tmp_path / "text.txt"
    path.write_text(" ".join(TEXTS[:2]), encoding="utf-8")
    result = check_operator(NgramLoss(file=str(path), top=1), corpus())
    check_losses(result, [losses_restated([" ".join(TEXTS[:2])], text, 1) for text in TEXTS])


def test_losses_of_other_domains_are_those_of_the_domains_model(check_operator):
    result = check_operator(NgramLoss(domain="a", top=2), corpus())
    of_a = [text for text, domain in zip(TEXTS, DOMAINS, strict=True) if domain == "a"]
    expected = [losses_restated(of_a, text, 2) for text in TEXTS]
    for number in (2, 4, 5, 6):
        check_losses(result.slice(number, 1), [expected[number]])


def test_a_document_does_not_know_itself():
    # Its counts are taken out; what stays of the model of all are the number of distinct words and `least`.
    operator, table = NgramLoss(), corpus()
    state = operator.finish(operator.merge([operator.observe(table)]))
    result = operator.apply(table, state)
    other = [text for number, text in enumerate(TEXTS) if number != 1]
    distinct = len({w for t in TEXTS for w in words_reference(t)})
    rest = Counter(w for t in other for w in words_reference(t))
    q = [(rest[w] + 0.5) / (rest.total() + 0.5 * (distinct + 1)) for w in words_reference(TEXTS[1])]
    assert result["ngram_loss.unigram_loss"][1].as_py() == pytest.approx(-np.mean(np.log(q)), rel=1e-12)
    twice = pa.concat_tables([table, table])
    known = operator.apply(table, operator.finish(operator.merge([operator.observe(twice)])))
    assert known["ngram_loss.loss"][5].as_py() < result["ngram_loss.loss"][5].as_py() - 1


def test_two_texts_to_learn_from_are_refused(tmp_path):
    (tmp_path / "text.txt").write_text("text")
    with pytest.raises(ValidationError, match="domain and file are both given"):
        NgramLoss(domain="a", file=str(tmp_path / "text.txt"))
    with pytest.raises(ValidationError, match="score_column"):
        RandomCalibrated()

"""Near duplicates: who leaves, for whom, and that it depends on the documents alone."""

import random
from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from cuvee.kernels.minhash import permutations, signatures
from cuvee.operators import minhash_dedup
from cuvee.operators.bands import MAX_CHOSEN_BANDS, MISSED, Bands, choose_bands, min_agreement
from cuvee.operators.base import ROW, UnsuitableDataError, summary_of
from cuvee.operators.minhash_dedup import MinHashDedup

from ..conftest import fit, run_operator

SCORES = ("keeper", "cluster_size", "rank", "survivor", "similarity")
WORDS = [f"w{i}" for i in range(400)]


def _table(texts, first_row=0, **columns):
    n = len(texts)
    return pa.table(
        {
            "id": [f"doc-{first_row + i}" for i in range(n)],
            "text": pa.array(texts, pa.large_string()),
            **columns,
            ROW: pa.array(range(first_row, first_row + n), pa.int64()),
        }
    )


def _run(operator, table):
    result = run_operator(operator, [table])
    names = [name.removeprefix("minhash_dedup.") for name in result.column_names]
    return result.rename_columns(names).select([*SCORES, "reason"])


def _jaccard(a, b, n=5):
    sets = [{tuple(words[i : i + n]) for i in range(len(words) - n + 1)} for words in (a.split(), b.split())]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


# 100 words are 96 shingles. A window that moves on by k words shares 96 - k shingles of 96 + k.
WINDOWS = [" ".join(WORDS[start : start + 100]) for start in (0, 8, 16)]


def test_a_document_that_is_linked_only_by_a_removed_one_stays():
    assert [round(_jaccard(WINDOWS[0], other), 3) for other in WINDOWS[1:]] == [0.846, 0.714]
    found = _run(MinHashDedup(), _table(WINDOWS))
    assert found["survivor"].to_pylist() == [None, "doc-0", None]
    assert found["similarity"].to_pylist() == [None, 88 / 104, None]
    assert found["cluster_size"].to_pylist() == [2, 2, 1]
    assert found["rank"].to_pylist() == [0, 1, 0]
    assert found["reason"].to_pylist() == [None, "duplicate", None]


def test_without_verification_it_leaves():
    found = _run(MinHashDedup(verify="none", n_bands=50, rows_per_band=2), _table(WINDOWS))
    assert found["rank"].to_pylist() == [0, 1, 2]
    assert found["survivor"].null_count == found["similarity"].null_count == 3


def test_the_summary_says_what_the_closure_would_have_removed_beyond():
    state = fit(MinHashDedup(), [_table([*WINDOWS, "something else altogether " * 9])])
    assert summary_of(state.schema) == {
        "n_with_candidates": 3,
        "n_removed": 1,
        "n_more_by_closure": 1,
        "n_in_largest_component": 3,
    }


@pytest.mark.parametrize(
    ("keep", "column", "kept"),
    [
        ("first", None, 0),
        ("longest", None, 2),
        ("best", [0.5, 2.0, None, float("nan"), -1.0], 1),
        ("best", [1, 1, 1, 1, 3], 4),
        ("newest", ["2024-05-31", None, "2024-05-31T14:00:00+02:00", "2024-05-31T13:00:00Z", ""], 3),
        ("newest", pa.array([1, 2, 9, 3, None], pa.timestamp("s")), 2),
        ("newest", pa.array([7, 8, 1, 8, None], pa.date32()), 1),
    ],
)
def test_the_one_that_survives_is_the_recipes_to_choose(keep, column, kept):
    text = " ".join(WORDS[:100])
    texts = [text, text, text + " and more", text, text]
    columns = {} if column is None else {"when": column}
    operator = MinHashDedup(keep=keep, by=None if column is None else "when")
    found = _run(operator, _table(texts, **columns))
    assert np.flatnonzero(found["reason"].is_null()).tolist() == [kept]
    assert set(found["survivor"].drop_null().to_pylist()) == {f"doc-{kept}"}


def test_a_column_that_no_document_has_is_refused():
    operator = MinHashDedup(keep="best", by="scor")
    with pytest.raises(UnsuitableDataError, match=r"by: column 'scor' is null or missing in all 2 documents"):
        _run(operator, _table([WINDOWS[0]] * 2, score=[1, 2]))


@pytest.mark.parametrize(
    ("keep", "values", "message"),
    [
        ("best", ["a", "b"], "holds string, numbers are needed"),
        ("newest", [1.5, 2.5], "holds double; times"),
        (
            "newest",
            ["2024-05-31", "yesterday"],
            "document 'doc-1' has 'yesterday', which is no ISO 8601 time",
        ),
    ],
)
def test_a_column_of_another_kind_is_refused(keep, values, message):
    with pytest.raises(UnsuitableDataError, match=message):
        _run(MinHashDedup(keep=keep, by="when"), _table([WINDOWS[0]] * 2, when=values))


def test_characters_find_what_words_do_not():
    text = " ".join(WORDS[:100])
    other = text.replace(" ", "")
    assert _run(MinHashDedup(), _table([text, other]))["reason"].null_count == 2
    near = text[:300] + "#" + text[301:]
    found = _run(MinHashDedup(unit="characters", ngram=10), _table([text, near]))
    n = len(text) - 9
    assert found["similarity"].to_pylist() == [None, (n - 10) / (n + 10)]


@st.composite
def families(draw):
    """Texts of a few families: windows over the same words, some moved on, some with words replaced."""
    seed = draw(st.integers(0, 2**32))
    random_ = random.Random(seed)
    texts = []
    for family in range(draw(st.integers(1, 3))):
        words = [f"f{family}x{i}" for i in range(200)]
        for _ in range(draw(st.integers(1, 7))):
            start, n_replaced = random_.choice([0, 2, 4, 6, 9, 15]), random_.choice([0, 0, 1, 2, 3])
            window = words[start : start + 80]
            for _ in range(n_replaced):
                window[random_.randrange(80)] = f"r{random_.randrange(9)}"
            texts.append(" ".join(window))
    random_.shuffle(texts)
    return texts


OPERATORS = [
    MinHashDedup(),
    MinHashDedup(keep="best", by="stars", threshold=0.7),
    MinHashDedup(keep="longest", verify="signature", n_bands=14, rows_per_band=8),
]


@pytest.mark.parametrize("operator", OPERATORS)
@settings(max_examples=25)
@given(texts=families(), data=st.data())
def test_any_sharding_in_any_order_removes_the_same_documents(operator, texts, data):
    table = _table(texts, stars=[len(text) % 7 for text in texts])
    whole = run_operator(operator, [table])
    order = data.draw(st.permutations(range(len(texts))))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(texts)), max_size=4)))
    shuffled = table.take(pa.array(order))
    shards = [shuffled.slice(a, b - a) for a, b in pairwise([0, *cuts, len(texts)])]
    assert run_operator(operator, shards).equals(whole.take(pa.array(order)))


@settings(max_examples=50)
@given(texts=families(), threshold=st.sampled_from([0.6, 0.8, 0.9]))
def test_every_removal_has_a_survivor_at_the_threshold(texts, threshold):
    table = _table(texts)
    found = _run(MinHashDedup(threshold=threshold), table)
    kept = found["reason"].is_null().to_pylist()
    position = {name: i for i, name in enumerate(table["id"].to_pylist())}
    for text, survivor, similarity, stays in zip(
        texts, found["survivor"].to_pylist(), found["similarity"].to_pylist(), kept, strict=True
    ):
        assert stays == (survivor is None)
        if survivor is not None:
            assert kept[position[survivor]]
            assert similarity == _jaccard(text, texts[position[survivor]]) >= threshold
    sizes = found["cluster_size"].to_numpy()
    assert sizes[kept].sum() == len(texts)


@settings(max_examples=50)
@given(texts=families(), cut=st.integers(0, 20))
def test_two_increments_keep_what_one_run_keeps(texts, cut):
    operator, cut = MinHashDedup(), min(cut, len(texts))
    table = _table(texts)
    once = run_operator(operator, [table])
    first = run_operator(operator, [table.slice(0, cut)])
    kept = table.slice(0, cut).filter(first["reason"].is_null())
    earlier = kept.set_column(kept.schema.get_field_index(ROW), ROW, pa.array(kept[ROW].to_numpy() - 10**6))
    second = run_operator(operator, [table.slice(cut), earlier]).slice(0, len(texts) - cut)
    columns = ["minhash_dedup.survivor", "minhash_dedup.similarity", "reason"]
    assert second.select(columns).equals(once.select(columns).slice(cut))
    assert first.select(columns).equals(once.select(columns).slice(0, cut))


@pytest.mark.parametrize("texts", [[], [""] * 3, [*WINDOWS, "", "too short", None, *WINDOWS]])
def test_a_shard_signed_in_slices_is_observed_as_in_one(texts, monkeypatch):
    table = _table(texts)
    whole = MinHashDedup().observe(table)
    monkeypatch.setattr(minhash_dedup, "SLICE_BYTES", 100)
    assert MinHashDedup().observe(table).equals(whole)


def _oracle(texts, threshold):
    """Who survives for whom, by comparing every document with every survivor before it."""
    kept, survivor = [], []
    for i, text in enumerate(texts):
        alike = (k for k in kept if _jaccard(text, texts[k]) >= threshold)
        survivor.append(next(alike, i))
        if survivor[i] == i:
            kept.append(i)
    return survivor


@pytest.mark.parametrize("n_shards", [1, 3])
def test_where_a_third_is_one_licence_and_its_variants_the_oracles_documents_stay(n_shards):
    # Names in the licence, and one to eight words changed: some variants are no duplicates of the first one.
    random_ = random.Random(0)
    licence, texts = [f"l{i}" for i in range(100)], []
    for i in range(150):
        words = licence if i % 10 < 3 else [f"d{random_.randrange(80)}-{k}" for k in range(60)]
        words = list(words)
        if i % 20 in (1, 2):
            for _ in range(random_.randrange(1, 9)):
                words[random_.randrange(len(words))] = f"holder{random_.randrange(40)}"
        texts.append(" ".join(words))
    # 50 bands of 2 miss one pair at 0.8 in 10**22.
    operator = MinHashDedup(n_bands=50, rows_per_band=2)
    cuts = np.linspace(0, len(texts), n_shards + 1).astype(int)
    table = _table(texts)
    found = run_operator(operator, [table.slice(a, b - a) for a, b in pairwise(cuts)])
    expected = _oracle(texts, operator.threshold)
    names = [None if s == i else f"doc-{s}" for i, s in enumerate(expected)]
    assert found["minhash_dedup.survivor"].to_pylist() == names
    assert 1 < len({s for i, s in enumerate(expected) if i % 10 < 3}) < 20


def test_of_many_copies_in_a_shard_one_carries_what_is_compared():
    # 300 of 1,000 documents are one licence: the second look writes 100 bytes for each, nothing for pairs.
    licence = " ".join(WORDS)
    others = [" ".join(f"d{i}x{k}" for k in range(400)) for i in range(700)]
    table = _table([licence] * 300 + others)
    operator = MinHashDedup()
    found = operator.finish(operator.merge([operator.combine(operator.observe(table))]))
    assert found.num_rows == 300
    again = operator.observe_again(table, found)
    assert pa.compute.sum(pa.compute.list_value_length(again["shingles"])).as_py() == len(WORDS) - 4
    assert again.nbytes < 100 * 300
    assert again["carries"].to_pylist() == [True] + [False] * 299
    state = operator.finish_again(found, [operator.combine_again(again)])
    assert state["rank"].to_pylist() == list(range(300))


@pytest.mark.parametrize("similarity", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("bands", [Bands(18, 6), Bands(14, 8)])
def test_pairs_share_a_band_as_often_as_the_curve_says(similarity, bands):
    # Sets of 900 numbers each, of which so many are shared; 600 pairs, 5 standard errors of a binomial.
    n_pairs, n = 600, 900
    n_shared = round(2 * n * similarity / (1 + similarity))
    numbers = np.random.default_rng(0).integers(0, 2**32, (n_pairs, 2 * n - n_shared), dtype=np.uint32)
    shingles = np.concatenate([numbers[:, :n], numbers[:, -n:]], axis=1).ravel()
    drawn = permutations(bands.n_bands * bands.rows_per_band, seed=1)
    signed = signatures(shingles, np.arange(0, len(shingles) + 1, n), drawn)
    same = (signed[::2] == signed[1::2]).reshape(n_pairs, *bands).all(axis=2).any(axis=1)
    expected = bands.candidate_probability(n_shared / (2 * n - n_shared))
    assert abs(same.mean() - expected) < 5 * (expected * (1 - expected) / n_pairs) ** 0.5


@given(st.floats(0.3, 1), st.integers(1, 130), st.sampled_from([0.1, 0.5, 0.995]))
@settings(max_examples=20)
def test_no_choice_of_bands_has_a_smaller_error(threshold, n_perm, weight):
    def error(bands):
        s = np.linspace(0, 1, 4001)
        p = bands.candidate_probability(s)
        wrong = np.where(s < threshold, (1 - weight) * p, weight * (1 - p))
        return wrong.mean()

    chosen = choose_bands(threshold, n_perm, weight)
    assert chosen.n_bands * chosen.rows_per_band <= n_perm
    others = [
        Bands(b, r) for b in range(1, min(n_perm, MAX_CHOSEN_BANDS) + 1) for r in range(1, n_perm // b + 1)
    ]
    # Two ways to integrate: 4,001 points err by less than one cell's worth.
    assert error(chosen) <= min(map(error, others)) + 1 / 4000


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_few_pairs_at_the_threshold_agree_too_little(threshold):
    # 5 standard errors of 10**6 draws of which at most MISSED may lie below; one byte more must be too many.
    n_agree = np.random.default_rng(0).binomial(112, threshold + (1 - threshold) / 256, 10**6)
    needed = min_agreement(threshold, 112)
    assert (n_agree < needed).mean() < MISSED + 5 * (MISSED / 10**6) ** 0.5
    assert (n_agree < needed + 1).mean() > MISSED - 5 * (MISSED / 10**6) ** 0.5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"n_bands": 14}, "n_bands and rows_per_band go together"),
        ({"n_bands": 14, "rows_per_band": 8, "n_perm": 112}, "leave out one of the two pairs"),
        ({"verify": "none", "against": ("runs/old",)}, "against needs verified survivors"),
        ({"keep": "best"}, "keep: best needs 'by', a column to compare"),
        ({"by": "score"}, "keep: first looks at no column; omit 'by'"),
        ({"threshold": 0.0}, "greater than 0"),
    ],
)
def test_parameters_that_contradict_each_other_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        MinHashDedup(**wrong)

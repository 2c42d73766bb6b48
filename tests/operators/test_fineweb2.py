import numpy as np
import pyarrow as pa
import pytest
import yaml
from pydantic import ValidationError

from cuvee.operators.base import ROW, set_columns
from cuvee.operators.fineweb import Fineweb
from cuvee.operators.fineweb2 import TABLE, Fineweb2
from cuvee.operators.gopher_quality import GopherQuality
from cuvee.operators.gopher_repetition import GopherRepetition
from cuvee.pipeline.whatif import thresholds

ENGLISH = ["the", "of", "and", "a", "to", "in", *(f"word{letter}" for letter in "abcdefghijkl")]
GERMAN = ["der", "die", "und", "ein", "zu", "in", *(f"Wort{letter}" for letter in "abcdefghijkl")]


def _prose(words, n_lines, mark, random):
    lines = [" ".join(random.choice(words, 12).tolist()) + mark for _ in range(n_lines)]
    return "\n".join(lines)


@pytest.fixture(scope="module")
def corpus():
    """60 documents of two languages; German ones end one line in ten with a mark, English ones nine."""
    random = np.random.default_rng(0)
    texts = [
        "\n".join(_prose(words, 1, "." if random.random() < share else "", random) for _ in range(12))
        for words, share in ((ENGLISH, 0.5), (GERMAN, 0.12))
        for _ in range(60)
    ]
    n_rows = len(texts)
    order = random.permutation(n_rows)
    return pa.table(
        {
            "id": [f"doc-{i}" for i in range(n_rows)],
            "text": pa.array(texts, pa.large_string()),
            "lang": pa.array(["en"] * 60 + ["de"] * 60, pa.string()),
            "language.confidence": pa.array(random.uniform(0.6, 1.0, n_rows), pa.float32()),
        }
    ).take(order)


def _fitted(operator, table):
    numbered = table.append_column(ROW, pa.array(np.arange(len(table))))
    state = operator.finish(operator.merge([operator.observe(numbered)]))
    return state, operator.scores(table, state)


@pytest.mark.parametrize(
    "operator",
    [
        Fineweb2(profile="uax29", method="tail", confidence=None),
        Fineweb2(profile="paper", reference_language="en", min_documents=1, confidence=None, sample=3),
    ],
)
def test_it_keeps_the_contract_of_an_operator(operator, documents, check_operator):
    languages = pa.array((["en", "de", "en", "ja", None] * 3)[: len(documents)], pa.string())
    check_operator(operator, set_columns(documents, {"lang": languages}))


def test_each_language_has_its_own_threshold_and_stop_words(corpus):
    state, scores = _fitted(Fineweb2(profile="uax29", prior_documents=0), corpus)
    rows = {row["language"]: row for row in state.to_pylist()}
    assert set(rows) == {"*", "de", "en"}
    assert rows["en"]["min_fraction_lines_with_punctuation"] == 0.12
    assert rows["de"]["min_fraction_lines_with_punctuation"] < 0.12
    assert {"der", "und", "zu"} <= set(rows["de"]["stop_words"])
    assert "in" not in rows["de"]["stop_words"]  # an English one, too
    assert rows["de"]["n_documents"] == 60
    counts = scores["fineweb2.n_stop_words"].to_pylist()
    texts, languages = corpus["text"].to_pylist(), corpus["lang"].to_pylist()
    expected = [
        len(set(t.replace(".", " ").split()) & set(rows[lang]["stop_words"]))
        for t, lang in zip(texts, languages, strict=True)
    ]
    assert counts == expected


def test_metrics_are_those_of_the_filters_and_margins_their_distance_from_the_threshold(corpus):
    operator = Fineweb2(profile="uax29")
    state, scores = _fitted(operator, corpus)
    for filter_, score in (
        (GopherRepetition(profile="uax29"), "fraction_characters_top_2_gram"),
        (Fineweb(profile="uax29"), "newlines_per_word"),
        (GopherQuality(profile="uax29"), "mean_word_length"),
    ):
        assert scores[f"fineweb2.{score}"].equals(filter_.scores(corpus)[f"{filter_.name}.{score}"])
    of = dict(zip(state["language"].to_pylist(), state["max_mean_word_length"].to_pylist(), strict=True))
    margin = scores["fineweb2.margin_max_mean_word_length"].to_pylist()
    for lang, value, found in zip(
        corpus["lang"].to_pylist(), scores["fineweb2.mean_word_length"].to_pylist(), margin, strict=True
    ):
        assert found == of[lang] - value


def test_with_the_papers_thresholds_decisions_are_those_of_the_filters(corpus):
    operator = Fineweb2(profile="uax29", method="english", min_documents=1000, confidence=None)
    _, scores = _fitted(operator, corpus)
    limits = {
        "max_fraction_duplicate_paragraphs": None,
        "max_fraction_characters_duplicate_paragraphs": None,
        "max_fraction_characters_duplicate_lines": None,
    }
    filters = (
        GopherRepetition(profile="uax29", **limits),
        Fineweb(profile="uax29", max_fraction_short_lines=None, max_fraction_characters_duplicate_lines=0.1),
        GopherQuality(profile="uax29", min_stop_words=0),
    )
    expected = [None] * len(corpus)
    for operator_ in reversed(filters):
        reasons = operator_.reasons(operator_.scores(corpus)).to_pylist()
        expected = [reason or other for reason, other in zip(reasons, expected, strict=True)]
    assert operator.reasons(scores).to_pylist() == expected
    assert len(set(expected)) > 1


def test_a_language_without_a_row_has_the_papers_thresholds_and_no_stop_words(corpus):
    operator = Fineweb2(profile="uax29", method="tail")
    state, _ = _fitted(operator, corpus)
    strange = set_columns(corpus, {"lang": pa.nulls(len(corpus), pa.string())})
    scores = operator.scores(strange, state)
    assert scores["fineweb2.n_stop_words"].null_count == len(corpus)
    top = scores["fineweb2.fraction_characters_top_2_gram"].to_pylist()
    assert scores["fineweb2.margin_max_fraction_characters_top_2_gram"].to_pylist() == [0.2 - x for x in top]


def test_a_reviewed_table_is_pinned_by_its_content(corpus, tmp_path):
    operator = Fineweb2(profile="uax29", prior_documents=0)
    state, scores = _fitted(operator, corpus)
    text = operator.review(state)[TABLE]
    first, second = tmp_path / "one.yaml", tmp_path / "two.yaml"
    first.write_text(text, "utf-8")
    second.write_text(text, "utf-8")
    pinned = Fineweb2(profile="uax29", table=str(first))
    assert pinned.identity() == Fineweb2(profile="uax29", table=str(second)).identity()
    assert pinned.identity() != Fineweb2(profile="uax29").identity()
    pinned_state, pinned_scores = _fitted(pinned, corpus)
    assert pinned_state["stop_words"].equals(state["stop_words"])
    assert pinned.reasons(pinned_scores).equals(operator.reasons(scores))

    edited = yaml.safe_load(text)
    edited["de"]["thresholds"]["min_fraction_alpha_words"] = 1.1
    second.write_text(yaml.safe_dump(edited), "utf-8")
    strict = Fineweb2(profile="uax29", table=str(second))
    reasons = strict.reasons(_fitted(strict, corpus)[1]).to_pylist()
    german = [r for r, lang in zip(reasons, corpus["lang"].to_pylist(), strict=True) if lang == "de"]
    assert set(german) == {"low_confidence", "gopher_below_alpha_threshold"}


def test_a_table_that_is_none_is_refused_with_the_recipe(tmp_path):
    with pytest.raises(ValidationError, match="correct the path"):
        Fineweb2(profile="uax29", table=str(tmp_path / "missing.yaml"))


def test_it_reads_the_confidence_that_it_is_told_to_read():
    assert Fineweb2.columns_read({})[-1] == "language.confidence"
    assert Fineweb2.columns_read({"confidence": "mine"})[-1] == "mine"
    assert Fineweb2.columns_read({"confidence": None}) == ("id", "text", "lang")


def test_fixed_thresholds_can_be_moved_without_reading_text_again():
    movable = {"min_words", "max_words", "min_stop_words", "max_fraction_characters_duplicate_lines"}
    movable |= {"max_hashes_per_word", "max_ellipses_per_word"}
    movable |= {"max_fraction_bullet_lines", "max_fraction_ellipsis_lines"}
    assert thresholds(Fineweb2(profile="uax29")) == movable

from collections import Counter

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from cuvee.operators.language_thresholds import (
    ANY,
    CONFIDENCE,
    LIMITS,
    METRICS,
    carried_over,
    derive,
    read_table,
    rows_of,
    script_of,
    stop_words,
    table_of,
    to_yaml,
)

VALUES = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30).map(np.array)


def _values(n, shift=0.0, scale=1.0):
    """Documents whose metrics are all the same numbers."""
    return {metric: shift + scale * np.linspace(0.0, 1.0, n) for metric in METRICS}


def _derive(values, method="quantile", n_prior=0, words=None):
    words = words or {
        language: Counter({"the": 1} if language == "en" else {"der": 1}) for language in values
    }
    return derive(values, words, method, "en", n_prior, 30)


@pytest.mark.parametrize("method", ["mean_std", "median_ratio", "english"])
@given(values=VALUES, threshold=st.floats(0, 1), is_maximum=st.booleans())
def test_a_language_like_the_reference_has_its_threshold(method, values, threshold, is_maximum):
    hypothesis.assume(values.std() > 1e-3)
    found = carried_over(threshold, is_maximum, values, values, method)
    assert found == pytest.approx(threshold, abs=1e-9)


@given(values=VALUES, threshold=st.floats(0, 1), is_maximum=st.booleans())
def test_a_quantile_drops_of_a_language_like_the_reference_what_the_threshold_drops(
    values, threshold, is_maximum
):
    breaks = values > threshold if is_maximum else values < threshold
    hypothesis.assume(not breaks.all())
    found = carried_over(threshold, is_maximum, values, values, "quantile")
    np.testing.assert_array_equal(values > found if is_maximum else values < found, breaks)


@given(
    values=VALUES, threshold=st.floats(0, 1), is_maximum=st.booleans(), factor=st.sampled_from([0.5, 2, 8])
)
def test_quantiles_follow_a_language_that_is_the_reference_in_other_units(
    values, threshold, is_maximum, factor
):
    found = carried_over(threshold, is_maximum, values * factor, values, "quantile")
    assert found == carried_over(threshold, is_maximum, values, values, "quantile") * factor


@pytest.mark.parametrize(
    ("method", "expected"),
    [("mean_std", 2.4), ("median_ratio", 2.88), ("english", 0.9), ("quantile", 2.4), ("tail", 2.4)],
)
def test_methods_by_hand(method, expected):
    # Reference 0, 0.1 ... 1 (mean and median 0.5), language 0.6, 0.8 ... 2.6 (mean and median 1.6): the
    # threshold 0.9 is 0.4 above the mean, and 10 of 11 documents are at most 0.9.
    reference, values = np.arange(11) / 10, 0.6 + np.arange(11) / 5
    assert carried_over(0.9, True, values, reference, method) == pytest.approx(expected)


def test_the_worst_tenth_is_on_the_side_of_the_threshold():
    values = np.arange(100.0)
    assert (values > carried_over(0, True, values, values, "tail")).sum() == 10
    assert (values < carried_over(0, False, values, values, "tail")).sum() == 10


def test_few_documents_weigh_little_beside_those_of_their_script():
    limit = next(limit for limit in LIMITS if limit.name == "max_newlines_per_word")
    many = {"en": _values(1000), "de": _values(1000, scale=2)}
    words = {lang: Counter({"the": 1}) for lang in ("en", "de", "nl")}
    alone = _derive(many, words=words)["de"].thresholds[limit.name]
    assert np.isclose(alone, 2 * limit.paper, rtol=0.01)
    small = _derive({**many, "nl": _values(9, scale=3)}, n_prior=1000, words=words)["nl"]
    assert small.weight == pytest.approx(9 / 1009)
    assert limit.paper < small.thresholds[limit.name] < 1.6 * limit.paper


@pytest.mark.parametrize("method", ["quantile", "mean_std", "median_ratio"])
def test_a_borrowed_threshold_drops_no_more_than_half_of_a_language(method):
    name = "min_fraction_lines_with_punctuation"  # Thai has no marks at the ends of sentences

    def thai(n):
        without_marks = _values(n) | {"fraction_lines_with_punctuation": np.zeros(n)}
        return _derive({"en": _values(100), "th": without_marks}, method, n_prior=50)["th"].thresholds[name]

    assert thai(9) > 0
    assert thai(10) == 0


def test_a_median_of_zero_makes_no_maximum_stricter():
    none, some = np.array([0.0, 0.0, 0.9]), np.array([0.1, 0.2, 0.3])
    assert carried_over(0.3, True, none, some, "median_ratio") == 0.3
    assert carried_over(0.3, True, some, none, "median_ratio") == 0.3
    assert carried_over(0.3, False, none, some, "median_ratio") == 0


def test_thresholds_stay_in_their_ranges():
    table = _derive({"en": _values(100), "xx": _values(100, shift=50), "yy": _values(100, shift=-50)})
    for limit in LIMITS:
        assert table["xx"].thresholds[limit.name] == limit.highest
        assert table["yy"].thresholds[limit.name] == limit.lowest
        assert table["en"].thresholds[limit.name] == limit.paper == table[ANY].thresholds[limit.name]


def test_confidence_is_median_less_deviation_between_0_3_and_0_9():
    values = {"en": _values(100), "de": _values(100) | {"confidence": np.array([0.5, 0.7, 0.9])}}
    assert _derive(values)["de"].thresholds[CONFIDENCE.name] == pytest.approx(
        0.7 - np.std([0.5, 0.7, 0.9]), abs=1e-4
    )
    values["de"]["confidence"] = np.full(100, np.nan)
    assert CONFIDENCE.name not in _derive(values)["de"].thresholds


def test_too_few_documents_of_the_reference_are_an_error_that_names_the_way_out():
    with pytest.raises(ValueError, match=r"'en', of which there are 29 documents and 30 are needed; .*tail"):
        _derive({"en": _values(29), "de": _values(100)})
    assert "de" in _derive({"de": _values(100)}, method="tail")


def test_stop_words_are_frequent_and_neither_numbers_nor_english():
    counts = Counter({f"w{i}": 10 for i in range(6)} | {"the": 60, "12": 50, "rare": 1})
    found = stop_words(counts)
    assert found[0] == "the"
    assert "12" not in found
    assert "rare" in found  # 0.6 % of the words: fewer than 8 are above 0.8 %, so those above 0.3 % are taken
    assert "rare" not in stop_words(counts | Counter({"often": 9}))
    words = {"en": Counter({"house": 9}), "de": Counter({"the": 5, "house": 5, "der": 5})}
    assert _derive({"en": _values(50), "de": _values(50)}, words=words)["de"].stop_words == ["der"]
    assert _derive({"en": _values(50), "de": _values(29)}, words=words)["de"].stop_words == []


@pytest.mark.parametrize(
    ("word", "script"), [("ไทย", "THAI"), ("東京", "CJK"), ("дом", "CYRILLIC"), ("1", "UNKNOWN")]
)
def test_the_script_is_that_of_the_letters(word, script):
    assert script_of(Counter({word: 2})) == script


def test_a_table_survives_yaml_and_arrow(tmp_path):
    table = _derive({"en": _values(100), "de": _values(100, scale=1.5), "no": _values(10)})
    assert table_of(rows_of(table)) == table
    path = tmp_path / "languages.yaml"
    path.write_text(to_yaml(table, ["Review this."]), "utf-8")
    again = read_table(str(path))
    assert list(again) == list(table)  # "no" is a language and not False
    for language, row in table.items():
        assert again[language].stop_words == row.stop_words
        for name, value in row.thresholds.items():
            assert again[language].thresholds[name] == value


def test_a_language_of_a_pinned_table_may_name_one_threshold_alone(tmp_path):
    path = tmp_path / "languages.yaml"
    path.write_text("'*':\n  thresholds: {max_newlines_per_word: 0.5}\nde:\n  stop_words: [der, und]\n")
    table = read_table(str(path))
    assert table["de"].stop_words == ["der", "und"]
    assert table["de"].thresholds["max_newlines_per_word"] == 0.5
    assert table["de"].thresholds["max_mean_word_length"] == 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- de", "found list; a mapping of languages is needed"),
        ("", "found NoneType; a mapping"),
        ("de: {thresholds: {max_newline_per_word: 1}}", "did you mean 'max_newlines_per_word'"),
        ("de: {treshold: {}}", "de.treshold: extra inputs are not permitted; there are: n_documents"),
        (
            "de: {thresholds: {max_newlines_per_word: x}}",
            r"de.thresholds.max_newlines_per_word: input should",
        ),
        ("no: {stop_words: []}", "language False is no text; write it in quotes"),
        ("de: [", "it must be YAML"),
    ],
)
def test_what_is_wrong_with_a_pinned_table_is_said_with_its_place(content, message, tmp_path):
    path = tmp_path / "languages.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        read_table(str(path))
    assert str(error.value).startswith(str(path))

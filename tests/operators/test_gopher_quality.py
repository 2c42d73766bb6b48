import pytest
from pydantic import ValidationError

from cuvee.operators.gopher_quality import GopherQuality

FINE = "the cats and the dogs " * 10


@pytest.mark.parametrize(
    "operator",
    [
        GopherQuality(),
        GopherQuality(min_words=1, stop_words=["der", "und"]),
        *(GopherQuality(profile=profile) for profile in ("datatrove", "dclm", "uax29")),
    ],
)
def test_it_keeps_the_contract_of_an_operator(operator, documents, check_operator):
    check_operator(operator, documents)


# Each text passes all rules that come before its own.
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (FINE, None),
        ("the cats and the dogs " * 9 + "the cats and the", "gopher_short_doc"),
        ("the cats and " * 33_333 + "the cats", "gopher_long_doc"),
        ("a to " * 30, "gopher_below_avg_threshold"),
        ("the and " + "incomprehensibilities " * 50, "gopher_above_avg_threshold"),
        (FINE + "#hash " * 6, "gopher_too_many_hashes"),
        (FINE + "#hash " * 5, None),
        (FINE + "well... " * 6, "gopher_too_many_ellipsis"),
        ("- the cats and the dogs\n" * 10, "gopher_too_many_bullets"),
        ("- the cats and the dogs\n" * 9 + "the cats and the dogs", None),
        (("the cats and the dogs " * 5 + "\u2026\n") * 2, "gopher_too_many_end_ellipsis"),
        (FINE + "1234 " * 13, "gopher_below_alpha_threshold"),
        ("cats eat fish " * 17, "gopher_enough_stop_words"),
        ("the cats eat fish " * 17, "gopher_enough_stop_words"),
    ],
)
def test_each_rule_has_its_reason(text, reason, table_of):
    operator = GopherQuality()
    assert operator.reasons(operator.scores(table_of(text))).to_pylist() == [reason]


def test_a_threshold_moves_without_the_text(table_of):
    scores = GopherQuality().scores(table_of("the cats and the dogs"))
    assert GopherQuality(min_words=5).reasons(scores).to_pylist() == [None]
    assert GopherQuality(min_words=6).reasons(scores).to_pylist() == ["gopher_short_doc"]


def test_ratios_over_no_words_are_null(table_of):
    scores = GopherQuality().scores(table_of("", None))
    assert scores["gopher_quality.n_words"].to_pylist() == [0, 0]
    assert scores["gopher_quality.mean_word_length"].null_count == 2


def test_scores_are_as_counted_by_hand(table_of):
    scores = GopherQuality().scores(table_of("- The end...\n#1 of 2 \u2026"))
    assert {name.removeprefix("gopher_quality."): values[0].as_py() for name, values in scores.items()} == {
        "n_words": 7,
        "mean_word_length": (1 + 3 + 6 + 2 + 2 + 1 + 1) / 7,
        "hashes_per_word": 1 / 7,
        "ellipses_per_word": 2 / 7,
        "fraction_bullet_lines": 1 / 2,
        "fraction_ellipsis_lines": 1.0,
        "fraction_alpha_words": 3 / 7,
        "n_stop_words": 1,
    }


@pytest.mark.parametrize(
    "wrong", [{"min_words": "50"}, {"min_words": 50.0}, {"max_fraction_bullet_lines": 1.5}, {"min_word": 3}]
)
def test_a_wrong_parameter_is_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        GopherQuality(**wrong)


def test_a_whole_number_serves_as_a_ratio():
    assert GopherQuality(max_mean_word_length=12).max_mean_word_length == 12.0


@pytest.mark.parametrize(
    ("profile", "n_words", "mean_length", "alpha", "stop_words"),
    [
        ("paper", 6, (3 + 5 + 1 + 3 + 4 + 1) / 6, 4 / 6, 1),
        # Marks are words, but have no length: The cats , - the 42 , . without four of them.
        ("datatrove", 4, 12 / 4, 3 / 8, 1),
        ("dclm", 4, 17 / 6, 4 / 6, 2),
        ("uax29", 4, 12 / 4, 3 / 4, 1),
    ],
)
def test_the_profile_says_what_a_word_is(profile, n_words, mean_length, alpha, stop_words, table_of):
    text = "The cats, - the 42,a ." if profile in ("paper", "dclm") else "The cats, - the 42, ."
    scores = GopherQuality(profile=profile).scores(table_of(text))
    found = [scores[f"gopher_quality.{name}"][0].as_py() for name in ("n_words", "mean_word_length")]
    found += [
        scores[f"gopher_quality.{name}"][0].as_py() for name in ("fraction_alpha_words", "n_stop_words")
    ]
    assert found == [n_words, mean_length, alpha, stop_words]

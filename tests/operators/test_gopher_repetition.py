import pytest
from pydantic import ValidationError

from cuvee.operators.gopher_repetition import GopherRepetition


def _words(n, start=0):
    return " ".join(f"word{i}" for i in range(start, start + n))


@pytest.mark.parametrize("profile", ["paper", "datatrove", "dclm", "uax29"])
def test_it_keeps_the_contract_of_an_operator(profile, documents, check_operator):
    check_operator(GopherRepetition(profile=profile), documents)


# Each text passes all rules that come before its own.
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (_words(100), None),
        ("", "empty"),
        ("\n\n".join(["a", _words(40), "a", "b", "a", "a"]), "dup_para_frac"),  # 3 of 6
        (
            "\n\n".join([_words(5), _words(5), "b", "c"]),
            "dup_para_char_frac",
        ),  # 1 of 4, but half of the text
        ("\n".join(["a", _words(40), "a", "b", "a", "a"]), "dup_line_frac"),
        ("\n".join([_words(5), _words(5), "b", "c"]), "dup_line_char_frac"),
        (_words(10) + " incomprehensible indeed" * 4, "top_2_gram"),
        (_words(6) + " of this incomprehensible" * 2, "top_3_gram"),
        (_words(40) + " of this and that" * 5, "top_4_gram"),
        (f"{_words(10)} {_words(25, 30)} {_words(5)} last {_words(5, 5)}", "duplicated_5_n_grams"),
        (f"{_words(10)} {_words(6, 20)} {_words(10)} {_words(60, 30)}", None),
    ],
)
def test_each_rule_has_its_reason(text, reason, table_of):
    operator = GopherRepetition()
    assert operator.reasons(operator.scores(table_of(text))).to_pylist() == [reason]


def test_longer_ngrams_have_reasons_of_their_own(table_of):
    texts = [f"{_words(n)} {_words(20, 50)} {_words(n)} {_words(20, 80)}" for n in range(5, 11)]
    limits = {f"max_fraction_characters_duplicate_{n}_grams": 9.0 for n in range(5, 10)}
    operator = GopherRepetition(**limits)
    reasons = operator.reasons(operator.scores(table_of(*texts))).to_pylist()
    assert reasons == [None] * 5 + ["duplicated_10_n_grams"]


def test_the_profiles_count_the_same_lines_differently(table_of):
    text = "one line of it\nanother\none line of it\nthe third"
    scores = {
        profile: GopherRepetition(profile=profile).scores(table_of(text)) for profile in ("paper", "dclm")
    }
    lines = "gopher_repetition.fraction_duplicate_lines"
    assert [scores[profile][lines].to_pylist() for profile in ("paper", "dclm")] == [[1 / 4], [2 / 4]]
    characters = "gopher_repetition.fraction_characters_duplicate_lines"
    assert scores["paper"][characters].to_pylist() == [14 / len(text)]
    assert scores["dclm"][characters].to_pylist() == [28 / (len(text) - 3)]


def test_a_rule_without_a_limit_is_not_asked(table_of):
    text = "\n".join(["a", _words(40), "a", "b", "a", "a"])
    operator = GopherRepetition(
        max_fraction_duplicate_lines=None, max_fraction_characters_duplicate_lines=None
    )
    assert operator.reasons(operator.scores(table_of(text))).to_pylist() == [None]


def test_white_space_alone_is_empty_for_dclm(table_of):
    operator = GopherRepetition(profile="dclm")
    assert operator.reasons(operator.scores(table_of(" \n\t", None))).to_pylist() == ["empty", "empty"]


@pytest.mark.parametrize(
    "wrong", [{"profile": "dolma"}, {"max_fraction_duplicate_lines": -1}, {"max_dup_lines": 0.3}]
)
def test_a_wrong_parameter_is_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        GopherRepetition(**wrong)

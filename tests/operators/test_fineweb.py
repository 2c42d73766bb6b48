import pytest

from cuvee.operators.fineweb import Fineweb

LINE = "A line of prose that is longer than thirty characters, number {}."
PROSE = "\n".join(LINE.format(i) for i in range(10))


@pytest.mark.parametrize("profile", ["paper", "datatrove", "dclm", "uax29"])
def test_it_keeps_the_contract_of_an_operator(profile, documents, check_operator):
    check_operator(Fineweb(profile=profile), documents)


# Each text passes all rules that come before its own.
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PROSE, None),
        (" \n\n", "empty"),
        (None, "empty"),
        (PROSE.replace(".", ""), "line_punct_ratio"),
        (PROSE.replace(".", ".”"), "line_punct_ratio"),  # a closing quotation mark ends no sentence
        (PROSE.replace(".", "。"), None),
        ("short.\n" * 7 + "\n".join(LINE.format(i) for i in range(3)), "short_line_ratio"),
        (f"{PROSE}\n{LINE.format(3)}", "char_dup_ratio"),
        ("averyveryveryveryveryverylongword.\n\n\n" + "anotherveryveryveryveryverylongword.", "list_ratio"),
    ],
)
def test_each_rule_has_its_reason(text, reason, table_of):
    operator = Fineweb()
    assert operator.reasons(operator.scores(table_of(text))).to_pylist() == [reason]


def test_scores_are_as_counted_by_hand(table_of):
    scores = Fineweb(short_line_characters=4).scores(table_of("One.\n\ntwo words\nOne.\n"))
    assert {name.removeprefix("fineweb."): values[0].as_py() for name, values in scores.items()} == {
        "n_lines": 3,
        "fraction_lines_with_punctuation": 2 / 3,
        "fraction_short_lines": 2 / 3,
        "fraction_characters_duplicate_lines": 4 / 17,
        "newlines_per_word": 4 / 4,
    }


def test_the_papers_limit_for_duplicates_is_ten_times_the_codes(table_of):
    text = PROSE.replace("number 9.", "number 9.\nTwice.\nTwice.")
    scores = Fineweb().scores(table_of(text))
    assert Fineweb(max_fraction_characters_duplicate_lines=0.001).reasons(scores).to_pylist() == [
        "char_dup_ratio"
    ]
    assert Fineweb(max_fraction_characters_duplicate_lines=0.1).reasons(scores).to_pylist() == [None]

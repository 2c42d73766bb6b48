import pytest
from pydantic import ValidationError

from cuvee.operators.c4 import C4

FINE = "This is a sentence. And one more! Is it a third? It is. Here we end."


def _one(operator, table):
    scores = operator.scores(table)
    return scores, operator.reasons(scores).to_pylist()


@pytest.mark.parametrize(
    "operator",
    [
        C4(),
        C4(profile="datatrove", require_terminal_punctuation=False, min_sentences=1),
        C4(profile="icu", require_terminal_punctuation=False, min_sentences=1),
    ],
)
def test_it_keeps_the_contract_of_an_operator(operator, documents, check_operator):
    check_operator(operator, documents)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (FINE, None),
        (FINE.replace("third", "{third}"), "curly_bracket"),
        (f"{FINE}\nLorem ipsum dolor sit amet.", "lorem_ipsum"),
        ("This is a sentence. And one more! Is it a third? It is.", "too_few_sentences"),
        (f"menu {{\n{FINE}", None),  # the line with the bracket ends no sentence and goes first
        ("", "too_few_sentences"),
        (None, "too_few_sentences"),
    ],
)
def test_each_rule_has_its_reason(text, reason, table_of):
    assert _one(C4(), table_of(text))[1] == [reason]


def test_lines_that_go_are_counted_by_reason(table_of):
    lines = [
        f"Home | About | Contact\n{FINE}\n",
        "Too short.\nPlease enable JavaScript in it.\nThis site uses cookies for you.\n",
        f"{'x' * 1001} is a long word.\nA citation[1] of [citation needed] it.",
    ]
    scores, reasons = _one(C4(), table_of("".join(lines)))
    assert reasons == [None]
    assert scores["text"].to_pylist() == [f"{FINE}\nA citation of  it."]
    counts = {
        name.removeprefix("c4."): values[0].as_py() for name, values in scores.items() if name != "text"
    }
    assert counts == {
        "n_sentences": 6,
        "n_lines_long_word": 1,
        "n_lines_no_terminal_punctuation": 1,
        "n_lines_too_few_words": 1,
        "n_lines_lorem_ipsum": 0,
        "n_lines_javascript": 1,
        "n_lines_curly_bracket": 0,
        "n_lines_policy": 1,
        "n_citations": 2,
        "n_lines": 7,
    }


def test_a_dropped_document_keeps_the_text_that_it_had(table_of):
    text = "Menu\nOne sentence is here."
    scores, reasons = _one(C4(), table_of(text))
    assert (reasons, scores["text"].to_pylist()) == (["too_few_sentences"], [text])


def test_finewebs_variant_keeps_lines_that_end_no_sentence(table_of):
    text = f"a line without an end\ntwo words\n{FINE}"
    assert _one(C4(), table_of(text))[0]["text"].to_pylist() == [FINE]
    scores, reasons = _one(C4(require_terminal_punctuation=False), table_of(text))
    assert (reasons, scores["text"].to_pylist()) == ([None], [f"a line without an end\n{FINE}"])


def test_document_rules_can_be_switched_off(table_of):
    operator = C4(max_lines_curly_bracket=None, max_lines_lorem_ipsum=None, min_sentences=0)
    assert _one(operator, table_of("a { lorem ipsum."))[1] == [None]


@pytest.mark.parametrize("wrong", [{"min_sentences": -1}, {"remove_citations": "yes"}, {"min_sentence": 3}])
def test_a_wrong_parameter_is_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        C4(**wrong)


def test_chinese_lines_have_words_and_sentences_by_icu(table_of):
    pytest.importorskip("icu4py")
    table = table_of("他们今天去了北京的大学。你呢？我没有去！\n好。")
    by_icu = C4(profile="icu", require_terminal_punctuation=False, min_sentences=3)
    scores, reasons = _one(by_icu, table)
    assert scores["c4.n_sentences"].to_pylist() == [3]
    assert scores["c4.n_lines_too_few_words"].to_pylist() == [1]
    assert reasons == [None]
    assert _one(C4(require_terminal_punctuation=False, min_sentences=3), table)[1] == ["too_few_sentences"]

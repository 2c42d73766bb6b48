import threading

import pytest
from pydantic import ValidationError

from cuvee.operators.language import LANGUAGES, Language


@pytest.mark.parametrize("operator", [Language(), Language(keep=["en", "de"], min_confidence=0.65)])
def test_it_keeps_the_contract_of_an_operator(operator, documents, check_operator):
    check_operator(operator, documents)


def test_documents_in_other_languages_leave(documents, check_operator):
    result = check_operator(Language(keep=["en"]), documents).select(["language.label", "reason"]).to_pylist()
    assert [row["language.label"] for row in result[:4]] == ["en", "de", "en", "ja"]
    assert [row["reason"] for row in result[:4]] == [None, "other_language", None, "other_language"]


def test_a_document_of_doubtful_language_leaves(table_of, check_operator):
    table = table_of("4 8 15 16 23 42", "This sentence is plain English, as anyone can see at once.")
    result = check_operator(Language(min_confidence=0.65), table)
    assert result["reason"].to_pylist() == ["low_confidence", None]


def test_blank_text_has_no_language_and_no_reason_to_leave(table_of):
    operator = Language(keep=["en"], min_confidence=0.9)
    scores = operator.scores(table_of("", " \n\t\u3000", None))
    assert scores["language.label"].null_count == 3
    assert operator.reasons(scores).null_count == 3


def test_a_language_that_is_known_already_stays(table_of):
    text = "Der Kellermeister kostet jedes Fass und schreibt auf, was er findet."
    scores = Language().scores(table_of(text, text, lang=["nds", None]))
    assert scores["lang"].to_pylist() == ["nds", "de"]
    assert scores["language.label"].to_pylist() == ["de", "de"]


def test_only_the_first_characters_are_looked_at(table_of):
    english, german = "all the king's horses and all the king's men ", "und der Haifisch, der hat Zähne "
    scores = Language(max_chars=400).scores(table_of(english * 10 + german * 1_000))
    assert scores["language.label"].to_pylist() == ["en"]


def test_threads_share_the_model(documents):
    expected = Language().scores(documents)
    found = []
    threads = [threading.Thread(target=lambda: found.append(Language().scores(documents))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


def test_the_codes_are_those_of_the_model():
    assert len(set(LANGUAGES)) == 176


@pytest.mark.parametrize(("code", "hint"), [("eng", "did you mean 'en'"), ("Klingon", "there are: af, als,")])
def test_an_unknown_language_is_refused_with_a_hint(code, hint):
    with pytest.raises(ValidationError, match=f"unknown language '{code}'; {hint}"):
        Language(keep=["de", code])


def test_parameters_are_not_converted():
    with pytest.raises(ValidationError, match="max_chars"):
        Language(max_chars="50")

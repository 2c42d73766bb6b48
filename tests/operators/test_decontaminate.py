import json
import re
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.operators.decontaminate import Decontaminate
from cuvee.operators.eval_index import eval_index

QUESTION = "How many casks does the cellar master open when each of nine guests tastes two different wines?"
ANSWER = "Eighteen casks, because nine guests times two wines are eighteen glasses in all."
SHORT = "Which wine goes with a grilled trout today?"


@pytest.fixture(scope="session")
def evals(tmp_path_factory):
    """A file of three items: long, of eight words, and too short to look for."""
    path = tmp_path_factory.mktemp("eval") / "cellar.jsonl"
    rows = [
        {"id": "a", "text": QUESTION, "answer": ANSWER},
        {"id": "b", "text": SHORT},
        {"text": "Why wine?"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def scores_of(evals, table_of):
    def scores_of(*texts, **parameters):
        operator = Decontaminate(paths=[evals], **parameters)
        table = table_of(*texts)
        state = operator.finish(operator.merge([operator.observe(table)]))
        scores = operator.scores(table, state)
        rows = pa.table({name.split(".")[1]: column for name, column in scores.items()}).to_pylist()
        return rows, operator.reasons(scores).to_pylist()

    return scores_of


def test_it_keeps_the_contract_of_an_operator(evals, documents, check_operator):
    texts = documents["text"].to_pylist()
    texts[3], texts[9] = f"before {QUESTION} after", f"{texts[9]} {SHORT}"
    table = documents.set_column(1, "text", pa.array(texts, pa.large_string()))
    result = check_operator(Decontaminate(paths=[evals], max_docs_per_ngram=1), table)
    assert [i for i, reason in enumerate(result["reason"].to_pylist()) if reason] == [3, 9]


def test_a_document_with_an_item_names_it_and_where_it_stands(scores_of):
    text = f"Once upon a time: {QUESTION.upper().replace(' ', '  ')} Nobody knew."
    (row,), (reason,) = scores_of(text)
    assert reason == "common_ngrams"
    assert row["item"] == "cellar:a"
    assert text[row["start"] : row["stop"]] == QUESTION.upper().replace(" ", "  ").rstrip("?")
    assert row["overlap_words"] == len(re.findall(r"\w+", QUESTION)) == 17
    assert row["n_ngrams"] == 17 - 13 + 1


def test_thirteen_common_words_are_enough_and_twelve_are_not(scores_of):
    words = QUESTION.split()
    rows, reasons = scores_of(" ".join(words[2:15]), " ".join(words[2:14]))
    assert [row["n_ngrams"] for row in rows] == [1, 0]
    assert reasons == ["common_ngrams", None]


def test_an_item_is_found_across_its_fields(scores_of):
    (row,), _ = scores_of(" ".join([*QUESTION.split()[-6:], *ANSWER.split()[:7]]))
    assert row["item"] == "cellar:a"


def test_a_short_item_is_found_as_a_whole(scores_of):
    rows, reasons = scores_of(f"So: {SHORT}", SHORT.removesuffix("today?"), "Why wine?")
    assert [row["item"] for row in rows] == ["cellar:b", None, None]
    assert rows[0]["item_fraction"] == 1.0
    assert reasons == ["common_ngrams", None, None]


def test_a_share_of_an_item_can_be_the_rule(scores_of):
    part = " ".join(QUESTION.split()[:13])
    whole = f"{QUESTION} {ANSWER}"
    rows, reasons = scores_of(part, whole, max_ngrams=None, max_item_fraction=0.7)
    assert reasons == [None, "item_fraction"]
    assert rows[1]["item_fraction"] == 1.0


def test_a_long_overlap_can_be_the_rule(scores_of):
    _, reasons = scores_of(QUESTION, f"{QUESTION} {ANSWER}", max_ngrams=None, max_overlap_words=20)
    assert reasons == [None, "long_overlap"]


def test_what_everybody_quotes_can_be_left_aside(scores_of):
    part = " ".join(QUESTION.split()[:13])
    _, reasons = scores_of(part, part, part, QUESTION, max_docs_per_ngram=3)
    assert reasons == [None, None, None, "common_ngrams"]


def test_the_state_counts_documents_not_occurrences(evals, table_of):
    operator = Decontaminate(paths=[evals])
    part = " ".join(QUESTION.split()[:13])
    state = operator.finish(operator.merge([operator.observe(table_of(f"{part} {part}", part, "other"))]))
    assert state["n_docs"].to_pylist() == [2]


@given(st.lists(st.sampled_from(["a", "b", "Ü", "東", "\n", "."]), max_size=40), st.data())
def test_ngrams_agree_with_a_search_in_lists_of_words(pieces, data):
    item = data.draw(st.lists(st.sampled_from("abü"), min_size=1, max_size=8))
    text = " ".join(pieces)
    words = re.findall(r"\w+", text.lower())
    ngrams = {tuple(item[i : i + 3]) for i in range(len(item) - 2)} or {tuple(item)}
    n = len(next(iter(ngrams)))
    expected = sum(tuple(words[i : i + n]) in ngrams for i in range(len(words) - n + 1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.jsonl")
        path.write_text(json.dumps({"text": " ".join(item)}))
        operator = Decontaminate(paths=[str(path)], n=3, min_item_words=1)
        table = pa.table({"text": pa.array([text], pa.large_string())})
        scores = operator.scores(table, operator.finish(operator.observe(table)))
    assert scores["decontaminate.n_ngrams"].to_pylist() == [expected]


def test_a_copy_of_the_file_elsewhere_is_the_same_operator_and_another_content_is_not(evals, tmp_path):
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(Path(evals).read_bytes())
    first, second = Decontaminate(paths=[evals]), Decontaminate(paths=[str(copy)])
    assert first.identity() == second.identity()
    copy.write_text('{"text": "another"}\n')
    assert first.identity() != second.identity()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\nbroken', r"e\.jsonl:2: .*JSONL"),
        ('{"question": "a"}', r"e\.jsonl:1: .*none of the fields text, answer; it has 'question'"),
        ("[1]", "it has list"),
    ],
)
def test_an_evaluation_set_that_is_none_is_refused(content, message, tmp_path):
    path = tmp_path / "e.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        eval_index((str(path),), ("text", "answer"), 13, 8)


def test_a_file_that_is_not_there_is_refused_with_the_recipe():
    with pytest.raises(ValueError, match="No such file"):
        Decontaminate(paths=["/nowhere/e.jsonl"])

import json
import re
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.operators.cut_windows import cut_windows
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
        rows = pa.table({name.split(".")[-1]: column for name, column in scores.items()}).to_pylist()
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


GPT3 = {"cut_characters": 20, "max_ngrams": None, "min_piece_characters": 10}
BEFORE, AFTER = (
    "Once upon a time in the valley, somebody asked this: ",
    " And nobody ever gave an answer to it.",
)


def test_cutting_leaves_what_stands_further_from_the_item(scores_of):
    text = BEFORE + QUESTION + AFTER
    (row, other), reasons = scores_of(text, BEFORE, **GPT3)
    assert reasons == [None, None]
    stop = len(BEFORE) + len(QUESTION) - 1  # the question mark is no word
    assert (row["start"], row["stop"]) == (len(BEFORE), stop)
    assert row["text"] == text[: len(BEFORE) - 20] + "\n" + text[stop + 20 :]
    assert (row["n_cuts"], row["n_pieces"], row["item"]) == (1, 2, "cellar:a")
    assert (other["text"], other["n_cuts"], other["n_pieces"]) == (BEFORE, 0, 1)


def test_a_document_that_is_cut_too_often_or_away_is_dropped_with_its_text(scores_of):
    far = " one two three four five six" * 4
    often = far.join([QUESTION] * 4)
    rows, reasons = scores_of(often, QUESTION, often, **GPT3, max_cuts=3)
    assert reasons == ["too_many_cuts", "nothing_left", "too_many_cuts"]
    assert [row["text"] for row in rows] == [often, QUESTION, often]
    assert [row["n_cuts"] for row in rows] == [4, 1, 4]
    rows, reasons = scores_of(often, **GPT3, max_cuts=None)
    assert reasons == [None]
    assert rows[0]["text"].count("\n") == 2
    assert "casks" not in rows[0]["text"]


def test_items_that_are_close_make_one_cut(scores_of):
    (row,), _ = scores_of(f"{BEFORE}{QUESTION} Ha! {QUESTION}{AFTER}", **GPT3)
    assert (row["n_cuts"], row["n_pieces"]) == (1, 2)


def test_other_rules_hold_beside_cutting(scores_of):
    text = BEFORE + QUESTION + AFTER
    rows, reasons = scores_of(text, **GPT3, max_overlap_words=16)
    assert reasons == ["long_overlap"]
    assert rows[0]["text"] == text


def test_cutting_where_every_cut_document_would_be_dropped_is_refused(evals):
    with pytest.raises(ValueError, match="max_ngrams is 0, which drops each document that would be cut"):
        Decontaminate(paths=[evals], cut_characters=200)


def test_an_operator_that_cuts_keeps_the_contract(evals, documents, check_operator):
    texts = documents["text"].to_pylist()
    texts[3], texts[9] = BEFORE + QUESTION + AFTER, SHORT
    table = documents.set_column(1, "text", pa.array(texts, pa.large_string()))
    result = check_operator(Decontaminate(paths=[evals], **GPT3), table)
    assert [i for i, reason in enumerate(result["reason"].to_pylist()) if reason] == [9]
    assert "casks" not in result["text"][3].as_py()


@given(
    st.text("abc", max_size=60),
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 9)), max_size=6),
    st.integers(0, 8),
    st.integers(0, 8),
)
def test_what_is_left_is_every_long_piece_out_of_reach_of_the_spans(text, spans, around, shortest):
    spans = [(begin, min(begin + n, len(text))) for begin, n in spans if begin < len(text)]
    found = cut_windows(text, spans, around, shortest)
    is_cut = [any(begin - around <= i < end + around for begin, end in spans) for i in range(len(text))]
    pieces = "".join("\n" if cut else character for character, cut in zip(text, is_cut, strict=True))
    left = [piece for piece in re.split("\n+", pieces) if len(piece) >= max(1, shortest)]
    assert found.text == ("\n".join(left) if spans else text)
    if spans:
        assert found.n_pieces == len(left)
        assert found.n_cuts == len(re.findall("\n+", pieces))
    else:
        assert (found.n_cuts, found.n_pieces) == (0, 1)


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

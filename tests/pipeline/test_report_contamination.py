"""What the report tells of evaluation items: which ones, in which documents, where, and with what outcome."""

import json
from pathlib import Path

import pytest

from cuvee.pipeline.outcome import Outcome
from cuvee.pipeline.recipe import load_recipe
from cuvee.pipeline.report_contamination import Contamination, find_contamination
from cuvee.pipeline.report_filters import filter_pages
from cuvee.pipeline.report_html import excerpt_around
from cuvee.pipeline.report_rows import read_run, stage_files
from cuvee.pipeline.run import run

RECIPE = """\
inputs: [{{source: web, path: web.jsonl}}]
reading: {{shard_bytes: 3kB}}
curate:
  - decontaminate: {{paths: [cellar.jsonl], n: 8, {options}}}
"""
QUESTIONS = [
    f"How many casks of the {vintage} vintage does the master open for nine <b>guests</b>?"
    for vintage in ("first", "second")
]
FILLER = "Nothing that anybody asked stands in this sentence about rivers and paper. " * 6


def _run(folder: Path, options: str) -> Outcome:
    items = [{"id": f"q{i}", "text": question} for i, question in enumerate(QUESTIONS)]
    (folder / "cellar.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    texts = [FILLER] * 6 + [FILLER + QUESTIONS[i % 2] + FILLER for i in range(3)] + [QUESTIONS[0]]
    rows = [{"id": f"web-{i}", "text": f"{i} {text}"} for i, text in enumerate(texts)]
    (folder / "web.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "leaky.yaml").write_text(RECIPE.format(options=options))
    return run(load_recipe(folder / "leaky.yaml"), folder / "run")


def _found(outcome: Outcome) -> Contamination:
    files = stage_files(outcome)[-1]
    return find_contamination(files, files.operator("decontaminate"))  # type: ignore[arg-type]


def test_items_are_counted_with_what_became_of_their_documents(tmp_path: Path) -> None:
    found = _found(_run(tmp_path, "max_ngrams: 3"))
    assert found.n_docs == {("cellar", "dropped"): 4}
    assert found.items == {"cellar:q0": 3, "cellar:q1": 1}


def test_cut_documents_are_told_from_dropped_ones(tmp_path: Path) -> None:
    outcome = _run(tmp_path, "cut_characters: 50, max_ngrams: null")
    assert _found(outcome).n_docs == {("cellar", "cut"): 3, ("cellar", "dropped"): 1}
    page = filter_pages(read_run(outcome))["Filter decontaminate"]
    assert "nothing_left" in page
    assert page.count("<mark>") == 1, "of a text that was cut, no place is shown"


def test_the_page_marks_the_item_where_it_stands(tmp_path: Path) -> None:
    page = filter_pages(read_run(_run(tmp_path, "max_ngrams: 0")))["Filter decontaminate"]
    assert "4 documents have n-grams of 2 items of cellar.jsonl" in page
    start = len("6 " + FILLER)
    assert f"characters {start} to {start + len(QUESTIONS[0]) - len('>?')}" in page.replace(",", "")
    assert page.count("<mark>How many casks of the first vintage") == 3
    assert "<b>guests" not in page


def test_no_item_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "cellar.jsonl").write_text(json.dumps({"text": QUESTIONS[0]}) + "\n")
    (tmp_path / "web.jsonl").write_text(json.dumps({"text": FILLER}) + "\n")
    (tmp_path / "leaky.yaml").write_text(RECIPE.format(options="max_ngrams: 0"))
    page = filter_pages(read_run(run(load_recipe(tmp_path / "leaky.yaml"), tmp_path / "run")))
    assert "No document has an n-gram of an item of cellar.jsonl" in page["Filter decontaminate"]


@pytest.mark.parametrize(("start", "stop"), [(0, 5), (95, 100), (40, 60), (0, 100)])
def test_an_excerpt_around_a_place_shows_it_marked_and_says_what_is_left_out(start: int, stop: int) -> None:
    text = "".join(chr(0x4E00 + i) for i in range(100))
    shown = excerpt_around(text, start, stop, 40)
    marked = text[start : min(stop, start + 20)]
    assert f"<mark>{marked}" in shown
    n_shown = sum(character in shown for character in text)
    n_left_out = sum(
        int(part.split()[-1]) for part in shown.split(" character")[:-1] if part.split()[-1].isdigit()
    )
    assert n_shown + n_left_out == len(text)

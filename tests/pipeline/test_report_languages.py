"""What the report tells of thresholds by language: who decided, where they come from, what they dropped."""

import json
import random
from pathlib import Path

import pytest

from cuvee.operators.fineweb2 import Fineweb2
from cuvee.operators.language_thresholds import LanguageRow
from cuvee.pipeline.outcome import Outcome
from cuvee.pipeline.recipe import load_recipe
from cuvee.pipeline.report_filters import filter_pages
from cuvee.pipeline.report_languages import count_languages, origins
from cuvee.pipeline.report_rows import read_run, stage_files
from cuvee.pipeline.run import run

RECIPE = """\
inputs: [{{source: web, path: web.jsonl}}]
reading: {{shard_bytes: 8kB}}
curate:
  - length: {{min_characters: 10}}
  - fineweb2: {{profile: uax29, confidence: null, min_words: 12, {options}}}
"""
SENTENCE = {
    "en": "The cellar master tastes each vat and writes.",
    "de": "Der Meister kostet jedes Fass gern.",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random_ = random.Random(0)
    rows = []
    for lang, sentence in SENTENCE.items():
        for i in range(40):
            words = random_.sample(sentence.split() * 4, k=24 if i % 4 else 6)
            rows.append({"id": f"{lang}-{i}", "lang": lang, "text": " ".join(words)})
    rows.append({"id": "too short", "lang": "de", "text": "kurz"})
    rows += [{"id": f"none-{i}", "lang": lang, "text": "word " * 40} for i, lang in enumerate(["xx", None])]
    (tmp_path / "web.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def _run(folder: Path, options: str) -> Outcome:
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(options=options))
    return run(load_recipe(recipe), folder / "run")


def test_documents_count_for_the_language_that_decided(folder: Path) -> None:
    (folder / "languages.yaml").write_text("de: {stop_words: [der]}\nen: {}\n")
    files = stage_files(_run(folder, "table: languages.yaml"))[-1]
    operator = files.operator("fineweb2")
    assert isinstance(operator, Fineweb2)
    found = count_languages(files, operator, ["*", "de", "en"])
    assert found.n_seen == {"de": 40, "en": 40, "*": 2}, "what `length` dropped is not seen"
    n_dropped = files.accounting.dropped
    by_reason = {
        reason: sum(n for (_, other), n in found.n_dropped.items() if other == reason)
        for _, reason in found.n_dropped
    }
    assert by_reason == {
        reason.removeprefix("fineweb2."): n
        for reason, n in n_dropped.items()
        if reason.startswith("fineweb2")
    }
    assert found.dropped_of("*").total() == 2


def test_the_page_shows_thresholds_beside_the_papers_and_their_origin(folder: Path) -> None:
    page = filter_pages(read_run(_run(folder, "method: tail")))["Filter fineweb2"]
    assert "method: tail" in page
    assert "latin" in page
    # 40 of 90 own; of the rest 81 of 131 the script's, whose documents are those of "xx" too.
    for part in ("44.4\u00a0%", "34.4\u00a0%", "21.2\u00a0%"):
        assert page.count(part) == 2, part
    assert "paper 0.3, range 0.15 to 0.6" in page
    assert "\u2020" in page


def test_the_page_of_a_pinned_table_says_so(folder: Path) -> None:
    (folder / "languages.yaml").write_text("de: {thresholds: {max_newlines_per_word: 0.25}}\n")
    page = filter_pages(read_run(_run(folder, "table: languages.yaml")))["Filter fineweb2"]
    assert "nothing was derived" in page
    assert ">0.25<" in page


def test_a_table_by_hand_has_no_origins() -> None:
    assert origins(LanguageRow(), {}) == ("", "", "")

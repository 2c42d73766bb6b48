"""A table of thresholds by language: derived by one run, reviewed, pinned by the next one."""

import json
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from cuvee.operators.language_thresholds import read_table
from cuvee.pipeline.errors import InputError
from cuvee.pipeline.recipe import RecipeError, load_recipe
from cuvee.pipeline.run import run

RECIPE = """\
inputs: [{{source: web, path: web.jsonl}}]
reading: {{shard_bytes: 8kB}}
curate:
  - fineweb2: {{profile: uax29, confidence: null, min_words: 5, {parameters}}}
"""
WORDS = {
    "en": "the cellar master tastes each vat in spring and writes down what wine of that year has to offer",
    "de": "der Kellermeister kostet im Frühjahr jedes Fass und schreibt auf was ein Wein zu bieten hat",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random_ = random.Random(0)
    rows = []
    for lang, words in WORDS.items():
        for i in range(60):
            lines = [" ".join(random_.choices(words.split(), k=14)) for _ in range(8)]
            marks = random_.choices([".", ""], k=8)
            text = "\n".join(map("".join, zip(lines, marks, strict=True)))
            rows.append({"id": f"{lang}-{i}", "lang": lang, "text": text})
    (tmp_path / "web.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def _run(folder: Path, name: str, parameters: str) -> Path:
    recipe = folder / f"{name}.yaml"
    recipe.write_text(RECIPE.format(parameters=parameters))
    run(load_recipe(recipe), folder / name)
    return folder / name


def _kept(run_dir: Path) -> list[str]:
    parts = sorted(run_dir.glob("stages/01-*/part-*.parquet"))
    return [id_ for part in parts for id_ in pq.read_table(part, columns=["id"])["id"].to_pylist()]


def test_the_table_of_a_run_decides_the_same_when_it_is_pinned(folder: Path) -> None:
    derived = _run(folder, "derived", "method: tail")
    (table,) = derived.glob("stages/00-*/fit/languages.yaml")
    assert {"*", "de", "en"} == set(read_table(str(table)))
    assert 0 < len(_kept(derived)) < 120

    reviewed = folder / "languages.yaml"
    reviewed.write_bytes(table.read_bytes())
    assert _kept(_run(folder, "pinned", "table: languages.yaml")) == _kept(derived)

    edited = yaml.safe_load(reviewed.read_text("utf-8"))
    edited["en"]["thresholds"]["min_mean_word_length"] = 30
    reviewed.write_text(yaml.safe_dump(edited), "utf-8")
    assert set(_kept(_run(folder, "edited", "table: languages.yaml"))) == {
        id_ for id_ in _kept(derived) if id_.startswith("de")
    }


def test_a_table_that_cannot_be_is_a_problem_of_the_recipe(folder: Path) -> None:
    (folder / "languages.yaml").write_text("de: {thresholds: {min_words: 3}}")
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(parameters="table: languages.yaml"))
    with pytest.raises(RecipeError, match=r"recipe.yaml:4: .*de.thresholds.min_words: unknown"):
        load_recipe(recipe)


def test_a_corpus_without_the_reference_is_an_error_for_people(folder: Path) -> None:
    with pytest.raises(InputError, match="compares each language with 'fr', of which there are 0 documents"):
        _run(folder, "french", "reference_language: fr")

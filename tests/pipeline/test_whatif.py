"""What-if: the same answer as another run, from the scores alone."""

import json
import random
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cuvee.operators.decontaminate import Decontaminate
from cuvee.operators.exact_dedup import ExactDedup
from cuvee.operators.gopher_quality import GopherQuality
from cuvee.operators.language import Language
from cuvee.operators.url_filter import UrlFilter
from cuvee.pipeline.cli import main
from cuvee.pipeline.errors import InputError, UsageError
from cuvee.pipeline.recipe import load_recipe
from cuvee.pipeline.run import run
from cuvee.pipeline.run_directory import read_json, write_json
from cuvee.pipeline.whatif import KEPT, WhatIf, thresholds, what_if

RECIPE = """\
inputs: [{{source: web, path: web.jsonl}}]
reading: {{shard_bytes: 8kB}}
curate:
  - language: {{keep: [en]}}
  - gopher_quality: {{min_words: {min_words}, min_stop_words: {min_stop_words}}}
  - exact_dedup
  - pii
"""
DEFAULTS = {"min_words": 30, "min_stop_words": 3}


def _run(folder: Path, name: str, **changed: int) -> Path:
    recipe = folder / f"{name}.yaml"
    recipe.write_text(RECIPE.format(**DEFAULTS | changed))
    run(load_recipe(recipe), folder / name)
    return folder / name


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of 5 to 75 words, some twice, and some in another language."""
    folder = tmp_path_factory.mktemp("whatif")
    random_ = random.Random(0)
    words = ["the", "wine", "of", "that", "cellar", "and", "its", "vats", "have", "aged", "to", "be"]
    words += ["blended", "with", "care", "by", "a", "master", "in", "spring"]
    texts = [" ".join(random_.choices(words, k=random_.randrange(5, 75))) for _ in range(120)]
    texts += (
        texts[::5] + ["Der Wein im Keller und seine Fässer sind gereift, bis der Meister sie mischt."] * 7
    )
    (folder / "web.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return folder


@pytest.fixture(scope="module")
def run_dir(folder: Path) -> Path:
    return _run(folder, "first")


def _reasons(run_dir: Path) -> dict[str, str]:
    """What the rules of Gopher say about each document that they saw."""
    (stage,) = run_dir.glob("stages/00-*")
    reasons = {
        name: KEPT for path in stage.glob("*.parquet") for name in pq.read_table(path)["id"].to_pylist()
    }
    for path in stage.glob("dropped/*.parquet"):
        for row in pq.read_table(path, columns=["id", "dropped_by", "reason"]).to_pylist():
            if row["dropped_by"] == "gopher_quality":
                reasons[row["id"]] = row["reason"]
    return reasons


@pytest.mark.parametrize(
    "changed",
    [{"min_words": 10}, {"min_words": 60}, {"min_stop_words": 8}, {"min_words": 5, "min_stop_words": 7}],
)
def test_the_answer_is_that_of_another_run(changed: dict[str, int], folder: Path, run_dir: Path) -> None:
    outcome = what_if(run_dir, [f"gopher_quality.{name}={value}" for name, value in changed.items()])
    before = _reasons(run_dir)
    after = _reasons(_run(folder, "-".join(f"{name}{value}" for name, value in changed.items()), **changed))
    assert outcome.changes == Counter(
        (before[name], after[name]) for name in before if before[name] != after[name]
    )
    assert sum(outcome.changes.values()) > 0
    assert outcome.n_kept_after == sum(reason == KEPT for reason in after.values())
    assert outcome.after == changed


def test_rows_that_never_came_to_the_filter_are_not_judged(run_dir: Path) -> None:
    outcome = what_if(run_dir, ["gopher_quality.min_words=1"])
    assert outcome.unknown == {"language": 7}
    assert outcome.n_decided == 144
    assert outcome.not_asked == ("exact_dedup",)


def test_rows_that_left_below_are_told_apart(run_dir: Path) -> None:
    outcome = what_if(run_dir, ["language.min_confidence=1.0"])
    assert outcome.dropped_later["gopher_quality"] > 10
    assert outcome.unknown == {}


def test_examples_show_the_deciding_score_and_the_text(run_dir: Path) -> None:
    outcome = what_if(run_dir, ["gopher_quality.min_words=10"], n_examples=2)
    examples = outcome.examples["gopher_short_doc", KEPT]
    assert len(examples) == 2
    for example in examples:
        assert example.score == "gopher_quality.n_words"
        assert 10 <= example.value < 30
        assert len(example.text.split()) <= example.value


def test_the_same_threshold_changes_nothing(run_dir: Path) -> None:
    n_kept = _n_kept(run_dir)
    expected = WhatIf("gopher_quality", {}, {}, n_decided=144, n_kept_before=n_kept, n_kept_after=n_kept)
    expected.unknown, expected.not_asked = Counter({"language": 7}), ("exact_dedup",)
    assert what_if(run_dir, ["00.gopher_quality.min_words=30"]) == expected


def _n_kept(run_dir: Path) -> int:
    return sum(reason == KEPT for reason in _reasons(run_dir).values())


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("gopher_qualty.min_words=1", "no operator 'gopher_qualty'; did you mean 'gopher_quality'"),
        ("gopher_quality.min_word=1", "no parameter 'min_word'; did you mean 'min_words'"),
        ("gopher_quality.stop_words=[a]", "'stop_words' changes the scores themselves"),
        ("language.max_chars=7", "'max_chars' changes the scores themselves.*: keep, min_confidence"),
        ("exact_dedup.keep=longest", "thresholds of 'exact_dedup': none"),
        ("pii.replace_email=x", "'pii' drops nothing"),
        ("gopher_quality.min_words", "write OPERATOR.THRESHOLD=VALUE"),
        ("gopher_quality.min_words=many", "min_words: found 'many'; .*integer"),
        ("gopher_quality.min_words=-1", "min_words: found -1; .*greater than or equal to 0"),
        ("01.gopher_quality.min_words=1", "stands in the stage '00-"),
    ],
)
def test_an_assignment_that_cannot_be_is_refused(assignment: str, message: str, run_dir: Path) -> None:
    with pytest.raises(UsageError, match=message):
        what_if(run_dir, [assignment])


def test_two_filters_at_once_are_refused(run_dir: Path) -> None:
    with pytest.raises(UsageError, match="gopher_quality and language; the answer is exact for one filter"):
        what_if(run_dir, ["gopher_quality.min_words=1", "language.min_confidence=0.5"])


def test_a_folder_without_a_run_or_with_half_of_one_is_refused(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run directory"):
        what_if(tmp_path, ["gopher_quality.min_words=1"])
    write_json(tmp_path / "plan.json", read_json(run_dir / "plan.json"))
    with pytest.raises(InputError, match="is not complete"):
        what_if(tmp_path, ["gopher_quality.min_words=1"])


@pytest.mark.parametrize(
    ("operator", "movable"),
    [
        (Language, {"keep", "min_confidence"}),
        (GopherQuality, GopherQuality.model_fields.keys() - {"stop_words", "profile"}),
        (ExactDedup, set()),
        (UrlFilter, {"max_soft_words"}),
        (Decontaminate, {"max_ngrams", "max_overlap_words", "max_item_fraction"}),
    ],
)
def test_the_thresholds_are_the_parameters_of_the_rules_alone(operator: type, movable: set[str]) -> None:
    assert thresholds(operator) == movable


def test_the_command_prints_the_change_and_its_limits(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["whatif", str(run_dir), "gopher_quality.min_words=10"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "gopher_quality.min_words: 30 -> 10" in out
    assert "gopher_short_doc kept" in out
    assert "never scored by gopher_quality: language 7" in out
    assert "not asked about them: exact_dedup" in out

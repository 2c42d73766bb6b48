"""What-if: the same answer as another run, from the scores alone."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cuvee.operators.base import Decides, Filter, Rule, Scores
from cuvee.operators.c4 import C4
from cuvee.operators.decontaminate import Decontaminate
from cuvee.operators.exact_dedup import ExactDedup
from cuvee.operators.fineweb import Fineweb
from cuvee.operators.gopher_quality import GopherQuality
from cuvee.operators.gopher_repetition import GopherRepetition
from cuvee.operators.language import Language
from cuvee.operators.length import Length
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
        (Language(), {"keep", "min_confidence"}),
        (GopherQuality(), GopherQuality.model_fields.keys() - {"stop_words", "profile"}),
        (GopherRepetition(), GopherRepetition.model_fields.keys() - {"profile"}),
        (C4(), {"min_sentences", "max_lines_lorem_ipsum", "max_lines_curly_bracket"}),
        (Fineweb(), Fineweb.model_fields.keys() - {"profile", "short_line_characters"}),
        (Length(), Length.model_fields.keys() - {"profile"}),
        (ExactDedup(), set()),
        (UrlFilter.model_construct(), {"max_soft_words"}),
        (
            Decontaminate.model_construct(),
            {"max_ngrams", "max_overlap_words", "max_item_fraction"},
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_thresholds_are_the_parameters_of_the_rules_alone(operator: Decides, movable: set[str]) -> None:
    assert thresholds(operator) == movable


class _MakesNamesUp(Filter):
    name = "makes_names_up"
    writes = ("makes_names_up.n",)
    n: int = 1

    def scores(self, table: pa.Table) -> Scores:
        return {"makes_names_up.n": pa.array([getattr(self, "n")] * len(table))}  # noqa: B009

    def rules(self) -> Sequence[Rule]:
        return (Rule("n", "makes_names_up.n", maximum=self.n),)


def test_a_score_that_may_depend_on_any_parameter_leaves_no_threshold() -> None:
    assert thresholds(_MakesNamesUp()) == set()


def test_the_command_prints_the_change_and_its_limits(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["whatif", str(run_dir), "gopher_quality.min_words=10"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "gopher_quality.min_words: 30 -> 10" in out
    assert "gopher_short_doc kept" in out
    assert "never scored by gopher_quality: language 7" in out
    assert "not asked about them: exact_dedup" in out


RULES = """\
inputs: [{{source: web, path: web.jsonl}}, {{source: prose, path: prose.jsonl}}]
reading: {{shard_bytes: 8kB}}
curate:
  - language
  - gopher_repetition: {{max_fraction_characters_top_2_gram: {repeated}}}
  - c4: {{min_sentences: {sentences}}}
  - where: {{keep: "{keep}", reason: short}}
"""
LOOSE = {"repeated": 0.2, "sentences": 0, "keep": "gopher_repetition.n_characters > 100"}


PROSE = (
    "A vat is tasted in spring. Nobody hurries the oldest cask. Rain fell on the slope above. "
    "Then came a dry and windy June. Grapes were small that year! Who would have thought it?"
)


def _run_rules(folder: Path, name: str, **changed: object) -> Path:
    (folder / "prose.jsonl").write_text(json.dumps({"text": PROSE}) + "\n")
    recipe = folder / f"{name}.yaml"
    recipe.write_text(RULES.format(**LOOSE | changed))
    run(load_recipe(recipe), folder / name)
    return folder / name


@pytest.fixture(scope="module")
def ruled(folder: Path) -> Path:
    return _run_rules(folder, "ruled")


def _reasons_of(run_dir: Path, operator: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for path in run_dir.glob("stages/00-*/dropped/*.parquet"):
        for row in pq.read_table(path, columns=["dropped_by", "reason"]).to_pylist():
            if row["dropped_by"] == operator:
                found[row["reason"]] += 1
    return found


def test_the_repetition_rules_answer_as_another_run(folder: Path, ruled: Path) -> None:
    outcome = what_if(ruled, ["gopher_repetition.max_fraction_characters_top_2_gram=0.08"])
    reasons = _reasons_of(_run_rules(folder, "repeated", repeated=0.08), "gopher_repetition")
    assert outcome.changes[KEPT, "top_2_gram"] > 0
    assert outcome.n_decided - outcome.n_kept_after == reasons.total()


def test_a_condition_is_asked_anew_from_stored_columns(folder: Path, ruled: Path) -> None:
    keep = "gopher_repetition.n_characters > 200 and lang is not None"
    outcome = what_if(ruled, [f"where.keep={keep}"], n_examples=1)
    reasons = _reasons_of(_run_rules(folder, "condition", keep=keep), "where")
    assert outcome.n_decided - outcome.n_kept_after == reasons["short"]
    assert outcome.changes.keys() == {(KEPT, "short")}
    assert outcome.examples[KEPT, "short"][0].value == 0


def test_what_only_another_run_can_say_is_refused_and_said(
    ruled: Path,
) -> None:
    with pytest.raises(UsageError, match="'min_words_per_line' changes the text that the filter writes"):
        what_if(ruled, ["c4.min_words_per_line=5"])
    with pytest.raises(UsageError, match=r"no column 'language.confidenc'; did you mean 'language.conf"):
        what_if(ruled, ["where.keep=language.confidenc > 0.5"])
    with pytest.raises(UsageError, match="reason of 'where' names a reason and decides nothing"):
        what_if(ruled, ["where.reason=other"])
    with pytest.raises(UsageError, match="is no YAML value; put it into quotation marks"):
        what_if(ruled, ["where.keep=[1"])
    with pytest.raises(UsageError, match="'profile' changes the scores themselves"):
        what_if(ruled, ["gopher_repetition.profile=dclm"])


def test_text_that_a_filter_would_write_is_not_claimed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = _run_rules(folder, "sentences", sentences=5)
    assert main(["whatif", str(run_dir), "c4.min_sentences=0"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "c4.min_sentences: 5 -> 0" in out
    assert "c4 rewrites text, too: the rows that would come back are stored as they came" in out

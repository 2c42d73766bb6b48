"""The report's pages on filters: documents at the lines, shares by domain, and other notions of a word."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cuvee.operators.base import Filter, Rule
from cuvee.pipeline import report_profiles
from cuvee.pipeline.outcome import Outcome
from cuvee.pipeline.recipe import load_recipe
from cuvee.pipeline.report import render
from cuvee.pipeline.report_filters import filter_pages
from cuvee.pipeline.report_lines import N_NEAREST, Line, distances
from cuvee.pipeline.report_profiles import disagreements, stage_sample
from cuvee.pipeline.report_rows import StageFiles, read_run, stage_files
from cuvee.pipeline.report_scores import measure
from cuvee.pipeline.run import run

RECIPE = """\
name: filters
inputs: [{{source: web, path: web.jsonl, columns: {{domain: topic}}}}]
reading: {{shard_bytes: {shard_bytes}}}
curate:
  - gopher_quality: {{min_words: 40, min_stop_words: 1}}
  - fineweb: {{max_fraction_short_lines: 0.5}}
  - where: {{keep: "gopher_quality.n_words < 100 or topic_rank > 1", reason: rank}}
"""
WORDS = ["the", "of", "and", "river", "paper", "quiet", "engine", "letter", "well-known", "it's", "--", "§"]


def _text(random: np.random.Generator) -> str:
    """Lines of some words, many of them short, some without a letter."""
    n_words = int(random.integers(20, 120))
    words = random.choice(WORDS, n_words, p=[0.15, 0.1, 0.1, *[0.1] * 5, 0.05, 0.05, 0.05, 0.0])
    step = int(random.integers(3, 15))
    lines = [" ".join(words[i : i + step]) for i in range(0, n_words, step)]
    return "\n".join(line + random.choice([".", "", " ..."]) for line in lines)


def _run(folder: Path, shard_bytes: str) -> Outcome:
    folder.mkdir(exist_ok=True)
    random = np.random.default_rng(1)
    rows = [
        {"id": f"web-{i}", "text": _text(random), "topic": f"t{i % 3}", "topic_rank": i % 3}
        for i in range(400)
    ]
    (folder / "web.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    (folder / "filters.yaml").write_text(RECIPE.format(shard_bytes=shard_bytes), "utf-8")
    return run(load_recipe(folder / "filters.yaml"), folder / "run")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return _run(tmp_path_factory.mktemp("filters"), "1MB")


@pytest.fixture(scope="module")
def files(outcome: Outcome) -> StageFiles:
    return stage_files(outcome)[0]


def _rows(files: StageFiles) -> Iterator[dict[str, Any]]:
    for path in (*files.kept, *files.dropped):
        yield from pq.read_table(path).to_pylist()


def _lines(files: StageFiles, name: str) -> list[Line]:
    operator = files.operator(name)
    assert isinstance(operator, Filter)
    return measure(files, [operator])[0].lines


@pytest.mark.parametrize("name", ["gopher_quality", "fineweb"])
def test_the_documents_at_a_line_are_the_nearest_of_each_side(name: str, files: StageFiles) -> None:
    order = [operator.name for operator in files.stage.operators]
    behind = order[order.index(name) :]
    n_dropped = 0
    for line in _lines(files, name):
        limits = [limit for limit in (line.rule.minimum, line.rule.maximum) if limit is not None]
        sides: dict[bool, list[float]] = {True: [], False: []}
        for row in _rows(files):
            score, by = row[line.rule.score], row.get("dropped_by")
            is_there = (by is None or by in behind) and score is not None
            if is_there and (by != name or row["reason"] == line.rule.reason):
                sides[by != name].append(min(abs(score - limit) for limit in limits))
        for is_kept, near in ((True, line.kept), (False, line.dropped)):
            assert [one.distance for one in near] == pytest.approx(sorted(sides[is_kept])[:N_NEAREST])
        n_dropped += len(line.dropped)
    assert n_dropped >= N_NEAREST


def test_documents_at_a_line_do_not_depend_on_the_shards(files: StageFiles, tmp_path: Path) -> None:
    cut = stage_files(_run(tmp_path, "5kB"))[0]
    assert len(cut.kept) > 5 > len(files.kept)
    for name in ("gopher_quality", "fineweb", "where"):
        for whole, parts in zip(_lines(files, name), _lines(cut, name), strict=True):
            for one, other in ((whole.kept, parts.kept), (whole.dropped, parts.dropped)):
                assert [near[:2] for near in one] == [near[:2] for near in other]


def test_a_rule_that_lists_what_it_allows_has_no_distance_and_nulls_have_none() -> None:
    label = pa.chunked_array([["en", None, "de"]])
    assert distances(Rule("other", "s", allowed=("en",)), label).tolist() == pytest.approx(
        [0, np.nan, 0], nan_ok=True
    )
    unseen = pa.chunked_array([pa.nulls(2, pa.string())])
    assert np.isnan(distances(Rule("low", "s", minimum=1), unseen)).all()


def test_each_domain_is_told_with_those_that_reached_the_filter(outcome: Outcome) -> None:
    rows = read_run(outcome)
    seen = rows.seen_by_domain(0, rows.stages[0].stage.operators[1])
    expected = Counter(
        row["domain"] for row in _rows(rows.stages[0]) if row.get("dropped_by") != "gopher_quality"
    )
    assert seen == expected
    assert 0 < seen.total() < 400


def test_a_page_tells_rules_parameters_and_the_columns_of_a_condition(outcome: Outcome) -> None:
    pages = filter_pages(read_run(outcome))
    assert list(pages) == ["Filters", "Filter gopher_quality", "Filter fineweb", "Filter where"]
    quality, where = pages["Filter gopher_quality"], pages["Filter where"]
    assert "Set in the recipe: <code>min_words: 40</code>, <code>min_stop_words: 1</code>." in quality
    assert "gopher_short_doc: <code>n_words &gt;= 40</code>" in quality
    assert "<code>gopher_quality.n_words</code> = " in where
    assert "<code>topic_rank</code> = 0" in where
    assert "left later for where.rank" in quality


def test_another_profile_decides_as_a_run_with_it_would(files: StageFiles) -> None:
    operator = files.operator("gopher_quality")
    assert isinstance(operator, Filter)
    found = disagreements(files, operator, stage_sample(files))
    rows = pa.Table.from_pylist([{"id": row["id"], "text": row["text"]} for row in _rows(files)])
    ours = operator.reasons(operator.scores(rows)).is_null()
    assert [other.profile for other in found.of] == ["datatrove", "dclm", "uax29"]
    assert found.n_left_out == 0
    assert found.n_kept == ours.true_count
    for other in found.of:
        changed = operator.model_copy(update={"profile": other.profile})
        theirs = changed.reasons(changed.scores(rows)).is_null()
        assert (other.n_rows, other.n_kept) == (400, theirs.true_count)
        differs = np.asarray(ours) != np.asarray(theirs)
        assert other.changes.total() == differs.sum()
        assert {example["id"] for example in other.examples} <= {
            rows["id"][i].as_py() for i in np.flatnonzero(differs).tolist()
        }
    assert max(other.changes.total() for other in found.of) > 10


def test_rows_whose_text_was_rewritten_are_left_out_and_counted(files: StageFiles) -> None:
    operator = files.operator("gopher_quality")
    assert isinstance(operator, Filter)
    sample = stage_sample(files)
    row = sample["left_for"].to_pylist().index(None)
    texts = sample["text"].to_pylist()
    texts[row] = "too short"
    rewritten = sample.set_column(2, "text", pa.array(texts, pa.large_string()))
    found = disagreements(files, operator, rewritten)
    assert found.n_left_out == 1
    assert {other.n_rows for other in found.of} == {399}


def test_the_sample_is_bounded_and_the_same_for_any_sharding(
    files: StageFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_profiles, "N_SAMPLED", 50)
    monkeypatch.setattr(report_profiles, "N_SAMPLED_SHARDS", 1000)
    whole, parts = stage_sample(files), stage_sample(stage_files(_run(tmp_path, "5kB"))[0])
    assert len(whole) == 50
    assert whole.equals(parts)
    monkeypatch.setattr(report_profiles, "MAX_SAMPLED_BYTES", 1000)
    assert 0 < sum(len(text.encode()) for text in stage_sample(files)["text"].to_pylist()) <= 1000


def test_the_report_has_a_bounded_size_whatever_documents_hold(outcome: Outcome) -> None:
    n_rules = sum(len(operator.rules()) for operator in outcome.plan.stages[0].operators)  # type: ignore[attr-defined]
    pages = filter_pages(read_run(outcome))
    assert sum(map(len, pages.values())) < n_rules * 2 * N_NEAREST * 1000 + 200_000
    assert "Filter where" in render(outcome)

"""A fit that looks twice, in a pipeline: resumed, and against earlier runs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from cuvee.operators.exact_dedup import ExactDedup
from cuvee.operators.gopher_quality import GopherQuality
from cuvee.operators.minhash_dedup import MinHashDedup
from cuvee.pipeline.curation import Curation
from cuvee.pipeline.engines import LocalEngine
from cuvee.pipeline.errors import InputError
from cuvee.pipeline.fitting import FOUND
from cuvee.pipeline.recipe import load_recipe
from cuvee.pipeline.run import run

from .conftest import curation_of, documents, file_bytes, write_jsonl

N_FIRST = 25


def _curated(
    folder: Path, texts: Mapping[str, Sequence[str]], minhash: Mapping[str, Any] | None = None
) -> Path:
    """The run directory of a run over some sources."""
    inputs = []
    for source, found in texts.items():
        rows = [{"id": f"{source}-{i}", "text": text} for i, text in enumerate(found)]
        write_jsonl(folder / f"{source}.jsonl", rows)
        inputs.append({"source": source, "path": f"{source}.jsonl"})
    recipe = folder / "recipe.yaml"
    curate = [{"gopher_quality": {"min_words": 20}}, {"minhash_dedup": {**(minhash or {})}}]
    # JSON is YAML.
    recipe.write_text(json.dumps({"inputs": inputs, "curate": curate, "reading": {"shard_bytes": "6kB"}}))
    run(load_recipe(recipe), folder / "run")
    return folder / "run"


def _rows(run_dir: Path) -> dict[str, tuple[str | None, float | None]]:
    """Survivor and similarity by id, of kept and dropped documents, from the last stage."""
    parts = [*run_dir.glob("stages/01-*/part-*.parquet"), *run_dir.glob("stages/01-*/dropped/*.parquet")]
    columns = ["id", "minhash_dedup.survivor", "minhash_dedup.similarity"]
    rows = [
        row
        for part in parts
        if pq.read_metadata(part).num_rows
        for row in pq.read_table(part, columns=columns).to_pylist()
    ]
    return {row["id"]: (row[columns[1]], row[columns[2]]) for row in rows}


@pytest.fixture(scope="module")
def texts() -> dict[str, list[str]]:
    sea, code = documents("sea", 40), documents("code", 40)
    return {
        "old": sea[:N_FIRST] + code[:N_FIRST],
        "new": sea[N_FIRST:] + code[N_FIRST:],
        "newest": [text + " And so on." for text in sea[5:12]] + code[:9] + documents("cellar", 3),
    }


@pytest.fixture(scope="module")
def one_run(tmp_path_factory: pytest.TempPathFactory, texts: dict[str, list[str]]) -> Path:
    return _curated(tmp_path_factory.mktemp("once"), texts)


@pytest.fixture(scope="module")
def old_run(tmp_path_factory: pytest.TempPathFactory, texts: dict[str, list[str]]) -> Path:
    return _curated(tmp_path_factory.mktemp("old"), {"old": texts["old"]})


def test_increments_give_what_one_run_gives(
    one_run: Path, old_run: Path, texts: dict[str, list[str]], tmp_path: Path
) -> None:
    new_run = _curated(tmp_path / "a", {"new": texts["new"]}, {"against": [str(old_run)]})
    last_run = _curated(tmp_path / "b", {"newest": texts["newest"]}, {"against": ["../a/run"]})
    found = _rows(old_run) | _rows(new_run) | _rows(last_run)
    assert found == _rows(one_run)
    across = [survivor for name, (survivor, _) in found.items() if survivor and survivor[:3] != name[:3]]
    assert len(across) > 10


def test_another_earlier_run_is_another_stage(old_run: Path, one_run: Path, tmp_path: Path) -> None:
    names = set()
    for against in ((), (str(old_run),), (str(one_run),)):
        operators = [MinHashDedup(against=against)]
        names.add(curation_of(tmp_path, operators, LocalEngine(1)).plan.stages[0].folder)
    assert len(names) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ngram": 4}, "its ngram is 5, here it is 4; documents are comparable only where"),
        ({"threshold": 0.5}, "its n_bands is 18, here it is 18|its rows_per_band is 6, here it is 2"),
    ],
)
def test_an_earlier_run_with_other_signatures_is_refused(
    old_run: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        curation_of(tmp_path, [MinHashDedup(against=(str(old_run),), **change)], LocalEngine(1))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"it holds no plan\.json; name the directory of a run"):
        curation_of(tmp_path, [MinHashDedup(against=(str(tmp_path),))], LocalEngine(1))


def test_an_earlier_run_that_is_not_complete_is_refused(old_run: Path, tmp_path: Path) -> None:
    (state,) = old_run.glob("stages/00-*/fit/state.arrow")
    hidden = state.rename(state.with_suffix(".hidden"))
    try:
        with pytest.raises(
            InputError, match="did not come as far as the end of minhash_dedup; run its recipe"
        ):
            curation_of(tmp_path, [MinHashDedup(against=(str(old_run),))], LocalEngine(1))
    finally:
        hidden.rename(state)


def _curation(folder: Path, run_name: str) -> Curation:
    operators = [GopherQuality(min_words=20), MinHashDedup(keep="longest")]
    return curation_of(folder, operators, LocalEngine(1), run=run_name)


@pytest.mark.parametrize("lost", ["state.arrow", "again-part-00001.arrow", FOUND, "*"])
def test_a_second_look_goes_on_where_it_was_stopped(tmp_path: Path, lost: str) -> None:
    curation = _curation(tmp_path, "run")
    curation.run()
    expected = file_bytes(tmp_path / "run/stages")
    fit = curation.state(curation.plan.stages[0]).parent
    stamps = {path.name: path.stat().st_mtime_ns for path in fit.iterdir()}
    (fit / "state.arrow").unlink()
    for path in [*fit.glob(lost)]:
        path.unlink()
    _curation(tmp_path, "run").run()
    assert file_bytes(tmp_path / "run/stages") == expected
    redone = {path.name for path in fit.iterdir() if path.stat().st_mtime_ns != stamps[path.name]}
    assert redone == ({"state.arrow", lost} if lost != "*" else set(stamps))


def test_the_manifest_says_what_the_closure_would_have_removed(tmp_path: Path) -> None:
    first, second = _curation(tmp_path, "run").run()
    assert first["fit_summary"] == {}
    summary, dropped = second["fit_summary"], second["accounting"]["dropped"]
    assert summary["n_removed"] == dropped["minhash_dedup.duplicate"] > 0
    assert summary["n_more_by_closure"] >= 0
    assert summary["n_with_candidates"] > summary["n_removed"]


def test_an_unsuitable_column_is_the_users_to_put_right(tmp_path: Path) -> None:
    for operator in (MinHashDedup(keep="best", by="scor"), ExactDedup(keep="newest", by="dat")):
        with pytest.raises(InputError, match=f"by: column '{operator.by}' is null or missing in all"):
            curation_of(tmp_path, [operator], LocalEngine(1)).run()

"""A run that is killed goes on where it stopped; a run that is changed redoes what the change reaches."""

import importlib.util
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from cuvee.pipeline.cli import main

from .conftest import (
    CURATE,
    TOKENIZE,
    TRAINING,
    Made,
    WholeRun,
    documents,
    file_bytes,
    made,
    write_corpus,
    write_jsonl,
)


def _benchmark(name: str) -> ModuleType:
    """A module of the repository's benchmarks, which no installation holds."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "n_kills"),
    [("local", 2), pytest.param("ray", 1, marks=[pytest.mark.ray, pytest.mark.minutes])],
)
def test_a_run_killed_at_random_moments_ends_with_the_bytes_of_an_undisturbed_one(
    whole_run: WholeRun, engine: str, n_kills: int, tmp_path: Path
) -> None:
    recipe, undisturbed = whole_run.recipe, whole_run.run_dir
    if engine == "ray":  # which curates and tokenizes; training is the same processes on either engine
        pytest.importorskip("ray")
        recipe = recipe.with_name("text.yaml")
        recipe.write_text(whole_run.recipe.read_text("utf-8").replace(TRAINING, ""), "utf-8")
        undisturbed = tmp_path / "undisturbed"
        assert main(["run", str(recipe), "--run-dir", str(undisturbed), "--workers", "1"]) == 0
    outcome = _benchmark("resume").kill_and_resume(
        recipe, engine, n_kills, 1, folder=tmp_path, undisturbed=undisturbed
    )
    assert outcome.differing == ()
    assert outcome.identical
    assert outcome.redone == ()
    assert outcome.leftovers == ()
    if engine == "local":  # Ray's daemons end by themselves, some of them late
        assert outcome.n_orphans == 0
    assert outcome.n_kills == n_kills


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[Path, Made]]:
    """Runs the tiny recipe with changed lines; the parts and states that are there, and how each was made."""
    write_corpus(tmp_path)

    def run(*changes: tuple[str, str], options: tuple[str, ...] = ()) -> dict[Path, Made]:
        text = (tmp_path / "tiny.yaml").read_text("utf-8") + TOKENIZE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "changed.yaml").write_text(text, "utf-8")
        code = main(["run", str(tmp_path / "changed.yaml"), "--run-dir", str(tmp_path / "run"), *options])
        assert code == 0, capsys.readouterr().err
        found = [*tmp_path.glob("run/stages/*/part-*"), *tmp_path.glob("run/stages/*/fit/state.arrow")]
        return {path.relative_to(tmp_path / "run/stages"): made(path) for path in found}

    return run


def _stages(*runs: dict[Path, Made]) -> set[str]:
    """The names of the stages that the last run made anew, without their hashes."""
    *before, after = runs
    old = {item for one in before for item in one.items()}
    return {path.parts[0].rsplit("-", 1)[0] for path, how in after.items() if (path, how) not in old}


ALL = {"00-gopher_quality", "01-exact_dedup", "02-minhash_dedup-pii", "03-tokenize"}


def test_the_same_recipe_does_nothing_twice(run: Callable[..., dict[Path, Made]]) -> None:
    first = run()
    assert _stages(first) == ALL
    assert run() == first


def test_a_changed_parameter_reruns_its_stage_and_those_after_it_only(
    run: Callable[..., dict[Path, Made]],
) -> None:
    first = run()
    second = run(("minhash_dedup", "minhash_dedup: {n_bands: 13, rows_per_band: 8}"))
    # A fit observes in the stage before its own, so that stage is another one, too.
    assert _stages(first, second) == ALL - {"00-gopher_quality"}
    third = run(("- pii", "- pii: {replace_email: someone@example.com}"))
    assert _stages(first, second, third) == {"02-minhash_dedup-pii", "03-tokenize"}
    fourth = run(("vocab_size: 300", "vocab_size: 310"))
    assert _stages(first, second, third, fourth) == {"02-minhash_dedup-pii", "03-tokenize"}


def test_changing_a_parameter_back_finds_the_old_stages(run: Callable[..., dict[Path, Made]]) -> None:
    first = run()
    second = run(("min_words: 20", "min_words: 25"))
    assert _stages(first, second) == ALL
    assert _stages(first, second, run()) == {"03-tokenize"}, "tokens/ holds one content at a time"


def test_a_changed_input_reruns_all(run: Callable[..., dict[Path, Made]], tmp_path: Path) -> None:
    first = run()
    write_jsonl(tmp_path / "sea.jsonl", [{"text": text} for text in documents("sea", 61)])
    assert _stages(first, run()) == ALL


def test_what_only_judges_or_hastens_a_run_reruns_nothing(run: Callable[..., dict[Path, Made]]) -> None:
    first = run()
    assert run(("20kB", "20kB, on_bad_shard: skip, max_unreadable_fraction: 0.5")) == first
    assert run(options=("--workers", "1")) == first


def test_another_number_of_workers_gives_the_same_bytes(
    run: Callable[..., dict[Path, Made]], tmp_path: Path
) -> None:
    run(options=("--workers", "1"))
    expected = file_bytes(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    run(options=("--workers", "3"))
    assert file_bytes(tmp_path / "run") == expected


def test_a_run_directory_may_be_relative_a_link_and_have_spaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = write_corpus(tmp_path / "data", 20)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "real folder ü").mkdir()
    (tmp_path / "link").symlink_to("real folder ü")
    assert main(["run", str(recipe), "--run-dir", "link"]) == 0
    assert main(["run", "data/tiny.yaml", "--run-dir", "real folder ü"]) == 0
    assert len(list((tmp_path / "real folder ü/stages").iterdir())) == CURATE.count("- ") - 1

"""The command line: what it prints, and the code it exits with."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cuvee.operators.gopher_quality import GopherQuality
from cuvee.operators.registry import operators
from cuvee.pipeline import cli, installation
from cuvee.pipeline.cli import main
from cuvee.pipeline.errors import EnvironmentFailure, InputError
from cuvee.pipeline.installation import Installation
from cuvee.pipeline.recipe import LoadedRecipe

RECIPE = """\
inputs:
  - {source: wiki, path: wiki.jsonl}
curate: [gopher_quality, minhash_dedup, pii]
"""
Runs = list[tuple[LoadedRecipe, Path]]


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("wiki.jsonl").write_text('{"id": "a", "text": "hello"}\n')
    Path("web.yaml").write_text(RECIPE)
    return Path("web.yaml")


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """What the command line hands to `run`, which has tests of its own."""
    calls: Runs = []
    _replace_run(monkeypatch, lambda loaded, run_dir: calls.append((loaded, run_dir)))
    return calls


def _replace_run(monkeypatch: pytest.MonkeyPatch, run: Any) -> None:
    module = ModuleType("cuvee.pipeline.run")
    module.run = run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_check_tells_what_a_recipe_would_do(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text(RECIPE + "tokenize:\n")
    assert main(["check", str(recipe)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["web.yaml:", "recipe", "'web'", "is", "fine"] in lines
    assert ["wiki", "wiki", "1", "0.0"] in lines
    assert ["00", "gopher_quality", "fit", "minhash_dedup"] in lines
    assert ["01", "minhash_dedup,", "pii", "fit", "tokenizer"] in lines


def test_check_tells_every_problem_and_exits_with_2(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe.write_text(RECIPE + "sead: 1\ntokenize: {vocab_size: 1e3}\n")
    assert main(["check", str(recipe)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        "web.yaml:4: sead: unknown key; did you mean 'seed'?\n"
        "    4 | sead: 1\n"
        "web.yaml:5: tokenize.vocab_size: YAML reads 1e3 as text; write 1000\n"
        "    5 | tokenize: {vocab_size: 1e3}\n"
        "\n2 problems\n"
    )


def test_check_of_missing_data_exits_with_3(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("wiki.jsonl").unlink()
    assert main(["check", str(recipe)]) == 3
    assert "web.yaml:2: inputs.0.path: no file matches" in capsys.readouterr().err


def test_schema_is_json_that_names_the_operators(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["$ref"] == "#/$defs/Recipe"
    assert {"Recipe", "MinHashDedup", "Proxy"} <= schema["$defs"].keys()


def test_operators_are_listed_with_kind_and_source(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["operators"]) == 0
    lines = capsys.readouterr().out.splitlines()
    first_words = [line.split()[0] for line in lines if line.strip()]
    assert [name for name in first_words if name in operators()] == list(operators())
    (minhash,) = (line for line in lines if line.startswith("minhash_dedup"))
    assert "fit, filter" in minhash
    assert minhash.rstrip().endswith("Broder 1997")


def test_the_manual_of_an_operator_holds_parameters_and_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["operators", "gopher_quality"]) == 0
    out = capsys.readouterr().out
    assert f"gopher_quality  (filter, version {GopherQuality.version})" in out
    assert "Source: Rae et al. 2021" in out
    assert "reads   text\nwrites  gopher_quality.n_words, " in out
    assert "fewest words of a document" in out
    assert "[the, be, to, of" in out


def test_an_unknown_operator_gets_a_near_match(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["operators", "minhash_dedupe"]) == 2
    assert capsys.readouterr().err == "unknown operator 'minhash_dedupe'; did you mean 'minhash_dedup'?\n"


def test_run_hands_over_the_recipe_and_its_folder(recipe: Path, runs: Runs) -> None:
    assert main(["run", str(recipe)]) == 0
    assert main(["run", str(recipe), "--run-dir", "there", "--engine", "ray", "--workers", "3"]) == 0
    (first, first_dir), (second, second_dir) = runs
    assert (first_dir, second_dir) == (Path("runs/web"), Path("there"))
    assert (first.recipe.engine.kind, first.recipe.engine.n_workers) == ("local", None)
    assert (second.recipe.engine.kind, second.recipe.engine.n_workers) == ("ray", 3)


@pytest.fixture
def small_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation of two files, in the place of this one."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "f.pyi").write_text("def f() -> int: ...\n" * 20)
    (site / "f.h").write_text("int f(void);\n" * 30)
    only_site = Installation({"site-packages": (site,)})
    monkeypatch.setattr(installation.Installation, "current", classmethod(lambda cls: only_site))


@pytest.mark.usefixtures("small_installation")
def test_run_without_a_recipe_takes_the_packaged_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], runs: Runs
) -> None:
    assert main(["run", "--run-dir", str(tmp_path / "demo")]) == 0
    ((loaded, run_dir),) = runs
    assert run_dir == tmp_path / "demo"
    assert [source.path for source in loaded.recipe.inputs] == [
        (str(tmp_path / "demo/corpus/c_headers.jsonl"),),
        (str(tmp_path / "demo/corpus/type_stubs.jsonl"),),
    ]
    assert "collected 0.0 MB of text that this Python installation holds" in capsys.readouterr().out


@pytest.mark.usefixtures("small_installation")
def test_a_run_directory_that_cannot_be_made_exits_with_4(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], runs: Runs
) -> None:
    (tmp_path / "demo").write_text("a file")
    assert main(["run", "--run-dir", str(tmp_path / "demo")]) == 4
    assert "demo/corpus: not a directory; choose another --run-dir" in capsys.readouterr().err
    assert runs == []


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("a.jsonl:3: not JSON"), 3, "a.jsonl:3: not JSON\n"),
        (EnvironmentFailure("the disk is full"), 4, "the disk is full\n"),
        (KeyboardInterrupt(), 130, "\ninterrupted; the same command goes on from here\n"),
    ],
)
def test_errors_end_in_a_message_and_their_exit_code(
    recipe: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    message: str,
) -> None:
    def run(loaded: LoadedRecipe, run_dir: Path) -> None:
        raise error

    _replace_run(monkeypatch, run)
    assert main(["run", str(recipe)]) == code
    assert capsys.readouterr().err == message


def test_a_fault_of_our_own_keeps_its_traceback(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(loaded: LoadedRecipe, run_dir: Path) -> None:
        raise RuntimeError("a fault")

    _replace_run(monkeypatch, run)
    with pytest.raises(RuntimeError, match="a fault"):
        main(["run", str(recipe)])


def test_a_broken_operator_of_another_distribution_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise ModuleNotFoundError("No module named 'acme'")

    monkeypatch.setattr(cli, "offered_operators", broken)
    assert main(["operators"]) == 4
    assert capsys.readouterr().err == "an installed operator cannot be loaded: No module named 'acme'\n"


@pytest.mark.parametrize("command", ["", "brew", "check", "run --workers 0", "run --engine dask"])
def test_a_wrong_command_shows_the_usage_and_exits_with_2(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(command.split())
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: cuvee")


def test_the_console_script_exits_with_the_code(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("cuvee")
    told = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert told.stdout == f"cuvee {version('cuvee')}\n"
    failed = subprocess.run([script, "check", "nowhere.yaml"], capture_output=True, text=True, cwd=tmp_path)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr == "nowhere.yaml: there is no such file\n"

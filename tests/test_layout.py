"""The shape of the house: who imports whom, what the wheel holds, what mypy and the doctests say."""

import ast
import doctest
import importlib
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
FOLDERS = ("kernels", "streaming", "operators", "mixing", "proxy_models", "pipeline")
MAY_IMPORT = {
    "kernels": set(),
    "streaming": {"kernels"},
    "operators": {"kernels"},
    "mixing": {"kernels"},
    "proxy_models": {"streaming", "kernels"},
    "pipeline": {"operators", "mixing", "proxy_models", "streaming", "kernels"},
}
MAY_NOT_NAME = {
    "ray": {"kernels", "streaming", "operators", "mixing", "proxy_models"},
    "pydantic": {"kernels", "streaming"},
    "torch": {"kernels", "mixing", "operators"},
}
MAY_NAME = {
    "mixing/botorch_models.py": {"torch"},  # imported where BoTorch is asked for
    "kernels/facility_location_torch.py": {"torch"},  # imported where tensors are given
}
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.py"))


def imports(path: Path) -> list[tuple[int, str]]:
    """(level, module) of every import statement of a file, those inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            names = [node.module] if node.module else [alias.name for alias in node.names]
            found += [(node.level, name) for name in names]
        elif isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_imports_run_one_way(path: Path) -> None:
    folder = path.parent.name
    for level, module in imports(path):
        top = module.split(".")[0]
        if level == 2:
            assert top in MAY_IMPORT[folder], f"{folder} may not import {module}"
        elif level == 0:
            assert top not in FOLDERS, f"{path.name} imports the bare name {top}: write ..{top}"
            assert top != "cuvee", f"{path.name} imports {module} absolutely: a second copy of its classes"
            excepted = top in MAY_NAME.get(f"{folder}/{path.name}", set())
            assert excepted or folder not in MAY_NOT_NAME.get(top, set()), f"{folder} may not import {top}"


def test_every_folder_is_listed_as_a_package() -> None:
    setuptools = PROJECT["tool"]["setuptools"]
    assert sorted(setuptools["packages"]) == sorted(f"cuvee.{folder}" for folder in FOLDERS)
    assert setuptools["package-dir"] == {f"cuvee.{folder}": folder for folder in FOLDERS}
    nested = [path for folder in FOLDERS for path in (ROOT / folder).glob("*/*.py")]
    assert not nested, "folders are flat: a nested one would be absent from the wheel without a word"


def test_kernels_has_no_init_which_would_shadow_the_distribution_of_that_name() -> None:
    assert not (ROOT / "kernels" / "__init__.py").exists()


def test_the_wheel_holds_every_module_and_data_file(tmp_path: Path) -> None:
    # From a copy: a build in place would leave build/ and an egg-info behind.
    copy = tmp_path / "copy"
    wanted = {path for folder in FOLDERS for path in (ROOT / folder).iterdir() if path.is_file()}
    for path in [*wanted, ROOT / "pyproject.toml", ROOT / "README.md", ROOT / "LICENSE"]:
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    build = (
        "from setuptools.build_meta import build_wheel; import sys, setuptools.logging as log; "
        "log.configure = lambda: None; build_wheel(sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", build, tmp_path], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    held = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    missing = {
        f"cuvee/{path.parent.name}/{path.name}" for path in wanted if path.suffix not in (".md", ".pyc")
    } - held
    assert not missing


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_examples_in_docstrings_run(path: Path) -> None:
    name = f"cuvee.{path.parent.name}" + ("" if path.stem == "__init__" else f".{path.stem}")
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0


def test_types_hold_under_mypy_strict() -> None:
    pytest.importorskip("mypy", reason="mypy is not installed")
    # mypy cannot follow an editable install's finder: a tree of links gives the folders their import names.
    links = ROOT / "build" / "types" / "cuvee"
    links.mkdir(parents=True, exist_ok=True)
    for folder in FOLDERS:
        link = links / folder
        if not link.exists():
            link.symlink_to(os.path.relpath(ROOT / folder, links), target_is_directory=True)
    done = subprocess.run([sys.executable, "-m", "mypy"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_the_loader_needs_neither_ray_nor_pydantic() -> None:
    script = "import sys, cuvee.streaming; sys.exit(bool({'ray', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0

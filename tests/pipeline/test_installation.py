"""Text collected from an installation: complete, the same each time, and nothing lost silently."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cuvee.pipeline import installation
from cuvee.pipeline.installation import BUDGET_BYTES, MB, Installation, collect, domain_of

PROSE = "The quick brown fox jumps over the lazy dog, again and again. " * 4 + "Then it rests."


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A small site-packages with a file of almost every domain."""
    root = tmp_path / "site-packages"
    write = _writer(root)
    for i in range(6):
        docstring = f'"""Module {i}.\n\n{PROSE}\n"""\n'
        write(
            f"alpha/module_{i}.py",
            f'{docstring}def f():\n    """Short."""\n    return {i}\n' + "x = 1\n" * 50,
        )
    write("alpha/tests/test_f.py", "def test_f():\n    assert f() == 1\n" * 20)
    write("alpha/f.pyi", "def f() -> int: ...\n" * 20)
    write("alpha/include/f.h", "int f(void);\n" * 30)
    write("alpha-1.0.dist-info/METADATA", f"Name: alpha\nVersion: 1.0\n\n# Alpha\n{PROSE}")
    write("alpha-1.0.dist-info/licenses/LICENSE", f"Permission is hereby granted. {PROSE}")
    write("alpha-1.0.dist-info/RECORD", "alpha/f.pyi,,\n" * 50)
    write("alpha/__init__.py", "")
    return root


def _writer(root: Path) -> Callable[[str, str], None]:
    def write(name: str, text: str) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    return write


def _only(root: Path) -> Installation:
    return Installation({"site-packages": (root,), "doc": (root / "nowhere",)})


def _documents(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_file_becomes_a_document_of_its_domain(site: Path, tmp_path: Path) -> None:
    collected = collect(tmp_path / "corpus", _only(site))
    documents = {domain: _documents(path) for domain, path in collected.files.items()}
    assert [document["id"] for document in documents["type_stubs"]] == ["site-packages/alpha/f.pyi"]
    assert documents["package_prose"][0]["text"] == f"# Alpha\n{PROSE}"
    assert documents["licences"][0] == {
        "id": "site-packages/alpha-1.0.dist-info/licenses/LICENSE",
        "text": f"Permission is hereby granted. {PROSE}",
        "url": None,
        "origin": "site-packages/alpha-1.0.dist-info/licenses/LICENSE",
    }
    assert len(documents["python_code"]) + len(documents["docstrings"]) == 6
    assert collected.n_documents == {domain: len(rows) for domain, rows in documents.items()}
    assert collected.n_bytes["c_headers"] == len("int f(void);\n" * 30)


def test_docstrings_are_documents_without_their_code(site: Path, tmp_path: Path) -> None:
    (document, *_) = _documents(collect(tmp_path / "corpus", _only(site)).files["docstrings"])
    assert document["text"].startswith("Module ")
    assert document["text"].endswith(PROSE)
    assert document["id"] == f"{document['origin']}:0"


def test_nothing_is_lost_silently(site: Path, tmp_path: Path) -> None:
    write = _writer(site)
    write("beta/large.pyi", "x: int\n" * 50_000)
    write("beta/short.pyi", "x: int\n")
    (site / "beta/latin.pyi").write_bytes(b"# caf\xe9\n" * 100)
    (site / "beta/NEWS.gz").write_bytes(gzip.compress(PROSE.encode())[:-20])
    left_out = collect(tmp_path / "corpus", _only(site)).left_out
    assert left_out["larger than 0.25 MB"] == 1
    assert left_out["not UTF-8"] == 1
    assert left_out["cannot be read"] == 1
    assert left_out["shorter than 200 characters"] == 1
    assert left_out["without long docstrings"] == 1


def test_python_of_another_version_is_counted(site: Path, tmp_path: Path) -> None:
    names = (f"gamma/old_{i}.py" for i in range(100))
    name = next(name for name in names if domain_of(f"site-packages/{name}") == "docstrings")
    _writer(site)(name, f'"""{PROSE}"""\nprint "hello"\n')
    assert collect(tmp_path / "corpus", _only(site)).left_out["not Python of this version"] == 1


def test_compressed_changelogs_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "doc" / "fox"
    folder.mkdir(parents=True)
    (folder / "changelog.Debian.gz").write_bytes(gzip.compress(PROSE.encode()))
    (folder / "copyright").write_text(PROSE)
    collected = collect(tmp_path / "corpus", Installation({"doc": (tmp_path / "doc",)}))
    assert _documents(collected.files["changelogs"])[0]["text"] == PROSE
    assert list(collected.files) == ["licences", "changelogs"]


def test_the_language_reference_is_one_document_per_topic(tmp_path: Path) -> None:
    _writer(tmp_path)("pydoc_data/topics.py", f"topics = {{'assert': {PROSE!r}, 'if': {PROSE * 2!r}}}\n")
    collected = collect(tmp_path / "corpus", Installation({"stdlib": (tmp_path,)}))
    rows = _documents(collected.files["language_reference"])
    assert [row["id"] for row in rows] == [
        "stdlib/pydoc_data/topics.py:assert",
        "stdlib/pydoc_data/topics.py:if",
    ]
    assert rows[0]["text"] == PROSE


def test_the_same_installation_gives_the_same_bytes(site: Path, tmp_path: Path) -> None:
    first = collect(tmp_path / "first", _only(site))
    second = collect(tmp_path / "second", _only(site))
    assert first.n_bytes == second.n_bytes
    for domain, path in first.files.items():
        assert path.read_bytes() == second.files[domain].read_bytes()


def test_ids_and_files_name_no_folder_of_this_machine(site: Path, tmp_path: Path) -> None:
    collected = collect(tmp_path / "corpus", _only(site))
    assert all(str(tmp_path) not in path.read_text() for path in collected.files.values())


def test_what_is_there_already_is_not_collected_again(site: Path, tmp_path: Path) -> None:
    first = collect(tmp_path / "corpus", _only(site))
    written = {path: os.stat(path).st_mtime_ns for path in first.files.values()}
    again = collect(tmp_path / "corpus", _only(site))
    assert (first.fresh, again.fresh) == (True, False)
    assert (again.files, again.n_bytes, again.left_out) == (first.files, first.n_bytes, first.left_out)
    assert {path: os.stat(path).st_mtime_ns for path in again.files.values()} == written


@pytest.mark.parametrize("change", ["a new file", "a lost domain", "a broken summary"])
def test_what_changed_is_collected_again(site: Path, tmp_path: Path, change: str) -> None:
    first = collect(tmp_path / "corpus", _only(site))
    if change == "a new file":
        _writer(site)("beta/g.pyi", "def g() -> int: ...\n" * 20)
    elif change == "a lost domain":
        first.files["type_stubs"].unlink()
    else:
        (tmp_path / "corpus" / "collection.json").write_text("{")
    again = collect(tmp_path / "corpus", _only(site))
    assert again.fresh
    assert again.n_documents["type_stubs"] == 1 + (change == "a new file")


def test_a_small_budget_still_hears_every_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, stub = _writer(tmp_path), "def f() -> int: ...\n" * 20
    for i in range(30):
        write(f"large/f_{i}.pyi", stub)
    for package in ("medium", "small"):
        write(f"{package}/f.pyi", stub)
    monkeypatch.setattr(installation, "BUDGET_BYTES", {**BUDGET_BYTES, "type_stubs": 4 * len(stub)})
    collected = collect(tmp_path / "corpus", _only(tmp_path))
    packages = [row["origin"].split("/")[1] for row in _documents(collected.files["type_stubs"])]
    assert packages == ["large", "large", "medium", "small"]
    assert collected.left_out["beyond the domain's budget"] == 28


@pytest.mark.parametrize(
    ("origin", "domain"),
    [
        ("stdlib/test/support/__init__.py", "test_code"),
        ("site-packages/numpy/conftest.py", "python_code"),
        ("site-packages/numpy/tests/data/notes.txt", None),
        ("site-packages/numpy/_core/include/numpy/ndarraytypes.h", "c_headers"),
        ("site-packages/numpy-2.0.dist-info/top_level.txt", None),
        ("site-packages/numpy-2.0.dist-info/licenses/Apache-2.0.txt", "licences"),
        ("doc/bash/copyright", "licences"),
        ("doc/bash/README.md.gz", "package_prose"),
        ("doc/bash/changelog.Debian.gz", "changelogs"),
        ("doc/bash/examples/loop.sh", None),
        ("include/Python.h", "c_headers"),
    ],
)
def test_a_files_name_tells_its_domain(origin: str, domain: str | None) -> None:
    found = domain_of(origin)
    assert (found if found != "docstrings" else "python_code") == domain


@pytest.mark.slow
def test_this_installation_holds_thirty_megabytes_in_at_least_five_domains(tmp_path: Path) -> None:
    collected = collect(tmp_path)
    assert 30 * MB <= sum(collected.n_bytes.values()) <= 45 * MB
    assert len(collected.files) >= 5
    assert min(collected.n_bytes.values()) > 0.1 * MB

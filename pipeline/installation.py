"""Real text without a download: what every Python installation holds, as JSONL files of several domains."""

import ast
import gzip
import hashlib
import inspect
import json
import os
import re
import sys
import sysconfig
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

VERSION = 1
"""Part of the fingerprint: raise it when the same installation gives other files."""

MB = 1_000_000
BUDGET_BYTES: Mapping[str, int] = {
    "python_code": 14 * MB,
    "test_code": 5 * MB,
    "docstrings": 4 * MB,
    "c_headers": 6 * MB,
    "type_stubs": 3 * MB,
    "package_prose": 3 * MB,
    "licences": 3 * MB,
    "language_reference": 1 * MB,
    "changelogs": 3 * MB,
}
"""Text of each domain, at most. Beyond it stand files that a smaller installation would not have either."""

MAX_FILE_BYTES = MB // 4
"""Larger files are tables and generated code."""
MIN_CHARS = 200
"""Shorter texts are empty `__init__` files and one-line docstrings."""

CHARS_PER_QUOTE = 1000
"""Files with fewer triple quotes are not worth parsing for their docstrings: it is most of the work."""

TOO_LARGE = f"larger than {MAX_FILE_BYTES / MB:g} MB"
TOO_SHORT = f"shorter than {MIN_CHARS} characters"

LICENCE = re.compile(r"(licen[cs]e|copying|notice|copyright)", re.IGNORECASE)
CHANGELOG = re.compile(r"(changelog|changes|news|history)", re.IGNORECASE)
README = re.compile(r"(readme|todo|faq|authors|thanks)", re.IGNORECASE)
NO_PROSE = {"top_level.txt", "entry_points.txt", "requires.txt", "SOURCES.txt", "dependency_links.txt"}
TEST_FOLDERS = {"test", "tests", "idle_test", "testing"}
TOPICS = "stdlib/pydoc_data/topics.py"


@dataclass(frozen=True)
class Installation:
    """The folders that one Python installation consists of."""

    folders: Mapping[str, tuple[Path, ...]]
    """Label that document ids begin with -> folders. A folder that is missing holds nothing."""

    @classmethod
    def current(cls) -> "Installation":
        """The installation that runs this process, and the system's documentation."""
        paths = {name: Path(path) for name, path in sysconfig.get_paths().items()}
        imported = (Path(entry) for entry in sys.path if entry.endswith(("site-packages", "dist-packages")))
        packages = dict.fromkeys([paths["purelib"], paths["platlib"], *imported])
        return cls(
            {
                "stdlib": (paths["stdlib"],),
                "site-packages": tuple(packages),
                "include": (paths["include"],),
                "doc": (Path("/usr/share/doc"),),
            }
        )


@dataclass(frozen=True)
class Candidate:
    """A file that may give documents. `origin` is the same on any machine: ``stdlib/asyncio/queues.py``."""

    origin: str
    path: Path
    n_bytes: int
    modified_ns: int

    @property
    def package(self) -> str:
        """The first folder below the root, or the file itself."""
        return self.origin.split("/")[1]


@dataclass(frozen=True)
class Collected:
    """The files that `collect` wrote, one per domain, and what it left out.

    Args:
        files: domain -> JSONL file.
        n_documents, n_bytes: per domain; bytes are those of the documents' texts in UTF-8.
        left_out: reason -> files or texts that did not become documents.
        fresh: whether this call wrote the files, rather than finding them there.
    """

    files: Mapping[str, Path]
    n_documents: Mapping[str, int]
    n_bytes: Mapping[str, int]
    left_out: Mapping[str, int]
    fresh: bool


class LeftOutError(Exception):
    """Why a file gives no document."""


@dataclass(frozen=True)
class Document:
    """One line of a JSONL file."""

    id: str
    text: str
    url: None
    origin: str


def collect(folder: Path, installation: Installation | None = None) -> Collected:
    """Write ``<folder>/<domain>.jsonl`` from an installation's files, unless they are there already.

    The same installation gives the same bytes. Where a domain has more than its budget, the hash of their
    names decides which files are taken, one of each package in turn, so that every package is represented.

    Args:
        folder: made where it is missing.
        installation: the one that runs this process unless given.
    """
    candidates, n_too_large = _list_candidates(installation or Installation.current())
    fingerprint = _fingerprint(candidates)
    summary_path = folder / "collection.json"
    if (known := _read_summary(summary_path)).get("fingerprint") == fingerprint:
        return _collected(folder, known, fresh=False)
    by_domain: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        if (domain := domain_of(candidate.origin)) is not None:
            by_domain.setdefault(domain, []).append(candidate)
    folder.mkdir(parents=True, exist_ok=True)
    summary_path.unlink(missing_ok=True)
    left_out = Counter({TOO_LARGE: n_too_large})
    n_documents, n_bytes = {}, {}
    for domain, budget in BUDGET_BYTES.items():
        documents = _take(domain, _in_turn(by_domain.get(domain, [])), budget, left_out)
        if documents:
            n_documents[domain] = len(documents)
            n_bytes[domain] = sum(len(document.text.encode()) for document in documents)
            _write_whole(folder / f"{domain}.jsonl", map(_json_line, documents))
    summary = {
        "fingerprint": fingerprint,
        "n_documents": n_documents,
        "n_bytes": n_bytes,
        "left_out": {reason: n for reason, n in sorted(left_out.items()) if n},
    }
    _write_whole(summary_path, [json.dumps(summary, indent=2) + "\n"])
    return _collected(folder, summary, fresh=True)


def domain_of(origin: str) -> str | None:
    """The domain of a file, from its name alone, or None.

    Python files go to `python_code` or to `docstrings`, never to both: no text is in two domains.

    >>> domain_of("stdlib/asyncio/tasks.py"), domain_of("site-packages/numpy/tests/test_lazy.py")
    ('python_code', 'test_code')
    >>> domain_of("site-packages/rich-13.7.dist-info/METADATA"), domain_of("site-packages/rich/py.typed")
    ('package_prose', None)
    """
    if origin == TOPICS:
        return "language_reference"
    path = PurePosixPath(origin.removesuffix(".gz"))
    is_test = not TEST_FOLDERS.isdisjoint(path.parts) or path.name.startswith("test_")
    match path.suffix:
        case ".py":
            return "test_code" if is_test else "docstrings" if _hash(origin) % 3 == 0 else "python_code"
        case ".pyi":
            return "type_stubs"
        case ".h" | ".hpp" | ".cuh":
            return "c_headers"
    if is_test or path.name in NO_PROSE:
        return None
    if LICENCE.match(path.name) or LICENCE.match(path.parent.name):
        return "licences"
    if CHANGELOG.match(path.name):
        return "changelogs"
    is_prose = path.suffix in (".md", ".rst", ".txt") or path.name == "METADATA" or README.match(path.name)
    return "package_prose" if is_prose else None


def _list_candidates(installation: Installation) -> tuple[list[Candidate], int]:
    """All files of the installation in the order of their origins, and the number of those too large."""
    found: dict[str, Candidate] = {}
    n_too_large = 0
    for label, roots in installation.folders.items():
        for root in roots:
            for path, info in _walk(root):
                origin = f"{label}/{path.relative_to(root).as_posix()}"
                if info.st_size > _max_bytes(origin):
                    n_too_large += domain_of(origin) is not None
                else:
                    found.setdefault(origin, Candidate(origin, path, info.st_size, info.st_mtime_ns))
    return [found[origin] for origin in sorted(found)], n_too_large


def _walk(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Regular files below `root`, without other roots, caches, and the notes of editable installs."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [
            name for name in subfolders if name not in ("site-packages", "dist-packages", "__pycache__")
        ]
        for name in names:
            path = Path(folder, name)
            if not name.startswith("__editable__") and not path.is_symlink() and path.is_file():
                yield path, path.stat()


def _in_turn(candidates: Iterable[Candidate]) -> list[Candidate]:
    """One file of each package, then a second of each, and so on, in the order of their hashes."""
    rank: Counter[str] = Counter()
    turns = []
    for candidate in sorted(candidates, key=lambda candidate: _hash(candidate.origin)):
        turns.append((rank[candidate.package], candidate))
        rank[candidate.package] += 1
    return [candidate for _, candidate in sorted(turns, key=lambda turn: turn[0])]


def _take(
    domain: str, candidates: Sequence[Candidate], budget: int, left_out: Counter[str]
) -> list[Document]:
    """The documents of `candidates` in order, until their texts fill the budget; then sorted by id."""
    documents: list[Document] = []
    n_bytes = 0
    for n_read, candidate in enumerate(candidates):
        if n_bytes >= budget:
            left_out["beyond the domain's budget"] += len(candidates) - n_read
            break
        try:
            texts = list(EXTRACT.get(domain, _whole)(candidate.origin, _read(candidate)))
        except LeftOutError as error:
            left_out[str(error)] += 1
            continue
        left_out["without long docstrings"] += not texts
        for name, text in texts:
            if len(text.strip()) < MIN_CHARS:
                left_out[TOO_SHORT] += 1
            else:
                documents.append(Document(name, text, None, candidate.origin))
                n_bytes += len(text.encode())
    return sorted(documents, key=lambda document: document.id)


def _max_bytes(origin: str) -> int:
    return BUDGET_BYTES["language_reference"] if origin == TOPICS else MAX_FILE_BYTES


def _read(candidate: Candidate) -> str:
    path, max_bytes = candidate.path, _max_bytes(candidate.origin)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            data = stream.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise LeftOutError(TOO_LARGE)
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise LeftOutError("not UTF-8") from None
    except (OSError, EOFError, zlib.error):
        raise LeftOutError("cannot be read") from None


Texts = Iterator[tuple[str, str]]  # (document id, text)


def _whole(origin: str, text: str) -> Texts:
    yield origin, text


def _prose(origin: str, text: str) -> Texts:
    """A distribution's METADATA is a list of fields, then prose."""
    yield origin, text.partition("\n\n")[2] if origin.endswith("/METADATA") else text


def _docstrings(origin: str, text: str) -> Texts:
    """One document for each module, class and function whose docstring is more than a line."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    worth_parsing = len(text) < CHARS_PER_QUOTE * text.count('"""')
    for node in _statements(_parse(text)) if worth_parsing else ():
        if (
            isinstance(node, documented)
            and (docstring := ast.get_docstring(node))
            and len(docstring) >= MIN_CHARS
        ):
            yield f"{origin}:{getattr(node, 'lineno', 0)}", docstring


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    """`node` and the statements in it: `ast.walk` without the expressions, most of a tree."""
    yield node
    for field in ("body", "orelse", "handlers", "finalbody", "cases"):
        for child in getattr(node, field, ()):
            yield from _statements(child)


def _topics(origin: str, text: str) -> Texts:
    """The topics of Python's `help`: one literal dictionary in the source."""
    assignment = next(node for node in _parse(text).body if isinstance(node, ast.Assign))
    for topic, content in ast.literal_eval(assignment.value).items():
        yield f"{origin}:{topic}", inspect.cleandoc(content)


EXTRACT: Mapping[str, Callable[[str, str], Texts]] = {
    "docstrings": _docstrings,
    "language_reference": _topics,
    "package_prose": _prose,
}


def _parse(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about other people's escape sequences
        try:
            return ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):  # a null byte, nesting too deep
            raise LeftOutError("not Python of this version") from None


def _hash(origin: str) -> int:
    return int.from_bytes(hashlib.blake2b(origin.encode(), digest_size=8).digest())


def _fingerprint(candidates: Iterable[Candidate]) -> str:
    listing = [(c.origin, c.n_bytes, c.modified_ns) for c in candidates]
    settings = [VERSION, dict(BUDGET_BYTES), MAX_FILE_BYTES, MIN_CHARS]
    return hashlib.blake2b(json.dumps([settings, listing]).encode(), digest_size=16).hexdigest()


def _json_line(document: Document) -> str:
    return json.dumps(asdict(document), ensure_ascii=False) + "\n"


def _write_whole(path: Path, lines: Iterable[str]) -> None:
    """Write `path` so that it is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8", newline="\n") as stream:
        stream.writelines(lines)
    temporary.replace(path)


def _collected(folder: Path, summary: Mapping[str, Any], *, fresh: bool) -> Collected:
    files = {domain: folder / f"{domain}.jsonl" for domain in summary["n_bytes"]}
    return Collected(files, summary["n_documents"], summary["n_bytes"], summary["left_out"], fresh)


def _read_summary(path: Path) -> Mapping[str, Any]:
    """An earlier call's summary; empty where there is none, or where a file that it names is gone."""
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        whole = all((path.parent / f"{domain}.jsonl").is_file() for domain in summary["n_bytes"])
    except (OSError, ValueError, KeyError):
        return {}
    return summary if whole else {}

"""Files that are parameters of operators: found from the recipe's folder, known by what they hold."""

import hashlib
import os
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import Annotated

import fsspec
from pydantic import BeforeValidator, Field, ValidationInfo


def _located(path: object, info: ValidationInfo) -> object:
    """`path`, unless it is absolute or a URI, from the folder that the context of the validation names."""
    if not isinstance(path, str) or info.context is None or "://" in path:
        return path
    return os.path.abspath(os.path.join(info.context["base"], os.path.expanduser(path)))


FilePath = Annotated[str, Field(min_length=1), BeforeValidator(_located)]


def read_bytes(path: str) -> bytes:
    """The content of a file, decompressed if its name ends in .gz, .bz2, .xz or .zst.

    Raises:
        ValueError: the file cannot be read.
    """
    try:
        with fsspec.open(path, "rb", compression="infer") as stream:
            return bytes(stream.read())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}; correct the path") from error


def read_words(paths: Sequence[str]) -> frozenset[str]:
    """The lines of the files in lowercase, without white space around them, blank lines and ``#`` comments.

    Raises:
        ValueError: a file cannot be read or is not UTF-8.
    """
    return _read_words(tuple(paths))


@lru_cache(maxsize=8)
def _read_words(paths: tuple[str, ...]) -> frozenset[str]:
    words: set[str] = set()
    for path in paths:
        try:
            lines = read_bytes(path).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: byte {error.start} is not UTF-8; save the list as UTF-8") from error
        words.update(line.partition("#")[0].strip().lower() for line in lines)
    return frozenset(words - {""})


def content_hash(path: str) -> str:
    """SHA-256 of a file's content, the same wherever the file lies."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def check_readable(paths: Sequence[str]) -> None:
    """Raises:
    ValueError: a file is not there or cannot be opened.
    """
    for path in paths:
        try:
            with fsspec.open(path, "rb") as stream:
                stream.read(1)
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror or error}; correct the path") from error


def check_installed(package: str, extra: str) -> None:
    """Raises:
    ValueError: an optional package is not installed.
    """
    if find_spec(package) is None:
        raise ValueError(f"the package {package!r} is not installed: pip install 'cuvee[{extra}]'")

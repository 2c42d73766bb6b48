"""Tables that take a while to build, kept on disk beside the compiled kernels."""

import hashlib
import os
import sys
import tempfile
import unicodedata
import zipfile
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

T = TypeVar("T", bound=tuple[Any, ...])
_KEY, _WRITABLE = "key", "writable"


def cached_table(build: Callable[[], T]) -> Callable[[], T]:
    """`build`, called once in a process, and once on a machine where the folder can be written.

    Its arrays lie where numba keeps kernels, in ``__pycache__`` or ``NUMBA_CACHE_DIR``. They are built anew
    after a change of any kernel's source, of the interpreter or of its Unicode data. A file that cannot be
    read or written, or that another program cut short, only costs the time to build.

    Args:
        build: gives a NamedTuple of arrays and Python's numbers, and is annotated with its class.
    """

    @cache
    @wraps(build)
    def table() -> T:
        path = _folder() / f"{build.__name__}.{sys.implementation.cache_tag}.npz"
        known = _read(path, build.__annotations__["return"])
        if known is not None:
            return cast(T, known)
        built = build()
        _write(path, built)
        return built

    return table


def _read(path: Path, kind: Any) -> Any:
    """The table of class `kind`, or None."""
    try:
        with path.open("rb") as file, np.load(file) as arrays:
            if arrays[_KEY].tobytes() == sources_key():
                found = [arrays[name] for name in kind._fields]
                # As they were built: to numba, an array that cannot be written is of another type.
                for array, writable in zip(found, arrays[_WRITABLE].tolist(), strict=True):
                    array.setflags(write=writable)
                return kind(*(array if array.ndim else array.item() for array in found))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        pass  # not there yet, or not whole
    return None


def _write(path: Path, table: Any) -> None:
    arrays: dict[str, Any] = table._asdict() | {
        _KEY: np.frombuffer(sources_key(), np.uint8),
        _WRITABLE: np.array([np.ndim(field) > 0 and field.flags.writeable for field in table]),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as whole:
            np.savez(whole, **arrays)
        os.replace(whole.name, path)
    except OSError:
        pass  # a read-only installation builds the tables in each process


@cache
def sources_key() -> bytes:
    """What the tables depend on: the kernels' files by size and time, the interpreter and its Unicode."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    known = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(repr((known, sys.version, unicodedata.unidata_version)).encode()).digest()


def _folder() -> Path:
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    return Path(chosen, "cuvee") if chosen else Path(__file__).with_name("__pycache__")

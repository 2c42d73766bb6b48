"""The run directory: whole files or none, one run at a time, and what to say when the disk says no."""

import contextlib
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import DamagedRunError, EnvironmentFailure

TEMPORARY = ".tmp"
LOCK = "run.lock"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
NO_WRITE = (errno.EACCES, errno.EPERM, errno.EROFS)
NO_FOLDER = (errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP)


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn the errors of a full disk or a folder that cannot be into what a person can act on.

    Raises:
        EnvironmentFailure: instead of the OSErrors that mean a full disk or a folder that cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM or "No space left" in str(error):
            existing = next(parent for parent in [folder, *folder.parents] if parent.exists())
            free = shutil.disk_usage(existing).free
            raise EnvironmentFailure(
                f"{folder}: the disk is full, {free / 1e6:.1f} MB are free; make room and run the same "
                "command again: it continues with what is missing"
            ) from error
        if error.errno in NO_WRITE:
            raise EnvironmentFailure(
                f"{error.filename or folder}: cannot be written ({os.strerror(error.errno)}); "
                "change its permissions, or choose another folder with --run-dir"
            ) from error
        if error.errno in NO_FOLDER:
            raise EnvironmentFailure(
                f"{error.filename or folder}: cannot be a folder ({os.strerror(error.errno)}); "
                "choose another one with --run-dir"
            ) from error
        raise


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path to write to; on leaving it is synced and renamed to `path`, so `path` is whole or absent.

    Raises:
        EnvironmentFailure: the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    with explained(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    with written_whole(path) as temporary:
        temporary.write_text(text, "utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` whole, with sorted keys: the same value gives the same bytes."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises:
        DamagedRunError: it holds no JSON.
    """
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> DamagedRunError:
    """What to say of a file of a run directory that cannot be read any more."""
    found = str(error).partition("\n")[0].rstrip(".")
    return DamagedRunError(f"{path}: the file is not what was written: {found}; remove it and run again")


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[None]:
    """Hold `folder` as this process's run directory: made if need be, cleared of half-written files.

    The lock is the kernel's: it ends with the process, however that ends.

    Raises:
        EnvironmentFailure: another run holds it, or it cannot be written.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip() or "unknown"
            raise EnvironmentFailure(
                f"{folder} is in use by another run (process {holder}); wait for it, or choose another "
                "folder with --run-dir"
            ) from None
        with explained(folder):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        _clear(folder)
        yield
        # A worker of a run that was killed may have outlived the first clearing by a moment.
        _clear(folder)
    finally:
        os.close(descriptor)


def _clear(folder: Path) -> None:
    """Remove what a run that was killed had begun to write."""
    with explained(folder):
        for leftover in folder.rglob(f".*{TEMPORARY}"):
            leftover.unlink(missing_ok=True)

"""A bounded folder of files that were fetched, shared by the processes of one machine.

    cache/<name>        a file that was fetched and checked; only a rename puts it there
    cache/<name>.part   one that is being fetched, locked by who fetches it, with its full size from the start
    cache/.lock         held while files are counted, removed or renamed
    cache/.turn         held by the one process that waits for room

Locks are `flock`s, which end with their process: whatever is killed, no lock and no half file is left that
another process would trust, and what is left is removed when its room is needed. A process that the trainer
forks meanwhile has the same locks; they end by name, not only as their files are closed, so it keeps none.
"""

import contextlib
import errno
import os
import re
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Generic, NamedTuple, TypeVar

from .file_locks import close_unlocked, flocks, lock_alone, lock_shared, locked_now, unlock

# Only files that this module named are counted and removed, whatever else lies in the folder.
NAME = re.compile(r"[0-9a-f]{32}\.(shard|offsets)(\.part)?")
N_ATTEMPTS = 3
SECONDS_BEFORE_RETRY = 0.5
SECONDS_BETWEEN_LOOKS = 0.02  # while another process fetches a file, or has room in use
SECONDS_FOR_ROOM = 300.0
# What no further attempt mends.
NO_SPACE, NOT_WRITABLE = (errno.ENOSPC, errno.EDQUOT), (errno.EROFS, errno.EACCES, errno.EPERM)
NANOSECONDS_OF_USE = 10**9  # a file's stamp may be older than its last use by this; stamping costs a write


class NoRoom(Exception):
    """The bound is reached, and every file is in use or being fetched."""


Opened = TypeVar("Opened", covariant=True)


class Wanted(NamedTuple, Generic[Opened]):
    """A file that can be fetched."""

    name: str  # in the cache; names with the same contents are the same
    n_bytes: int
    place: str  # where it comes from, for errors
    fetch: Callable[[IO[bytes]], None]  # writes it
    check: Callable[[Path], object]  # reads a file whole; ValueError unless its contents are right
    open: Callable[[Path], Opened]  # maps it, reading little; ValueError only where `check` has one


class Lease(Generic[Opened]):
    """A file of the cache that stays while this is held, unless someone finds it broken.

    After `release` it may be removed at any time; `renew` says whether it was. A mapping of a file that was
    removed stays readable.
    """

    opened: Opened  # by Wanted's `open`

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path, self._descriptor = path, descriptor
        self._used_at = 0  # as the file's stamp says
        self._finalizer = weakref.finalize(self, _end_hold, descriptor, os.getpid())

    def release(self) -> None:
        """Let the file be removed if its room is needed."""
        unlock(self._descriptor)

    def renew(self) -> bool:
        """Hold the file again, as the one used last; False if it was removed."""
        lock_shared(self._descriptor)
        if self.was_removed():
            return False
        now = time.time_ns()  # finer than the clock that a file system stamps files with
        if now > self._used_at + NANOSECONDS_OF_USE:
            os.utime(self._descriptor, ns=(now, now))
            self._used_at = now
        return True

    def was_removed(self) -> bool:
        return os.fstat(self._descriptor).st_nlink == 0

    def close(self) -> None:
        """End the hold for good."""
        self._finalizer()


class Cache:
    """Fetches files into a folder, and removes those unused longest when they take more than `max_bytes`.

    Safe between threads, processes and programs on one machine, on a file system that has `flock` (local
    ones do): a file is fetched once, and none is removed while anyone holds a lease on it.

    Args:
        folder: made if need be. Other files in it are neither counted nor touched.
        max_bytes: of the files, those being fetched included; None: no bound.
    Raises:
        OSError: this system has no file locks, or the folder cannot be written to.
    """

    def __init__(self, folder: str | Path, max_bytes: int | None = None) -> None:
        flocks()
        self.folder, self.max_bytes = Path(folder), max_bytes
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                pass
        except OSError as error:
            raise self._unusable(error, "it is opened") or error from error

    def lease(self, wanted: Wanted[Opened], *, thorough: bool = False) -> Lease[Opened]:
        """The file, fetched unless it is there, and opened.

        A file that fails its check is fetched again, N_ATTEMPTS times in all.

        Args:
            thorough: check all contents of a file that was there. Those just fetched always are.
        Raises:
            NoRoom: all that could be removed is in use.
            ValueError: what was fetched fails its check each time.
            OSError: it could not be fetched.
        """
        n_failed = 0
        while True:
            try:
                while (held := self._held(wanted, thorough=thorough)) is None:
                    self._fetch(wanted)
                    thorough = False  # it was checked when it had come
                return held
            except (NoRoom, FileNotFoundError):
                raise
            except Exception as error:
                n_failed += 1
                its = f"the {wanted.n_bytes} bytes of {wanted.place} are written"
                if isinstance(error, OSError) and (unusable := self._unusable(error, its)):
                    raise unusable from error
                if n_failed < N_ATTEMPTS:
                    time.sleep(SECONDS_BEFORE_RETRY * n_failed)
                elif isinstance(error, ValueError):
                    raise ValueError(f"{error} (fetched {n_failed} times)") from error
                else:
                    raise OSError(
                        f"{wanted.place}: could not be fetched into {self.folder} in {n_failed} attempts; "
                        f"the last one's error is {error!r}"
                    ) from error

    def wait_for(self, files: Sequence[Wanted[Opened]], *, thorough: bool = False) -> list[Lease[Opened]]:
        """`lease` of each, waiting until others give room back. The caller must hold none.

        One thread or process at a time waits and holds meanwhile what it has got, so none waits for ever.

        Raises:
            ValueError: as `lease`; more than the bound; or no room within SECONDS_FOR_ROOM.
        """
        deadline, leases = time.monotonic() + SECONDS_FOR_ROOM, list[Lease[Opened]]()
        self.check_room(
            sum({wanted.name: wanted.n_bytes for wanted in files}.values()), f"{len(files)} files"
        )
        with self._locked(".turn"):
            try:
                while len(leases) < len(files):
                    try:
                        leases.append(self.lease(files[len(leases)], thorough=thorough))
                    except NoRoom:
                        if time.monotonic() > deadline:
                            raise ValueError(
                                f"cache {self.folder}: no room for {files[len(leases)].place} within "
                                f"{SECONDS_FOR_ROOM:.0f} s, all else is in use; raise cache_bytes, which is "
                                f"{self.max_bytes}, or let fewer loaders share the folder"
                            ) from None
                        time.sleep(SECONDS_BETWEEN_LOOKS)
            except BaseException:
                for lease in leases:
                    lease.close()
                raise
        return leases

    def check_room(self, n_bytes: int, what: str) -> None:
        """Raise ValueError if the `n_bytes` of `what` are more than the bound."""
        if self.max_bytes is not None and n_bytes > self.max_bytes:
            raise ValueError(
                f"cache {self.folder}: cache_bytes is {self.max_bytes}, less than the {n_bytes} bytes of "
                f"{what}; set it to {n_bytes} or more"
            )

    def _unusable(self, error: OSError, doing: str) -> OSError | None:
        """What to say of a disk that is full or a folder that may not be written to; None: it is neither.

        A source's own errors that say so name no file of the folder.
        """
        if error.errno in NO_SPACE:
            n_bytes = sum(status.st_size for _, status in self._files())
            what = f"its files take {n_bytes}; free some, or set cache_bytes to what the disk has room for"
        elif error.errno in NOT_WRITABLE and self._names(error):
            what = "give, by cache, a folder that this user may write to"
        else:
            return None
        return OSError(error.errno, f"cache {self.folder}: {error.strerror} while {doing}; {what}")

    def _names(self, error: OSError) -> bool:
        """Whether an error is of the folder, one above it, or a file in it."""
        if error.filename is None:
            return False
        path = Path(os.fsdecode(error.filename)).absolute()
        folder = self.folder.absolute()
        return path.is_relative_to(folder) or folder.is_relative_to(path)

    def _held(self, wanted: Wanted[Opened], *, thorough: bool) -> Lease[Opened] | None:
        """A hold on the file, opened, if it is there and right; a broken one is removed."""
        path = self.folder / wanted.name
        while True:
            try:
                held = Lease[Opened](path, os.open(path, os.O_RDWR | os.O_CLOEXEC))
            except FileNotFoundError:
                return None
            try:
                if held.renew():
                    if thorough:
                        wanted.check(path)
                    held.opened = wanted.open(path)
            except ValueError:
                self._discard(held)
                return None
            except FileNotFoundError:
                if not held.was_removed():
                    held.close()
                    raise
            except BaseException:
                held.close()
                raise
            # Another's thorough check may have removed the file since: what has its name now is not held.
            if not held.was_removed():
                return held
            held.close()

    def _fetch(self, wanted: Wanted[object]) -> None:
        """Fetch the file, or wait for who is fetching it."""
        path, part = self.folder / wanted.name, self.folder / f"{wanted.name}.part"
        while not path.exists():
            descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            try:
                # Not a lock that waits: by the time it came, this may be the file, which its users hold.
                if not locked_now(descriptor):
                    time.sleep(SECONDS_BETWEEN_LOOKS)
                elif not _is_at(descriptor, part):
                    pass  # it was fetched, or given up, between the two lines above
                elif path.exists():
                    part.unlink()
                else:
                    self._fill(descriptor, part, path, wanted)
            finally:
                close_unlocked(descriptor)

    def _fill(self, descriptor: int, part: Path, path: Path, wanted: Wanted[object]) -> None:
        """Fetch into `part`, which this process has locked, and give it its name when it is right."""
        try:
            os.ftruncate(descriptor, 0)
            self._reserve(descriptor, part, wanted.n_bytes)
            with open(descriptor, "r+b", closefd=False) as file:
                wanted.fetch(file)
                file.flush()
                if (n_bytes := file.tell()) != wanted.n_bytes:
                    raise ValueError(
                        f"{wanted.place}: {n_bytes} bytes came, the manifest says {wanted.n_bytes}; "
                        "put the whole file there"
                    )
            os.fsync(descriptor)
            wanted.check(part)
            with self._locked():
                part.rename(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def _reserve(self, descriptor: int, part: Path, n_bytes: int) -> None:
        """Make room for `part`, and let it have its size, so that everyone counts it."""
        with self._locked():
            if self.max_bytes is not None:
                files = sorted(self._files(), key=lambda found: found[1].st_mtime_ns)
                n_over = sum(status.st_size for _, status in files) + n_bytes - self.max_bytes
                for found, status in files:
                    if n_over <= 0:
                        break
                    if found != part and _removed_if_unused(found):
                        n_over -= status.st_size
                if n_over > 0:
                    raise NoRoom
            os.ftruncate(descriptor, n_bytes)

    def _files(self) -> Iterator[tuple[Path, os.stat_result]]:
        with os.scandir(self.folder) as found:
            for entry in found:
                if NAME.fullmatch(entry.name):
                    with contextlib.suppress(FileNotFoundError):  # given up by who was fetching it
                        yield Path(entry.path), entry.stat()

    def _discard(self, held: Lease[Opened]) -> None:
        """Remove a file that is broken, and end the hold on it."""
        with self._locked():
            if not held.was_removed():
                held.path.unlink()
        held.close()

    @contextlib.contextmanager
    def _locked(self, name: str = ".lock") -> Iterator[None]:
        descriptor = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            lock_alone(descriptor)
            yield
        finally:
            close_unlocked(descriptor)


def _end_hold(descriptor: int, owner: int) -> None:
    """Close the file of a lease; a process forked from its owner's leaves the owner's hold as it is."""
    if os.getpid() == owner:
        close_unlocked(descriptor)
    else:
        os.close(descriptor)


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether `path` still names the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _removed_if_unused(path: Path) -> bool:
    """Remove a file that no one has locked; False if someone has."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        if not (locked_now(descriptor) and _is_at(descriptor, path)):
            return False
        path.unlink()
        return True
    finally:
        close_unlocked(descriptor)

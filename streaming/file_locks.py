"""Locks on open files that end with their process: `flock`, which Windows does not have."""

import os
from functools import cache
from types import ModuleType


@cache
def flocks() -> ModuleType:
    """The module `fcntl`.

    Raises:
        OSError: this system has none; says what works without.
    """
    try:
        import fcntl
    except ImportError:
        raise OSError(
            "cache: this system has no file locks (fcntl), by which processes share a cache; copy the shards "
            "to a local folder and give that as the source, which needs no cache"
        ) from None
    return fcntl


def lock_shared(descriptor: int) -> None:
    """Hold an open file together with others, when no one holds it alone any more."""
    flocks().flock(descriptor, flocks().LOCK_SH)


def lock_alone(descriptor: int) -> None:
    """Hold an open file when no one else holds it any more."""
    flocks().flock(descriptor, flocks().LOCK_EX)


def locked_now(descriptor: int) -> bool:
    """Hold an open file alone; False if another holds it."""
    try:
        flocks().flock(descriptor, flocks().LOCK_EX | flocks().LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(descriptor: int) -> None:
    """End this process's hold."""
    flocks().flock(descriptor, flocks().LOCK_UN)


def close_unlocked(descriptor: int) -> None:
    """Close an open file and end the hold on it, which a process forked meanwhile would keep otherwise."""
    unlock(descriptor)
    os.close(descriptor)

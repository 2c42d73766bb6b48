import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cuvee.streaming.cache import Cache, NoRoom, Wanted

NAMES = [f"{k:032x}.shard" for k in range(9)]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch) -> None:
    """For neither the network nor a disk that others are writing to."""
    monkeypatch.setattr("cuvee.streaming.cache.SECONDS_BEFORE_RETRY", 0)
    monkeypatch.setattr("os.fsync", lambda _: None)


def wanted(k: int, content: bytes = b"0123456789", fetched: list[int] | None = None) -> Wanted[bytes]:
    """File k, which is right when it holds "0123456789"."""

    def fetch(file) -> None:
        if fetched is not None:
            fetched.append(k)
        file.write(content)

    def check(path: Path) -> None:
        if path.read_bytes() != b"0123456789":
            raise ValueError(f"memory://{k}: its contents do not match")

    return Wanted(NAMES[k], 10, f"memory://{k}", fetch, check, lambda path: opened(k, path))


def opened(k: int, path: Path) -> bytes:
    if path.stat().st_size != 10:
        raise ValueError(f"memory://{k}: cut short")
    return path.read_bytes()


def files(cache: Cache) -> list[str]:
    return sorted(path.name for path in cache.folder.iterdir() if not path.name.startswith("."))


def test_a_file_is_fetched_once_and_found_after_that(tmp_path) -> None:
    fetched: list[int] = []
    for _ in range(3):
        held = Cache(tmp_path).lease(wanted(0, fetched=fetched))
        assert held.path.read_bytes() == b"0123456789"
        held.close()
    assert fetched == [0]
    assert files(Cache(tmp_path)) == NAMES[:1]


def test_threads_that_want_one_file_together_fetch_it_once(tmp_path) -> None:
    fetched: list[int] = []
    threads = [
        threading.Thread(target=lambda k=k: Cache(tmp_path).lease(wanted(k % 2, fetched=fetched)).close())
        for k in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(fetched) == [0, 1]


def test_the_file_unused_longest_goes_first_and_none_that_is_held(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("cuvee.streaming.cache.NANOSECONDS_OF_USE", 0)
    cache = Cache(tmp_path, max_bytes=30)
    holds = [cache.lease(wanted(k)) for k in range(3)]
    for held in (holds[1], holds[2]):
        held.release()
    assert holds[1].renew()
    holds[1].release()
    cache.lease(wanted(3)).close()  # 2 was unused longest but for 0, which is held
    assert files(cache) == [NAMES[0], NAMES[1], NAMES[3]]
    assert not holds[2].renew()
    assert holds[1].renew()
    cache.lease(wanted(4)).close()
    assert files(cache) == [NAMES[0], NAMES[1], NAMES[4]]


def test_when_all_is_in_use_there_is_no_room_and_nothing_is_removed(tmp_path) -> None:
    cache = Cache(tmp_path, max_bytes=20)
    holds = [cache.lease(wanted(k)) for k in range(2)]
    with pytest.raises(NoRoom):
        cache.lease(wanted(2))
    assert files(cache) == NAMES[:2]
    holds[0].close()
    cache.lease(wanted(2)).close()
    assert files(cache) == NAMES[1:3]


def test_who_waits_for_room_gets_it_when_others_give_theirs_back(tmp_path) -> None:
    cache, entered = Cache(tmp_path, max_bytes=20), threading.Event()
    held = cache.lease(wanted(0))
    found: list[str] = []

    def wait() -> None:
        entered.set()
        found.extend(lease.path.name for lease in cache.wait_for([wanted(1), wanted(2)]))

    waiting = threading.Thread(target=wait)
    waiting.start()
    entered.wait()
    held.close()
    waiting.join(30)
    assert found == NAMES[1:3]


def test_waiting_for_room_ends_in_an_error_that_says_what_is_needed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("cuvee.streaming.cache.SECONDS_FOR_ROOM", 0)
    cache = Cache(tmp_path, max_bytes=20)
    with pytest.raises(ValueError, match="cache_bytes is 20, less than the 30 bytes of 3 files; set it"):
        cache.wait_for([wanted(k) for k in range(3)])
    held = cache.lease(wanted(0))
    with pytest.raises(ValueError, match=r"no room for memory://2 within 0 s, all else is in use"):
        cache.wait_for([wanted(1), wanted(2)])
    held.close()
    assert len(cache.wait_for([wanted(1), wanted(2)])) == 2


@pytest.mark.parametrize("content", [b"012345678", b"x123456789", b"01234567890"])
def test_what_does_not_match_is_fetched_three_times_and_then_refused(tmp_path, content: bytes) -> None:
    fetched: list[int] = []
    with pytest.raises(ValueError, match=r"memory://0: .* \(fetched 3 times\)"):
        Cache(tmp_path).lease(wanted(0, content, fetched))
    assert fetched == [0, 0, 0]
    assert files(Cache(tmp_path)) == []


def test_a_fetch_that_fails_twice_is_tried_again(tmp_path) -> None:
    errors = [OSError("connection reset"), OSError("connection reset")]

    def fetch(file) -> None:
        if errors:
            file.write(b"01234")
            raise errors.pop()
        file.write(b"0123456789")

    assert Cache(tmp_path).lease(wanted(0)._replace(fetch=fetch)).path.read_bytes() == b"0123456789"


def test_an_error_of_the_network_names_the_file_and_the_last_error(tmp_path) -> None:
    def fetch(_: object) -> None:
        raise TimeoutError("no answer")

    with pytest.raises(OSError, match=r"memory://0: could not be fetched .* 3 attempts; .*no answer"):
        Cache(tmp_path).lease(wanted(0)._replace(fetch=fetch))


@pytest.mark.parametrize(("content", "thorough"), [(b"01234", False), (b"012345678x", True)])
def test_a_broken_file_of_the_cache_is_fetched_again(tmp_path, content: bytes, thorough: bool) -> None:
    (tmp_path / NAMES[0]).write_bytes(content)
    fetched: list[int] = []
    held = Cache(tmp_path).lease(wanted(0, fetched=fetched), thorough=thorough)
    assert held.path.read_bytes() == b"0123456789"
    assert fetched == [0]


@pytest.mark.parametrize("is_back", [False, True])
@pytest.mark.parametrize("thorough", [False, True])
def test_a_file_that_another_finds_broken_meanwhile_is_fetched_again(
    tmp_path, is_back: bool, thorough: bool
) -> None:
    (tmp_path / NAMES[0]).write_bytes(b"012345678x")
    cache, fetched = Cache(tmp_path), list[int]()
    first = ["check" if thorough else "open"]

    def while_held(does: str, path: Path) -> None:
        if first == [does]:
            first.clear()
            if is_back:
                cache.lease(wanted(0), thorough=True).close()
            else:
                path.unlink()

    def check(path: Path) -> None:
        while_held("check", path)
        wanted(0).check(path)

    def open_it(path: Path) -> bytes:
        while_held("open", path)
        return opened(0, path)

    held = cache.lease(wanted(0, fetched=fetched)._replace(check=check, open=open_it), thorough=thorough)
    assert held.opened == held.path.read_bytes() == b"0123456789"
    assert not held.was_removed()
    assert fetched == ([] if is_back else [0])


def test_files_of_others_are_neither_counted_nor_removed(tmp_path) -> None:
    (tmp_path / "train-00000.arrow").write_bytes(bytes(1000))
    cache = Cache(tmp_path, max_bytes=10)
    for k in range(3):
        cache.lease(wanted(k)).close()
    assert files(cache) == [NAMES[2], "train-00000.arrow"]


def run(script: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", script]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)


FETCHING = """
from pathlib import Path
from cuvee.streaming.cache import Cache, Wanted
def fetch(file):
    file.write(b"01234"); file.flush()
    print("begun", flush=True); input()
    file.write(b"56789")
cache = Cache({folder!r}, 10)
nothing = lambda path: None
held = cache.lease(Wanted("{name}", 10, "here", fetch, nothing, nothing))
print("fetched", flush=True); input()
"""


def line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def kill(process: "subprocess.Popen[str]") -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    process.stdout.close()


def test_a_fetch_that_was_killed_with_9_is_not_trusted_and_gives_its_room_back(tmp_path) -> None:
    for k in (0, 1):  # the same file is fetched again, another takes its room
        process = run(FETCHING.format(folder=str(tmp_path), name=NAMES[0]))
        assert line(process) == "begun"
        assert files(Cache(tmp_path)) == [f"{NAMES[0]}.part"]
        with pytest.raises(NoRoom):
            Cache(tmp_path, 10).lease(wanted(2))
        kill(process)
        fetched: list[int] = []
        Cache(tmp_path, 10).lease(wanted(k, fetched=fetched)).close()
        assert fetched == [k]
        assert files(Cache(tmp_path)) == [NAMES[k]]
        (tmp_path / NAMES[k]).unlink()


def test_a_file_that_another_process_holds_stays_until_it_ends(tmp_path) -> None:
    process = run(FETCHING.format(folder=str(tmp_path), name=NAMES[0]))
    assert line(process) == "begun"
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert line(process) == "fetched"
    cache = Cache(tmp_path, max_bytes=10)
    with pytest.raises(NoRoom):
        cache.lease(wanted(1))
    kill(process)
    cache.lease(wanted(1)).close()
    assert files(cache) == [NAMES[1]]


FORKING = """
import os, signal
from cuvee.streaming.cache import Cache, Wanted
children = []
def fork():
    children.append(os.fork())
    if children[-1] == 0:
        signal.alarm(60)  # ends what would wait for a lock that is here
        signal.pause()
def wanted(k):
    def fetch(file):
        fork()
        file.write(b"0123456789")
    nothing = lambda path: None
    return Wanted(f"{{k:032x}}.shard", 10, "here", fetch, nothing, nothing)
cache = Cache({folder!r}, 10)
held = cache.lease(wanted(0))
with cache._locked():
    fork()
fork()
held.close()
cache.lease(wanted(1)).close()
assert len(children) == 4
for child in children:
    assert os.waitpid(child, os.WNOHANG) == (0, 0)
    os.kill(child, signal.SIGKILL)
"""


def test_a_process_that_was_forked_meanwhile_keeps_no_lock(tmp_path) -> None:
    subprocess.run([sys.executable, "-c", FORKING.format(folder=str(tmp_path))], check=True)


FORKED = """
import os
from cuvee.streaming.cache import Cache, NoRoom, Wanted
nothing = lambda path: None
def wanted(k):
    return Wanted(f"{{k:032x}}.shard", 10, "here", lambda file: file.write(b"0123456789"), nothing, nothing)
cache = Cache({folder!r}, 10)
held = cache.lease(wanted(0))
if os.fork() == 0:
    held.close()
    os._exit(0)
os.wait()
try:
    cache.lease(wanted(1))
except NoRoom:
    raise SystemExit(0)
raise SystemExit("what is held was removed")
"""


def test_a_process_that_was_forked_ends_no_hold_of_its_parent(tmp_path) -> None:
    subprocess.run([sys.executable, "-c", FORKED.format(folder=str(tmp_path))], check=True)


def test_a_full_disk_is_said_at_once_and_nothing_half_written_is_trusted(tmp_path) -> None:
    cache, fetched = Cache(tmp_path / "files"), []
    cache.lease(wanted(0)).close()

    def fetch(file) -> None:
        fetched.append(1)
        file.write(b"01234")
        file.flush()
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(
        OSError,
        match=r"cache .*files: No space left .* while the 10 bytes of memory://1 are written; its",
    ) as raised:
        cache.lease(wanted(1)._replace(fetch=fetch))
    assert raised.value.errno == errno.ENOSPC
    assert fetched == [1]
    assert files(cache) == NAMES[:1]  # what was there is there
    again: list[int] = []
    assert cache.lease(wanted(1, fetched=again)).path.read_bytes() == b"0123456789"
    assert again == [1]


def test_a_disk_that_fills_while_a_file_goes_to_it_leaves_no_file(tmp_path, monkeypatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    cache = Cache(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(OSError, match="free some, or set cache_bytes"):
            cache.lease(wanted(0))
    assert files(cache) == []
    cache.lease(wanted(0)).close()


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, monkeypatch) -> None:
    def refused(path, _flags: int, *_mode: int) -> int:
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    held = Cache(tmp_path)
    monkeypatch.setattr("os.open", refused)
    with pytest.raises(OSError, match=r"cache .*: Read-only file system while it is opened; give, by"):
        Cache(tmp_path)
    with pytest.raises(OSError, match=r"Read-only file system while the 10 bytes of memory://0 are written"):
        held.lease(wanted(0))


def test_what_a_source_refuses_is_not_said_of_the_cache(tmp_path) -> None:
    def fetch(_file) -> None:
        raise OSError(errno.EACCES, "Forbidden", "bucket/shard")

    with pytest.raises(OSError, match=r"memory://0: could not be fetched .* in 3 attempts.*Forbidden"):
        Cache(tmp_path).lease(wanted(0)._replace(fetch=fetch))

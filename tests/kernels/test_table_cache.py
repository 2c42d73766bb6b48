"""Tables on disk: read instead of built, and never a stale or broken one."""

from typing import NamedTuple

import numpy as np
import pytest

from cuvee.kernels import table_cache
from cuvee.kernels.table_cache import cached_table
from cuvee.kernels.unicode_tables import unicode_tables


class Squares(NamedTuple):
    n: np.ndarray
    square: np.ndarray
    largest: int


@pytest.fixture
def built(tmp_path, monkeypatch):
    """(how often `squares` was built, a process's first look at the table, its file)."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    calls = []

    def squares() -> Squares:
        calls.append(1)
        return Squares(np.arange(9), np.arange(9) ** 2, 64)

    def look():
        return cached_table(squares)()

    look()
    (path,) = (tmp_path / "cuvee").iterdir()
    return calls, look, path


def test_a_second_process_reads_what_the_first_one_built(built):
    calls, look, _ = built
    table = look()
    assert len(calls) == 1
    assert isinstance(table, Squares)
    np.testing.assert_array_equal(table.square, np.arange(9) ** 2)
    assert type(table.largest) is int
    assert table.largest == 64


def test_a_change_of_the_sources_builds_the_table_anew(built, monkeypatch):
    calls, look, _ = built
    monkeypatch.setattr(table_cache, "sources_key", lambda: bytes(32))
    look()
    look()
    assert len(calls) == 2


@pytest.mark.parametrize("n_bytes", [0, 10, 300])
def test_a_file_that_was_cut_short_is_built_anew(built, n_bytes):
    calls, look, path = built
    path.write_bytes(path.read_bytes()[:n_bytes])
    np.testing.assert_array_equal(look().n, np.arange(9))
    assert len(calls) == 2


def test_where_nothing_can_be_written_tables_are_built_each_time(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "file"))

    def squares() -> Squares:
        return Squares(np.arange(9), np.arange(9) ** 2, 64)

    np.testing.assert_array_equal(cached_table(squares)().square, np.arange(9) ** 2)


def test_the_tables_on_disk_are_those_of_the_interpreter():
    built = unicode_tables.__wrapped__.__wrapped__()
    unicode_tables()
    read = cached_table(unicode_tables.__wrapped__.__wrapped__)()
    for table in (unicode_tables(), read):
        for ours, theirs in zip(table, built, strict=True):
            assert (ours.dtype, ours.flags.writeable) == (theirs.dtype, theirs.flags.writeable)
            np.testing.assert_array_equal(ours, theirs)

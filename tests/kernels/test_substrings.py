"""Runs of windows and their repetitions agree with plain Python, whatever the text repeats."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from cuvee.kernels.substrings import (
    repeated_windows,
    repeated_windows_reference,
    window_runs,
    window_runs_reference,
)

# Few letters, and periods, so that windows do repeat.
TEXT = st.text("ab", max_size=60) | st.builds(
    lambda period, n, tail: (period * n)[:80] + tail,
    st.text("abc", min_size=1, max_size=4),
    st.integers(1, 80),
    st.text("ab", max_size=9),
)
TEXTS = st.lists(TEXT, max_size=5)


def _column(texts):
    data = b"xy" + "".join(texts).encode() + b"z"
    return np.frombuffer(data, np.uint8), np.cumsum([2, *map(len, texts)], dtype=np.int64)


@given(texts=TEXTS, length=st.integers(1, 12), data=st.data())
def test_runs_agree_with_the_reference(texts, length, data):
    k = data.draw(st.integers(1, length))
    column = _column(texts)
    found, expected = window_runs(*column, length, k), window_runs_reference(*column, length, k)
    for name, ours, theirs in zip(found._fields, found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=name)


@given(texts=TEXTS, length=st.integers(1, 12), data=st.data())
def test_repetitions_agree_with_a_dictionary_of_windows(texts, length, data):
    column = _column(texts)
    runs = window_runs(*column, length, data.draw(st.integers(1, length)))
    order = np.argsort(runs.keys, kind="stable")
    columns = (column[0], runs.keys[order], runs.starts[order], runs.n_windows[order], length)
    np.testing.assert_array_equal(repeated_windows(*columns), repeated_windows_reference(*columns))


@given(texts=TEXTS, length=st.integers(2, 12), data=st.data())
def test_equal_windows_have_equal_keys_and_repeat_in_one_run_only_where_it_says_so(texts, length, data):
    text, offsets = _column(texts)
    runs = window_runs(text, offsets, length, data.draw(st.integers(1, length)))
    key_of = {}
    for key, start, n, repeats in zip(runs.keys, runs.starts, runs.n_windows, runs.repeats, strict=True):
        windows = [text[s : s + length].tobytes() for s in range(start, start + n)]
        assert len(set(windows)) == n or repeats
        assert all(key_of.setdefault(window, key) == key for window in windows)
    assert runs.n_windows.sum() == np.maximum(np.diff(offsets) - length + 1, 0).sum()


def test_many_different_windows_of_one_key_are_told_apart():
    # 13,000 windows of two bytes, so the table of the one key they are given has to grow and they repeat.
    random = np.random.default_rng(0)
    data = random.integers(0, 256, 40_000).astype(np.uint8)
    starts = np.arange(0, 39_000, 3)
    columns = (data, np.zeros(len(starts), np.uint64), starts, np.ones_like(starts), 2)
    np.testing.assert_array_equal(repeated_windows(*columns), repeated_windows_reference(*columns))


@pytest.mark.parametrize("k", [0, 9])
def test_a_kgram_must_fit_into_a_window(k):
    with pytest.raises(ValueError, match=r"k must lie in 1..8"):
        window_runs(*_column(["a"]), 8, k)

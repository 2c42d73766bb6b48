"""Spans are narrowed, copied and left out as the references do it."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from cuvee.kernels.spans import (
    copy_ranges,
    copy_ranges_reference,
    narrow_spans,
    narrow_spans_reference,
    without_spans,
    without_spans_reference,
)

TEXTS = st.lists(st.text(st.sampled_from("ab1 _.é\u0301東ไม้😀"), max_size=15), max_size=4)


def _spans(data, offsets):
    """(span_offsets, starts, stops) of up to three spans of each document."""
    spans = []
    for length in np.diff(offsets).tolist():
        edges = sorted(data.draw(st.sets(st.integers(0, length), max_size=6)))
        spans.append(list(zip(edges[::2], edges[1::2], strict=False)))
    starts, stops = np.array([span for row in spans for span in row], np.int64).reshape(-1, 2).T.copy()
    return np.cumsum([0, *map(len, spans)]), starts, stops


@given(data=st.data())
def test_what_is_left_agrees_with_the_reference(data, documents):
    text, offsets = data.draw(documents)
    columns = (text, offsets, *_spans(data, offsets))
    for ours, expected in zip(without_spans(*columns), without_spans_reference(*columns), strict=True):
        np.testing.assert_array_equal(ours, expected)


@given(data=st.data(), text=st.binary(max_size=30))
def test_copied_ranges_agree_with_the_reference(data, text):
    edge = st.integers(0, len(text))
    ranges = data.draw(st.lists(st.tuples(edge, edge).map(sorted), max_size=5))
    starts = np.array([a for a, _ in ranges], np.int64)
    lengths = np.array([b - a for a, b in ranges], np.int64)
    columns = (np.frombuffer(text, np.uint8), starts, lengths)
    for ours, expected in zip(copy_ranges(*columns), copy_ranges_reference(*columns), strict=True):
        np.testing.assert_array_equal(ours, expected)


@given(texts=TEXTS, whole_words=st.booleans(), data=st.data())
def test_narrowed_spans_agree_with_a_list_of_borders(texts, whole_words, data):
    encoded = [text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    columns = (np.frombuffer(b"".join(encoded), np.uint8), offsets, *_spans(data, offsets), whole_words)
    for ours, expected in zip(narrow_spans(*columns), narrow_spans_reference(*columns), strict=True):
        np.testing.assert_array_equal(ours, expected)

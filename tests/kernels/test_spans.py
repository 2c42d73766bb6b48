import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from cuvee.kernels.spans import copy_ranges, copy_ranges_reference, without_spans, without_spans_reference


@given(data=st.data())
def test_what_is_left_agrees_with_the_reference(data, documents):
    text, offsets = data.draw(documents)
    spans = []
    for length in np.diff(offsets).tolist():
        edges = sorted(data.draw(st.sets(st.integers(0, length), max_size=6)))
        spans.append(list(zip(edges[::2], edges[1::2], strict=False)))
    starts, stops = np.array([span for row in spans for span in row], np.int64).reshape(-1, 2).T
    span_offsets = np.cumsum([0, *map(len, spans)])
    columns = (text, offsets, span_offsets, starts.copy(), stops.copy())
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

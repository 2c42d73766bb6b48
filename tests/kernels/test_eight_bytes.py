import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from cuvee.kernels.eight_bytes import first_below, first_beyond_ascii, first_equal, first_no_letter

NEAR_EDGES = st.sampled_from([0x00, 0x1F, 0x20, 0x21, 0x40, 0x41, 0x5A, 0x5B, 0x60, 0x61, 0x7A, 0x7B, 0x7F])
BYTES = st.lists(NEAR_EDGES | st.sampled_from([0x80, 0xC3, 0xFF]) | st.integers(0x61, 0x7A), max_size=40)


@pytest.mark.parametrize(
    ("search", "stops"),
    [
        (lambda data, i, end: first_below(data, i, end, 0x21), lambda byte: byte < 0x21 or byte >= 0x80),
        (lambda data, i, end: first_equal(data, i, end, 0x20), lambda byte: byte == 0x20),
        (first_beyond_ascii, lambda byte: byte >= 0x80),
        (first_no_letter, lambda byte: not (byte < 0x80 and chr(byte).isalpha())),
    ],
)
@given(text=BYTES, data=st.data())
def test_a_search_stops_at_the_first_byte_of_its_kind_or_at_the_end(search, stops, text, data):
    end = data.draw(st.integers(0, len(text)))
    start = data.draw(st.integers(0, end))
    expected = next((i for i in range(start, end) if stops(text[i])), end)
    assert search(np.array(text, np.uint8), start, end) == expected

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from cuvee.kernels.byte_masks import (
    WIDTH,
    below,
    first_in_range,
    first_one,
    first_white,
    in_range,
    n_ones,
    white_bytes,
    wide,
)
from cuvee.kernels.jit import kernel

NEAR_EDGES = st.sampled_from(
    [0x00, 0x08, 0x09, 0x0D, 0x0E, 0x1B, 0x1C, 0x20, 0x21, 0x61, 0x7A, 0x7F, 0x80, 0xFF]
)
BYTES = st.lists(NEAR_EDGES | st.integers(0, 255), min_size=1, max_size=3 * WIDTH)


@kernel
def _masks(data, i, end):
    white, letters = white_bytes(data, i), in_range(data, i, 0x61, 0x7A)
    stops = first_white(data, i, end), first_in_range(data, i, end, 0x80, 0x1F)
    return white, letters, first_one(white), n_ones(letters & below(end - i)), stops


@given(text=BYTES, data=st.data())
def test_a_mask_has_the_bytes_that_a_comparison_of_each_would_find(text, data):
    i = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(i, len(text)))
    white, letters, first, n_letters, stops = _masks(wide(np.array(text, np.uint8)), i, end)
    window = text[i : i + WIDTH]
    is_white = [chr(byte).isspace() and byte < 0x80 for byte in text]
    assert white == sum(1 << k for k, found in enumerate(is_white[i : i + WIDTH]) if found)
    assert letters == sum(1 << k for k, byte in enumerate(window) if 0x61 <= byte <= 0x7A)
    assert first == next((k for k, found in enumerate(is_white[i : i + WIDTH]) if found), WIDTH)
    assert n_letters == sum(0x61 <= byte <= 0x7A for byte in window[: end - i])
    assert stops[0] == next((k for k in range(i, end) if is_white[k]), end)
    assert stops[1] == next((k for k in range(i, end) if not 0x20 <= text[k] < 0x80), end)

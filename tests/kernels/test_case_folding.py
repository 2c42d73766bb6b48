import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.kernels.case_folding import casefold, casefold_reference


def _column(*texts):
    encoded = [text.encode() for text in texts]
    return np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([0, *map(len, encoded)], dtype=np.int64)


@given(data=st.data())
def test_kernel_and_str_casefold_agree_on_any_bytes(data, documents):
    column = data.draw(documents)
    folded, offsets = casefold(*column)
    expected, expected_offsets = casefold_reference(*column)
    assert folded.tobytes() == expected.tobytes()
    np.testing.assert_array_equal(offsets, expected_offsets)


def test_every_code_point_folds_as_python_folds_it():
    codes = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    column = _column(*("".join(codes[i : i + 4096]) for i in range(0, len(codes), 4096)))
    assert casefold(*column)[0].tobytes() == casefold_reference(*column)[0].tobytes()


@pytest.mark.parametrize(("one", "other"), [("STRASSE", "straße"), ("ΣΊΣΥΦΟΣ", "σίσυφος"), ("ﬁn", "FIN")])
def test_words_that_differ_in_case_alone_become_equal(one, other):
    assert casefold(*_column(one))[0].tobytes() == casefold(*_column(other))[0].tobytes()

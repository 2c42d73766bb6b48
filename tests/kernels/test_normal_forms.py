import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.kernels.normal_forms import normalize, normalize_reference

FORMS = ["NFC", "NFD", "NFKC", "NFKD"]
MARKS = "\u0301\u0323\u0327\u0345\u0338\u3099\u05b0\u0f71\u0f72\u0f73\u0344\U0001d165\U0001d16d"
LETTERS = "eA가각\u1100\u1161\u11a8\u11a7ﬁﷺÅ\u212bộ\u09c7\u09be\u1b11\u1b35か㍿½Ǆ\u0958\u2126\U0002f800 \n"
TEXT = st.text(st.sampled_from(MARKS + LETTERS), max_size=16) | st.text(max_size=8)


def _column(*texts):
    encoded = [text.encode("utf-8", "replace") for text in texts]
    return np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([0, *map(len, encoded)], dtype=np.int64)


def _assert_as_python(column, form):
    data, offsets = normalize(*column, form)
    expected, expected_offsets = normalize_reference(*column, form)
    at = slice(int(offsets[0]), int(offsets[-1]))
    assert data[at].tobytes() == expected.tobytes()
    np.testing.assert_array_equal(offsets - offsets[0], expected_offsets)


@pytest.mark.parametrize("form", FORMS)
@given(texts=st.lists(TEXT, max_size=4))
def test_kernel_and_unicodedata_agree(form, texts):
    _assert_as_python(_column(*texts), form)


@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
def test_bytes_that_are_no_utf8_become_replacement_characters(form, data, documents):
    _assert_as_python(data.draw(documents), form)


@pytest.mark.parametrize("form", FORMS)
def test_every_code_point_alone_and_between_letter_and_mark(form):
    codes = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    assigned = [code for code in codes if unicodedata.category(code) not in ("Cn", "Co")]
    _assert_as_python(_column("".join(codes), *(f"e{code}\u0301\u0323" for code in assigned)), form)


@pytest.mark.parametrize("form", ["NFC", "NFKD"])
def test_long_runs_of_marks_are_ordered_as_short_ones(form):
    run = "\u0323" * 30 + "\u0301" * 40 + "\u0327" * 3 + "\u0301\u0323"
    _assert_as_python(_column(f"a{run}b", run[::-1], "e" + MARKS * 9), form)


def test_two_megabytes_of_unordered_marks_take_linear_time():
    n = 500_000
    data, _ = normalize(*_column("a" + "\u0301\u0323" * n), "NFD")
    assert data.tobytes() == ("a" + "\u0323" * n + "\u0301" * n).encode()


def test_text_that_is_in_its_form_comes_back_without_a_copy():
    data, offsets = _column("Zoë 東京 한국어 Việt", "ASCII")
    normal, normal_offsets = normalize(data, offsets, "NFC")
    assert normal is data
    assert normal_offsets is offsets

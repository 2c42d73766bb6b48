import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from cuvee.kernels.normalise import fold_whitespace_and_case, fold_whitespace_and_case_reference


@given(data=st.data())
def test_kernel_and_reference_agree_byte_for_byte(data, documents):
    column = data.draw(documents)
    for a, b in zip(
        fold_whitespace_and_case(*column), fold_whitespace_and_case_reference(*column), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@given(data=st.data())
def test_folding_twice_changes_nothing(data, documents):
    once = fold_whitespace_and_case(*data.draw(documents))
    for a, b in zip(fold_whitespace_and_case(*once), once, strict=True):
        np.testing.assert_array_equal(a, b)


def test_letters_whose_lowercase_is_longer_have_room():
    text = ("Ⱥ" * 100).encode()  # two bytes each, and three in lowercase
    data, offsets = fold_whitespace_and_case(np.frombuffer(text, np.uint8), np.array([0, len(text)]))
    assert data.tobytes().decode() == "ⱥ" * 100
    assert offsets.tolist() == [0, 300]

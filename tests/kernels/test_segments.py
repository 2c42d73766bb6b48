import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cuvee.kernels.segments import split


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 12))
def test_documents_are_split_alike_with_and_without_compiled_code(lengths: list[int], most: int) -> None:
    sizes = np.array(lengths, np.int64)
    starts = np.cumsum(sizes) - sizes
    for ours, expected in zip(
        split(starts, sizes, most), split(starts, sizes, most, compiled=False), strict=True
    ):
        np.testing.assert_array_equal(ours, expected)


@given(st.integers(1, 200), st.integers(1, 12))
def test_pieces_of_a_document_follow_each_other_and_leave_its_last_token_as_a_label(
    length: int, most: int
) -> None:
    starts, lengths = split(np.array([7]), np.array([length]), most)
    assert lengths.max() <= most
    assert starts.tolist() == (7 + np.arange(starts.size) * most).tolist()
    assert (lengths[:-1] == most).all()
    covered = int(lengths.sum())
    assert covered in (length, length - 1)
    assert covered == length or lengths[-1] == most

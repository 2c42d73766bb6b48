import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.kernels.gather import TokenStream, gather, gather_reference


@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=8).filter(lambda sizes: sum(sizes) >= 2),
    dtype=st.sampled_from([np.uint16, np.uint32]),
    data=st.data(),
)
@settings(deadline=None)
def test_rows_equal_those_of_the_copied_stream(sizes: list[int], dtype: type, data: st.DataObject) -> None:
    top = np.iinfo(dtype).max
    pieces = [np.arange(top - n + 1, top + 1, dtype=np.uint64).astype(dtype) for n in sizes]
    stream = TokenStream(pieces)
    length = data.draw(st.integers(1, sum(sizes) - 1))
    starts = np.array(data.draw(st.lists(st.integers(0, sum(sizes) - length - 1), max_size=5)), np.int64)
    ours, theirs = np.full((2, 2, starts.size, length), -1)
    gather(stream, starts, *ours)
    gather_reference(stream, starts, *theirs)
    np.testing.assert_array_equal(ours, theirs)


def test_a_row_across_three_pieces_is_whole() -> None:
    stream = TokenStream([np.array(piece, np.uint16) for piece in ([0, 1], [2], [], [3, 4, 5])])
    inputs, labels = np.empty((2, 1, 4), np.int64)
    gather(stream, np.array([1]), inputs, labels)
    assert inputs.tolist() == [[1, 2, 3, 4]]
    assert labels.tolist() == [[2, 3, 4, 5]]


def test_pieces_are_not_copied() -> None:
    piece = np.arange(4, dtype=np.uint16)
    stream = TokenStream([piece])
    piece[1] = 9
    inputs, labels = np.empty((2, 1, 3), np.int64)
    gather(stream, np.array([0]), inputs, labels)
    assert inputs.tolist() == [[0, 9, 2]]


def test_rows_outside_the_stream_and_wrong_shapes_are_refused() -> None:
    stream, (inputs, labels) = TokenStream([np.arange(6, dtype=np.uint16)]), np.empty((2, 1, 4), np.int64)
    for start in (-1, 2):
        with pytest.raises(ValueError, match=r"starts run from .* must start in \[0, 1\]"):
            gather(stream, np.array([start]), inputs, labels)
    with pytest.raises(ValueError, match=r"starts \(2,\), inputs \(1, 4\) and labels \(1, 4\) must be"):
        gather(stream, np.array([0, 0]), inputs, labels)


def test_pieces_of_two_dtypes_or_with_gaps_are_refused() -> None:
    with pytest.raises(ValueError, match=r"dtypes \['uint16', 'uint32'\]; they must all be"):
        TokenStream([np.zeros(1, np.uint16), np.zeros(1, np.uint32)])
    with pytest.raises(ValueError, match=r"dtypes \[\]; they must all be"):
        TokenStream([])
    with pytest.raises(ValueError, match="a piece is not contiguous"):
        TokenStream([np.zeros(4, np.uint16)[::2]])

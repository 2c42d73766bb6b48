import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.kernels.gather import IGNORED_LABEL, RowArrays, gather, gather_reference
from cuvee.kernels.segments import copy_segments, document_spans
from cuvee.kernels.token_stream import TokenStream

PAD = 7


def row_arrays(n_rows: int, length: int, positions: bool = True, cu_seqlens: bool = True) -> RowArrays:
    shape = (n_rows, length)
    return RowArrays(
        np.full(shape, -1),
        np.full(shape, -1),
        np.full(shape if positions else (0, 0), -1),
        np.full(n_rows * length + 1 if cu_seqlens else 0, -1, np.int32),
    )


@st.composite
def streams(draw: st.DrawFn) -> TokenStream:
    """One to five pieces of some documents each, empty ones among both."""
    dtype = draw(st.sampled_from([np.uint16, np.uint32]))
    lengths = draw(
        st.lists(st.lists(st.integers(0, 7), max_size=5), min_size=1, max_size=5).filter(
            lambda pieces: sum(map(sum, pieces)) >= 2
        )
    )
    offsets = [np.cumsum([0, *piece]) for piece in lengths]
    top = np.iinfo(dtype).max - 200
    pieces = [
        (top + 30 * k + np.arange(ends[-1], dtype=np.uint64)).astype(dtype) for k, ends in enumerate(offsets)
    ]
    return TokenStream(pieces, offsets)


@given(stream=streams(), data=st.data())
def test_the_kernel_writes_what_the_reference_writes(stream: TokenStream, data: st.DataObject) -> None:
    length = data.draw(st.integers(1, 12))
    starts, at, lengths = [], [], []
    n_rows = data.draw(st.integers(0, 4))
    for row in range(n_rows):
        begin = 0
        while begin == 0 or (begin < length and data.draw(st.booleans())):
            n = data.draw(st.integers(1, min(length - begin, stream.n_tokens)))
            starts.append(data.draw(st.integers(0, stream.n_tokens - n)))
            at.append(row * length + begin)
            lengths.append(n)
            begin += n
    segments = [np.array(values, np.int64) for values in (starts, at, lengths)]
    wanted = data.draw(st.tuples(st.booleans(), st.booleans()))
    options = {"pad_id": PAD, "mask_boundaries": data.draw(st.booleans())}
    ours, theirs = row_arrays(n_rows, length, *wanted), row_arrays(n_rows, length, *wanted)
    n_sequences, longest = gather(stream, *segments, ours, **options)
    assert (n_sequences, longest) == gather_reference(stream, *segments, theirs, **options)
    for mine, expected in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, expected)
    for compiled in (True, False):
        copied = copied_stream(stream, segments[0], segments[2], compiled)
        begins = np.cumsum(segments[2] + 1) - segments[2] - 1
        again = row_arrays(n_rows, length, *wanted)
        if n_rows and (options["mask_boundaries"] or (segments[0] + segments[2]).max() < stream.n_tokens):
            assert gather(copied, begins, *segments[1:], again, **options) == (n_sequences, longest)
            for mine, expected in zip(again, theirs, strict=True):
                np.testing.assert_array_equal(mine, expected)
    if wanted[1]:
        bounds = ours.cu_seqlens[: n_sequences + 1]
        assert bounds[0] == 0
        assert bounds[-1] == n_rows * length
        assert (np.diff(bounds) > 0).all()
        assert set(range(0, n_rows * length + 1, length)) <= set(bounds.tolist())


def copied_stream(
    stream: TokenStream, starts: np.ndarray, lengths: np.ndarray, compiled: bool
) -> TokenStream:
    tokens = np.full(int((lengths + 1).sum()), 9, stream.dtype)
    ends = np.full(int(lengths.sum()) + 2, -1)
    n = copy_segments(stream, starts, lengths, tokens, ends, compiled=compiled)
    return TokenStream([tokens], [ends[:n]])


def filled(stream: TokenStream, starts: list[int], length: int, mask: bool) -> RowArrays:
    rows = row_arrays(len(starts), length)
    at = np.arange(len(starts)) * length
    gather(stream, np.array(starts), at, np.full(len(starts), length), rows, pad_id=PAD, mask_boundaries=mask)
    return rows


def test_a_row_across_three_pieces_is_whole() -> None:
    stream = TokenStream([np.array(piece, np.uint16) for piece in ([0, 1], [2], [], [3, 4, 5])])
    rows = filled(stream, [1], 4, mask=False)
    assert rows.inputs.tolist() == [[1, 2, 3, 4]]
    assert rows.labels.tolist() == [[2, 3, 4, 5]]
    assert rows.positions.tolist() == [[0, 0, 0, 1]]


def test_labels_are_masked_where_a_document_ends_and_nowhere_else() -> None:
    stream = TokenStream([np.arange(9, dtype=np.uint16)], [np.array([0, 2, 2, 5, 9])])
    rows = filled(stream, [0, 4], 4, mask=True)
    assert rows.labels.tolist() == [[1, IGNORED_LABEL, 3, 4], [IGNORED_LABEL, 6, 7, 8]]
    assert rows.cu_seqlens[:5].tolist() == [0, 2, 4, 5, 8]
    assert filled(stream, [5], 4, mask=True).labels.tolist() == [[6, 7, 8, IGNORED_LABEL]]
    assert filled(stream, [5], 4, mask=False).labels.tolist() == [[6, 7, 8, IGNORED_LABEL]]


def test_pieces_are_not_copied() -> None:
    piece = np.arange(4, dtype=np.uint16)
    stream = TokenStream([piece])
    piece[1] = 9
    assert filled(stream, [0], 3, mask=False).inputs.tolist() == [[0, 9, 2]]


@pytest.mark.parametrize(
    ("starts", "at", "lengths", "message"),
    [
        (
            [-1],
            [0],
            [4],
            "segment 0 holds tokens .-1, 3. at 0; it must have one or more of the 6 in the stream",
        ),
        ([3], [0], [4], "segment 0 holds tokens .3, 7. at 0"),
        ([0], [0], [0], "segment 0 holds tokens .0, 0. at 0"),
        ([0, 0], [0, 1], [2, 2], "segment 1 holds tokens .0, 2. at 1; .* and follow the segments before it"),
        ([0], [2], [3], "segment 0 .* lie within a row of 4 of the 2"),
        ([0], [8], [3], "segment 0 holds tokens .0, 3. at 8"),
        ([0], [-1], [3], "segment 0 holds tokens .0, 3. at -1"),
        ([0, 0], [0], [3], r"starts \(2,\), at \(1,\) and lengths \(1,\) must be"),
    ],
)
def test_segments_that_make_no_sense_are_refused(starts, at, lengths, message: str) -> None:
    stream = TokenStream([np.arange(6, dtype=np.uint16)])
    segments = [np.array(values) for values in (starts, at, lengths)]
    for compiled in (True, False):
        with pytest.raises(ValueError, match=message):
            gather(stream, *segments, row_arrays(2, 4), pad_id=PAD, mask_boundaries=True, compiled=compiled)


def test_pieces_of_two_dtypes_or_with_gaps_and_wrong_offsets_are_refused() -> None:
    with pytest.raises(ValueError, match=r"dtypes \['uint16', 'uint32'\]; they must all be"):
        TokenStream([np.zeros(1, np.uint16), np.zeros(1, np.uint32)])
    with pytest.raises(ValueError, match=r"dtypes \[\]; they must all be"):
        TokenStream([])
    with pytest.raises(ValueError, match="a piece is not contiguous"):
        TokenStream([np.zeros(4, np.uint16)[::2]])
    with pytest.raises(ValueError, match=r"offsets are \[0 3\]; they must be int64 and run from 0 to 4"):
        TokenStream([np.zeros(4, np.uint16)], [np.array([0, 3])])


@given(stream=streams(), data=st.data())
def test_the_spans_of_documents_are_those_of_their_pieces(stream: TokenStream, data: st.DataObject) -> None:
    n_docs = int(stream.doc_bounds[-1])
    docs = np.array(data.draw(st.lists(st.integers(0, n_docs - 1), max_size=9)), np.int64)
    ends = np.concatenate([b + e[1:] for b, e in zip(stream.bounds[:-1], stream.offsets, strict=True)])
    lengths = np.concatenate([np.diff(e) for e in stream.offsets])
    for compiled in (True, False):
        starts, found = document_spans(stream, docs, compiled=compiled)
        np.testing.assert_array_equal(found, lengths[docs])
        np.testing.assert_array_equal(starts + found, ends[docs])


def test_a_document_outside_the_stream_is_refused() -> None:
    stream = TokenStream([np.zeros(4, np.uint16)])
    for doc in (-1, 1):
        with pytest.raises(ValueError, match="the stream has 1"):
            document_spans(stream, np.array([doc]))

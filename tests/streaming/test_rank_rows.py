import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cuvee.streaming.plan import Rows
from cuvee.streaming.rank_rows import joined_rows, rows_of_rank, take_rows


@st.composite
def plans(draw: st.DrawFn) -> Rows:
    """Six steps of twelve rows, of one to three segments each, with any numbers in them."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    most = draw(st.integers(1, 3))
    counts = random.integers(1, most + 1, 72)
    bounds = np.concatenate([[0], np.cumsum(counts)])
    tables = [random.integers(0, 10**9, (6, 12)) for _ in range(4)]
    segments = [random.integers(1, 10**9, bounds[-1]) for _ in range(2)]
    sequence_lengths = 2 ** random.integers(3, 9, 6) if draw(st.booleans()) else None
    return Rows(*tables, counts, bounds, *segments, sequence_lengths)


@given(plans(), st.integers(0, 5), st.integers(1, 6), st.sampled_from([1, 2, 3, 4, 6, 12]))
def test_rows_of_several_steps_are_those_of_each_step_one_after_another(
    rows: Rows, first: int, n_steps: int, world_size: int
) -> None:
    n_steps = min(n_steps, 6 - first)
    for rank in range(world_size):
        each = [rows_of_rank(rows, k, k, rank, world_size) for k in range(first, first + n_steps)]
        found = rows_of_rank(rows, first, first, rank, world_size, n_steps)
        for name, value, expected in zip(found._fields, found, joined_rows(each, n_steps), strict=True):
            np.testing.assert_array_equal(value, expected, err_msg=name)


@given(plans(), st.sampled_from([2, 3, 6]))
def test_all_ranks_together_have_each_row_of_a_step_once_in_order(rows: Rows, world_size: int) -> None:
    parts = [rows_of_rank(rows, 2, 2, rank, world_size) for rank in range(world_size)]
    found, expected = joined_rows(parts), rows_of_rank(rows, 2, 2, 0, 1)
    for name in ("domains", "row_ids", "epochs", "shares", "counts", "starts", "lengths"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@given(plans())
def test_rows_are_taken_with_their_segments_in_the_order_asked_for(rows: Rows) -> None:
    whole = rows_of_rank(rows, 0, 0, 0, 1)
    ends = np.cumsum(whole.counts)
    taken = take_rows(whole, np.array([7, 0]))
    assert taken.row_ids.tolist() == whole.row_ids[[7, 0]].tolist()
    expected = [*whole.starts[ends[6] : ends[7]], *whole.starts[: ends[0]]]
    assert taken.starts.tolist() == expected

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.kernels.apportion import ROW
from cuvee.streaming.schedule import N_LEVELS, WeightSchedule, bounded, bounds_of

DOMAINS = ["code", "web"]


def schedule(*points: tuple[int, float], shape: str = "linear") -> WeightSchedule:
    return WeightSchedule([(n, {"code": code, "web": 1 - code}) for n, code in points], shape)


def code_share(weights: WeightSchedule, n_rows: int) -> float:
    ramp = weights.ramp(DOMAINS, sequence_length=10)
    shares = ramp.at(ramp.level(n_rows))
    assert shares.sum() == ROW
    return shares[0] / ROW


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("step", [0.2, 0.2, 0.2, 0.2, 0.6, 0.6]),
        ("linear", [0.2, 0.3, 0.4, 0.5, 0.6, 0.6]),
        ("cosine", [0.2, 0.2 + 0.4 * 0.1464466, 0.4, 0.2 + 0.4 * 0.8535534, 0.6, 0.6]),
    ],
)
def test_weights_go_from_point_to_point_in_their_shape(shape: str, expected: list[float]) -> None:
    weights = schedule((0, 0.2), (1000, 0.6), shape=shape)
    found = [code_share(weights, n_rows) for n_rows in (0, 25, 50, 75, 100, 10**9)]
    assert found == pytest.approx(expected, abs=0.4 / N_LEVELS)


def test_points_between_rows_hold_from_the_next_row_on() -> None:
    weights = schedule((0, 0.2), (11, 0.6), shape="step")
    assert [code_share(weights, n_rows) for n_rows in (1, 2)] == pytest.approx([0.2, 0.6])


@pytest.mark.parametrize(
    ("points", "shape", "message"),
    [
        ([], "linear", r"points at \[\] tokens; they must ascend from 0 on"),
        ([(5, 0.5)], "linear", r"points at \[5\] tokens"),
        ([(0, 0.5), (9, 0.5), (9, 0.5)], "linear", r"points at \[0, 9, 9\] tokens"),
        ([(0, 0.5)], "lienar", "shape is 'lienar'; it is one of step, linear, cosine"),
    ],
)
def test_schedules_that_make_no_sense_are_refused(points, shape: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        schedule(*points, shape=shape)


SHARES = st.lists(st.integers(0, 9), min_size=3, max_size=3).filter(any)
BOUNDS = st.lists(st.tuples(st.integers(0, 10), st.integers(0, 10)).map(sorted), min_size=3, max_size=3)


@given(shares=SHARES, bounds=BOUNDS)
def test_bounded_shares_are_one_multiple_of_the_shares_clipped(shares, bounds) -> None:
    low, high = ([b * ROW // 10 for b in side] for side in zip(*bounds, strict=True))
    if sum(low) > ROW or not any(high):
        return
    result = bounded(tuple(shares), tuple(low), tuple(high))
    assert sum(result) == ROW
    if sum(high) < ROW:
        assert [r * sum(high) for r in result] == pytest.approx([h * ROW for h in high], rel=1e-9)
        return
    assert all(lo - 1 <= r <= hi + 1 for lo, r, hi in zip(low, result, high, strict=True))
    inside = [
        r / s for lo, r, hi, s in zip(low, result, high, shares, strict=True) if s and lo + 1 < r < hi - 1
    ]
    if sum(s > 0 for s in shares) == 3 and inside:
        factor = inside[0]
        for lo, r, hi, s in zip(low, result, high, shares, strict=True):
            assert r == pytest.approx(min(max(factor * s, lo), hi), abs=10)


@pytest.mark.parametrize(
    ("floors", "ceilings", "message"),
    [
        ({"wbe": 0.1}, None, "floors: unknown domain 'wbe'; did you mean 'web'"),
        ({"web": -0.1}, None, "floors: 'web' is -0.1; a share of the tokens is 0 to 1"),
        (None, {"web": 2}, "ceilings: 'web' is 2; a share of the tokens is 0 to 1"),
        ({"web": 0.5}, {"web": 0.25}, "floors: 'web' has 0.5 and the ceiling 0.25"),
        ({"web": 0.6, "code": 0.6}, None, "floors: they sum to 1.2"),
        (None, {"web": 0.3, "code": 0.3}, "ceilings: they sum to 0.6; no weights would reach 1"),
    ],
)
def test_bounds_that_make_no_sense_are_refused(floors, ceilings, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bounds_of(floors, ceilings, DOMAINS)


def test_no_bounds_are_none() -> None:
    assert bounds_of(None, {}, DOMAINS) is None

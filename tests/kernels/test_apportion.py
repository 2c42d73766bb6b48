import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.kernels.apportion import ROW, apportion, apportion_reference, largest_remainder

WEIGHTS = st.lists(st.floats(0, 1e6), min_size=1, max_size=9).filter(any)
PLENTY = 10**9


def credit_by_row(shares: np.ndarray, domains: np.ndarray) -> np.ndarray:
    """Integral of the shares less the rows drawn, after each row: float64, (n_rows, n_domains), in rows."""
    drawn = np.cumsum(domains[:, None] == np.arange(shares.shape[-1]), axis=0)
    integral = np.cumsum(np.broadcast_to(shares, drawn.shape) / ROW, axis=0)
    return integral - drawn


@given(weights=WEIGHTS, total=st.integers(0, 2**40))
def test_largest_remainder_divides_everything_and_misses_no_quota_by_one(
    weights: list[float], total: int
) -> None:
    counts = largest_remainder(np.array(weights), total)
    quotas = np.array(weights) / sum(weights) * total
    assert counts.sum() == total
    assert (np.abs(counts - quotas) < 1 + 1e-3).all()  # the quotas here are float64, of up to 2**40
    assert (counts[np.array(weights) == 0] == 0).all()


def test_largest_remainder_gives_ties_to_the_first() -> None:
    assert largest_remainder(np.array([1, 1, 1]), 5).tolist() == [2, 2, 1]


@pytest.mark.parametrize("weights", [[0.5, -0.1], [float("nan")], [float("inf"), 1.0], [0.0, 0.0], []])
def test_weights_that_say_nothing_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="finite and >= 0, at least one above zero"):
        largest_remainder(np.array(weights), 10)


@given(weights=WEIGHTS)
@settings(deadline=None)
def test_constant_weights_are_kept_within_one_row_at_every_prefix(weights: list[float]) -> None:
    shares = largest_remainder(np.array(weights), ROW)
    domains, _ = apportion(shares, np.zeros_like(shares), 300, np.full_like(shares, PLENTY))
    n_active = np.count_nonzero(shares)
    # Tijdeman's bound; shares are whole numbers, so that the margin is rounded by less than 1 / ROW.
    bound = 1 - 1 / max(1, 2 * n_active - 2) + 1e-9
    assert np.abs(credit_by_row(shares, domains)).max() <= max(bound, 0)


def test_the_largest_deficit_alone_would_miss_by_more_than_a_row() -> None:
    # Why rule 2 is there: of 4 domains, found by a search over Dirichlet weights.
    rng, worst = np.random.default_rng(0), 0.0
    for _ in range(400):
        w = rng.dirichlet(np.full(4, 10 ** rng.uniform(-1.5, 1)))
        credit = np.zeros(4)
        for _ in range(300):
            credit += w
            credit[credit.argmax()] -= 1
            worst = max(worst, credit.max())
    assert worst > 1


@pytest.mark.parametrize("n_domains", [2, 4, 8, 32])
def test_weights_that_change_at_random_are_kept_within_two_rows(n_domains: int) -> None:
    rng = np.random.default_rng(n_domains)
    credit, plenty = np.zeros(n_domains, np.int64), np.full(n_domains, PLENTY)
    all_shares, all_domains = [], []
    for _ in range(300):
        n_rows = int(rng.integers(1, 9))
        shares = largest_remainder(rng.dirichlet(np.full(n_domains, 0.5)), ROW)
        domains, credit = apportion(shares, credit, n_rows, plenty)
        all_shares.append(np.tile(shares, (n_rows, 1)))
        all_domains.append(domains)
    by_row = credit_by_row(np.concatenate(all_shares), np.concatenate(all_domains))
    assert np.abs(by_row).max() < 2
    np.testing.assert_allclose(by_row[-1], credit / ROW, atol=1e-9)


@given(
    weights=WEIGHTS,
    n_rows=st.integers(0, 60),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_kernel_and_reference_agree(weights: list[float], n_rows: int, seed: int) -> None:
    rng, shares = np.random.default_rng(seed), largest_remainder(np.array(weights), ROW)
    credit = rng.integers(-ROW, ROW, size=shares.size)
    available = rng.integers(1, 40, size=shares.size)
    for ours, theirs in zip(
        apportion(shares, credit, n_rows, available),
        apportion_reference(shares, credit, n_rows, available),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


@given(weights=WEIGHTS, first=st.integers(0, 50), second=st.integers(0, 50))
@settings(deadline=None)
def test_two_calls_give_what_one_call_gives(weights: list[float], first: int, second: int) -> None:
    shares = largest_remainder(np.array(weights), ROW)
    nothing, plenty = np.zeros_like(shares), np.full_like(shares, PLENTY)
    whole, end = apportion(shares, nothing, first + second, plenty)
    head, middle = apportion(shares, nothing, first, plenty)
    tail, end_of_two = apportion(shares, middle, second, plenty)
    np.testing.assert_array_equal(whole, np.concatenate([head, tail]))
    np.testing.assert_array_equal(end, end_of_two)


def test_a_zero_weight_is_never_drawn_and_keeps_its_credit() -> None:
    shares = largest_remainder(np.array([1, 0, 1]), ROW)
    domains, credit = apportion(shares, np.array([0, 3 * ROW, -3 * ROW]), 50, np.array([PLENTY, 0, PLENTY]))
    assert 1 not in domains
    assert credit[1] == 3 * ROW
    assert credit.sum() == 0


def test_the_order_ends_with_a_domains_last_row() -> None:
    shares = largest_remainder(np.array([1, 1]), ROW)
    domains, _ = apportion(shares, np.zeros(2, np.int64), 50, np.array([PLENTY, 3]))
    assert domains.tolist() == [0, 1, 0, 1, 0, 1]


def test_arguments_are_left_as_they_were() -> None:
    shares, credit, available = largest_remainder(np.array([1, 2]), ROW), np.zeros(2, np.int64), np.full(2, 5)
    apportion(shares, credit, 4, available)
    assert credit.tolist() == [0, 0]
    assert available.tolist() == [5, 5]


def test_shares_that_are_not_one_row_and_domains_that_are_empty_are_refused() -> None:
    nothing, plenty = np.zeros(2, np.int64), np.full(2, PLENTY)
    with pytest.raises(ValueError, match=r"shares are \[1, 2\]; they must be >= 0 and sum to"):
        apportion(np.array([1, 2]), nothing, 1, plenty)
    with pytest.raises(ValueError, match="n_rows is -1; it must be >= 0"):
        apportion(np.array([ROW, 0]), nothing, -1, plenty)
    with pytest.raises(ValueError, match=r"domain 1 has a share of \d+ and no row available"):
        apportion(np.array([ROW // 2, ROW // 2]), nothing, 1, np.array([5, 0]))

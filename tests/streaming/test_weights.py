import pytest

from cuvee.kernels.apportion import ROW
from cuvee.streaming.weights import epoch_caps, shares_of

DOMAINS = ["code", "web", "wiki"]


def test_shares_follow_the_order_of_the_domains_and_sum_to_one_row() -> None:
    shares = shares_of({"wiki": 0.2, "web": 0.7, "code": 0.1}, DOMAINS)
    assert shares.sum() == ROW
    assert (shares / ROW).tolist() == pytest.approx([0.1, 0.7, 0.2], abs=1e-12)


def test_a_sum_that_is_off_by_rounding_is_taken() -> None:
    assert shares_of({"wiki": 0.333333, "web": 0.333333, "code": 0.333334}, DOMAINS).sum() == ROW
    assert shares_of({"wiki": 0.3333331, "web": 0.3333331, "code": 0.3333331}, DOMAINS).sum() == ROW


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            {"wbe": 1.0},
            "weights: unknown domain 'wbe'; did you mean 'web'. The domains are 'code', 'web', 'wiki'",
        ),
        ({"xyz": 1.0}, "weights: unknown domain 'xyz'; The domains are"),
        ({"web": 1.0}, "weights: none for 'code', 'wiki'; give each domain one, 0 to leave it out"),
        ({"web": 1.5, "code": -0.5, "wiki": 0.0}, "weights: 'code' is -0.5; a weight is finite and >= 0"),
        ({"web": float("nan"), "code": 0.5, "wiki": 0.5}, "weights: 'web' is nan; a weight is finite"),
        ({"web": float("inf"), "code": 0.5, "wiki": 0.5}, "weights: 'web' is inf; a weight is finite"),
        (
            {"web": 0.5, "code": 0.5, "wiki": 0.5},
            "they sum to 1.5; they must sum to 1 within 1e-06; divide each",
        ),
        ({"web": 0.0, "code": 0.0, "wiki": 0.0}, "they sum to 0; .* give at least one domain a weight"),
    ],
)
def test_weights_that_make_no_sense_are_refused(weights: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        shares_of(weights, DOMAINS)


def test_caps_are_for_all_domains_or_by_name() -> None:
    assert epoch_caps(None, DOMAINS) == dict.fromkeys(DOMAINS)
    assert epoch_caps(float("inf"), DOMAINS) == dict.fromkeys(DOMAINS)
    assert epoch_caps(2.5, DOMAINS) == dict.fromkeys(DOMAINS, 2.5)
    assert epoch_caps({"wiki": 1}, DOMAINS) == {"code": None, "web": None, "wiki": 1}


def test_caps_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="max_epochs: unknown domain 'wikki'; did you mean 'wiki'"):
        epoch_caps({"wikki": 1}, DOMAINS)
    for cap in (0, -1, float("nan")):
        with pytest.raises(ValueError, match=r"max_epochs: 'wiki' is .*; it must be above 0"):
            epoch_caps({"wiki": cap}, DOMAINS)

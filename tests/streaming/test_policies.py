"""Policies against what their papers say, and in worlds where the right weights are known."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from cuvee.streaming.policies import Ado, MirrorDescent, Policy
from cuvee.streaming.published_policies import Aioli, Exp3S, GroupDro, Odm, SkillIt

PRIOR = np.array([0.4, 0.3, 0.2, 0.1])
TOKENS = np.full(4, 1e5)
MAKERS: dict[str, Callable[[], Policy]] = {
    "mirror_descent": lambda: MirrorDescent(PRIOR),
    "loss": lambda: MirrorDescent(PRIOR, reward="loss"),
    "excess": lambda: MirrorDescent(PRIOR, reward="excess", reference=np.ones(4)),
    "odm paper": lambda: Odm(PRIOR, warm_up=3),
    "odm released": lambda: Odm(PRIOR, form="released"),
    "exp3s": lambda: Exp3S(PRIOR),
    "group_dro": lambda: GroupDro(PRIOR, np.ones(4)),
    "ado": lambda: Ado(PRIOR, refit=5, warm_up=5),
    "skill_it": lambda: SkillIt(PRIOR, np.eye(4)),
    "aioli": lambda: Aioli(PRIOR, every=7),
}
each_policy = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


def spend(
    policy: Policy, curve: Callable[[np.ndarray], np.ndarray], n_reports: int, noise: float = 0.02
) -> np.ndarray:
    """The tokens of each domain when the policy spends 1e6 a report."""
    rng, n_tokens = np.random.default_rng(0), np.zeros(policy.prior.size)
    for _ in range(n_reports):
        tokens = policy.weights * 1e6
        losses = curve(n_tokens + tokens / 2) + noise * rng.normal(size=tokens.size)
        policy.observe(losses, tokens)
        n_tokens += tokens
    return n_tokens


@each_policy
def test_weights_stay_a_distribution_whatever_is_reported(make: Callable[[], Policy]) -> None:
    policy, rng = make(), np.random.default_rng(1)
    for report in range(80):
        losses, tokens = rng.uniform(0, 12, 4), TOKENS * rng.integers(0, 3, 4)
        losses[rng.random(4) < 0.2] = (np.nan, np.inf, -np.inf)[report % 3]
        policy.observe(losses, tokens)
        weights = policy.weights
        assert np.isfinite(weights).all()
        assert (weights > 0).all()
        assert weights.sum() == pytest.approx(1, abs=1e-9)
    assert policy.n_reports == 80
    assert policy.n_ignored > 0


@each_policy
def test_a_policy_goes_on_from_its_state_as_if_it_had_not_stopped(make: Callable[[], Policy]) -> None:
    rng = np.random.default_rng(2)
    reports = [(rng.uniform(1, 4, 4), TOKENS * rng.integers(0, 3, 4)) for _ in range(60)]
    whole, resumed = make(), make()
    for stop, report in enumerate(reports):
        whole.observe(*report)
        resumed.observe(*report)
        if stop % 7 == 3:
            state = json.loads(json.dumps(resumed.state_dict()))
            resumed = make()
            resumed.load_state_dict(state)
        np.testing.assert_array_equal(whole.weights, resumed.weights)


@each_policy
def test_an_empty_report_changes_no_weights(make: Callable[[], Policy]) -> None:
    policy = make()
    for _ in range(30):
        policy.observe(np.array([1.0, 2.0, 3.0, 4.0]), TOKENS)
    before = policy.weights
    policy.observe(np.full(4, np.nan), TOKENS)
    policy.observe(np.ones(4), np.zeros(4))
    np.testing.assert_array_equal(policy.weights, before)


def test_the_default_finds_equal_marginal_gains() -> None:
    """A domain of steep losses gets the tokens that lower the prior's mean most."""
    level, scale, alpha = (
        np.array([2.0, 1.0, 1.5, 2.0]),
        np.array([1.0, 4.0, 3.0, 2.0]),
        np.array([0.5, 0.3, 0.3, 0.4]),
    )

    def curve(n: np.ndarray) -> np.ndarray:
        return level + scale * (1 + n / 5e5) ** -alpha

    reached = PRIOR @ curve(spend(MirrorDescent(PRIOR), curve, 400))
    by_prior = PRIOR @ curve(PRIOR * 4e8)
    shares = np.random.default_rng(0).dirichlet(np.ones(4), 20_000)
    best = (curve(shares * 4e8) @ PRIOR).min()
    assert by_prior > best * 1.004
    assert reached < best * 1.002


def test_the_default_leaves_noise_alone_and_the_loss_chases_it() -> None:
    def curve(n: np.ndarray) -> np.ndarray:
        found = 1.5 + 3 * (1 + n / 5e5) ** -0.3
        found[0] = 8.0
        return found

    for reward, low, high in (("slope", 0.0, 0.2), ("loss", 0.6, 1.0)):
        spent = spend(MirrorDescent(PRIOR, reward=reward), curve, 300, noise=0.1)
        assert low < spent[0] / spent.sum() < high


def test_a_domain_whose_slope_noise_hides_goes_back_to_its_prior() -> None:
    """It fell while it seemed flat; then its reports jump by more than any slope can be."""
    policy, rng = MirrorDescent(PRIOR), np.random.default_rng(5)
    tokens = 0.0
    for report in range(600):
        tokens += 1e6
        losses = 2 + 4 * (1 + np.full(4, tokens) / 5e5) ** -0.3
        losses[0] = 4.0 if report < 100 else 4.0 + rng.normal()
        policy.observe(losses, TOKENS)
        if report == 99:
            fell = policy.weights[0]
    assert fell < 0.5 * PRIOR[0]
    assert 0.75 * PRIOR[0] < policy.weights[0] < 1.5 * PRIOR[0]


def test_a_step_of_the_default_is_within_its_rate_and_bounds() -> None:
    policy, rng = MirrorDescent(PRIOR, rate=0.1, pull=0, warm_up=2), np.random.default_rng(0)
    for report in range(200):
        before = policy.weights
        policy.observe(3 - 0.01 * report * np.array([1, 0, 0, 0]) + 0.001 * rng.normal(size=4), TOKENS)
        ratio = policy.weights / before
        assert ratio.max() / ratio.min() <= 1.1 / 0.9 + 1e-9
        assert (policy.weights >= 0.1 * PRIOR - 1e-12).all()
        assert (policy.weights <= np.minimum(1, 5 * PRIOR) + 1e-12).all()
    assert policy.weights[0] > 0.9


def test_without_evidence_the_default_keeps_the_prior() -> None:
    policy, rng = MirrorDescent(PRIOR), np.random.default_rng(3)
    for _ in range(500):
        policy.observe(3 + rng.normal(size=4), TOKENS)
    assert np.abs(np.log(policy.weights / PRIOR)).max() < 0.35


def test_odm_ends_where_its_two_forms_are_known_to_end() -> None:
    """With fixed losses 1.2 to 2.9 the paper's form forgets, the released one samples by perplexity."""
    losses, prior = np.linspace(1.2, 2.9, 8), np.full(8, 1 / 8)
    found = {}
    for form in ("paper", "released"):
        policy = Odm(prior, form=form)
        for _ in range(5_000):
            policy.observe(losses, np.ones(8))
        found[form] = policy.weights
    assert 0.118 < found["paper"].min() < found["paper"].max() < 0.132
    exploration = np.sqrt(np.log(8) / (8 * 5_000))
    perplexity = np.exp(losses)
    expected = (1 - 8 * exploration) * perplexity / perplexity.sum() + exploration
    np.testing.assert_allclose(found["released"], expected, rtol=1e-9)


def test_odm_follows_its_algorithm_by_hand() -> None:
    policy = Odm(np.array([0.5, 0.5]), smoothing=0.9)
    policy.observe(np.array([1.0, 3.0]), np.ones(2))
    means = 0.1 * np.array([1.0, 3.0]) / 0.5
    exploration = min(0.5, np.sqrt(np.log(2) / 2))
    odds = np.exp(0.5 * means)
    expected = (1 - 2 * exploration) * odds / odds.sum() + exploration
    np.testing.assert_allclose(policy.weights, expected, rtol=1e-12)


def test_group_dro_is_doremis_update() -> None:
    policy = GroupDro(np.array([0.5, 0.5]), np.array([2.0, 2.0]), rate=1.0, smoothing=0.01)
    policy.observe(np.array([2.5, 1.0]), np.ones(2))
    first = 0.99 * np.array([np.exp(0.5), 1]) / (np.exp(0.5) + 1) + 0.005
    np.testing.assert_allclose(policy.weights, first)
    policy.observe(np.array([np.nan, 3.0]), np.ones(2))  # the absent one keeps its excess of 0.5
    odds = first * np.exp([0.5, 1.0])
    second = 0.99 * odds / odds.sum() + 0.005
    np.testing.assert_allclose(policy.weights, second)
    np.testing.assert_allclose(policy.mean_weights, (first + second) / 2)


def test_ado_recovers_the_law_behind_the_losses() -> None:
    policy = Ado(np.array([0.5, 0.5]), refit=10, warm_up=1)
    level, scale, alpha = np.array([2.0, 1.0]), np.array([8.0, 5.0]), np.array([0.3, 0.2])
    spend(policy, lambda n: level + scale * n**-alpha, 400, noise=0.0)
    np.testing.assert_allclose(policy.laws[:, 2], alpha, atol=0.03)
    np.testing.assert_allclose(policy.laws[:, 0], level, atol=0.15)


def test_skill_it_follows_the_graph() -> None:
    graph = np.array([[0, 0, 1.0, 0], [0] * 4, [0] * 4, [0] * 4])
    policy = SkillIt(PRIOR, graph, rate=0.5, window=2)
    policy.observe(np.array([1.0, 1.0, 3.0, 1.0]), TOKENS)
    odds = PRIOR * np.exp(0.5 * np.array([3.0, 0, 0, 0]))
    np.testing.assert_allclose(policy.weights, odds / odds.sum())


def test_aioli_learns_who_helps_whom() -> None:
    """Training on domain 1 lowers all losses, on others none: probes find it, and it gains weight."""
    policy, losses = Aioli(PRIOR, every=5, rounds=2, own=0.7), np.full(4, 5.0)
    probed = []
    for _ in range(60):
        weights = policy.weights
        if weights.max() == 0.7:
            probed.append(int(weights.argmax()))
        losses = losses - 0.01 * weights[1]
        policy.observe(losses, TOKENS)
    assert probed[:8] == [0, 1, 2, 3, 0, 1, 2, 3]
    final = np.exp(policy.log_weights)
    assert final[1] > PRIOR[1]
    assert ((final / PRIOR)[[0, 2, 3]] < 0.7).all()


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match=r"prior is \[0.5, 0.6\]"):
        MirrorDescent(np.array([0.5, 0.6]))
    with pytest.raises(ValueError, match="reward 'excess' and a reference come together"):
        MirrorDescent(PRIOR, reward="excess")
    with pytest.raises(ValueError, match="form is 'code'"):
        Odm(PRIOR, form="code")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="one finite number for each of 4 domains"):
        GroupDro(PRIOR, np.ones(3))
    with pytest.raises(ValueError, match=r"losses and n_tokens have shapes \(3,\) and \(4,\)"):
        Exp3S(PRIOR).observe(np.ones(3), TOKENS)
    wrong: list[tuple[str, Callable[[], Policy]]] = [
        ("smoothing and warm_up are 1.0 and 0", lambda: Odm(PRIOR, form="released", smoothing=1.0)),
        ("smoothing and warm_up are 0.9 and -3", lambda: Odm(PRIOR, warm_up=-3)),
        ("rate and smoothing are nan and 0.001", lambda: GroupDro(PRIOR, np.ones(4), rate=np.nan)),
        ("rate and smoothing are 1.0 and 2", lambda: GroupDro(PRIOR, np.ones(4), smoothing=2)),
        ("rate is inf, window is 3", lambda: SkillIt(PRIOR, np.eye(4), rate=np.inf)),
        ("graph has .* numbers >= 0", lambda: SkillIt(PRIOR, np.full((4, 4), np.inf))),
        ("rounds and rate are 0.7, 50, 2, nan", lambda: Aioli(PRIOR, rate=np.nan)),
        (r"half_lives are \(8,\)", lambda: MirrorDescent(PRIOR, half_lives=(8,))),  # type: ignore[arg-type]
    ]
    for message, make in wrong:
        with pytest.raises(ValueError, match=message):
            make()
    state = Exp3S(PRIOR).state_dict()
    with pytest.raises(ValueError, match="a GroupDro needs"):
        GroupDro(PRIOR, np.ones(4)).load_state_dict(state)
    with pytest.raises(ValueError, match=r"log_weights has shape \(4,\), this policy's is \(2,\)"):
        Exp3S(np.array([0.5, 0.5])).load_state_dict(state)

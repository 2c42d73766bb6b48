"""The papers' mixers on surfaces that they represent exactly: parameters and optima come back."""

import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from cuvee.mixing import Fidelity, RunTable, load_mixer, recommend
from cuvee.mixing.design import sample_design
from cuvee.mixing.mixmin import MixMinMixer, mixmin_weights
from cuvee.mixing.projektor import ProjektorMixer
from cuvee.mixing.quality_quantity import QualityQuantityMixer
from cuvee.mixing.transport import squared_distances, transport_costs

DOMAINS = ("books", "code", "web")
NATURAL = np.array([0.2, 0.2, 0.6])


def _table(w, losses, n_tokens=0, names=("loss",)) -> RunTable:
    tokens = np.broadcast_to(n_tokens, len(w))
    return RunTable(w, DOMAINS, losses, names, n_tokens=tokens, seed=np.arange(len(w)))


def _rms(a, b) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2)))


def test_implicit_domains_fit_a_metric_of_mixed_text_that_the_explicit_law_cannot():
    slopes, sizes = np.array([[-6.0, 0.0, 0.0], [0.0, -5.0, 0.5]]), np.array([1.0, 1.5])

    def true(w):
        return 1.5 + (np.exp(w @ slopes.T) @ sizes)[:, None]

    w, new = sample_design(NATURAL, 60, seed=0), sample_design(NATURAL, 100, seed=1)
    errors = {
        n: _rms(
            load_mixer("mixing_law", n_implicit=n, n_folds=2).fit(_table(w, true(w))).predict(new).mean,
            true(new),
        )
        for n in (1, 2)
    }
    spread = true(new).std()
    assert errors[1] > 0.03 * spread
    assert errors[2] < 0.2 * errors[1]


def test_the_gradient_of_implicit_domains_is_that_of_finite_differences():
    law, rng = load_mixer("mixing_law", n_implicit=3), np.random.default_rng(0)
    w, theta, direction = sample_design(NATURAL, 9), rng.standard_normal(12), rng.standard_normal(9)
    _, pullback = law.shape(theta, w)
    ends = [[law.shape(theta + s * 1e-6 * e, w)[0] @ direction for s in (1, -1)] for e in np.eye(12)]
    np.testing.assert_allclose(pullback(direction), [(a - b) / 2e-6 for a, b in ends], atol=1e-7)


def test_an_implicit_law_has_a_domain_at_least():
    with pytest.raises(ValueError, match="n_implicit is 0"):
        load_mixer("mixing_law", n_implicit=0)


def _sources(n_tokens: int = 40) -> np.ndarray:
    """What three models give each of 40 tokens: columns sum to one."""
    return np.random.default_rng(0).dirichlet(np.full(n_tokens, 0.3), 3).T


def test_mixmin_recovers_the_mixture_that_text_was_made_of():
    q, w = _sources(), np.array([0.5, 0.15, 0.35])
    # Text of shares q w has the least cross-entropy at w: Gibbs' inequality.
    np.testing.assert_allclose(mixmin_weights(q, q @ w), w, atol=1e-3)


def test_mixmin_under_caps_is_the_constrained_optimum():
    q, upper = _sources(), np.array([0.3, 1.0, 1.0])
    shares = q @ np.array([0.5, 0.15, 0.35])
    found = mixmin_weights(q, shares, upper)
    reference = minimize(
        lambda w: -shares @ np.log(q @ w),
        NATURAL,
        bounds=[(1e-9, u) for u in upper],
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        method="SLSQP",
        options={"ftol": 1e-12},
    )
    np.testing.assert_allclose(found, reference.x, atol=2e-3)
    assert found[0] <= 0.3 + 1e-9


def test_mixmin_on_runs_recovers_its_surface_and_recommend_its_optimum():
    q, target = _sources(), np.array([0.5, 0.15, 0.35])
    shares = q @ target
    w, new = sample_design(NATURAL, 20, seed=0), sample_design(NATURAL, 50, seed=1)

    def true(mixtures):
        return (0.3 - np.log(mixtures @ q.T) @ shares)[:, None]

    mixer = MixMinMixer(
        probabilities={"loss": dict(zip(DOMAINS, q.T, strict=True))}, shares={"loss": shares}
    ).fit(_table(w, true(w)))
    np.testing.assert_allclose(mixer.predict(new).mean, true(new), atol=1e-9)
    found = recommend(mixer, NATURAL, trust_region=5.0)
    np.testing.assert_allclose(list(found.candidate.values()), target, atol=0.02)


def test_mixmin_says_which_probabilities_it_lacks():
    w = sample_design(NATURAL, 9)
    with pytest.raises(ValueError, match=r"probabilities of metric 'loss' lack domain 'books'"):
        MixMinMixer().fit(_table(w, w[:, :1]))
    with pytest.raises(ValueError, match=r"probabilities of metric 'loss' lack domain 'code'"):
        MixMinMixer(probabilities={"loss": {"books": np.ones(5)}}).fit(_table(w, w[:, :1]))
    with pytest.raises(ValueError, match="no domain's model gives token 1"):
        mixmin_weights(np.array([[1.0, 0.5], [0.0, 0.0]]))


AVAILABLE = {"books": 2e5, "code": 5e5}
UTILITY, HALF_LIFE = np.array([0.35, 0.10, 0.05]), np.array([2.0, 6.0, 10.0])


def _quality_quantity(w: np.ndarray, n_tokens: np.ndarray) -> np.ndarray:
    """The law, epoch by epoch, run by run."""
    losses = []
    for row, n in zip(w, n_tokens, strict=True):
        log_factor = 0.0
        for k, name in enumerate(DOMAINS):
            length = AVAILABLE.get(name, np.inf) / max(row[k], 1e-300)
            log_factor -= row[k] * UTILITY[k] * np.log(min(n, length))
            j = 1
            while j * length < n:
                decay = 0.5 ** (j * row[k] / HALF_LIFE[k])
                log_factor -= row[k] * UTILITY[k] * decay * np.log(min(n, (j + 1) * length) / (j * length))
                j += 1
        losses.append(1.0 + 8.0 * np.exp(log_factor))
    return np.array(losses)[:, None]


def test_quality_quantity_recovers_its_law_and_predicts_more_repetition():
    w = np.tile(sample_design(NATURAL, 40, seed=0), (3, 1))
    n_tokens = np.repeat([1e6, 2e6, 4e6], 40).astype(np.int64)
    mixer = QualityQuantityMixer(available_tokens=AVAILABLE, n_folds=2, n_starts=2, l2=1e-8)
    mixer.fit(_table(w, _quality_quantity(w, n_tokens), n_tokens))
    new = sample_design(NATURAL, 50, seed=1)
    expected = _quality_quantity(new, np.full(50, 8e6))
    found = mixer.predict(new, Fidelity(0, 8_000_000)).mean
    assert _rms(found, expected) < 0.02 * expected.std()
    # Never having heard of repetition, the same law misses by much more.
    blind = QualityQuantityMixer(n_folds=2, n_starts=2, l2=1e-8).fit(mixer.runs)
    assert _rms(blind.predict(new, Fidelity(0, 8_000_000)).mean, expected) > 5 * _rms(found, expected)


def test_a_domains_utility_halves_after_its_half_life():
    mixer = QualityQuantityMixer(available_tokens={"books": 1000.0}, n_folds=2, n_starts=1)
    mixer.fit(_table(sample_design(NATURAL, 9), sample_design(NATURAL, 9)[:, :1], 1000))
    w, half_life = np.array([[1.0, 0.0, 0.0]]), np.array([1.0, 1.0, 1.0])
    growth = [mixer._growth(w, np.log([n]), half_life)[0][0, 0] for n in (1000.0, 2000.0, 3000.0)]
    # Weight 1, half-life 1 epoch: the second epoch counts half, the third a quarter.
    np.testing.assert_allclose(growth[1] - growth[0], 0.5 * np.log(2))
    np.testing.assert_allclose(growth[2] - growth[1], 0.25 * np.log(1.5))


def test_the_gradient_of_quality_quantity_is_that_of_finite_differences():
    mixer = QualityQuantityMixer(available_tokens=AVAILABLE, n_folds=2, n_starts=1)
    mixer.fit(_table(sample_design(NATURAL, 9), sample_design(NATURAL, 9)[:, :1], 4_000_000))
    x = mixer.inputs(sample_design(NATURAL, 9), np.full(9, 4e6))
    rng = np.random.default_rng(0)
    theta, direction = 0.5 * rng.standard_normal(6), rng.standard_normal(9)
    _, pullback = mixer.shape(theta, x)
    ends = [[mixer.shape(theta + s * 1e-6 * e, x)[0] @ direction for s in (1, -1)] for e in np.eye(6)]
    np.testing.assert_allclose(pullback(direction), [(a - b) / 2e-6 for a, b in ends], atol=1e-7)


def test_quality_quantity_refuses_a_domain_it_does_not_know():
    w = sample_design(NATURAL, 9)
    with pytest.raises(ValueError, match="available_tokens names 'wiki'"):
        QualityQuantityMixer(available_tokens={"wiki": 1.0}).fit(_table(w, w[:, :1]))


def _exact_transport(cost: np.ndarray, masses: np.ndarray) -> float:
    n, m = cost.shape
    rows = np.kron(np.eye(n), np.ones(m))
    columns = np.kron(np.ones(n), np.eye(m))
    ends = np.concatenate([masses, np.full(m, 1 / m)])
    return float(linprog(cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=ends).fun)


def test_transport_is_above_the_linear_programmes_by_at_most_its_entropy():
    rng = np.random.default_rng(0)
    cost = squared_distances(rng.standard_normal((7, 3)), rng.standard_normal((5, 3)))
    masses = np.vstack([rng.dirichlet(np.ones(7), 3), np.eye(7)[:1]])
    found = transport_costs(cost, masses)
    exact = [_exact_transport(cost, row) for row in masses]
    assert np.all(found >= np.array(exact) - 1e-6)
    assert np.all(found <= np.array(exact) + 0.05 * np.median(cost) * np.log(5) + 1e-6)


def test_squared_distances_are_those_of_the_definition():
    a, b = np.random.default_rng(0).standard_normal((2, 4, 3))
    np.testing.assert_allclose(squared_distances(a, b), ((a[:, None] - b) ** 2).sum(axis=2), atol=1e-12)


def _clouds() -> tuple[dict, dict]:
    rng = np.random.default_rng(1)
    vectors = {name: 2 * np.eye(3)[i] + 0.3 * rng.standard_normal((8, 3)) for i, name in enumerate(DOMAINS)}
    return vectors, {"loss": np.array([1.0, 1.0, 0.0]) + 0.3 * rng.standard_normal((12, 3))}


def test_projektor_recovers_a_pseudo_quadratic_of_the_transport_cost_and_projects_it():
    vectors, validation = _clouds()
    cost = squared_distances(np.concatenate([vectors[name] for name in DOMAINS]), validation["loss"])

    def true(w, n_tokens):
        transport = transport_costs(cost, np.repeat(w / 8, 8, axis=1))
        at_1000 = transport * (0.4 + w @ [0.2, -0.1, 0.3]) + (w * w) @ [0.5, 0.2, 0.1] + 2
        at_2000 = 0.8 * at_1000 + 0.1 * w[:, 0]
        share = np.log2(n_tokens / 1000)
        return ((1 - share) * at_1000 + share * at_2000)[:, None]

    w = np.tile(sample_design(NATURAL, 40, seed=0), (2, 1))
    n_tokens = np.repeat([1000, 2000], 40)
    losses = np.vstack([true(w[:40], 1000), true(w[40:], 2000)])
    mixer = ProjektorMixer(vectors=vectors, validation=validation).fit(_table(w, losses, n_tokens))
    new = sample_design(NATURAL, 30, seed=1)
    for n in (1000, 2000, 4000):
        expected = true(new, n)
        assert _rms(mixer.predict(new, Fidelity(0, n)).mean, expected) < 0.02 * expected.std()


def test_projektor_says_which_vectors_it_lacks():
    vectors, validation = _clouds()
    w = sample_design(NATURAL, 9)
    with pytest.raises(ValueError, match="projektor: vectors has no 'books'"):
        ProjektorMixer(validation=validation).fit(_table(w, w[:, :1]))
    with pytest.raises(ValueError, match="projektor: validation has no 'loss'"):
        ProjektorMixer(vectors=vectors).fit(_table(w, w[:, :1]))


def test_a_trend_is_what_a_process_falls_back_to_far_from_its_runs():
    def trend(w):
        return -np.log(w[:, :1] + 0.02) - 0.5 * np.log(w[:, 1:2] + 0.02)

    def true(w):
        return trend(w) + 0.1 * w[:, 2:] + 0.5

    w = sample_design(NATURAL, 10, seed=0, strengths=(50.0, 100.0))  # all near the natural mixture
    far = sample_design(NATURAL, 100, seed=1)
    plain = load_mixer("gaussian_process").fit(_table(w, true(w)))
    trended = load_mixer("gaussian_process", trend=trend).fit(_table(w, true(w)))
    errors = [_rms(mixer.predict(far).mean, true(far)) for mixer in (plain, trended)]
    assert errors[1] < 0.3 * errors[0]
    assert 0.9 < trended.slopes["loss"] < 1.2
    draws = trended.draw_surfaces(64, seed=0)(far)
    np.testing.assert_allclose(draws.mean(axis=0), trended.predict(far).mean, atol=0.1)
    assert _rms(trended.leave_one_out().mean, true(w)) < 0.05


def test_a_trend_of_another_shape_is_refused():
    w = sample_design(NATURAL, 9)
    with pytest.raises(ValueError, match=r"the trend gave shape \(9, 3\), expected \(9, 1\)"):
        load_mixer("power_law", trend=lambda w: w).fit(_table(w, w[:, :1]))

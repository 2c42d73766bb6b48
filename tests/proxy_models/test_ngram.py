"""The n-gram proxy against a plain bigram model, and what must hold for any text."""

import math
from collections import Counter

import numpy as np
import pytest

from cuvee.proxy_models.ngram import BACKOFF_TOKENS, UNIGRAM_SMOOTHING, NgramProxy

VOCAB_SIZE = 12


def _texts(seed: int, n_domains: int = 3, n_tokens: int = 400) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(VOCAB_SIZE, 0.3), n_domains)
    return [rng.choice(VOCAB_SIZE, n_tokens, p=p).astype(np.uint16) for p in shares]


def _mixed_counts_loss(train: list, validation: np.ndarray, weights: list[float], n_tokens: float) -> float:
    """A bigram model from dictionaries of literally mixed counts, held-out pair by held-out pair."""
    pairs: Counter = Counter()
    first: Counter = Counter()
    for tokens, weight in zip(train, weights, strict=True):
        for a, b in zip(tokens[:-1].tolist(), tokens[1:].tolist(), strict=True):
            pairs[a, b] += weight * n_tokens / (len(tokens) - 1)
            first[a] += weight * n_tokens / (len(tokens) - 1)
    losses = []
    for a, b in zip(validation[:-1].tolist(), validation[1:].tolist(), strict=True):
        q = (first[b] + UNIGRAM_SMOOTHING) / (n_tokens + UNIGRAM_SMOOTHING * VOCAB_SIZE)
        losses.append(-math.log((pairs[a, b] + BACKOFF_TOKENS * q) / (first[a] + BACKOFF_TOKENS)))
    return float(np.mean(losses))


@pytest.mark.parametrize("n_tokens", [10.0, 1e3, 1e6])
def test_losses_equal_those_of_a_bigram_model_of_mixed_counts(n_tokens):
    train, validation = _texts(0), _texts(1)
    weights = [0.2, 0.5, 0.3]
    expected = [_mixed_counts_loss(train, held_out, weights, n_tokens) for held_out in validation]
    proxy = NgramProxy.fit(train, validation, VOCAB_SIZE)
    np.testing.assert_allclose(proxy.losses(np.array(weights), n_tokens), expected, rtol=1e-12)


def test_gradients_agree_with_finite_differences():
    proxy = NgramProxy.fit(_texts(0), _texts(1)[:2], VOCAB_SIZE)
    w, step = np.array([0.2, 0.5, 0.3]), 1e-6
    losses, gradients = proxy.losses_and_gradients(w, 1e3)
    ends = [proxy.losses(w + sign * step * np.eye(3), 1e3) for sign in (1, -1)]
    np.testing.assert_array_equal(losses, proxy.losses(w, 1e3))
    # Rounding: losses of order 1 with relative error 1e-16, divided by the step, times a margin of 100.
    np.testing.assert_allclose(gradients, ((ends[0] - ends[1]) / (2 * step)).T, atol=1e-8)


def test_permuting_training_domains_permutes_the_weights_meaning():
    train, validation, order = _texts(0), _texts(1), [2, 0, 1]
    w = np.random.default_rng(2).dirichlet(np.ones(3), 5)
    straight = NgramProxy.fit(train, validation, VOCAB_SIZE).losses(w, 1e4)
    permuted = NgramProxy.fit([train[i] for i in order], validation, VOCAB_SIZE).losses(w[:, order], 1e4)
    np.testing.assert_allclose(permuted, straight, rtol=1e-12)


def test_probabilities_of_all_next_tokens_sum_to_one():
    every_pair = np.array([[a, b] for a in range(VOCAB_SIZE) for b in range(VOCAB_SIZE)]).ravel()
    offsets = np.arange(0, every_pair.size + 1, 2)
    proxy = NgramProxy.fit(_texts(0), [every_pair], VOCAB_SIZE, validation_offsets=[offsets])
    _, numerator, denominator = proxy._loss(np.array([0.1, 0.6, 0.3]), 500.0)
    by_context = np.bincount(proxy.first, numerator / denominator)
    np.testing.assert_allclose(by_context, np.ones(VOCAB_SIZE), rtol=1e-12)


def test_losses_are_positive_and_own_text_helps_most():
    train = _texts(0)
    losses = NgramProxy.fit(train, train, VOCAB_SIZE).losses(np.eye(3), 1e6)
    assert (losses > 0).all()
    assert (losses.argmin(axis=0) == np.arange(3)).all()


def test_no_held_out_bigram_crosses_a_document_boundary():
    documents, offsets = np.array([1, 2, 3, 4, 5]), np.array([0, 2, 5])
    proxy = NgramProxy.fit(_texts(0), [documents], VOCAB_SIZE, validation_offsets=[offsets])
    assert sorted(zip(proxy.first.tolist(), proxy.second.tolist(), strict=True)) == [(1, 2), (3, 4), (4, 5)]


def test_the_sample_has_the_size_asked_for_and_its_shares_sum_to_one_per_domain():
    proxy = NgramProxy.fit(_texts(0), _texts(1), VOCAB_SIZE, n_validation_pairs=50, seed=3)
    np.testing.assert_allclose(np.add.reduceat(proxy.shares, proxy.starts), np.ones(3))
    assert np.allclose(proxy.shares * 50, np.round(proxy.shares * 50))


def test_a_token_id_outside_the_vocabulary_is_refused():
    with pytest.raises(ValueError, match=r"validation\[1\]: token ids from 0 to 12, allowed are 0 to 11"):
        NgramProxy.fit(_texts(0), [np.array([1, 2]), np.array([0, 12])], VOCAB_SIZE)


def test_a_domain_without_a_bigram_is_refused():
    with pytest.raises(ValueError, match=r"train\[0\]: 1 tokens hold no bigram"):
        NgramProxy.fit([np.array([1])], _texts(1), VOCAB_SIZE)

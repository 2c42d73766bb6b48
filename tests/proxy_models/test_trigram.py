"""The trigram proxy against counting the mixed corpus word by word, and its counts as a mergeable partial."""

from collections import Counter

import numpy as np
import pytest

from cuvee.proxy_models.trigram import HeldOutTrigrams, Smoothing, merged

VOCAB_SIZE = 12
WEIGHTS = np.array([0.2, 0.5, 0.3])


def _texts(seed: int, n_domains: int = 3, n_tokens: int = 400) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(VOCAB_SIZE, 0.3), n_domains)
    return [rng.choice(VOCAB_SIZE, n_tokens, p=p).astype(np.uint16) for p in shares]


def _proxy(train, validation, smoothing=Smoothing(), **options):  # noqa: B008
    held_out = HeldOutTrigrams.sample(validation, VOCAB_SIZE, **options)
    return held_out.finish([held_out.observe(tokens) for tokens in train], smoothing)


def _brute_force(train, validation, weights, n_tokens, smoothing) -> float:
    """Interpolated trigrams of literally mixed counts, from dictionaries, held-out trigram by trigram."""
    counts: list[Counter] = [Counter(), Counter(), Counter()]  # discounted n-grams of 1, 2, 3 tokens
    contexts: list[Counter] = [Counter(), Counter(), Counter()]
    taken: list[Counter] = [Counter(), Counter(), Counter()]
    for tokens, weight in zip(train, weights, strict=True):
        scale = weight * n_tokens / len(tokens)
        for n in (1, 2, 3):
            discount = smoothing.discount if n > 1 else 0.0
            of_domain = Counter(
                zip(*(tokens[i : len(tokens) - n + 1 + i].tolist() for i in range(n)), strict=True)
            )
            for ngram, count in of_domain.items():
                counts[n - 1][ngram] += scale * (count - discount)
                contexts[n - 1][ngram[:-1]] += scale * count
                taken[n - 1][ngram[:-1]] += scale * discount

    def p(ngram) -> float:
        n, context = len(ngram), ngram[:-1]
        if n == 1:
            kappa = smoothing.unigram_tokens
            return (counts[0][ngram] + kappa) / (n_tokens + kappa * VOCAB_SIZE)
        kappa = smoothing.bigram_tokens if n == 2 else smoothing.trigram_tokens
        back = (taken[n - 1][context] + kappa) * p(ngram[1:])
        return (counts[n - 1][ngram] + back) / (contexts[n - 1][context] + kappa)

    held_out = validation.tolist()
    return float(np.mean([-np.log(p(tuple(held_out[i : i + 3]))) for i in range(len(held_out) - 2)]))


@pytest.mark.parametrize("n_tokens", [10.0, 1e3, 1e6])
@pytest.mark.parametrize("discount", [0.0, 0.5])
def test_losses_equal_those_of_counting_the_mixed_corpus(n_tokens, discount):
    train, validation = _texts(0), _texts(1)
    smoothing = Smoothing(discount, 0.5, 20.0, 50.0)
    expected = [_brute_force(train, held_out, WEIGHTS, n_tokens, smoothing) for held_out in validation]
    found = _proxy(train, validation, smoothing).losses(WEIGHTS, n_tokens)
    # Without a discount nothing is estimated. With one, 12 continuations in 512 bits are off by 1 %, of .5.
    np.testing.assert_allclose(found, expected, rtol=1e-12 if discount == 0 else 5e-3)


def test_gradients_agree_with_finite_differences():
    proxy, step = _proxy(_texts(0), _texts(1)[:2]), 1e-6
    losses, gradients = proxy.losses_and_gradients(WEIGHTS, 1e3)
    ends = [proxy.losses(WEIGHTS + sign * step * np.eye(3), 1e3) for sign in (1, -1)]
    np.testing.assert_array_equal(losses, proxy.losses(WEIGHTS, 1e3))
    # Rounding: losses of order 1 with relative error 1e-16, divided by the step, times a margin of 100.
    np.testing.assert_allclose(gradients, ((ends[0] - ends[1]) / (2 * step)).T, atol=1e-8)


def test_probabilities_of_all_next_tokens_sum_to_one():
    every = np.array(
        [[a, b, c] for a in range(VOCAB_SIZE) for b in range(VOCAB_SIZE) for c in range(VOCAB_SIZE)]
    )
    offsets = np.arange(0, every.size + 1, 3)
    held_out = HeldOutTrigrams.sample([every.ravel()], VOCAB_SIZE, offsets=[offsets])
    counts = [held_out.observe(tokens) for tokens in _texts(0)]
    # Two continuations of a context that share a bit hide one: D N / n_tokens of the 100 or more that divide.
    hidden = 0.5 * 500.0 / 400 / 100
    for smoothing, tolerance in ((Smoothing(0.0), 1e-12), (Smoothing(0.5), hidden)):
        (probabilities,), _ = held_out.finish(counts, smoothing).token_probabilities(500.0)
        by_context = np.add.reduceat(probabilities, np.arange(0, len(every), VOCAB_SIZE))
        np.testing.assert_allclose(by_context, 1.0, rtol=tolerance)


def test_counts_do_not_depend_on_how_documents_are_parted_nor_on_the_order_of_merging():
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, VOCAB_SIZE, n) for n in (5, 1, 30, 0, 2, 17)]
    held_out = HeldOutTrigrams.sample(_texts(1), VOCAB_SIZE)
    offsets = np.cumsum([0, *map(len, documents)])
    whole = held_out.observe(np.concatenate(documents), offsets)
    parts = [held_out.observe(document) for document in documents]
    a, b, c = parts[0], parts[2], parts[5]
    for left, right in (
        (whole, merged(parts)),
        (whole, merged([*reversed(parts), held_out.nothing()])),
        (a.merge(b).merge(c), a.merge(b.merge(c))),
        (a.merge(b), b.merge(a)),
    ):
        for name, values in vars(left).items():
            np.testing.assert_array_equal(values, getattr(right, name), err_msg=name)
    assert whole.n_tokens == len(np.concatenate(documents))


def test_a_partial_is_no_larger_for_more_text():
    held_out = HeldOutTrigrams.sample(_texts(1), VOCAB_SIZE)
    sizes = {
        sum(values.nbytes for values in vars(held_out.observe(_texts(0, 1, n)[0])).values())
        for n in (10, 5000)
    }
    assert len(sizes) == 1


def test_permuting_training_domains_permutes_the_weights_meaning():
    train, validation, order = _texts(0), _texts(1), [2, 0, 1]
    w = np.random.default_rng(2).dirichlet(np.ones(3), 5)
    straight = _proxy(train, validation).losses(w, 1e4)
    permuted = _proxy([train[i] for i in order], validation).losses(w[:, order], 1e4)
    np.testing.assert_allclose(permuted, straight, rtol=1e-12)


def test_own_text_helps_most_and_more_tokens_help():
    train = _texts(0)
    proxy = _proxy(train, train)
    losses = proxy.losses(np.eye(3), 1e6)
    assert (losses.argmin(axis=0) == np.arange(3)).all()
    by_tokens = [np.diag(proxy.losses(np.eye(3), n)).mean() for n in (1e2, 1e4, 1e6)]
    assert by_tokens == sorted(by_tokens, reverse=True)


def test_what_cannot_be_counted_is_refused():
    held_out = HeldOutTrigrams.sample(_texts(1), VOCAB_SIZE)
    with pytest.raises(ValueError, match="train: token ids from 1 to 12, allowed are 0 to 11"):
        held_out.observe(np.array([1, 12]))
    with pytest.raises(ValueError, match="train: offsets must rise from 0 to the number of tokens, 2"):
        held_out.observe(np.array([1, 2]), np.array([0, 3]))
    with pytest.raises(ValueError, match=r"validation\[0\]: no document has three tokens"):
        HeldOutTrigrams.sample([np.array([1, 2])], VOCAB_SIZE)
    with pytest.raises(ValueError, match=r"train\[1\]: no tokens were counted"):
        held_out.finish([held_out.observe(_texts(0)[0]), held_out.nothing()])
    with pytest.raises(ValueError, match="the discount is from 0 to 1"):
        Smoothing(discount=1.5)
    with pytest.raises(ValueError, match="n-grams of at most 2,097,152"):
        HeldOutTrigrams.sample(_texts(1), 1 << 22)

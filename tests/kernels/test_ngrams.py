"""Counts of held-out n-grams and the losses of mixtures: as by dictionaries and dense matrices."""

import hypothesis.strategies as st
import numpy as np
from hypothesis import given, settings

from cuvee.kernels.ngram_counts import count_ngrams, count_ngrams_reference, n_continuations, ngram_keys
from cuvee.kernels.ngram_mixture import (
    BackOff,
    TrigramTables,
    mixture_gradients,
    mixture_losses,
    mixture_losses_reference,
)

VOCAB_SIZE = 7


@given(
    documents=st.lists(st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=12), max_size=5),
    asked=st.lists(st.integers(0, VOCAB_SIZE**3 - 1), max_size=20, unique=True),
    n=st.integers(2, 3),
)
@settings(max_examples=60, deadline=None)
def test_counts_are_those_of_the_reference(documents, asked, n):
    tokens = np.array([token for document in documents for token in document], np.uint32)
    offsets = np.cumsum([0, *map(len, documents)])
    ngrams = np.unique(np.array(asked, np.uint64) % np.uint64(VOCAB_SIZE**n))
    contexts = np.unique(ngrams // np.uint64(VOCAB_SIZE))
    counts, after, bits = count_ngrams(tokens, offsets, n, VOCAB_SIZE, contexts, ngrams)
    expected, expected_after, follow = count_ngrams_reference(
        tokens, offsets, n, VOCAB_SIZE, contexts, ngrams
    )
    np.testing.assert_array_equal(counts, expected)
    np.testing.assert_array_equal(after, expected_after)
    kinds = np.array([len(follow[int(key)]) for key in contexts])
    # At most 7 tokens in 512 bits: two of them share a bit once in 25 contexts, which then shows one too few.
    assert np.all(np.round(n_continuations(bits)) <= kinds)
    assert np.all(np.round(n_continuations(bits)) >= np.maximum(kinds - 1, np.minimum(kinds, 1)))


def test_keys_are_digits_in_base_of_the_vocabulary():
    tokens = np.array([1, 2, 3, 4], np.uint16)
    assert ngram_keys(tokens, np.array([2, 3]), 3, 10).tolist() == [123, 234]


def test_the_sketch_estimates_continuations_within_its_standard_error():
    n_contexts = 200
    for t in (5, 50, 400, 1000):
        # Each context is followed by t different tokens, once each.
        documents = np.array([[c, 200 + k] for c in range(n_contexts) for k in range(t)], np.uint32)
        contexts = np.arange(n_contexts, dtype=np.uint64)
        offsets = np.arange(0, documents.size + 1, 2)
        _, _, bits = count_ngrams(documents.ravel(), offsets, 2, 1200, contexts, np.zeros(0, np.uint64))
        found, load = n_continuations(bits), t / 512
        error = np.sqrt(512 * (np.exp(load) - load - 1))
        # 5 standard errors of a mean over contexts; its bias is (exp(load) - load - 1) / 2 (Whang et al.).
        bias = (np.exp(load) - load - 1) / 2
        assert abs(found.mean() - t - bias) < 5 * error / np.sqrt(n_contexts)
        assert found.std() < 1.3 * error + 0.1


def _random_tables(random: np.random.Generator, k: int, n_domains: int, rows: int) -> TrigramTables:
    """Counts that no text need have: contexts hold at least what their n-grams do."""

    def counted(n: int, low: int) -> np.ndarray:
        present = random.random((k, n)) < 0.6
        return np.where(present, random.integers(low, low + 50, (k, n)), 0).astype(np.int32)

    def kinds_of(counts: np.ndarray) -> np.ndarray:
        return np.where(counts > 0, random.integers(1, 62, counts.shape), 0).astype(np.float32)

    def some(n: int, of: int) -> np.ndarray:
        return random.integers(0, of, n).astype(np.int32)

    n = n_domains * rows
    contexts, tokens = counted(n, 60), counted(rows, 60)
    return TrigramTables(
        random.integers(100, 1000, k).astype(float),
        random.dirichlet(np.ones(VOCAB_SIZE), k).T.copy(),
        counted(n, 1),
        contexts,
        kinds_of(contexts),
        counted(rows + 1, 1),
        tokens,
        kinds_of(tokens),
        some(n, n),
        some(n, rows + 1),
        random.integers(1, 3, n) / rows,
        some(rows + 1, rows),
        some(rows + 1, VOCAB_SIZE),
        np.arange(n_domains + 1) * rows,
    )


@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.integers(1, 5),
    n_domains=st.integers(1, 3),
    rows=st.integers(1, 6),
    discount=st.sampled_from([0.0, 0.5, 1.0]),
)
@settings(max_examples=40, deadline=None)
def test_losses_are_those_of_the_reference_and_gradients_of_finite_differences(
    seed, k, n_domains, rows, discount
):
    random = np.random.default_rng(seed)
    tables, back_off = _random_tables(random, k, n_domains, rows), BackOff(discount, 0.5, 3.0, 20.0)
    w, n_tokens, step = random.dirichlet(np.ones(k), 2), 300.0, 1e-6
    losses = mixture_losses(tables, w, n_tokens, back_off)
    np.testing.assert_allclose(losses, mixture_losses_reference(tables, w, n_tokens, back_off), rtol=1e-12)
    same, gradients = mixture_gradients(tables, w, n_tokens, back_off)
    np.testing.assert_array_equal(same, losses)
    for domain in range(k):
        moved = step * np.eye(k)[domain]
        ends = [mixture_losses(tables, w + sign * moved, n_tokens, back_off) for sign in (1, -1)]
        # Rounding of losses of order 10 over the step, and the third derivative times its square.
        np.testing.assert_allclose(
            gradients[:, :, domain], (ends[0] - ends[1]) / (2 * step), atol=1e-6, rtol=1e-5
        )


def test_no_mixture_and_no_rows_are_well_formed():
    tables = _random_tables(np.random.default_rng(0), 3, 2, 4)
    assert mixture_losses(tables, np.zeros((0, 3)), 10.0, BackOff(0.5, 0.5, 1, 1)).shape == (0, 2)

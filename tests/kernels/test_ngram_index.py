import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.kernels.ngram_index import (
    find_ngrams,
    find_ngrams_reference,
    ngram_hashes,
    ngram_hashes_at,
    ngram_hashes_reference,
)
from cuvee.kernels.shingles import word_hashes, word_hashes_reference, word_spans

# Few different words, so that n-grams repeat within documents and between them.
CORPORA = st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=6)


def _corpus(docs: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    words = np.array([word * 0x9E3779B97F4A7C15 % 2**64 for doc in docs for word in doc], np.uint64)
    return words, np.cumsum([0, *map(len, docs)], dtype=np.int64)


@given(docs=CORPORA, n=st.integers(1, 5))
def test_ngram_hashes_are_those_of_the_reference(docs, n):
    for found, expected in zip(
        ngram_hashes(*_corpus(docs), n), ngram_hashes_reference(*_corpus(docs), n), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@given(docs=CORPORA, known=CORPORA, n=st.integers(1, 5))
def test_the_ngrams_found_are_those_of_the_reference(docs, known, n):
    keys = np.unique(ngram_hashes(*_corpus(known), n)[0])
    found, expected = find_ngrams(*_corpus(docs), n, keys), find_ngrams_reference(*_corpus(docs), n, keys)
    for column, expected_column in zip(found, expected, strict=True):
        np.testing.assert_array_equal(column, expected_column)


@given(docs=CORPORA, n=st.integers(1, 5))
def test_a_hash_at_a_position_is_the_one_found_by_rolling(docs, n):
    words, offsets = _corpus(docs)
    hashes, starts = ngram_hashes(words, offsets, n)
    positions = np.concatenate(
        [[0], *(offsets[d] + np.arange(starts[d + 1] - starts[d]) for d in range(len(docs)))]
    ).astype(np.int64)[1:]
    np.testing.assert_array_equal(ngram_hashes_at(words, positions, n), hashes)


@pytest.mark.parametrize("n_keys", [1, 1000, 100_000])
def test_many_keys_and_many_hits_are_found(n_keys):
    words = np.random.default_rng(0).integers(0, 2**64, n_keys + 2, np.uint64)
    keys = np.unique(ngram_hashes(words, np.array([0, len(words)]), 3)[0])
    positions, which = find_ngrams(words, np.array([0, len(words)]), 3, keys)
    np.testing.assert_array_equal(positions, np.arange(n_keys))
    assert len(np.unique(which)) == n_keys


@given(text=st.text())
def test_the_spans_of_words_are_as_many_as_their_hashes(text):
    data = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
    offsets = np.array([0, len(data)])
    assert len(word_spans(text.encode("utf-8", "replace").decode())) == len(word_hashes(data, offsets)[0])
    np.testing.assert_array_equal(word_hashes(data, offsets)[0], word_hashes_reference(data, offsets)[0])

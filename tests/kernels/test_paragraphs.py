"""Words, n-grams and the rule of repetition agree with their references."""

from itertools import accumulate

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from cuvee.kernels.paragraphs import (
    paragraph_ngrams,
    paragraph_ngrams_reference,
    repeating_paragraphs,
    repeating_paragraphs_reference,
    uax29_words_reference,
)

JOINTS = st.text(st.sampled_from("ab1２_é\u0301'.:,;·’ \n東ไม้😀\u200d-"), max_size=25)


def _column(texts):
    encoded = [text.encode() for text in texts]
    data = np.frombuffer(b"".join(encoded), np.uint8)
    return data, np.array([*accumulate(map(len, encoded), initial=0)], np.int64)


def _agree(column, n, min_words):
    found = paragraph_ngrams(*column, n, min_words)
    for ours, expected in zip(found, paragraph_ngrams_reference(*column, n, min_words), strict=True):
        np.testing.assert_array_equal(ours, expected)


@given(data=st.data(), n=st.integers(1, 4), min_words=st.integers(1, 4))
def test_kernel_and_reference_agree_bit_for_bit(data, documents, n, min_words):
    _agree(data.draw(documents), n, min_words)


@given(texts=st.lists(JOINTS, max_size=4), n=st.integers(1, 3))
def test_words_are_joined_where_the_reference_joins_them(texts, n):
    _agree(_column(texts), n, 1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("can't won’t", ["can't", "won’t"]),
        ("a.b.c. 1,234.5; 1:2 a:b", ["a.b.c", ".", "1,234.5", ";", "1", ":", "2", "a:b"]),
        ("'a' x, y", ["'", "a", "'", "x", ",", "y"]),
        ("snake_case a1 1a", ["snake_case", "a1", "1a"]),
        ("東京タ ไม้", ["東", "京", "タ", "ไ", "ม้"]),
        ("e\u0301te\u0301 ✈\ufe0f!!", ["e\u0301te\u0301", "✈\ufe0f", "!", "!"]),
    ],
)
def test_words_are_cut_as_unicode_says(text, words):
    assert uax29_words_reference(text) == words


def test_each_line_is_a_paragraph_and_short_ones_have_no_ngram():
    found = paragraph_ngrams(*_column(["a b c\n\nd e", "", "\n", "f g h i"]), n=3, min_words=3)
    assert found.offsets.tolist() == [0, 3, 3, 4, 5]
    assert np.diff(found.ngram_offsets).tolist() == [1, 0, 0, 0, 2]


def test_a_short_paragraph_may_be_one_ngram():
    found = paragraph_ngrams(*_column(["a b\nc\na b\nb a"]), n=5, min_words=2)
    assert np.diff(found.ngram_offsets).tolist() == [1, 0, 1, 1]
    assert found.ngrams[0] == found.ngrams[1] != found.ngrams[2]


@pytest.mark.parametrize(("n", "min_words"), [(0, 1), (3, 0)])
def test_an_ngram_of_no_words_is_refused(n, min_words):
    with pytest.raises(ValueError, match="at least 1 word"):
        paragraph_ngrams(*_column(["a"]), n, min_words)


@st.composite
def corpora(draw):
    """Documents of paragraphs of groups of n-grams, with n-grams beside those that occur elsewhere."""
    paragraph = st.tuples(
        st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3)), max_size=4), st.integers(0, 3)
    )
    documents = draw(st.lists(st.tuples(st.lists(paragraph, max_size=4), st.integers(0, 3)), max_size=5))
    paragraphs = [paragraph for document, _ in documents for paragraph in document]
    occurrences = [occurrence for groups, _ in paragraphs for occurrence in groups]
    sizes = [sum(count for _, count in groups) + more for groups, more in paragraphs]
    paragraph_sizes = iter(sizes)
    document_sizes = [sum(next(paragraph_sizes) for _ in document) + more for document, more in documents]
    columns = (
        np.cumsum([0, *(len(document) for document, _ in documents)]),
        document_sizes,
        np.cumsum([0, *(len(groups) for groups, _ in paragraphs)]),
        sizes,
        [group for group, _ in occurrences],
        [count for _, count in occurrences],
    )
    return tuple(np.array(column, np.int64) for column in columns)


@given(corpus=corpora(), threshold=st.sampled_from([0.0, 0.5, 0.8, 1.0]))
def test_the_rule_of_repetition_agrees_with_sets(corpus, threshold):
    found = repeating_paragraphs(*corpus, threshold)
    for ours, expected in zip(found, repeating_paragraphs_reference(*corpus, threshold), strict=True):
        np.testing.assert_array_equal(ours, expected)

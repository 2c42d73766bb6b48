"""The rule of repeated paragraphs, against a re-statement with sets, and what is done with them."""

import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import given
from pydantic import ValidationError

from cuvee.kernels.paragraphs import uax29_words_reference
from cuvee.operators.paragraph_dedup import ParagraphDedup

LINE = "the cellar master tastes each vat in spring and writes down what it has"  # 14 words
OTHER = "a blend is composed from many of them and none is as good alone"  # 14 words
ONE_WORD_ELSE = LINE.replace("tastes", "drinks")
TEXTS = st.lists(
    st.lists(st.lists(st.sampled_from("abcd"), max_size=6).map(" ".join), max_size=5).map("\n".join),
    max_size=6,
)


def _documents(texts):
    return pa.table(
        {"id": [f"doc-{i}" for i in range(len(texts))], "text": pa.array(texts, pa.large_string())}
    )


def _expected(texts, ngram, min_words, threshold):
    """(text, dropped) of each document: n-grams as tuples of words in one set, document after document."""
    seen, outcome = set(), []
    for text in texts:
        before, left, n_ngrams, n_contained = set(seen), [], 0, 0
        for line in text.splitlines(keepends=True):
            words = uax29_words_reference(line)
            ngrams = [tuple(words[i : i + ngram]) for i in range(len(words) - ngram + 1)]
            ngrams = ngrams or [tuple(words)] * (len(words) >= min_words)
            contained = [words for words in ngrams if words in seen]
            n_ngrams, n_contained = n_ngrams + len(ngrams), n_contained + len(contained)
            if not contained or len(contained) / len(ngrams) <= threshold:
                left.append(line)
                seen |= set(ngrams)
        dropped = n_contained > 0 and n_contained / n_ngrams > threshold
        seen = before if dropped else seen
        outcome.append((text if dropped else "".join(left), dropped))
    return outcome


@given(
    texts=TEXTS,
    ngram=st.integers(1, 3),
    min_words=st.integers(1, 3),
    threshold=st.sampled_from([0.0, 0.4, 0.8, 1.0]),
)
def test_any_sharding_and_order_gives_what_one_pass_with_a_set_gives(
    texts, ngram, min_words, threshold, check_operator
):
    operator = ParagraphDedup(ngram=ngram, min_words=min_words, threshold=threshold)
    result = check_operator(operator, _documents(texts))
    dropped = [reason is not None for reason in result["reason"].to_pylist()]
    assert list(zip(result["text"].to_pylist(), dropped, strict=True)) == _expected(
        texts, ngram, min_words, threshold
    )


def test_it_keeps_the_contract_of_an_operator(documents, check_operator):
    check_operator(ParagraphDedup(), documents)
    check_operator(ParagraphDedup(ngram=None, min_words=1), documents)


def test_a_paragraph_said_before_goes_and_is_counted(check_operator):
    texts = [f"{LINE}\n{OTHER}", f"first of all\n{LINE}\n{OTHER} and more than that it is old wine from here"]
    result = check_operator(ParagraphDedup(), _documents(texts))
    assert result["text"].to_pylist() == [texts[0], texts[1].replace(f"{LINE}\n", "")]
    assert result["paragraph_dedup.n_duplicate_paragraphs"].to_pylist() == [0, 1]
    assert result["paragraph_dedup.spans"].to_pylist() == [[], [13, 13 + len(LINE) + 1]]
    # 2 n-grams of the first line and 2 of the second's 12 are old: 4 of 14.
    assert result["paragraph_dedup.fraction_contained"].to_pylist() == [0, 4 / 14]


def test_a_document_that_says_little_else_goes_whole_with_its_text(check_operator):
    texts = [LINE, f"short\n{LINE}", LINE]
    result = check_operator(ParagraphDedup(), _documents(texts))
    assert result["reason"].to_pylist() == [None, "repeated_paragraphs", "repeated_paragraphs"]
    assert result["text"].to_pylist() == texts


def test_what_only_a_dropped_document_said_does_not_count_as_seen(check_operator):
    # The second document has 12 new n-grams of 62, less than a fifth, and goes; the third repeats those 12.
    old = "\n".join(f"{LINE} {i} {i} {i}" for i in range(10))
    new = " ".join(f"new{i}" for i in range(24))
    result = check_operator(ParagraphDedup(), _documents([old, f"{old}\n{new}", new]))
    assert result["reason"].to_pylist() == [None, "repeated_paragraphs", None]
    assert result["text"][2].as_py() == new


def test_a_near_repetition_goes_if_enough_of_it_is_old(check_operator):
    texts = [LINE, f"{OTHER}\n{ONE_WORD_ELSE}"]
    strict = check_operator(ParagraphDedup(ngram=3, min_words=3), _documents(texts))
    # 3 of the 12 trigrams hold the other word: three quarters are old.
    assert strict["text"].to_pylist() == texts
    lax = check_operator(ParagraphDedup(ngram=3, min_words=3, threshold=0.7), _documents(texts))
    assert lax["text"].to_pylist() == [LINE, f"{OTHER}\n"]


def test_whole_paragraphs_may_be_compared_however_short(check_operator):
    texts = ["Menu\nHome\nSomething else", "Home\nMenu \nNew on this page\nAnd more"]
    result = check_operator(ParagraphDedup(ngram=None, min_words=1), _documents(texts))
    assert result["text"].to_pylist() == [texts[0], "New on this page\nAnd more"]


@pytest.mark.parametrize("wrong", [{"ngram": 0}, {"min_words": 0}, {"threshold": 1.5}, {"n": 13}])
def test_a_wrong_parameter_is_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ParagraphDedup(**wrong)

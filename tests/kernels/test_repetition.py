import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from cuvee.kernels.pieces import Cut, pieces, pieces_reference
from cuvee.kernels.repetition import ngram_repetition, ngram_repetition_reference
from cuvee.kernels.words import words

CUTS = [
    Cut(1),
    Cut(1, greedy=True),
    Cut(2, greedy=True, strip_text=True),
    Cut(1, skip_blank=True),
    Cut(2, strip_pieces=True, skip_blank=True),
]
# Few words, some of them the beginning of others: n-grams that are the same only when joined.
TEXT = st.lists(st.sampled_from(["a", "ab", "b", "ba", "to", "the", "words", "東京", "é"]), max_size=60).map(
    " ".join
)
LINES = st.lists(
    st.sampled_from(["a", "a ", " b", "", " ", "\t", "end.", "末。", "\u2028", "long" * 9]), max_size=20
)


def _column(texts):
    encoded = [text.encode() for text in texts]
    return np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([0, *map(len, encoded)], dtype=np.int64)


@pytest.mark.parametrize("counting", ["later", "all"])
@given(texts=st.lists(TEXT, max_size=3))
def test_kernel_and_reference_agree_on_repeated_ngrams(counting, texts):
    data, offsets = _column(texts)
    found = words(data, offsets, "whitespace")
    expected = ngram_repetition_reference(data, found, counting)
    for a, b in zip(ngram_repetition(data, found, counting), expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("counting", ["later", "all"])
@pytest.mark.parametrize(
    "text",
    [
        "a b " * 400 + "c d " * 300,  # more often than a cell can count, and the second most frequent too
        " ".join(f"w{i * i % 997}" for i in range(4_000)),  # many n-grams come equally often, few very often
        " ".join(f"w{i}" for i in range(3_000))
        + " w7 w8 w9 w7 w8 w9",  # cells are shared, n-grams rarely come again
    ],
)
def test_the_most_frequent_ngram_is_found_among_those_that_share_its_cell(counting, text):
    data, offsets = _column([text])
    found = words(data, offsets, "whitespace")
    expected = ngram_repetition_reference(data, found, counting)
    np.testing.assert_array_equal(ngram_repetition(data, found, counting)[0], expected[0])


@given(
    texts=st.lists(
        st.lists(
            st.sampled_from(["a", "ab", "ba", "b" * 7, "b" * 8, "a" * 16, "a" * 17, "ab" * 30, "é" * 9])
        ).map(lambda words: " ".join(words * 2)),
        max_size=3,
    ),
    counting=st.sampled_from(["later", "all"]),
)
def test_kernel_and_reference_agree_on_words_of_any_length(texts, counting):
    data, offsets = _column(texts)
    found = words(data, offsets, "whitespace")
    expected = ngram_repetition_reference(data, found, counting)
    np.testing.assert_array_equal(ngram_repetition(data, found, counting)[0], expected[0])


def test_ngrams_are_met_again_wherever_words_end_in_them():
    texts = ["alpha beta gamma delta epsilon zeta", "al phabeta gam madelta epsilon zeta", "one two"]
    data, offsets = _column([" ".join(texts)])
    found = words(data, offsets, "whitespace")
    later, _ = ngram_repetition(data, found, "later")
    np.testing.assert_array_equal(later, ngram_repetition_reference(data, found, "later")[0])
    assert later[0, 3] == len("alphabetagammadeltaepsilon")
    assert later[0, 4] == len("alphabetagammadeltaepsilonzeta")


def test_ngrams_that_differ_in_their_middle_alone_are_not_the_same():
    ngrams = [f"beginning alike but {word} at the very end" for word in ("differs", "changes", "differs")]
    data, offsets = _column([" ".join(ngrams), " ".join(ngrams[:2])])
    found = words(data, offsets, "whitespace")
    later, _ = ngram_repetition(data, found, "later")
    np.testing.assert_array_equal(later, ngram_repetition_reference(data, found, "later")[0])
    # The 8-grams from "beginning" on have the same ends and lengths.
    assert later[:, 6].tolist() == [len("beginningalikebutdiffersattheveryend"), 0]


@pytest.mark.parametrize("cut", CUTS)
@given(texts=st.lists(LINES.map("\n".join), max_size=3), short=st.integers(0, 5))
def test_kernel_and_reference_agree_on_pieces(cut, texts, short):
    column = _column(texts)
    expected = pieces_reference(*column, cut, short)
    for name, a, b in zip(expected._fields, pieces(*column, cut, short), expected, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("cut", CUTS)
@given(data=st.data())
def test_kernel_and_reference_agree_on_any_bytes(cut, data, documents):
    column = data.draw(documents)
    found, expected = pieces(*column, cut, 3), pieces_reference(*column, cut, 3)
    np.testing.assert_array_equal(found.n_pieces, expected.n_pieces)
    np.testing.assert_array_equal(found.n_characters, expected.n_characters)


def test_a_small_document_repeats_as_counted_by_hand():
    data, offsets = _column(["a b c d e a b c d e a b"])
    found = words(data, offsets, "whitespace")
    later, total = ngram_repetition(data, found, "later")
    # "a b" three times, with its space; "a b c" and "a b c d" twice. The walk over 5-grams meets abcde again
    # and jumps; of 6-grams abcdea comes again, of 7-grams abcdeab, of 8-grams none.
    assert later[0].tolist() == [3 * 3, 2 * 5, 2 * 7, 5, 6, 7, 0, 0, 0]
    everything, _ = ngram_repetition(data, found, "all")
    # Without spaces, and every word in any repeated n-gram: all twelve up to 7-grams (abcdeab, twice).
    assert everything[0].tolist() == [2 * 3, 3 * 2, 4 * 2, 12, 12, 12, 0, 0, 0]
    assert total.tolist() == [12]


def test_no_words_repeat_nothing():
    data, offsets = _column(["", "one"])
    found, total = ngram_repetition(data, words(data, offsets, "whitespace"), "later")
    assert not found.any()
    assert total.tolist() == [0, 3]


def test_lines_are_counted_by_their_second_occurrence_or_by_all():
    counts = pieces(*_column(["ab\ncd.\nab\n\nab"]), Cut(1, skip_blank=True), 2)
    assert {name: int(values[0]) for name, values in counts._asdict().items()} == {
        "n_pieces": 4,
        "n_characters": 9,
        "n_later": 2,
        "n_later_characters": 4,
        "n_repeated": 3,
        "n_repeated_characters": 6,
        "n_short": 3,
        "n_terminal": 1,
    }

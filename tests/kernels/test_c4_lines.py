import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from cuvee.kernels.c4_lines import LineRules, c4_lines, c4_lines_reference
from cuvee.kernels.gather_words import words_of_lines
from cuvee.kernels.sentences import sentences, sentences_reference
from cuvee.kernels.spans import copy_ranges
from cuvee.kernels.words import words

PARTS = (
    "This line is fine. |Here is [1] another[12].|[edit]|[citation needed]|[٣]|[x]|Lorem IPSUM dolor sit.|"
    "JavaScript is on.|use cookies now.|we use[1] cookies.|Terms of Use apply.|a { b.|so...|no end|one.|  |"
    "\u3000|\r|\x85|\u2028|é “yes.”|K.|" + "x" * 40
).split("|")
TEXT = st.lists(st.sampled_from(PARTS) | st.text(max_size=5), max_size=12).map("\n".join)
RULES = st.builds(LineRules, st.sampled_from([0, 30]), st.booleans(), st.booleans(), st.integers(0, 4))


def _column(texts):
    encoded = [text.encode("utf-8", "replace") for text in texts]
    return np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([0, *map(len, encoded)], dtype=np.int64)


@given(texts=st.lists(TEXT, max_size=3), rules=RULES, words_of_uax29=st.booleans())
def test_kernel_and_reference_keep_the_same_lines(texts, rules, words_of_uax29):
    column = _column(texts)
    word_starts = words(*column, "uax29").starts if words_of_uax29 else None
    data, offsets, _, counts = c4_lines(*column, rules, word_starts)
    expected_data, expected_offsets, _, expected = c4_lines_reference(*column, rules, word_starts)
    assert data.tobytes() == expected_data.tobytes()
    np.testing.assert_array_equal(offsets, expected_offsets)
    for name, a, b in zip(counts._fields, counts, expected, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("segmentation", ["whitespace", "english"])
@given(texts=st.lists(TEXT, max_size=3), rules=RULES)
def test_words_taken_from_the_text_that_came_are_those_of_the_lines_that_stay(segmentation, texts, rules):
    column = _column(texts)
    data, offsets, lines, _ = c4_lines(*column, rules)
    is_changed = lines.sources < 0
    changed = words(
        *copy_ranges(data, lines.starts[is_changed], (lines.ends - lines.starts)[is_changed]), segmentation
    )
    taken = words_of_lines(words(*column, segmentation), changed, *lines, offsets)
    for name, a, b in zip(taken._fields, taken, words(data, offsets, segmentation), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


@given(data=st.data(), rules=RULES)
def test_no_bytes_are_written_that_were_not_there(data, rules, documents):
    column = data.draw(documents)
    kept, offsets, _, counts = c4_lines(*column, rules)
    assert (np.diff(offsets) <= np.diff(column[1])).all()
    assert set(kept.tolist()) <= {*column[0].tolist(), ord("\n")}
    assert (counts.n_lines >= counts.n_long_word + counts.n_too_few_words).all()


@pytest.mark.parametrize("english", [False, True])
@given(
    texts=st.lists(
        st.lists(st.sampled_from(["One.", "two", "?", "  ", "\n", "“So!”", "Mr.", "...", "1.", "。"])).map(
            " ".join
        )
    )
)
def test_kernel_and_reference_count_the_same_sentences(english, texts):
    data, offsets = _column(texts)
    found = words(data, offsets, "english" if english else "whitespace")
    np.testing.assert_array_equal(sentences(data, found, english), sentences_reference(data, found, english))


@pytest.mark.parametrize(
    ("text", "plain", "english"),
    [
        ("One. Two! Three? “Four.” Five", 5, 5),
        ("one\ntwo\n\nthree", 3, 3),
        ("Mr. Smith slept.", 2, 1),  # only the tokenizer knows the abbreviation
        ("これは文です。次の文。", 1, 1),  # a phrase without spaces is one word
        ("", 0, 0),
    ],
)
def test_sentences_are_as_counted_by_hand(text, plain, english):
    data, offsets = _column([text])
    assert sentences(data, words(data, offsets, "whitespace"), english=False).tolist() == [plain]
    assert sentences(data, words(data, offsets, "english"), english=True).tolist() == [english]

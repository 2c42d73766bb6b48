import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from cuvee.kernels.text_statistics import (
    line_statistics,
    line_statistics_reference,
    n_characters,
    newlines,
    word_statistics,
    word_statistics_reference,
)
from cuvee.kernels.words import words

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with", "é", "Привет")
BULLETS = ("\u2022", "-")
DOTS = st.text(". .\n#…-•\r\x85a", max_size=30).map(str.encode)


def _column(*texts):
    encoded = [text if isinstance(text, bytes) else text.encode() for text in texts]
    return np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([0, *map(len, encoded)], dtype=np.int64)


@pytest.mark.parametrize("lines", ["universal", "stripped"])
@given(data=st.data())
def test_kernel_and_reference_agree_on_lines(lines, data, documents):
    column = data.draw(documents | st.lists(DOTS, max_size=3).map(lambda texts: _column(*texts)))
    found = line_statistics(*column, BULLETS, lines)
    expected = line_statistics_reference(*column, BULLETS, lines)
    for name, a, b in zip(found._fields, found, expected, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("fold_and_repeat", [False, True])
@given(data=st.data())
def test_kernel_and_reference_agree_on_words(fold_and_repeat, data, documents):
    text, offsets = data.draw(documents)
    found = words(text, offsets, "whitespace")
    counts = word_statistics(text, found, STOP_WORDS, fold_and_repeat)
    expected = word_statistics_reference(text, found, STOP_WORDS, fold_and_repeat)
    for name, a, b in zip(counts._fields, counts, expected, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_a_small_document_counts_as_by_hand():
    column = _column("The cat... and the dog\u2026 \r\n  \u2022 item #1\n\n-42 ....")
    # Lines: two with text, a blank one, the last. Words: The cat... and the dog… / • item #1 / -42 ....
    lines = line_statistics(*column, BULLETS, "universal")
    assert [int(count[0]) for count in lines] == [47, 1, 3, 4, 2, 2]
    counts = word_statistics(column[0], words(*column, "whitespace"), STOP_WORDS)
    assert {name: int(values[0]) for name, values in counts._asdict().items()} == {
        "n_words": 10,
        "n_characters": 3 + 6 + 3 + 3 + 4 + 1 + 4 + 2 + 3 + 4,
        "n_alphabetic": 6,
        "n_symbolic": 1,
        "n_symbolic_characters": 4,
        "n_alnum_first": 6,
        "n_stop_words": 2,
    }


def test_spaced_dots_and_lines_without_text_differ_under_dclm():
    column = _column("one . . . .\n\n \ntwo . . .")
    universal = line_statistics(*column, (), "universal")
    stripped = line_statistics(*column, (), "stripped")
    assert [int(count[0]) for count in universal[2:]] == [0, 4, 0, 0]
    assert [int(count[0]) for count in stripped[2:]] == [2, 2, 0, 2]


@given(texts=st.lists(st.text(), max_size=3))
def test_characters_are_code_points(texts):
    column = _column(*(text.encode("utf-8", "replace") for text in texts))
    assert n_characters(*column).tolist() == list(map(len, texts))
    assert newlines(*column)[0].tolist() == [text.count("\n") for text in texts]


def test_no_stop_words_and_no_bullets_are_allowed():
    column = _column("- the")
    counts = word_statistics(column[0], words(*column, "whitespace"), ())
    assert (counts.n_stop_words[0], counts.n_words[0]) == (0, 2)
    assert line_statistics(*column, (), "universal").n_bullet_lines[0] == 0


def test_sixty_four_stop_words_are_told_apart():
    stop_words = [f"w{i}" for i in range(64)]
    column = _column(" ".join([*stop_words, *stop_words]))
    assert word_statistics(column[0], words(*column, "whitespace"), stop_words).n_stop_words[0] == 64


def test_more_stop_words_than_bits_are_refused():
    column = _column("")
    with pytest.raises(ValueError, match="found 65 stop words, at most 64 are allowed: shorten the list"):
        word_statistics(column[0], words(*column, "whitespace"), [str(i) for i in range(65)])


def test_a_bullet_of_two_characters_is_refused():
    with pytest.raises(ValueError, match="bullet '--' has 2 characters, a bullet is one character"):
        line_statistics(*_column(""), ("--",), "universal")

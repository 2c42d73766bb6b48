import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from cuvee.kernels.text_statistics import text_statistics, text_statistics_reference

STOP_WORDS = ("the", "be", "to", "of", "and", "that", "have", "with", "é", "Привет")
BULLETS = ("\u2022", "-")


@given(data=st.data())
def test_kernel_and_reference_agree_on_every_count(data, documents):
    column = data.draw(documents)
    found = text_statistics(*column, STOP_WORDS, BULLETS)
    expected = text_statistics_reference(*column, STOP_WORDS, BULLETS)
    for name, a, b in zip(found._fields, found, expected, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_a_small_document_counts_as_by_hand():
    text = "The cat... and the dog\u2026 \r\n  \u2022 item #1\n\n-42 ....".encode()
    counts = text_statistics(np.frombuffer(text, np.uint8), np.array([0, len(text)]), STOP_WORDS, BULLETS)
    # Words: The cat... and the dog… / • item #1 / -42 .... Lines: two with text, a blank one, the last.
    assert {name: int(values[0]) for name, values in counts._asdict().items()} == {
        "n_characters": 47,
        "n_words": 10,
        "n_word_characters": 3 + 6 + 3 + 3 + 4 + 1 + 4 + 2 + 3 + 4,
        "n_alpha_words": 6,
        "n_stop_words": 2,
        "n_hashes": 1,
        "n_ellipses": 3,
        "n_lines": 4,
        "n_bullet_lines": 2,
        "n_ellipsis_lines": 2,
    }


def test_no_stop_words_and_no_bullets_are_allowed():
    counts = text_statistics(np.frombuffer(b"- the", np.uint8), np.array([0, 5]), (), ())
    assert (counts.n_stop_words[0], counts.n_bullet_lines[0], counts.n_words[0]) == (0, 0, 2)


def test_sixty_four_stop_words_are_told_apart():
    words = [f"w{i}" for i in range(64)]
    text = " ".join([*words, *words]).encode()
    counts = text_statistics(np.frombuffer(text, np.uint8), np.array([0, len(text)]), words, ())
    assert counts.n_stop_words[0] == 64


def test_more_stop_words_than_bits_are_refused():
    with pytest.raises(ValueError, match="found 65 stop words, at most 64 are allowed: shorten the list"):
        text_statistics(np.empty(0, np.uint8), np.zeros(1, np.int64), [str(i) for i in range(65)], ())


def test_a_bullet_of_two_characters_is_refused():
    with pytest.raises(ValueError, match="bullet '--' has 2 characters, a bullet is one character"):
        text_statistics(np.empty(0, np.uint8), np.zeros(1, np.int64), (), ("--",))

import re

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from cuvee.kernels.shingles import (
    character_hashes,
    character_hashes_reference,
    shingle_hashes,
    shingle_hashes_reference,
    word_hashes,
    word_hashes_reference,
    words_reference,
)


@given(data=st.data())
def test_kernel_and_reference_agree_on_every_word(data, documents):
    column = data.draw(documents)
    for a, b in zip(word_hashes(*column), word_hashes_reference(*column), strict=True):
        np.testing.assert_array_equal(a, b)


@given(data=st.data())
def test_kernel_and_reference_agree_on_every_character(data, documents):
    column = data.draw(documents)
    for a, b in zip(character_hashes(*column), character_hashes_reference(*column), strict=True):
        np.testing.assert_array_equal(a, b)


@given(st.lists(st.lists(st.integers(0, 2**64 - 1), max_size=9), max_size=4), st.integers(1, 6))
def test_kernel_and_reference_agree_on_every_shingle(documents, n):
    words = np.array([word for document in documents for word in document], np.uint64)
    offsets = np.cumsum([0, *map(len, documents)], dtype=np.int64)
    for a, b in zip(
        shingle_hashes(words, offsets, n), shingle_hashes_reference(words, offsets, n), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@given(st.text(st.characters(max_codepoint=0x2FF, exclude_characters="İ"), max_size=60))
def test_words_of_spaced_scripts_are_those_of_the_usual_pattern(text):
    assert words_reference(text) == re.findall(r"\w+", "".join(letter.lower() for letter in text))


def test_each_letter_of_a_script_without_spaces_is_a_word_with_its_marks():
    assert words_reference("ไม้ AB東京c3 นำ้ 한국어") == ["ไ", "ม้", "ab", "東", "京", "c3", "น", "ำ้", "한국어"]


def test_a_devanagari_word_keeps_its_vowel_signs():
    assert words_reference("नमस्ते दुनिया") == ["नमस्ते", "दुनिया"]


def test_two_letters_do_not_hash_as_two_others():
    pairs = [chr(a) + chr(b) for a in range(0x400, 0x450) for b in range(0x400, 0x450)]
    text = " ".join(pairs).encode()
    words, _ = word_hashes(np.frombuffer(text, np.uint8), np.array([0, len(text)]))
    assert len(np.unique(words)) == len({pair.lower() for pair in pairs})


def test_a_document_with_fewer_words_than_a_shingle_has_none():
    shingles, offsets = shingle_hashes(np.arange(4, dtype=np.uint64), np.array([0, 0, 4]), 5)
    assert shingles.dtype == np.uint32
    assert offsets.tolist() == [0, 0, 0]


def test_a_shingle_depends_on_the_order_of_its_words():
    words = np.array([1, 2, 2, 1], np.uint64)
    shingles, _ = shingle_hashes(words, np.array([0, 2, 4]), 2)
    assert shingles[0] != shingles[1]


@pytest.mark.parametrize("shingles", [shingle_hashes, shingle_hashes_reference])
def test_a_shingle_of_no_words_is_refused(shingles):
    with pytest.raises(ValueError, match="n is 0: a shingle has at least 1 word"):
        shingles(np.empty(0, np.uint64), np.zeros(1, np.int64), 0)

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from cuvee.kernels.gather_words import matching_documents, take_words
from cuvee.kernels.word_classes import word_class_reference, word_classes
from cuvee.kernels.words import words, words_reference

SEGMENTATIONS = ["whitespace", "uax29", "english"]
ENGLISH_CHUNKS = """
don't Don’t cannot e.g. U.S. p.m. 'tis (see) "so" 8) :) ): word-word a/b x=y 3.14 5km 1,000 $5 US$5
20°C. km² +1 --- ... … www.a.org http://a.b/c?d=e a@b.de a.b.Cd ... — – ' '' ’s 's [1] <a> & # * %5
50% é.É ß. É.É 東京. ไ. 😀a A😀 a😀b ._. ,a a,b a,, ;; C++ 1-2 1--2 a--b a---b a----b a:b 1:2 a_b _ ~a~b
U.K.) I.E. well's S.
"""
ENGLISH = st.sampled_from(ENGLISH_CHUNKS.split())
MARKS = st.text("aA1.,'’\"-:/=@()…é東😀$+%°CkmS²…—_~?#", max_size=12)


def _column(texts):
    encoded = [text.encode() for text in texts]
    return np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([0, *map(len, encoded)], dtype=np.int64)


def _words_of(text, segmentation):
    data, offsets = _column([text])
    found = words(data, offsets, segmentation)
    raw = data.tobytes()
    spans = zip(found.starts.tolist(), found.n_bytes.tolist(), strict=True)
    return [raw[start : start + n_bytes].decode() for start, n_bytes in spans]


def _assert_equal(found, expected):
    for name, a, b in zip(found._fields, found, expected, strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.parametrize("segmentation", SEGMENTATIONS)
@given(texts=st.lists(st.text(max_size=40) | st.lists(ENGLISH | MARKS, max_size=8).map(" ".join), max_size=4))
def test_kernel_and_reference_find_the_same_words(segmentation, texts):
    column = _column(text.encode("utf-8", "replace").decode() for text in texts)
    _assert_equal(words(*column, segmentation), words_reference(*column, segmentation))


# Words around the sixty-four bytes that are looked at together, and chunks that come again behind others.
LONG = st.builds(lambda letter, n, mark: letter * n + mark, st.sampled_from("aé1"), st.integers(1, 70), MARKS)


@pytest.mark.parametrize("segmentation", ["whitespace", "english"])
@given(chunks=st.lists(LONG | ENGLISH, max_size=6), white=st.sampled_from([" ", "\n", "\u3000", " \x85"]))
def test_words_are_the_same_wherever_they_stand_and_however_often(segmentation, chunks, white):
    column = _column([white.join(chunks + chunks[::-1]), white + " ".join(chunks)])
    _assert_equal(words(*column, segmentation), words_reference(*column, segmentation))


@pytest.mark.parametrize("segmentation", SEGMENTATIONS)
@given(data=st.data())
def test_words_of_broken_utf8_lie_inside_their_document_in_order(segmentation, data, documents):
    text, offsets = data.draw(documents)
    found = words(text, offsets, segmentation)
    for d in range(len(offsets) - 1):
        spans = slice(found.offsets[d], found.offsets[d + 1])
        starts, ends = found.starts[spans], found.starts[spans] + found.n_bytes[spans]
        assert (starts >= offsets[d]).all()
        assert (ends <= offsets[d + 1]).all()
        assert (starts[1:] >= ends[:-1]).all()
        assert (found.n_bytes[spans] > 0).all()


# From the tables and examples of UAX 29, revision 43, sections 4.1 and 4.2, and its test file.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The quick (“brown”) fox can’t jump 32.3 feet, right?",
         ["The", "quick", "brown", "fox", "can’t", "jump", "32.3", "feet", "right"]),
        ("3a 3.a a.3 a.b 1,000.5 x_1 _x_ __", ["3a", "3", "a", "a", "3", "a.b", "1,000.5", "x_1", "_x_"]),
        ("e\u0301te\u0301 co\u00adop a:b a::b 1:2 'x'",
         ["e\u0301te\u0301", "co\u00adop", "a:b", "a", "b", "1", "2", "x"]),
        ("א'ב ש\"ש ש' ש\"", ["א'ב", "ש\"ש", "ש'", "ש"]),
        ("カタカナ ひらがな 漢字 ไม้", ["カタカナ", "ひ", "ら", "が", "な", "漢", "字", "ไ", "ม้"]),
        ("😀 ... — !", []),
    ],
)  # fmt: skip
def test_uax29_words_are_those_of_the_annex(text, expected):
    assert _words_of(text, "uax29") == expected


# What spaCy 3.8's blank English pipeline gives.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Mr. O'Neill can't pay $5.50 (10%) to e.g. U.S. banks.",
         ["Mr.", "O'Neill", "ca", "n't", "pay", "$", "5.50", "(", "10", "%", ")", "to", "e.g.", "U.S.",
          "banks", "."]),
        ("well-known x=y 5km/h 20°C. a/b 1990s' dogs' it's",
         ["well", "-", "known", "x", "=", "y", "5", "km/h", "20", "°", "C", ".", "a", "/", "b",
          "1990s", "'", "dogs", "'", "it", "'s"]),
        ("see www.a.org/b?c=d, mail a@b.org; end... (see 8)",
         ["see", "www.a.org/b?c=d", ",", "mail", "a@b.org", ";", "end", "...", "(", "see", "8)"]),
        ("“Quoted,” she said—twice. NASA. A. end.Next",
         ["“", "Quoted", ",", "”", "she", "said", "—", "twice", ".", "NASA", ".", "A.", "end", ".", "Next"]),
    ],
)  # fmt: skip
def test_english_words_are_those_of_spacy(text, expected):
    assert _words_of(text, "english") == expected


def test_a_letter_of_any_script_makes_a_chunk_a_word_for_those_who_cut_at_white_space():
    text = "東京タワー हिन्दी ไม้ ok"
    assert _words_of(text, "whitespace") == text.split()


def test_the_table_says_of_every_code_point_what_the_reference_says():
    page, entries = word_classes()
    codes = np.random.default_rng(0).integers(0, 0x110000, 20_000).tolist() + list(range(0x3100))
    wrong = [c for c in codes if entries[int(page[c >> 8]) << 8 | c & 0xFF] != word_class_reference(chr(c))]
    assert not wrong


@given(texts=st.lists(st.text("ab ", max_size=6), max_size=8), data=st.data())
def test_words_taken_from_another_column_are_those_that_would_be_found(texts, data):
    kept = data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts)))
    column = _column(texts)
    wanted = _column([text for text, keep in zip(texts, kept, strict=True) if keep])
    matches = matching_documents(*column, *wanted)
    taken = take_words(words(*column, "whitespace"), column[1], matches, wanted[1])
    _assert_equal(taken, words(*wanted, "whitespace"))


def test_a_document_that_was_not_there_is_no_match():
    column, other = _column(["a b", "c d"]), _column(["a b", "c e"])
    assert matching_documents(*column, *other) is None
    assert matching_documents(*column, *_column(["c d", "a b"])) is None  # another order


def test_a_word_longer_than_any_buffer_is_one_word():
    assert _words_of("x" * 5_000 + "é" * 3_000 + ", y", "english")[1:] == [",", "y"]

from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from pydantic import ValidationError

from cuvee.kernels.dictionary_words import dictionary_words_reference
from cuvee.operators import files, icu
from cuvee.operators.c4 import C4
from cuvee.operators.fineweb import Fineweb
from cuvee.operators.fineweb2 import Fineweb2
from cuvee.operators.gopher_quality import GopherQuality
from cuvee.operators.gopher_repetition import GopherRepetition
from cuvee.operators.icu import icu_sentences, icu_words
from cuvee.operators.length import Length
from cuvee.operators.text_column import text_buffers

breakers = pytest.importorskip("icu4py.breakers")

SENTENCES = {
    "zh": "我来到北京清华大学，他来到了网易杭研大厦。",
    "ja": "東京都に住んでいる友達がカメラで写真を撮りました。食べログ",
    "th": "ผมชอบพูดภาษาไทยและกินข้าวผัด ๒๕๖๐",
    "km": "ភាសាខ្មែរជាភាសាផ្លូវការ",
    "lo": "ພາສາລາວເປັນພາສາທາງການ",
    "my": "မြန်မာဘာသာစကားသည်",
    "astral": "𠀀𠀁我来到𠀂北京",
    "no dictionary": "ꀀꀁꀂ ᥐᥑᥒ བོད་སྐད་ 한국어를",
    "latin": "Don't stop 3.14 e\u0301!",
    "marks": "\u0e31\u0e34ก\u0e34\u200dข\u3099か\u3099",
}
PIECES = [*SENTENCES.values(), *"我北京ผมก\u0e34\u200d ၏カ_1ー。\n\x00", "ﾊﾝｶｸ"]
TEXT = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=10).map("".join)


def _cut(run):
    return list(breakers.WordBreaker(run, "root"))


def _words_of(*texts):
    data, offsets = text_buffers(pa.chunked_array([pa.array(texts, pa.large_string())]))
    found = icu_words(data, offsets)
    raw = data.tobytes()
    spans = zip(found.starts.tolist(), found.n_bytes.tolist(), strict=True)
    words = [raw[start : start + n_bytes].decode() for start, n_bytes in spans]
    assert found.n_characters.tolist() == list(map(len, words))
    return [words[a:b] for a, b in pairwise(found.offsets)]


@given(texts=st.lists(TEXT.map(lambda text: text.encode("utf-8", "replace").decode()), max_size=4))
def test_words_are_those_that_icu_cuts_one_run_at_a_time(texts):
    assert _words_of(*texts) == [dictionary_words_reference(text, _cut) for text in texts]


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("zh", "我 来到 北京 清华大学 他 来到 了"),
        ("ja", "東京 都 に"),
        ("th", "ผม ชอบ พูด ภาษา ไทย และ กิน ข้าว ผัด ๒๕๖๐"),
        ("km", "ភាសាខ្មែរ ជា ភាសាផ្លូវការ"),
        ("lo", "ພາສາ ລາວ ເປັນ ພາສາ ທາງການ"),
        ("my", "မြန်မာဘာသာ စကား သည်"),
        ("no dictionary", "ꀀ ꀁ ꀂ ᥐ ᥑ ᥒ"),  # ICU has none for Yi and Tai Le: each letter stays a word
        ("latin", "Don't stop 3.14 e\u0301"),
    ],
)
def test_each_script_has_the_words_of_its_dictionary(language, expected):
    (found,) = _words_of(SENTENCES[language])
    assert found[: len(expected.split())] == expected.split()


def test_blocks_of_runs_give_the_words_of_the_whole(monkeypatch):
    texts = list(SENTENCES.values()) * 3
    whole = _words_of(*texts)
    monkeypatch.setattr(icu, "_MAX_WORDS", 7)
    assert _words_of(*texts) == whole


@given(data=st.binary(max_size=60), cut=st.integers(0, 60))
def test_words_of_broken_utf8_lie_inside_their_document(data, cut):
    text = np.frombuffer("ก我".encode() + data + "我".encode(), np.uint8)
    offsets = np.array([0, min(cut, len(text)), len(text)])
    found = icu_words(text, offsets)
    ends = found.starts + found.n_bytes
    document = np.repeat([0, 1], np.diff(found.offsets))
    assert (found.starts >= offsets[document]).all()
    assert (ends <= offsets[document + 1]).all()
    assert (found.starts[1:] >= ends[:-1]).all()
    assert (found.n_characters > 0).all()


def test_sentences_end_at_the_marks_of_any_script_and_at_lines():
    data, offsets = text_buffers(
        pa.chunked_array([["他来了。你呢？\n\n好", "One. two is 3.5 long! Three?", "", " \n"]])
    )
    assert icu_sentences(data, offsets).tolist() == [3, 2, 0, 0]


@pytest.mark.parametrize("operator", [C4, Fineweb, Fineweb2, GopherQuality, GopherRepetition, Length])
def test_filters_hold_the_lock_where_icu_cuts_their_words(operator):
    assert operator(profile="icu").holds_gil
    assert not operator(profile="uax29").holds_gil


def test_filters_take_the_profile_and_keep_their_contract(documents, check_operator):
    check_operator(GopherQuality(profile="icu", min_words=1), documents)
    check_operator(GopherRepetition(profile="icu"), documents)


def test_chinese_prose_has_words_of_words_length(table_of):
    table = table_of(SENTENCES["zh"] * 9)
    lengths = {
        profile: GopherQuality(profile=profile).scores(table)["gopher_quality.mean_word_length"][0].as_py()
        for profile in ("paper", "uax29", "icu")
    }
    assert lengths["uax29"] == 1 < lengths["icu"] < 3 < lengths["paper"]


def test_without_icu_the_profile_says_what_to_install(monkeypatch):
    monkeypatch.setattr(files, "find_spec", lambda package: None)
    with pytest.raises(ValidationError, match=r"'icu4py' is not installed: pip install 'cuvee\[languages\]'"):
        GopherQuality(profile="icu")
    GopherQuality(profile="uax29")

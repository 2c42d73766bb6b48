"""Every repeated passage goes but its first occurrence, and nothing else does."""

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from pydantic import ValidationError
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from cuvee.operators.base import ROW
from cuvee.operators.substring_dedup import SubstringDedup

from ..conftest import run_operator

N = 8
# Few letters, periods and pieces that recur, so that windows of 8 bytes do repeat.
PIECES = ["abcdefgh", "cdefghij", "aaaaaaaaaaaa", "abababababab", "x", "é東", " the "]
TEXTS = st.lists(
    st.lists(st.sampled_from(PIECES), max_size=6).map("".join) | st.text("ab", max_size=25), max_size=6
)


def _documents(texts):
    return pa.table(
        {"id": [f"doc-{i}" for i in range(len(texts))], "text": pa.array(texts, pa.large_string())}
    )


def _expected(texts, keep):
    """Spans by brute force: all windows of all documents in a dictionary, the bytes of those that go, and
    what of these is no part of a character."""
    windows = {}
    for d, text in enumerate(text.encode() for text in texts):
        for i in range(len(text) - N + 1):
            windows.setdefault(text[i : i + N], []).append((d, i))
    goes = [set() for _ in texts]
    for places in windows.values():
        for d, i in places[1 if keep == "first" else 0 :] if len(places) > 1 else ():
            goes[d] |= set(range(i, i + N))
    return [_whole_characters(text, gone) for text, gone in zip(texts, goes, strict=True)]


def _whole_characters(text, gone):
    spans, at = [], 0
    for character in text:
        n = len(character.encode())
        # A character cut at the edge of a span stays; a span has at least N bytes, so no span is inside one.
        if set(range(at, at + n)) <= gone:
            if spans and spans[-1] == at:
                spans[-1] = at + n
            else:
                spans += [at, at + n]
        at += n
    return spans


@given(texts=TEXTS, keep=st.sampled_from(["first", "none"]))
def test_in_any_sharding_exactly_the_bytes_of_repeated_windows_go(texts, keep, check_operator):
    operator = SubstringDedup(min_bytes=N, keep=keep, borders="character", min_bytes_left=0)
    result = check_operator(operator, _documents(texts))
    assert result["substring_dedup.spans"].to_pylist() == _expected(texts, keep)
    assert result["reason"].null_count == len(texts)


WORDS = st.lists(st.sampled_from(["an", "old", "vat", "of", "é"]), max_size=14)
SPACES = st.sampled_from([" ", "\n", "  ", "\t "])


@given(texts=st.lists(WORDS, max_size=5), data=st.data())
@settings(max_examples=60)
def test_in_any_sharding_exactly_the_words_of_repeated_windows_go(texts, data, check_operator):
    n, spaced, expected, seen = 4, [], [], set()
    for words in texts:
        text, places = "", []
        for word in words:
            places.append((len(text.encode()), len((text + word).encode())))
            text += word + data.draw(SPACES)
        spaced.append(text)
        gone = np.zeros(len(words), bool)
        for i in range(len(words) - n + 1):
            window = tuple(words[i : i + n])
            if window in seen:
                gone[i : i + n] = True
            seen.add(window)
        edges = np.flatnonzero(np.diff(np.concatenate([[0], gone, [0]])))
        pairs = zip(edges[::2], edges[1::2], strict=True)
        expected.append([edge for a, b in pairs for edge in (places[a][0], places[b - 1][1])])
    operator = SubstringDedup(min_tokens=n, borders="character", min_bytes_left=0)
    result = check_operator(operator, _documents(spaced))
    assert result["substring_dedup.spans"].to_pylist() == expected


def _tokenizer(folder):
    """Pairs of letters are tokens, and each byte: a token may be a part of a character."""
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.train_from_iterator(["the cellar of the old vats, the cellars"] * 9, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer, str(folder / "tokenizer.json")


def test_exactly_the_tokens_of_repeated_windows_go(tmp_path, check_operator):
    tokenizer, path = _tokenizer(tmp_path)
    texts = [
        "the cellar of the old vats",
        "東 an old cellar of the oldest 東",
        " of the old vats",
        "東é of 東é",
    ]
    found = check_operator(
        SubstringDedup(min_tokens=4, tokenizer=path, borders="character", min_bytes_left=0), _documents(texts)
    )
    seen, expected = set(), []
    for text in texts:
        encoding, gone = tokenizer.encode(text), set()
        for i in range(len(encoding.ids) - 3):
            window = tuple(encoding.ids[i : i + 4])
            if window in seen:
                gone |= {c for a, b in encoding.offsets[i : i + 4] for c in range(a, b)}
            seen.add(window)
        expected.append("".join(character for i, character in enumerate(text) if i not in gone))
    assert found["text"].to_pylist() == expected
    assert expected[2] == ""
    assert expected[0] == texts[0]


@given(texts=TEXTS)
def test_what_goes_and_what_stays_make_up_the_text(texts):
    table = _documents(texts).append_column(ROW, pa.array(range(len(texts)), pa.int64()))
    result = run_operator(SubstringDedup(min_bytes=N, min_bytes_left=0), [table])
    for text, left, spans, n_removed in zip(
        texts,
        *(
            result[name].to_pylist()
            for name in ("text", "substring_dedup.spans", "substring_dedup.n_bytes_removed")
        ),
        strict=True,
    ):
        data = text.encode()
        keep = np.ones(len(data), bool)
        for start, stop in zip(spans[::2], spans[1::2], strict=True):
            keep[start:stop] = False
        assert bytes(data[i] for i in np.flatnonzero(keep)).decode() == left
        assert n_removed == len(data) - len(left.encode())


@given(seed=st.integers(0, 2**32 - 1), copies=st.integers(2, 5))
def test_planted_passages_are_found_wherever_they_stand(seed, copies):
    random = np.random.default_rng(seed)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    passage = "".join(random.choice(letters, 120))
    texts, places = [], []
    for _ in range(copies):
        before, after = ("".join(random.choice(letters, random.integers(0, 400))) for _ in range(2))
        texts.append(before + passage + after)
        places.append([len(before), len(before) + 120])
    operator = SubstringDedup(borders="character")
    table = _documents(texts).append_column("_row", pa.array(range(copies), pa.int64()))
    state = operator.finish(operator.merge([operator.combine(operator.observe(table))]))
    # A letter beside the passage agrees by chance with probability 1/26: spans may be longer, never shorter.
    assert state["_row"].to_pylist() == list(range(1, copies))
    for row, start, stop in zip(*state.to_pydict().values(), strict=True):
        assert start <= places[row][0] < places[row][1] <= stop
        assert texts[row][start:stop] in texts[0] or copies > 2


def test_it_keeps_the_contract_of_an_operator(documents, check_operator):
    result = check_operator(SubstringDedup(min_bytes=20), documents)
    assert result["reason"].to_pylist()[5] == "nothing_left"
    assert result["text"][5].as_py() == documents["text"][5].as_py(), "a dropped document keeps its text"


def test_cuts_split_no_word_unless_they_may(check_operator):
    texts = ["the old barrels of the cellar rest", "no mold barrels of the cellars break"]
    by_word = check_operator(SubstringDedup(min_bytes=10), _documents(texts))
    assert by_word["text"].to_pylist() == [texts[0], "no mold cellars break"]
    # Not "moldcellars", though the space after "the" repeats as well.
    by_character = check_operator(SubstringDedup(min_bytes=10, borders="character"), _documents(texts))
    assert by_character["text"].to_pylist() == [texts[0], "no ms break"]


def test_no_copy_stays_where_none_is_asked_for(check_operator):
    texts = ["first: 0123456789", "second: 0123456789", "third"]
    result = check_operator(SubstringDedup(min_bytes=10, keep="none"), _documents(texts))
    assert result["text"].to_pylist() == ["first", "second", "third"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_bytes": 7},
        {"keep": "last"},
        {"borders": "line"},
        {"min_bytes_left": -1},
        {"length": 9},
        {"min_tokens": 3},
        {"min_tokens": 50, "min_bytes": 100},
        {"tokenizer": "tokenizer.json"},
        {"tokenizer": "no/such.json", "min_tokens": 50},
    ],
)
def test_a_wrong_parameter_is_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        SubstringDedup(**wrong)

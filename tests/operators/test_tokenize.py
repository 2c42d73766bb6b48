"""Text to tokens and back, the sample that the tokenizer learns from, and the documents held out."""

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.operators import tokenize
from cuvee.operators.tokenize import END_OF_TEXT, Tokenize, load_tokenizer, token_dtype, train_bpe

WORDS = "the cellar master tastes each vat in spring and blends what none of them is alone"


def _table(
    texts: Sequence[str], domains: Sequence[str] | None = None, ids: Sequence[str] | None = None
) -> pa.Table:
    return pa.table(
        {
            "id": [f"doc-{i}" for i in range(len(texts))],
            "text": pa.array(texts, pa.large_string()),
            "domain": pa.array(domains or ["web"] * len(texts), pa.string()),
        }
    )


def _texts(n: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS.split(), k=draw.randrange(5, 40))) for _ in range(n)]


def _fit(operator: Tokenize, *shards: pa.Table) -> pa.Table:
    return operator.finish(operator.merge([operator.observe(shard) for shard in shards]))


TRAINED = train_bpe([*_texts(50), "Grüße, 蔵 の 主 🍷"], 400)


def _repeats(
    operator: Tokenize, weights: Sequence[float | None], name: str = "rehydrate.repeat"
) -> list[int]:
    """How often each document of a weight is read, all of them in the training split."""
    table = _table(["a"] * len(weights)).append_column(name, pa.array(weights, pa.float64()))
    state = _fit(operator, table)
    cut = operator.apply(table, state.set_column(1, "cut", pa.array([0], pa.uint64())))
    return cut["repeat"].to_pylist()


def test_a_weight_is_how_often_a_document_is_read_in_the_mean() -> None:
    operator = Tokenize(vocab_size=300, validation_fraction=0)
    assert _repeats(operator, [0, 1, 2, 8, None]) == [0, 1, 2, 8, 1]
    n = 4000
    repeats = np.array(_repeats(operator, [2.3] * n))
    assert set(repeats.tolist()) == {2, 3}
    # Five standard errors of a binomial share of 0.3.
    assert abs(repeats.mean() - 2.3) < 5 * (0.3 * 0.7 / n) ** 0.5
    assert _repeats(Tokenize(vocab_size=300, seed=1), [2.3] * 100) != repeats[:100].tolist()
    assert _repeats(Tokenize(vocab_size=300, repeat=None), [0, 5]) == [1, 1]
    assert _repeats(Tokenize(vocab_size=300, repeat="weight"), [0, 5], "weight") == [0, 5]


def test_a_document_in_validation_is_there_once_whatever_its_weight() -> None:
    operator = Tokenize(vocab_size=300, validation_fraction=0.5)
    table = _table(_texts(40)).append_column("rehydrate.repeat", pa.array([0.0, 5.0] * 20))
    cut = operator.apply(table, _fit(operator, table))
    found = set(zip(cut["split"].to_pylist(), cut["repeat"].to_pylist(), strict=True))
    assert found == {("train", 0), ("train", 5), ("validation", 1)}


@pytest.mark.parametrize("weight", [-0.5, 101, float("nan"), float("inf")])
def test_a_weight_that_cannot_be_is_refused_with_its_document(weight: float) -> None:
    with pytest.raises(ValueError, match=r"document 'doc-1': rehydrate.repeat is .* between 0 and 100"):
        _repeats(Tokenize(vocab_size=300), [1, weight])


@settings(max_examples=300)
@given(st.text())
def test_decoding_the_encoding_gives_the_text_back(text: str) -> None:
    tokenizer, _ = load_tokenizer(TRAINED)
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize(
    "text", ["", " ", "\x00\x01", "\r\n\t  x", "\ufeffx", "a\u0301", "\U0001f377" * 3, "\u202e"]
)
def test_texts_of_odd_characters_come_back(text: str) -> None:
    operator = Tokenize(vocab_size=300)
    table = _table([text, *_texts(5)])
    tokens = operator.apply(table, _fit(operator, table))["tokens"][0].as_py()
    tokenizer, end = load_tokenizer(_fit(operator, table)["tokenizer"][0].as_py())
    assert tokens[-1] == end
    assert tokenizer.decode(tokens[:-1], skip_special_tokens=False) == text


def test_the_name_of_the_end_of_text_token_inside_a_text_is_not_the_token() -> None:
    operator = Tokenize(vocab_size=300)
    table = _table([f"before {END_OF_TEXT} after", *_texts(5)])
    state = _fit(operator, table)
    tokens = operator.apply(table, state)["tokens"][0].as_py()
    tokenizer, end = load_tokenizer(state["tokenizer"][0].as_py())
    assert tokens.count(end) == 1
    assert tokenizer.decode(tokens[:-1], skip_special_tokens=False) == f"before {END_OF_TEXT} after"


@settings(max_examples=25)
@given(data=st.data())
def test_any_sharding_and_order_of_merges_gives_the_same_state(data: st.DataObject) -> None:
    n_docs = data.draw(st.integers(2, 60))
    operator = Tokenize(vocab_size=280, max_training_bytes=data.draw(st.integers(1, 6000)), seed=3)
    table = _table(_texts(n_docs), [("web", "law", "sea")[i % 3] for i in range(n_docs)])
    whole = _fit(operator, table)
    cuts = sorted(data.draw(st.lists(st.integers(0, n_docs), max_size=5)))
    edges = list(zip([0, *cuts], [*cuts, n_docs], strict=True))
    partials = [operator.observe(table.slice(a, b - a)) for a, b in data.draw(st.permutations(edges))]
    split = data.draw(st.integers(0, len(partials) - 1))
    merged = operator.merge([operator.merge(partials[: split + 1]), *partials[split + 1 :]])
    assert operator.finish(merged).equals(whole)


def test_a_short_text_takes_no_room_that_a_longer_one_before_it_would_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tokenize, "train_bpe", lambda texts, size: json.dumps(texts))
    for seed in range(100):
        operator = Tokenize(vocab_size=280, max_training_bytes=500, seed=seed)
        table = _table([text[: 3 * i] for i, text in enumerate(_texts(30))])
        partials = [operator.observe(table.slice(i, 1)) for i in range(30)]
        merged = partials[0]
        for partial in partials[1:]:
            merged = operator.merge([merged, partial])
        assert operator.finish(merged).equals(_fit(operator, table))


def test_rows_tokenize_the_same_in_any_sharding() -> None:
    operator = Tokenize(vocab_size=300)
    table = _table(_texts(40))
    state = _fit(operator, table)
    whole = operator.apply(table, state)
    parts = [operator.apply(table.slice(a, 7), state) for a in range(0, 40, 7)]
    assert pa.concat_tables(parts).combine_chunks().equals(whole.combine_chunks())


def test_about_the_asked_fraction_is_held_out_and_it_stays_held_out() -> None:
    operator = Tokenize(vocab_size=280, validation_fraction=0.1)
    few, many = _table(_texts(1000)), _table(_texts(4000))
    splits = [operator.apply(table, _fit(operator, table))["split"].to_pylist() for table in (few, many)]
    n_held_out = splits[1].count("validation")
    assert abs(n_held_out - 400) < 5 * np.sqrt(4000 * 0.1 * 0.9), "5 standard errors of a binomial"
    assert splits[1][:1000] == splits[0]


@pytest.mark.parametrize(("n_docs", "n_held_out"), [(1, 0), (2, 1), (7, 1), (8, 2), (16, 4), (40, 4)])
def test_a_small_domain_holds_out_its_floor(n_docs: int, n_held_out: int) -> None:
    operator = Tokenize(vocab_size=280, validation_fraction=1e-9)
    table = _table(_texts(n_docs + 3), ["small"] * n_docs + ["other"] * 3)
    split = operator.apply(table, _fit(operator, table))["split"].to_pylist()
    assert split[:n_docs].count("validation") == n_held_out
    assert split[n_docs:].count("validation") == 1


def test_another_seed_holds_out_other_documents() -> None:
    table = _table(_texts(200))
    held_out = []
    for seed in (0, 1):
        operator = Tokenize(vocab_size=280, validation_fraction=0.3, seed=seed)
        held_out.append(operator.apply(table, _fit(operator, table))["split"].to_pylist())
    assert held_out[0] != held_out[1]


@pytest.mark.parametrize("validation_fraction", [1e-9, 0.3])
def test_no_validation_document_is_in_the_tokenizers_sample(
    validation_fraction: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples: list[list[str]] = []
    monkeypatch.setattr(tokenize, "train_bpe", lambda texts, size: samples.append(texts) or TRAINED)
    operator = Tokenize(vocab_size=280, validation_fraction=validation_fraction)
    texts = [f"{text} number {i}" for i, text in enumerate(_texts(60))]
    table = _table(texts, ["web"] * 50 + ["law"] * 10)
    split = operator.apply(table, _fit(operator, table))["split"].to_pylist()
    train = {text for text, one in zip(texts, split, strict=True) if one == "train"}
    assert set(samples[0]) == train


def test_the_sample_is_within_its_bytes_and_not_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    samples: list[list[str]] = []
    monkeypatch.setattr(tokenize, "train_bpe", lambda texts, size: samples.append(texts) or TRAINED)
    for n_bytes in (50, 1_000):
        _fit(Tokenize(vocab_size=280, max_training_bytes=n_bytes), _table([*_texts(50), "word " * 1000] * 2))
        assert 0 < sum(len(text.encode()) for text in samples[-1]) <= n_bytes
    _fit(Tokenize(vocab_size=280, max_training_bytes=1_000), _table(["long words " * 1000] * 20))
    assert 0 < sum(len(text.encode()) for text in samples[-1]) <= 1_000


def test_a_finished_tokenizer_is_used_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(TRAINED, "utf-8")
    operator = Tokenize(tokenizer=str(path), tokenizer_sha256=hashlib.sha256(TRAINED.encode()).hexdigest())
    table = _table(_texts(10))
    state = _fit(operator, table)
    assert state["tokenizer"][0].as_py() == TRAINED
    tokenizer, end = load_tokenizer(TRAINED)
    expected = [[*tokenizer.encode(text).ids, end] for text in _texts(10)]
    assert operator.apply(table, state)["tokens"].to_pylist() == expected


def test_a_tokenizer_that_truncates_and_pads_does_neither_here() -> None:
    spoilt, _ = load_tokenizer(TRAINED)
    spoilt.enable_truncation(3)
    spoilt.enable_padding(length=50)
    tokenizer, _ = load_tokenizer(spoilt.to_str())
    assert len(tokenizer.encode(WORDS).ids) > 3
    assert len(tokenizer.encode("a").ids) < 50


@pytest.mark.parametrize("name", ["</s>", "<|end_of_text|>", "<eos>", "<|im_end|>"])
def test_other_names_of_the_end_of_text_token(name: str) -> None:
    renamed = TRAINED.replace(END_OF_TEXT, name)
    if name == "<|im_end|>":
        with pytest.raises(ValueError, match="has none of the end-of-text tokens"):
            load_tokenizer(renamed)
    else:
        tokenizer, end = load_tokenizer(renamed)
        assert end == tokenizer.token_to_id(name)


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(1, "uint16"), (65_536, "uint16"), (65_537, "uint32"), (1 << 24, "uint32")]
)
def test_ids_take_the_narrowest_type(vocab_size: int, dtype: str) -> None:
    assert token_dtype(vocab_size) == dtype


def test_empty_tables_and_documents_have_the_right_types() -> None:
    operator = Tokenize(vocab_size=300)
    table = _table(["", *_texts(10)])
    state = _fit(operator, table, table.slice(0, 0))
    cut = operator.apply(table, state)
    assert len(cut["tokens"][0]) == 1
    empty = operator.apply(table.slice(0, 0), state)
    assert empty.schema == cut.schema
    assert cut.schema.field("tokens").type == pa.large_list(pa.uint16())
    assert cut.schema.field("doc").type == pa.uint64()


def test_the_vocabulary_is_no_larger_than_asked_and_holds_every_byte() -> None:
    vocabulary = json.loads(train_bpe(_texts(200), 300))["model"]["vocab"]
    assert len(vocabulary) <= 300
    assert len([token for token in vocabulary if len(token) == 1]) == 256


def test_the_same_texts_give_the_same_bytes_every_time() -> None:
    assert len({train_bpe(_texts(100), 320) for _ in range(3)}) == 1

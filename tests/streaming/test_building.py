"""Token shards of foreign documents: every token there, every document ended, the same bytes again."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cuvee.streaming import StreamingLoader, TokenStore
from cuvee.streaming.building import build_shards, merge_shards
from cuvee.streaming.documents import Documents

EOS = 0
ABOUT: dict[str, Any] = {"domain": "web", "vocab_size": 400, "eos_id": EOS, "tokenizer_hash": "t"}


def documents(n_docs: int, seed: int = 0) -> Iterator[Documents]:
    """In three parts; some empty, some ended already."""
    rng = np.random.default_rng(seed)
    for part in np.array_split(rng.integers(0, 9, n_docs), 3):
        values = rng.integers(1, 400, part.sum(), np.uint16)
        offsets = np.concatenate([[0], np.cumsum(part)])
        values[offsets[1:][part > 4] - 1] = EOS
        yield Documents(values, offsets)


def lists(parts: Iterator[Documents]) -> list[list[int]]:
    return [
        part.values[start:end].tolist()
        for part in parts
        for start, end in zip(part.offsets[:-1], part.offsets[1:], strict=True)
    ]


def stored(store: TokenStore) -> list[list[int]]:
    return lists(Documents(*pair) for pair in zip(store.pieces, store.offsets, strict=True))


def ended(document: list[int]) -> list[int]:
    return document if document and document[-1] == EOS else [*document, EOS]


def test_merged_shards_are_repeated_as_they_were(write_store, tmp_path: Path) -> None:
    sources = [
        write_store("a", [[[5, 1]], [[6, 1]]], repeats=[3, 1]),
        write_store("b", [[[7, 1]]], repeats=[2]),
    ]
    built = merge_shards(sources, tmp_path / "both", domain="both")
    store = TokenStore(tmp_path / "both")
    assert sorted(store.read(0, store.n_tokens)[::2].tolist()) == [5, 5, 5, 6, 7, 7]
    assert (built.n_docs, built.n_tokens) == (store.n_distinct_docs, store.n_distinct_tokens) == (3, 6)


def test_every_document_is_there_in_order_and_ended(tmp_path: Path) -> None:
    built = build_shards(documents(90), tmp_path / "web", **ABOUT, n_tokens_of_shard=100)
    expected = lists(documents(90))
    store = TokenStore(tmp_path / "web")
    store.verify()
    assert store.n_shards > 2
    assert stored(store) == [ended(document) for document in expected]
    assert built == (90, store.n_tokens, sum(ended(document) != document for document in expected))
    assert np.unique(store.doc_ids).size == 90
    assert store.dtype == np.uint16


def test_both_splits_together_hold_every_document(tmp_path: Path) -> None:
    build_shards(documents(300), tmp_path / "web", **ABOUT, validation_fraction=0.2)
    splits = [stored(TokenStore(tmp_path / "web", split)) for split in ("train", "validation")]
    assert sorted(splits[0] + splits[1]) == sorted(ended(document) for document in lists(documents(300)))
    assert 30 < len(splits[1]) < 90


def test_a_large_vocabulary_takes_four_bytes(tmp_path: Path) -> None:
    wide = [Documents(np.array([70_000, 1]), np.array([0, 2]))]
    build_shards(wide, tmp_path / "web", domain="web", vocab_size=1 << 17, eos_id=1, tokenizer_hash="t")
    assert stored(TokenStore(tmp_path / "web")) == [[70_000, 1]]


def test_the_same_documents_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        build_shards(documents(60), tmp_path / name, **ABOUT, validation_fraction=0.3)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["manifest.json", "train-00000.arrow", "validation-00000.arrow"]
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_merged_shards_hold_what_their_sources_held(tmp_path: Path) -> None:
    for k in range(3):
        build_shards(
            documents(40, k), tmp_path / f"{k}", **ABOUT, validation_fraction=0.2, n_tokens_of_shard=80
        )
    sources = [tmp_path / f"{k}" for k in (2, 0, 1)]
    merged = merge_shards(sources, tmp_path / "all", domain="all")
    for split in ("train", "validation"):
        store = TokenStore(tmp_path / "all", split)
        store.verify()
        assert store.domain == "all"
        assert stored(store) == [document for s in sources for document in stored(TokenStore(s, split))]
    assert merged.n_docs == 120
    assert [TokenStore(source).n_docs for source in sources]


def test_built_shards_feed_the_loader(tmp_path: Path) -> None:
    build_shards(documents(200), tmp_path / "web", **ABOUT)
    loader = StreamingLoader({"web": tmp_path / "web"}, sequence_length=16, global_batch=4, max_epochs=1)
    tokens = sum(int(batch.input_ids.numel()) for batch in loader)
    assert 0 < TokenStore(tmp_path / "web").n_tokens - tokens < 5 * 16


def test_what_cannot_be_built_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"document 1: token 2 is 400; with vocab_size 400 tokens lie in"):
        build_shards([Documents(np.array([1, 2, 3, 400]), np.array([0, 1, 4]))], tmp_path / "x", **ABOUT)
    with pytest.raises(ValueError, match="there are no documents"):
        build_shards([], tmp_path / "x", **ABOUT)
    with pytest.raises(ValueError, match="eos_id is 400"):
        build_shards(documents(9), tmp_path / "x", **(ABOUT | {"eos_id": 400}))
    build_shards(documents(9), tmp_path / "x", **ABOUT)
    with pytest.raises(ValueError, match="x: holds token shards already; name a new folder"):
        build_shards(documents(9), tmp_path / "x", **ABOUT)
    build_shards(documents(9), tmp_path / "y", **(ABOUT | {"tokenizer_hash": "u"}))
    with pytest.raises(
        ValueError, match=r"y: tokenizer_hash is u, in .*x it is t; only shards of one tokenizer"
    ):
        merge_shards([tmp_path / "x", tmp_path / "y"], tmp_path / "z", domain="z")
    assert not (tmp_path / "z").exists()

"""From curated parts to token shards, and whose folder it is."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from cuvee.operators.tokenize import Tokenize
from cuvee.pipeline import tokenizing
from cuvee.pipeline.curation import Curation
from cuvee.pipeline.engines import LocalEngine
from cuvee.pipeline.errors import DamagedRunError, InputError
from cuvee.pipeline.located_yaml import RecipeError
from cuvee.pipeline.recipe import load_recipe
from cuvee.pipeline.shard_work import read_accounting
from cuvee.pipeline.tokenizing import claim, open_stores, tokenize_corpus
from cuvee.streaming import StreamingLoader, TokenStore

from .conftest import curation_of, file_bytes, made, write_jsonl

OPERATOR = Tokenize(vocab_size=300)


def _curation(folder: Path, texts: list[str] | None = None) -> Curation:
    curation = curation_of(folder, [], LocalEngine(2), last_fit=OPERATOR, texts=texts)
    curation.run()
    return curation


def test_every_document_is_one_row_of_its_domains_token_shards(tmp_path: Path) -> None:
    curation = _curation(tmp_path)
    tokens, domains, _ = tokenize_corpus(curation, OPERATOR)
    ids = [
        name
        for task in curation.tasks(curation.plan.stages[0])
        for name in pq.read_table(task.part)["id"].to_pylist()
    ]
    assert domains == ["web"]
    docs = [
        int(doc)
        for split in ("train", "validation")
        for doc in open_stores(tokens, domains, split)["web"].doc_ids
    ]
    assert len(docs) == len(set(docs)) == len(set(ids)) == len(ids)


def test_empty_documents_are_their_end_of_text_token(tmp_path: Path) -> None:
    tokens, domains, _ = tokenize_corpus(_curation(tmp_path, ["", "a b c", ""] * 5), OPERATOR)
    stores = [open_stores(tokens, domains, split)["web"] for split in ("train", "validation")]
    lengths = [int(n) for store in stores for n in store.lengths]
    assert sorted(lengths)[:10] == [1] * 10
    assert len(lengths) == 15


def test_a_second_run_writes_nothing_anew(tmp_path: Path) -> None:
    curation = _curation(tmp_path)
    tokenize_corpus(curation, OPERATOR)
    shards = {path: made(path) for path in (tmp_path / "run/tokens").rglob("*.arrow")}
    before = file_bytes(tmp_path / "run")
    tokenize_corpus(curation, OPERATOR)
    assert {path: made(path) for path in shards} == shards
    assert file_bytes(tmp_path / "run") == before


def _weighted(folder: Path) -> tuple[Curation, Tokenize, dict[str, int]]:
    """40 documents, each of a character of its own, with weights 0 to 3 in turn; the last has none."""
    words = [f"{chr(0x4E00 + i)} {chr(0x4E00 + i)}" for i in range(40)]
    rows = [{"id": word, "text": word, "weight": i % 4} for i, word in enumerate(words)]
    del rows[-1]["weight"]
    write_jsonl(folder / "given.jsonl", rows)
    operator = Tokenize(vocab_size=300, repeat="weight")
    curation = curation_of(folder, [], LocalEngine(2), last_fit=operator, texts=words)
    curation.run()
    return curation, operator, {word: i % 4 for i, word in enumerate(words[:-1])} | {words[-1]: 1}


def test_an_epoch_reads_each_document_as_often_as_its_weight_says(tmp_path: Path) -> None:
    curation, operator, weights = _weighted(tmp_path)
    tokens, domains, _ = tokenize_corpus(curation, operator)
    (train,), (validation,) = (
        open_stores(tokens, domains, split).values() for split in ("train", "validation")
    )
    tokenizer = Tokenizer.from_file(str(tokens / "tokenizer.json"))

    def texts(store: TokenStore) -> Counter[str]:
        ends = np.cumsum(store.lengths)
        return Counter(
            tokenizer.decode(store.read(int(end - n), int(n) - 1).tolist())
            for end, n in zip(ends, store.lengths, strict=True)
        )

    held_out = texts(validation)
    assert set(held_out.values()) == {1}
    expected = Counter({word: n for word, n in weights.items() if word not in held_out})
    assert texts(train) == +expected
    assert train.n_docs == expected.total()
    assert (train.n_distinct_docs, train.max_repeat) == (len(+expected), 3)

    loader = StreamingLoader({"web": train}, sequence_length=1, global_batch=1, max_epochs=1)
    found = Counter(int(batch.input_ids[0, 0]) for batch in loader)
    assert found == Counter(train.read(0, train.n_tokens)[: loader.step].tolist())


def test_a_document_of_weight_0_is_accounted_for(tmp_path: Path) -> None:
    curation, operator, weights = _weighted(tmp_path)
    tokens, domains, _ = tokenize_corpus(curation, operator)
    footers = [read_accounting(path)[0] for path in (tmp_path / "run/stages").glob("01-tokenize-*/*.parquet")]
    n_left = sum(found.dropped.get("tokenize.repeat_0", 0) for found in footers)
    stores = [open_stores(tokens, domains, split)["web"] for split in ("train", "validation")]
    assert n_left > 0
    assert n_left + stores[0].n_distinct_docs + stores[1].n_docs == len(weights) == 40
    assert sum(found.rows_kept for found in footers) == 40 - n_left


def test_a_weight_that_no_document_has_is_refused(tmp_path: Path) -> None:
    operator = Tokenize(vocab_size=300, repeat="wieght")
    write_jsonl(tmp_path / "given.jsonl", [{"text": f"a {i}", "weight": 1} for i in range(20)])
    curation = curation_of(tmp_path, [], LocalEngine(1), last_fit=operator, texts=["a"])
    curation.run()
    with pytest.raises(InputError, match="have no column 'wieght'; did you mean 'weight'"):
        tokenize_corpus(curation, operator)


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (
            "rehydrate.repeat",
            "'rehydrate' writes 'rehydrate.repeat' and is not in 'curate'; add '- rehydrate'",
        ),
        (
            "rehydrate.repaet",
            "'rehydrate' does not write 'rehydrate.repaet'; did you mean 'rehydrate.repeat'",
        ),
    ],
)
def test_a_weight_that_no_operator_writes_is_refused_before_anything_runs(
    column: str, message: str, recipe_of: Callable[..., Path]
) -> None:
    with pytest.raises(RecipeError, match=rf"(?s)tokenize.repeat: {message}"):
        load_recipe(recipe_of(rest=f"tokenize: {{repeat: {column}}}\n"))


@pytest.mark.parametrize("pattern", ["train-00001.arrow", "*.arrow"])
def test_a_token_shard_that_is_gone_fails_the_run(tmp_path: Path, pattern: str) -> None:
    curation = _curation(tmp_path)
    tokenize_corpus(curation, OPERATOR)
    for shard in (tmp_path / "run/tokens/web").glob(pattern):
        shard.unlink()
    with pytest.raises(DamagedRunError, match=r"remove .*tokens/? and run again"):
        tokenize_corpus(curation, OPERATOR)


def test_a_kill_while_an_older_content_is_removed_leaves_a_folder_that_nobody_owns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "tokens"
    claim(folder, "old")
    (folder / "a.arrow").touch()

    def killed(path: Path) -> None:
        (path / "a.arrow").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tokenizing.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            claim(folder, "new")
    (folder / "b.arrow").touch()
    claim(folder, "old")
    assert [path.name for path in folder.iterdir()] == [tokenizing.HASH_FILE], "what was left is not trusted"


def test_a_content_of_its_own_stays(tmp_path: Path) -> None:
    claim(tmp_path / "tokens", "one")
    (tmp_path / "tokens/a.arrow").touch()
    (tmp_path / "records").mkdir()
    claim(tmp_path / "tokens", "one", tmp_path / "records")
    assert (tmp_path / "tokens/a.arrow").exists()
    assert (tmp_path / "records").exists()
    claim(tmp_path / "tokens", "two", tmp_path / "records")
    assert not (tmp_path / "tokens/a.arrow").exists()
    assert not (tmp_path / "records").exists()
    shutil.rmtree(tmp_path / "tokens")


def test_a_domain_of_one_document_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 1 documents and none of them fell into its validation split"):
        tokenize_corpus(_curation(tmp_path, ["alone"]), OPERATOR)

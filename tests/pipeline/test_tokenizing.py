"""From curated parts to token shards, and whose folder it is."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cuvee.operators.tokenize import Tokenize
from cuvee.pipeline import tokenizing
from cuvee.pipeline.curation import Curation
from cuvee.pipeline.engines import LocalEngine
from cuvee.pipeline.errors import InputError
from cuvee.pipeline.shard_work import AccountingError
from cuvee.pipeline.tokenizing import claim, open_stores, tokenize_corpus

from .conftest import curation_of, file_bytes, made

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


@pytest.mark.parametrize("pattern", ["train-00001.arrow", "*.arrow"])
def test_a_token_shard_that_is_gone_fails_the_run(tmp_path: Path, pattern: str) -> None:
    curation = _curation(tmp_path)
    tokenize_corpus(curation, OPERATOR)
    for shard in (tmp_path / "run/tokens/web").glob(pattern):
        shard.unlink()
    with pytest.raises(AccountingError, match=r"remove .*tokens/? and run again"):
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

import json
import os
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cuvee.streaming import StreamingLoader
from cuvee.streaming.shards import (
    TokenStore,
    domain_folder,
    open_shard,
    write_manifest,
    write_token_shard,
)

DOCUMENTS = st.lists(st.lists(st.integers(0, 999), max_size=6), max_size=4)
TWO_SHARDS = [[[5, 6, 1], [], [7, 1]], [[8, 9, 10, 1]]]


@given(shards=st.lists(DOCUMENTS, min_size=1, max_size=4), dtype=st.sampled_from(["uint16", "uint32"]))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_a_store_holds_what_was_written(write_store, tmp_path_factory, shards, dtype) -> None:
    tokens = [token for documents in shards for document in documents for token in document]
    if not tokens:
        return
    domain = tmp_path_factory.mktemp("store").name
    store = TokenStore(write_store(domain, shards, dtype=dtype))
    assert store.read(0, store.n_tokens).tolist() == tokens
    assert store.lengths.tolist() == [len(document) for documents in shards for document in documents]
    assert (store.n_docs, store.n_tokens, store.dtype) == (store.lengths.size, len(tokens), np.dtype(dtype))
    assert [piece.size for piece in store.pieces] == [sum(map(len, documents)) for documents in shards]
    store.verify()


def test_a_shard_of_repeat_3_is_read_three_times_by_an_epoch_and_stored_once(write_store) -> None:
    folder = write_store("web", [[[5, 1]], [[6, 1], [7, 1]], [[8, 1]]], repeats=[3, 1, 2])
    store = TokenStore(folder)
    assert sorted(path.name for path in folder.glob("*.arrow")) == [
        "train-00000-x3.arrow", "train-00001.arrow", "train-00002-x2.arrow",
    ]  # fmt: skip
    assert store.read(0, store.n_tokens)[::2].tolist() == [5, 6, 7, 8, 5, 8, 5]
    assert (store.n_docs, store.n_tokens, store.max_repeat) == (7, 14, 3)
    assert (store.n_distinct_docs, store.n_distinct_tokens, store.n_files) == (4, 8, 3)
    assert store.doc_ids.tolist() == [0, 1000, 1001, 2000, 0, 2000, 0]
    assert store.lengths.tolist() == [2] * 7
    addresses = [piece.ctypes.data for piece in store.pieces]
    assert addresses[0] == addresses[3] == addresses[5]
    store.verify()


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_the_loader_reads_repeated_documents_as_often_and_resumes_among_them(packing, write_store) -> None:
    documents = [[[10 * d + i for i in range(8)] for d in range(first, first + 20)] for first in (0, 20)]
    folder = write_store("web", documents, repeats=[3, 1])

    def loader() -> StreamingLoader:
        return StreamingLoader(
            {"web": folder}, sequence_length=8, global_batch=1, packing=packing, max_epochs=2, verify=True
        )

    whole, rows = loader(), []
    for batch in whole:
        rows.append(batch.input_ids[0].tolist())
        if whole.step == 37:
            state = whole.state_dict()
    found = Counter(token for row in rows for token in row)
    n_left_over = 2 * 80 * 8 - found.total()
    assert 0 <= n_left_over <= 2 * 8
    assert sum((Counter({token: 6 if token < 200 else 2 for token in found}) - found).values()) == n_left_over
    resumed = loader()
    resumed.load_state_dict(state)
    assert [batch.input_ids[0].tolist() for batch in resumed] == rows[37:]


def test_other_repeats_are_another_fingerprint(write_store) -> None:
    once = TokenStore(write_store("web", TWO_SHARDS)).fingerprint
    twice = TokenStore(write_store("twice", TWO_SHARDS, repeats=[2, 1])).fingerprint
    other = TokenStore(write_store("other", TWO_SHARDS, repeats=[1, 2])).fingerprint
    assert len({once, twice, other}) == 3


def test_a_store_tells_its_tokenizer_and_documents(write_store) -> None:
    store = TokenStore(write_store("web", TWO_SHARDS))
    assert (store.domain, store.vocab_size, store.eos_id, store.tokenizer_hash) == ("web", 60_000, 1, "t0")
    assert store.doc_ids.tolist() == [0, 1, 2, 1000]


def test_a_read_spans_shards_and_refuses_what_is_not_there(write_store) -> None:
    store = TokenStore(write_store("web", TWO_SHARDS))
    assert store.read(3, 4).tolist() == [7, 1, 8, 9]
    assert store.read(9, 0).tolist() == []
    with pytest.raises(ValueError, match=r"tokens \[8, 10\) of 'train', which holds \[0, 9\)"):
        store.read(8, 2)


def test_tokens_are_views_of_the_mapped_file(write_store) -> None:
    (piece, _) = TokenStore(write_store("web", TWO_SHARDS)).pieces
    assert not piece.flags.owndata
    assert not piece.flags.writeable


def test_a_shard_and_a_manifest_written_twice_have_equal_bytes(write_store) -> None:
    folder = write_store("web", TWO_SHARDS)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_store("web", TWO_SHARDS)
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(before) == ["manifest.json", "train-00000.arrow", "train-00001.arrow"]


def test_shards_are_written_from_several_threads(tmp_path: Path) -> None:
    def write(index: int) -> None:
        values = np.full(1000, index)
        write_token_shard(
            tmp_path / f"train-{index:05d}.arrow", values, np.array([0, 1000]), np.array([index]), "uint16"
        )

    threads = [threading.Thread(target=write, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    write_manifest(tmp_path, domain="web", vocab_size=10, tokenizer_hash="t", eos_id=0)
    assert TokenStore(tmp_path).read(0, 8000)[::1000].tolist() == list(range(8))


def test_an_interrupted_write_leaves_the_old_shard_and_no_litter(tmp_path: Path, monkeypatch) -> None:
    path, arguments = tmp_path / "train-00000.arrow", (np.array([0, 2]), np.array([0]), "uint16")
    write_token_shard(path, np.array([1, 2]), *arguments)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_token_shard(path, np.array([3, 4]), *arguments)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before


@pytest.mark.parametrize("domain", ["web", "a/b", ".", "..", ".git", "Ünï cødé", "a%2Fb", "x" * 255])
def test_every_domain_has_a_folder_of_its_own_below_the_root(tmp_path: Path, domain: str) -> None:
    folder = domain_folder(tmp_path, domain)
    folder.mkdir()
    assert folder.parent == tmp_path
    assert folder.resolve() != tmp_path.resolve()
    assert not folder.name.startswith(".")


def test_domains_that_differ_have_folders_that_differ() -> None:
    names = ["a/b", "a%2Fb", "a b", "a+b", ".", "%2E", "..", "%2E."]
    assert len({domain_folder("", name) for name in names}) == len(names)


@pytest.mark.parametrize("domain", ["", "x" * 256])
def test_a_domain_name_that_no_folder_can_have_is_refused(domain: str) -> None:
    with pytest.raises(ValueError, match="a folder takes 1 to 255"):
        domain_folder("tokens", domain)


def test_equal_contents_have_equal_fingerprints_and_any_change_another(write_store) -> None:
    base = TokenStore(write_store("a", TWO_SHARDS)).fingerprint
    assert TokenStore(write_store("b", TWO_SHARDS)).fingerprint == base
    others = [
        TokenStore(write_store("c", [[[5, 6, 1], [], [7, 2]], [[8, 9, 10, 1]]])),
        TokenStore(write_store("d", [[[5, 6, 1, 7, 1]], [[8, 9, 10, 1]]])),
        TokenStore(write_store("e", TWO_SHARDS[::-1])),
        TokenStore(write_store("f", TWO_SHARDS, dtype="uint32")),
        TokenStore(write_store("g", TWO_SHARDS, tokenizer_hash="t1")),
        TokenStore(write_store("h", TWO_SHARDS, eos_id=2)),
    ]
    assert len({base, *(store.fingerprint for store in others)}) == 7


def test_splits_are_apart(write_store) -> None:
    write_store("web", TWO_SHARDS)
    folder = write_store("web", [[[3, 1]]], split="validation")
    assert TokenStore(folder).n_tokens == 9
    assert TokenStore(folder, split="validation").n_tokens == 2
    with pytest.raises(ValueError, match=r"no split 'test'; its splits are \['train', 'validation'\]"):
        TokenStore(folder, split="test")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([70_000], [0, 1], [0], "uint16"), "tokens run from 70000 to 70000; uint16 takes 0 to 65535"),
        (([-1], [0, 1], [0], "uint32"), "tokens run from -1 to -1; uint32 takes 0 to"),
        (([1], [0, 1], [0], "int64"), "dtype is 'int64'; tokens are stored as 'uint16' or 'uint32'"),
        (([1, 2], [0, 1], [0], "uint16"), "1 doc_ids and 2 tokens need 2 offsets from 0 to 2"),
        (([1], [0, 1], [0, 1], "uint16"), "2 doc_ids and 1 tokens need 3 offsets"),
        (([1], [], [], "uint16"), "0 doc_ids and 1 tokens need 1 offsets"),
        (([1, 2], [0, 2, 1, 2], [0, 1, 2], "uint16"), "offsets fall at document 1"),
    ],
)
def test_a_shard_that_makes_no_sense_is_not_written(tmp_path: Path, arguments, message: str) -> None:
    *arrays, dtype = arguments
    with pytest.raises(ValueError, match=message):
        write_token_shard(tmp_path / "train-00000.arrow", *(np.array(a, np.int64) for a in arrays), dtype)
    assert list(tmp_path.iterdir()) == []


def test_a_shard_under_another_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"tokens\.arrow: a shard is named like train-00000\.arrow"):
        write_token_shard(tmp_path / "tokens.arrow", np.array([1]), np.array([0, 1]), np.array([0]), "uint16")


def test_opening_says_what_is_wrong_with_the_folder(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match="nowhere: no such folder; a token store is a folder with a manifest"
    ):
        TokenStore(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no manifest\.json; tokenizing was not finished"):
        TokenStore(tmp_path)
    with pytest.raises(ValueError, match="shards of one dtype are needed, found no shards"):
        write_manifest(tmp_path, domain="web", vocab_size=10, tokenizer_hash="t", eos_id=0)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        TokenStore(tmp_path)


def edit_manifest(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_opening_says_what_is_wrong_with_the_manifest(write_store) -> None:
    folder = write_store("web", TWO_SHARDS)
    edit_manifest(folder, dtype="uint32")
    with pytest.raises(ValueError, match=r"dtype, documents, tokens and checksum are .'uint16', 3, 5"):
        TokenStore(folder)
    edit_manifest(folder, format_version=99)
    with pytest.raises(ValueError, match="format_version is 99; this version of cuvee reads 1"):
        TokenStore(folder)
    (folder / "manifest.json").write_text('{"format_version": 1}')
    with pytest.raises(ValueError, match=r"\['domain', 'dtype', .* missing; write the manifest again"):
        TokenStore(folder)


def test_a_store_without_tokens_is_refused(write_store) -> None:
    with pytest.raises(ValueError, match="split 'train' has 2 documents and no tokens; leave it out"):
        TokenStore(write_store("web", [[[], []]]))


def test_shards_of_two_dtypes_have_no_manifest(write_store) -> None:
    write_store("web", TWO_SHARDS, split="validation", dtype="uint32")
    with pytest.raises(ValueError, match=r"one dtype are needed, found \['uint16', 'uint32'\]"):
        write_store("web", TWO_SHARDS)


def test_a_missing_or_truncated_or_replaced_shard_is_named(write_store) -> None:
    folder = write_store("web", TWO_SHARDS)
    shard, whole = folder / "train-00001.arrow", (folder / "train-00001.arrow").read_bytes()
    shard.write_bytes(whole[:-100])
    with pytest.raises(
        ValueError, match=r"train-00001.arrow: \d+ bytes, the manifest says \d+; write the shard"
    ):
        TokenStore(folder)
    shard.write_bytes(whole[:-100] + bytes(100))
    with pytest.raises(ValueError, match=r"train-00001\.arrow: not a whole Arrow file"):
        TokenStore(folder)
    write_token_shard(shard, np.array([8, 9, 10, 2]), np.array([0, 4]), np.array([1000]), "uint16")
    with pytest.raises(ValueError, match="write the manifest again if the shard was replaced on purpose"):
        TokenStore(folder)
    shard.unlink()
    with pytest.raises(ValueError, match=r"train-00001\.arrow: the manifest names it and it is not there"):
        TokenStore(folder)


def test_verify_finds_a_flipped_token_and_one_outside_the_vocabulary(write_store) -> None:
    folder = write_store("web", TWO_SHARDS)
    shard = folder / "train-00001.arrow"
    flipped = shard.read_bytes().replace(np.array([8, 9, 10], np.uint16).tobytes(), bytes(6))
    shard.write_bytes(flipped)
    with pytest.raises(ValueError, match=r"train-00001\.arrow: its contents do not match its checksum"):
        TokenStore(folder).verify()
    with pytest.raises(ValueError, match=r"train-00000\.arrow: token 7 is outside vocab_size 7"):
        TokenStore(write_store("code", TWO_SHARDS, vocab_size=7)).verify()


def test_another_arrow_file_is_no_shard(tmp_path: Path) -> None:
    table = pa.table({"text": ["a"]})
    with pa.ipc.new_file(str(tmp_path / "train-00000.arrow"), table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(ValueError, match=r"not a token shard: 1 batches of \(text: string\)"):
        open_shard(tmp_path / "train-00000.arrow")

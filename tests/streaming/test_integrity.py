import contextlib
import itertools
import logging
import threading

import numpy as np
import pytest

from cuvee.streaming import StreamingLoader
from cuvee.streaming.decomposition import Vsl

L = 8


@pytest.fixture
def sources(write_stream):
    return {
        name: write_stream(name, 300, first=10_000 * k, n_shards=3) for k, name in enumerate(["code", "web"])
    }


def corrupt(folder, shard: int) -> None:
    """Flip bits in the middle of a shard's tokens, where its size and footer stay."""
    path = folder / f"train-{shard:05d}.arrow"
    data = bytearray(path.read_bytes())
    tokens = np.arange(40, 44, dtype=np.uint16) + (
        100 * shard if folder.name == "code" else 10_000 + 100 * shard
    )
    at = data.index(tokens.tobytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def loader(sources, **options) -> StreamingLoader:
    arguments = {"sequence_length": L, "global_batch": 6, "verify": True, **options}
    return StreamingLoader(sources, {"code": 0.5, "web": 0.5}, **arguments)


def rows(batches, n: int) -> list[list[int]]:
    """Of the plan: with vsl each is several sequences."""
    return [row for batch in itertools.islice(batches, n) for row in batch.input_ids.view(-1, L).tolist()]


@pytest.mark.parametrize("packing", ["concat", "crop", "best_fit", Vsl(min_length=2)], ids=str)
def test_rows_of_a_corrupt_shard_are_replaced_and_the_others_stay(sources, packing, caplog) -> None:
    expected = rows(loader(sources, packing=packing), 20)
    corrupt(sources["code"], 1)
    running = loader(sources, packing=packing)
    with caplog.at_level(logging.WARNING, "cuvee.streaming"):
        found = rows(running, 20)
    assert any(100 <= token < 200 for row in expected for token in row)
    assert not any(100 <= token < 200 for row in found for token in row)
    for before, after in zip(expected, found, strict=True):
        touched = any(100 <= token < 200 for token in [*before, before[-1] + 1])
        assert touched or before == after
        assert (before[0] < 10_000) == (after[0] < 10_000)
    events = running.stats()["events"]
    assert [event["domain"] for event in events] == ["code"]
    assert events[0]["event"].startswith("quarantined ")
    assert events[0]["event"].endswith("train-00001.arrow")
    assert "train-00001.arrow: its contents do not match its checksum" in caplog.text
    kept = [value for record in caplog.records for value in record.args]
    assert not any(isinstance(value, BaseException) for value in kept)  # with its frames, and so the loader


@pytest.mark.parametrize("packing", ["concat", Vsl(min_length=2)], ids=str)
def test_replacements_are_the_same_after_a_resume_at_any_world_size_and_executor(sources, packing) -> None:
    corrupt(sources["web"], 0)
    undisturbed = rows(loader(sources, packing=packing), 20)
    running = loader(sources, packing=packing, prefetch=2)
    assert rows(running, 7) == undisturbed[:42]
    ranks = [loader(sources, packing=packing, rank=rank, world_size=2, workers=rank) for rank in range(2)]
    for rank in ranks:
        rank.load_state_dict(running.state_dict())
    for step in range(7, 15):
        assert [*rows(ranks[0], 1), *rows(ranks[1], 1)] == undisturbed[6 * step : 6 * step + 6]


def test_a_shard_is_read_only_once_and_only_when_it_is_needed(sources, monkeypatch) -> None:
    verified = []
    verify = "cuvee.streaming.shards.TokenStore.verify_shard"
    monkeypatch.setattr(verify, lambda store, index: verified.append((store.domain, index)))
    running = loader(sources)
    assert verified == []
    rows(running, 30)
    assert sorted(verified) == list(itertools.product(["code", "web"], range(3)))


def test_a_corrupt_shard_that_two_threads_need_at_once_is_read_and_quarantined_once(
    sources, monkeypatch
) -> None:
    read, both = [], threading.Barrier(2)

    def corrupt_for_all(store, index: int) -> None:
        read.append(index)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(1)  # for another that reads it meanwhile
        raise ValueError(f"{index}: corrupt")

    monkeypatch.setattr("cuvee.streaming.shards.TokenStore.verify_shard", corrupt_for_all)
    verifier = loader(sources)._verifier
    threads = [threading.Thread(target=verifier._verify, args=(0, 0)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == [0]
    assert len(verifier.quarantined) == 1


def test_a_domain_whose_shards_are_all_corrupt_is_an_error(sources) -> None:
    for shard in range(3):
        corrupt(sources["web"], shard)
    with pytest.raises(ValueError, match="domain 'web': no row was found whose shards match their checksums"):
        rows(loader(sources), 1)


def test_without_verify_tokens_come_as_they_lie(sources) -> None:
    expected = rows(loader(sources, verify=False), 20)
    corrupt(sources["code"], 1)
    found = rows(loader(sources, verify=False), 20)
    assert len(expected) == len(found)
    assert expected != found

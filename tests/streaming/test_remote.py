import contextlib
import gc
import hashlib
import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import fsspec
import numpy as np
import pytest

from cuvee.streaming import StreamingLoader, TokenStore
from cuvee.streaming.batch import FIELDS
from cuvee.streaming.cache import Cache
from cuvee.streaming.manifest import MANIFEST
from cuvee.streaming.shards import read_offsets, shard_name, write_manifest, write_token_shard

SIZES = {"code": 100, "web": 400, "wiki": 61}
WEIGHTS = {"code": 0.3, "web": 0.5, "wiki": 0.2}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch) -> None:
    """For neither the network nor a disk that others are writing to."""
    monkeypatch.setattr("cuvee.streaming.cache.SECONDS_BEFORE_RETRY", 0)
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture(autouse=True)
def _threads_end(_no_waiting, monkeypatch) -> Iterator[None]:
    """With their test: what they read is not the next one's."""
    before = fetchers()
    yield
    wait_for_fetchers(before)
    assert not [thread for thread in fetchers() if thread not in before]


def fetchers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "cuvee-fetch"]


def wait_for_fetchers(besides: Sequence[threading.Thread] = ()) -> None:
    """Of loaders that are closed, or that no one has any more."""
    gc.collect()
    deadline = time.monotonic() + 30
    for thread in fetchers():
        if thread not in besides:
            thread.join(max(0, deadline - time.monotonic()))


@pytest.fixture
def sources(write_stream) -> dict[str, Path]:
    return {
        name: write_stream(name, n, first=10_000 * k, n_shards=4) for k, (name, n) in enumerate(SIZES.items())
    }


@pytest.fixture
def uris(sources) -> dict[str, str]:
    """The same domains in fsspec's memory."""
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    for name, folder in sources.items():
        for path in folder.iterdir():
            memory.pipe_file(f"/bucket/{name}/{path.name}", path.read_bytes())
    return {name: f"memory://bucket/{name}" for name in sources}


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """The files of which ranges are read, one entry for each range."""
    found: list[str] = []
    from cuvee.streaming import remote

    read_range = remote.read_range

    def recorded(uri: str, start: int, end: int) -> bytes:
        found.append(uri)
        return read_range(uri, start, end)

    monkeypatch.setattr(remote, "read_range", recorded)
    return found


def loader(sources, **options) -> StreamingLoader:
    arguments = {"sequence_length": 8, "global_batch": 12, "emit": FIELDS, "prefetch": 0, **options}
    return StreamingLoader(sources, WEIGHTS, **arguments)


def digest(batch) -> str:
    values = [batch[name] for name in batch.keys()]  # noqa: SIM118 (a Batch is no dict)
    parts = [bytes(v) if isinstance(v, int) else v.numpy().tobytes() for v in values]
    return hashlib.blake2b(b"".join([bytes(batch.step), *parts])).hexdigest()


def take(batches: StreamingLoader, n: int) -> list[str]:
    return [digest(batch) for batch in itertools.islice(batches, n)]


def n_bytes_of(folder: Path) -> int:
    """Of the files of a cache, while none may be removed to make room for another."""
    total = 0
    with Cache(folder)._locked():
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # one that could not be fetched
                total += path.stat().st_size
    return total


@pytest.mark.parametrize(
    ("packing", "options"),
    [
        ("concat", {"mask_boundaries": False}),
        ("concat", {"prefetch": 3}),
        ("crop", {}),
        ("best_fit", {}),
        ("best_fit", {"prefetch": 3}),
    ],
    ids=str,
)
def test_batches_of_remote_shards_are_those_of_local_ones(sources, uris, tmp_path, packing, options) -> None:
    expected = take(loader(sources, packing=packing, **{**options, "prefetch": 0}), 30)
    running = loader(uris, packing=packing, cache=tmp_path / "cache", **options)
    assert take(running, 30) == expected
    running.close()


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_worker_processes_fetch_shards_too(sources, tmp_path, packing: str) -> None:
    uris = {name: f"file://{folder}" for name, folder in sources.items()}
    mixed = {**uris, "wiki": sources["wiki"]}
    running = loader(mixed, packing=packing, workers=1, cache=tmp_path / "cache", cache_bytes=2**20)
    assert take(running, 20) == take(loader(sources, packing=packing), 20)
    running.close()


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_a_cache_of_a_few_shards_gives_the_same_batches(sources, uris, tmp_path, packing: str, read) -> None:
    shards = [path for folder in sources.values() for path in folder.glob("*.arrow")]
    limit = 5 * max(path.stat().st_size for path in shards) + 400  # of 12 shards, and offsets
    options = {"packing": packing, "global_batch": 3}
    running = loader(uris, cache=tmp_path / "cache", cache_bytes=limit, **options)
    expected, found = loader(sources, **options), []
    for _ in range(30):
        found += take(running, 1)
        assert n_bytes_of(tmp_path / "cache") <= limit
    assert found == take(expected, 30)
    assert max(map(read.count, read)) > 1


def test_ranks_that_share_a_small_cache_all_get_their_batches(sources, uris, tmp_path) -> None:
    shards = [path for folder in sources.values() for path in folder.glob("*.arrow")]
    limit = 5 * max(path.stat().st_size for path in shards)
    options = {"global_batch": 9, "world_size": 3}
    found: dict[int, list[str]] = {}

    def run(rank: int) -> None:
        running = loader(uris, rank=rank, cache=tmp_path / "cache", cache_bytes=limit, **options)
        found[rank] = take(running, 12)

    ranks = [threading.Thread(target=run, args=(rank,)) for rank in range(3)]
    for thread in ranks:
        thread.start()
    for thread in ranks:
        thread.join()
    assert found == {rank: take(loader(sources, rank=rank, **options), 12) for rank in range(3)}


def test_the_first_batch_fetches_its_own_shards_alone(uris, tmp_path, read) -> None:
    running = loader(uris, global_batch=1, cache=tmp_path / "cache", mask_boundaries=True)
    assert read == []
    batch = next(running)
    first, last = int(batch.input_ids[0, 0]), int(batch.input_ids[0, -1])
    assert 1 <= len(read) <= 2
    domain = running.domains[int(batch.domain_ids[0])]
    begins = [int(part[0]) for part in np.array_split(np.arange(SIZES[domain]), 4)]
    wanted = {int(np.searchsorted(begins, at % 10_000, side="right")) - 1 for at in (first, last)}
    assert {uri[-11:] for uri in read} == {f"{shard:05d}.arrow" for shard in wanted}


def test_best_fit_plans_from_ranges_that_hold_offsets_and_no_tokens(uris, tmp_path, read) -> None:
    running = loader(uris, packing="best_fit", cache=tmp_path / "cache")
    assert len(read) == len(set(read)) == 12
    assert {path.suffix for path in (tmp_path / "cache").iterdir() if path.suffix} == {".offsets"}
    del read[:]
    again = loader(uris, packing="best_fit", cache=tmp_path / "cache")
    assert read == []
    assert take(again, 3) == take(running, 3)


def test_shards_of_planned_batches_are_fetched_ahead_of_them(sources, uris, tmp_path, read) -> None:
    running = loader(uris, global_batch=1, cache=tmp_path / "cache")
    take(running, 2)
    assert fetchers()
    deadline = time.monotonic() + 60
    while len(set(read)) <= 4:
        assert time.monotonic() < deadline, "no shard was fetched ahead"
        time.sleep(0.01)
    running.close()
    again = loader(sources, global_batch=1)
    assert take(running, 3) == take(again, 5)[2:]


def test_threads_that_fetch_end_with_their_loader(uris, tmp_path) -> None:
    running = loader(uris, cache=tmp_path / "cache")
    take(running, 2)
    ours = fetchers()
    assert ours
    del running
    wait_for_fetchers()
    assert not any(thread.is_alive() for thread in ours)


def test_a_run_is_resumed_from_local_to_remote_and_back_at_other_world_sizes(sources, uris, tmp_path) -> None:
    undisturbed = loader(sources)
    running = loader(uris, cache=tmp_path / "one")
    assert take(running, 7) == take(undisturbed, 7)
    state = json.loads(json.dumps(running.state_dict()))
    ranks = [loader(uris, rank=rank, world_size=2, cache=tmp_path / "two") for rank in range(2)]
    for rank in ranks:
        rank.load_state_dict(state)
    for _ in range(5):
        whole, parts = next(undisturbed), [next(rank) for rank in ranks]
        assert whole.input_ids.tolist() == [row for part in parts for row in part.input_ids.tolist()]
    back = loader(sources)
    back.load_state_dict(ranks[1].state_dict())
    assert take(back, 5) == take(undisturbed, 5)


def test_originals_stay_even_where_the_cache_is_their_folder(sources) -> None:
    folder = sources["web"]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    limit = 3 * max(path.stat().st_size for path in folder.glob("*.arrow"))
    uris = {name: f"file://{folder}" for name, folder in sources.items()}
    take(loader(uris, global_batch=1, cache=folder, cache_bytes=limit), 40)
    assert {name: (folder / name).read_bytes() for name in before} == before


@pytest.mark.parametrize(
    ("packing", "besides"), [("concat", ""), ("best_fit", " and the offsets of documents")]
)
def test_a_cache_too_small_says_how_much_it_needs(uris, tmp_path, packing: str, besides: str) -> None:
    options = {"packing": packing, "cache": tmp_path / "cache"}
    largest = rf"cache_bytes is 400, less than the (\d+) bytes of the largest shard{besides}; set it to \1 or"
    with pytest.raises(ValueError, match=largest):
        loader(uris, **options, cache_bytes=400)
    running = loader(uris, **options, cache_bytes=3000)
    of_batch = rf"cache_bytes is 3000, less than the (\d+) bytes of the \d+ shards of one batch{besides}; set"
    with pytest.raises(ValueError, match=of_batch):
        next(running)


def test_cut_and_flipped_files_of_the_cache_are_fetched_again(sources, uris, tmp_path, read) -> None:
    cache, expected = tmp_path / "cache", take(loader(sources), 10)
    take(loader(uris, cache=cache), 10)
    wait_for_fetchers()
    cut, flipped = sorted(cache.glob("*.shard"))[:2]
    cut.write_bytes(cut.read_bytes()[:-5])
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 0xFF
    flipped.write_bytes(data)
    del read[:]
    assert take(loader(uris, cache=cache, verify=True), 10) == expected
    assert len(read) == 2


def flip_a_token(uri: str, first: int) -> None:
    memory = fsspec.filesystem("memory")
    data = bytearray(memory.cat_file(uri))
    data[data.index(np.arange(first, first + 4, dtype=np.uint16).tobytes())] ^= 0xFF
    memory.pipe_file(uri, bytes(data))


def test_a_remote_shard_that_is_corrupt_is_refused_or_replaced_as_a_local_one(
    sources, uris, tmp_path, read
) -> None:
    flip_a_token(f"{uris['web']}/train-00001.arrow", 10_140)
    with pytest.raises(ValueError, match=r"train-00001.arrow: its contents do not match .*fetched 3 times"):
        take(loader(uris, cache=tmp_path / "cache"), 50)
    path = sources["web"] / "train-00001.arrow"
    path.write_bytes(fsspec.filesystem("memory").cat_file("/bucket/web/train-00001.arrow"))
    expected, found = loader(sources, verify=True), loader(uris, verify=True, cache=tmp_path / "cache")
    assert take(found, 20) == take(expected, 20)
    assert found.stats()["events"][0]["event"] == "quarantined memory://bucket/web/train-00001.arrow"


def test_offsets_that_cannot_be_are_refused(sources) -> None:
    path = sources["web"] / "train-00000.arrow"
    data = path.read_bytes()
    store = TokenStore(sources["web"])
    entry = json.loads((sources["web"] / MANIFEST).read_bytes())["splits"]["train"][0]

    def offsets(data: bytes) -> np.ndarray:
        return read_offsets(lambda start, end: data[start:end], entry, "s3://x")

    assert offsets(data).tolist() == store.offsets[0].tolist() == [0, 3, 100]
    at = data.index(np.array([0, 3, 100]).tobytes())
    for wrong in ([1, 3, 100], [0, 3, 99], [0, 101, 100], [0, -1, 100]):
        broken = data[:at] + np.array(wrong).tobytes() + data[at + 24 :]
        with pytest.raises(ValueError, match=r"s3://x: its 3 offsets run from .*; write"):
            offsets(broken)
    with pytest.raises(ValueError, match="s3://x: its 1 offsets run from"):
        offsets(data[: at + 8])
    for not_arrow in (b"", b"PAR1" + data[4:], data[:12], bytes(5000)):
        with pytest.raises(ValueError, match=r"s3://x: begins with .*not a token shard"):
            offsets(not_arrow)


def test_sources_that_cannot_be_fetched_are_refused_by_name(uris, tmp_path) -> None:
    with pytest.raises(ValueError, match="'code' is memory://bucket/code, which is fetched; say where to"):
        loader(uris)
    with pytest.raises(ValueError, match=r"memory://bucket/nowhere: no manifest\.json there"):
        loader({**uris, "web": "memory://bucket/nowhere"}, cache=tmp_path)
    with pytest.raises(ValueError, match=r"nosuch://bucket/web/manifest\.json: Protocol not known: nosuch"):
        loader({**uris, "web": "nosuch://bucket/web"}, cache=tmp_path)
    with pytest.raises(ValueError, match=r"memory://bucket/code: no split 'dev'; its splits are \['train'\]"):
        loader(uris, split="dev", cache=tmp_path)
    with pytest.raises(ValueError, match="cache_bytes is 5 and cache None; cache names a folder"):
        loader(uris, cache_bytes=5)
    with pytest.raises(
        ValueError, match="less than the 96 bytes of the documents' offsets of memory://bucket/code"
    ):
        loader(uris, packing="best_fit", cache=tmp_path, cache_bytes=5)


def test_a_shard_that_is_missing_is_an_error_that_names_it(uris, tmp_path) -> None:
    fsspec.filesystem("memory").rm("/bucket/web/train-00002.arrow")
    with pytest.raises(FileNotFoundError, match=r"web/train-00002\.arrow: not there, though the manifest"):
        take(loader(uris, cache=tmp_path / "cache"), 50)


def test_a_repeated_remote_shard_is_fetched_once_and_read_as_often_as_a_local_one(tmp_path, read) -> None:
    folder = tmp_path / "web"
    for k, repeat in enumerate([1, 3]):
        tokens, path = np.arange(100 * k, 100 * k + 60), folder / shard_name("train", k, repeat)
        write_token_shard(path, tokens, np.array([0, 7, 60]), np.zeros(2, np.uint64), "uint16")
    write_manifest(folder, domain="web", vocab_size=60_000, tokenizer_hash="t0", eos_id=1)
    options = {"sequence_length": 8, "global_batch": 5, "max_epochs": 2}
    for packing in ("concat", "best_fit"):
        local = StreamingLoader({"web": folder}, packing=packing, **options)
        remote = StreamingLoader(
            {"web": f"file://{folder}"}, packing=packing, cache=tmp_path / packing, **options
        )
        del read[:]
        assert [digest(batch) for batch in remote] == [digest(batch) for batch in local]
        assert len(read) == 2

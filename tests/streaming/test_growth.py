import itertools
import json

import numpy as np
import pytest

from cuvee.streaming import StreamingLoader
from cuvee.streaming.shards import write_manifest, write_token_shard

L = 8
SHARDS = [100, 130, 60, 90]  # tokens; a token tells where it stands


@pytest.fixture
def web(tmp_path):
    """Writes a domain of the first n shards, documents of 5 tokens each, once, and returns its folder."""

    def write(n_shards: int, of: int = 0):
        folder = tmp_path / f"web-{n_shards}-{of}"
        if folder.exists():
            return folder
        first = of
        for k, n_tokens in enumerate(SHARDS[:n_shards]):
            offsets = np.arange(0, n_tokens + 1, 5)
            doc_ids = np.arange(offsets.size - 1, dtype=np.uint64)
            tokens = np.arange(first, first + n_tokens)
            write_token_shard(folder / f"train-{k:05d}.arrow", tokens, offsets, doc_ids, "uint16")
            first += n_tokens
        write_manifest(folder, domain="web", vocab_size=60_000, tokenizer_hash="t0", eos_id=59_999)
        return folder

    return write


def loader(folder, other=None, **options) -> StreamingLoader:
    sources = {"web": folder, **({} if other is None else {"other": other})}
    weights = {"web": 1.0} if other is None else {"web": 0.5, "other": 0.5}
    return StreamingLoader(sources, weights, **{"sequence_length": L, "global_batch": 3, **options})


def resumed(folder, state, other=None, **options) -> StreamingLoader:
    running = loader(folder, other, **options)
    running.load_state_dict(json.loads(json.dumps(state)))
    return running


def rows(batches: StreamingLoader, n: int | None = None) -> list[tuple[int, ...]]:
    return [tuple(row) for batch in itertools.islice(batches, n) for row in batch.input_ids.tolist()]


def tokens(drawn: list[tuple[int, ...]]) -> list[int]:
    return [token for row in drawn for token in row if token != 59_999]


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_appended_rows_come_behind_those_of_the_epoch_in_progress(web, packing: str) -> None:
    options = {"packing": packing, "global_batch": 1}
    undisturbed = loader(web(2), **options)
    n_rows = len(rows(loader(web(2), max_epochs=1, **options)))
    n_more = len(rows(loader(web(4), max_epochs=1, **options))) - n_rows
    expected = rows(undisturbed, n_rows)
    for step in range(1, n_rows):
        running = loader(web(2), **options)
        rows(running, step)
        grown = resumed(web(4), running.state_dict(), **options)
        assert rows(grown, n_rows - step) == expected[step:]
        further = rows(grown, n_more - 1)
        assert min(tokens(further)) >= 230
        assert len(set(tokens(further))) == len(tokens(further))


@pytest.mark.parametrize("packing", ["concat", "crop", "best_fit"])
def test_from_the_next_epoch_on_all_shards_are_one(web, packing: str) -> None:
    options = {"packing": packing, "global_batch": 1}
    running = loader(web(2), **options)
    rows(running, 5)
    grown = resumed(web(4), running.state_dict(), **options)
    while grown.state_dict()["domains"]["web"]["position"][0] == 0:
        next(grown)
    fresh = loader(web(4), **options)
    while fresh.state_dict()["domains"]["web"]["position"][0] == 0:
        next(fresh)
    assert rows(grown, 60) == rows(fresh, 60)


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_shards_appended_again_and_again_lose_and_repeat_nothing(web, packing: str) -> None:
    options = {"packing": packing, "max_epochs": 1, "global_batch": 1}
    running, seen = loader(web(1), **options), []
    for n_shards in (2, 3, 4):
        seen += rows(running, 4)
        running = resumed(web(n_shards), running.state_dict(), **options)
    seen += rows(running)
    found = tokens(seen)
    assert len(set(found)) == len(found)
    # Of the documents' tokens, concat leaves what is behind the last whole row of each of the four parts.
    assert len(found) > sum(SHARDS) - (4 * (L + 1) if packing == "concat" else 1)
    assert [event["event"] for event in running.stats()["events"]] == [
        "appended 1 shards, 130 tokens",
        "appended 1 shards, 60 tokens",
        "appended 1 shards, 90 tokens",
        "reached max_epochs",
    ]
    assert running.stats()["epochs"] == {"web": 1.0}


@pytest.mark.parametrize("executor", [{"prefetch": 0}, {"prefetch": 3}], ids=str)
def test_a_grown_run_is_resumed_exactly_at_every_step_and_world_size(web, executor) -> None:
    options = {"packing": "best_fit", "global_batch": 4, **executor}
    running = loader(web(2), **options)
    rows(running, 3)
    grown = resumed(web(3), running.state_dict(), **options)
    rows(grown, 4)
    again = resumed(web(4), grown.state_dict(), **options)
    undisturbed = resumed(web(4), grown.state_dict(), **options)
    expected = rows(undisturbed, 40)
    for step in range(25):
        ranks = [resumed(web(4), again.state_dict(), **options, rank=rank, world_size=2) for rank in range(2)]
        assert rows(ranks[0], 1) + rows(ranks[1], 1) == expected[4 * step : 4 * step + 4]
        next(again)
        for rank in ranks:
            rank.close()
    again.close()
    undisturbed.close()


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
@pytest.mark.parametrize(("cap", "n_tokens"), [(1, 380), (2, 290 + 380), (0.5, 190)])
def test_a_domain_that_max_epochs_had_ended_goes_on_in_its_last_epoch(
    web, packing: str, cap, n_tokens
) -> None:
    options = {"packing": packing, "max_epochs": cap, "global_batch": 1}
    running = loader(web(3), **options)
    before = rows(running)
    grown = resumed(web(4), running.state_dict(), **options)
    further = rows(grown)
    assert abs(len(tokens(before + further)) - n_tokens) <= 4 * (L + 1)  # a part of a row for each part
    last = tokens([*before[-5:], *further])
    assert len(set(last)) == len(last)
    assert grown.stats()["epochs"]["web"] == pytest.approx(cap, abs=0.1)


def test_an_epoch_that_was_not_begun_has_all_shards_as_one(web) -> None:
    grown = resumed(web(4), loader(web(2)).state_dict())
    assert rows(grown, 20) == rows(loader(web(4)), 20)
    assert grown.stats()["events"] == [{"step": 0, "domain": "web", "event": "appended 2 shards, 150 tokens"}]


def test_natural_weights_stay_those_of_the_state(web) -> None:
    sources = {"web": web(2), "other": web(1, of=10_000)}
    running = StreamingLoader(sources, sequence_length=L, global_batch=3)
    next(running)
    grown = StreamingLoader({**sources, "web": web(4)}, sequence_length=L, global_batch=3)
    assert grown.stats()["weights"] != running.stats()["weights"]
    grown.load_state_dict(running.state_dict())
    assert grown.stats()["weights"] == running.stats()["weights"]
    joined = StreamingLoader({**sources, "third": web(3, of=20_000)}, sequence_length=L, global_batch=3)
    with pytest.raises(ValueError, match="state: weights is"):
        joined.load_state_dict(running.state_dict())


def test_shards_that_were_removed_changed_or_put_in_front_are_refused(web, tmp_path) -> None:
    running = loader(web(3))
    rows(running, 2)
    expected = rows(loader(web(2)), 3)
    for other in (web(2), web(3, of=1), web(4, of=1)):
        refusing = loader(other)
        with pytest.raises(ValueError, match=r"domains\.web\.fingerprint is .* others only behind"):
            refusing.load_state_dict(running.state_dict())
    unchanged = loader(web(2))
    with pytest.raises(ValueError, match=r"domains\.web\.fingerprint"):
        unchanged.load_state_dict(running.state_dict())
    assert rows(unchanged, 3) == expected


def test_rows_of_other_domains_stay_as_they_were(web) -> None:
    other = web(2, of=10_000)
    running = loader(web(2), other)
    rows(running, 4)
    state = running.state_dict()
    same, grown = resumed(web(2), state, other), resumed(web(4), state, other)
    for _ in range(60):
        batches = next(same), next(grown)
        of_other = [[row for row in batch.input_ids.tolist() if row[0] >= 10_000] for batch in batches]
        assert of_other[0] == of_other[1]
    assert {type(event["step"]) for event in grown.stats()["events"]} == {int}


def test_rows_of_a_corrupt_shard_that_was_appended_are_replaced(web) -> None:
    folder = web(4)
    path = folder / "train-00003.arrow"
    data = bytearray(path.read_bytes())
    data[data.index(np.arange(320, 330, dtype=np.uint16).tobytes())] ^= 0xFF
    path.write_bytes(data)
    running = loader(web(2), max_epochs=1)
    rows(running, 2)
    state = running.state_dict()
    found = rows(resumed(folder, state, max_epochs=1, verify=True))
    assert not any(290 <= token < 380 for token in tokens(found))
    assert rows(resumed(folder, state, max_epochs=1, verify=True)) == found

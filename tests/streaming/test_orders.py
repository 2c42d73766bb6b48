import itertools
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cuvee.streaming import StreamingLoader, Vsl, remote
from cuvee.streaming.orders import Order

L = 4


WEIGHTS = {"code": 0.5, "web": 0.5}


def loader(sources, weights=WEIGHTS, **options) -> StreamingLoader:
    arguments = {"sequence_length": L, "global_batch": 4, "window": 2, **options}
    return StreamingLoader(sources, weights, **arguments)


@pytest.fixture
def sources(write_stream):
    return {
        name: write_stream(name, 400, 1000 * k + 2, n_shards=10) for k, name in enumerate(["code", "web"])
    }


@given(st.lists(st.integers(0, 20), min_size=1, max_size=12), st.integers(1, 14), st.integers(0, 3))
def test_windows_are_a_bijection_and_hold_as_many_shards(sizes, window, epoch) -> None:
    bounds = np.cumsum([0, *sizes])
    order = Order("web", 0, bounds.tolist(), window)
    found = order(np.arange(bounds[-1]), epoch, compiled=False)
    assert sorted(found.tolist()) == list(range(bounds[-1]))
    shards = np.searchsorted(bounds, found, side="right") - 1
    drawn = [*dict.fromkeys(shards.tolist())]  # in the order in which they first come
    if window < len(sizes):
        # The first `window` shards with elements are used up before any other comes.
        n_first = sum(sizes[shard] for shard in sorted(drawn[:window]))
        assert set(shards[:n_first].tolist()) == set(drawn[:window])


@given(st.lists(st.integers(0, 20), min_size=1, max_size=12), st.integers(1, 14), st.data())
def test_any_part_of_an_order_is_that_part_of_the_whole(sizes, window, data) -> None:
    order = Order("web", 0, np.cumsum([0, *sizes]).tolist(), window)
    begin = data.draw(st.integers(0, order.n))
    end = data.draw(st.integers(begin, order.n))
    whole = order(np.arange(order.n), 1, compiled=False)
    np.testing.assert_array_equal(order(np.arange(begin, end), 1, compiled=False), whole[begin:end])


def test_epochs_have_other_windows_in_another_order() -> None:
    order = Order("web", 0, [*range(0, 101, 10)], 2)
    firsts = {tuple(sorted({*(order(np.arange(20), epoch) // 10).tolist()})) for epoch in range(40)}
    assert len(firsts) > 10


@pytest.mark.parametrize("packing", ["concat", "crop", "best_fit", Vsl(min_length=2, cycle_steps=8)])
def test_a_windowed_run_saved_at_any_step_goes_on_exactly(sources, packing) -> None:
    undisturbed = [batch.input_ids for batch in itertools.islice(loader(sources, packing=packing), 24)]
    running = loader(sources, packing=packing)
    for step in range(20):
        resumed = loader(sources, packing=packing)
        resumed.load_state_dict(json.loads(json.dumps(running.state_dict())))
        for k in range(3):
            assert torch.equal(next(resumed).input_ids, undisturbed[step + k])
        next(running)


def test_an_epoch_of_windows_has_no_token_twice_and_all_but_the_ends_of_shards(sources) -> None:
    batches = loader(sources, None, global_batch=1, max_epochs=1)
    inputs = [token for batch in batches for token in batch.input_ids[0].tolist()]
    assert (
        len(set(inputs)) == len(inputs) == 2 * 10 * 36
    )  # of 40 tokens, nine rows of 4 and the label after them


def test_a_state_of_another_window_is_refused(sources) -> None:
    with pytest.raises(ValueError, match="state: window is 2, this loader's is 0; the order would differ"):
        loader(sources, window=None).load_state_dict(loader(sources).state_dict())
    with pytest.raises(ValueError, match="window is 0; it must be at least 1 shard"):
        loader(sources, window=0)


def test_a_cache_that_holds_the_windows_fetches_hardly_a_shard_twice_an_epoch(
    sources, tmp_path, monkeypatch
) -> None:
    uris = {name: f"file://{folder}" for name, folder in sources.items()}
    n_bytes = max(path.stat().st_size for folder in sources.values() for path in folder.glob("*.arrow"))
    fetched, read_range = [], remote.read_range

    def counted(uri: str, start: int, end: int) -> bytes:
        fetched.append(uri)
        return read_range(uri, start, end)

    monkeypatch.setattr(remote, "read_range", counted)

    def n_fetched(window: int | None) -> int:
        fetched.clear()
        # Two windows of two shards, and as much for what is fetched ahead.
        options = {"window": window, "cache": tmp_path / str(window), "cache_bytes": 9 * n_bytes}
        for _ in loader(uris, global_batch=2, max_epochs=1, **options):
            pass
        return len(fetched)

    # Of 20. What is fetched ahead may drive out a shard just before its last rows.
    assert n_fetched(2) <= 30
    assert n_fetched(None) > 40

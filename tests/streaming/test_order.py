"""One sequence of global batches: hashes over world sizes, executors, prefetch, and kills at every step."""

import itertools
import json
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import pytest

from cuvee.streaming import StreamingLoader, TokenStore
from cuvee.streaming.batch import FIELDS

L, ROWS, N_STEPS = 16, 24, 200
WORLD_SIZES = (1, 2, 3, 4, 6, 8)
WEIGHTS = {"code": 0.3, "web": 0.5, "wiki": 0.2}
LATER = {"code": 0.1, "web": 0.3, "wiki": 0.6}


@pytest.fixture
def sources(write_store, monkeypatch) -> dict[str, TokenStore]:
    """Documents of 1 to 40 tokens; blocks so small that best_fit passes through several in an epoch."""
    monkeypatch.setattr("cuvee.streaming.packing.N_BLOCK_ROWS", 40)
    monkeypatch.setattr("cuvee.streaming.packing.N_BLOCK_DOCS", 40)
    random, stores = np.random.default_rng(0), {}
    for k, name in enumerate(WEIGHTS):
        lengths = random.integers(1, 41, 300)
        shards = [[[20_000 * k + n] * (n - 1) + [1] for n in part] for part in np.array_split(lengths, 3)]
        stores[name] = TokenStore(write_store(name, shards))
    return stores


def ranks(sources, world_size: int, **options: Any) -> list[StreamingLoader]:
    """A run in which weights change, a domain is exhausted, and batches have every field."""
    given = {
        "sequence_length": L, "global_batch": ROWS, "emit": FIELDS, "prefetch": 0, "steps": N_STEPS,
        "max_epochs": {"wiki": 3}, "schedule": [(90, LATER)], **options,
    }  # fmt: skip
    return [
        StreamingLoader(sources, WEIGHTS, rank=rank, world_size=world_size, **given)
        for rank in range(world_size)
    ]


def digests(loaders: Sequence[StreamingLoader]) -> Iterator[str]:
    """Of each global batch, of the ranks' parts in order."""
    for parts in zip(*loaders, strict=True):
        digest = blake2b(bytes(parts[0].step), digest_size=8)
        for name in ("input_ids", "labels", "position_ids", "domain_ids", "row_ids", "weights"):
            for part in parts:
                digest.update(part[name].numpy())
        ends = [part.cu_seqlens.numpy() + ROWS // len(parts) * L * k for k, part in enumerate(parts)]
        digest.update(np.unique(np.concatenate(ends)))
        digest.update(bytes(max(part.max_seqlen for part in parts)))
        yield digest.hexdigest()


def resumed(sources, state: str, world_size: int, **options: Any) -> list[StreamingLoader]:
    loaders = ranks(sources, world_size, **options)
    for loader in loaders:
        loader.load_state_dict(json.loads(state))
    return loaders


def saved(loaders: Sequence[StreamingLoader]) -> str:
    """The one state that all ranks have."""
    (state,) = {json.dumps(loader.state_dict()) for loader in loaders}
    return state


@pytest.mark.parametrize(("packing", "parity"), [("concat", 0), ("best_fit", 1)])
def test_a_run_killed_at_any_step_goes_on_three_times_at_other_world_sizes(
    sources, packing: str, parity: int
) -> None:
    """Half of the steps for each packing; `python -m benchmarks.loader --parts order` takes all for both.

    Also the runs that nothing disturbs, at each world size: they are the ones that are killed.
    """
    options = {"packing": packing}
    undisturbed = list(digests(ranks(sources, 1, **options)))
    assert len(undisturbed) == len(set(undisturbed)) == N_STEPS
    for first, world_size in enumerate(WORLD_SIZES):
        running = ranks(sources, world_size, **options)
        for step, digest in enumerate(digests(running), 1):
            assert digest == undisturbed[step - 1]
            if step % 2 != parity or step // 2 % len(WORLD_SIZES) != first:  # one world size's to be killed
                continue
            state = saved(running)
            for hop in range(min(3, N_STEPS - step)):
                others = resumed(sources, state, WORLD_SIZES[(first + 1 + step + hop) % 6], **options)
                assert list(itertools.islice(digests(others), 1)) == undisturbed[step + hop :][:1]
                state = saved(others)
        assert step == N_STEPS


@pytest.mark.parametrize(
    "ways",
    [
        [(2, {"prefetch": 1}), (1, {"prefetch": 4}), (3, {}), (1, {"prefetch": 2})],
        [(1, {"workers": 1, "prefetch": 3}), (2, {"prefetch": 3}), (8, {}), (1, {"prefetch": 9})],
    ],
    ids=str,
)
def test_executors_take_over_from_each_other_in_the_middle_of_a_run(sources, ways) -> None:
    undisturbed = list(digests(ranks(sources, 1, packing="best_fit")))
    state, found = saved(ranks(sources, 1, packing="best_fit")), []
    for (world_size, executor), n_steps in zip(ways, (37, 60, 1, N_STEPS), strict=True):
        loaders = resumed(sources, state, world_size, packing="best_fit", **executor)
        found += itertools.islice(digests(loaders), n_steps)
        state = saved(loaders)
        for loader in loaders:
            loader.close()
    assert found == undisturbed

"""Super-batches: who chooses, what comes back, what is kept, and that a run goes on exactly."""

import json
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from cuvee.streaming import Batch, StreamingLoader
from cuvee.streaming.epoch_selectors import InfoBatch
from cuvee.streaming.selectors import Candidates
from cuvee.streaming.superbatch import joined_batches

L, B = 8, 12
WEIGHTS = {"code": 0.3, "web": 0.5, "wiki": 0.2}


@pytest.fixture
def sources(write_stream):
    return {name: write_stream(name, 900 + 300 * k, first=10_000 * k) for k, name in enumerate(WEIGHTS)}


def loader(sources, **options) -> StreamingLoader:
    return StreamingLoader(
        sources, **{"weights": WEIGHTS, "sequence_length": L, "global_batch": B, **options}
    )


def score(batch: Batch) -> torch.Tensor:
    """A score that depends on the row alone."""
    return torch.frac(torch.sin(batch.row_ids.double() * 12.9898 + batch.domain_ids) * 43758.5453).abs()


def names(batch: Batch) -> list[int]:
    return (batch.domain_ids * 100_000 + batch.row_ids).tolist()


def run(loader: StreamingLoader, n: int, factor: int = 3, **options: Any) -> list[list[int]]:
    found = []
    for _, candidates in zip(range(n), loader.superbatches(factor, "hard_batches", **options), strict=False):
        found.append(names(candidates.select(scores=score(candidates.batch))))
    return found


class ThreadRanks:
    """Ranks that are threads of this process, for collectives without torch.distributed."""

    def __init__(self, rank: int, size: int, shared: dict[str, Any]) -> None:
        self.rank, self.size, self._shared = rank, size, shared

    def _exchange(self, values: np.ndarray) -> list[np.ndarray]:
        self._shared["values"][self.rank] = values
        self._shared["barrier"].wait(60)
        found = list(self._shared["values"])
        self._shared["barrier"].wait(60)
        return found

    def sum(self, values: np.ndarray) -> np.ndarray:
        return np.sum(self._exchange(values), axis=0)

    def from_first(self, values: np.ndarray) -> np.ndarray:
        return self._exchange(values)[0]

    def to_first(self, values: np.ndarray) -> list[np.ndarray]:
        found = self._exchange(values)
        return found if self.rank == 0 else []


def on_ranks(size: int, work: Callable[[ThreadRanks], Any]) -> list[Any]:
    """What `work` returns on each rank."""
    shared = {"values": [None] * size, "barrier": threading.Barrier(size)}
    results: list[Any] = [None] * size

    def one(rank: int) -> None:
        results[rank] = work(ThreadRanks(rank, size, shared))

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_candidates_are_the_rows_of_the_next_batches(sources) -> None:
    plain, batches = loader(sources), loader(sources)
    for _, candidates in zip(range(5), batches.superbatches(3), strict=False):
        expected = [next(plain) for _ in range(3)]
        assert names(candidates.batch) == [name for batch in expected for name in names(batch)]
        assert torch.equal(candidates.batch.input_ids, torch.cat([batch.input_ids for batch in expected]))
        assert len(candidates) == 3 * B


def test_rows_taken_from_the_candidates_are_those_copied_from_the_shards(sources) -> None:
    emit = ("input_ids", "labels", "domain_ids", "row_ids", "weights")
    # Where sequences begin is not taken from the candidates, so those rows are copied.
    taken, copied = (
        loader(sources, emit=fields, objective={"code": 0.2, "web": 0.2, "wiki": 0.6})
        for fields in (emit, (*emit, "cu_seqlens"))
    )
    for _, one, other in zip(
        range(5), taken.superbatches(3, "hard_batches"), copied.superbatches(3, "hard_batches"), strict=False
    ):
        found = one.select(scores=score(one.batch))
        expected = other.select(scores=score(other.batch))
        assert found.step == expected.step
        for name in found.keys():  # noqa: SIM118 (a Batch is no dict)
            assert torch.equal(found[name], expected[name])


def test_the_rows_chosen_are_those_with_the_greatest_scores_in_global_order(sources) -> None:
    for _, candidates in zip(range(5), loader(sources).superbatches(4, "hard_batches"), strict=False):
        scores = score(candidates.batch)
        batch = candidates.select(scores=scores)
        at = torch.sort(torch.argsort(scores, descending=True)[:B]).values
        assert names(batch) == [names(candidates.batch)[k] for k in at.tolist()]
        assert torch.equal(batch.input_ids, candidates.batch.input_ids[at])
        assert torch.equal(batch.labels, candidates.batch.labels[at])
        assert batch.weights.tolist() == [1.0] * B


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_train_on_what_one_process_would(sources, world_size: int) -> None:
    alone = run(loader(sources), 6, requeue=1)

    def work(ranks: ThreadRanks) -> tuple[list[list[int]], dict[str, Any]]:
        mine = loader(sources, rank=ranks.rank, world_size=world_size, ranks=ranks)
        return run(mine, 6, requeue=1), mine.state_dict()

    found = on_ranks(world_size, work)
    assert [[name for rows, _ in found for name in rows[k]] for k in range(6)] == alone
    assert all(state == found[0][1] for _, state in found)


@pytest.mark.parametrize("options", [{}, {"requeue": 1}])
@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_a_run_saved_after_any_super_batch_goes_on_as_if_undisturbed(sources, options, packing) -> None:
    expected = run(loader(sources, packing=packing), 8, **options)
    for stop in range(1, 7):
        first = loader(sources, packing=packing)
        assert run(first, stop, **options) == expected[:stop]
        state = json.loads(json.dumps(first.state_dict()))
        resumed = loader(sources, packing=packing)
        resumed.load_state_dict(state)
        assert run(resumed, 8 - stop, **options) == expected[stop:]


def test_asking_again_goes_on_where_the_last_super_batch_ended(sources) -> None:
    expected = run(loader(sources), 6, requeue=1)
    first = loader(sources)
    found = run(first, 2, requeue=1)
    state = json.loads(json.dumps(first.state_dict()))
    resumed = loader(sources)
    resumed.load_state_dict(state)
    assert resumed.state_dict()["superbatches"] == state["superbatches"]
    assert found + run(resumed, 2, requeue=1) + run(resumed, 2, requeue=1) == expected


def test_requeued_rows_come_once_more_and_no_more_than_allowed(sources) -> None:
    batches = loader(sources)
    seen: list[set[int]] = []
    kept: set[int] = set()
    for _, candidates in zip(range(6), batches.superbatches(3, "hard_batches", requeue=1), strict=False):
        found = names(candidates.batch)
        assert len(found) == 3 * B + (B if seen else 0)
        if seen:
            assert set(found[3 * B :]) <= seen[-1] - kept
        seen.append(set(found[: 3 * B]))
        kept = set(names(candidates.select(scores=score(candidates.batch))))


def test_weights_of_the_objective_and_of_the_selection_multiply(sources) -> None:
    emit = ("input_ids", "domain_ids", "row_ids", "weights")
    objective = {"code": 0.6, "web": 0.2, "wiki": 0.2}
    batches = loader(sources, emit=emit, objective=objective)
    batch = next(batches.superbatches(2)).select()
    expected = torch.tensor([objective[name] / WEIGHTS[name] for name in WEIGHTS])[batch.domain_ids]
    torch.testing.assert_close(batch.weights, expected.float())


def test_what_is_kept_is_counted_by_domain(sources) -> None:
    batches = loader(sources)
    kept = [name // 100_000 for rows in run(batches, 5) for name in rows]
    counts = batches.state_dict()["superbatches"]["kept"]
    assert [n for _, n in counts.values()] == np.bincount(kept, minlength=3).tolist()
    assert sum(n for n, _ in counts.values()) == 5 * 3 * B


def test_the_run_ends_with_the_last_whole_super_batch(sources) -> None:
    assert len(run(loader(sources, steps=11), 99)) == 3


def test_sequences_of_joined_batches_lie_one_after_another(sources) -> None:
    emit = ("input_ids", "cu_seqlens", "max_seqlen")
    batches = [next(loader(sources, emit=emit, packing="best_fit")) for _ in range(2)]
    joined = joined_batches(batches)
    first, second = (batch.cu_seqlens for batch in batches)
    assert joined.cu_seqlens.tolist() == [*first.tolist(), *(second[1:] + first[-1]).tolist()]
    assert joined.cu_seqlens.dtype == torch.int32


def test_feedback_of_candidates_counts_and_that_of_the_kept_rows_does_not_count_again(sources) -> None:
    batches = loader(sources, policy="mirror_descent")
    candidates = next(batches.superbatches(2))
    batches.feedback(candidates.batch, loss_per_row=score(candidates.batch))
    batch = candidates.select()
    batches.feedback(batch, loss_per_row=score(batch))
    reported = batches.state_dict()["online"]["domains"]
    assert sum(tokens for _, tokens, _ in reported.values()) == 2 * B * L


class Listener(InfoBatch):
    """Notes what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[dict[int, float]] = []

    def observe(self, trained: Candidates) -> None:
        super().observe(trained)
        if trained.losses is not None:  # InfoBatch looks into its candidates, too
            assert trained.row_ids is not None
            self.heard.append(dict(zip(trained.row_ids.tolist(), trained.losses.tolist(), strict=True)))


def learning_run(
    loader: StreamingLoader, n: int, method: str | InfoBatch = "infobatch", **options: Any
) -> list[list[int]]:
    """Rows that are kept by a method that sees losses of rows trained on alone."""
    found = []
    for _, candidates in zip(range(n), loader.superbatches(2, method, **options), strict=False):
        batch = candidates.select()
        loader.feedback(batch, loss_per_row=score(batch))
        found.append(names(batch))
    return found


def test_the_selector_hears_the_losses_of_the_rows_kept_before_it_chooses_next(sources) -> None:
    listener = Listener()
    batches = loader(sources)
    told = []
    for _, candidates in zip(range(4), batches.superbatches(2, listener), strict=False):
        batch = candidates.select()
        assert [sorted(heard.values()) for heard in listener.heard] == told
        batches.feedback(candidates.batch, loss_per_row=score(candidates.batch))
        batches.feedback(batch, loss_per_row=score(batch))
        told.append(sorted(score(batch).float().tolist()))
    plain = learning_run(loader(sources), 4)
    assert plain != run(loader(sources), 4, 2)


def test_reports_may_be_late_in_parts_repeated_or_no_numbers(sources) -> None:
    listener, batches = Listener(), loader(sources)
    superbatches = batches.superbatches(2, listener)
    first, second = (next(superbatches).select() for _ in range(2))
    parts = list(first.micro_batches(4))
    for part in (parts[2], parts[0], parts[2]):
        batches.feedback(part, loss_per_row=score(part))
    losses = score(second)
    losses[5] = torch.nan
    batches.feedback(second, loss_per_row=losses)
    next(superbatches).select()
    batches.feedback(parts[1], loss_per_token=score(parts[1])[:, None].expand(-1, L))
    batches.feedback(first, loss_per_row=score(first) + 1)
    batches.state_dict()
    told = listener.heard
    assert [len(heard) for heard in told] == [8, B - 1, 4]
    assert sorted((told[0] | told[2]).values()) == pytest.approx(sorted(score(first).tolist()))


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_teach_the_selector_what_one_process_would(sources, world_size: int) -> None:
    alone = loader(sources)
    expected, state = learning_run(alone, 6), alone.state_dict()["superbatches"]

    def work(ranks: ThreadRanks) -> tuple[list[list[int]], dict[str, Any]]:
        mine = loader(sources, rank=ranks.rank, world_size=world_size, ranks=ranks)
        return learning_run(mine, 6), mine.state_dict()["superbatches"]

    found = on_ranks(world_size, work)
    assert [[name for rows, _ in found for name in rows[k]] for k in range(6)] == expected
    assert all(rank_state == state for _, rank_state in found)


def test_what_the_selector_learnt_resumes(sources) -> None:
    expected = learning_run(loader(sources), 6, requeue=1)
    for stop in range(1, 6):
        first = loader(sources)
        assert learning_run(first, stop, requeue=1) == expected[:stop]
        state = json.loads(json.dumps(first.state_dict()))
        resumed = loader(sources)
        resumed.load_state_dict(state)
        assert learning_run(resumed, 6 - stop, requeue=1) == expected[stop:]


def test_super_batches_that_are_refused_leave_the_loader_as_it_was(sources) -> None:
    first = loader(sources)
    run(first, 2, requeue=1)
    state = first.state_dict()
    expected = run(first, 3, requeue=1)
    fresh = loader(sources)
    fresh.load_state_dict(state)
    for _ in range(2):
        with pytest.raises(ValueError, match="factor is 3, here it is 2; give the saved one"):
            fresh.superbatches(2, "hard_batches", requeue=1)
    assert fresh.state_dict() == state
    assert run(fresh, 3, requeue=1) == expected
    state = fresh.state_dict()
    with pytest.raises(ValueError, match="requeue is 1, here it is 0"):
        fresh.superbatches(3, "hard_batches")
    assert fresh.state_dict() == state


def test_a_state_of_a_selector_with_other_parameters_is_refused(sources) -> None:
    first = loader(sources)
    next(first.superbatches(2, "infobatch", ratio=0.3, n_total=10)).select()
    fresh = loader(sources)
    fresh.load_state_dict(first.state_dict())
    with pytest.raises(ValueError, match=r"ratio of 'InfoBatch' is 0.3, here it is 0.5; give the saved one"):
        fresh.superbatches(2, "infobatch", n_total=10)
    fresh.superbatches(2, "infobatch", ratio=0.3, n_total=20)


def test_wrong_uses_are_named(sources) -> None:
    candidates = next(loader(sources).superbatches(2, "rho"))
    with pytest.raises(ValueError, match="'rho' needs scores and reference_losses of each row"):
        candidates.select()
    with pytest.raises(ValueError, match=r"scores have shape \(3,\); \(rows,\) for 24 rows is needed"):
        candidates.select(scores=np.ones(3), reference_losses=np.ones(24))
    for k in (25, 4.0, True):
        with pytest.raises(ValueError, match=f"k is {k}; it must be a whole number from 1 to 24"):
            candidates.select(k)
    with pytest.raises(ValueError, match="unknown selector 'rnadom'; did you mean 'random'"):
        candidates.select(method="rnadom")
    batches = loader(sources)
    batch = next(batches.superbatches(2)).select()
    with pytest.raises(ValueError, match="selectors learn from a batch and loss_per_row or loss_per_token"):
        batches.feedback(batch, reward_per_row=np.ones(B))
    candidates.select(method="random")
    with pytest.raises(ValueError, match="were selected already"):
        candidates.select(method="random")
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("factor and requeue are 0 and 0", {"factor": 0}),
        ("factor and requeue are 2.5 and 0; whole numbers", {"factor": 2.5}),
        ("factor and requeue are 2 and 0.5; whole numbers", {"factor": 2, "requeue": 0.5}),
        ("method is a ABCMeta; it must be a name of selectors.py", {"factor": 2, "method": InfoBatch}),
    ]
    for message, options in wrong:
        with pytest.raises(ValueError, match=message):
            loader(sources).superbatches(**options)
    other = loader(sources)
    run(other, 1)
    fresh = loader(sources)
    fresh.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match="factor is 3, here it is 2; give the saved one"):
        fresh.superbatches(2, "hard_batches")

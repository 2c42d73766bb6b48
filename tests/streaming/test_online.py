"""Feedback in the loader: what is reported, when weights follow, and that a run repeats exactly."""

import itertools
import json
import sys
import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from cuvee.kernels.apportion import ROW
from cuvee.streaming import Batch, StreamingLoader
from cuvee.streaming.feedback import MAX_LATE, UNIT, Feedback
from cuvee.streaming.online import OnlineMixing, read_weight_log
from cuvee.streaming.policies import Floats, Policy
from cuvee.streaming.run import Run
from cuvee.streaming.warm_up import kernels

L, B = 8, 12
WEIGHTS = {"code": 0.3, "web": 0.5, "wiki": 0.2}
# Losses that make the default step from its first report on.
FAST = OnlineMixing(parameters={"warm_up": 0, "half_lives": (1, 3)}, every=3, lag=4)


class Memory(Policy):
    """Keeps what it sees, and moves its weights by a rule of its own."""

    state = ("moved",)

    def __init__(self, prior: Floats) -> None:
        super().__init__(prior)
        self.seen: list[tuple[Floats, Floats]] = []
        self.moved = np.zeros(prior.size)

    @property
    def weights(self) -> Floats:
        odds = self.prior * np.exp(self.moved)
        found: Floats = odds / odds.sum()
        return found

    def _update(self, losses, n_tokens, is_there) -> None:
        self.seen.append((losses, n_tokens))
        self.moved = self.moved + 0.1 * np.nan_to_num(losses)


@pytest.fixture
def sources(write_stream):
    return {name: write_stream(name, 900 + 300 * k, first=10_000 * k) for k, name in enumerate(WEIGHTS)}


def remembering(**options) -> OnlineMixing:
    return OnlineMixing(lambda prior, _: Memory(prior), **{"every": 3, "lag": 4, **options})


def loader(sources, policy: OnlineMixing | str | None = FAST, **options) -> StreamingLoader:
    return StreamingLoader(
        sources,
        **{"weights": WEIGHTS, "sequence_length": L, "global_batch": B, "policy": policy, **options},
    )


def losses_of(batch: Batch) -> torch.Tensor:
    """Losses that depend on the rows, fall with the steps, and differ by domain."""
    noise = torch.sin(batch.row_ids.double() * 12.9 + batch.step)
    return 4 - 0.05 * batch.step * (batch.domain_ids + 1) + 0.01 * noise


def run(batches: StreamingLoader, n: int) -> list[list[int]]:
    """Train n steps, reporting each: the rows of every batch."""
    rows = []
    for batch in itertools.islice(batches, n):
        rows.append((batch.domain_ids * 1000 + batch.row_ids).tolist())
        batches.feedback(batch, loss_per_row=losses_of(batch))
    return rows


def test_the_policy_sees_the_means_of_each_domain(sources) -> None:
    batches = loader(sources, remembering())
    totals = np.zeros((2, 3))
    for batch in itertools.islice(batches, 3):
        losses = losses_of(batch)
        batches.feedback(batch, loss_per_row=losses)
        for domain, loss in zip(batch.domain_ids.tolist(), losses.tolist(), strict=True):
            totals[:, domain] += loss * L, L
    next(batches)
    ((losses, n_tokens),) = batches.policy.seen
    np.testing.assert_array_equal(n_tokens, totals[1])
    np.testing.assert_allclose(losses, totals[0] / totals[1], atol=1 / UNIT)


def test_new_weights_hold_from_the_lag_on_and_rows_follow_them(sources) -> None:
    batches = loader(sources, remembering(every=3, lag=4))
    run(batches, 30)
    starts = [start for start, _ in batches.weight_log]
    assert starts == [0, *range(3 + 4, 27 + 4 + 1, 3)]
    expected = sum(
        np.array(list(weights.values())) * B * max(0, min(end, 30) - start)
        for (start, weights), end in zip(batches.weight_log, [*starts[1:], 30], strict=True)
    )
    drawn = np.array(list(batches.stats()["token_shares"].values())) * B * 30
    assert np.abs(drawn - expected).max() < 2


@pytest.mark.parametrize("executor", [{"prefetch": 3}, {"prefetch": 1}, {"workers": 1}])
def test_how_batches_are_made_changes_neither_weights_nor_rows(sources, executor) -> None:
    inline, other = loader(sources), loader(sources, **executor)
    assert run(inline, 40) == run(other, 40)
    assert inline.weight_log == other.weight_log
    assert len(inline.weight_log) > 5
    other.close()


@pytest.mark.parametrize("executor", [{}, {"prefetch": 3}])
def test_a_run_killed_at_any_step_goes_on_with_the_same_weights_and_rows(sources, tmp_path, executor) -> None:
    def mixing(name: str) -> OnlineMixing:
        return OnlineMixing(
            parameters={"warm_up": 0, "half_lives": (1, 3)}, every=3, lag=4, log=tmp_path / name
        )

    undisturbed = loader(sources, mixing("whole"))
    rows = run(undisturbed, 24)
    for step in range(1, 20):
        first = loader(sources, mixing("killed"), **executor)
        assert run(first, step) == rows[:step]
        state = json.loads(json.dumps(first.state_dict()))
        run(first, 4)  # what the kill undoes
        first.close()
        resumed = loader(sources, mixing("killed"), **executor)
        resumed.load_state_dict(state)
        assert run(resumed, 24 - step) == rows[step:]
        assert resumed.weight_log[-1] == undisturbed.weight_log[-1]
        assert resumed.policy.state_dict() == undisturbed.policy.state_dict()
        resumed.close()
        assert (tmp_path / "killed").read_text() == (tmp_path / "whole").read_text()


def test_a_run_repeats_from_its_weight_log_without_reports(sources, tmp_path) -> None:
    mixing = OnlineMixing(
        parameters={"warm_up": 0, "half_lives": (1, 3)}, every=3, lag=4, log=tmp_path / "log"
    )
    rows = run(loader(sources, mixing), 30)
    replayed = loader(sources, None, **read_weight_log(tmp_path / "log"))
    assert [(b.domain_ids * 1000 + b.row_ids).tolist() for b in itertools.islice(replayed, 30)] == rows


def test_late_reports_in_any_order_from_another_thread_give_the_same_sums(sources) -> None:
    in_order, shuffled = loader(sources, remembering(every=6)), loader(sources, remembering(every=6))
    run(in_order, 7)
    kept = list(itertools.islice(shuffled, 6))
    thread = threading.Thread(
        target=lambda: [shuffled.feedback(b, loss_per_row=losses_of(b)) for b in reversed(kept)]
    )
    thread.start()
    thread.join()
    next(shuffled)
    for ours, theirs in zip(in_order.policy.seen[0], shuffled.policy.seen[0], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_step_that_is_read_while_batches_are_taken_is_one_that_the_loader_was_at(sources) -> None:
    kernels.done(wait=True)  # from then on plans are of several steps
    running, before = loader(sources, policy=None), sys.gettrace()

    def taking(frame, event: str, _: object):
        """Take a batch, as another thread may, before each operation of `step`."""
        frame.f_trace_opcodes = frame.f_code is Run.step.fget.__code__
        if event == "opcode":
            next(running)
        return taking

    for _ in range(20):
        first = running.step
        sys.settrace(taking)
        found = running.step
        sys.settrace(before)
        assert first <= found <= running.step


def test_a_report_after_its_interval_counts_in_the_next(sources) -> None:
    batches = loader(sources, remembering(every=2))
    first, second, third = (next(batches) for _ in range(3))
    assert batches.policy.seen == []
    for batch in (third, first, second):
        batches.feedback(batch, loss_per_row=losses_of(batch))
    next(batches)
    next(batches)
    ((_, n_tokens),) = batches.policy.seen
    assert n_tokens.sum() == 3 * B * L
    assert len(batches.weight_log) == 2


def test_no_reports_leave_the_weights_alone(sources) -> None:
    batches = loader(sources)
    list(itertools.islice(batches, 20))
    assert batches.weight_log == [(0, {name: pytest.approx(w, abs=1e-9) for name, w in WEIGHTS.items()})]


def test_what_is_not_finite_is_left_out_and_counted(sources) -> None:
    batches = loader(sources, remembering())
    batch = next(batches)
    losses = np.full(B, 2.0)
    losses[:3] = np.nan, np.inf, 1e9
    batches.feedback(batch, loss_per_row=losses)
    for _ in range(3):
        next(batches)
    ((means, n_tokens),) = batches.policy.seen
    assert n_tokens.sum() == (B - 3) * L
    assert set(means[n_tokens > 0]) == {2.0}
    assert batches.policy.n_ignored == 3


def test_rows_count_once_whole_or_in_micro_batches(sources) -> None:
    batches = loader(sources, remembering())
    batch = next(batches)
    for part in [*batch.micro_batches(4), *batch.micro_batches(4), batch]:
        batches.feedback(part, loss_per_row=losses_of(part))
    assert batches._online.feedback.n_repeated == 4
    for _ in range(3):
        next(batches)
    assert batches.policy.seen[0][1].sum() == B * L


def test_losses_by_token_count_tokens_that_have_a_label(sources) -> None:
    batches = loader(sources, remembering())
    batch = next(batches)
    losses = torch.arange(B * L, dtype=torch.float32).reshape(B, L) / 10
    losses[0, 1] = torch.nan
    batches.feedback(batch, loss_per_token=losses.flatten())
    for _ in range(3):
        next(batches)
    means, n_tokens = batches.policy.seen[0]
    counts = (batch.labels >= 0) & losses.isfinite()
    for domain in range(3):
        mine = counts & (batch.domain_ids[:, None] == domain)
        assert n_tokens[domain] == mine.sum()
        assert means[domain] == pytest.approx(losses[mine].mean().item(), abs=1e-5)


def test_reports_of_another_life_or_too_late_are_ignored(sources) -> None:
    batches = loader(sources, remembering())
    kept = list(itertools.islice(batches, 4))
    state = batches.state_dict()
    future = next(batches)
    batches.load_state_dict(state)
    for batch in (kept[1], future):
        batches.feedback(batch, loss_per_row=np.ones(B))
    assert batches._online.feedback.n_late == 2
    found = Feedback(np.arange(1), L)
    found.add(0, 0, MAX_LATE + 1, np.zeros(2, np.int64), np.ones(2))
    assert found.n_late == 1


def test_what_is_remembered_of_reports_does_not_grow_with_the_run() -> None:
    found = Feedback(np.arange(1), L)
    for step in range(3 * MAX_LATE):
        found.add(step, 0, step + 1, np.zeros(1, np.int64), np.ones(1))
        found.take(step + 1)
    assert len(found._seen) == MAX_LATE
    assert (found.n_late, found.n_repeated) == (0, 0)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda state: state["online"]["policy"].pop("fast"), "a MirrorDescent needs"),
        (lambda state: state["online"]["policy"].update(fast=[1.0]), "state: fast has shape"),
        (lambda state: state["online"].pop("n_reports"), "online: n_reports missing; this is not a loader's"),
        (lambda state: state["superbatches"].pop("queue"), "superbatches: queue missing; this is not a"),
        (lambda state: state["superbatches"].update(requeue=1), "requeue is 1, here it is 0"),
        (lambda state: state["superbatches"]["selectors"]["infobatch"].pop("losses"), "state is of method"),
    ],
)
def test_a_state_that_cannot_be_loaded_changes_nothing(sources, spoil, message: str) -> None:
    def told(n_steps: int) -> StreamingLoader:
        made = loader(sources)
        for _, candidates in zip(range(n_steps), made.superbatches(1, "infobatch"), strict=False):
            batch = candidates.select()
            made.feedback(batch, loss_per_row=batch.row_ids / 1000 + batch.domain_ids)
        return made

    ours, state = told(8), json.loads(json.dumps(told(14).state_dict()))
    before = json.dumps(ours.state_dict())
    spoil(state)
    with pytest.raises(ValueError, match=message):
        ours.load_state_dict(state)
    assert json.dumps(ours.state_dict()) == before


def test_a_replayed_domain_keeps_its_weight(sources) -> None:
    batches = loader(sources, OnlineMixing(parameters=FAST.parameters, every=3, lag=4, replay=["web"]))
    run(batches, 40)
    assert len(batches.weight_log) > 5
    assert {weights["web"] for _, weights in batches.weight_log} == {0.5}
    assert all(sum(round(w * ROW) for w in weights.values()) == ROW for _, weights in batches.weight_log)


def test_a_domain_with_weight_zero_stays_out(sources) -> None:
    batches = loader(sources, weights={"code": 0.5, "web": 0.5, "wiki": 0.0})
    run(batches, 30)
    assert len(batches.weight_log) > 5
    assert {weights["wiki"] for _, weights in batches.weight_log} == {0.0}


def test_epochs_that_are_left_bound_the_weight(sources) -> None:
    """code has 112 rows an epoch; one epoch in 40 steps of 12 rows is 0.233, below its weight of 0.3."""
    batches = loader(sources, remembering(every=2, lag=2), max_epochs={"code": 1.0}, steps=40)
    drawn = np.array(run(batches, 40))
    per_step = (drawn // 1000 == 0).sum(axis=1)
    assert per_step.sum() == pytest.approx(112, abs=1)
    assert (per_step[-10:] >= 2).all()


def test_floors_and_ceilings_go_on_to_hold(sources) -> None:
    batches = loader(sources, remembering(every=2, lag=2), ceilings={"code": 0.32}, floors={"wiki": 0.15})
    drawn = np.array(run(batches, 60)) // 1000
    assert batches.weight_log[-1][1]["wiki"] < 0.15
    assert (drawn == 2).sum() >= 0.15 * 60 * B - 2
    assert (drawn == 0).sum() <= 0.32 * 60 * B + 2


def test_rewards_and_validation_losses_reach_policies_that_read_them(sources) -> None:
    aligned = loader(sources, OnlineMixing(parameters={"reward": "alignment", "warm_up": 0}, every=2, lag=2))
    for batch in itertools.islice(aligned, 20):
        aligned.feedback(batch, reward_per_row=(batch.domain_ids == 2).float())
    # Standardised, 1.41 / 3 against -0.71 / 3: 7 % a report in the odds of 0.25, less the pull, nine times.
    assert aligned.weight_log[-1][1]["wiki"] == pytest.approx(0.305, abs=0.01)
    gains = OnlineMixing(
        parameters={"reward": "validation", "warm_up": 0, "half_lives": (1, 3)}, every=2, lag=2
    )
    held_out = loader(sources, gains)
    for batch in itertools.islice(held_out, 30):
        held_out.feedback(domain_losses={"code": 3.0, "wiki": 4 - 0.1 * batch.step})
    assert held_out.weight_log[-1][1]["wiki"] > 0.4
    assert held_out.policy.n_ignored == 0


def test_a_state_holds_what_was_reported_and_not_yet_seen(sources) -> None:
    batches = loader(sources, remembering())
    run(batches, 2)
    found = batches.state_dict()["online"]["domains"]
    assert sum(tokens for _, tokens, _ in found.values()) == 2 * B * L


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "miror_descent"}, "unknown policy 'miror_descent'; did you mean 'mirror_descent'?"),
        ({"policy": OnlineMixing(parameters={"rat": 0.1})}, "unknown parameter 'rat'; did you mean 'rate'?"),
        ({"policy": OnlineMixing("group_dro")}, "policy 'group_dro': it needs 'reference'"),
        (
            {"policy": OnlineMixing("group_dro", {"reference": {"web": 1}})},
            "reference: none for 'code', 'wiki'",
        ),
        (
            {"policy": OnlineMixing(replay=["wik"])},
            "policy: replay: unknown domain 'wik'; did you mean 'wiki'",
        ),
        ({"policy": OnlineMixing(replay=list(WEIGHTS))}, "no domain is left"),
        (
            {"policy": OnlineMixing(lag=2), "prefetch": 2},
            "lag is 2 steps, and up to 3 are made ahead; raise it",
        ),
        ({"policy": ["ado"]}, "policy is a list; it must be a name"),
        ({"policy": Memory(np.ones(1))}, "policy is a Memory; it must be a name"),
        ({"policy": OnlineMixing(Memory(np.ones(1)))}, "policy is a Memory; it must be a name or a function"),
        ({"policy": OnlineMixing(lambda *_: None)}, "policy: the function gave a NoneType, no Policy"),
        ({"schedule": [(5, WEIGHTS)]}, "policy: a schedule sets weights, too"),
        ({"emit": ("input_ids",)}, "add 'domain_ids' to emit"),
        ({"world_size": 2}, "torch.distributed is not initialised"),
    ],
)
def test_wrong_arguments_are_named(sources, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loader(sources, **options)


@pytest.mark.parametrize("options", [{"every": 2.5}, {"lag": "4"}, {"every": True}, {"lag": 0}])
def test_steps_that_are_no_whole_numbers_are_refused(options) -> None:
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"policy: {name} is {value!r}; it must be a whole number of steps"):
        OnlineMixing(**options)


@pytest.mark.parametrize("weights", [[0.5, 0.5, 0.5], [-0.2, 0.7, 0.5], [np.nan, 0.5, 0.5], [0.5, 0.5]])
def test_weights_that_are_no_distribution_are_refused(sources, weights) -> None:
    class Broken(Memory):
        weights = np.array([0.3, 0.5, 0.2])

    batches = loader(sources, OnlineMixing(lambda prior, _: Broken(prior), every=3, lag=4))
    Broken.weights = np.array(weights)
    with pytest.raises(ValueError, match=r"policy: Broken gave the weights .* at step 3; they must be"):
        run(batches, 10)


def test_parameters_may_be_numbers_of_numpy_and_torch(sources) -> None:
    points = [
        (np.int64(0), np.array([0.2, 0.2, 0.6])),
        (4, {"code": np.float32(0.5), "web": 0.25, "wiki": 0.25}),
    ]
    for name, parameters in [
        ("schedule", {"points": points}),
        ("skill_it", {"graph": torch.eye(3), "window": np.int64(2)}),
    ]:
        saved = loader(sources, OnlineMixing(name, parameters)).state_dict()
        loader(sources, OnlineMixing(name, parameters)).load_state_dict(json.loads(json.dumps(saved)))


def test_a_weight_log_is_of_tokens_whatever_the_run_was_given(sources, tmp_path) -> None:
    batches = loader(sources, remembering(log=tmp_path / "log"), weight_unit="documents")
    rows = run(batches, 20)
    logged = read_weight_log(tmp_path / "log")
    replayed = loader(sources, None, **logged)
    assert [(b.domain_ids * 1000 + b.row_ids).tolist() for b in itertools.islice(replayed, 20)] == rows
    with pytest.raises(TypeError, match="weight_unit"):
        StreamingLoader(sources, **logged, sequence_length=L, global_batch=B, weight_unit="documents")


def test_a_file_that_is_not_the_runs_log_is_left_as_it_is(sources, tmp_path) -> None:
    path = tmp_path / "log"
    batches = loader(sources, remembering(log=path))
    run(batches, 7)
    state = batches.state_dict()
    for text in ("a line of somebody else\n" * 9, path.read_text().replace('"step": 6', '"step": 5') * 2):
        path.write_text(text)
        with pytest.raises(ValueError, match="log:3: not the entry of step 6"):
            loader(sources, remembering(log=path)).load_state_dict(state)
        assert path.read_text() == text


def test_a_batch_of_a_loader_with_more_domains_is_named(sources) -> None:
    batches = loader(sources)
    batch = next(batches)
    batches.feedback(replace(batch, domain_ids=batch.domain_ids + 2), loss_per_row=np.ones(B))
    with pytest.raises(ValueError, match="domain_ids from 2 to 4 were reported; this loader has 3 domains"):
        list(itertools.islice(batches, 3))


def test_wrong_reports_are_named(sources) -> None:
    batches = loader(sources)
    batch = next(batches)
    calls: list[tuple[str, Callable[[], None]]] = [
        ("found a batch; this policy reads losses: give a batch and loss", lambda: batches.feedback(batch)),
        ("found a batch, reward_per_row", lambda: batches.feedback(batch, reward_per_row=np.ones(B))),
        (r"shape \(3,\); the batch has 12 rows", lambda: batches.feedback(batch, loss_per_row=np.ones(3))),
        (
            r"shape \(12, 3\); the batch has 12 rows of 8 tokens",
            lambda: batches.feedback(batch, loss_per_token=torch.ones(12, 3)),
        ),
        (r"shape \(8, 12\)", lambda: batches.feedback(batch, loss_per_token=torch.ones(8, 12))),
        (
            r"shape \(12,\); the batch has 12 rows of 8 tokens",
            lambda: batches.feedback(replace(batch, labels=None), loss_per_token=torch.ones(12)),
        ),
        ("set_weights: this loader's policy", lambda: batches.set_weights(WEIGHTS)),
        ("this loader has no policy", lambda: loader(sources, None).feedback(batch, loss_per_row=np.ones(B))),
        ("policy is the saved run's", lambda: loader(sources, None).load_state_dict(batches.state_dict())),
        ("policy is new", lambda: batches.load_state_dict(loader(sources, None).state_dict())),
        ("policy is 'mirror", lambda: loader(sources, "ado").load_state_dict(batches.state_dict())),
    ]
    for message, call in calls:
        with pytest.raises(ValueError, match=message):
            call()

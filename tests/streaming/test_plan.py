from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.kernels.apportion import ROW, apportion_reference, largest_remainder
from cuvee.kernels.permutation import permute_reference
from cuvee.streaming.orders import stream_key
from cuvee.streaming.packing import Concat, Position
from cuvee.streaming.plan import Cursor, Domain, Event, Planner, Rows
from cuvee.streaming.schedule import WeightSchedule


def shares(*weights: float) -> np.ndarray:
    return largest_remainder(np.array(weights), ROW)


def planner(n_rows=(7, 20, 3), weights=(0.3, 0.5, 0.2), caps=(None, None, None), batch=6, seed=0) -> Planner:
    names = ("code", "web", "wiki")
    domains = [domain(name, n, cap, seed) for name, n, cap in zip(names, n_rows, caps, strict=True)]
    return Planner(domains, batch, shares(*weights))


def domain(name: str, n_rows: int, cap: int | None = None, seed: int = 0) -> Domain:
    packing = Concat(name, seed, n_tokens=n_rows + 1, sequence_length=1)
    return Domain(
        name, packing, None if cap is None else Position(cap // max(1, n_rows), 0, cap % max(1, n_rows))
    )


def triples(rows: Rows) -> list[tuple[int, int, int]]:
    """(domain, epoch, row) of each row in order."""
    return list(zip(rows.domains.ravel(), rows.epochs.ravel(), rows.rows.ravel(), strict=True))


def one_row_at_a_time(
    plan: Planner, n_rows: tuple[int, ...], caps: tuple[int | None, ...], n_steps: int
) -> list[tuple[int, int, int]]:
    """The plan as its docstring puts it: no blocks, no vectors. Oracle."""
    n_domains, drawn = len(plan.domains), Counter()
    credit, order = np.zeros(n_domains, np.int64), []
    batch = plan.batch_size_at(0)
    for n in range(n_steps * batch):
        step = n // batch
        scheduled = [entry for start, entry in plan.schedule if start <= step][-1].copy()
        for k, cap in enumerate(caps):
            if cap is not None and drawn[k] >= cap:
                scheduled[k] = 0
        if not scheduled.any():
            break
        share = largest_remainder(scheduled, ROW)
        ((k,), credit) = apportion_reference(share, credit, 1, np.full(n_domains, 9))
        epoch, position = divmod(drawn[k], n_rows[k])
        key = stream_key(0, plan.domains[k].name, epoch)
        (row,) = permute_reference(np.array([position]), n_rows[k], key)
        order.append((k, epoch, row))
        drawn[k] += 1
    return order[: len(order) // batch * batch]


@given(
    n_rows=st.tuples(*[st.integers(1, 30)] * 3),
    weights=st.tuples(*[st.integers(0, 5)] * 3).filter(any),
    later=st.tuples(*[st.integers(0, 5)] * 3).filter(any),
    at_step=st.integers(0, 8),
    caps=st.tuples(*[st.none() | st.integers(1, 40)] * 3),
    batch=st.integers(1, 7),
    compiled=st.booleans(),
    cuts=st.lists(st.integers(0, 6), max_size=4),
)
@settings(deadline=None)
def test_the_plan_equals_one_made_row_by_row_however_it_is_cut(
    n_rows, weights, later, at_step, caps, batch, compiled, cuts
) -> None:
    plan = planner(n_rows, weights, caps, batch)
    plan.compiled = compiled
    plan.append(at_step, shares(*later))
    cursor, planned = plan.start(), []
    for n_steps in cuts:
        assert plan.advance(cursor, n_steps) == plan.plan(cursor, n_steps)[1]
        rows, cursor = plan.plan(cursor, n_steps)
        planned += triples(rows)
        assert cursor.step == len(planned) // batch
        assert sum(cursor.rows_drawn) == len(planned)
    assert planned == one_row_at_a_time(plan, n_rows, caps, sum(cuts))


def test_every_row_of_a_domain_comes_once_in_each_epoch() -> None:
    rows, _ = planner().plan(planner().start(), n_steps=50)
    for domain, n_rows in enumerate((7, 20, 3)):
        drawn = [(epoch, row) for k, epoch, row in triples(rows) if k == domain]
        for epoch in range(drawn[-1][0]):
            assert sorted(row for e, row in drawn if e == epoch) == list(range(n_rows))
        assert [epoch for epoch, _ in drawn] == sorted(epoch for epoch, _ in drawn)
        assert len(set(drawn)) == len(drawn)


def test_shares_stay_within_one_row_at_every_prefix() -> None:
    rows, _ = planner(weights=(0.62, 0.29, 0.09)).plan(planner().start(), n_steps=100)
    drawn = np.cumsum(rows.domains.ravel()[:, None] == np.arange(3), axis=0)
    integral = np.arange(1, 601)[:, None] * np.array([0.62, 0.29, 0.09])
    assert np.abs(drawn - integral).max() < 1


def test_other_domains_do_not_change_a_domains_order() -> None:
    def order(names: list[str]) -> list[tuple[int, int]]:
        plan = Planner([domain(name, 10) for name in names], 4, shares(*[1] * len(names)))
        rows, _ = plan.plan(plan.start(), n_steps=40)
        return [(e, row) for k, e, row in triples(rows) if names[k] == "web"][:25]

    assert order(["web"]) == order(["code", "web"]) == order(["web", "wiki", "code"])


def test_seeds_names_and_epochs_give_different_orders() -> None:
    keys = {
        stream_key(seed, name, epoch) for seed in range(9) for name in ("1/web", "web") for epoch in range(9)
    }
    assert len(keys) == 9 * 2 * 9


def test_a_domain_at_its_cap_leaves_its_weight_to_the_others() -> None:
    plan = planner(n_rows=(4, 100, 100), weights=(0.5, 0.3, 0.2), caps=(6, None, None), batch=10)
    rows, cursor = plan.plan(plan.start(), n_steps=6)
    assert cursor.events == (Event(step=1, domain="code"),)
    assert cursor.rows_drawn[0] == 6
    assert (plan.shares_at(cursor) / ROW).tolist() == pytest.approx([0, 0.6, 0.4])
    # 4 epochs would be 16 rows; of the 60 - 6 rows that are left, 3 : 2, within a row each.
    assert np.bincount(rows.domains.ravel()).tolist() == pytest.approx([6, 32.4, 21.6], abs=1)


def test_the_plan_ends_before_the_batch_that_cannot_be_filled() -> None:
    plan = planner(n_rows=(4, 5, 2), caps=(4, 5, 2), batch=4)  # 11 rows: two batches, three rows are left
    rows, cursor = plan.plan(plan.start(), n_steps=9)
    assert rows.domains.shape == (2, 4)
    assert cursor == plan.plan(plan.start(), n_steps=2)[1]
    after, same = plan.plan(cursor, n_steps=9)
    assert after.domains.shape == (0, 4)
    assert same == cursor


def test_the_plan_ends_when_only_domains_without_weight_have_rows() -> None:
    plan = planner(n_rows=(4, 5, 2), weights=(1, 0, 0), caps=(4, None, None), batch=2)
    rows, cursor = plan.plan(plan.start(), n_steps=9)
    assert rows.domains.shape == (2, 2)
    assert plan.shares_at(cursor) is None


def test_a_zero_weight_freezes_the_position_in_the_domain() -> None:
    plan = planner(weights=(0.5, 0.5, 0))
    plan.append(3, shares(0, 1, 0))
    plan.append(6, shares(0.5, 0.5, 0))
    rows, _ = plan.plan(plan.start(), n_steps=12)
    code = [(e, row) for k, e, row in triples(rows) if k == 0]
    always = planner(weights=(0.5, 0.5, 0))
    unfrozen = [(e, row) for k, e, row in triples(always.plan(always.start(), 12)[0]) if k == 0]
    assert not (rows.domains[3:6] == 0).any()
    assert code == unfrozen[: len(code)]


def test_the_cost_of_planning_does_not_depend_on_the_step() -> None:
    plan = planner(n_rows=(10**9, 10**12, 2**40 + 1))
    far = Cursor(
        step=10**9,
        positions=(Position(10, 0, 3), Position(0, 0, 10**12 - 2), Position(0, 0, 0)),
        rows_drawn=(10**10 + 3, 10**12 - 2, 0),
        tokens_drawn=(0, 0, 0),
        credit=(0, 0, 0),
    )
    rows, cursor = plan.plan(far, n_steps=2)
    assert cursor.step == 10**9 + 2
    assert rows.epochs[rows.domains == 0].tolist() == [10] * int((rows.domains == 0).sum())
    assert sorted(set(rows.epochs[rows.domains == 1].tolist())) == [0, 1]


def test_the_schedule_is_append_only() -> None:
    plan = planner()
    plan.append(5, shares(1, 0, 0))
    plan.append(5, shares(0, 1, 0))
    assert set(plan.plan(plan.start(), 6)[0].domains[5]) == {1}
    with pytest.raises(
        ValueError, match="at_step is 4; the schedule is append-only and its last entry starts at step 5"
    ):
        plan.append(4, shares(0, 1, 0))


def test_a_weight_for_a_domain_without_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'wiki' has weight 0\.2 and fewer tokens than one row"):
        planner(n_rows=(7, 20, 0))
    with pytest.raises(ValueError, match=r"'wiki' has weight 0\.2 and max_epochs allows none of its 3 rows"):
        planner(caps=(None, None, 0))
    without = planner(n_rows=(7, 20, 0), weights=(0.5, 0.5, 0))
    assert without.plan(without.start(), 2)[0].domains.shape == (2, 6)


def test_a_batch_size_that_changes_loses_and_repeats_no_row() -> None:
    plan, resized = planner(batch=6), planner(batch=6)
    resized.resize(2, 4)
    resized.resize(5, 12)
    cursor, found = resized.start(), []
    while cursor.n_rows < 48:
        rows, cursor = resized.plan(cursor, 9 if cursor.step < 5 else 2)
        assert rows.domains.shape[1] == {0: 6, 2: 4, 5: 12}[cursor.step - len(rows.domains)]
        found += triples(rows)
    assert found == triples(plan.plan(plan.start(), 8)[0])
    with pytest.raises(ValueError, match=r"at_step is 4; batch sizes are append-only and the last .* step 5"):
        resized.resize(4, 3)


def test_a_ramp_is_kept_within_two_rows_of_its_integral_at_every_prefix() -> None:
    points = [(0, {"code": 0.6, "web": 0.2, "wiki": 0.2}), (900, {"code": 0.1, "web": 0.2, "wiki": 0.7})]
    ramp = WeightSchedule(points).ramp(["code", "web", "wiki"], sequence_length=1)
    plan = Planner([domain(name, 50) for name in ("code", "web", "wiki")], 6, ramp)
    rows, cursor = plan.plan(plan.start(), 200)
    drawn = np.cumsum(rows.domains.ravel()[:, None] == np.arange(3), axis=0)
    scheduled = np.array([ramp.at(ramp.level(6 * step)) for step in range(200)]) / ROW
    integral = np.cumsum(np.repeat(scheduled, 6, axis=0), axis=0)
    assert np.abs(drawn - integral).max() < 2
    assert (plan.shares_at(cursor) / ROW).tolist() == pytest.approx([0.1, 0.2, 0.7])
    pieces, cursor = [], plan.start()
    for n_steps in (1, 7, 100, 92):
        part, cursor = plan.plan(cursor, n_steps)
        pieces += triples(part)
    assert pieces == triples(rows)


def test_floors_and_ceilings_hold_when_a_domain_is_exhausted() -> None:
    bounds = (0, 0, ROW // 10), (ROW // 2, ROW, ROW)
    domains = [domain("code", 100), domain("web", 12, cap=12), domain("wiki", 100)]
    plan = Planner(domains, 6, shares(0.5, 0.5, 0), bounds)
    assert (plan.shares_at(plan.start()) / ROW).tolist() == pytest.approx([0.45, 0.45, 0.1])
    _, cursor = plan.plan(plan.start(), 10)
    assert [event.domain for event in cursor.events] == ["web"]
    assert (plan.shares_at(cursor) / ROW).tolist() == pytest.approx([0.5, 0, 0.5])

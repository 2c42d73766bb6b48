import hashlib
import itertools
import json

import numpy as np
import pytest
import torch

from cuvee.streaming import Batch, StreamingLoader, TokenStore
from cuvee.streaming.batch import FIELDS
from cuvee.streaming.plan import Planner
from cuvee.streaming.schedule import WeightSchedule

L = 8
SIZES = {"code": 100, "web": 400, "wiki": 61}  # 12, 49 and 7 rows of 8 tokens
WEIGHTS = {"code": 0.3, "web": 0.5, "wiki": 0.2}


@pytest.fixture
def sources(write_stream):
    return {
        name: write_stream(name, n, first=10_000 * k, n_shards=3) for k, (name, n) in enumerate(SIZES.items())
    }


def loader(sources, weights=WEIGHTS, **options) -> StreamingLoader:
    return StreamingLoader(sources, weights, **{"sequence_length": L, "global_batch": 12, **options})


def digest(batch: Batch) -> str:
    tensors = [batch[name].numpy().tobytes() for name in batch.keys()]  # noqa: SIM118 (a Batch is no dict)
    return hashlib.blake2b(b"".join([bytes(batch.step), *tensors])).hexdigest()


def take(batches: StreamingLoader, n: int) -> list[str]:
    return [digest(batch) for batch in itertools.islice(batches, n)]


def drawn_rows(batches: StreamingLoader, n: int) -> list[tuple[int, int]]:
    return [
        (int(domain), int(row))
        for batch in itertools.islice(batches, n)
        for domain, row in zip(batch.domain_ids, batch.row_ids, strict=True)
    ]


def test_a_batch_holds_the_rows_it_names_and_the_tokens_after_them(sources) -> None:
    stores = [TokenStore(folder) for folder in sources.values()]
    for batch in itertools.islice(loader(sources, mask_boundaries=False), 20):
        assert batch.input_ids.shape == batch.labels.shape == (12, L)
        assert {batch[name].dtype for name in batch.keys()} == {torch.int64}  # noqa: SIM118
        for r in range(12):
            expected = stores[batch.domain_ids[r]].read(int(batch.row_ids[r]) * L, L + 1).tolist()
            assert batch.input_ids[r].tolist() == expected[:-1]
            assert batch.labels[r].tolist() == expected[1:]


def test_a_batch_is_its_tensors_by_name(sources) -> None:
    batch = next(loader(sources))
    assert list({**batch}) == ["input_ids", "labels", "domain_ids", "row_ids"]
    assert batch.to("cpu").step == batch.step == 0
    assert torch.equal(batch.to("cpu")["labels"], batch.labels)
    with pytest.raises(KeyError, match="'step'; a batch has input_ids, labels"):
        batch["step"]


def test_batches_stay_what_they_were(sources) -> None:
    batches = list(itertools.islice(loader(sources), 30))
    assert [digest(batch) for batch in batches] == take(loader(sources), 30)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 6])
def test_ranks_together_get_the_same_global_batches_at_any_world_size(sources, world_size: int) -> None:
    alone = loader(sources, steps=40)
    ranks = [loader(sources, steps=40, rank=rank, world_size=world_size) for rank in range(world_size)]
    for whole, *parts in zip(alone, *ranks, strict=True):
        for name in whole.keys():  # noqa: SIM118
            assert torch.equal(whole[name], torch.cat([part[name] for part in parts]))
        assert {part.step for part in parts} == {whole.step}


def test_the_order_of_the_sources_changes_domain_ids_and_nothing_else(sources) -> None:
    backwards = dict(reversed(sources.items()))
    for ours, theirs in zip(loader(sources, steps=30), loader(backwards, steps=30), strict=True):
        assert torch.equal(ours.input_ids, theirs.input_ids)
        assert torch.equal(ours.domain_ids, 2 - theirs.domain_ids)


def test_how_far_the_plan_reaches_changes_nothing(sources, monkeypatch) -> None:
    expected = take(loader(sources), 50)
    for n_rows in (1, 30, 100):
        monkeypatch.setattr("cuvee.streaming.executors.N_PLANNED_ROWS", n_rows)
        assert take(loader(sources), 50) == expected


def test_a_run_saved_at_any_step_goes_on_as_if_undisturbed(sources) -> None:
    options = {"max_epochs": {"code": 3.5}, "schedule": [(9, {"code": 0.6, "web": 0.1, "wiki": 0.3})]}
    undisturbed = take(loader(sources, **options), 30)
    running = loader(sources, **options)
    for step in range(25):
        resumed = loader(sources, **options)
        resumed.load_state_dict(json.loads(json.dumps(running.state_dict())))
        assert resumed.step == step
        assert resumed.stats() == running.stats()
        assert take(resumed, 5) == undisturbed[step : step + 5]
        next(running)


def test_a_run_may_be_resumed_again_and_again_at_other_world_sizes(sources) -> None:
    expected = loader(sources)
    state = loader(sources).state_dict()
    for world_size in (1, 4, 2, 6, 3):
        ranks = [loader(sources, rank=rank, world_size=world_size) for rank in range(world_size)]
        for rank in ranks:
            rank.load_state_dict(state)
        for _ in range(7):
            parts = [next(rank) for rank in ranks]
            assert torch.equal(next(expected).input_ids, torch.cat([part.input_ids for part in parts]))
        (state,) = {json.dumps(rank.state_dict()): rank.state_dict() for rank in ranks}.values()


def test_the_state_is_of_the_last_batch_handed_out_not_of_the_plan(sources) -> None:
    running = loader(sources)
    take(running, 3)
    assert running.state_dict()["step"] == 3
    assert sum(domain["rows_drawn"] for domain in running.state_dict()["domains"].values()) == 36


def test_weights_changed_at_resume_lose_and_repeat_no_row_within_an_epoch(sources) -> None:
    running = loader(sources)
    seen = drawn_rows(running, 5)
    resumed = loader(sources)
    resumed.load_state_dict(running.state_dict())
    resumed.set_weights({"code": 0.05, "web": 0.05, "wiki": 0.9})
    seen += drawn_rows(resumed, 6)
    resumed.set_weights({"code": 0.1, "web": 0.9, "wiki": 0.0})
    seen += drawn_rows(resumed, 12)
    for domain, n_rows in enumerate((12, 49, 7)):
        rows = [row for k, row in seen if k == domain]
        for begin in range(0, len(rows), n_rows):
            epoch = rows[begin : begin + n_rows]
            assert len(set(epoch)) == len(epoch)
        assert len(rows) > n_rows  # each domain ended an epoch, so that rows could have been repeated


def test_weights_set_while_running_hold_from_their_step_and_survive_a_resume(sources) -> None:
    running = loader(sources)
    take(running, 4)
    running.set_weights({"code": 1.0, "web": 0.0, "wiki": 0.0}, at_step=6)
    resumed = loader(sources)
    resumed.load_state_dict(running.state_dict())
    domains = [set(batch.domain_ids.tolist()) for batch in itertools.islice(running, 4)]
    assert domains == [{0, 1, 2}, {0, 1, 2}, {0}, {0}]
    assert take(resumed, 6)[4:] == take(running, 2)


def test_a_schedule_is_weights_set_later(sources) -> None:
    later = {"code": 0.0, "web": 0.5, "wiki": 0.5}
    by_hand = loader(sources)
    by_hand.set_weights(later, at_step=5)
    assert take(loader(sources, schedule=[(5, later)]), 10) == take(by_hand, 10)


def test_weights_for_steps_handed_out_already_are_refused_and_change_nothing(sources) -> None:
    running = loader(sources)
    take(running, 3)
    with pytest.raises(ValueError, match="at_step is 2; batches before step 3 were handed out already"):
        running.set_weights(WEIGHTS, at_step=2)
    with pytest.raises(ValueError, match="they sum to 2"):
        running.set_weights({"code": 1, "web": 1, "wiki": 0})
    assert take(running, 5) == take(loader(sources), 8)[3:]


def test_a_state_does_not_grow_with_the_weights_that_were_set(sources) -> None:
    running = loader(sources)
    size = len(json.dumps(running.state_dict()))
    for _ in range(50):
        next(running)
        running.set_weights({"code": 0.25, "web": 0.25, "wiki": 0.5})
    assert len(json.dumps(running.state_dict())) < size + 100


def test_a_state_of_eight_domains_takes_less_than_4_kilobytes(write_stream) -> None:
    names = [f"a-domain-with-a-long-name-{k}" for k in range(8)]
    running = loader(
        {name: write_stream(name, 200) for name in names}, None, max_epochs=dict.fromkeys(names[:7], 3)
    )
    take(running, 60)
    assert len(running.stats()["events"]) == 7
    assert len(json.dumps(running.state_dict())) < 4096


def test_a_further_domain_may_join_at_resume(sources, write_stream) -> None:
    running = loader(sources)
    before = drawn_rows(running, 5)
    joined = loader({"books": write_stream("books", 200, first=40_000), **sources}, {"books": 0.0, **WEIGHTS})
    joined.load_state_dict(running.state_dict())
    joined.set_weights({"books": 0.5, "code": 0.0, "web": 0.5, "wiki": 0.0})
    rows = drawn_rows(joined, 3)  # 18 of web, which had 30 of its 49
    assert {domain for domain, _ in rows} == {0, 2}
    assert not {row for domain, row in rows if domain == 2} & {row for domain, row in before if domain == 1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1}, "state: seed is 0, this loader's is 1; the order would differ"),
        ({"sequence_length": 4}, "state: sequence_length is 8, this loader's is 4"),
        ({"global_batch": 24}, "state: global_batch is 12, this loader's is 24"),
        (
            {"max_epochs": 2},
            "state: domains.code.max_epochs is None, this loader's is 2; .* saved max_epochs",
        ),
        ({"packing": "crop"}, "state: packing is 'concat', this loader's is 'crop'; rows would be others"),
        ({"floors": {"web": 0.1}}, "state: weights is .* weights, schedule and bounds"),
        ({"weights": {"code": 0.2, "web": 0.6, "wiki": 0.2}}, "state: weights is .* and then set_weights"),
        ({"schedule": [(3, WEIGHTS)]}, "state: weights is .* weights, schedule"),
    ],
)
def test_a_state_of_another_run_is_refused_by_the_field_that_differs(sources, options, message) -> None:
    state, other = loader(sources).state_dict(), loader(sources, **options)
    expected = take(loader(sources, **options), 3)
    with pytest.raises(ValueError, match=message):
        other.load_state_dict(state)
    assert take(other, 3) == expected


def test_a_state_is_refused_when_the_data_was_swapped_or_is_missing(sources, write_stream) -> None:
    state = loader(sources).state_dict()
    swapped = {**sources, "web": sources["code"], "code": sources["web"]}
    with pytest.raises(ValueError, match=r"state: domains.code.fingerprint is .* the data changed"):
        loader(swapped).load_state_dict(state)
    fewer = {name: sources[name] for name in ("code", "web")}
    with pytest.raises(ValueError, match=r"state: domains: \['wiki'\] not among the sources"):
        loader(fewer, {"code": 0.5, "web": 0.5}).load_state_dict(state)
    write_stream("web", SIZES["web"], first=10_001, n_shards=3)
    with pytest.raises(ValueError, match=r"state: domains.web.fingerprint"):
        loader(sources).load_state_dict(state)


def test_a_state_of_another_version_or_in_parts_is_refused(sources) -> None:
    state = loader(sources).state_dict()
    with pytest.raises(ValueError, match="state: version is 1; this version of cuvee reads 4"):
        loader(sources).load_state_dict({**state, "version": 1})
    with pytest.raises(ValueError, match="state: schedule, step missing; this is not a loader's whole state"):
        loader(sources).load_state_dict({k: v for k, v in state.items() if k not in ("step", "schedule")})


def test_weights_by_documents_are_weights_by_tokens_times_the_mean_length(write_store) -> None:
    # 10 documents of 4 tokens, and 5 of 12: as many documents of each are 1 : 3 in tokens.
    long, short = [[*range(2, 13), 1]] * 5, [[5, 6, 7, 1]] * 10
    stores = {"long": write_store("long", [long]), "short": write_store("short", [short])}
    even = {"long": 0.5, "short": 0.5}
    running = loader(stores, even, weight_unit="documents", sequence_length=4)
    assert running.stats()["weights"] == {"long": 0.75, "short": 0.25}
    running.set_weights({"long": 0.25, "short": 0.75})
    assert running.stats()["weights"] == {"long": 0.5, "short": 0.5}
    ramp = loader(
        stores, None, weight_unit="documents", sequence_length=4, schedule=WeightSchedule([(0, even)])
    )
    assert ramp.stats()["weights"] == {"long": 0.75, "short": 0.25}
    assert loader(stores, even, weight_unit="rows", sequence_length=4).stats()["weights"] == even
    with pytest.raises(ValueError, match="weight_unit: unknown unit 'docs'; did you mean 'documents'"):
        loader(stores, even, weight_unit="docs", sequence_length=4)


def test_natural_weights_are_shares_of_the_tokens(sources) -> None:
    weights = loader(sources, None).stats()["weights"]
    assert weights == pytest.approx({name: n / sum(SIZES.values()) for name, n in SIZES.items()})


def test_one_epoch_of_everything_gives_each_row_once_and_ends_on_all_ranks_alike(sources) -> None:
    n_rows = 12 + 49 + 7
    ranks = [
        loader(sources, None, global_batch=4, max_epochs=1, rank=rank, world_size=4) for rank in range(4)
    ]
    rows = [drawn_rows(rank, 10**6) for rank in ranks]
    assert {len(part) for part in rows} == {n_rows // 4}
    assert len(set(itertools.chain(*rows))) == n_rows // 4 * 4
    for rank in ranks:
        with pytest.raises(StopIteration):
            next(rank)


def test_a_run_ends_after_its_steps_and_goes_on_when_iterated_again(sources) -> None:
    running = loader(sources, steps=10)
    assert len(take(running, 4)) + len(take(running, 10**6)) == 10
    assert list(running) == []
    resumed = loader(sources, steps=12)
    resumed.load_state_dict(running.state_dict())
    assert [batch.step for batch in resumed] == [10, 11]
    shorter = loader(sources, steps=5)
    shorter.load_state_dict(running.state_dict())
    assert list(shorter) == []


def test_stats_tell_shares_epochs_and_the_cap_that_was_reached(sources) -> None:
    running = loader(sources, max_epochs={"wiki": 2})
    take(running, 20)  # 240 rows: wiki ends after 14, at weight 0.2 in the 70th row
    stats = running.stats()
    assert stats["step"] == 20
    assert stats["epochs"]["wiki"] == 2
    assert stats["events"] == [{"step": 5, "domain": "wiki", "event": "reached max_epochs"}]
    assert stats["weights"] == pytest.approx({"code": 0.375, "web": 0.625, "wiki": 0.0})
    assert sum(stats["n_tokens"].values()) == 20 * 12 * L
    assert sum(stats["token_shares"].values()) == pytest.approx(1)
    assert json.loads(json.dumps(stats)) == stats


def test_other_seeds_give_other_orders_of_the_same_rows(sources) -> None:
    rows = [drawn_rows(loader(sources, None, max_epochs=1, global_batch=4, seed=s), 17) for s in range(2)]
    assert rows[0] != rows[1]
    assert sorted(rows[0]) == sorted(rows[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sequence_length": 0}, "sequence_length is 0; it must be a whole number, at least 1"),
        ({"global_batch": 0}, "global_batch is 0; it must be a whole number, at least 1"),
        ({"global_batch": 12.0}, "global_batch is 12.0; it must be a whole number, at least 1"),
        ({"world_size": 5}, "world_size 5 does not divide global_batch 12"),
        ({"world_size": 2, "rank": 2}, r"rank is 2; with world_size 2 it must lie in \[0, 2\)"),
        ({"weights": {**WEIGHTS, "wbe": 0.0}}, "weights: unknown domain 'wbe'; did you mean 'web'"),
        ({"max_epochs": {"wbe": 1}}, "max_epochs: unknown domain 'wbe'; did you mean 'web'"),
        ({"schedule": [(5, WEIGHTS), (2, WEIGHTS)]}, "at_step is 2; the schedule is append-only"),
        ({"sequence_length": 70}, "domain 'wiki' has weight 0.2 and fewer tokens than one row"),
        (
            {"sequence_length": 70, "weights": None},
            "domain 'wiki' has weight 0.108734 and fewer tokens than one row",
        ),
        ({"split": "validation"}, "no split 'validation'; its splits are"),
        ({"prefetch": -1}, "prefetch is -1; it must be at least 0"),
        ({"workers": -1}, "workers is -1; it must be at least 0"),
        ({"packing": "bestfit"}, "packing: unknown packing 'bestfit'; did you mean 'best_fit'"),
        ({"emit": ["input_ids", "lables"]}, "emit: unknown field 'lables'; did you mean 'labels'"),
        ({"emit": ["labels"]}, "emit: .'labels',. lacks 'input_ids'"),
        ({"packing": "best_fit", "mask_boundaries": False}, "mask_boundaries: best_fit puts documents side"),
        ({"objective": {"web": 1.0}}, "objective: none for 'code', 'wiki'"),
        ({"schedule": WeightSchedule([(0, WEIGHTS)])}, "weights: a WeightSchedule has them already"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(sources, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loader(sources, **options)


def test_sources_that_are_empty_or_of_two_tokenizers_are_refused(sources, write_stream) -> None:
    with pytest.raises(ValueError, match="sources: none given; name at least one domain"):
        loader({})
    with pytest.raises(ValueError, match="domain 'one' has weight 1 and fewer tokens than one row"):
        loader({"one": write_stream("one", 1)}, {"one": 1.0})
    for field, options in (
        ("tokenizer_hash", {"tokenizer_hash": "t1"}),
        ("vocab_size", {"vocab_size": 50_000}),
        ("eos_id", {"eos_id": 0}),
        ("dtype", {"dtype": "uint32"}),
    ):
        other = {**sources, "wiki": write_stream(f"wiki-{field}", 61, **options)}
        with pytest.raises(
            ValueError, match=rf"{field} of 'wiki' is .*, of 'code' it is .*; tokenize all domains"
        ):
            loader(other)


def test_a_domain_too_short_for_a_row_may_stay_with_weight_zero(sources, write_stream) -> None:
    with_short = {**sources, "one": write_stream("one", 1)}
    assert len(take(loader(with_short, {**WEIGHTS, "one": 0.0}), 5)) == 5


def test_a_store_that_is_open_already_is_taken_as_it_is(sources) -> None:
    stores = {name: TokenStore(folder) for name, folder in sources.items()}
    assert take(loader(stores), 5) == take(loader(sources), 5)


def test_a_state_far_into_a_run_is_loaded_without_replaying(sources, monkeypatch) -> None:
    state = loader(sources).state_dict()
    state["step"] = 10**12
    state["schedule"][0] = [0, state["schedule"][0][1]]
    for domain in state["domains"].values():
        domain["rows_drawn"] = 10**12
        domain["position"] = [10**11, 0, 3]
    n_planned, draw = [], Planner._draw

    def counted(self, cursor, n_steps):
        n_planned.append(n_steps)
        return draw(self, cursor, n_steps)

    far = loader(sources)
    monkeypatch.setattr(Planner, "_draw", counted)
    far.load_state_dict(state)
    assert next(far).step == 10**12
    assert sum(n_planned) * 12 <= 4096


def test_tokens_of_32_bits_come_out_whole(write_stream) -> None:
    folder = write_stream("web", 100, first=2**31, dtype="uint32")
    batch = next(loader({"web": folder}, {"web": 1.0}))
    np.testing.assert_array_equal(batch.input_ids[:, 0], 2**31 + batch.row_ids * L)


def test_the_length_is_the_number_of_batches_of_a_run_that_ends(sources) -> None:
    assert len(loader(sources, steps=7)) == 7
    ending = loader(sources, None, global_batch=4, max_epochs=1)
    assert len(ending) == len(take(ending, 10**6)) == 17
    assert len(ending) == 17
    assert len(loader(sources, None, global_batch=4, max_epochs=1, steps=5)) == 5
    assert len(loader(sources, None, global_batch=4, max_epochs=1, steps=500)) == 17
    for options in ({}, {"max_epochs": {"code": 1}}):
        with pytest.raises(TypeError, match="this loader has no end; pass steps, or max_epochs for every"):
            len(loader(sources, **options))


def test_a_batch_size_set_while_running_survives_a_resume_and_loses_no_row(sources) -> None:
    running = loader(sources)
    rows = drawn_rows(running, 2)
    running.set_global_batch(6, at_step=3)
    resumed = loader(sources)
    resumed.load_state_dict(json.loads(json.dumps(running.state_dict())))
    for batches in (running, resumed):
        parts = [drawn_rows(batches, 1) for _ in range(4)]
        sizes = [len(part) for part in parts]
        assert sizes == [12, 6, 6, 6]
        assert rows + [row for part in parts for row in part] == drawn_rows(loader(sources), 5)[:54]
    with pytest.raises(ValueError, match="world_size 4 does not divide global_batch 6"):
        loader(sources, world_size=4).load_state_dict(running.state_dict())
    with pytest.raises(ValueError, match="at_step is 2; batches before step 6 were handed out already"):
        running.set_global_batch(6, at_step=2)
    with pytest.raises(ValueError, match=r"at_step is 7.5; it must be a whole number of steps"):
        running.set_global_batch(6, at_step=7.5)


def test_a_weight_schedule_by_tokens_survives_a_resume_at_any_step(sources) -> None:
    points = [(0, WEIGHTS), (2000, {"code": 0.1, "web": 0.1, "wiki": 0.8})]
    options = {"schedule": WeightSchedule(points, "cosine")}
    running, undisturbed = loader(sources, None, **options), take(loader(sources, None, **options), 30)
    for step in range(24):
        resumed = loader(sources, None, **options)
        resumed.load_state_dict(json.loads(json.dumps(running.state_dict())))
        assert take(resumed, 5) == undisturbed[step : step + 5]
        next(running)
    assert running.stats()["weights"] == pytest.approx({"code": 0.1, "web": 0.1, "wiki": 0.8})
    running.set_weights(WEIGHTS)
    assert running.stats()["weights"] == pytest.approx(WEIGHTS)


def test_floors_and_ceilings_bound_whatever_weights_say(sources) -> None:
    running = loader(sources, floors={"wiki": 0.1}, ceilings={"web": 0.5})
    running.set_weights({"code": 0.1, "web": 0.9, "wiki": 0.0})
    assert running.stats()["weights"] == pytest.approx({"code": 0.4, "web": 0.5, "wiki": 0.1})


def test_row_weights_make_the_loss_that_of_the_objective(sources) -> None:
    objective = {"code": 0.5, "web": 0.3, "wiki": 0.2}
    emit = ("input_ids", "domain_ids", "weights")
    batches = loader(sources, emit=emit, objective=objective)
    weighted = torch.zeros(3, dtype=torch.float64)
    for batch in itertools.islice(batches, 100):
        weighted.index_add_(0, batch.domain_ids, batch.weights.double())
    assert (weighted / 1200).tolist() == pytest.approx(list(objective.values()), abs=0.002)
    assert next(loader(sources, emit=emit)).weights.tolist() == [1.0] * 12


def test_micro_batches_are_slices_whose_sequences_are_their_own(sources) -> None:
    batch = next(loader(sources, emit=FIELDS))
    parts = list(batch.micro_batches(4))
    for name in ("input_ids", "labels", "position_ids", "domain_ids", "row_ids", "weights"):
        assert torch.equal(torch.cat([part[name] for part in parts]), batch[name])
    for part in parts:
        starts = torch.nonzero(part.position_ids.flatten() == 0).flatten().tolist()
        assert part.cu_seqlens.tolist() == [*starts, 4 * L]
        assert part.max_seqlen == batch.max_seqlen
    with pytest.raises(ValueError, match="micro_batches: 5 rows do not divide a batch of 12"):
        list(batch.micro_batches(5))

import hashlib
import itertools
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuvee.streaming import StreamingLoader, Vsl
from cuvee.streaming.curriculum import cycle_order
from cuvee.streaming.decomposition import cut, joined

L, B = 16, 4
EMIT = ("input_ids", "labels", "position_ids", "cu_seqlens", "max_seqlen", "domain_ids", "row_ids", "weights")
VSL = Vsl(min_length=4, cycle_steps=16)
WEIGHTS = {"code": 0.4, "web": 0.6}


def documents(random: np.random.Generator, n_docs: int, first: int) -> list[list[int]]:
    """Documents of 1 to 50 tokens that tell where they stood, each ended by 1."""
    found = []
    for n in random.integers(0, 50, n_docs).tolist():
        found.append([*range(first, first + n), 1])
        first += n
    return found


@pytest.fixture
def corpus(monkeypatch) -> dict[str, list[list[list[int]]]]:
    """Domain -> shards -> documents; blocks are small enough for several in an epoch."""
    monkeypatch.setattr("cuvee.streaming.packing.N_BLOCK_ROWS", 8)
    monkeypatch.setattr("cuvee.streaming.packing.N_BLOCK_DOCS", 24)
    random = np.random.default_rng(0)
    return {
        name: [documents(random, 40, 20_000 * k + 2500 * s + 2) for s in range(3)]
        for k, name in enumerate(["code", "web"])
    }


@pytest.fixture
def sources(corpus, write_store):
    return {name: write_store(name, shards) for name, shards in corpus.items()}


def loader(sources, weights=WEIGHTS, **options) -> StreamingLoader:
    arguments = {"sequence_length": L, "global_batch": B, "packing": VSL, "emit": EMIT, **options}
    return StreamingLoader(sources, weights, **arguments)


def digest(*parts) -> str:
    """Of a global batch, given each rank's part."""
    values = hashlib.blake2b()
    for name in ("input_ids", "labels", "position_ids", "domain_ids", "row_ids", "weights"):
        for part in parts:
            values.update(part[name].numpy().tobytes())
    return values.hexdigest()


@given(st.lists(st.integers(0, 300), min_size=1, max_size=20), st.integers(0, 4))
def test_pieces_and_remainders_are_a_documents_targets_each_once(
    lengths: list[int], n_doublings: int
) -> None:
    of_lengths = [4 << k for k in range(n_doublings + 1)]
    ends = np.cumsum(lengths)
    pieces, (starts, rests) = cut(ends - lengths, np.array(lengths), of_lengths)
    found = Counter(
        token
        for starts_of, length in zip(pieces, of_lengths, strict=True)
        for start in starts_of.tolist()
        for token in range(start, start + length)
    )
    found.update(t for s, n in zip(starts.tolist(), rests.tolist(), strict=True) for t in range(s, s + n))
    targets = (t for end, n in zip(ends.tolist(), lengths, strict=True) for t in range(end - n, end - 1))
    assert found == Counter(targets)
    # Below the longest, at most one piece of each length: the binary digits of what is left.
    assert all(part.size <= len(lengths) for part in pieces[:-1])
    assert rests.size == 0 or rests.max() < of_lengths[0]


def test_a_document_of_800_targets_is_512_and_256_and_32() -> None:
    # 800 = 2**9 + 2**8 + 2**5, as section 2 of the paper writes it.
    pieces, (starts, lengths) = cut(np.array([10]), np.array([801]), [256, 512, 1024])
    assert [part.tolist() for part in pieces] == [[522], [10], []]
    assert (starts.tolist(), lengths.tolist()) == ([778], [32])


@given(st.lists(st.integers(1, 9), max_size=20))
def test_joined_remainders_are_cut_at_every_length_in_order(lengths: list[int]) -> None:
    begins = np.arange(len(lengths)) * 100
    found = joined(begins, np.array(lengths, np.int64), 8)
    tokens = [t for begin, n in zip(begins.tolist(), lengths, strict=True) for t in range(begin, begin + n)]
    segments = [
        [t for s, n in zip(found.starts[a:b], found.lengths[a:b], strict=True) for t in range(s, s + n)]
        for a, b in itertools.pairwise(found.bounds.tolist())
    ]
    assert segments == [tokens[k : k + 8] for k in range(0, len(tokens) // 8 * 8, 8)]


def test_every_step_has_as_many_tokens_and_one_length(sources) -> None:
    running, lengths = loader(sources), Counter()
    for batch in itertools.islice(running, 64):
        n_sequences, length = batch.input_ids.shape
        assert n_sequences * length == B * L
        assert batch.labels.shape == batch.position_ids.shape == (n_sequences, length)
        assert batch.domain_ids.shape == batch.row_ids.shape == batch.weights.shape == (n_sequences,)
        assert set(range(0, B * L + 1, length)) <= set(batch.cu_seqlens.tolist())
        assert batch.max_seqlen <= length
        assert len(set(zip(batch.domain_ids.tolist(), batch.row_ids.tolist(), strict=True))) == n_sequences
        lengths[length] += 1
    assert set(lengths) == {4, 8, 16}
    assert running.stats()["fill"] == 1


def test_an_epoch_has_every_target_once_but_for_less_than_a_row_of_each_block(sources, corpus) -> None:
    batches = loader({"web": sources["web"]}, {"web": 1.0}, global_batch=1, max_epochs=1)
    targets = Counter(
        label for batch in batches for label in batch.labels.flatten().tolist() if label != -100
    )
    whole = Counter(token for shard in corpus["web"] for doc in shard for token in doc[1:])
    assert not targets - whole
    n_blocks = batches._planner.domains[0].packing.n_blocks_in(0)
    assert n_blocks > 2
    assert 0 < (whole - targets).total() < n_blocks * (L + VSL.min_length)
    assert batches.stats()["epochs"]["web"] == pytest.approx(1)


def test_dropped_remainders_leave_no_sequence_with_two_documents(sources, corpus) -> None:
    dropping = Vsl(min_length=4, remainders="drop", cycle_steps=16)
    batches = loader(sources, packing=dropping)
    for batch in itertools.islice(batches, 40):
        n_sequences, length = batch.input_ids.shape
        assert batch.cu_seqlens.tolist() == [*range(0, B * L + 1, length)]
        # A document's tokens count up, so a whole sequence does; only its last target may be the end, 1.
        steps = np.diff(batch.input_ids.numpy(), axis=1)
        assert (steps == 1).all()
        assert (batch.labels != -100).all()
        assert n_sequences * length == B * L
    n_tokens = sum(len(doc) for shard in corpus["web"] for doc in shard)
    n_dropped = sum(1 + (len(doc) - 1) % 4 for shard in corpus["web"] for doc in shard)
    assert batches.stats()["left_out"]["web"] == pytest.approx(n_dropped / n_tokens)
    assert loader(sources).stats()["left_out"]["web"] < n_dropped / n_tokens


def test_a_cycle_has_every_length_and_domain_in_proportion_and_grows(sources) -> None:
    running = loader(sources, packing=Vsl(min_length=4, cycle_steps=64))
    planner = running._planner
    expected = np.zeros(3)
    for domain, weight in zip(planner.by_length, (0.4, 0.6), strict=True):
        expected += weight * np.array(domain.n_tokens) / sum(domain.n_tokens)
    lengths = [batch.input_ids.shape[1] for batch in itertools.islice(running, 128)]
    for cycle in (lengths[:64], lengths[64:]):
        counts = [Counter(cycle)[length] for length in (4, 8, 16)]
        np.testing.assert_allclose(counts, 64 * expected, atol=1)
        assert np.mean(cycle[:32]) < np.mean(cycle[32:])
    # Each length is within a row of its shares, so the domains are within three.
    shares = running.stats()["token_shares"]
    assert abs(shares["code"] - 0.4) * 128 * B < 3 + 2 * B


def test_turns_are_drawn_by_the_odds_without_replacement() -> None:
    n = 4000
    orders = [cycle_order((3, 3, 3), (4, 2, 1), key) for key in range(n)]
    assert all(np.bincount(order).tolist() == [3, 3, 3] for order in orders)
    first = np.bincount([order[0] for order in orders], minlength=3) / n
    for found, p in zip(first, (4 / 7, 2 / 7, 1 / 7), strict=True):
        assert abs(found - p) < 5 * (p * (1 - p) / n) ** 0.5  # 5 standard errors of a binomial


def test_a_run_saved_at_any_step_goes_on_at_any_world_size(sources) -> None:
    undisturbed = [digest(batch) for batch in itertools.islice(loader(sources), 44)]
    running = loader(sources)
    for step in range(40):
        state = json.loads(json.dumps(running.state_dict()))
        ranks = [loader(sources, rank=r, world_size=2) for r in range(2)]
        for rank in ranks:
            rank.load_state_dict(state)
            assert rank.state_dict() == running.state_dict()
            assert rank.stats() == running.stats()
        for k in range(3):
            assert digest(*(next(rank) for rank in ranks)) == undisturbed[step + k]
        next(running)


@pytest.mark.parametrize("options", [{"prefetch": 2}, {"workers": 1, "prefetch": 2}])
def test_other_executors_give_the_same_batches(sources, options) -> None:
    running = loader(sources, **options)
    found = [digest(batch) for batch in itertools.islice(running, 30)]
    running.close()
    assert found == [digest(batch) for batch in itertools.islice(loader(sources), 30)]


def test_weights_set_while_running_hold_from_their_step_on_after_a_resume_too(sources) -> None:
    running = loader(sources)
    running.set_weights({"code": 1.0, "web": 0.0}, at_step=7)
    resumed = loader(sources)
    for _ in range(5):
        next(running)
    resumed.load_state_dict(json.loads(json.dumps(running.state_dict())))
    for batches in (running, resumed):
        domains = [set(batch.domain_ids.tolist()) for batch in itertools.islice(batches, 12)]
        assert {0, 1} in domains[:2]
        assert all(found == {0} for found in domains[2:])


def test_a_run_of_one_epoch_ends_when_no_length_fills_a_batch(sources) -> None:
    running = loader(sources, None, max_epochs=1)
    expected = len(running)
    assert len(list(running)) == expected
    assert all(0.8 < epochs <= 1 for epochs in running.stats()["epochs"].values())
    row_by_row = loader(sources, None, max_epochs=1, global_batch=1)
    steps = [batch.step for batch in row_by_row]
    stats = row_by_row.stats()
    assert stats["epochs"] == {"code": 1, "web": 1}
    ends = Counter((event["domain"], event["event"]) for event in stats["events"])
    assert ends == Counter(
        (name, f"reached max_epochs at {length} tokens") for name in WEIGHTS for length in (4, 8, 16)
    )
    assert max(event["step"] for event in stats["events"]) == steps[-1]


def test_a_state_of_eight_domains_takes_less_than_4_kilobytes(corpus, write_store) -> None:
    names = [f"a-long-name-{k}" for k in range(8)]
    many = {name: write_store(name, corpus["web"]) for name in names}
    running = StreamingLoader(
        many, sequence_length=128, global_batch=8, packing=Vsl(min_length=4), emit=("input_ids",)
    )
    for _ in range(100):
        next(running)
    assert len(running._planner.lengths) == 6
    assert len(json.dumps(running.state_dict())) < 4096


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sequence_length": 12}, "sequence_length is 12; vsl takes a power of two of min_length"),
        ({"packing": "vsl"}, r"sequence_length is 16; .* of min_length \(256\) or more"),
        ({"mask_boundaries": False}, "mask_boundaries: vsl puts documents side by side"),
        ({"floors": {"web": 0.1}}, "floors: not supported with packing 'vsl'"),
        ({"sequence_length": 1 << 14}, "domain 'code' has weight 0.4 and not one row of 16384 tokens"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(sources, options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loader(sources, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_length": 3}, "vsl: min_length is 3; it must be a power of two"),
        ({"remainders": "keep"}, "vsl: remainders is 'keep'; it is one of 'join', 'drop'"),
        ({"curriculum": "grow"}, "vsl: curriculum is 'grow'; it is one of uniform, grow_p2"),
        ({"cycle_steps": 0}, "vsl: cycle_steps is 0; it must be at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Vsl(**options)


def test_a_state_of_other_options_or_of_appended_shards_is_refused(sources, corpus, write_store) -> None:
    state = loader(sources).state_dict()
    with pytest.raises(ValueError, match=r"state: packing is .Vsl\(min_length=4.*cycle_steps=16\)., this"):
        loader(sources, packing=Vsl(min_length=4, cycle_steps=8)).load_state_dict(state)
    write_store("web", [*corpus["web"], [[5, 6, 7, 1]]])
    with pytest.raises(ValueError, match=r"domains.web had 3 shards and has 4; vsl cannot go on with"):
        loader(sources).load_state_dict(state)

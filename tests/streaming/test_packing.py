import itertools
import json
from collections import Counter

import numpy as np
import pytest
import torch

from cuvee.streaming import StreamingLoader, TokenStore
from cuvee.streaming.packing import BestFit, Concat, Position, end_position, first_position, following

L = 16
EMIT = ("input_ids", "labels", "position_ids", "cu_seqlens", "max_seqlen", "domain_ids", "row_ids")


def documents(random: np.random.Generator, n_docs: int, first: int) -> list[list[int]]:
    """Documents of 0 to 40 tokens that tell where they stood, each ended by 1."""
    lengths, found = random.integers(0, 40, n_docs), []
    for n in lengths.tolist():
        found.append([*range(first, first + n), 1] if n else [])
        first += n
    return found


@pytest.fixture
def corpus(monkeypatch) -> dict[str, list[list[list[int]]]]:
    """Domain -> shards -> documents; blocks are small enough for several in an epoch."""
    monkeypatch.setattr("cuvee.streaming.packing.N_BLOCK_ROWS", 8)
    monkeypatch.setattr("cuvee.streaming.packing.N_BLOCK_DOCS", 12)
    random = np.random.default_rng(0)
    return {
        name: [documents(random, 25, 20_000 * k + 1000 * s + 2) for s in range(3)]
        for k, name in enumerate(["code", "web"])
    }


@pytest.fixture
def sources(corpus, write_store):
    return {name: write_store(name, shards) for name, shards in corpus.items()}


def loader(sources, **options) -> StreamingLoader:
    arguments = {"sequence_length": L, "global_batch": 4, "packing": "best_fit", "emit": EMIT, **options}
    return StreamingLoader(sources, {"code": 0.4, "web": 0.6}, **arguments)


def sequences(batch) -> list[tuple[list[int], list[int]]]:
    """(inputs, labels) of each sequence that is no padding."""
    bounds = batch.cu_seqlens.tolist()
    inputs, labels = batch.input_ids.flatten().tolist(), batch.labels.flatten().tolist()
    parts = [(inputs[a:b], labels[a:b]) for a, b in itertools.pairwise(bounds)]
    return [part for part in parts if not (set(part[0]) == {1} and set(part[1]) == {-100})]


def test_an_epoch_of_best_fit_has_every_document_once_and_cuts_none_that_fits(sources, corpus) -> None:
    whole = Counter(tuple(doc) for shard in corpus["web"] for doc in shard if doc)
    # Alone: rows come until the epoch ends.
    batches = StreamingLoader(
        {"web": sources["web"]},
        sequence_length=L,
        global_batch=1,
        packing="best_fit",
        emit=EMIT,
        max_epochs=1,
    )
    pieces = [piece for batch in batches for piece in sequences(batch)]
    assert {len(inputs) for inputs, _ in pieces} <= set(range(1, L + 1))
    found, split = Counter(), Counter()
    for inputs, labels in pieces:
        if inputs[-1] == 1 and tuple(inputs) in whole:
            found[tuple(inputs)] += 1
            assert labels == [*inputs[1:], -100]
        else:
            split[inputs[0]] += 1
            assert labels[:-1] == inputs[1:]
    assert found == Counter({doc: n for doc, n in whole.items() if len(doc) <= L})
    heads = [doc[i] for doc in whole for i in range(0, len(doc) - 1, L) if len(doc) > L]
    assert split == Counter(heads)


def test_every_target_comes_once_in_an_epoch_of_best_fit(sources, corpus) -> None:
    batches = StreamingLoader(
        {"web": sources["web"]},
        sequence_length=L,
        global_batch=1,
        packing="best_fit",
        emit=EMIT,
        max_epochs=2,
    )
    targets = Counter(label for batch in batches for label in batch.labels.flatten().tolist() if label > 1)
    expected = Counter(token for shard in corpus["web"] for doc in shard for token in doc[1:] if token > 1)
    assert targets == Counter({token: 2 * n for token, n in expected.items()})


def test_positions_bounds_and_the_longest_sequence_agree(sources) -> None:
    for packing in ("best_fit", "concat", "crop"):
        for batch in itertools.islice(loader(sources, packing=packing), 40):
            bounds = batch.cu_seqlens
            assert bounds.dtype == torch.int32
            assert bounds[0] == 0
            assert bounds[-1] == 4 * L
            lengths = np.diff(bounds.numpy())
            expected = np.concatenate([np.arange(n) for n in lengths]).reshape(4, L)
            np.testing.assert_array_equal(batch.position_ids, expected)
            assert batch.max_seqlen in (1, 2, 4, 8, 16)
            assert batch.max_seqlen / 2 < lengths.max() <= batch.max_seqlen


@pytest.mark.parametrize("packing", ["concat", "crop", "best_fit"])
def test_labels_never_cross_a_document(sources, packing: str) -> None:
    for batch in itertools.islice(loader(sources, packing=packing), 40):
        for inputs, labels in sequences(batch):
            assert labels[:-1] == inputs[1:]
            if inputs[-1] == 1:
                assert labels[-1] == -100
            else:
                assert labels[-1] in (1, inputs[-1] + 1)


@pytest.mark.parametrize("packing", ["concat", "crop", "best_fit"])
def test_a_packed_run_saved_at_any_step_goes_on_at_any_world_size(sources, packing: str) -> None:
    undisturbed = [batch.input_ids for batch in itertools.islice(loader(sources, packing=packing), 40)]
    running = loader(sources, packing=packing)
    for step in range(34):
        state = json.loads(json.dumps(running.state_dict()))
        ranks = [loader(sources, packing=packing, rank=r, world_size=2) for r in range(2)]
        for rank in ranks:
            rank.load_state_dict(state)
            assert rank.stats() == running.stats()
        for k in range(3):
            parts = [next(rank).input_ids for rank in ranks]
            assert torch.equal(torch.cat(parts), undisturbed[step + k])
        next(running)


def test_stats_count_padding(sources) -> None:
    running, n_padding = loader(sources, max_epochs=3), Counter()
    for batch in running:
        for r, domain in enumerate(batch.domain_ids.tolist()):
            row = batch.input_ids[r].tolist()
            padded = next((n for n in range(L) if row[L - 1 - n] != 1), L)
            n_padding[domain] += max(0, padded - 1) if padded else 0
            # A document that ends the row ends with 1 as well; padding is told by its own sequence.
            ends = batch.cu_seqlens.tolist()
            last = max(end for end in ends if end < (r + 1) * L) - r * L
            is_padding = set(row[last:]) == {1} and last > 0 and row[last - 1] == 1
            n_padding[domain] += -max(0, padded - 1) + (L - last if is_padding else 0) if padded else 0
    stats = running.stats()
    assert stats["n_padding"] == {"code": n_padding[0], "web": n_padding[1]}
    assert stats["fill"] == pytest.approx(1 - sum(n_padding.values()) / (stats["step"] * 4 * L))
    assert stats["epochs"]["web"] <= 3


def test_blocks_fill_rows_to_within_a_thousandth(write_store) -> None:
    random = np.random.default_rng(1)
    lengths = np.maximum(2, random.lognormal(5.5, 1.0, 6000)).astype(int)
    store = TokenStore(write_store("web", [[[7] * (n - 1) + [1] for n in lengths.tolist()]]))
    batches = StreamingLoader(
        {"web": store}, sequence_length=512, global_batch=1, packing="best_fit", max_epochs=1
    )
    for _ in batches:
        pass
    assert batches.stats()["fill"] >= 0.999


def test_crop_cuts_elsewhere_in_every_epoch_and_has_no_token_twice_in_one() -> None:
    for n_tokens in (17, 18, 40, 33, 100):
        crop = Concat("web", 0, n_tokens, L, moving=True)
        n_rows, offsets = crop.n_rows(0, 0), set()
        assert n_rows >= 1
        for epoch in range(30):
            starts = np.sort(crop.rows(epoch, 0, 0, n_rows).starts)
            assert starts[0] >= 0
            assert starts[-1] + L + 1 <= n_tokens
            assert (np.diff(starts) == L).all()
            offsets.add(int(starts[0]))
        assert len(offsets) > min(L, n_tokens - n_rows * L) / 2


def test_the_end_of_a_fraction_of_an_epoch_lies_within_its_block(sources) -> None:
    store = TokenStore(sources["web"])
    stream = loader(sources, packing="best_fit")._domain_maker.layout
    packing = BestFit("web", 0, stream, 0, store.n_docs, store.n_tokens, L)
    assert packing.n_blocks > 2
    for cap in (0.5, 1.0, 1.3, 2.99):
        end, position, n_rows = end_position(packing, cap), first_position(packing), 0
        while position < end:
            n_rows += packing.n_rows(position.epoch, position.block)
            position = first_position(packing, *following(packing, position.epoch, position.block)[:2])
        per_epoch = sum(packing.n_rows(0, block) for block in range(packing.n_blocks))
        assert abs(n_rows - cap * per_epoch) < 2 * per_epoch / packing.n_blocks + packing.n_blocks
    assert end_position(packing, 2.0) == Position(2, 0, 0)


def test_documents_without_tokens_and_blocks_without_documents_are_passed_over(
    write_store, monkeypatch
) -> None:
    monkeypatch.setattr("cuvee.streaming.packing.N_BLOCK_ROWS", 0)
    monkeypatch.setattr("cuvee.streaming.packing.N_BLOCK_DOCS", 1)
    store = TokenStore(write_store("web", [[[], [], [5, 1], [], []], [[], [6, 7, 1]]]))
    batches = StreamingLoader(
        {"web": store}, sequence_length=4, global_batch=1, packing="best_fit", max_epochs=2
    )
    rows = [tuple(batch.input_ids[0].tolist()) for batch in batches]
    assert Counter(rows) == {(5, 1, 1, 1): 2, (6, 7, 1, 1): 2}


def by_cu_seqlens(batch) -> torch.Tensor:
    """Which sequence each token belongs to: bool, (tokens, tokens), the same one."""
    sequence = torch.bucketize(torch.arange(4 * L), batch.cu_seqlens[1:].long(), right=True)
    return sequence[:, None] == sequence[None]


def by_position_ids(batch) -> torch.Tensor:
    sequence = (batch.position_ids.flatten() == 0).cumsum(0)
    return sequence[:, None] == sequence[None]


@pytest.mark.parametrize("same_sequence", [by_cu_seqlens, by_position_ids])
@pytest.mark.parametrize("packing", ["concat", "crop", "best_fit"])
def test_a_tiny_attention_sees_nothing_of_the_other_documents_of_its_row(
    sources, packing: str, same_sequence
) -> None:
    """Two layers, so that what one document saw in the first could reach another in the second."""
    torch.manual_seed(0)
    batches = loader(sources, packing=packing, emit=("input_ids", "position_ids", "cu_seqlens"))
    batch = next(batch for batch in batches if (batch.cu_seqlens % L != 0).sum() >= 3)
    embedding = torch.nn.Embedding(60_001, 8)
    mixing = [torch.nn.Linear(8, 8) for _ in range(2)]
    allowed = (same_sequence(batch) & torch.ones(4 * L, 4 * L).tril().bool())[None]

    def logits(tokens: torch.Tensor) -> torch.Tensor:
        x = (embedding(tokens.flatten()) + batch.position_ids.flatten()[:, None] / L)[None]
        for layer in mixing:
            x = x + layer(torch.nn.functional.scaled_dot_product_attention(x, x, x, allowed))
        return x[0] @ embedding.weight[:50].T

    before = logits(batch.input_ids)
    for begin, end in itertools.pairwise(batch.cu_seqlens.tolist()):
        perturbed = batch.input_ids.clone()
        perturbed.view(-1)[begin] += 1
        after = logits(perturbed)
        changed = (before != after).any(-1)
        assert changed[begin:end].all()
        assert not changed[:begin].any()
        assert not changed[end:].any()

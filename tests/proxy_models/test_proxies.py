"""Proxies trained from token shards."""

from pathlib import Path

import numpy as np
import pytest

from cuvee.proxy_models import zero
from cuvee.proxy_models.proxies import fit_ngram_proxy, train_proxies, validation_rows
from cuvee.proxy_models.training import TrainingConfig
from cuvee.proxy_models.transformer import ModelShape
from cuvee.streaming.shards import write_manifest, write_token_shard

SHAPE = ModelShape(vocab_size=32, sequence_length=16, n_layers=1, d_model=16, n_heads=2, d_ff=16)
CONFIG = TrainingConfig(n_tokens=64 * 60, batch_tokens=64, learning_rate=1e-2, device="cpu")


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    """Two domains that count in steps of 1 and of 3."""
    root = tmp_path_factory.mktemp("tokens")
    for domain, stride in (("ones", 1), ("threes", 3)):
        for split, n_docs in (("train", 30), ("validation", 6)):
            tokens = (np.arange(40) * stride + np.arange(n_docs)[:, None]).ravel() % 32
            offsets, doc_ids = np.arange(0, tokens.size + 1, 40), np.arange(n_docs, dtype=np.uint64)
            write_token_shard(root / domain / f"{split}-00000.arrow", tokens, offsets, doc_ids, "uint16")
        write_manifest(root / domain, domain=domain, vocab_size=32, tokenizer_hash="counting", eos_id=0)
    return {"ones": root / "ones", "threes": root / "threes"}


def test_each_proxy_is_best_on_the_domain_it_saw_most_of(sources):
    results = train_proxies(sources, np.array([[0.9, 0.1], [0.1, 0.9]]), SHAPE, CONFIG)
    assert [result.weights for result in results] == [
        {"ones": 0.9, "threes": 0.1},
        {"ones": 0.1, "threes": 0.9},
    ]
    assert results[0].losses["ones"] < results[1].losses["ones"]
    assert results[1].losses["threes"] < results[0].losses["threes"]
    assert results[0].failure is None
    assert results[0].n_tokens == CONFIG.n_tokens
    assert results[0].n_parameters == SHAPE.n_parameters


def test_the_size_of_groups_does_not_matter(sources):
    weights = np.array([[0.9, 0.1], [0.1, 0.9], [0.5, 0.5]])
    grouped, alone = (
        train_proxies(sources, weights, SHAPE, CONFIG, models_per_group=size, seeds=[0, 0, 1])
        for size in (2, 1)
    )
    for ours, theirs in zip(grouped, alone, strict=True):
        assert ours.seed == theirs.seed
        # 60 steps amplify rounding differences of about 1e-7 each.
        assert ours.losses == pytest.approx(theirs.losses, abs=1e-3)


def test_the_ngram_proxy_of_the_same_shards_ranks_alike(sources):
    losses = fit_ngram_proxy(sources).losses(np.array([[0.9, 0.1], [0.1, 0.9]]), CONFIG.n_tokens)
    assert losses[0, 0] < losses[1, 0]
    assert losses[1, 1] < losses[0, 1]


def test_the_trigram_proxy_of_the_same_shards_ranks_alike_whole_and_sampled(sources, monkeypatch):
    monkeypatch.setattr(zero, "SAMPLE_ROW", 40)
    for max_tokens in (None, 400):
        proxy = zero.fit_trigram_proxy(sources, max_tokens=max_tokens)
        losses = proxy.losses(np.array([[0.9, 0.1], [0.1, 0.9]]), CONFIG.n_tokens)
        assert losses[0, 0] < losses[1, 0]
        assert losses[1, 1] < losses[0, 1]


def test_counting_a_sample_of_the_tokens_approaches_counting_all(sources, monkeypatch):
    monkeypatch.setattr(zero, "SAMPLE_ROW", 40)
    weights = np.array([0.5, 0.5])
    whole, most, few = (
        fit_ngram_proxy(sources, max_tokens=n).losses(weights, 1e4).mean() for n in (None, 1000, 80)
    )
    assert abs(most - whole) < abs(few - whole)


def test_all_rows_are_used_where_fewer_are_held_out_than_asked_for(sources):
    input_ids, labels = validation_rows(sources["ones"], sequence_length=16, n_rows=1000)
    assert tuple(input_ids.shape) == ((6 * 40 - 1) // 16, 16)
    assert (input_ids[:, 1:] == labels[:, :-1]).all()


def test_weights_that_do_not_match_the_domains_are_refused(sources):
    with pytest.raises(ValueError, match=r"weights have shape \(1, 3\); expected \(n_models, 2\)"):
        train_proxies(sources, np.ones((1, 3)) / 3, SHAPE, CONFIG)


def test_a_validation_split_shorter_than_a_row_is_refused(sources):
    with pytest.raises(ValueError, match=r"has 240 tokens; a row needs 513\. Hold out more text"):
        validation_rows(sources["ones"], sequence_length=512, n_rows=1)

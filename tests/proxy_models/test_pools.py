"""Pools for proxies: as many epochs as the target run, the same documents whatever else there is."""

from pathlib import Path

import numpy as np
import pytest

from cuvee.proxy_models.pools import repetition_matched
from cuvee.proxy_models.proxies import train_proxies
from cuvee.proxy_models.training import TrainingConfig
from cuvee.proxy_models.transformer import ModelShape
from cuvee.streaming.loader import StreamingLoader
from cuvee.streaming.shards import TokenStore, write_manifest, write_token_shard

LENGTHS = {"web": np.full(60, 50), "wiki": np.arange(5, 45)}


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    """Two domains of 3,000 and 980 tokens; a document's tokens are its number."""
    root = tmp_path_factory.mktemp("tokens")
    for domain, lengths in LENGTHS.items():
        offsets, doc_ids = np.concatenate([[0], np.cumsum(lengths)]), np.arange(len(lengths), dtype=np.uint64)
        tokens = np.repeat(np.arange(len(lengths)), lengths)
        for split in ("train", "validation"):
            write_token_shard(root / domain / f"{split}-00000.arrow", tokens, offsets, doc_ids, "uint16")
        write_manifest(root / domain, domain=domain, vocab_size=64, tokenizer_hash="numbers", eos_id=0)
    return {domain: root / domain for domain in LENGTHS}


def test_a_pool_has_its_share_of_tokens_in_whole_documents_but_the_last(sources, tmp_path):
    pools = repetition_matched(sources, 1000, 10_000, tmp_path)
    for domain, n_tokens in (("web", 300), ("wiki", 98)):
        store = TokenStore(pools[domain], "train")
        assert store.n_tokens == n_tokens
        whole = LENGTHS[domain][store.doc_ids.astype(int)]
        assert (store.lengths[:-1] == whole[:-1]).all()
        assert store.lengths[-1] <= whole[-1]
        expected = np.repeat(store.doc_ids.astype(int), store.lengths)
        np.testing.assert_array_equal(store.read(0, n_tokens), expected)


def test_a_proxy_makes_as_many_epochs_as_the_target_run(sources, tmp_path):
    pools = repetition_matched(sources, 800, 8000, tmp_path)
    epochs = []
    for stores, n_tokens in ((pools, 800), (sources, 8000)):
        loader = StreamingLoader(
            stores, {"web": 0.25, "wiki": 0.75}, sequence_length=4, global_batch=2, steps=n_tokens // 8
        )
        for _ in loader:
            pass
        epochs.append(loader.stats()["epochs"])
    # 600 of wiki's 98 tokens, 6,000 of its 980; rows of 4 tokens leave 2 of the pool over in every epoch.
    assert epochs[0]["wiki"] == pytest.approx(epochs[1]["wiki"], rel=0.03)
    assert epochs[0]["web"] == pytest.approx(epochs[1]["web"], rel=0.03)


def test_a_pool_depends_on_seed_and_name_alone_and_begins_a_larger_one(sources, tmp_path):
    def documents(name: str, n_tokens: int, seed: int = 0, **kept: Path) -> list[int]:
        pools = repetition_matched(kept or sources, n_tokens, 10_000, tmp_path / name, seed=seed)
        return TokenStore(pools["web"], "train").doc_ids.tolist()

    few = documents("few", 1000)
    assert documents("alone", 1000, web=sources["web"]) == few
    assert documents("many", 5000)[: len(few)] == few
    assert documents("other", 1000, seed=1) != few


def test_a_target_no_longer_than_the_proxies_leaves_domains_whole(sources, tmp_path):
    pools = repetition_matched(sources, 1000, 500, tmp_path)
    assert {name: TokenStore(pools[name], "train").n_tokens for name in pools} == {"web": 3000, "wiki": 980}


def test_a_pool_too_small_to_train_on_is_refused(sources, tmp_path):
    with pytest.raises(
        ValueError, match=r"domain 'wiki' has 980 tokens; .* may see 10 of them, 17 are needed"
    ):
        repetition_matched(sources, 100, 10_000, tmp_path, min_tokens=17)


def test_proxies_that_repeat_a_pool_learn_it_by_heart_and_the_rest_less(sources):
    shape = ModelShape(64, sequence_length=16, n_layers=1, d_model=16, n_heads=2, d_ff=16)
    config = TrainingConfig(n_tokens=64 * 40, batch_tokens=64, learning_rate=1e-2, device="cpu")
    weights = np.array([[0.5, 0.5]])
    losses = [
        train_proxies(sources, weights, shape, config, target_tokens=target)[0].losses
        for target in (None, 64 * 40, 64 * 400)
    ]
    assert losses[0] == losses[1]  # the same documents in the same order
    # Validation is training text here: of a tenth of the documents, the others are unknown.
    assert losses[2]["web"] > losses[0]["web"]

"""Domains that `cluster` finds, from the recipe to the mixture."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cuvee.pipeline.cli import main
from cuvee.pipeline.engines import LocalEngine

from .conftest import TINY, TOKENIZE, TOPICS, WORDS, curation_of, documents, file_bytes, write_jsonl

RECIPE = f"""\
inputs: [{{source: everything, path: mixed.jsonl}}]
curate:
  - gopher_quality: {{min_words: 20}}
  - cluster: {{n_clusters: 3, dimensions: 8, n_buckets: 4096}}
  - semantic_dedup
  - prototype_pruning
{TOKENIZE}
mix: {{n_proxies: 4, group_size: 4, max_epochs: 8, proxy: {{{TINY}}}}}
"""


def test_domains_found_in_one_source_are_tokenized_apart_and_mixed(tmp_path: Path) -> None:
    mixed = [
        {"text": text, "id": f"{domain}-{i}"}
        for domain in WORDS
        for i, text in enumerate(documents(domain, 60))
    ]
    write_jsonl(tmp_path / "mixed.jsonl", mixed)
    (tmp_path / "r.yaml").write_text(RECIPE, "utf-8")
    run = tmp_path / "run"
    assert main(["run", str(tmp_path / "r.yaml"), "--run-dir", str(run), "--workers", "1"]) == 0

    (last,) = run.glob("stages/*-prototype_pruning-*")
    kept = pq.read_table(last / "part-00000.parquet", columns=["id", "domain"]).to_pylist()
    topics = {row["domain"]: row["id"].rpartition("-")[0] for row in kept}
    assert sorted(topics.values()) == sorted(WORDS), "one domain for each topic"
    assert all(topics[row["domain"]] == row["id"].rpartition("-")[0] for row in kept)
    assert all(set(domain.split("-")) <= set(WORDS[topic].split()) for domain, topic in topics.items())
    weights = json.loads((run / "mix/mixture.json").read_text("utf-8"))["weights"]
    assert set(weights) == set(topics)
    assert sum(weights.values()) == pytest.approx(1)


def test_a_fit_that_was_killed_is_done_again_with_the_same_bytes(tmp_path: Path) -> None:
    curation = curation_of(tmp_path, TOPICS, LocalEngine(1))
    curation.run()
    before = file_bytes(tmp_path / "run")
    for stage in curation.plan.stages[:2]:
        curation.state(stage).unlink()
    for stage in curation.plan.stages[1:]:
        for path in curation.folder(stage).glob("part-*.parquet"):
            path.unlink()
    curation.run()
    assert file_bytes(tmp_path / "run") == before

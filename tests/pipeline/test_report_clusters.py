"""The report's section on domains found: its numbers are the run's, and hostile names stay text."""

import json
import re
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cuvee.pipeline.outcome import Outcome
from cuvee.pipeline.recipe import load_recipe
from cuvee.pipeline.report_clusters import cluster_section, read_clusters
from cuvee.pipeline.report_rows import read_run
from cuvee.pipeline.run import run

from .conftest import WORDS, documents, write_jsonl

RECIPE = """\
inputs:
  - {source: cellar, path: cellar.jsonl}
  - {source: "<b>sea</b>", path: sea.jsonl}
  - {source: code, path: code.jsonl}
curate:
  - cluster: {n_clusters: 3, dimensions: 8, n_buckets: 4096}
"""


def _run(folder: Path, recipe: str, texts: dict[str, list[str]]) -> Outcome:
    for name, found in texts.items():
        write_jsonl(folder / f"{name}.jsonl", [{"text": text} for text in found])
    (folder / "r.yaml").write_text(recipe, "utf-8")
    return run(load_recipe(folder / "r.yaml"), folder / "run")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return _run(tmp_path_factory.mktemp("found"), RECIPE, {domain: documents(domain, 40) for domain in WORDS})


def test_every_domain_has_a_line_with_its_documents_and_where_they_come_from(outcome: Outcome) -> None:
    html = str(cluster_section(read_run(outcome)))
    rows = [re.findall(r"<td[^>]*>(.*?)</td>", line) for line in html.split("<tr>")]
    told = {row[0]: (int(row[1]), row[5]) for row in rows if row}
    (folder,) = (folder for folder in outcome.stage_folders if "cluster" in folder.name)
    kept = [row for part in sorted(folder.glob("part-*.parquet")) for row in pq.read_table(part).to_pylist()]
    counted = Counter(row["domain"] for row in kept if row["cluster.id"] is not None)
    assert {domain: n for domain, (n, _) in told.items()} == counted
    for domain, (_, sources) in told.items():
        (topic,) = (topic for topic, words in WORDS.items() if domain.split("-")[0] in words.split())
        assert sources.startswith(topic.replace("sea", "&lt;b&gt;sea&lt;/b&gt;"))


def test_the_map_shows_documents_under_their_domains_names_once(outcome: Outcome) -> None:
    html = str(cluster_section(read_run(outcome)))
    (data,) = re.findall(r'<script type="application/json">(.*?)</script>', html, re.DOTALL)
    figure = json.loads(data)
    names = {annotation["text"] for annotation in figure["layout"]["annotations"]}
    assert len(names) == 3
    shown = [name for trace in figure["data"] for name in trace["text"]]
    assert len(shown) == len(set(shown)) == read_clusters(read_run(outcome).stages[-1]).n_docs.total()


def test_the_section_is_the_same_each_time(outcome: Outcome) -> None:
    assert cluster_section(read_run(outcome)) == cluster_section(read_run(outcome))


def test_a_corpus_without_words_and_a_recipe_without_clusters_are_no_problem(tmp_path: Path) -> None:
    nothing = {"cellar": ["!", "?"], "sea": ["..."], "code": ["--"]}
    bare = _run(tmp_path / "bare", RECIPE.partition("curate")[0] + "curate: [pii]\n", nothing)
    assert cluster_section(read_run(bare)) is None
    found = cluster_section(read_run(_run(tmp_path / "empty", RECIPE, nothing)))
    assert "No document has words" in str(found)

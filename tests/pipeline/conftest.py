"""Tiny corpora made in code: several domains of words, with near-duplicates, repeats and fragments."""

import contextlib
import io
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cuvee.operators.base import Fit, Operator
from cuvee.operators.cluster import Cluster
from cuvee.operators.prototype_pruning import PrototypePruning
from cuvee.operators.semantic_dedup import SemanticDedup
from cuvee.pipeline.cli import main
from cuvee.pipeline.curation import Curation
from cuvee.pipeline.engines import Engine
from cuvee.pipeline.listing import list_files, list_shards
from cuvee.pipeline.plan import Plan, group_stages
from cuvee.pipeline.progress import RunProgress
from cuvee.pipeline.ray_engine import RayEngine
from cuvee.pipeline.reading import Reader
from cuvee.pipeline.recipe import Input, Recipe

GLUE = "the of and to a in that it is was for with as on be at by this"
WORDS = {
    "cellar": "cask vat wine grape cellar master blend spring taste press barrel cork vintage slope",
    "sea": "ship harbour tide sail rope anchor captain storm wave mast gull crew cargo chart reef",
    "code": "function return value list index error module import class loop string buffer array",
}
CURATE = """\
curate:
  - gopher_quality: {min_words: 20}
  - exact_dedup
  - minhash_dedup
  - pii
"""
TOPICS: list[Operator] = [
    Cluster(n_clusters=2, dimensions=8, leaves_per_cluster=2, n_buckets=1 << 12),
    SemanticDedup(),
    PrototypePruning(keep_fraction=0.9),
]
TINY = (
    "n_layers: 1, d_model: 8, n_heads: 1, d_ff: 16, sequence_length: 16, batch_size: 4, n_tokens: 1024, "
    "validation_tokens: 256"
)
TINY_LINES = TINY.replace(", ", "\n  ")
TOKENIZE = "tokenize: {vocab_size: 300, validation_fraction: 0.1}\n"
TRAINING = f"""\
mix:
  n_proxies: 4
  group_size: 2
  max_epochs: 8
  proxy: {{{TINY}}}
train:
  {TINY_LINES}
  n_evaluations: 2
  online: {{every: 2, lag: 1, factor: 2, method: hard_batches, parameters: {{warm_up: 0}}}}
"""


def document(random_: random.Random, domain: str, n_words: int) -> str:
    """Sentences of a domain's words among function words."""
    own = WORDS[domain].split()
    words = [random_.choice(own if random_.random() < 0.5 else GLUE.split()) for _ in range(n_words)]
    sentences = [" ".join(words[i : i + 11]).capitalize() + "." for i in range(0, n_words, 11)]
    return " ".join(sentences)


def documents(domain: str, n_docs: int, seed: int = 0) -> list[str]:
    """`n_docs` documents, then near-duplicates of some, repeats of some, and fragments of two words."""
    random_ = random.Random(f"{domain}{seed}")
    texts = [document(random_, domain, random_.randrange(40, 160)) for _ in range(n_docs)]
    near = [text + " One more sentence." for text in texts[: n_docs // 8]]
    contact = ["Write to master@cellar-of-wine.com. " + document(random_, domain, 50)]
    return [*texts, *near, *contact, *texts[: n_docs // 16], *["too short"] * 3]


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """One JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def write_corpus(folder: Path, n_docs: int = 60) -> Path:
    """A recipe over three domains of JSONL, in several shards each."""
    inputs = []
    for domain in WORDS:
        write_jsonl(folder / f"{domain}.jsonl", [{"text": text} for text in documents(domain, n_docs)])
        inputs.append(f"  - {{source: {domain}, path: {domain}.jsonl}}\n")
    recipe = folder / "tiny.yaml"
    recipe.write_text("inputs:\n" + "".join(inputs) + "reading: {shard_bytes: 20kB}\n" + CURATE, "utf-8")
    return recipe


def curation_of(
    folder: Path,
    operators: Sequence[Operator],
    engine: Engine,
    *,
    last_fit: Fit | None = None,
    texts: Sequence[str] | None = None,
    run: str = "run",
) -> Curation:
    """The stages of `operators` over two domains, or over `texts`, in several shards."""
    for domain in ("sea", "code") if texts is None else ("given",):
        path = folder / f"{domain}.jsonl"
        if not path.exists():
            write_jsonl(path, [{"text": text} for text in texts or documents(domain, 30)])
    source = Input(source="web", path=(str(folder / "*.jsonl"),))
    files = list_files(source, "r.yaml:1")
    shard_bytes = max(file.n_bytes for file in files) // 3
    shards = list_shards(0, source, files, shard_bytes, "r.yaml:1")
    stages = group_stages(operators, last_fit, "inputs")
    plan = Plan((Reader(source, 10**6),), (tuple(files),), tuple(shards), stages)
    recipe = Recipe(name="r", inputs=(source,))
    return Curation(plan, recipe, folder / run, engine, RunProgress(Console(quiet=True)))


@pytest.fixture(scope="session")
def ray_engine() -> Iterator[Engine]:
    """A Ray cluster for all tests of this process; what runs meanwhile uses it, too.

    It takes half a minute of two cores to start, so the tests that need it stand in one file.
    """
    pytest.importorskip("ray")
    engine = RayEngine(2)
    yield engine
    engine.close()


@dataclass(frozen=True)
class WholeRun:
    """A recipe with every section, in a folder whose name has spaces, and what its run left and printed."""

    recipe: Path
    run_dir: Path
    printed: str


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> WholeRun:
    """A run from text to trained models that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole") / "with space ü"
    recipe = write_corpus(folder)
    recipe.write_text(recipe.read_text("utf-8") + TOKENIZE + TRAINING, "utf-8")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("COLUMNS", "160")
        assert main(["run", str(recipe), "--run-dir", str(folder / "run"), "--workers", "1"]) == 0
    return WholeRun(recipe, folder / "run", printed.getvalue())


@pytest.fixture
def tiny_recipe(tmp_path: Path) -> Path:
    """A recipe of inputs and curation over a tiny corpus, in a folder of its own."""
    return write_corpus(tmp_path / "data")


@pytest.fixture
def recipe_of(tmp_path: Path) -> Callable[..., Path]:
    """Writes a recipe: lines of YAML for one input called `web`, and whatever stands below it."""

    def recipe_of(input_keys: str = "path: web.jsonl", rest: str = "") -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(f"inputs:\n  - {{source: web, {input_keys}}}\n{rest}", "utf-8")
        return path

    return recipe_of


Made = tuple[int, int]


def made(path: Path) -> Made:
    """What changes when a file is written again: its time, and its inode, which some file systems reuse."""
    found = path.stat()
    return found.st_ino, found.st_mtime_ns


def file_bytes(folder: Path) -> dict[str, bytes]:
    """What a run leaves that must not depend on how it went: everything but locks, clocks and notes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("run.lock", "timings.jsonl", "report.html")
    }

"""A search in a recipe: rounds of proxies that a kill at any record interrupts without a trace."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cuvee.pipeline.cli import main

from .conftest import TINY, TOKENIZE, write_corpus

MIX = f"""\
mix:
  n_proxies: 6
  group_size: 2
  max_epochs: 8
  proxy: {{{TINY}}}
  search: {{token_fractions: [0.25, 1.0], n_initial: 5, n_replicates: 1, n_parallel: 2}}
"""
FILES = ("mix/mixture.json", "mix/proxies.parquet", "mix/search/journal.jsonl")
CUTS = {"in a round's trials": ("trial", "trial"), "in a round's results": ("result", "result")}


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose mixture a search chose, which nothing disturbed."""
    recipe = write_corpus(tmp_path_factory.mktemp("search"))
    recipe.write_text(recipe.read_text("utf-8") + TOKENIZE + MIX, "utf-8")
    assert main(["run", str(recipe), "--run-dir", str(recipe.parent / "run"), "--workers", "1"]) == 0
    return recipe.parent


def _records(folder: Path) -> list[dict]:
    lines = (folder / "run/mix/search/journal.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_proxies_go_from_few_tokens_to_all_within_the_budget(searched):
    trials = [record for record in _records(searched) if record["record"] == "trial"]
    n_tokens = [trial["n_tokens"] for trial in trials]
    assert set(n_tokens) == {256, 1024}
    assert sum(n_tokens) <= 6 * 1024
    assert n_tokens[:5] == [256] * 5
    table = pq.read_table(searched / "run/mix/proxies.parquet")
    assert table["n_tokens"].to_pylist().count(1024) == n_tokens.count(1024)
    mixture = json.loads((searched / "run/mix/mixture.json").read_text("utf-8"))
    assert sum(mixture["weights"].values()) == pytest.approx(1, abs=1e-8)
    assert mixture["recommendation"]["evidence"]["n_runs"] == n_tokens.count(256)


@pytest.mark.parametrize("killed_at", ["in a round's trials", "in a round's results"])
def test_a_search_that_was_killed_ends_with_the_same_bytes(searched, tmp_path, killed_at):
    again = tmp_path / "again"
    shutil.copytree(searched, again)
    path = again / "run/mix/search/journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    kinds = [record["record"] for record in _records(searched)]
    cut = next(i for i in range(6, len(kinds)) if (kinds[i - 1], kinds[i]) == CUTS[killed_at])
    path.write_bytes(b"".join(lines[:cut]) + lines[cut][:20])
    started = [json.loads(line)["trial"] for line in lines[1:cut]]
    for result in (again / "run/mix/search/proxies").iterdir():
        if int(result.stem.removeprefix("trial-")) not in started:
            result.unlink()
    for name in FILES[:2]:
        (again / "run" / name).unlink()
    assert main(["run", str(again / "tiny.yaml"), "--run-dir", str(again / "run"), "--workers", "1"]) == 0
    for name in FILES:
        assert (again / "run" / name).read_bytes() == (searched / "run" / name).read_bytes()


def test_a_search_without_the_money_for_every_fidelity_is_refused(tmp_path, capsys):
    recipe = write_corpus(tmp_path)
    mix = MIX.replace("n_proxies: 6", "n_proxies: 4").replace("n_initial: 5", "n_initial: 40")
    recipe.write_text(recipe.read_text("utf-8") + TOKENIZE + mix, "utf-8")
    assert main(["run", str(recipe), "--run-dir", str(tmp_path / "run")]) == 3
    assert "mix.search: budget: 4 runs at the target; the first mixtures" in capsys.readouterr().err


def test_parts_of_the_tokens_that_cannot_be_are_told_with_their_line(tmp_path, capsys):
    recipe = write_corpus(tmp_path)
    mix = MIX.replace("[0.25, 1.0]", "[0.25, 0.5]")
    recipe.write_text(recipe.read_text("utf-8") + TOKENIZE + mix, "utf-8")
    assert main(["check", str(recipe)]) == 2
    assert "the parts differ, and the largest is 1.0" in capsys.readouterr().err

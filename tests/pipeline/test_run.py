"""The whole line on a tiny corpus, and what each recipe leaves behind."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from cuvee.pipeline.cli import main
from cuvee.pipeline.recipe import load_recipe
from cuvee.streaming import TokenStore

from .conftest import TOKENIZE, WORDS, WholeRun, write_corpus, write_jsonl


def _run(recipe: Path, run_dir: Path, rest: str = "") -> int:
    recipe.write_text(recipe.read_text("utf-8") + rest, "utf-8")
    return main(["run", str(recipe), "--run-dir", str(run_dir)])


def test_the_summary_tells_the_funnel_the_domains_and_who_won(whole_run: WholeRun) -> None:
    printed = whole_run.printed
    lines = [re.split(r"  +", line.strip()) for line in printed.splitlines()]
    assert ["stage", "rows in", "kept", "dropped", "most frequent reasons"] in lines
    (first,) = (line for line in lines if line[0] == "gopher_quality")
    assert first[3:] == ["9", "gopher_short_doc 9"]
    assert [line[0] for line in lines if line[0] in WORDS] == sorted(WORDS)
    assert "Mixture: " in printed
    assert re.search(r"Training: (The \w+ mixture|All mixtures)", printed)
    assert re.search(r"^Report: .*$", printed, re.MULTILINE)


def test_tokens_lie_by_domain_with_both_splits(whole_run: WholeRun) -> None:
    run_dir = whole_run.run_dir
    for domain in WORDS:
        train, validation = (TokenStore(run_dir / "tokens" / domain, s) for s in ("train", "validation"))
        train.verify()
        validation.verify()
        assert not set(train.doc_ids.tolist()) & set(validation.doc_ids.tolist())
        assert validation.n_docs >= 4
    assert (run_dir / "tokens/tokenizer.json").exists()


def test_the_mixture_file_holds_weights_and_what_they_rest_on(whole_run: WholeRun) -> None:
    run_dir = whole_run.run_dir
    found = json.loads((run_dir / "mix/mixture.json").read_text("utf-8"))
    assert found["format_version"] == 1
    assert sorted(found["mixtures"]) == ["candidate", "chosen", "natural", "uniform"]
    for weights in (found["weights"], *found["mixtures"].values()):
        assert sorted(weights) == sorted(WORDS)
        np.testing.assert_allclose(sum(weights.values()), 1, atol=1e-6)
        assert all(0 <= weight <= found["caps"][domain] + 1e-6 for domain, weight in weights.items())
    assert found["weights"] == found["mixtures"]["chosen"]
    assert found["available_tokens"].keys() == set(WORDS)
    assert found["target_tokens"] == 1024
    assert found["objective"] == {"kind": "mean", "by_metric": {}}
    assert found["recommendation"]["sentence" if "sentence" in found["recommendation"] else "verdict"]
    assert isinstance(found["notes"], list)


def test_every_proxy_is_a_row_of_weights_and_losses(whole_run: WholeRun) -> None:
    run_dir = whole_run.run_dir
    table = pq.read_table(run_dir / "mix/proxies.parquet")
    assert table["name"].to_pylist() == [f"proxy-{i:03d}" for i in range(4)]
    weights = np.stack([table[f"weight.{domain}"].to_numpy() for domain in WORDS], axis=1)
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    for domain in WORDS:
        assert np.isfinite(table[f"loss.{domain}"].to_numpy()).all()
    assert set(table["n_tokens"].to_pylist()) == {1024}


def test_the_race_leaves_curves_and_a_verdict(whole_run: WholeRun) -> None:
    run_dir, printed = whole_run.run_dir, whole_run.printed
    curves = pq.read_table(run_dir / "train/curves.parquet")
    assert {"natural", "uniform"} <= set(curves["name"].to_pylist())
    assert sorted(set(curves["n_tokens"].to_pylist())) == [512, 1024]
    found = json.loads((run_dir / "train/comparison.json").read_text("utf-8"))
    assert set(found["final"]) == set(curves["name"].to_pylist())
    assert found["sentence"].split(":")[0] in " ".join(printed.split())


def test_the_online_mixture_races_and_leaves_its_weights(whole_run: WholeRun) -> None:
    run_dir = whole_run.run_dir
    curves = pq.read_table(run_dir / "train/curves.parquet")
    assert "online" in set(curves["name"].to_pylist())
    reports = [
        json.loads(line) for line in (run_dir / "train/runs/online-0.weights.jsonl").read_text().splitlines()
    ]
    assert [report["step"] for report in reports] == [0, *range(2, 2 * 16, 2)]  # 16 steps of two batches each
    assert all(report["start"] == report["step"] + 1 for report in reports[1:])
    assert {tuple(report["shares"]) for report in reports} == {tuple(sorted(WORDS))}
    found = json.loads((run_dir / "train/runs/online-0.json").read_text())
    assert sum(n for n, _ in found["kept"].values()) == 2 * sum(n for _, n in found["kept"].values()) == 128
    assert "Online mixture" in (run_dir / "report.html").read_text("utf-8")


def test_the_plan_is_the_recipe_with_every_default(whole_run: WholeRun) -> None:
    run_dir = whole_run.run_dir
    plan = json.loads((run_dir / "plan.json").read_text("utf-8"))
    assert plan["recipe"]["seed"] == 42
    assert plan["recipe"]["mix"]["trust_region"] == 0.5
    assert [entry["source"] for entry in plan["inputs"]] == list(WORDS)
    assert plan["stages"] == sorted(path.name for path in (run_dir / "stages").iterdir())[:3]


def test_a_recipe_of_inputs_and_curation_ends_with_documents(tiny_recipe: Path, tmp_path: Path) -> None:
    assert _run(tiny_recipe, tmp_path / "run") == 0
    kept = [pq.read_table(part) for part in sorted((tmp_path / "run/stages").glob("02-*/part-*.parquet"))]
    texts = [text for table in kept for text in table["text"].to_pylist()]
    assert len(texts) == len(set(texts)) > 100
    assert any("email@example.com" in text or "@" not in text for text in texts)
    assert "master@cellar-of-wine.com" not in " ".join(texts)
    assert not (tmp_path / "run/tokens").exists()
    assert not (tmp_path / "run/mix").exists()


def test_a_recipe_of_inputs_alone_copies_them(tiny_recipe: Path, tmp_path: Path) -> None:
    tiny_recipe.write_text(tiny_recipe.read_text("utf-8").partition("curate:")[0], "utf-8")
    assert _run(tiny_recipe, tmp_path / "run") == 0
    (stage,) = (tmp_path / "run/stages").iterdir()
    assert stage.name.startswith("00-read-")
    n_lines = sum(len(path.read_text("utf-8").splitlines()) for path in tiny_recipe.parent.glob("*.jsonl"))
    assert sum(pq.read_metadata(part).num_rows for part in stage.glob("part-*")) == n_lines


def test_an_operators_files_are_found_from_the_recipes_folder(tiny_recipe: Path) -> None:
    (tiny_recipe.parent / "blocked.txt").write_text("example.org\n", "utf-8")
    text = tiny_recipe.read_text("utf-8") + "  - url_filter: {domains: [blocked.txt]}\n"
    tiny_recipe.write_text(text, "utf-8")
    operator = load_recipe(tiny_recipe).recipe.curate[-1]
    assert operator.model_dump()["domains"] == [str(tiny_recipe.parent / "blocked.txt")]


def test_a_recipe_may_end_with_tokens(tiny_recipe: Path, tmp_path: Path) -> None:
    assert _run(tiny_recipe, tmp_path / "run", TOKENIZE) == 0
    assert sorted(path.name for path in (tmp_path / "run/tokens").iterdir() if path.is_dir()) == sorted(WORDS)
    assert not (tmp_path / "run/mix").exists()


def test_names_with_brackets_are_printed_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_corpus(tmp_path / "data", 20)
    text = recipe.read_text("utf-8").replace("source: sea,", 'source: sea, domain: "sea [bold]",')
    recipe.write_text(text, "utf-8")
    assert _run(recipe, tmp_path / "run", TOKENIZE) == 0
    assert "sea [bold]" in capsys.readouterr().out


def test_a_condition_in_a_recipe_drops_rows_for_its_own_reason(recipe_of: Callable[..., Path]) -> None:
    texts = ["one two three", "one", "one two", "one two three four"]
    rest = 'curate:\n  - length\n  - where: {keep: "length.n_words >= 3", reason: too_few_words}\n'
    recipe = recipe_of(rest=rest)
    write_jsonl(recipe.with_name("web.jsonl"), [{"text": text} for text in texts])
    assert _run(recipe, recipe.parent / "run") == 0
    (stage,) = (recipe.parent / "run/stages").iterdir()
    kept, dropped = pq.read_table(stage / "part-00000.parquet"), pq.read_table(stage / "dropped")
    assert kept["text"].to_pylist() == [texts[0], texts[3]]
    assert dropped.select(["text", "dropped_by", "reason", "where.holds"]).to_pylist() == [
        {"text": text, "dropped_by": "where", "reason": "too_few_words", "where.holds": 0}
        for text in texts[1:3]
    ]

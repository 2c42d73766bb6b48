"""``cuvee mix zero`` on token shards: from counts to a mixture file."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from cuvee.pipeline.cli import main
from cuvee.streaming.mixture_file import read_mixture
from cuvee.streaming.shards import domain_folder, write_manifest, write_token_shard


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """Three domains of a run: two of alike text, one of another kind, of 30, 3 and 3 documents."""
    rng = np.random.default_rng(0)
    for domain, first, n_docs in (("web/en", 0, 30), ("wiki", 0, 3), ("code", 16, 3)):
        folder = domain_folder(tmp_path / "run" / "tokens", domain)
        for split in ("train", "validation"):
            steps = rng.choice([1, 2], (n_docs, 200))
            tokens = first + np.cumsum(steps, axis=1).ravel() % 16
            offsets, doc_ids = np.arange(0, tokens.size + 1, 200), np.arange(n_docs, dtype=np.uint64)
            write_token_shard(folder / f"{split}-00000.arrow", tokens, offsets, doc_ids, "uint16")
        write_manifest(folder, domain=domain, vocab_size=32, tokenizer_hash="steps", eos_id=0)
    return tmp_path / "run"


def test_the_rare_kind_of_text_is_raised_and_the_mixture_written(run_dir, capsys):
    out = run_dir / "mixture.yaml"
    assert (
        main(["mix", "zero", str(run_dir), "--n-tokens", "2000", "--trust-region", "0", "--out", str(out)])
        == 0
    )
    mixture = read_mixture(out)
    assert sum(mixture.weights.values()) == pytest.approx(1)
    assert mixture.weights["code"] > 2 * 3 / 36
    assert mixture.max_epochs is None
    printed = capsys.readouterr().out
    assert "web/en" in printed
    assert "Nothing was trained" in printed


def test_a_budget_caps_the_mixture_and_travels_with_it(run_dir):
    out = run_dir / "mixture.json"
    # Code's 600 tokens, twice, are a fifth of 6,000.
    command = ["mix", "zero", str(run_dir / "tokens"), "--budget", "6000", "--max-epochs", "2"]
    assert main([*command, "--trust-region", "0", "--out", str(out)]) == 0
    mixture = read_mixture(out)
    assert mixture.weights["code"] <= 0.2 + 1e-6
    assert mixture.max_epochs == {"code": 2.0, "web/en": 2.0, "wiki": 2.0}


def test_losses_of_given_mixtures_are_shown(run_dir, capsys):
    columns = {"code": [1.0, 0.0], "web/en": [0.0, 1.0], "wiki": [0.0, 0.0]}
    pa.csv.write_csv(pa.table(columns), run_dir / "m.csv")
    assert main(["mix", "zero", str(run_dir), "--mixtures", str(run_dir / "m.csv")]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    first, second = (next(row for row in rows if row and row[0] == str(i)) for i in (0, 1))
    assert float(first[1]) < float(second[1])  # code
    assert float(first[2]) > float(second[2])  # web/en


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere"], 3, "nowhere: found 0 domains of token shards"),
        (["run", "--objective", "maths"], 2, "there is no metric 'maths'"),
        (["run", "--budget", "1e9"], 2, "a budget of 1B tokens cannot be filled"),
    ],
)
def test_mistakes_are_said(run_dir, capsys, monkeypatch, arguments, code, message):
    monkeypatch.chdir(run_dir.parent)
    assert main(["mix", "zero", *arguments]) == code
    assert message in capsys.readouterr().err

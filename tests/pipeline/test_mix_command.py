"""``cuvee mix`` on bare CSV files: from domains to a design, from runs to a mixture that a loader reads."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from cuvee.mixing import RunTable
from cuvee.mixing.registry import MIXERS
from cuvee.pipeline.cli import main
from cuvee.pipeline.mix_arguments import MIXER_NAMES
from cuvee.pipeline.mix_command import NEEDS
from cuvee.streaming.mixture_file import read_mixture

DOMAINS = "domain,tokens\ncode,1000\nweb,7000\nwiki,2000\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A design of 24 mixtures, and the losses of a surface whose optimum has more code."""
    monkeypatch.chdir(tmp_path)
    Path("domains.csv").write_text(DOMAINS)
    assert main(["mix", "design", "domains.csv", "-n", "24", "--out", "w.csv"]) == 0
    design = pa.csv.read_csv("w.csv")
    w = np.column_stack([design[name].to_numpy() for name in ("code", "web", "wiki")])
    noise = 0.01 * np.random.default_rng(0).standard_normal((24, 2))
    losses = 3 - np.sqrt(w) @ np.array([[0.9, 0.3], [0.2, 0.2], [0.1, 0.5]]) + noise
    metrics = {"index": np.arange(24), "code": losses[:, 0], "wiki": losses[:, 1]}
    pa.csv.write_csv(pa.table(metrics), "l.csv")
    return tmp_path


def test_a_design_starts_with_the_natural_mixture_and_obeys_the_budgets_caps(folder):
    assert main(["mix", "design", "domains.csv", "-n", "9", "--budget", "20000", "--out", "d.csv"]) == 0
    design = pa.csv.read_csv("d.csv")
    assert design.column_names == ["index", "code", "web", "wiki"]
    # Four epochs of 1,000 tokens are a fifth of 20,000.
    assert max(design["code"].to_pylist()) <= 0.2 + 1e-9
    assert [design[name][0].as_py() for name in ("code", "web", "wiki")] == pytest.approx([0.1, 0.7, 0.2])


def test_a_fit_tells_how_each_metric_is_predicted(folder, capsys):
    assert main(["mix", "fit", "w.csv", "l.csv", "--mixer", "gaussian_process"]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert float(rows["code"][1]) > 0.9
    assert "24 runs" in out


def test_predictions_stand_in_the_order_of_the_mixtures(folder):
    assert main(["mix", "predict", "w.csv", "l.csv", "--mixtures", "w.csv", "--out", "p.csv"]) == 0
    predicted, observed = pa.csv.read_csv("p.csv"), pa.csv.read_csv("l.csv")
    assert predicted.column_names == ["code", "code.std", "wiki", "wiki.std"]
    difference = predicted["code"].to_numpy() - observed["code"].to_numpy()
    assert np.abs(difference).max() < 0.1


def test_a_recommendation_inside_its_caps_is_written_for_the_loader(folder, capsys):
    command = [
        "mix",
        "recommend",
        "w.csv",
        "l.csv",
        "--mixer",
        "gaussian_process",
        "--domains",
        "domains.csv",
    ]
    assert main([*command, "--budget", "10000", "--objective", "code=1", "--out", "mixture.json"]) == 0
    mixture = json.loads(Path("mixture.json").read_text())
    assert sum(mixture["weights"].values()) == pytest.approx(1)
    assert mixture["verdict"] == "supported"
    assert 0.2 < mixture["weights"]["code"] <= 0.4 + 1e-6
    assert "Expected gain" in capsys.readouterr().out
    assert read_mixture("mixture.json").max_epochs == {"code": 4.0, "web": 4.0, "wiki": 4.0}


def test_an_expression_over_metrics_is_an_objective_and_yaml_a_mixture_file(folder):
    command = ["mix", "recommend", "w.csv", "l.csv", "--mixer", "gaussian_process", "--trust-region", "0"]
    assert main([*command, "--objective", "code=1", "--out", "weights.json"]) == 0
    assert main([*command, "--objective", "2 * code + 0 * wiki", "--out", "expression.yaml"]) == 0
    one, other = read_mixture("weights.json"), read_mixture("expression.yaml")
    assert other.weights == pytest.approx(one.weights, abs=1e-3)
    assert other.max_epochs is None


def test_a_front_of_two_objectives_is_shown_and_written(folder, capsys):
    command = ["mix", "pareto", "w.csv", "l.csv", "--mixer", "trend_residual", "--domains", "domains.csv"]
    assert main([*command, "--objectives", "code=1", "wiki", "--out", "front.csv"]) == 0
    front = pa.csv.read_csv("front.csv")
    expected = ["code=1", "code=1.std", "wiki", "wiki.std", "probability"]
    assert front.column_names == ["weight.code", "weight.web", "weight.wiki", *expected]
    assert "on the front" in capsys.readouterr().out
    first, last = (front["weight.code"][i].as_py() for i in (0, -1))
    assert first > last  # the metric of code is least where most of it is code


def test_one_parquet_table_of_a_run_serves_as_well(folder, capsys):
    runs = RunTable.from_csv("w.csv", "l.csv")
    pq.write_table(runs.to_arrow(), "proxies.parquet")
    assert main(["mix", "fit", "proxies.parquet", "--mixer", "linear"]) == 0
    assert "24 runs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("fit nope.csv", 3, "nope.csv"),
        ("fit domains.csv", 3, "domains.csv: found the columns domain, tokens; a run table needs weight"),
        ("fit w.csv l.csv --mixer powerlaw", 2, "unknown mixer 'powerlaw'; did you mean 'power_law'?"),
        ("fit w.csv l.csv --mixer mixmin", 2, "'mixmin' needs each single-domain model's probabilities"),
        ("recommend w.csv l.csv --mixer projektor", 2, "'projektor' needs vectors of documents, which no"),
        ("fit w.csv l.csv --on run", 3, "w.csv: no column 'run' to join on"),
        ("design domains.csv --budget 1e6 --out d.csv", 3, "domains.csv: a budget of 1M tokens cannot be"),
        ("design w.csv --out d.csv", 3, "w.csv: no column 'domain'; found index, code"),
        ("predict w.csv l.csv --mixer linear --mixtures l.csv --out p.csv", 3, "l.csv: no domain 'web'"),
        ("recommend w.csv l.csv --mixer linear --objective maths=1", 2, "unknown metric 'maths'"),
        ("recommend w.csv l.csv --mixer linear --objective best", 2, "there is no metric 'best'"),
        ("recommend w.csv l.csv --mixer linear --objective code=much", 2, "'code=much' is no METRIC=WEIGHT"),
        ("recommend w.csv l.csv --mixer linear --objective code=-1", 2, "must be finite, and weights not"),
        ("recommend w.csv l.csv --mixer linear --objective code=1,code=2", 2, "has two weights of 'code'"),
        ("recommend w.csv l.csv --mixer linear --objective log(code-9)", 2, "'log(code-9)' is nan at code ="),
        ("pareto w.csv l.csv --mixer linear --objectives 1/(code-code) wiki", 2, "is inf at code ="),
        ("recommend w.csv l.csv --mixer linear --budget 10", 2, "give them with --domains"),
    ],
)
def test_mistakes_are_said_with_their_place(folder, capsys, command, code, message):
    assert main(["mix", *command.split()]) == code
    assert message in capsys.readouterr().err


def test_the_help_names_every_mixer():
    assert {*MIXER_NAMES, *NEEDS} == set(MIXERS)


def test_other_commands_do_not_wait_for_scipy():
    script = "import sys, cuvee.pipeline.cli; sys.exit('scipy.optimize' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script]).returncode == 0


@pytest.mark.parametrize(
    "command",
    ["fit", "predict --mixtures w.csv --out p.csv", "recommend", "pareto --objectives code wiki"],
)
def test_what_reading_the_runs_changed_is_told_by_every_command(folder, capsys, command):
    runs = RunTable.from_csv("w.csv", "l.csv").to_arrow()
    failures = pa.array(["[diverged]", *[""] * 23])
    pa.csv.write_csv(runs.append_column("failure", failures), "runs.csv")
    name, *rest = command.split()
    assert main(["mix", name, "runs.csv", "--mixer", "linear", *rest]) == 0
    assert "a run was left out: [diverged]." in capsys.readouterr().out


def test_mixtures_to_predict_may_be_rounded_and_have_the_columns_of_runs(folder, capsys):
    Path("m.csv").write_text("weight.web,weight.wiki,weight.code\n0.333,0.333,0.333\n")
    command = ["predict", "w.csv", "l.csv", "--mixer", "linear", "--mixtures", "m.csv", "--out", "p.csv"]
    assert main(["mix", *command]) == 0
    assert "m.csv: 1 of 1 rows of weights summed to 0.999" in capsys.readouterr().out


def test_a_domain_that_no_run_has_is_left_out_with_a_note(folder, capsys):
    Path("domains.csv").write_text(DOMAINS + "books,10000\n")
    assert main(["mix", "recommend", "w.csv", "l.csv", "--mixer", "linear", "--domains", "domains.csv"]) == 0
    assert "domains.csv: left out, for no run has it: books" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        ("domain,tokens\nweb,\nwiki,5\n", "domains.csv: domain 'web': tokens is nan; a finite number"),
        (
            "domain,tokens\nweb,7B\nwiki,5\n",
            "(Failed to parse string: '7B' as a scalar of type double). Write counts such as 7000000 or 7e6.",
        ),
        ("domain,tokens,max_epochs\nweb,5,-1\n", "domain 'web': max_epochs is -1; a finite number"),
        ("domain,tokens\nweb,5\nweb,5\n", "domain 'web' is listed twice"),
        ("domain,tokens\n", "found 0 domains without any tokens"),
        ("domain,tokens,tokens\nweb,5,5\n", "column 'tokens' is there twice"),
    ],
)
def test_mistakes_in_a_table_of_domains_are_said_with_the_domain(folder, capsys, domains, message):
    Path("domains.csv").write_text(domains)
    assert main(["mix", "design", "domains.csv", "--out", "d.csv"]) == 3
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("target", [".", "queue", "link-to-queue"])
def test_a_mixture_takes_the_place_of_a_file_only(folder, capsys, target):
    os.mkfifo("queue")
    os.symlink("queue", "link-to-queue")
    assert main(["mix", "recommend", "w.csv", "l.csv", "--mixer", "linear", "--out", target]) == 2
    assert f"{target}: is no file, so a mixture cannot take its place" in capsys.readouterr().err
    assert Path("queue").is_fifo()
    assert Path("link-to-queue").is_symlink()


def test_a_mixture_is_written_where_a_link_points_to(folder):
    os.symlink("mixture.json", "link.json")
    assert main(["mix", "recommend", "w.csv", "l.csv", "--mixer", "linear", "--out", "link.json"]) == 0
    assert Path("link.json").is_symlink()
    assert sum(read_mixture("mixture.json").weights.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "argument", ["--budget=nan", "--budget=-5", "--trust-region=inf", "--trust-region=nan", "--seed=-1"]
)
def test_an_amount_that_cannot_be_is_refused_before_anything_is_read(folder, capsys, argument):
    with pytest.raises(SystemExit, match="2"):
        main(["mix", "recommend", "nope.csv", argument])
    assert f"found {argument.partition('=')[2]}; a" in capsys.readouterr().err

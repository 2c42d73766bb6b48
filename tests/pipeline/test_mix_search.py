"""``cuvee mix search`` on bare CSV files: ask, run, tell, and go on after a kill."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from cuvee.mixing.journal import SearchJournal
from cuvee.pipeline.cli import main
from cuvee.pipeline.errors import InputError
from cuvee.pipeline.mix_run import check_trained
from cuvee.streaming.shards import domain_folder, write_manifest, write_token_shard

DOMAINS = "domain,tokens\ncode,2000\nweb,6000\nwiki,2000\n"
NEW = [
    "--domains",
    "domains.csv",
    "--rung",
    "10:300",
    "--rung",
    "10:1000",
    "--runs",
    "6",
    "--n-replicates",
    "1",
]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("domains.csv").write_text(DOMAINS)
    return tmp_path


def _run_trials() -> pa.Table:
    """The trials of next.csv with their losses, in results.csv."""
    trials = pa.csv.read_csv("next.csv")
    w = np.column_stack([trials[f"weight.{name}"].to_numpy() for name in ("code", "web", "wiki")])
    losses = 3 - np.sqrt(w) @ np.array([[0.9, 0.1], [0.2, 0.3], [0.1, 0.8]])
    for j, name in enumerate(("code", "wiki")):
        trials = trials.append_column(f"loss.{name}", pa.array(losses[:, j]))
    pa.csv.write_csv(trials, "results.csv")
    return trials


def _write_shards(domain: str, first: int, n_tokens: int = 300) -> None:
    """Steps of one or two on a ring of eight tokens, in both splits."""
    steps = np.random.default_rng(first).choice([1, 2], n_tokens)
    folder, tokens = domain_folder(Path("run/tokens"), domain), first + np.cumsum(steps) % 8
    for split in ("train", "validation"):
        path = folder / f"{split}-00000.arrow"
        write_token_shard(path, tokens, np.array([0, n_tokens]), np.zeros(1, np.uint64), "uint16")
    write_manifest(folder, domain=domain, vocab_size=16, tokenizer_hash="steps", eos_id=0)


def _told(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err.replace("\n", " ")


def _search(*arguments: str) -> int:
    return main(["mix", "search", "j.jsonl", *arguments])


def test_a_search_goes_from_rung_to_rung_and_recommends(folder, capsys):
    assert _search(*NEW, "-n", "9", "--out", "next.csv") == 0
    assert len(_run_trials()) == 9
    assert _search("--results", "results.csv", "-n", "2", "--out", "next.csv", "--recommend", "m.json") == 0
    told = capsys.readouterr().out
    assert "9 new results from results.csv" in told
    assert Path("m.json").exists()
    trials = _run_trials()
    assert trials["trial"].to_pylist() == [9, 10]
    assert 1000 in trials["n_tokens"].to_pylist()
    before = Path("j.jsonl").read_bytes()
    assert _search("--results", "results.csv", "-n", "0") == 0
    assert Path("j.jsonl").read_bytes().startswith(before)
    assert "2 new results" in capsys.readouterr().out


def test_results_told_twice_change_nothing_and_others_are_refused(folder, capsys):
    assert _search(*NEW, "-n", "2", "--out", "next.csv") == 0
    _run_trials()
    assert _search("--results", "results.csv", "-n", "0") == 0
    before = Path("j.jsonl").read_bytes()
    assert _search("--results", "results.csv", "-n", "0") == 0
    assert Path("j.jsonl").read_bytes() == before
    Path("other.csv").write_text("trial,loss.code,loss.wiki\n0,1.0,1.0\n")
    assert _search("--results", "other.csv") == 3
    assert "other.csv: trial 0 has another result already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ([], 3, "j.jsonl: not there, or no whole line; give the arguments of a search"),
        (["--domains", "domains.csv"], 2, "give --rung PARAMETERS:TOKENS once for each"),
        (["--domains", "domains.csv", "--rung", "10"], 2, "--rung '10' is not PARAMETERS:TOKENS"),
        ([*NEW, "--runs", "1"], 2, "budget: 1 runs at the target"),
        ([*NEW, "--acquisition", "ucb"], 2, "acquisition: 'ucb'; it is one of noisy_ei"),
        ([*NEW, "--objective", "code=x"], 2, "objective 'code=x' is no METRIC=WEIGHT"),
        ([*NEW, "--objective", "max(code"], 2, "objective: cannot read this"),
        ([*NEW, "--budget", "1e9"], 3, "domains.csv: a budget of 1B tokens cannot be filled"),
    ],
)
def test_what_cannot_be_is_told_without_a_traceback(folder, capsys, arguments, code, told):
    assert _search(*arguments) == code
    assert told in capsys.readouterr().err.replace("\n", " ")
    assert not Path("j.jsonl").exists()


def test_ngram_losses_of_token_shards_are_the_cheapest_fidelity(folder, capsys):
    for domain, first in (("code", 8), ("web", 0), ("wiki", 0)):
        _write_shards(domain, first)
    assert _search(*NEW, "-n", "9", "--out", "next.csv", "--tokens", "run") == 0
    _run_trials()
    assert _search("--results", "results.csv", "-n", "0", "--recommend", "m.json", "--tokens", "run") == 0
    with_trend = Path("m.json").read_text()
    assert _search("-n", "0", "--recommend", "m.json", "--tokens", "run/tokens") == 0
    assert Path("m.json").read_text() == with_trend
    assert main(["mix", "search", "other.jsonl", *NEW, "-n", "9"]) == 0
    assert main(["mix", "search", "other.jsonl", "--results", "results.csv", "--recommend", "m.json"]) == 0
    assert Path("m.json").read_text() != with_trend


def test_a_search_goes_on_with_the_shards_it_began_with(folder, capsys):
    for domain, first in (("code", 8), ("web", 0), ("wiki", 0)):
        _write_shards(domain, first)
    assert _search(*NEW, "-n", "2", "--tokens", "run") == 0
    before = Path("j.jsonl").read_bytes()
    assert _search("-n", "3") == 2
    assert "given now is no --tokens; give --tokens with those shards" in _told(capsys)
    _write_shards("wiki", 4)
    assert _search("-n", "3", "--tokens", "run") == 2
    assert "j.jsonl began with n-grams of shards" in _told(capsys)
    assert Path("j.jsonl").read_bytes() == before


def test_a_search_without_ngram_losses_takes_none_later(folder, capsys):
    for domain in ("code", "web", "wiki"):
        _write_shards(domain, 0)
    assert _search(*NEW, "-n", "2") == 0
    assert _search("-n", "3", "--tokens", "run") == 2
    assert "j.jsonl began with no n-gram losses" in _told(capsys)


def test_shards_that_lack_a_domain_are_refused_before_a_journal_is_begun(folder, capsys):
    for domain in ("code", "web"):
        _write_shards(domain, 0)
    assert _search(*NEW, "-n", "2", "--tokens", "run") == 2
    assert "run has no shards of 'wiki', only of code, web" in _told(capsys)
    assert not Path("j.jsonl").exists()


def test_results_of_a_metric_without_shards_are_refused_before_they_are_told(folder, capsys):
    for domain in ("code", "web", "wiki"):
        _write_shards(domain, 0)
    assert _search(*NEW, "-n", "1", "--tokens", "run") == 0
    before = Path("j.jsonl").read_bytes()
    Path("other.csv").write_text("trial,loss.law\n0,1.0\n")
    assert _search("--results", "other.csv", "--tokens", "run") == 2
    assert "run has no shards of 'law'" in _told(capsys)
    assert Path("j.jsonl").read_bytes() == before


def test_a_search_among_the_mixtures_of_a_file_runs_no_other(folder, capsys):
    rows = [f"{0.1 + 0.02 * i:.2f},{0.7 - 0.02 * i:.2f},0.2" for i in range(9)]
    Path("pool.csv").write_text("\n".join(["code,web,wiki", *rows]))
    assert _search(*NEW, "-n", "9", "--out", "next.csv", "--mixtures", "pool.csv") == 0
    trials = pa.csv.read_csv("next.csv")
    assert sorted(trials["weight.code"].to_pylist()) == [round(0.1 + 0.02 * i, 2) for i in range(9)]


RUN = ["--tokens", "run", "--run", "--workers", "1", "-n", "2"]
NEW_RUN = ["--rung", "4000:4100", "--rung", "4000:10300", "--runs", "5", "--n-initial", "4"]


def _trained_records(path: str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def test_a_search_trains_its_own_proxies_and_goes_on_after_a_kill_with_the_same_bytes(folder, capsys):
    for domain, first in (("code", 8), ("web", 0), ("wiki", 0)):
        _write_shards(domain, first, n_tokens=4000)
    assert _search(*NEW_RUN, *RUN, "--n-replicates", "1", "--recommend", "m.json") == 0
    undisturbed, records = Path("j.jsonl").read_bytes(), _trained_records("j.jsonl")
    kinds = [record["record"] for record in records]
    rungs = [(f["n_parameters"], f["n_tokens"]) for f in records[0]["fidelities"]]
    assert [n_tokens for _, n_tokens in rungs] == [4096, 10240]
    assert abs(rungs[0][0] - 4000) < 1000
    assert {r["n_tokens"] for r in records if r["record"] == "trial"} == {4096, 10240}
    assert kinds.count("result") == kinds.count("trial") >= 6
    assert set(records[-1]["losses"]) == {"code", "web", "wiki"}

    cut = next(i for i in range(8, len(kinds)) if kinds[i - 1] == kinds[i] == "result")
    lines = undisturbed.splitlines(keepends=True)
    Path("j.jsonl").write_bytes(b"".join(lines[:cut]) + lines[cut][:9])
    assert _search(*RUN, "--recommend", "again.json") == 0
    assert Path("j.jsonl").read_bytes() == undisturbed
    assert Path("again.json").read_bytes() == Path("m.json").read_bytes()


def test_a_search_whose_proxies_all_fail_says_why(folder, capsys):
    for domain in ("code", "web", "wiki"):
        _write_shards(domain, 0)
    assert _search(*NEW, "--tokens", "run", "-n", "1") == 0
    journal = SearchJournal("j.jsonl")
    journal.fail(0, "diverged")
    with pytest.raises(InputError, match=r"all 1 trials of j.jsonl failed; the first: diverged"):
        check_trained(journal)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--run"], "--run trains on token shards; give their folder with --tokens"),
        (
            ["--run", "--tokens", "run", "--rung", "2000:100"],
            "asks for 100 tokens; a batch of a proxy has 512",
        ),
    ],
)
def test_what_cannot_be_trained_is_told_before_a_journal_is_begun(folder, capsys, arguments, told):
    for domain in ("code", "web", "wiki"):
        _write_shards(domain, 0)
    assert _search(*arguments) == 2
    assert told in _told(capsys)
    assert not Path("j.jsonl").exists()


def test_fidelities_that_no_proxy_has_are_not_trained(folder, capsys):
    for domain in ("code", "web", "wiki"):
        _write_shards(domain, 0)
    assert _search(*NEW, "--tokens", "run", "-n", "1") == 0
    assert _search(*RUN) == 2
    assert "j.jsonl asks for 10 parameters and 300 tokens; the nearest proxy has" in _told(capsys)


@pytest.mark.parametrize("rung", ["1:inf", "0:0", "10:-5"])
def test_a_rung_that_no_run_can_have_is_refused(folder, capsys, rung):
    assert _search("--domains", "domains.csv", "--rung", rung) == 2
    assert "rung" in _told(capsys)
    assert not Path("j.jsonl").exists()


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ("trial,loss.code\n0.5,3\n", "b.csv: column 'trial': row 0 has 0.5; a whole number is needed"),
        ("trial,loss.code\n,3\n", "b.csv: column 'trial'"),
        ("trial,loss.code\nfirst,3\n", "b.csv: column 'trial' holds string"),
        ("trial,loss.code\n2024-01-01,3\n", "b.csv: column 'trial' holds date32"),
        ("trial,loss.code\n0,low\n", "b.csv: column 'loss.code' holds string"),
        ("trial,loss.code,loss.code\n0,3,3\n", "b.csv: column 'loss.code' is there twice"),
    ],
)
def test_results_that_are_no_numbers_are_refused_and_not_written_down(folder, capsys, results, message):
    assert _search(*NEW) == 0
    begun = Path("j.jsonl").read_bytes()
    Path("b.csv").write_text(results)
    capsys.readouterr()
    assert _search("--results", "b.csv", "-n", "0") == 3
    assert message in _told(capsys)
    assert Path("j.jsonl").read_bytes() == begun


def test_a_table_of_domains_in_the_journals_place_is_no_journal(folder, capsys):
    Path("j.jsonl").write_text("domain,tokens\ncode,10\n")
    assert _search("--rung", "1e6:1e9") == 3
    assert "j.jsonl:1: this is no JSON" in _told(capsys)
    assert Path("j.jsonl").read_text() == "domain,tokens\ncode,10\n"


def test_an_argument_that_would_have_no_effect_on_a_search_that_goes_on_is_refused(folder, capsys):
    assert _search(*NEW) == 0
    assert _search("--runs", "99") == 2
    assert "--runs is of a new search, and j.jsonl goes on with the arguments it began with" in _told(capsys)
    assert _search(*NEW, "--objective", "code=1") == 3
    assert "objective is" in _told(capsys)

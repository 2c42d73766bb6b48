"""The run table refuses what a mixer must not read, and says what it changed."""

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from cuvee.mixing.table import RunTable


def _table(**changes) -> RunTable:
    fields = {
        "weights": np.array([[0.5, 0.5], [0.9, 0.1], [0.2, 0.8]]),
        "domain_names": ("web", "wiki"),
        "metrics": np.array([[3.1], [3.3], [3.0]]),
        "metric_names": ("wiki",),
    }
    return RunTable(**{**fields, **changes})


def test_arrow_carries_a_table_there_and_back():
    runs = _table(n_parameters=[1, 1, 1], n_tokens=[5, 5, 9], seed=[0, 1, 2])
    again = RunTable.from_arrow(runs.to_arrow())
    assert runs.to_arrow().column_names == [
        "weight.web",
        "weight.wiki",
        "loss.wiki",
        "n_parameters",
        "n_tokens",
        "seed",
    ]
    assert (again.domain_names, again.metric_names) == (runs.domain_names, runs.metric_names)
    for name in ("weights", "metrics", "n_parameters", "n_tokens", "seed"):
        np.testing.assert_array_equal(getattr(again, name), getattr(runs, name))


def test_a_failed_run_is_left_out_with_a_note():
    arrow = _table().to_arrow().append_column("failure", pa.array([None, "diverged", None]))
    runs = RunTable.from_arrow(arrow)
    assert runs.n_runs == 2
    assert runs.notes == ("a run was left out: diverged.",)


def test_rounded_weights_are_renormalised_with_a_note():
    runs = _table(weights=np.array([[0.5, 0.503], [0.9, 0.1], [0.2, 0.8]]))
    np.testing.assert_allclose(runs.weights.sum(axis=1), 1, atol=1e-12)
    assert runs.notes == ("1 of 3 rows of weights summed to 1-1.003 and were renormalised.",)


def test_csv_files_are_joined_on_their_key_in_any_order(tmp_path):
    (tmp_path / "w.csv").write_text("index,web,wiki\n1,0.5,0.5\n2,0.9,0.1\n")
    (tmp_path / "l.csv").write_text("index,wiki\n2,3.3\n1,3.1\n")
    runs = RunTable.from_csv(tmp_path / "w.csv", tmp_path / "l.csv", n_tokens=7)
    np.testing.assert_array_equal(runs.weights, [[0.5, 0.5], [0.9, 0.1]])
    np.testing.assert_array_equal(runs.metrics, [[3.1], [3.3]])
    assert runs.n_tokens.tolist() == [7, 7]


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ("index,wiki\n1,3.1\n", r"1 of the runs are in only one of .* index = 2"),
        ("index,wiki\n1,3.1\n1,3.2\n", r"l.csv: index = 1 is listed twice"),
        ("run,wiki\n1,3.1\n", r"l.csv: no column 'index' to join on; found run, wiki"),
        ("index,wiki\n1,3.1\n2,\n", r"l.csv: index = 2: metric 'wiki' is nan; give it, or leave the run out"),
        ("index,wiki,name\n1,3.1,a\n2,3,b\n", r"l.csv: column 'name' holds string, and a number is needed"),
    ],
)
def test_csv_files_that_do_not_match_are_refused(tmp_path, losses, message):
    (tmp_path / "w.csv").write_text("index,web,wiki\n1,0.5,0.5\n2,0.9,0.1\n")
    (tmp_path / "l.csv").write_text(losses)
    with pytest.raises(ValueError, match=message):
        RunTable.from_csv(tmp_path / "w.csv", tmp_path / "l.csv")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"weights": np.array([[0.5, 0.2], [0.9, 0.1], [0.2, 0.8]])},
            r"run 0: weights sum to 0.7 and lie between",
        ),
        ({"weights": np.array([[1.1, -0.1], [0.9, 0.1], [0.2, 0.8]])}, r"run 0: .* lie between -0.1 and 1.1"),
        ({"metrics": np.array([[3.1], [np.nan], [3.0]])}, r"run 1: metric 'wiki' is nan"),
        ({"metrics": np.ones((3, 2))}, r"metrics: found shape \(3, 2\), expected \(3, 1\)"),
        ({"domain_names": ("web", "web")}, r"domain 'web' is listed twice"),
        (
            {"weights": np.full((3, 2), 0.5), "seed": [0, 1, 0]},
            r"run 2 has the weights, .* of run 0; a replicate",
        ),
        ({"seed": [1]}, r"seed: found 1 values for 3 runs"),
    ],
)
def test_a_table_that_is_not_one_of_runs_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        _table(**changes)


def test_all_problems_are_told_at_once():
    with pytest.raises(ValueError, match=r"run 0: weights(.|\n)*run 1: metric"):
        _table(
            weights=np.array([[0.5, 0.2], [0.9, 0.1], [0.2, 0.8]]), metrics=np.array([[3.1], [np.nan], [3.0]])
        )


def test_columns_of_another_kind_of_table_are_named():
    with pytest.raises(ValueError, match=r"found the columns id, text; a run table needs weight\.<domain>"):
        RunTable.from_arrow(pa.table({"id": ["a"], "text": ["b"]}))


def test_runs_that_lack_a_metric_can_be_left_out_with_a_note(tmp_path):
    (tmp_path / "w.csv").write_text("index,web,wiki\n1,0.5,0.5\n2,0.9,0.1\n3,0.2,0.8\n")
    (tmp_path / "l.csv").write_text("index,wiki\n3,2.9\n1,3.1\n2,\n")
    runs = RunTable.from_csv(tmp_path / "w.csv", tmp_path / "l.csv", drop_missing=True)
    assert runs.metrics.tolist() == [[3.1], [2.9]]
    assert runs.weights.tolist() == [[0.5, 0.5], [0.2, 0.8]]
    assert runs.notes == ("1 of 3 runs lack a metric and were left out: index = 2.",)


def test_a_run_directory_gives_its_table_or_the_proxies_that_are_done(tmp_path):
    whole = _table()
    groups = tmp_path / "run" / "mix" / "proxies"
    groups.mkdir(parents=True)
    with pytest.raises(ValueError, match=r"no mix/proxies.parquet and no mix/proxies/\*.parquet"):
        RunTable.from_path(tmp_path / "run")
    for i in (1, 0):
        pq.write_table(whole.select(np.array([i])).to_arrow(), groups / f"group-{i:03d}.parquet")
    np.testing.assert_array_equal(RunTable.from_path(tmp_path / "run").metrics, whole.metrics[:2])
    pq.write_table(whole.to_arrow(), groups.parent / "proxies.parquet")
    for place in (tmp_path / "run", groups.parent, groups.parent / "proxies.parquet"):
        np.testing.assert_array_equal(RunTable.from_path(place).metrics, whole.metrics)


def test_runs_above_the_caps_are_left_out_with_a_note():
    runs = _table()
    kept = runs.within(runs.weights.max(axis=0) - np.array([0.05, 0.0]))
    assert kept.n_runs == 2
    assert "1 of 3 runs was left out: above the caps, most of all in 'web'" in kept.notes[-1]
    assert runs.within([1.0, 1.0]) is runs


_WEIGHTS = "index,web,wiki\n1,0.5,0.5\n2,0.9,0.1\n"


@pytest.mark.parametrize(
    ("weights", "losses", "message"),
    [
        (_WEIGHTS, "index,index,wiki\n1,1,3\n2,2,3\n", r"l.csv: column 'index' is there twice"),
        (_WEIGHTS, "index,day\n1,2024-01-01\n2,2024-01-02\n", r"l.csv: column 'day' holds date32"),
        (_WEIGHTS, "", r"l.csv: cannot be read: Empty CSV file"),
        (_WEIGHTS, "index;wiki\n1;3\n2;3\n", r"l.csv: found the one column 'index;wiki'; a CSV has commas"),
        (_WEIGHTS, "index,wiki\n1,3\n,3\n", r"l.csv: 1 rows have no index; each run needs a key"),
        (_WEIGHTS, "index\n1\n2\n", r"l.csv: no column beside 'index'; give one for each metric"),
        ("index\n1\n2\n", "index,wiki\n1,3\n2,3\n", r"w.csv: no column beside 'index'; .* each domain"),
        (_WEIGHTS, "index,wiki\na,3\nb,3\n", r"in only one .* int64 in one and string in the other"),
        (_WEIGHTS, "index,wiki,seed\n1,3,\n2,3,1\n", r"l.csv: column 'seed': row 0 has nan; a whole number"),
        (
            "index,web,wiki,n\nr10,50,50,9\nr9,90,10,9\n",
            "index,wiki\nr9,3\nr10,3\n",
            r"w.csv: index = r9: weights sum to 109 .* percentages by their sum; of web, wiki, n, leave",
        ),
    ],
)
def test_a_mistake_in_a_pair_of_files_is_said_with_its_file_and_the_runs_key(
    tmp_path, weights, losses, message
):
    (tmp_path / "w.csv").write_text(weights)
    (tmp_path / "l.csv").write_text(losses)
    with pytest.raises(ValueError, match=message):
        RunTable.from_csv(tmp_path / "w.csv", tmp_path / "l.csv")


def test_a_file_that_is_not_there_is_named(tmp_path):
    for name in ("nope.csv", "nope.parquet"):
        with pytest.raises(ValueError, match=rf"{name}: no such file; give a CSV or Parquet file"):
            RunTable.from_path(tmp_path / name)


def test_a_pair_of_parquet_files_is_joined_like_one_of_csv(tmp_path):
    pq.write_table(pa.table({"index": [1, 2], "web": [0.5, 0.9], "wiki": [0.5, 0.1]}), tmp_path / "w.parquet")
    pq.write_table(pa.table({"index": [2, 1], "wiki": [3.3, 3.1]}), tmp_path / "l.parquet")
    runs = RunTable.from_csv(tmp_path / "w.parquet", tmp_path / "l.parquet")
    assert runs.metrics.tolist() == [[3.1], [3.3]]


def test_seeds_and_tokens_in_a_column_of_either_file_are_no_domain_and_no_metric(tmp_path):
    (tmp_path / "w.csv").write_text("index,web,wiki,n_tokens\n1,0.5,0.5,7\n2,0.5,0.5,7\n")
    (tmp_path / "l.csv").write_text("index,wiki,seed\n1,3.1,0\n2,3.2,1\n")
    runs = RunTable.from_csv(tmp_path / "w.csv", tmp_path / "l.csv", n_tokens=1)
    assert (runs.domain_names, runs.metric_names) == (("web", "wiki"), ("wiki",))
    assert (runs.n_tokens.tolist(), runs.seed.tolist()) == ([7, 7], [0, 1])


def test_no_failure_is_an_empty_text_in_a_csv(tmp_path):
    arrow = _table().to_arrow().append_column("failure", pa.array(["", "diverged", ""]))
    pa.csv.write_csv(arrow, tmp_path / "runs.csv")
    runs = RunTable.from_path(tmp_path / "runs.csv")
    assert runs.metrics.tolist() == [[3.1], [3.0]]
    assert runs.notes == ("a run was left out: diverged.",)

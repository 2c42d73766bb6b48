"""The report's mixing pages: predictions with intervals, caps, slices, interactions and the front."""

import html
import json
import re
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from cuvee.mixing import pareto
from cuvee.mixing.landscape import survey
from cuvee.mixing.objective import Objective
from cuvee.mixing.recommend import Estimate, Evidence, Recommendation
from cuvee.mixing.table import RunTable
from cuvee.mixing.trend_residual import TrendResidualMixer
from cuvee.pipeline.mixture import LANDSCAPE, Choice, read_landscape
from cuvee.pipeline.outcome import Outcome
from cuvee.pipeline.plan import Plan
from cuvee.pipeline.recipe import load_recipe
from cuvee.pipeline.report_html import share
from cuvee.pipeline.report_landscape import landscape_section
from cuvee.pipeline.report_mixture import domain_section, proxy_section
from cuvee.pipeline.run_directory import write_json

HOSTILE = "</script><img src=x onerror=alert(1)>"
RECIPE = """\
inputs: [{source: web, path: web.jsonl}]
curate: [exact_dedup]
tokenize: {vocab_size: 300}
mix: {target_tokens: 1000, max_epochs: 2}
"""


def outcome_of(folder: Path, names: tuple[str, ...], n_runs: int, verdict: Any = "supported") -> Outcome:
    """A run that was mixed: proxies' losses of a curved surface with noise, a fitted mixer's answers."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "web.jsonl").write_text('{"text": "a"}\n')
    (folder / "r.yaml").write_text(RECIPE, "utf-8")
    random, n = np.random.default_rng(0), len(names)
    natural = np.arange(n, 0, -1.0) / np.arange(n, 0, -1.0).sum()
    caps = np.minimum(1, 2 * natural)
    weights = random.dirichlet(np.full(n, 2.0), n_runs)
    losses = 4 - np.sqrt(weights) @ (0.2 + np.eye(n)) + 0.01 * random.normal(size=(n_runs, n))
    runs = RunTable(weights, names, losses, names)
    mixer, objective = TrendResidualMixer().fit(runs), Objective("mean")
    weights_of = {"natural": natural, "uniform": np.full(n, 1 / n), "chosen": (natural + 1 / n) / 2}
    mixtures = {name: dict(zip(names, w.tolist(), strict=True)) for name, w in weights_of.items()}
    mixtures["candidate"] = mixtures["chosen"]
    estimate, left_out = Estimate(3.0, 0.1), mixer.leave_one_out()
    found = Recommendation(
        mixtures["natural"], mixtures["natural"], "optimum",
        dict.fromkeys(("candidate", "natural", "uniform", "recommended"), estimate),
        0.1, (0.05, 0.2), Evidence(n_runs, 0.7, 0.01, 0.02), verdict, "A sentence.",
    )  # fmt: skip
    landscape = survey(
        mixer, objective, natural, natural, caps, seed=5, others={"candidate": np.full(n, 1 / n)}
    )
    write_json(folder / "run" / "mix" / LANDSCAPE, landscape.to_dict())
    choice = Choice(names, mixtures, objective, found, runs, left_out.mean, left_out.std, losses + 0.1, ())
    tokens = {
        name: {"n_docs": 9, "n_tokens": round(1000 * natural[k]), "n_validation_tokens": 9}
        for k, name in enumerate(names)
    }
    plan = cast(Plan, None)  # the sections of mixing do not look at it
    manifests = [{"accounting": {"rows_kept": 9 * n}}]
    return Outcome(load_recipe(folder / "r.yaml"), folder / "run", plan, manifests, [], names, tokens, choice)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return outcome_of(tmp_path_factory.mktemp("mixed"), ("web", "code", "books", HOSTILE), 16)


def figures(section: str | None) -> dict[str, Any]:
    """Every figure of a section by what its label says."""
    found = re.findall(
        r'aria-label="([^"]*)"></div><script type="application/json">(.*?)</script>', str(section), re.DOTALL
    )
    return {html.unescape(name): json.loads(data) for name, data in found}


def numbers(values: Any) -> Any:
    """The numbers of an array of a figure."""
    assert isinstance(values, list)
    return np.array(values)


def test_slices_lie_around_zero_at_the_recommendation_and_end_at_the_caps(outcome: Outcome) -> None:
    landscape, drawn = read_landscape(outcome.run_dir), figures(landscape_section(outcome))
    assert landscape is not None
    for k, found in enumerate(landscape.slices):
        figure = drawn[f"The objective's change with the weight of {found.domain}"]
        low, high, *means, dot = figure["data"]
        assert max(low["x"]) == pytest.approx(100 * min(1, 2 * landscape.centre[k]), rel=1e-5)
        assert np.all(numbers(low["y"]) <= numbers(high["y"]))
        assert dot["x"] == [pytest.approx(100 * landscape.centre[k], rel=1e-5)]
        told = dict(zip(found.weights, found.change.mean, strict=True))
        assert told[landscape.centre[k]] == 0
        assert sum(len(line["x"]) for line in means) >= len(found.weights)


def test_a_slice_is_dashed_where_no_proxy_has_been(outcome: Outcome) -> None:
    assert outcome.choice is not None
    drawn = figures(landscape_section(outcome))
    weights = 100 * outcome.choice.runs.weights[:, 0]
    lines = drawn["The objective's change with the weight of web"]["data"][2:-1]
    (solid,) = (line for line in lines if line["line"]["dash"] == "solid")
    dashed = [line for line in lines if line["line"]["dash"] == "dash"]
    assert weights.min() - 1e-3 <= min(solid["x"]) <= max(solid["x"]) <= weights.max() + 1e-3
    assert dashed
    assert all(line["x"][0] == 0 or line["x"][0] == solid["x"][-1] for line in dashed)


def test_interactions_are_a_whole_symmetric_matrix_with_the_surest_in_bold(outcome: Outcome) -> None:
    landscape = read_landscape(outcome.run_dir)
    assert landscape is not None
    assert landscape.interactions is not None
    (heat,) = figures(landscape_section(outcome))["Interactions of domains"]["data"]
    z, pairs = np.array(heat["z"]), landscape.interactions.pairs
    np.testing.assert_allclose(z, z.T)
    np.testing.assert_allclose(z[np.triu_indices(4)], 1000 * np.array(pairs.mean), rtol=1e-4, atol=1e-6)
    bold = np.array([[cell.startswith("<b>") for cell in row] for row in heat["text"]])
    sure = (np.array(pairs.low) > 0) | (np.array(pairs.high) < 0)
    assert bold[np.triu_indices(4)].tolist() == sure.tolist()


def test_each_point_of_the_front_has_its_probability_and_its_mixture(outcome: Outcome) -> None:
    landscape, page = read_landscape(outcome.run_dir), landscape_section(outcome)
    assert landscape is not None
    front = landscape.front
    assert front is not None
    points, natural, candidate, recommended = figures(page)["Pareto front of two losses"]["data"]
    assert points["marker"]["color"] == pytest.approx(front.probability, rel=1e-5)
    assert points["x"] == pytest.approx([mean[0] for mean in front.mean], rel=1e-5)
    assert [natural["x"][0], natural["y"][0]] == pytest.approx(front.others["natural"], rel=1e-5)
    assert [mark["name"] for mark in (candidate, recommended)] == ["candidate", "recommended"]
    assert str(page).count(" \u00b1 ") == 2 * len(front.mean)


def test_predictions_have_their_intervals_and_the_share_of_observations_inside(outcome: Outcome) -> None:
    choice, page = outcome.choice, proxy_section(outcome)
    assert choice is not None
    drawn = figures(page)
    for j, name in ((0, "web"), (1, "code")):
        error = drawn[name]["data"][1]["error_x"]
        np.testing.assert_allclose(error["array"], 1.645 * choice.predicted_std[:, j], rtol=1e-5)
    points = drawn["objective, predicted from the other proxies"]["data"][1]
    landscape = read_landscape(outcome.run_dir)
    assert landscape is not None
    low = numbers(points["x"]) - numbers(points["error_x"]["arrayminus"])
    np.testing.assert_allclose(low, landscape.left_out.low, rtol=1e-4)
    inside = np.abs(choice.predicted - choice.runs.metrics)[:, 0] <= choice.predicted_std[:, 0]
    (row,) = re.findall(r"<tr><td[^>]*>web</td>(.*?)</tr>", str(page))
    cells = re.findall(r"<td[^>]*>(.*?)</td>", row)
    assert cells[3] == share(inside.mean())


def test_caps_are_marked_beside_the_bars_of_the_mixtures(outcome: Outcome) -> None:
    ((_, figure),) = figures(domain_section(outcome)).items()
    *bars, caps = figure["data"]
    assert [bar["name"] for bar in bars] == ["natural", "uniform", "chosen"]
    assert caps["name"] == "cap"
    by_domain = dict(zip(caps["y"], caps["x"], strict=True))
    assert by_domain["books"] == pytest.approx(100 * 2 * 0.2)
    assert "web" not in by_domain  # 80 %, twice the largest weight


def test_hostile_names_of_domains_stay_text(outcome: Outcome) -> None:
    for section in (landscape_section(outcome), proxy_section(outcome), domain_section(outcome)):
        assert "<img" not in str(section)


def test_too_few_runs_no_evidence_and_no_stored_answers_are_told(tmp_path: Path) -> None:
    few = outcome_of(tmp_path / "few", ("web", "code", "books", "qa", "law"), 5, "no evidence")
    page = str(landscape_section(few))
    assert "5 runs cannot tell 5 domains apart" in page
    assert "ranked no better than by chance" in page
    (few.run_dir / "mix" / LANDSCAPE).unlink()
    assert "holds no mix/landscape.json" in str(landscape_section(few))
    assert "objective, predicted" in str(proxy_section(few))
    few.choice = None
    assert landscape_section(few) is None


def test_two_domains_have_slices_and_no_heat_map(tmp_path: Path) -> None:
    page = str(landscape_section(outcome_of(tmp_path, ("web", "code"), 8)))
    assert "Mixtures of two domains have one freedom" in page
    assert "Interactions of domains" not in page


def test_pages_of_many_domains_and_runs_are_bounded_and_the_same_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The front's points are not looked at: its search costs the most.
    monkeypatch.setattr(pareto, "_optima", lambda mixer, objectives, region, random, seed: random)
    monkeypatch.setattr(pareto, "N_RANDOM", 50)
    monkeypatch.setattr("cuvee.mixing.landscape.N_RANDOM", 50)
    monkeypatch.setattr("cuvee.mixing.landscape.N_DRAWS", 32)
    many = outcome_of(tmp_path, tuple(f"domain-{k}" for k in range(26)), 300)
    pages = landscape_section(many), proxy_section(many)
    assert pages == (landscape_section(many), proxy_section(many))
    drawn = [figures(page) for page in pages]
    assert [len(found) for found in drawn] == [24 + 2, 2 + 24]
    assert max(len(trace["x"]) for found in drawn for f in found.values() for trace in f["data"]) <= 256
    assert "Shown are the 24 of 26 domains" in str(pages[0])
    assert "Drawn are the 24 of 26 domains" in str(pages[1])
    assert len(str(pages[0])) + len(str(pages[1])) < 900_000

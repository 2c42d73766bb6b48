"""The report: its numbers are the run's, its sections the recipe's, and no document gets out of its box."""

import copy
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from plotly.offline import get_plotlyjs

from cuvee.mixing.recommend import Estimate, Evidence, Objective, Recommendation
from cuvee.mixing.table import RunTable
from cuvee.pipeline.comparison import OnlineRun, judge
from cuvee.pipeline.mixture import Choice
from cuvee.pipeline.outcome import Outcome
from cuvee.pipeline.recipe import Mix, Online, Train, load_recipe
from cuvee.pipeline.report import render, write_report
from cuvee.pipeline.report_html import excerpt, side_by_side
from cuvee.pipeline.report_rows import read_left, stage_files
from cuvee.pipeline.report_scores import measure
from cuvee.pipeline.run import run

WORDS = (
    "the",
    "of",
    "and",
    "that",
    "river",
    "paper",
    "quiet",
    "engine",
    "letter",
    "winter",
    "green",
    "follow",
)
HOSTILE = (
    "</script></pre><img src=x onerror=alert(1)><!-- <svg/onload=alert(2)> ]]> \x00\x1b[31m \u202egnp \u2028"
)
HOSTILE_DOMAIN = '"><img src=x onerror=alert(3)>'
RECIPE = """\
name: small
inputs:
  - {source: web, path: web.jsonl, columns: {domain: topic}}
  - {source: notes, path: notes.jsonl, max_rows: 30}
reading: {shard_bytes: %s, max_unreadable_fraction: 0.5, on_bad_shard: skip}
curate:
%s
"""
OPERATORS = """\
  - language
  - gopher_quality: {min_words: 20, min_stop_words: 0}
  - exact_dedup
  - minhash_dedup
  - pii
"""


def prose(seed: int, n_words: int = 60) -> str:
    return " ".join(np.random.default_rng(seed).choice(WORDS, n_words).tolist())


def documents() -> list[dict[str, Any]]:
    """60 that stay, 4 short ones, hostile ones, clusters of 3 and 2 equal texts, 2 that are similar."""
    rows = [{"id": f"web-{i:03d}", "text": prose(i), "topic": f"t{i % 3}"} for i in range(60)]
    rows += [{"id": f"short-{i}", "text": prose(100 + i, 10), "topic": "t0"} for i in range(4)]
    rows += [
        {"id": f"{HOSTILE_DOMAIN}{i}", "text": HOSTILE * (i + 1), "topic": HOSTILE_DOMAIN} for i in range(3)
    ]
    rows += [
        {"id": f"kept-{i}", "text": f"{HOSTILE} {prose(200 + i)}", "topic": HOSTILE_DOMAIN} for i in range(2)
    ]
    rows += [{"id": f"copy-{i}", "text": prose(0), "topic": "t1"} for i in range(2)]
    rows += [
        {"id": "twin", "text": prose(1), "topic": "t1"},
        {"id": "near", "text": prose(2, 61), "topic": "t1"},
    ]
    return rows


def run_small(folder: Path, shard_bytes: str = "1MB", operators: str = OPERATORS) -> Outcome:
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row) for row in documents()]
    (folder / "web.jsonl").write_text("\n".join([*lines, "{broken", '{"id": 3}']) + "\n", "utf-8")
    notes = [json.dumps({"text": prose(500 + i)}) for i in range(50)]
    (folder / "notes.jsonl").write_text("\n".join(notes) + "\n", "utf-8")
    (folder / "small.yaml").write_text(RECIPE % (shard_bytes, operators), "utf-8")
    return run(load_recipe(folder / "small.yaml"), folder / "run")


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return run_small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def mixed(outcome: Outcome) -> Outcome:
    """The same run as if it had tokenized, mixed and raced three domains."""
    return with_mixture(outcome, "supported")


def with_mixture(outcome: Outcome, verdict: Any) -> Outcome:
    domains, n_proxies = ("t0", "t1", "t2"), 8
    random = np.random.default_rng(0)
    weights = random.dirichlet(np.ones(3), n_proxies)
    losses = 4 + weights @ random.random((3, 3))
    mixtures = {
        "natural": dict(zip(domains, (0.5, 0.3, 0.2), strict=True)),
        "uniform": dict.fromkeys(domains, 1 / 3),
        "candidate": dict(zip(domains, (0.2, 0.2, 0.6), strict=True)),
    }
    mixtures["chosen"] = mixtures["candidate" if verdict == "supported" else "natural"]
    predicted = {
        "candidate": Estimate(4.1, 0.02),
        "natural": Estimate(4.3, 0.01),
        "uniform": Estimate(4.2, 0.03),
    }
    recommendation = Recommendation(
        weights=mixtures["chosen"],
        candidate=mixtures["candidate"],
        origin="optimum",
        predicted=predicted | {"recommended": predicted["natural"]},
        gain=0.2,
        gain_interval=(0.1, 0.3),
        evidence=Evidence(n_proxies, 0.75, 0.012, 0.05),
        verdict=verdict,
        sentence="The sentence of the recommendation.",
    )
    choice = Choice(
        domains, mixtures, Objective("mean"), recommendation, RunTable(weights, domains, losses, domains),
        losses + 0.01, np.full_like(losses, 0.02), losses - 0.5, ("A note of the mixer.",),
    )  # fmt: skip
    third = "chosen" if verdict == "supported" else "candidate"
    rows = [
        {"name": name, "seed": seed, "n_tokens": n, "objective": 5.0 - i / 10 - n / 2000 + seed / 100}
        | {f"loss.{domain}": 5.0 - i / 10 - n / 2000 for domain in domains}
        for i, name in enumerate(("natural", "uniform", third))
        for seed in (0, 1)
        for n in (500, 1000)
    ]
    recipe = outcome.loaded.recipe.model_copy(
        update={"mix": Mix(target_tokens=1000, max_epochs=3.0), "train": Train()}
    )
    counts = {"t0": 500, "t1": 300, "t2": 200}
    return replace(
        outcome,
        loaded=replace(outcome.loaded, recipe=recipe),
        domains=domains,
        tokens={
            name: {"n_docs": n // 10, "n_tokens": n, "n_validation_tokens": n // 20}
            for name, n in counts.items()
        },
        choice=choice,
        comparison=judge(pa.Table.from_pylist(rows)),
    )  # fmt: skip


class Page(HTMLParser):
    """Tags, attributes, headings and tables of a page, as a browser's tokenizer would find them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.tables: list[list[list[str]]] = []
        self.headings: list[str] = []
        self.words: list[str] = []
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attrs}
        match tag:
            case "table":
                self.tables.append([])
            case "tr":
                self.tables[-1].append([])
            case "td" | "th":
                self.tables[-1][-1].append("")
            case "h2":
                self.headings.append("")
        if tag in ("td", "th", "h2", "script", "style"):
            self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._inside:
            self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside in ("td", "th"):
            self.tables[-1][-1][-1] += data
        if self._inside == "h2":
            self.headings[-1] += data
        if self._inside not in ("script", "style"):
            self.words.append(data)

    def table(self, *header: str) -> list[list[str]]:
        """The rows of the only table whose header begins so."""
        (found,) = [table for table in self.tables if table[0][: len(header)] == list(header)]
        return found[1:]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())


def page_of(outcome: Outcome) -> Page:
    return Page(render(outcome))


def number(cell: str) -> int:
    return int(cell.replace(",", ""))


def test_the_stages_are_told_with_the_manifests_numbers(outcome: Outcome) -> None:
    rows = page_of(outcome).table("stage", "operators")
    assert len(rows) == len(outcome.manifests) == 3
    for cells, manifest in zip(rows, outcome.manifests, strict=True):
        found = manifest["accounting"]
        expected = [found["rows_in"], found["rows_kept"], sum(found["dropped"].values())]
        assert [number(cell) for cell in cells[2:5]] == expected
        assert number(cells[5]) == sum(found["unreadable"].values())


def test_every_reason_is_told_with_its_rows_and_its_text(outcome: Outcome) -> None:
    rows = page_of(outcome).table("operator", "reason")
    told = {f"{cells[0]}.{cells[1]}": (number(cells[3]), float(cells[5])) for cells in rows[:-1]}
    expected: dict[str, int] = {}
    n_bytes: Counter[str] = Counter()
    for manifest, folder in zip(outcome.manifests, outcome.stage_folders, strict=True):
        found = manifest["accounting"]
        expected |= found["dropped"] | {f"read.{name}": n for name, n in found["unreadable"].items()}
        for path in (folder / "dropped").glob("*.parquet"):
            for row in pq.read_table(path).to_pylist():
                n_bytes[f"{row['dropped_by']}.{row['reason']}"] += len((row["text"] or "").encode())
    assert {reason: n for reason, (n, _) in told.items()} == expected
    assert number(rows[-1][3]) == sum(expected.values())
    assert {reason: size for reason, (_, size) in told.items()} == {
        reason: pytest.approx(n_bytes[reason] / 1e6, abs=0.0051) for reason in expected
    }


def test_the_domains_account_for_every_row(outcome: Outcome) -> None:
    rows = page_of(outcome).table("domain", "rows in")
    for cells in rows:
        n_in, *dropped, n_kept = map(number, cells[1:-1])
        assert n_in == sum(dropped) + n_kept
    assert number(rows[-1][1]) == outcome.manifests[0]["accounting"]["rows_in"]
    assert {cells[0] for cells in rows} >= {"t0", "t1", "t2", "notes", HOSTILE_DOMAIN}


def test_the_online_mixture_shows_weights_epochs_and_rows_kept(mixed: Outcome) -> None:
    shares = [(50, 30, 20), (40, 30, 30)]
    names = ("t0", "t1", "t2")
    numbers = {"losses": dict.fromkeys(names, 4.0), "rewards": {"t0": 0.1, "t1": 0.2, "t2": None}}
    reports: list[dict[str, Any]] = [
        {"step": 0, "start": 0, "shares": dict(zip(names, shares[0], strict=True))},
        {"step": 10, "start": 20, "shares": dict(zip(names, shares[1], strict=True))} | numbers,
        {"step": 20, "start": 30, "shares": dict(zip(names, shares[1], strict=True))}
        | numbers
        | {"losses": {"t0": 3.5, "t1": 3.0, "t2": None}},
    ]
    run = OnlineRun(
        reports, dict.fromkeys(names, 1.25), dict(zip(names, (0.45, 0.3, 0.25), strict=True)),
        {"t0": (100, 25), "t1": (50, 25), "t2": (0, 0)}, 8,
    )  # fmt: skip
    assert mixed.comparison is not None
    recipe = mixed.loaded.recipe.model_copy(
        update={"train": Train(online=Online(factor=2, method="stochastic"))}
    )
    page = page_of(
        replace(
            mixed,
            loaded=replace(mixed.loaded, recipe=recipe),
            comparison=replace(mixed.comparison, online=[run]),
        )
    )
    assert "Online mixture" in page.headings
    rows = page.table("domain", "weight at the start")
    assert [[cell.replace("\u00a0", " ") for cell in row[:6]] for row in rows] == [
        ["t0", "50.0 %", "40.0 %", "45.0 %", "1.25", "3"],
        ["t1", "30.0 %", "30.0 %", "30.0 %", "1.25", "3"],
        ["t2", "20.0 %", "30.0 %", "25.0 %", "1.25", "3"],
    ]
    assert [row[7].replace("\u00a0", " ") for row in rows] == ["25.0 %", "50.0 %", "0 %"]


def test_what_the_recipe_leaves_out_is_left_out(outcome: Outcome, mixed: Outcome, tmp_path: Path) -> None:
    curated, whole = page_of(outcome).headings, page_of(mixed).headings
    mixing = {"Domains and mixture", "Evidence from proxies", "Around the recommendation"}
    assert {*mixing, "Training race"} == set(whole) - set(curated)
    bare = page_of(run_small(tmp_path, operators="  - pii")).headings
    pages = {"Filters", "Filter language", "Filter gopher_quality"}
    assert pages | {"Duplicates"} == set(curated) - set(bare)


def test_no_document_gets_out_of_its_box(outcome: Outcome) -> None:
    text = render(outcome).replace(get_plotlyjs(), "")
    page = Page(text)
    assert not {"img", "svg", "iframe", "link", "object", "form"} & set(page.tags)
    assert not [name for name in page.attributes if name.startswith("on")]
    assert page.tags["script"] == 2 + page.tags["figure"]
    assert page.tags["pre"] == text.count("</pre>")
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]", text)
    assert HOSTILE_DOMAIN in page.text
    assert "\u2400\u241b[31m [U+202E]gnp" in page.text


def test_nothing_in_a_figure_ends_its_script(mixed: Outcome) -> None:
    blocks = re.findall(r'<script type="application/json">(.*?)</script>', render(mixed), re.DOTALL)
    assert len(blocks) == page_of(mixed).tags["figure"]
    for block in blocks:
        assert "<" not in block
        assert {"data", "layout"} <= json.loads(block).keys()


def test_only_the_pages_own_scripts_may_run_and_nothing_is_fetched(outcome: Outcome) -> None:
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', render(outcome))
    scripts = re.search(r"script-src ([^;]*);", policy)
    assert policy.startswith("default-src 'none';")
    assert scripts is not None
    assert len(re.findall(r"'sha256-[\w+/]{43}='", scripts[1])) == len(scripts[1].split()) == 2


def test_a_report_written_again_has_the_same_bytes(mixed: Outcome) -> None:
    first = write_report(mixed)
    content = first.read_bytes()
    assert write_report(mixed).read_bytes() == content
    assert first == mixed.run_dir / "report.html"


def test_examples_do_not_depend_on_the_shards(outcome: Outcome, tmp_path: Path) -> None:
    cut = run_small(tmp_path, shard_bytes="2kB")
    assert cut.manifests[0]["n_shards"] > 5 > outcome.manifests[0]["n_shards"]
    for whole, parts in zip(stage_files(outcome), stage_files(cut), strict=True):
        a, b = read_left(whole), read_left(parts)
        assert (a.n_rows, a.n_bytes) == (b.n_rows, b.n_bytes)
        assert a.sample.rows(("id", "text")) == b.sample.rows(("id", "text"))


def scores_of(outcome: Outcome, column: str) -> np.ndarray:
    """All values of a score of the first stage, kept and dropped."""
    folder = outcome.stage_folders[0]
    tables = [pq.read_table(path) for path in sorted(folder.glob("**/part-*.parquet"))]
    columns = [table[column].drop_null().to_numpy() for table in tables if column in table.column_names]
    return np.concatenate([column.astype(float) for column in columns if len(column)])


@pytest.mark.parametrize("shard_bytes", ["1MB", "2kB"])
def test_histograms_count_every_scored_row_on_its_side_of_the_threshold(
    shard_bytes: str, tmp_path: Path
) -> None:
    made = run_small(tmp_path, shard_bytes)
    files = stage_files(made)[0]
    (measured,) = measure(files, [files.operator("gopher_quality")])  # type: ignore[list-item]
    found = measured.histograms
    assert len(found) == 8
    for histogram in found:
        values = scores_of(made, histogram.score)
        counts = np.array([histogram.n_rows[i] for i in range(len(histogram.edges) - 1)])
        breaking = np.array([histogram.n_breaking[i] for i in range(len(histogram.edges) - 1)])
        assert counts.sum() == len(values)
        assert np.all((breaking == 0) | (breaking == counts)), "a bin lies on both sides of a threshold"
        for rule in histogram.rules:
            low, high = rule.minimum or -np.inf, np.inf if rule.maximum is None else rule.maximum
            assert histogram.n_broken[rule.reason] == np.sum((values < low) | (values > high))


def test_clusters_are_told_with_their_members(outcome: Outcome) -> None:
    text = page_of(outcome).text
    assert "5 documents of 96 (5.2 %) are in 2 clusters; 3 of them are duplicates of a keeper" in text
    assert "3 documents, kept: web-000" in text
    assert re.search(r"Removed: \W*copy-0 copy-1", text)
    assert "2 documents, kept: web-002" in text
    assert "kept · web-002 · t2" in text
    assert "removed · near · t1" in text


def test_duplicates_are_told_by_source_and_what_the_closure_would_have_taken(outcome: Outcome) -> None:
    page = page_of(outcome)
    exact, near = (table for table in page.tables if table[0][0] == "removed from")
    assert exact == [["removed from", "web", "all"], ["web", "3", "3"]]
    assert near == [["removed from", "web", "all"], ["web", "1", "1"]]
    assert re.search(r"documents had candidates.* would have taken \d+ more", page.text, re.DOTALL)
    assert re.search(r"only one of the two has are marked. Their similarity is 0\.\d\d\.", page.text)
    assert "largest group of candidates of candidates has 2 documents" in " ".join(page.text.split())


def test_unreadable_records_and_limits_are_told(outcome: Outcome) -> None:
    page = page_of(outcome)
    assert dict(page.table("reason", "records")) == {"invalid_json": "1", "no_text": "1"}
    details = page.table("reason", "source", "where, and what was found")
    assert ["no_text", "web"] in [cells[:2] for cells in details]
    assert "20 documents more were left out by the limits in the recipe" in page.text
    assert ["notes", "notes", "1"] in [cells[:3] for cells in page.table("source", "domain")]
    assert "30 rows" in page.text


def test_archives_records_that_are_no_pages_are_told(outcome: Outcome) -> None:
    assert "no pages" not in page_of(outcome).text
    manifests = copy.deepcopy(outcome.manifests)
    manifests[0]["accounting"]["no_page"] = {"http_404": 2, "request": 1200}
    page = page_of(replace(outcome, manifests=manifests))
    assert page.table("kind of record") == [["request", "1,200"], ["http_404", "2"]]
    assert "1,202 records of web archives were sound and hold no page" in page.text


def test_quarantined_shards_are_told(outcome: Outcome) -> None:
    manifests = copy.deepcopy(outcome.manifests)
    manifests[0]["quarantined"] = {"part-00007": "web.jsonl.gz: <cut> short at byte 12"}
    rows = page_of(replace(outcome, manifests=manifests)).table("stage", "shard", "error")
    assert rows == [[outcome.stage_folders[0].name, "part-00007", "web.jsonl.gz: <cut> short at byte 12"]]


def test_books_that_do_not_add_up_are_marked(outcome: Outcome) -> None:
    good = [cells[-1] for cells in page_of(outcome).table("stage", "rows in", "kept")]
    assert good == ["\u2713 yes"] * 3
    manifests = copy.deepcopy(outcome.manifests)
    manifests[1]["accounting"]["rows_kept"] -= 1
    bad = [
        cells[-1]
        for cells in page_of(replace(outcome, manifests=manifests)).table("stage", "rows in", "kept")
    ]
    assert bad == ["\u2713 yes", "\u2717 no", "\u2717 no"]


def test_weights_caps_and_epochs_are_those_of_the_mixture(mixed: Outcome) -> None:
    page = page_of(mixed)
    rows = {cells[0]: cells[1:] for cells in page.table("domain", "natural weight")}
    # t2 has 200 tokens: 60 % of a budget of 1,000 are 3 epochs, which is what the recipe allows.
    assert [cell.replace("\u00a0", " ") for cell in rows["t2"]] == [
        "20.0 %", "33.3 %", "60.0 %", "60.0 %", "1.00", "1.67", "3.00",
    ]  # fmt: skip
    tokens = {cells[0]: cells[1:4] for cells in page.table("domain", "documents to train on")}
    assert tokens["t2"] == ["20", "200", "10"]
    assert tokens["all"] == ["100", "1,000", "50"]
    text = page_of(mixed).text
    assert "Recommended: the chosen mixture. The sentence of the recommendation." in text
    assert "0.200 nats per token, with 90 % probability between 0.100 and 0.300" in text
    assert "A note of the mixer." in text


def test_repeated_documents_are_told_apart_from_different_ones(mixed: Outcome) -> None:
    n_kept = mixed.manifests[-1]["accounting"]["rows_kept"]
    tokens = copy.deepcopy(mixed.tokens)
    for counts in tokens.values():
        counts |= {"n_distinct_docs": counts["n_docs"] // 2, "n_distinct_tokens": counts["n_tokens"] // 2}
        counts |= {"n_validation_docs": 1, "max_repeat": 8}
    page = page_of(replace(mixed, tokens=tokens))
    header = ["domain", "documents to train on", "tokens to train on", "validation tokens"]
    rows = page.table(*header, "different documents")
    assert rows[-1] == ["all", "100", "1,000", "50", "50", "500", "100 %"]
    assert "a document comes up to 8 times. E epochs read it up to 8 E times" in page.text
    assert f"{n_kept - 53} documents whose weight came to 0 will not be trained on" in page.text
    assert "different documents" not in page_of(mixed).text


@pytest.mark.parametrize("verdict", ["no evidence", "no improvement"])
def test_an_unsupported_candidate_is_not_recommended(outcome: Outcome, verdict: str) -> None:
    page = page_of(with_mixture(outcome, verdict))
    assert "Recommended: the natural mixture." in page.text
    header = next(table[0] for table in page.tables if table[0][:2] == ["domain", "natural weight"])
    assert "candidate weight" in header
    assert "chosen weight" not in header


def test_the_best_mixture_of_the_race_is_bold(mixed: Outcome) -> None:
    assert page_of(mixed).table("validation loss")[0] == [
        "objective", "4.505 \u00b1 0.007", "4.405 \u00b1 0.007", "4.305 \u00b1 0.007",
    ]  # fmt: skip
    assert "<b>4.305 \u00b1 0.007</b>" in render(mixed)
    assert "<b>4.405" not in render(mixed)


def test_long_texts_keep_their_begin_and_their_end() -> None:
    text = "begin " + "x" * 10_000 + " end"
    shown = Page(excerpt(text)).text
    assert shown.startswith("begin xxx")
    assert shown.endswith("xxx end")
    assert f"{10_010 - 400:,} characters left out" in shown
    assert Page(excerpt("short")).text == "short"


def test_two_texts_are_shown_where_they_differ() -> None:
    same = "word " * 200
    left, right = side_by_side(f"{same}alpha rest", f"{same}beta rest")
    assert "<mark>alpha</mark>" in left
    assert "<mark>beta</mark>" in right
    assert "characters left out" in left
    assert left.count("<mark>") == right.count("<mark>") == 1
    assert "<mark>" not in "".join(side_by_side(same, same))
    assert "<mark>beta</mark>" in side_by_side(f"{same}alpha", f"{same.replace(' ', chr(0xA0))}beta")[1]


@pytest.fixture(scope="module")
def open_page() -> Iterator[Callable[[int], Any]]:
    """Opens pages of a width in headless Chromium."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=[*quiet, "--no-first-run"])
        yield lambda width: browser.new_page(viewport={"width": width, "height": 900})
        browser.close()


@pytest.mark.parametrize("width", [1280, 700])
def test_a_browser_draws_every_figure_without_errors_or_requests(
    width: int, mixed: Outcome, open_page: Callable[[int], Any], tmp_path: Path
) -> None:
    page, problems, requests = open_page(width), [], []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("dialog", lambda dialog: problems.append(dialog.message))
    page.on("request", lambda request: requests.append(request.url))
    report = write_report(mixed)
    page.goto(report.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(box => box.open = true)")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    n_figures = page.locator("figure.plot").count()
    drawn = "() => document.querySelectorAll('figure.plot .canvas > .plot-container').length === " + str(
        n_figures
    )
    page.wait_for_function(drawn)

    marks = (
        "boxes => boxes.map(box => box.querySelectorAll('svg .point path, svg .scatterlayer path').length)"
    )
    n_marks = page.locator("figure.plot").evaluate_all(marks)
    assert n_figures > 20
    assert min(n_marks) > 0, "a figure is empty"
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    assert page.locator("img").count() == 0
    page.screenshot(path=tmp_path / f"report-{width}.png", full_page=True)
    assert (tmp_path / f"report-{width}.png").stat().st_size > 100_000
    assert problems == []
    assert requests == [report.as_uri()]
    page.close()


def test_figures_wait_until_they_are_in_view(mixed: Outcome, open_page: Callable[[int], Any]) -> None:
    page = open_page(1280)
    page.goto(write_report(mixed).as_uri())
    page.wait_for_function("document.querySelectorAll('.plot-container').length > 0")
    assert page.locator(".plot-container").count() < page.locator("figure.plot").count()
    page.close()

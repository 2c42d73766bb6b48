"""The report: one HTML file that tells what happened to the data and what the run recommends."""

import base64
import hashlib
from importlib.resources import files
from pathlib import Path

from plotly.offline import get_plotlyjs

from .outcome import Outcome
from .report_accounting import accounting_section, input_section
from .report_clusters import cluster_section
from .report_examples import duplicate_section, example_section
from .report_filters import filter_pages
from .report_funnel import funnel_section
from .report_html import Html, count, counted, element, join, megabytes, share
from .report_landscape import landscape_section
from .report_mixture import domain_section, proxy_section
from .report_online import online_section
from .report_rows import RunRows, read_run
from .report_training import training_section
from .run_directory import written_whole

REPORT = "report.html"
# Draws each figure when it comes into view: a closed <details> has no width to draw for.
DRAW = """
const draw = box => Plotly.newPlot(box.querySelector(".canvas"),
  ...(({data, layout}) => [data, layout])(JSON.parse(box.querySelector("script").textContent)),
  {displayModeBar: false, responsive: true});
const waiting = new Set(document.querySelectorAll("figure.plot"));
const show = box => { if (waiting.delete(box)) draw(box); };
const watcher = new IntersectionObserver(
  entries => entries.filter(entry => entry.isIntersecting).forEach(entry => show(entry.target)),
  {rootMargin: "800px"});
waiting.forEach(box => watcher.observe(box));
addEventListener("beforeprint", () => [...waiting].filter(box => box.offsetParent).forEach(show));
"""


def write_report(outcome: Outcome) -> Path:
    """Write ``report.html`` in the run directory, whole, and return its path.

    It is a function of what the run directory holds: written again, it has the same bytes.
    """
    path = outcome.run_dir / REPORT
    with written_whole(path) as temporary:
        temporary.write_text(render(outcome), "utf-8")
    return path


def render(outcome: Outcome) -> str:
    """The page. What the recipe has no section for is left out."""
    rows = read_run(outcome)
    sections = {
        "What was dropped": funnel_section(rows),
        **filter_pages(rows),
        "Duplicates": duplicate_section(rows),
        "Domains found": cluster_section(rows),
        "Examples": example_section(rows),
        "Domains and mixture": domain_section(outcome),
        "Evidence from proxies": proxy_section(outcome),
        "Around the recommendation": landscape_section(outcome),
        "Training race": training_section(outcome.comparison),
        "Online mixture": online_section(outcome),
        "Inputs": input_section(outcome, rows),
        "Accounting": accounting_section(outcome, rows),
    }
    return _page(outcome.loaded.recipe.name, _header(outcome, rows), sections)


def _page(name: str, header: Html, sections: dict[str, Html | None]) -> str:
    shown = {title: body for title, body in sections.items() if body is not None}
    anchors = {title: f"s{i}" for i, title in enumerate(shown, 1)}
    entries = [
        element("li", element("a", title.removeprefix("Filter "), href=f"#{anchor}"), class_=_level(title))
        for title, anchor in anchors.items()
    ]
    scripts = [get_plotlyjs(), DRAW]
    # Nothing but these two scripts may run, and nothing may be fetched, whatever a document holds.
    hashes = " ".join(f"'sha256-{_sha256(script)}'" for script in scripts)
    policy = f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:"
    body = [
        element("section", element("h2", title), text, id=anchors[title]) for title, text in shown.items()
    ]
    return join(
        [
            Html('<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'),
            Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
            Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            element("title", f"{name} \u2013 cuvee report"),
            element("style", Html(files(__package__).joinpath("report.css").read_text("utf-8"))),
            Html('</head>\n<body>\n<div class="page">'),
            element("nav", element("strong", name), element("ol", *entries), aria_label="Contents"),
            element("main", header, *body),
            Html("</div>"),
            *(element("script", Html(script)) for script in scripts),
            Html("</body>\n</html>\n"),
        ]
    )


def _level(title: str) -> str:
    """The pages of filters stand below their overview."""
    return "sub" if title.startswith("Filter ") else "top"


def _sha256(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _header(outcome: Outcome, rows: RunRows) -> Html:
    """The run in one paragraph and a few numbers."""
    first, last = rows.stages[0].accounting, rows.stages[-1].accounting
    n_tokens = sum(counts["n_tokens"] for counts in outcome.tokens.values())
    numbers = {
        "documents read": count(first.rows_in),
        "documents kept": count(last.rows_kept),
        "of documents kept": share(last.rows_kept, first.rows_in),
        "of text kept": f"{megabytes(last.bytes_kept)} MB",
    }
    if outcome.tokens:
        numbers |= {"tokens to train on": count(n_tokens), "domains": count(len(outcome.tokens))}
    tiles = [element("div", element("b", value), element("span", name)) for name, value in numbers.items()]
    return join(
        [
            element("h1", outcome.loaded.recipe.name),
            *(element("p", sentence, class_="lead") for sentence in _summary(outcome, rows)),
            element("div", *tiles, class_="figures"),
        ]
    )


def _summary(outcome: Outcome, rows: RunRows) -> list[str]:
    """What happened to the documents, which mixture is recommended, and how the race ended."""
    first, last = rows.stages[0].accounting, rows.stages[-1].accounting
    sentences = [
        f"The run read {counted(first.rows_in, 'document')} ({megabytes(first.bytes_in)} MB of text) from "
        f"{counted(len(outcome.plan.readers), 'source')} and kept {count(last.rows_kept)} of them "
        f"({share(last.rows_kept, first.rows_in)}; {megabytes(last.bytes_kept)} MB)."
    ]
    operators = [(operator, files) for files in rows.stages for operator in files.stage.operators]
    dropped = [f"{count(n)} by {op.name}" for op, files in operators if (n := files.n_dropped_by(op))]
    if dropped:
        sentences.append(f"Dropped: {', '.join(dropped)}.")
    if n_unreadable := sum(first.unreadable.values()):
        sentences.append(f"{counted(n_unreadable, 'record')} could not be read.")
    if outcome.tokens:
        n_tokens, n_held_out = (
            sum(counts[name] for counts in outcome.tokens.values())
            for name in ("n_tokens", "n_validation_tokens")
        )
        sentences.append(
            f"What was kept makes {counted(n_tokens, 'token')} to train on in "
            f"{counted(len(outcome.tokens), 'domain')}, and {count(n_held_out)} held out for validation."
        )
    told = [" ".join(sentences)]
    if outcome.choice is not None:
        told.append(f"Mixture: {outcome.choice.recommendation.sentence}")
    if outcome.comparison is not None:
        told.append(f"Training: {outcome.comparison.sentence}")
    return told

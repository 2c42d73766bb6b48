"""The report's section on the mixture that followed its training: weights, rewards, epochs, rows kept."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from .comparison import OnlineRun
from .outcome import Outcome
from .recipe import Online
from .report_html import Html, code, counted, decimal, element, join, paragraph, share, table
from .report_plots import CYCLE, GREY, label, plot

COLORS = (*(color for color in CYCLE if color != GREY), GREY)
DASHES = ("solid", "dash", "dot")


def online_section(outcome: Outcome) -> Html | None:
    """How weights moved in the training that reported its losses, and what became of them."""
    comparison, train = outcome.comparison, outcome.loaded.recipe.train
    if comparison is None or not comparison.online or train is None or train.online is None:
        return None
    run, section = comparison.online[0], train.online
    several = len(comparison.online) > 1
    lead = paragraph(
        "One more model started from the chosen mixture and reported its losses as it trained; every "
        f"{counted(section.every, 'step')} the policy ",
        code(section.policy),
        f" saw them, and its weights held {counted(section.lag, 'step')} later. ",
        _batch_sentence(run, section, train.sequence_length),
        f" Shown is the first of {len(comparison.online)} seeds." if several else "",
    )
    if not run.reports:
        return join([lead, paragraph("The training ended before its first report: weights never moved.")])
    parts = [lead, _weights_plot(run), *_rewards_plot(run), Html("<h3>Each domain</h3>")]
    return join([*parts, _domain_table(outcome, run)])


def _batch_sentence(run: OnlineRun, section: Online, sequence_length: int) -> str:
    n_tokens = run.batch_rows * sequence_length
    batch = f"Its batch was {counted(run.batch_rows, 'row')} ({counted(n_tokens, 'token')})"
    if not run.kept:
        return f"{batch}, all that were drawn."
    n_candidates, n_kept = (sum(counts[at] for counts in run.kept.values()) for at in (0, 1))
    return (
        f"{batch}, chosen by {section.method} from {section.factor} times as many: "
        f"{share(n_kept, n_candidates)} of {n_candidates:,} candidates were kept."
    )


def _domains(run: OnlineRun) -> list[str]:
    """By weight at the end, the largest first."""
    last: Mapping[str, int] = run.reports[-1]["shares"]
    return sorted(last, key=lambda domain: (-last[domain], domain))


def _lines(run: OnlineRun, values: Mapping[str, Sequence[Any]], steps: Sequence[int], what: str) -> list[Any]:
    return [
        go.Scatter(
            x=list(steps),
            y=list(values[domain]),
            name=label(domain),
            mode="lines",
            line={
                "color": COLORS[k % len(COLORS)],
                "dash": DASHES[k // len(COLORS) % len(DASHES)],
                "width": 2,
                "shape": "hv",
            },
            hovertemplate=f"{label(domain)}: %{{y:{what}}} from step %{{x:,}} on<extra></extra>",
        )
        for k, domain in enumerate(_domains(run))
    ]


def _weights_plot(run: OnlineRun) -> Html:
    totals = [sum(report["shares"].values()) for report in run.reports]
    values = {
        domain: [report["shares"][domain] / total for report, total in zip(run.reports, totals, strict=True)]
        for domain in _domains(run)
    }
    layout = {
        "xaxis": {"title": {"text": "step"}, "nticks": 6, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "weight"}, "tickformat": ".0%", "rangemode": "tozero", "nticks": 6},
        "legend": {"orientation": "v", "x": 1.02, "y": 1, "yanchor": "top"},
    }
    steps = [report["start"] for report in run.reports]
    caption = "The share of the rows that each domain had, from the step on from which it held."
    return plot(_lines(run, values, steps, ".1%"), caption, 400, name="Weights over time", **layout)


def _rewards_plot(run: OnlineRun) -> list[Html]:
    """Nothing for a policy that has no rewards."""
    reports = run.reports[1:]
    values = {domain: [report["rewards"][domain] for report in reports] for domain in _domains(run)}
    if all(value is None for of in values.values() for value in of):
        return []
    layout = {
        "xaxis": {"title": {"text": "step"}, "nticks": 6, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "reward"}, "nticks": 6, "exponentformat": "e"},
        "legend": {"orientation": "v", "x": 1.02, "y": 1, "yanchor": "top"},
    }
    caption = "What drew weight to each domain, at each report: where rewards are equal, weights stay."
    steps = [report["step"] for report in reports]
    return [plot(_lines(run, values, steps, ".3e"), caption, 320, name="Rewards over time", **layout)]


def _domain_table(outcome: Outcome, run: OnlineRun) -> Html:
    """Weights, epochs against the cap, and rows kept."""
    recipe = outcome.loaded.recipe
    assert recipe.mix is not None
    first, last = run.reports[0]["shares"], run.reports[-1]["shares"]
    losses = [report["losses"] for report in run.reports[1:]]
    lines = []
    for domain in _domains(run):
        known = [loss[domain] for loss in losses if loss[domain] is not None]
        fell = decimal(known[-1] - known[0], "+") if len(known) > 1 else None
        line = [
            domain,
            share(first[domain], sum(first.values())),
            share(last[domain], sum(last.values())),
            share(run.token_shares[domain]),
            f"{run.epochs[domain]:.2f}",
            f"{recipe.mix.max_epochs:g}",
            fell,
        ]
        if run.kept:
            line.append(share(run.kept[domain][1], max(1, run.kept[domain][0])))
        lines.append(line)
    header = [
        "domain",
        "weight at the start",
        "at the end",
        "share of rows drawn",
        "epochs",
        "epochs allowed",
    ]
    header += ["training loss, last report less first", *(["candidates kept"] if run.kept else [])]
    note = "Epochs count the rows drawn, chosen or not. Training losses are those the policy saw, in nats."
    return join([table("l" + "r" * (len(header) - 1), header, lines), element("p", note, class_="note")])

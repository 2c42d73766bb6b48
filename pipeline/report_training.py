"""The report's section on the race of the mixtures: curves and final losses."""

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.compute as pc

from .comparison import Comparison
from .report_html import Html, count, counted, element, join, paragraph, table
from .report_plots import MIXTURES, label, plot

LOSS = "loss."
DASHES = {"natural": "dot", "uniform": "dash", "chosen": "solid", "candidate": "solid", "online": "dashdot"}


def training_section(comparison: Comparison | None) -> Html | None:
    """The contenders' validation losses over training, and at the end."""
    if comparison is None:
        return None
    curves = comparison.curves
    domains = [name.removeprefix(LOSS) for name in curves.column_names if name.startswith(LOSS)]
    n_seeds = max(len(losses) for losses in comparison.final.values())
    n_tokens = int(pc.max(curves["n_tokens"]).as_py())
    lead = (
        f"The same model was trained from scratch on {counted(len(comparison.final), 'mixture')}, each with "
        f"{count(n_tokens)} tokens"
        + (
            f" and {count(n_seeds)} seeds; lines are means over the seeds."
            if n_seeds > 1
            else ", with one seed."
        )
        + " Lower is better."
    )
    each = [
        element("div", element("h4", domain), _curves_plot(curves, LOSS + domain, domain, 230, is_small=True))
        for domain in domains
    ]
    return join(
        [
            paragraph(lead),
            element("div", element("b", "Outcome"), comparison.sentence, class_="verdict"),
            _curves_plot(curves, "objective", "objective", 380, is_small=False),
            Html("<h3>At the end</h3>"),
            _final_table(curves, domains),
            Html("<h3>Each domain</h3>"),
            element("div", *each, class_="multiples"),
        ]
    )


def _mean_curve(curves: pa.Table, name: str, metric: str) -> tuple[list[int], list[float], list[float]]:
    """(tokens, mean over the seeds, half of the range over the seeds) of one mixture."""
    own = curves.filter(pc.equal(curves["name"], name)).group_by("n_tokens")
    found = own.aggregate([(metric, "mean"), (metric, "min"), (metric, "max")]).sort_by("n_tokens")
    spread = (found[f"{metric}_max"].to_numpy() - found[f"{metric}_min"].to_numpy()) / 2
    return found["n_tokens"].to_pylist(), found[f"{metric}_mean"].to_pylist(), spread.tolist()


def _names(curves: pa.Table) -> list[str]:
    return list(dict.fromkeys(curves["name"].to_pylist()))


def _curves_plot(curves: pa.Table, metric: str, title: str, height: int, is_small: bool) -> Html:
    traces = []
    for name in _names(curves):
        n_tokens, mean, spread = _mean_curve(curves, name, metric)
        traces.append(
            go.Scatter(
                x=n_tokens,
                y=mean,
                error_y={"array": spread, "thickness": 1, "width": 2} if any(spread) else None,
                name=name,
                mode="lines+markers",
                line={"color": MIXTURES[name], "dash": DASHES[name], "width": 2},
                marker={"size": 4 if is_small else 6},
                hovertemplate=f"{name}: %{{y:.3f}} at %{{x:,}} tokens<extra></extra>",
            )
        )
    layout = {
        "xaxis": {"title": {"text": "tokens trained on"}, "nticks": 5, "rangemode": "tozero"},
        "yaxis": {"title": {"text": "loss (nats per token)"}, "nticks": 6},
        "showlegend": not is_small,
    }
    caption = "The objective on held-out documents as training goes on." if not is_small else ""
    return plot(traces, caption, height, name=f"Validation loss: {label(title)}", **layout)


def _final_table(curves: pa.Table, domains: list[str]) -> Html:
    """Losses at the last checkpoint, the best of each line in bold."""
    names = _names(curves)
    last = curves.filter(pc.equal(curves["n_tokens"], pc.max(curves["n_tokens"])))
    lines = []
    for title, metric in [("objective", "objective"), *((domain, LOSS + domain) for domain in domains)]:
        found = [last.filter(pc.equal(last["name"], name))[metric].to_numpy() for name in names]
        means = [float(losses.mean()) for losses in found]
        cells: list[str] = []
        for losses, mean in zip(found, means, strict=True):
            text = f"{mean:.3f}"
            if len(losses) > 1:
                text += f" \u00b1 {np.std(losses, ddof=1):.3f}"
            cells.append(element("b", text) if mean == min(means) else text)
        lines.append([title, *cells])
    note = (
        "Validation loss in nats per token; the best of each line in bold, \u00b1 the deviation over seeds."
    )
    body = table("l" + "r" * len(names), ("validation loss", *names), lines)
    return join([body, element("p", note, class_="note")])

"""Figures of the mixing pages: predicted against observed, slices, interactions and a Pareto front."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray

from ..mixing.landscape import Front, Interactions, Landscape, Slice
from .report_html import Html, decimal, element
from .report_plots import BLUE, GREY, ORANGE, label, plot

Floats = NDArray[np.float64]
LOSS = "nats per token"
INK, RULE = "#1F2933", "#9AA3AD"
MAX_POINTS = 256  # of a scatter
MAX_NUMBERED = 12  # domains of a heat map whose cells have room for a number
PALE_BLUE, BAND = "#D6E6F2", "rgba(0, 114, 178, 0.16)"
COLORBAR = {"thickness": 12, "outlinewidth": 0, "len": 1}
# The natural mixture may be the recommended one: its mark shows around the other's.
MARKS = {
    "natural": (GREY, "diamond", 22),
    "candidate": (ORANGE, "square", 12),
    "recommended": (INK, "star", 12),
}
DIVERGING = [[0.0, "#0072B2"], [0.25, "#8DBBDB"], [0.5, "#FFFFFF"], [0.75, "#F0B48A"], [1.0, "#D55E00"]]


def agreement(
    name: str,
    predicted: Floats,
    observed: Floats,
    widths: tuple[Floats, Floats] | None,
    color: str,
    with_diagonal: bool,
) -> Html:
    """A scatter of observed over predicted losses, of 256 runs at most, evenly spaced among all.

    Args:
        widths: of the prediction's interval, below and above.
    """
    shown = np.unique(np.linspace(0, len(observed) - 1, min(len(observed), MAX_POINTS)).astype(int))
    interval = None
    if widths is not None:
        below, above = (brief(width[shown]) for width in widths)
        interval = {"array": above, "arrayminus": below, "color": RULE, "thickness": 1, "width": 0}
    points = go.Scatter(
        x=brief(predicted[shown]),
        y=brief(observed[shown]),
        mode="markers",
        marker={"color": color, "size": 8, "opacity": 0.85},
        error_x=interval,
        customdata=shown.tolist(),
        hovertemplate="proxy %{customdata}: predicted %{x:.3f}, observed %{y:.3f}<extra></extra>",
    )
    ends = [float(min(predicted.min(), observed.min())), float(max(predicted.max(), observed.max()))]
    line = {"color": INK, "width": 1, "dash": "dash"}
    diagonal = go.Scatter(x=ends, y=ends, mode="lines", line=line, hoverinfo="skip")
    layout = {
        "xaxis": {"title": {"text": f"predicted ({LOSS})"}, "nticks": 6},
        "yaxis": {"title": {"text": f"observed ({LOSS})"}, "nticks": 6},
        "showlegend": False,
    }
    figure = plot([diagonal, points] if with_diagonal else [points], "", 260, name=name, **layout)
    return element("div", element("h4", name), figure)


def brief(values: Sequence[float] | Floats) -> list[float]:
    """Six digits of each number: more than a figure shows, and a third of the page's bytes."""
    return [float(f"{value:.6g}") for value in values]


def slice_plot(
    found: Slice, centre: float, natural: float, tried: tuple[float, float], limits: tuple[float, float]
) -> Html:
    """The objective's change along one domain's weight.

    Args:
        centre, natural: the domain's weight in both mixtures.
        tried: its smallest and largest weight in any run: outside, the line is dashed.
        limits: of the vertical axis.
    """
    percent, change = [100 * weight for weight in found.weights], found.change
    band = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    traces = [
        go.Scatter(x=brief(percent), y=brief(change.low), **band),
        go.Scatter(x=brief(percent), y=brief(change.high), fill="tonexty", fillcolor=BAND, **band),
        *_mean_lines(found, tried),
        go.Scatter(
            x=brief([100 * centre]),
            y=[0.0],
            mode="markers",
            marker={"color": BLUE, "size": 10, "line": {"color": "#FFFFFF", "width": 1.5}},
            hovertemplate="recommended: %{x:.1f} %<extra></extra>",
        ),
    ]
    mark = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "line": {"color": GREY, "dash": "dot"}}
    layout = {
        "xaxis": {"title": {"text": "share of the training tokens (%)"}, "nticks": 6},
        "yaxis": {"title": {"text": "change of the objective"}, "nticks": 6, "range": brief(limits)},
        "shapes": [{**mark, "x0": 100 * natural, "x1": 100 * natural}],
        "showlegend": False,
    }
    name = f"The objective's change with the weight of {found.domain}"
    return element("div", element("h4", found.domain), plot(traces, "", 240, name=name, **layout))


def _mean_lines(found: Slice, tried: tuple[float, float]) -> list[Any]:
    """Solid where runs have been, dashed beyond; the pieces meet."""
    inside = [tried[0] - 1e-9 <= weight <= tried[1] + 1e-9 for weight in found.weights]
    first = inside.index(True) if any(inside) else len(inside)
    last = len(inside) - inside[::-1].index(True) if any(inside) else len(inside)
    pieces = [(0, first + 1, "dash"), (first, last, "solid"), (last - 1, len(inside), "dash")]
    return [
        go.Scatter(
            x=brief([100 * weight for weight in found.weights[start:stop]]),
            y=brief(found.change.mean[start:stop]),
            customdata=[
                f"{decimal(low, '+')} to {decimal(high, '+')}"
                for low, high in zip(found.change.low[start:stop], found.change.high[start:stop], strict=True)
            ],
            mode="lines",
            line={"color": BLUE, "width": 2, "dash": dash},
            hovertemplate="%{x:.1f} %: %{y:+.3f} (90 %: %{customdata})<extra></extra>",
        )
        for start, stop, dash in pieces
        if stop - start > 1
    ]


def slice_limits(landscape: Landscape, weights: Floats) -> tuple[float, float]:
    """One vertical axis for all slices, so that they can be compared.

    It holds the intervals where runs, of weights (n_runs, K), have been: what is guessed beyond may rise a
    hundred times as high, and would leave nothing to see of the rest.
    """
    low, high = 0.0, 0.0
    for found in landscape.slices:
        tried = weights[:, landscape.domains.index(found.domain)]
        for weight, below, above in zip(found.weights, found.change.low, found.change.high, strict=True):
            if tried.min() <= weight <= tried.max():
                low, high = min(low, below), max(high, above)
    margin = 0.05 * (high - low) or 1e-3
    return low - margin, high + margin


def interaction_plot(found: Interactions) -> Html:
    """A heat map, in thousandths of a nat; bold where the interval leaves out zero."""
    n_domains = len(found.domains)
    mean, low, high = (
        _symmetric(values, n_domains) for values in (found.pairs.mean, found.pairs.low, found.pairs.high)
    )
    is_sure = (low > 0) | (high < 0)
    text = [
        [f"<b>{_signed(v)}</b>" if sure else _signed(v) for v, sure in zip(*row, strict=True)]
        for row in zip(mean, is_sure, strict=True)
    ]
    told = [
        [f"{_signed(a)} to {_signed(b)}" for a, b in zip(*row, strict=True)]
        for row in zip(low, high, strict=True)
    ]
    names = [label(domain) for domain in found.domains]
    largest = float(np.abs(mean).max()) or 1.0
    heat = go.Heatmap(
        x=names,
        y=names,
        z=[brief(row) for row in mean],
        zmin=-largest,
        zmax=largest,
        colorscale=DIVERGING,
        text=text if n_domains <= MAX_NUMBERED else None,
        texttemplate="%{text}" if n_domains <= MAX_NUMBERED else None,
        customdata=told,
        xgap=2,
        ygap=2,
        colorbar={**COLORBAR, "title": {"text": "nats / 1000", "font": {"size": 13}}},
        hovertemplate="%{y} and %{x}: %{z:+.2f} (90 %: %{customdata})<extra></extra>",
    )
    axis = {"type": "category", "showgrid": False, "tickcolor": "#FFFFFF"}
    layout = {
        "xaxis": {**axis, "side": "top"},
        "yaxis": {**axis, "autorange": "reversed"},
    }
    caption = (
        "What two steps together add to the sum of each alone, in thousandths of a nat per token. Bold: the "
        "central 90 % interval leaves out zero."
    )
    return plot([heat], caption, 130 + 34 * n_domains, name="Interactions of domains", **layout)


def _symmetric(pairs: tuple[float, ...], n: int) -> Floats:
    """The whole matrix, in thousandths, from its upper triangle."""
    matrix = np.zeros((n, n))
    matrix[np.triu_indices(n)] = pairs
    return 1000 * np.asarray(np.triu(matrix) + np.triu(matrix, 1).T)


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "\u2212")


def front_plot(front: Front) -> Html:
    """Both metrics of each point, coloured by the probability that none beats it."""
    (x, y), (x_std, y_std) = (np.array(values).T for values in (front.mean, front.std))
    whiskers = {"color": PALE_BLUE, "thickness": 1, "width": 0}
    points = go.Scatter(
        x=brief(x),
        y=brief(y),
        error_x={"array": brief(x_std), **whiskers},
        error_y={"array": brief(y_std), **whiskers},
        mode="lines+markers",
        name="on the front",
        line={"color": RULE, "width": 1},
        marker={
            "size": 11,
            "color": brief(front.probability),
            "cmin": 0,
            "cmax": 1,
            "colorscale": [[0, "#FFFFFF"], [1, BLUE]],
            "line": {"color": BLUE, "width": 1.2},
            "colorbar": {**COLORBAR, "title": {"text": "probability", "font": {"size": 13}}},
        },
        hovertemplate="%{x:.3f}, %{y:.3f}: unbeaten with probability %{marker.color:.2f}<extra></extra>",
    )
    others = [_mark(name, front.others[name]) for name in MARKS if name in front.others]
    layout = {
        "xaxis": {"title": {"text": f"loss of {label(front.metrics[0])} ({LOSS})"}, "nticks": 8},
        "yaxis": {"title": {"text": f"loss of {label(front.metrics[1])} ({LOSS})"}, "nticks": 8},
    }
    caption = "Lower left is better. Whiskers are one standard deviation of the expected loss."
    return plot([points, *others], caption, 420, name="Pareto front of two losses", **layout)


def _mark(name: str, at: Sequence[float]) -> go.Scatter:
    """A mixture beside the front."""
    color, symbol, size = MARKS[name]
    return go.Scatter(
        x=brief(at[:1]),
        y=brief(at[1:]),
        name=name,
        mode="markers",
        marker={"color": color, "symbol": symbol, "size": size},
        hovertemplate=f"{name}: %{{x:.3f}}, %{{y:.3f}}<extra></extra>",
    )

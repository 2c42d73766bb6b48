"""How the report's figures look, and how they get into the page."""

import html
from collections.abc import Iterable, Sequence
from typing import Any

import plotly.graph_objects as go

from .report_html import Html, element

# Okabe and Ito 2008, "Color Universal Design": told apart with any kind of colour vision.
BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PINK, SKY, YELLOW, GREY = "#CC79A7", "#56B4E9", "#F0E442", "#8A939E"
KEPT, DROPPED, PALE = BLUE, VERMILION, "#D5DCE4"
CYCLE = (VERMILION, ORANGE, PINK, SKY, GREEN, YELLOW, GREY)
MIXTURES = {"natural": GREY, "uniform": ORANGE, "chosen": BLUE, "candidate": BLUE, "online": GREEN}
ROW_PX = 26

_AXIS = {
    "gridcolor": "#E7EAEE",
    "linecolor": "#9AA3AD",
    "zeroline": False,
    "automargin": True,
    "ticks": "outside",
    "tickcolor": "#9AA3AD",
    "ticklen": 4,
    "title": {"standoff": 8, "font": {"size": 13}},
}
_LAYOUT: dict[str, Any] = {
    "font": {
        "family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
        "size": 13,
        "color": "#1F2933",
    },
    "paper_bgcolor": "#FFFFFF",
    "plot_bgcolor": "#FFFFFF",
    "margin": {"l": 8, "r": 16, "t": 12, "b": 8},
    "xaxis": _AXIS,
    "yaxis": _AXIS,
    "bargap": 0.25,
    "legend": {
        "orientation": "h",
        "x": 0,
        "xanchor": "left",
        "y": 1,
        "yanchor": "bottom",
        "traceorder": "normal",
    },
    "hoverlabel": {"font": {"size": 13}},
}
_TEMPLATE = go.layout.Template(layout=_LAYOUT)


def label(text: str) -> str:
    """A name from the data as a label: plotly would read markup in it.

    >>> label("<b>")
    '&lt;b&gt;'
    """
    return html.escape(text, quote=False)


def plot(traces: Sequence[Any], caption: str, height: int, name: str = "", **layout: Any) -> Html:
    """A figure of `height` pixels, as wide as its place. The page's script draws it when it comes into view.

    Args:
        caption: what it shows; stands below it.
        name: what it shows, for those who cannot see it; the caption unless given.
        layout: of plotly.
    """
    figure = go.Figure(traces, {"template": _TEMPLATE, "height": height, **layout})
    # JSON that nothing can end: no "<" is left in it.
    data = Html(figure.to_json().replace("<", "\\u003c"))
    return element(
        "figure",
        element("div", class_="canvas", style=f"height:{height}px", role="img", aria_label=name or caption),
        element("script", data, type="application/json"),
        element("figcaption", caption) if caption else Html(),
        class_="plot",
    )


def bars(
    names: Iterable[str], values: Sequence[float], name: str, color: str, hover: str, **more: Any
) -> go.Bar:
    """Horizontal bars, one for each of `names`; `hover` says what `%{x}` and `%{customdata}` are."""
    return go.Bar(
        x=list(values),
        y=[label(entry) for entry in names],
        name=label(name),
        orientation="h",
        marker_color=color,
        hovertemplate=f"%{{y}}: {hover}<extra></extra>",
        cliponaxis=False,
        **more,
    )


def bars_height(n_bars: int, above: int = 90) -> int:
    """Pixels for horizontal bars that stay legible, be they 2 or 60."""
    return above + ROW_PX * max(n_bars, 2)


def horizontal(n_bars: int, x_title: str, **more: Any) -> dict[str, Any]:
    """The layout of horizontal bars, the first on top."""
    return {
        "height": bars_height(n_bars),
        "xaxis": {"title": {"text": x_title}, "rangemode": "tozero"},
        "yaxis": {"autorange": "reversed", "type": "category", "showgrid": False, "tickcolor": "#FFFFFF"},
        **more,
    }


def line_at(x: float) -> dict[str, Any]:
    """A threshold: a dashed line from bottom to top."""
    return {
        "type": "line",
        "x0": x,
        "x1": x,
        "y0": 0,
        "y1": 1,
        "yref": "paper",
        "line": {"color": "#1F2933", "width": 1.5, "dash": "dash"},
    }

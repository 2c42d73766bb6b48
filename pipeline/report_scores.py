"""How scores are spread, and where the thresholds cut: the histograms of the report."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ..operators.base import Decides, Rule
from .report_html import Html, code, counted, element, number
from .report_lines import Line, scored_rows
from .report_plots import DROPPED, KEPT, label, line_at, plot
from .report_rows import StageFiles

N_BINS = 48
N_LABELS, N_LONG_LABELS = 20, 8
SHORT_LABEL, LONG_LABEL = 4, 28
"""Characters: labels that stand side by side, and what is shown of others."""
SKEW = 20.0
"""A largest score so many times the mean one asks for a logarithmic axis."""

Floats = NDArray[np.float64]


@dataclass
class Spread:
    """What a column of numbers spans; nulls, NaN and infinities are left out."""

    low: float = np.inf
    high: float = -np.inf
    total: float = 0.0
    n: int = 0
    is_integer: bool = True

    def add(self, values: Floats, is_integer: bool) -> None:
        """Look at finite values."""
        if len(values):
            self.low, self.high = min(self.low, values.min()), max(self.high, values.max())
            self.total += float(values.sum())
            self.n += len(values)
        self.is_integer &= is_integer

    @property
    def is_skewed(self) -> bool:
        """Whether the few large values would press all others into the first bins."""
        return (
            not self.has_integer_bins
            and self.low >= 0
            and self.high > 10
            and self.high * self.n > SKEW * self.total
        )

    def scale(self, values: Any) -> Any:
        """Values on the figure's axis: as they are, or log10(1 + x), which has a place for 0."""
        return np.log10(1 + np.asarray(values, dtype=np.float64)) if self.is_skewed else values

    @property
    def has_integer_bins(self) -> bool:
        """Whether each integer gets a bin of its own."""
        return self.is_integer and self.high - self.low < N_BINS

    def cuts(self, rules: Sequence[Rule]) -> Floats:
        """Where the rules' thresholds lie on the figure's axis: what is kept is on one side. Between whole
        numbers a threshold is halfway to the first one that it drops."""
        limits = [(rule.minimum, -0.5) for rule in rules] + [(rule.maximum, 0.5) for rule in rules]
        return np.array(
            [
                float(self.scale(limit + (away if self.is_integer and limit == round(limit) else 0.0)))
                for limit, away in limits
                if limit is not None
            ]
        )

    def edges(self, cuts: Floats) -> Floats:
        """Bins' edges on the figure's axis, the thresholds among them."""
        if self.has_integer_bins:
            return np.arange(self.low, self.high + 2) - 0.5
        low, high = float(self.scale(self.low)), float(self.scale(self.high))
        edges = np.linspace(low, high if high > low else low + 1, N_BINS + 1)
        inner = cuts[(cuts > edges[0]) & (cuts < edges[-1])]
        is_far = np.all(np.abs(edges[:, None] - inner) > (edges[1] - edges[0]) / 2, axis=1)
        is_far[[0, -1]] = True
        return np.unique(np.concatenate([edges[is_far], inner]))


@dataclass
class Histogram:
    """One score's column: how many rows in each bin, and how many of them break a rule."""

    score: str
    rules: Sequence[Rule]
    spread: Spread = field(default_factory=Spread)
    n_rows: Counter[Any] = field(default_factory=Counter)
    """By bin, or by text."""
    n_breaking: Counter[Any] = field(default_factory=Counter)
    n_broken: Counter[str] = field(default_factory=Counter)
    """By reason, rows that break the rule, whether or not another one dropped them first."""
    n_null: int = 0
    is_text: bool = False

    @property
    def is_score(self) -> bool:
        """Whether it measures documents: what no rule asks for and only some documents have is a note on
        these."""
        return bool(self.rules) or not (self.is_text or self.n_null)

    def measure(self, column: pa.ChunkedArray) -> None:
        """The first pass: what the column spans."""
        self.is_text |= _is_text(column.type) and column.null_count < len(column)
        if _is_numeric(column.type):
            self.spread.add(_finite(column), pa.types.is_integer(column.type))

    def count(self, column: pa.ChunkedArray) -> None:
        """The second pass: into the bins."""
        self.n_null += column.null_count
        if column.null_count == len(column):
            return
        breaks = np.zeros(len(column), dtype=bool)
        for rule in self.rules:
            broken = rule.broken_by(column.combine_chunks()).to_numpy(zero_copy_only=False)
            self.n_broken[rule.reason] += int(broken.sum())
            breaks |= broken
        for counter, rows in ((self.n_rows, column), (self.n_breaking, column.filter(pa.array(breaks)))):
            if self.is_text:
                found = pc.value_counts(rows.drop_null()).to_pylist()
                counter.update({entry["values"]: entry["counts"] for entry in found})
            elif self.spread.n and _is_numeric(column.type):
                counter.update(dict(enumerate(np.histogram(self._place(rows), self.edges)[0].tolist())))

    @cached_property
    def cuts(self) -> Floats:
        """The thresholds on the figure's axis, once everything is measured."""
        return self.spread.cuts(self.rules)

    @cached_property
    def edges(self) -> Floats:
        """The bins' edges on the figure's axis, once everything is measured."""
        return self.spread.edges(self.cuts)

    def _place(self, rows: pa.ChunkedArray) -> Floats:
        """Values on the figure's axis. A bin holds its left edge and not its right one; a value that equals
        its maximum is kept, so it moves a hair to the left of that edge."""
        values = _finite(rows)
        placed = np.asarray(self.spread.scale(values), dtype=np.float64)
        for rule in self.rules:
            if rule.maximum is not None:
                placed = np.where(values == rule.maximum, np.nextafter(placed, -np.inf), placed)
        return np.clip(placed, self.edges[0], self.edges[-1])


def _is_numeric(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _finite(column: pa.ChunkedArray) -> Floats:
    values = column.drop_null().cast(pa.float64()).to_numpy()
    return values[np.isfinite(values)]  # type: ignore[no-any-return]


@dataclass
class Measured:
    """A filter's scores, and the rows nearest to its rules' lines."""

    operator: Decides
    histograms: list[Histogram]
    lines: list[Line]


def measure(files: StageFiles, filters: Sequence[Decides]) -> list[Measured]:
    """The scores of a stage's filters, in two passes over score columns: what they span, then the counts.

    No text is read, and memory is that of one part's columns.
    """
    found = [_unmeasured(operator) for operator in filters]
    names = list(dict.fromkeys(one.score for each in found for one in each.histograms))
    for part in scored_rows(files, names):
        for each in found:
            reached = part.reached(files, each.operator)
            for histogram in each.histograms:
                histogram.measure(reached.table[histogram.score])
    for part in scored_rows(files, [*names, "id"]):
        for each in found:
            reached = part.reached(files, each.operator)
            for histogram in each.histograms:
                histogram.count(reached.table[histogram.score])
            for line in each.lines:
                line.add(reached)
    return found


def _unmeasured(operator: Decides) -> Measured:
    rules = operator.rules()
    names = [name for name in operator.writes if name.startswith(f"{operator.name}.")]
    names += [rule.score for rule in rules if rule.score not in names]
    histograms = [
        Histogram(name, [rule for rule in rules if rule.score == name]) for name in dict.fromkeys(names)
    ]
    return Measured(operator, histograms, [Line(rule, f"{operator.name}.{rule.reason}") for rule in rules])


def score_figure(operator: Decides, histogram: Histogram) -> Html:
    """A score's histogram and its rules' thresholds."""
    short = histogram.score.removeprefix(f"{operator.name}.")
    notes = [_rule_note(rule) for rule in histogram.rules] or [element("p", "no rule", class_="note")]
    if histogram.n_null:
        unmeasured = f"{counted(histogram.n_null, 'document')} had no value and stayed"
        notes.append(element("p", unmeasured, class_="note"))
    if histogram.is_text:
        figure = _labels_plot(histogram)
    elif histogram.spread.n:
        figure = _numbers_plot(histogram, short)
    else:
        figure = element("p", "no values", class_="note")
    return element("div", element("h4", code(short)), figure, *notes)


def _rule_note(rule: Rule) -> Html:
    kept_with = str(rule).removeprefix(f"{rule.score} ")
    return element("p", code(rule.reason), " keeps ", code(kept_with), class_="note")


def _numbers_plot(histogram: Histogram, short: str) -> Html:
    spread, edges = histogram.spread, histogram.edges
    centres, widths = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    bounds = [(_unscaled(spread, a), _unscaled(spread, b)) for a, b in pairwise(edges)]
    if spread.has_integer_bins:
        ranges = [number(round(centre)) for centre in centres]
    else:
        ranges = [f"{number(a)} to {number(b)}" for a, b in bounds]
    traces = [
        go.Bar(
            x=centres.tolist(),
            y=[counter[i] or None for i in range(len(centres))],
            width=widths.tolist(),
            customdata=ranges,
            marker={"color": color, "line": {"width": 0}},
            hovertemplate="%{customdata}: %{y:,} documents" + extra + "<extra></extra>",
        )
        for counter, color, extra in (
            (histogram.n_rows, KEPT, ""),
            (histogram.n_breaking, DROPPED, " break the rule"),
        )
    ]
    at = histogram.cuts.tolist()
    margin = 0.02 * (edges[-1] - edges[0])
    span = [min([edges[0], *at]) - margin, max([edges[-1], *at]) + margin]
    ticks = _ticks(span) if spread.is_skewed else {}
    if spread.has_integer_bins:
        ticks = {"tick0": 0, "dtick": max(1, round((spread.high - spread.low) / 6))}
    title = short.replace("_", " ") + (" (log scale)" if spread.is_skewed else "")
    axis = {"title": {"text": label(title)}, "range": span, "nticks": 6, **ticks}
    return _small_plot(
        traces, axis, max(histogram.n_rows.values(), default=1), [line_at(x) for x in at], short
    )


def _unscaled(spread: Spread, value: float) -> float:
    return float(10**value - 1) if spread.is_skewed else float(value)


def _ticks(span: Sequence[float]) -> dict[str, Any]:
    """Powers of ten, and 0, on the axis of log10(1 + x)."""
    powers = [10**k for k in range(16) if np.log10(1 + 10**k) <= span[1]]
    names = {1: "1", 10: "10", 100: "100", 1000: "1k", 10**4: "10k", 10**5: "100k", 10**6: "1M"}
    values = [0, *powers] if span[0] <= 0 else powers
    return {
        "tickvals": [float(np.log10(1 + value)) for value in values],
        "ticktext": [names.get(value, f"{value:.0e}" if value else "0") for value in values],
    }


def _labels_plot(histogram: Histogram) -> Html:
    """Bars for the most frequent labels: upright ones where labels are short, else lying ones."""
    is_short = max(map(len, histogram.n_rows)) <= SHORT_LABEL
    ranked = sorted(histogram.n_rows.items(), key=lambda pair: (-pair[1], pair[0]))
    ranked = ranked[: N_LABELS if is_short else N_LONG_LABELS]
    names = [label(name if len(name) <= LONG_LABEL else f"{name[:LONG_LABEL]}\u2026") for name, _ in ranked]
    counts = [n for _, n in ranked]
    trace = go.Bar(
        x=names if is_short else counts,
        y=counts if is_short else names,
        orientation="v" if is_short else "h",
        customdata=counts,
        marker_color=[DROPPED if histogram.n_breaking[name] else KEPT for name, _ in ranked],
        hovertemplate=f"%{{{'x' if is_short else 'y'}}}: %{{customdata:,}} documents<extra></extra>",
    )
    is_all = len(histogram.n_rows) == len(ranked)
    title = "label" if is_all else f"the {len(ranked)} most frequent labels"
    axis: dict[str, Any] = {"title": {"text": title}, "type": "category", "tickfont": {"size": 10}}
    axis |= {"tickangle": 0} if is_short else {"autorange": "reversed", "showgrid": False}
    return _small_plot([trace], axis, max(counts), [], histogram.score, is_upright=is_short)


def _small_plot(
    traces: Sequence[Any],
    axis: dict[str, Any],
    largest: int,
    shapes: Sequence[Any],
    name: str,
    is_upright: bool = True,
) -> Html:
    """A small figure of documents, on a logarithmic axis, over the scores or labels of the other axis."""
    top = float(np.log10(max(largest, 1))) + 0.15
    n_docs = {
        "type": "log",
        "range": [-0.3, top],
        "title": {"text": "documents"},
        "dtick": 1,
        "tickformat": ",d",
    }
    axes = {"xaxis": axis, "yaxis": n_docs} if is_upright else {"xaxis": n_docs, "yaxis": axis}
    layout = {"barmode": "overlay", "showlegend": False, "shapes": list(shapes)}
    bargap = 0 if is_upright else 0.2
    return plot(traces, "", 210, bargap=bargap, name=f"Histogram of {name}", **axes, **layout)

"""The report's section on the domains that `cluster` found: a map, how good they are, who is in them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pyarrow as pa
from numpy.typing import NDArray

from ..kernels.hashing import hash_ranges
from ..kernels.neighbour_map import neighbour_map
from ..operators.cluster import Cluster
from ..operators.text_column import text_buffers
from .curation import STATE
from .report_html import Html, code, count, counted, decimal, element, excerpt, folded, join, paragraph, share
from .report_html import table as html_table
from .report_plots import BLUE, CYCLE, label, plot
from .report_rows import RunRows, StageFiles, fetch, read_columns
from .shard_work import read_arrow

N_MAPPED = 1200
N_SHOWN = 40
"""Domains with a line of their own."""
N_SOURCES = 3
COLORS = (BLUE, *CYCLE)
SYMBOLS = ("circle", "diamond", "square", "cross", "triangle-up")


@dataclass
class Found:
    """The rows of a clustering, read part by part.

    Attributes:
        n_docs: documents by cluster; sources: by (cluster, source).
        extremes: of each cluster the (similarity, path, row) of its most and its least typical document.
        mapped: rows drawn by the hash of their ids, (hash, cluster, id, vector).
    """

    n_docs: Counter[int]
    sources: dict[int, Counter[str]]
    extremes: dict[int, list[Any]]
    mapped: list[Any]


def cluster_section(rows: RunRows) -> Html | None:
    """What `cluster` found, or None where the recipe has no such operator."""
    for files in rows.stages:
        operator = files.operator(Cluster.name)
        if isinstance(operator, Cluster):
            state = read_arrow(rows.stages[files.stage.index - 1].folder / "fit" / STATE).to_pylist()[0]
            found = read_clusters(files)
            if not found.n_docs:
                return paragraph("No document has words to cluster it by.")
            return join([_lead(state), _map(state, found), _table(state, found), *_examples(state, found)])
    return None


def read_clusters(files: StageFiles) -> Found:
    """One pass over what the stage kept, without text."""
    found = Found(Counter(), {}, {}, [])
    names = ("id", "source", "cluster.id", "cluster.similarity", "cluster.vector")
    for path in files.kept:
        table = read_columns(path, names)
        at = np.flatnonzero(np.asarray(table["cluster.id"].combine_chunks().is_valid()))
        if not len(at):
            continue
        table = table.take(pa.array(at))
        cluster, similarity = table["cluster.id"].to_numpy(), table["cluster.similarity"].to_numpy()
        sources = table["source"].cast(pa.string()).to_pylist()
        for number, source in zip(cluster.tolist(), sources, strict=True):
            found.sources.setdefault(number, Counter())[str(source)] += 1
        found.n_docs.update(cluster.tolist())
        for number in np.unique(cluster).tolist():
            inside = np.flatnonzero(cluster == number)
            for row in (inside[similarity[inside].argmax()], inside[similarity[inside].argmin()]):
                place = (float(similarity[row]), path, int(at[row]))
                found.extremes.setdefault(number, []).append(place)
        keys = hash_ranges(*text_buffers(table["id"]))
        for row in np.argsort(keys)[:N_MAPPED].tolist():
            vector = table["cluster.vector"][row].values.to_numpy()
            found.mapped.append((int(keys[row]), int(cluster[row]), table["id"][row].as_py(), vector))
        found.mapped = sorted(found.mapped, key=lambda entry: (entry[0], entry[2]))[:N_MAPPED]
    return found


def _lead(state: Mapping[str, Any]) -> Html:
    sizes = np.array(state["n_sampled"])
    silhouette = float(sizes @ state["silhouette"] / sizes.sum())
    return paragraph(
        code("cluster"),
        f" grouped the documents into {counted(len(sizes), 'domain')}, learned from a sample of "
        f"{counted(int(sizes.sum()), 'document')}. The mean silhouette is {decimal(silhouette)} (1: amid its "
        "domain, 0: between two, below 0: nearer to another). Clusterings of halves of the sample agree with "
        f"this one with an adjusted Rand index of {decimal(state['rand_index'])} (1: the same domains, 0: "
        "chance). A domain of stability 0.75 and more is found again in nearly any sample; one below 0.5 is "
        "an arbitrary cut.",
    )


def _map(state: Mapping[str, Any], found: Found) -> Html:
    position = neighbour_map(np.stack([vector for *_, vector in found.mapped]))
    cluster = np.array([number for _, number, *_ in found.mapped])
    ids = np.array([label(str(name)) for _, _, name, _ in found.mapped])
    traces, centres = [], []
    for number in np.unique(cluster).tolist():
        inside, name = cluster == number, label(state["names"][number])
        centres.append((*_densest(position[inside]), name))
        traces.append(
            go.Scatter(
                x=position[inside, 0].round(3),
                y=position[inside, 1].round(3),
                mode="markers",
                marker={
                    "size": 5,
                    "opacity": 0.7,
                    "color": COLORS[number % len(COLORS)],
                    "symbol": SYMBOLS[number // len(COLORS) % len(SYMBOLS)],
                },
                text=ids[inside],
                hovertemplate=f"{name}: %{{text}}<extra></extra>",
                showlegend=False,
            )
        )
    labels = [
        {
            "x": x,
            "y": y,
            "text": name,
            "showarrow": False,
            "bgcolor": "rgba(255,255,255,0.75)",
            "font": {"size": 11},
        }
        for x, y, name in centres
    ]
    axis = {"visible": False, "showgrid": False}
    caption = (
        f"{counted(len(cluster), 'document')} drawn by a hash of their ids, placed by t-SNE of their "
        "vectors. Neighbours are alike, but large distances and sizes mean nothing."
    )
    return plot(traces, caption, 560, "map of the domains", xaxis=axis, yaxis=axis, annotations=labels)


def _densest(points: NDArray[np.float64]) -> tuple[float, float]:
    """The point with the least distance to the half of the points nearest to it: where a label belongs."""
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    x, y = points[np.sort(distances, axis=1)[:, : len(points) // 2 + 1].sum(axis=1).argmin()]
    return float(x), float(y)


def _table(state: Mapping[str, Any], found: Found) -> Html:
    header = ("domain", "documents", "share", "silhouette", "stability", "from")
    total = found.n_docs.total()
    lines: list[Sequence[str | int | None]] = []
    for number, n_docs in found.n_docs.most_common(N_SHOWN):
        sources = found.sources[number]
        told = [f"{name} {share(n, n_docs)}" for name, n in sources.most_common(N_SOURCES)]
        n_more = len(sources) - len(told)
        told += [f"and {counted(n_more, 'other')}"] if n_more else []
        measures = (decimal(state["silhouette"][number]), decimal(state["stability"][number]))
        lines.append((state["names"][number], n_docs, share(n_docs, total), *measures, ", ".join(told)))
    n_hidden = len(found.n_docs) - len(lines)
    more = [paragraph(f"{count(n_hidden)} smaller domains are not listed.")] if n_hidden > 0 else []
    return join([html_table("lrrrrl", header, lines), *more])


def _examples(state: Mapping[str, Any], found: Found) -> list[Html]:
    """Of each domain listed, the document nearest to its centre and the one farthest from it."""
    chosen = {
        number: (max(places, key=lambda p: p[0]), min(places, key=lambda p: p[0]))
        for number, places in found.extremes.items()
        if number in dict(found.n_docs.most_common(N_SHOWN))
    }
    texts = fetch([place[1:] for pair in chosen.values() for place in pair], ("id", "text"))
    shown = [Html("<h3>The most and the least typical document of each</h3>")]
    for number, _ in found.n_docs.most_common(N_SHOWN):
        inside = []
        for title, (similarity, *place) in zip(("nearest", "farthest"), chosen[number], strict=True):
            row = texts[place[0], place[1]]
            note = f"id {row['id']} \u00b7 {title} to the centre, cosine {decimal(similarity)}"
            inside += [element("p", note, class_="note"), excerpt(row["text"])]
        shown.append(folded(state["names"][number], element("div", *inside, class_="example")))
    return shown

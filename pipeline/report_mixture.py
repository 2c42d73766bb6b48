"""The report's sections on domains, their weights, and what the proxies say about them."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go
from numpy.typing import NDArray
from scipy.stats import rankdata

from ..mixing.design import caps
from .mixture import Choice, read_landscape, target_tokens
from .outcome import Outcome
from .report_html import Html, count, counted, decimal, element, join, paragraph, share, table
from .report_mixture_plots import LOSS, agreement
from .report_plots import BLUE, MIXTURES, ORANGE, bars, bars_height, horizontal, label, plot

Floats = NDArray[np.float64]
MAX_METRICS = 24  # figures of single metrics
NORMAL_90, NORMAL_95 = 1.645, 1.960  # half widths of central intervals, in standard deviations
AMOUNTS = {
    "n_docs": "documents to train on",
    "n_tokens": "tokens to train on",
    "n_validation_tokens": "validation tokens",
}
STORED = ("n_distinct_docs", "n_validation_docs")
DISTINCT = {"n_distinct_docs": "different documents", "n_distinct_tokens": "different tokens"}


def domain_section(outcome: Outcome) -> Html | None:
    """Tokens of each domain and, if a mixture was chosen, its weights beside the natural and uniform ones."""
    if not outcome.tokens:
        return None
    if outcome.choice is None:
        lead = paragraph("What the domains hold after curation.")
        return join([lead, _shares_plot(outcome), _tokens_table(outcome)])
    choice, budget = outcome.choice, target_tokens(outcome.loaded.recipe)
    lead = paragraph(
        "A mixture says which share of the training tokens comes from each domain. The natural mixture takes "
        "tokens as they occur, the uniform one the same from each domain. A cap is the largest weight that "
        f"repeats a domain no more than {_max_epochs(outcome):g} times (epochs) in the training budget of "
        f"{count(budget)} tokens; every mixture obeys the caps."
    )
    weights = [Html("<h3>Weights</h3>"), _shares_plot(outcome), _weights_table(outcome, budget)]
    tokens = [Html("<h3>Tokens</h3>"), _tokens_table(outcome)]
    return join([lead, _verdict(choice), *weights, *_gains(choice), *tokens])


def _max_epochs(outcome: Outcome) -> float:
    assert outcome.loaded.recipe.mix is not None
    return outcome.loaded.recipe.mix.max_epochs


def _verdict(choice: Choice) -> Html:
    found = choice.recommendation
    third = "chosen" if found.verdict == "supported" else "natural"
    title = f"Recommended: the {third} mixture."
    class_ = "verdict" if found.verdict == "supported" else "verdict doubt"
    return element("div", element("b", title), found.sentence, class_=class_)


def contenders(choice: Choice) -> dict[str, dict[str, float]]:
    """The mixtures by the names that the report calls them, equal ones once."""
    shown: dict[str, dict[str, float]] = {}
    for name, weights in choice.contenders.items():
        if dict(weights) not in shown.values():
            shown[name] = dict(weights)
    return shown


def _shares_plot(outcome: Outcome) -> Html:
    domains = list(outcome.tokens)
    n_tokens = np.array([outcome.tokens[domain]["n_tokens"] for domain in domains])
    mixtures = {"natural": dict(zip(domains, (n_tokens / n_tokens.sum()).tolist(), strict=True))}
    if outcome.choice is not None:
        mixtures = contenders(outcome.choice)
    traces = [
        bars(domains, [100 * weights[d] for d in domains], name, MIXTURES[name], f"{name} %{{x:.1f}} %")
        for name, weights in mixtures.items()
    ]
    height = bars_height(len(domains)) if len(mixtures) == 1 else 90 + 46 * len(domains)
    if outcome.choice is None:
        layout = horizontal(len(domains), "share of the tokens (%)", height=height)
        return plot(traces, "Tokens of each domain.", **layout)
    largest = max(weight for weights in mixtures.values() for weight in weights.values())
    caption = "Tokens of each domain, by mixture."
    if marks := _cap_marks(outcome, domains, n_tokens, largest):
        traces.append(marks)
        caption += " A line is a domain's cap; a cap far to the right of all bars is left out."
    layout = horizontal(len(domains), "share of the training tokens (%)", barmode="group", height=height)
    return plot(traces, caption, **layout)


def _cap_marks(outcome: Outcome, domains: list[str], n_tokens: Floats, largest: float) -> go.Scatter | None:
    """Lines at the caps that are near enough to the largest weight to leave the bars their length."""
    upper = caps(n_tokens, target_tokens(outcome.loaded.recipe), _max_epochs(outcome)).tolist()
    near = [(domain, cap) for domain, cap in zip(domains, upper, strict=True) if cap <= 1.3 * largest]
    if not near:
        return None
    return go.Scatter(
        x=[100 * cap for _, cap in near],
        y=[label(domain) for domain, _ in near],
        name="cap",
        mode="markers",
        marker={"symbol": "line-ns-open", "size": 34, "color": "#1F2933", "line": {"width": 2}},
        hovertemplate="%{y}: cap %{x:.1f} %<extra></extra>",
        cliponaxis=False,
    )


def _tokens_table(outcome: Outcome) -> Html:
    total = sum(counts["n_tokens"] for counts in outcome.tokens.values())
    is_repeated = any(_max_repeat(counts) > 1 for counts in outcome.tokens.values())
    amounts = (*AMOUNTS, *DISTINCT) if is_repeated else AMOUNTS
    lines: list[list[str | int]] = [
        [domain, *(counts[name] for name in amounts), share(counts["n_tokens"], total)]
        for domain, counts in outcome.tokens.items()
    ]
    sums = [sum(counts[name] for counts in outcome.tokens.values()) for name in amounts]
    lines.append(["all", *sums, "100 %"])
    names = AMOUNTS | DISTINCT
    header = ("domain", *(names[name] for name in amounts), "share of tokens")
    parts = [table("l" + "r" * (len(header) - 1), header, lines, n_totals=1)]
    if is_repeated:
        most = max(_max_repeat(counts) for counts in outcome.tokens.values())
        told = (
            "Documents are repeated by their weight: an epoch of a domain reads the tokens to train on, in "
            f"which a document comes up to {most} times. E epochs read it up to {most} E times."
        )
        parts.append(element("p", told, class_="note"))
    if n_left := _n_left_out(outcome):
        told = f"{counted(n_left, 'document')} whose weight came to 0 will not be trained on."
        parts.append(element("p", told, class_="note"))
    return join(parts)


def _n_left_out(outcome: Outcome) -> int:
    """Documents that curation kept and no token shard has."""
    n_docs = [counts.get(name) for counts in outcome.tokens.values() for name in STORED]
    kept = outcome.manifests[-1]["accounting"]["rows_kept"]
    return 0 if None in n_docs else kept - sum(filter(None, n_docs))


def _max_repeat(counts: Mapping[str, int]) -> int:
    return counts.get("max_repeat", 1)


def _weights_table(outcome: Outcome, budget: int) -> Html:
    assert outcome.choice is not None
    domains, mixtures = outcome.choice.domains, contenders(outcome.choice)
    n_tokens = [outcome.tokens[domain]["n_tokens"] for domain in domains]
    upper = caps(n_tokens, budget, _max_epochs(outcome))
    lines = []
    for domain, available, cap in zip(domains, n_tokens, upper.tolist(), strict=True):
        weights = [share(weights[domain]) for weights in mixtures.values()]
        epochs = [f"{weights[domain] * budget / available:.2f}" for weights in mixtures.values()]
        lines.append([domain, *weights, share(cap), *epochs])
    named = [f"{name} {what}" for what in ("weight", "epochs") for name in mixtures]
    header = ("domain", *named[: len(mixtures)], "cap", *named[len(mixtures) :])
    return table("l" + "r" * (len(header) - 1), header, lines)


def _gains(choice: Choice) -> list[Html]:
    found, objective = choice.recommendation, choice.objective
    natural = found.predicted["natural"].mean
    lines = [
        [name, f"{estimate.mean:.3f}", f"{estimate.std:.3f}", decimal(estimate.mean - natural, "+")]
        for name, estimate in found.predicted.items()
        if name != "recommended"
    ]
    aim = {
        "mean": "the mean of",
        "weighted": "a weighted mean of",
        "worst": "the worst rise above natural of",
    }
    lead = (
        f"The objective to lower is {aim[objective.kind]} the domains' validation losses. The candidate is "
        "the best guess, whatever the evidence; it is recommended only where it has been shown to be better."
    )
    low, high = found.gain_interval
    told = (
        f"Expected gain of the candidate over the natural mixture: {decimal(found.gain)} {LOSS}, with "
        f"90\u00a0% probability between {decimal(low)} and {decimal(high)}. No more is credited than the "
        "best proxy has shown."
    )
    header = ("mixture", f"predicted objective ({LOSS})", "standard deviation", "against natural")
    title = Html("<h3>What the mixture should gain</h3>")
    return [title, paragraph(lead), table("lrrr", header, lines), paragraph(told)]


def proxy_section(outcome: Outcome) -> Html | None:
    """How well the proxies' losses are predicted, each from the others."""
    choice = outcome.choice
    if choice is None:
        return None
    evidence, runs = choice.recommendation.evidence, choice.runs
    lead = paragraph(
        f"{count(runs.n_runs)} small models (proxies) were trained, each on a mixture of its own. The losses "
        "of each are predicted from all the others: only what predicts the unseen can be believed. On the "
        "diagonal, prediction and observation agree; horizontal lines are central 90\u00a0% intervals."
    )
    observed = choice.objective(runs.metrics, runs.metric_names)
    ngram = choice.objective(choice.ngram, runs.metric_names)
    told = (
        f"Predicted and observed objectives have the rank correlation {evidence.rank_correlation:.2f} "
        f"(p = {evidence.p_value:.2g} against chance, {count(evidence.n_runs)} runs). The n-gram proxy, "
        f"which costs nothing to train, ranks the same mixtures at {spearman(ngram, observed):.2f}."
    )
    whole = [
        _objective_agreement(outcome, choice, observed),
        agreement("objective, n-gram proxy", ngram, observed, None, ORANGE, False),
    ]
    parts = [lead, paragraph(told), element("div", *whole, class_="multiples"), *_metrics(choice)]
    parts += [element("p", note, class_="note") for note in choice.notes]
    return join(parts)


def _objective_agreement(outcome: Outcome, choice: Choice, observed: Floats) -> Html:
    """The objective's left-out predictions, with the intervals that the run stored of them."""
    predicted = choice.objective(choice.predicted, choice.runs.metric_names)
    landscape, widths = read_landscape(outcome.run_dir), None
    if landscape is not None:
        low, high = np.array(landscape.left_out.low), np.array(landscape.left_out.high)
        widths = np.maximum(predicted - low, 0), np.maximum(high - predicted, 0)
    name = "objective, predicted from the other proxies"
    return agreement(name, predicted, observed, widths, BLUE, True)


def _metrics(choice: Choice) -> list[Html]:
    """A figure of each metric, and of many those that are ranked the worst; a table of all."""
    observed, names = choice.runs.metrics, choice.runs.metric_names
    ranks = [spearman(choice.predicted[:, j], observed[:, j]) for j in range(len(names))]
    shown = sorted(sorted(range(len(names)), key=lambda j: ranks[j])[:MAX_METRICS])
    each = []
    for j in shown:
        width = NORMAL_90 * choice.predicted_std[:, j]
        each.append(agreement(names[j], choice.predicted[:, j], observed[:, j], (width, width), BLUE, True))
    parts = [Html("<h3>Each domain</h3>"), element("div", *each, class_="multiples")]
    if len(shown) < len(names):
        told = f"Drawn are the {len(shown)} of {len(names)} domains whose losses are ranked the worst."
        parts.append(element("p", told, class_="note"))
    return [*parts, _fit_table(choice)]


def spearman(a: Floats, b: Floats) -> float:
    """Rank correlation; 0 where one of the two is constant.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0]))
    1.0
    """
    ranks = [rankdata(values) - (len(values) + 1) / 2 for values in (a, b)]
    norm = float(np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1])))
    return round(float(ranks[0] @ ranks[1]) / norm, 12) if norm else 0.0


def _fit_table(choice: Choice) -> Html:
    observed, names = choice.runs.metrics, choice.runs.metric_names
    lines = []
    for j, name in enumerate(names):
        error = float(np.sqrt(np.mean((choice.predicted[:, j] - observed[:, j]) ** 2)))
        ranks = [f"{spearman(found[:, j], observed[:, j]):.2f}" for found in (choice.predicted, choice.ngram)]
        spread = f"{observed[:, j].min():.3f} to {observed[:, j].max():.3f}"
        std = choice.predicted_std[:, j]
        inside = [
            share(float(np.mean(np.abs(choice.predicted[:, j] - observed[:, j]) <= width * std)))
            for width in (1.0, NORMAL_95)
        ]
        lines.append([name, spread, f"{error:.3f}", f"{std.mean():.3f}", *inside, *ranks])
    header = (
        "domain",
        f"observed losses ({LOSS})",
        "error of prediction (root mean square)",
        "standard deviation it claims",
        "observed in its 68\u00a0%",
        "in its 95\u00a0%",
        "rank correlation",
        "rank correlation of n-gram",
    )
    return table("lrrrrrrr", header, lines)

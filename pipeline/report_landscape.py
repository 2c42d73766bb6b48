"""The report's section on the mixer's beliefs around its recommendation: slices, interactions, a front."""

import numpy as np

from ..mixing.landscape import Front, Landscape
from .mixture import Choice, read_landscape
from .outcome import Outcome
from .report_html import Html, count, counted, element, folded, join, paragraph, share, table
from .report_mixture_plots import LOSS, front_plot, interaction_plot, slice_limits, slice_plot

N_NAMED = 4  # domains of a mixture in the front's table


def landscape_section(outcome: Outcome) -> Html | None:
    """What the mixer believes of mixtures around the recommended one."""
    choice = outcome.choice
    if choice is None:
        return None
    landscape = read_landscape(outcome.run_dir)
    if landscape is None:
        told = "This run directory holds no mix/landscape.json. Run the recipe there again to write it."
        return element("p", told, class_="note")
    lead = paragraph(
        "What follows is asked of the mixer, not observed: how the objective would change if the recommended "
        "mixture were changed. All of it comes from the same "
        f"{count(landscape.n_draws)} surfaces drawn from what the mixer holds possible (seed "
        f"{landscape.seed}), so that what is unknown of two mixtures alike cancels between them."
    )
    parts = [lead, *_doubts(choice, landscape), *_slices(choice, landscape)]
    parts += [*_interactions(landscape), *_front(landscape)]
    return join([*parts, *(element("p", note, class_="note") for note in landscape.notes)])


def _doubts(choice: Choice, landscape: Landscape) -> list[Html]:
    """Why little may rest on the section, if so."""
    n_runs, n_domains = choice.runs.n_runs, len(landscape.domains)
    doubts = []
    if choice.recommendation.verdict == "no evidence":
        doubts.append("The proxies are ranked no better than by chance, so the curves are the mixer's guess.")
    if n_runs <= n_domains:
        doubts.append(
            f"{counted(n_runs, 'run')} cannot tell {n_domains} domains apart: much of what is shown is what "
            "the mixer assumes. Train more proxies than there are domains."
        )
    return [element("div", " ".join(doubts), class_="verdict doubt")] if doubts else []


def _slices(choice: Choice, landscape: Landscape) -> list[Html]:
    if len(landscape.domains) < 2:
        return [paragraph("One domain leaves no mixture to change.")]
    title = Html("<h3>One domain at a time</h3>")
    lead = (
        f"The change of the objective ({LOSS}; below zero is better) as a domain's share goes from the least "
        "to the most that the caps allow, the others in the recommended proportions. The band is the "
        "central 90\u00a0% interval, the dot the recommended mixture, the dotted line the natural share; "
        f"the curve is dashed where no proxy has been, and may leave the figure there.{_of_many(landscape)}"
    )
    weights, limits = choice.runs.weights, slice_limits(landscape, choice.runs.weights)
    shown = []
    for found in landscape.slices:
        k = landscape.domains.index(found.domain)
        tried = float(weights[:, k].min()), float(weights[:, k].max())
        natural = choice.mixtures["natural"][found.domain]
        shown.append(slice_plot(found, landscape.centre[k], natural, tried, limits))
    return [title, paragraph(lead), element("div", *shown, class_="multiples")]


def _of_many(landscape: Landscape) -> str:
    n_shown, n_domains = len(landscape.slices), len(landscape.domains)
    if n_shown == n_domains:
        return ""
    return f" Shown are the {n_shown} of {n_domains} domains that have the largest weights."


def _interactions(landscape: Landscape) -> list[Html]:
    title, found = Html("<h3>Two domains at a time</h3>"), landscape.interactions
    if found is None:
        if len(landscape.domains) != 2:
            return []
        told = "Mixtures of two domains have one freedom: how they interact is the bend of the curves above."
        return [title, paragraph(told)]
    lead = (
        f"Give {share(found.step)} of all tokens to one domain, taken from all in proportion; then as much "
        "to another. Where both together lower the objective more than the sum of each alone (blue), the "
        "domains complement each other; where less (orange), one stands in for the other. On the diagonal, "
        "orange says that a domain's returns diminish. Caps are not looked at here."
    )
    return [title, paragraph(lead + _of_many(landscape)), interaction_plot(found)]


def _front(landscape: Landscape) -> list[Html]:
    front = landscape.front
    if front is None:
        return []
    a, b = front.metrics
    if front.correlation < 0:
        told = (
            f"Of all pairs of losses, those of {a} and {b} pull apart the most (their predictions "
            f"correlate at {_minus(front.correlation)} over mixtures inside caps and trust region). "
        )
    else:
        told = (
            "No two losses pull apart over the mixtures inside caps and trust region; those shown, "
            f"{a} and {b}, go together the least (correlation {front.correlation:.2f}). "
        )
    told += (
        "No mixture that was tried is expected to lower both below a point of the front; its colour is the "
        "probability that none does. The natural mixture is unbeaten with probability "
        f"{front.natural_probability:.2f}."
    )
    parts = [Html("<h3>Where two losses trade off</h3>"), paragraph(told), front_plot(front)]
    n_mixtures = counted(len(front.mean), "mixture")
    return [
        *parts,
        folded(f"The front's {n_mixtures}", _front_table(front, landscape)),
    ]


def _front_table(front: Front, landscape: Landscape) -> Html:
    lines = []
    for mean, std, probability, weights in zip(
        front.mean, front.std, front.probability, front.weights, strict=True
    ):
        losses = [f"{m:.3f} \u00b1 {s:.3f}" for m, s in zip(mean, std, strict=True)]
        lines.append([*losses, f"{probability:.2f}", _largest(weights, landscape.domains)])
    header = (*(f"loss of {name}" for name in front.metrics), "probability", "largest weights")
    return table("rrrl", header, lines)


def _largest(weights: tuple[float, ...], domains: tuple[str, ...]) -> str:
    order = np.argsort(-np.array(weights), kind="stable")[:N_NAMED]
    return ", ".join(f"{domains[k]} {share(weights[k])}" for k in order if weights[k] > 0)


def _minus(value: float) -> str:
    return f"{value:.2f}".replace("-", "\u2212")

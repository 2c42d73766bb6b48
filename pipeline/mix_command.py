"""What ``cuvee mix`` does: design, fit, predict and recommend on bare CSV files."""

import argparse

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from rich.table import Table
from scipy.stats import spearmanr

from ..mixing import Mixer, Objective, RunTable, load_mixer, recommend
from ..mixing.design import caps, sample_design
from ..mixing.mixer import fidelity_of
from ..mixing.pareto import pareto_set
from .errors import UsageError
from .manual import console
from .mix_files import (
    UNLIMITED,
    located,
    order_of,
    parse_objective,
    print_notes,
    read_domains,
    read_mixtures,
    write_csv,
    write_mixture,
)

Floats = NDArray[np.float64]

NEEDS = {  # mixers that learn from more than runs
    "mixmin": "each single-domain model's probabilities of held-out tokens",
    "projektor": "vectors of documents",
}


def design(arguments: argparse.Namespace) -> None:
    """Write mixtures to train proxies on."""
    names, tokens, max_epochs = read_domains(arguments.domains)
    with located(arguments.domains):
        upper = caps(tokens, arguments.budget, max_epochs) if arguments.budget else None
        mixtures = sample_design(tokens / tokens.sum(), arguments.n, arguments.seed, upper)
    table = {"index": np.arange(len(mixtures)), **dict(zip(names, mixtures.T, strict=True))}
    write_csv(pa.table(table), arguments.out)
    print(
        f"{len(mixtures)} mixtures of {len(names)} domains in {arguments.out}; the first is the natural one"
    )


def fit(arguments: argparse.Namespace) -> None:
    """Show how well a mixer predicts each run from the others."""
    mixer = _fitted(arguments)
    left_out, observed = mixer.leave_one_out(), mixer.runs.metrics
    table = Table("metric", "rank correlation", "error", "in 68 %", "in 95 %", box=None, header_style="dim")
    for j, name in enumerate(mixer.runs.metric_names):
        error = observed[:, j] - left_out.mean[:, j]
        constant = np.ptp(observed[:, j]) == 0 or np.ptp(left_out.mean[:, j]) == 0
        rho = 0.0 if constant else float(spearmanr(left_out.mean[:, j], observed[:, j]).statistic)
        inside = [np.mean(np.abs(error) <= width * left_out.std[:, j]) for width in (1.0, 1.96)]
        rms = float(np.sqrt(np.mean(error**2)))
        table.add_row(name, f"{rho:.4f}", f"{rms:.4g}", *(f"{share:.2f}" for share in inside))
    out = console()
    out.print(f"{arguments.mixer} on {mixer.runs.n_runs} runs, each predicted from the others:")
    out.print(table)


def predict(arguments: argparse.Namespace) -> None:
    """Write the losses of new mixtures."""
    mixer = _fitted(arguments)
    weights = read_mixtures(arguments.mixtures, mixer.runs.domain_names)
    predicted = mixer.predict(weights, None if arguments.at_scale else fidelity_of(mixer.runs))
    columns = {}
    for j, name in enumerate(mixer.runs.metric_names):
        columns[name], columns[f"{name}.std"] = predicted.mean[:, j], predicted.std[:, j]
    write_csv(pa.table(columns), arguments.out)
    print(f"{len(weights)} mixtures predicted in {arguments.out}")


def recommend_mixture(arguments: argparse.Namespace) -> None:
    """Show the mixture that most surely beats the natural one, and write it."""
    mixer = _fitted(arguments)
    natural, upper, epochs = _bounds(arguments, mixer)
    radius = arguments.trust_region or UNLIMITED
    try:
        objective = _objective(arguments.objective, mixer.runs)
        found = recommend(mixer, natural, objective, upper, radius, arguments.seed)
    except ValueError as error:
        raise UsageError(f"mix recommend: {error}") from error
    out = console()
    out.print(found.sentence, style="bold", highlight=False)
    table = Table("domain", "natural", "recommended", "candidate", box=None, header_style="dim")
    for i, name in enumerate(mixer.runs.domain_names):
        table.add_row(name, *(f"{w:.4f}" for w in (natural[i], found.weights[name], found.candidate[name])))
    out.print(table)
    if arguments.domains is None:
        out.print("natural is the runs' mean mixture; give the real one with --domains", style="dim")
    if arguments.out is not None:
        write_mixture(arguments.out, {"max_epochs": epochs, **found.to_dict()})


def pareto(arguments: argparse.Namespace) -> None:
    """Show the mixtures between which the objectives trade off, and write them."""
    mixer = _fitted(arguments)
    natural, upper, _ = _bounds(arguments, mixer)
    try:
        objectives = {text: _objective(text, mixer.runs) for text in arguments.objectives}
        radius = arguments.trust_region or UNLIMITED
        front = pareto_set(mixer, objectives, natural, upper, radius, arguments.seed)
    except ValueError as error:
        raise UsageError(f"mix pareto: {error}") from error
    table = Table(*objectives, "on the front", *mixer.runs.domain_names, box=None, header_style="dim")
    for mean, std, probability, weights in zip(
        front.mean, front.std, front.probability, front.weights, strict=True
    ):
        values = (f"{m:.4f} ±{s:.4f}" for m, s in zip(mean, std, strict=True))
        table.add_row(*values, f"{probability:.2f}", *(f"{w:.3f}" for w in weights))
    out = console()
    out.print(
        f"{len(front.weights)} mixtures, none of which another beats in every objective; the natural one is "
        f"unbeaten with probability {front.natural_probability:.2f}:"
    )
    out.print(table)
    if arguments.out is not None:
        columns = {f"weight.{d}": w for d, w in zip(mixer.runs.domain_names, front.weights.T, strict=True)}
        for name, mean, std in zip(objectives, front.mean.T, front.std.T, strict=True):
            columns |= {name: mean, f"{name}.std": std}
        write_csv(pa.table({**columns, "probability": front.probability}), arguments.out)


def _bounds(
    arguments: argparse.Namespace, mixer: Mixer
) -> tuple[Floats, Floats | None, dict[str, float] | None]:
    """The natural mixture, the caps and the epochs they come from, as --domains and --budget say."""
    if arguments.domains is None:
        if arguments.budget:
            raise UsageError("mix: --budget needs the tokens of each domain; give them with --domains.")
        return mixer.runs.weights.mean(axis=0), None, None
    names, tokens, max_epochs = read_domains(arguments.domains)
    order = order_of(arguments.domains, names, mixer.runs.domain_names)
    others = [name for name in names if name not in mixer.runs.domain_names]
    if others:
        print_notes([f"{arguments.domains}: left out, for no run has it: {', '.join(others)}"])
    tokens, max_epochs = tokens[order], max_epochs[order]
    natural = tokens / tokens.sum()
    if not arguments.budget:
        return natural, None, None
    with located(arguments.domains):
        upper = caps(tokens, arguments.budget, max_epochs)
    return natural, upper, dict(zip(mixer.runs.domain_names, max_epochs.tolist(), strict=True))


def _fitted(arguments: argparse.Namespace) -> Mixer:
    """The mixer that was asked for, on the runs that were named."""
    if arguments.mixer in NEEDS:
        raise UsageError(
            f"mix: mixer '{arguments.mixer}' needs {NEEDS[arguments.mixer]}, which no table of runs has; use "
            f"it from Python as mixing.load_mixer('{arguments.mixer}', ...), or take another mixer here."
        )
    try:
        mixer = load_mixer(arguments.mixer)
    except ValueError as error:
        raise UsageError(f"mix: {error}") from error
    with located(arguments.runs):
        if arguments.metrics is not None:
            runs = RunTable.from_csv(arguments.runs, arguments.metrics, arguments.on)
        else:
            runs = RunTable.from_path(arguments.runs)
        print_notes(runs.notes)
        return mixer.fit(runs)


def _objective(text: str, runs: RunTable) -> Objective:
    """`worst` is relative to the runs' median; see `parse_objective` for the others.

    >>> weights, losses = [[0.5, 0.5], [0.9, 0.1]], [[3.0, 4.0], [3.5, 5.0]]
    >>> runs = RunTable(np.array(weights), ("web", "code"), np.array(losses), ("web", "code"))
    >>> _objective("worst", runs).by_metric
    {'web': 3.25, 'code': 4.5}
    """
    if text != "worst":
        return parse_objective(text, runs.metric_names)
    medians = np.median(runs.metrics, axis=0).tolist()
    return Objective("worst", dict(zip(runs.metric_names, medians, strict=True)))

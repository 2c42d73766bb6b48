"""The command line: ``cuvee run``, ``check``, ``whatif``, ``mix``, ``schema``, ``operators``, ``tokens``.

Exit codes: 0 done, 1 a fault of cuvee itself (with its traceback), 2 a mistake in the command or the recipe,
3 in the data, 4 a machine that refuses, 130 interrupted.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from importlib.resources import as_file, files
from pathlib import Path

from rich.table import Table

from ..operators.registry import UnknownOperatorError, find_operator, offered_operators, operators
from .errors import EnvironmentFailure, UsageError, UserError
from .installation import MB, Collected, collect
from .listing import list_files
from .manual import console, list_of_operators, manual_of
from .mix_arguments import add_mix
from .plan import group_stages
from .recipe import LoadedRecipe, RecipeError, load_recipe
from .schema import recipe_schema
from .tokens_command import add_tokens


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.command(arguments)
        sys.stdout.flush()
    except UserError as error:
        print(error, file=sys.stderr)
        if isinstance(error, RecipeError) and len(error.problems) > 1:
            print(f"\n{len(error.problems)} problems", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\ninterrupted; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `cuvee operators | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cuvee", description="Curate text, choose a mixture of domains, and feed it to a trainer."
    )
    parser.add_argument("--version", action="version", version=f"cuvee {version('cuvee')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run a recipe, or go on where an earlier run of it stopped")
    run.add_argument(
        "recipe", type=Path, nargs="?", help="default: the packaged recipe, on this Python's own files"
    )
    run.add_argument("--run-dir", type=Path, metavar="DIR", help="default: runs/NAME, the recipe's name")
    run.add_argument("--engine", choices=("local", "ray"), help="instead of the recipe's engine.kind")
    run.add_argument("--workers", type=_count, metavar="N", help="instead of the recipe's engine.n_workers")
    run.set_defaults(command=_run)

    check = commands.add_parser(
        "check", help="tell everything that is wrong with a recipe, or what it would do"
    )
    check.add_argument("recipe", type=Path)
    check.set_defaults(command=_check)

    whatif = commands.add_parser(
        "whatif", help="tell what other thresholds of a filter would have done, from a run's stored scores"
    )
    whatif.add_argument("run_dir", type=Path)
    whatif.add_argument("assignments", nargs="+", metavar="OPERATOR.THRESHOLD=VALUE")
    whatif.add_argument("--examples", type=_count, default=3, metavar="N", help="rows to show of each change")
    whatif.set_defaults(command=_whatif)
    add_mix(commands)

    schema = commands.add_parser("schema", help="print the JSON Schema of recipes, for editors")
    schema.set_defaults(command=_schema)

    add_tokens(commands)

    manual = commands.add_parser("operators", help="list the operators, or show the manual of one")
    manual.add_argument("name", nargs="?")
    manual.set_defaults(command=_operators)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    from .run import run  # torch and the engines take seconds to import

    _check_offered_operators()
    if arguments.recipe is not None:
        loaded = load_recipe(arguments.recipe)
        run_dir = arguments.run_dir or Path("runs", loaded.recipe.name)
    else:
        run_dir = arguments.run_dir or Path("runs", "demo")
        collected = _collect(run_dir / "corpus")
        loaded = load_packaged_recipe(collected)
    run(_with_engine(loaded, arguments.engine, arguments.workers), run_dir)


def _check(arguments: argparse.Namespace) -> None:
    _check_offered_operators()
    loaded = load_recipe(arguments.recipe)
    recipe, out = loaded.recipe, console()
    inputs = Table("source", "domain", "files", "MB", box=None, header_style="dim", padding=(0, 2, 0, 0))
    for i, source in enumerate(recipe.inputs):
        listed = list_files(source, loaded.where("inputs", i, "path"))
        domain = f"column {source.columns['domain']}" if "domain" in source.columns else source.default_domain
        n_bytes = sum(file.n_bytes for file in listed)
        inputs.add_row(source.source, domain, f"{len(listed):,}", f"{n_bytes / MB:,.1f}")
    stages = Table("stage", "operators", "ends with", box=None, header_style="dim", padding=(0, 2, 0, 0))
    last = "fit tokenizer" if recipe.tokenize else ""
    for stage in group_stages(recipe.curate, None, ""):
        names = ", ".join(operator.name for operator in stage.operators) or "read"
        stages.add_row(f"{stage.index:02d}", names, f"fit {stage.fit.name}" if stage.fit else last)
    out.print(f"{arguments.recipe}: recipe '{recipe.name}' is fine\n", style="bold")
    out.print(inputs, "", stages, "")
    if mix := recipe.mix:
        proxies = f"{mix.n_proxies} proxy models of {mix.proxy.n_tokens:,} tokens"
        how = "choose the mixture" if mix.search is None else "are the budget of the search for a mixture"
        out.print(f"then {proxies} {how}")
    if train := recipe.train:
        out.print(f"and models of {train.n_tokens:,} tokens compare it with the natural and the uniform one")


def _whatif(arguments: argparse.Namespace) -> None:
    from .whatif import what_if
    from .whatif_text import print_what_if

    _check_offered_operators()
    print_what_if(what_if(arguments.run_dir, arguments.assignments, arguments.examples), console())


def _schema(arguments: argparse.Namespace) -> None:
    _check_offered_operators()
    print(json.dumps(recipe_schema(), indent=2))


def _operators(arguments: argparse.Namespace) -> None:
    _check_offered_operators()
    known = operators()
    if arguments.name is None:
        console().print(list_of_operators(known))
        return
    try:
        console().print(manual_of(find_operator(arguments.name)))
    except UnknownOperatorError as error:
        raise UsageError(str(error)) from None


def load_packaged_recipe(collected: Collected) -> LoadedRecipe:
    """The recipe that comes with the package, over the domains that this installation holds.

    Args:
        collected: the files that the recipe's paths are relative to. An input without its file is left out.
    """
    with as_file(files("cuvee.pipeline") / "demo.yaml") as path:
        folder = next(iter(collected.files.values())).parent
        loaded = load_recipe(path, base=folder)
    inputs = tuple(source for source in loaded.recipe.inputs if source.source in collected.files)
    return replace(loaded, recipe=loaded.recipe.model_copy(update={"inputs": inputs}))


def _collect(folder: Path) -> Collected:
    try:
        collected = collect(folder)
    except OSError as error:
        raise EnvironmentFailure(
            f"{folder}: {(error.strerror or str(error)).lower()}; choose another --run-dir"
        ) from None
    megabytes = sum(collected.n_bytes.values()) / MB
    table = Table("domain", "documents", "MB", box=None, header_style="dim", padding=(0, 2, 0, 0))
    for domain, n_bytes in collected.n_bytes.items():
        table.add_row(domain, f"{collected.n_documents[domain]:,}", f"{n_bytes / MB:.1f}")
    verb = "collected" if collected.fresh else "found"
    out = console()
    out.print(f"{verb} {megabytes:.1f} MB of text that this Python installation holds, in {folder}")
    out.print(table)
    out.print(
        "left out: " + ", ".join(f"{n:,} {reason}" for reason, n in collected.left_out.items()), style="dim"
    )
    return collected


def _with_engine(loaded: LoadedRecipe, kind: str | None, n_workers: int | None) -> LoadedRecipe:
    update: dict[str, object] = {} if n_workers is None else {"n_workers": n_workers}
    if kind is not None:
        update |= {"kind": kind} | ({"address": None} if kind == "local" else {})
    engine = loaded.recipe.engine.model_copy(update=update)
    return replace(loaded, recipe=loaded.recipe.model_copy(update={"engine": engine}))


def _check_offered_operators() -> None:
    """Raises:
    EnvironmentFailure: an operator of another distribution cannot be loaded.
    """
    try:
        offered_operators()
    except (ValueError, ImportError, AttributeError) as error:
        raise EnvironmentFailure(f"an installed operator cannot be loaded: {error}") from error


def _count(text: str) -> int:
    n = int(text)
    if n < 1:
        raise argparse.ArgumentTypeError(f"found {n}; at least 1 is needed")
    return n

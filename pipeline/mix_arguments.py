"""The arguments of ``cuvee mix``, apart from what it does: scipy takes a second to import."""

import argparse
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

MIXER_NAMES = (
    "linear",
    "regmix",
    "mixing_law",
    "power_law",
    "bimix",
    "gaussian_process",
    "trend_residual",
    "ensemble",
    "quality_quantity",
)  # without those that need more than a table: `mix_command.NEEDS`
NEW_SEARCH: dict[str, Any] = {  # what a search begins with, besides --domains: names and defaults
    "rung": [],
    "runs": 32.0,
    "budget": None,
    "objective": "mean",
    "trust_region": 0.5,
    "n_initial": None,
    "n_replicates": 3,
    "acquisition": "noisy_ei",
    "mixtures": None,
    "seed": 0,
}
DOMAINS_HELP = "CSV with the columns domain and tokens, and optionally max_epochs"
RUNS_HELP = (
    "CSV of weights; or one CSV or Parquet table of weight.DOMAIN and loss.METRIC columns; or a run directory"
)


def add_mix(commands: Any) -> None:
    """Add ``mix`` and what is below it to the command line."""
    parser = commands.add_parser("mix", help="choose a mixture from any table of weights and losses")
    below = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (_add_design, _add_fit, _add_predict, _add_recommend, _add_search, _add_pareto, _add_zero):
        add(below)


def _add_design(below: Any) -> None:
    design = below.add_parser("design", help="mixtures to train proxies on")
    design.add_argument("domains", type=Path, help=DOMAINS_HELP)
    design.add_argument("-n", type=int, default=64, help="how many (default: 64)")
    design.add_argument("--budget", type=_amount, metavar="TOKENS", help="of the run to plan for: sets caps")
    design.add_argument("--seed", type=_whole, default=0)
    design.add_argument("--out", type=Path, required=True, metavar="CSV")
    design.set_defaults(command=_command("design"))


def _add_fit(below: Any) -> None:
    fit = below.add_parser("fit", help="how well a mixer predicts each run from the others")
    _add_runs(fit)
    fit.set_defaults(command=_command("fit"))


def _add_predict(below: Any) -> None:
    predict = below.add_parser("predict", help="losses of new mixtures, with standard deviations")
    _add_runs(predict)
    predict.add_argument("--mixtures", type=Path, required=True, metavar="CSV", help="one column a domain")
    predict.add_argument("--at-scale", action="store_true", help="to rank mixtures for a larger model")
    predict.add_argument("--out", type=Path, required=True, metavar="CSV")
    predict.set_defaults(command=_command("predict"))


def _add_recommend(below: Any) -> None:
    best = below.add_parser("recommend", help="the mixture that most surely beats the natural one")
    _add_runs(best)
    best.add_argument("--domains", type=Path, metavar="CSV", help=f"{DOMAINS_HELP}: the natural mixture")
    best.add_argument("--budget", type=_amount, metavar="TOKENS", help="of the run: caps from --domains")
    _add_goal(best)
    best.set_defaults(command=_command("recommend_mixture"))


def _add_search(below: Any) -> None:
    search = below.add_parser("search", help="which mixtures to run next, one round after another")
    search.add_argument("journal", type=Path, metavar="JOURNAL", help="of the search: JSON lines, made anew")
    search.add_argument(
        "--results",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="CSV, Parquet: trial, loss.*",
    )
    search.add_argument(
        "--tokens",
        type=Path,
        metavar="RUN",
        help="token shards of the domains: n-gram losses are the cheapest fidelity (give it at every call)",
    )
    search.add_argument(
        "--run",
        action="store_true",
        help="train the trials here, on the shards of --tokens, until the budget is spent",
    )
    search.add_argument("--workers", type=int, metavar="N", help="of --run (default: one a core)")
    search.add_argument("-n", type=_whole, default=4, help="trials to have running (default: 4)")
    search.add_argument("--out", type=Path, metavar="CSV", help="write the trials to run")
    search.add_argument("--recommend", type=Path, metavar="JSON", help="write the mixture, for the loader")
    search.set_defaults(command=_command("search", "mix_search"))
    _add_new_search(search)


def _add_new_search(search: argparse.ArgumentParser) -> None:
    new = search.add_argument_group("a new search", "later calls need none of these")
    new.add_argument("--domains", type=Path, metavar="CSV", help=f"{DOMAINS_HELP}: the natural mixture")
    new.add_argument(
        "--rung",
        action="append",
        metavar="PARAMETERS:TOKENS",
        help="a fidelity, cheapest first; with --run, of the nearest proxy",
    )
    new.add_argument("--runs", type=_amount, help="its budget, in runs at the last rung (32)")
    new.add_argument("--budget", type=_amount, metavar="TOKENS", help="of the run to plan for: sets caps")
    new.add_argument("--objective", metavar="mean|worst|METRIC=WEIGHT,...|EXPRESSION")
    new.add_argument("--trust-region", type=_amount, metavar="NATS", help="0: none (default: .5)")
    new.add_argument("--n-initial", type=int, help="mixtures before a model proposes (by domains, 8 to 24)")
    new.add_argument("--n-replicates", type=int, help="runs of the natural mixture (default: 3)")
    new.add_argument("--acquisition", help="noisy_ei, mean, thompson or botorch")
    new.add_argument("--mixtures", type=Path, metavar="CSV", help="the only ones that may run")
    new.add_argument("--seed", type=_whole)
    search.set_defaults(**NEW_SEARCH)


def _add_pareto(below: Any) -> None:
    pareto = below.add_parser("pareto", help="mixtures between which several objectives trade off")
    _add_runs(pareto)
    pareto.add_argument("--domains", type=Path, metavar="CSV", help=f"{DOMAINS_HELP}: the natural mixture")
    pareto.add_argument("--budget", type=_amount, metavar="TOKENS", help="of the run: caps from --domains")
    pareto.add_argument(
        "--objectives", nargs="+", required=True, metavar="OBJECTIVE", help="two or more, as of recommend"
    )
    pareto.add_argument(
        "--trust-region", type=_amount, default=0.5, metavar="NATS", help="0: none (default: .5)"
    )
    pareto.add_argument("--seed", type=_whole, default=0)
    pareto.add_argument("--out", type=Path, metavar="CSV", help="write the front")
    pareto.set_defaults(command=_command("pareto"))


def _add_zero(below: Any) -> None:
    zero = below.add_parser("zero", help="losses and the best mixture by n-gram counts: nothing is trained")
    zero.add_argument(
        "tokens", type=Path, help="a run directory, or a folder of one folder of shards a domain"
    )
    zero.add_argument("--n-tokens", type=_amount, metavar="N", help="of the run to imitate (default: budget)")
    zero.add_argument("--mixtures", type=Path, metavar="CSV", help="show their losses; one column a domain")
    zero.add_argument(
        "--budget", type=_amount, metavar="TOKENS", help="of the run: caps from the shards' tokens"
    )
    zero.add_argument(
        "--max-epochs", type=_amount, default=4.0, metavar="N", help="in the budget (default: 4)"
    )
    zero.add_argument(
        "--max-tokens",
        type=_whole,
        default=4_000_000,
        metavar="N",
        help="to count a domain (default: 4,000,000)",
    )
    _add_goal(zero)
    zero.set_defaults(command=_command("zero", "mix_zero"))


def _add_goal(parser: argparse.ArgumentParser) -> None:
    """What is to be found, and where it is written."""
    parser.add_argument(
        "--objective",
        default="mean",
        metavar="mean|worst|METRIC=WEIGHT,...|EXPRESSION",
        help="lower is better; an expression such as 'max(web, 0.5 * code + 1)'",
    )
    parser.add_argument(
        "--trust-region", type=_amount, default=0.5, metavar="NATS", help="0: none (default: .5)"
    )
    parser.add_argument("--seed", type=_whole, default=0)
    parser.add_argument("--out", type=Path, metavar="FILE", help="JSON or YAML: the mixture, for the loader")


def _add_runs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=Path, help=RUNS_HELP)
    parser.add_argument("metrics", type=Path, nargs="?", help="CSV of metrics, joined with the weights")
    parser.add_argument("--on", default="index", metavar="COLUMN", help="of the join (default: index)")
    parser.add_argument("--mixer", default="ensemble", help=f"{', '.join(MIXER_NAMES)} (default: ensemble)")


def _command(name: str, module: str = "mix_command") -> Callable[[argparse.Namespace], None]:
    """The function of that name in a module beside this one, imported when it is called."""

    def command(arguments: argparse.Namespace) -> None:
        getattr(import_module(f".{module}", __package__), name)(arguments)

    return command


def _amount(text: str) -> float:
    """A number such as 7e9 of tokens or .5 nats.

    >>> _amount("7e9")
    7000000000.0
    """
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"found {text}; a finite number of 0 or more is needed")
    return value


def _whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"found {text}; a whole number of 0 or more is needed")
    return value

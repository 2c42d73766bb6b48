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
)
DOMAINS_HELP = "CSV with the columns domain and tokens, and optionally max_epochs"
RUNS_HELP = "CSV of weights, or one CSV or Parquet table of weight.DOMAIN and loss.METRIC columns"


def add_mix(commands: Any) -> None:
    """Add ``mix`` and what is below it to the command line."""
    parser = commands.add_parser("mix", help="choose a mixture from any table of weights and losses")
    below = parser.add_subparsers(required=True, metavar="COMMAND")

    design = below.add_parser("design", help="mixtures to train proxies on")
    design.add_argument("domains", type=Path, help=DOMAINS_HELP)
    design.add_argument("-n", type=int, default=64, help="how many (default: 64)")
    design.add_argument("--budget", type=float, metavar="TOKENS", help="of the run to plan for: sets caps")
    design.add_argument("--seed", type=int, default=0)
    design.add_argument("--out", type=Path, required=True, metavar="CSV")
    design.set_defaults(command=_command("design"))

    fit = below.add_parser("fit", help="how well a mixer predicts each run from the others")
    _add_runs(fit)
    fit.set_defaults(command=_command("fit"))

    predict = below.add_parser("predict", help="losses of new mixtures, with standard deviations")
    _add_runs(predict)
    predict.add_argument("--mixtures", type=Path, required=True, metavar="CSV", help="one column a domain")
    predict.add_argument("--at-scale", action="store_true", help="to rank mixtures for a larger model")
    predict.add_argument("--out", type=Path, required=True, metavar="CSV")
    predict.set_defaults(command=_command("predict"))

    best = below.add_parser("recommend", help="the mixture that most surely beats the natural one")
    _add_runs(best)
    best.add_argument("--domains", type=Path, metavar="CSV", help=f"{DOMAINS_HELP}: the natural mixture")
    best.add_argument("--budget", type=float, metavar="TOKENS", help="of the run: caps from --domains")
    best.add_argument(
        "--objective", default="mean", metavar="mean|worst|METRIC=WEIGHT,...", help="lower is better"
    )
    best.add_argument("--trust-region", type=float, default=0.5, metavar="NATS", help="0: none (default: .5)")
    best.add_argument("--seed", type=int, default=0)
    best.add_argument("--out", type=Path, metavar="JSON", help="write the mixture, for the loader")
    best.set_defaults(command=_command("recommend_mixture"))

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
    search.add_argument("-n", type=int, default=4, help="trials to have running (default: 4)")
    search.add_argument("--out", type=Path, metavar="CSV", help="write the trials to run")
    search.add_argument("--recommend", type=Path, metavar="JSON", help="write the mixture, for the loader")
    new = search.add_argument_group("a new search", "later calls need none of these")
    new.add_argument("--domains", type=Path, metavar="CSV", help=f"{DOMAINS_HELP}: the natural mixture")
    new.add_argument(
        "--rung", action="append", default=[], metavar="PARAMETERS:TOKENS", help="a fidelity, cheapest first"
    )
    new.add_argument("--runs", type=float, default=32.0, help="its budget, in runs at the last rung (32)")
    new.add_argument("--budget", type=float, metavar="TOKENS", help="of the run to plan for: sets caps")
    new.add_argument("--objective", default="mean", metavar="mean|worst|METRIC=WEIGHT,...")
    new.add_argument("--trust-region", type=float, default=0.5, metavar="NATS", help="0: none (default: .5)")
    new.add_argument("--n-initial", type=int, help="mixtures before a model proposes (by domains, 8 to 24)")
    new.add_argument("--n-replicates", type=int, default=3, help="runs of the natural mixture (default: 3)")
    new.add_argument("--acquisition", default="noisy_ei", help="noisy_ei, thompson or botorch")
    new.add_argument("--seed", type=int, default=0)
    search.set_defaults(command=_command("search", "mix_search"))


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

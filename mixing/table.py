"""One table for all results: the mixtures that were tried, how, and the losses they gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray

from .run_files import check_key, matrix, read_table, whole_numbers

Floats = NDArray[np.float64]

SUM_TOLERANCE = 0.01  # published tables are rounded: RegMix's rows sum to .996-1.003
CAP_TOLERANCE = 1e-6
WEIGHT, LOSS = "weight.", "loss."
FIDELITY = ("n_parameters", "n_tokens", "seed")


@dataclass(frozen=True, eq=False)
class RunTable:
    """Finished runs: all that a mixer knows.

    Construction checks the table and renormalises rounded weights. What was changed or left out is listed in
    `notes`
    rather than warned about: the report and the CLI show it, and a warning would be lost in a remote worker.

    Attributes:
        weights: float64, (n_runs, K); every row sums to one.
        domain_names: K training domains.
        metrics: float64, (n_runs, J), lower is better; losses in nats per token.
        metric_names: J names; a validation domain's name where the metric is its loss.
        n_parameters, n_tokens, seed: int64, (n_runs,); 0 where unknown.
        notes: sentences on what reading changed.
    Raises:
        ValueError: shapes differ, a name repeats, weights are not mixtures, a metric is missing, or one run
            (weights, fidelity and seed) is listed with two results.

    >>> weights, losses = np.array([[0.5, 0.5], [0.9, 0.1]]), np.array([[3.1], [3.3]])
    >>> runs = RunTable(weights, ("web", "wiki"), losses, ("wiki",))
    >>> runs.n_runs, runs.notes
    (2, ())
    """

    weights: Floats
    domain_names: tuple[str, ...]
    metrics: Floats
    metric_names: tuple[str, ...]
    n_parameters: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    n_tokens: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    seed: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        set_field = object.__setattr__
        set_field(self, "domain_names", tuple(self.domain_names))
        set_field(self, "metric_names", tuple(self.metric_names))
        set_field(self, "metrics", np.array(self.metrics, dtype=np.float64))
        set_field(self, "weights", np.array(self.weights, dtype=np.float64))
        for name in FIDELITY:
            column = np.array(getattr(self, name), dtype=np.int64)
            set_field(self, name, column if column.size else np.zeros(len(self.weights), dtype=np.int64))
        problems = self._problems()
        if problems:
            raise ValueError("\n".join(problems))
        sums = self.weights.sum(axis=1)
        n_rounded = int(np.sum(np.abs(sums - 1) > 1e-9))
        if n_rounded:
            note = (
                f"{n_rounded} of {self.n_runs} rows of weights summed to {sums.min():.4g}-{sums.max():.4g} "
                "and were renormalised."
            )
            set_field(self, "notes", (*self.notes, note))
        set_field(self, "weights", self.weights / sums[:, None])

    @property
    def n_runs(self) -> int:
        return len(self.weights)

    def select(self, rows: NDArray[Any]) -> RunTable:
        """The runs in `rows`: a boolean mask (n_runs,), or indices."""
        fidelity = {name: getattr(self, name)[rows] for name in FIDELITY}
        return RunTable(
            self.weights[rows],
            self.domain_names,
            self.metrics[rows],
            self.metric_names,
            **fidelity,
            notes=self.notes,
        )

    @classmethod
    def from_csv(
        cls,
        weights_csv: str | Path,
        metrics_csv: str | Path,
        on: str = "index",
        n_parameters: int = 0,
        n_tokens: int = 0,
        seed: int = 0,
        drop_missing: bool = False,
    ) -> RunTable:
        """Read a pair of files as published with RegMix: one row per run, joined on one column.

        Args:
            weights_csv: the join column and one column per domain; CSV, or Parquet if its name ends so.
            metrics_csv: the join column and one column per metric; likewise.
            on: name of the join column.
            n_parameters, n_tokens, seed: of all runs, unless a column of that name in either file tells.
            drop_missing: leave out runs that lack a metric, with a note, instead of refusing the table.
        Raises:
            ValueError: a file lacks the join column or repeats a key; a key has no partner; a column holds no
                numbers; see also the class.
        """
        weights, metrics = read_table(weights_csv), read_table(metrics_csv)
        for path, table in ((weights_csv, weights), (metrics_csv, metrics)):
            check_key(path, table, on)
        missing = sorted(set(weights[on].to_pylist()) ^ set(metrics[on].to_pylist()), key=str)
        if missing:
            types = weights[on].type, metrics[on].type
            kinds = "" if types[0] == types[1] else f", {types[0]} in one and {types[1]} in the other"
            raise ValueError(
                f"{len(missing)} of the runs are in only one of {weights_csv} and {metrics_csv}, {on} = "
                f"{', '.join(map(str, missing[:5]))}{kinds}. Each run needs its weights and its metrics."
            )
        weights, metrics = weights.sort_by(on), metrics.sort_by(on)
        notes: tuple[str, ...] = ()
        if drop_missing:
            weights, metrics, notes = _without_missing(weights, metrics, on, metrics_csv)
        keys = [f"{on} = {key}" for key in weights[on].to_pylist()]
        values = {"n_parameters": n_parameters, "n_tokens": n_tokens, "seed": seed}
        fidelity = {name: np.full(len(keys), value) for name, value in values.items()}
        sides = []
        for path, table, kind in ((weights_csv, weights, "domain"), (metrics_csv, metrics, "metric")):
            given = [name for name in FIDELITY if name in table.column_names]
            fidelity |= {name: whole_numbers(table, name, f"{path}: ") for name in given}
            rest = table.drop_columns([on, *given])
            if not rest.column_names:
                raise ValueError(f"{path}: no column beside '{on}'; give one for each {kind}.")
            sides.append((tuple(rest.column_names), matrix(rest, f"{path}: ")))
        (domains, w), (metric_names, losses) = sides
        problems = [f"{weights_csv}: {problem}" for problem in _bad_weights(w, domains, keys)]
        problems += [f"{metrics_csv}: {problem}" for problem in _missing_metrics(losses, metric_names, keys)]
        problems += [f"{weights_csv}: {problem}" for problem in _repeated_runs(w, fidelity, keys)]
        if problems:
            raise ValueError("\n".join(problems))
        return cls(w, domains, losses, metric_names, **fidelity, notes=notes)

    @classmethod
    def from_path(cls, path: str | Path) -> RunTable:
        """Read one table of `from_arrow`'s columns: a CSV or Parquet file, or a run directory.

        Of a run directory, ``mix/proxies.parquet`` is read; of one that is still training, the groups of
        proxies that are done.

        Raises:
            ValueError: there is no such table; see also `from_arrow`.
        """
        place = Path(path)
        if place.is_dir():
            mix = place / "mix" if (place / "mix").is_dir() else place
            files = [mix / "proxies.parquet"] if (mix / "proxies.parquet").exists() else []
            files = files or sorted((mix / "proxies").glob("*.parquet"))
            if not files:
                raise ValueError(
                    f"{place}: no mix/proxies.parquet and no mix/proxies/*.parquet; give a run directory "
                    "whose proxies are trained, or a table of runs."
                )
            return cls.from_arrow(pa.concat_tables([pq.read_table(file) for file in files]))
        return cls.from_arrow(read_table(place))

    def within(self, caps: ArrayLike) -> RunTable:
        """The runs whose mixtures could be trained under the caps, (K,), with a note on the others.

        >>> weights, losses = np.array([[0.5, 0.5], [0.9, 0.1]]), np.array([[3.1], [3.3]])
        >>> RunTable(weights, ("web", "wiki"), losses, ("wiki",)).within([0.8, 1.0]).notes
        ("1 of 2 runs was left out: above the caps, most of all in 'web' (0.9 of 0.8).",)
        """
        upper = np.asarray(caps, dtype=np.float64)
        excess = self.weights - upper
        above = np.any(excess > CAP_TOLERANCE, axis=1)
        if not above.any():
            return self
        run, domain = np.unravel_index(np.argmax(excess), excess.shape)
        verb = "was" if above.sum() == 1 else "were"
        note = (
            f"{above.sum()} of {self.n_runs} runs {verb} left out: above the caps, most of all in "
            f"'{self.domain_names[domain]}' ({self.weights[run, domain]:.4g} of {upper[domain]:.4g})."
        )
        return replace(self.select(~above), notes=(*self.notes, note))

    @classmethod
    def from_arrow(cls, table: pa.Table) -> RunTable:
        """Read columns weight.<domain>, loss.<domain>, n_parameters, n_tokens, seed; the last three may be
        absent.

        Rows with a text in the optional column `failure` are left out, with a note for each.
        """
        notes = []
        if "failure" in table.column_names:
            reasons = table["failure"].to_pylist()
            notes = [f"a run was left out: {reason}." for reason in reasons if reason]  # "": a CSV's null
            table = table.filter(pa.array([not reason for reason in reasons], pa.bool_()))
        domains = [name for name in table.column_names if name.startswith(WEIGHT)]
        losses = [name for name in table.column_names if name.startswith(LOSS)]
        if not domains or not losses:
            raise ValueError(
                f"found the columns {', '.join(table.column_names) or '(none)'}; a run table needs "
                "weight.<domain> and loss.<domain> columns."
            )
        return cls(
            weights=matrix(table.select(domains)),
            domain_names=tuple(name.removeprefix(WEIGHT) for name in domains),
            metrics=matrix(table.select(losses)),
            metric_names=tuple(name.removeprefix(LOSS) for name in losses),
            **{name: whole_numbers(table, name) for name in FIDELITY if name in table.column_names},
            notes=tuple(notes),
        )

    def to_arrow(self) -> pa.Table:
        """The table that `from_arrow` reads; notes are left behind."""
        weights = {
            WEIGHT + name: column for name, column in zip(self.domain_names, self.weights.T, strict=True)
        }
        losses = {LOSS + name: column for name, column in zip(self.metric_names, self.metrics.T, strict=True)}
        return pa.table({**weights, **losses, **{name: getattr(self, name) for name in FIDELITY}})

    def _problems(self) -> list[str]:
        """Every reason to refuse the table, one sentence each."""
        shapes = {"weights": (self.weights, self.domain_names), "metrics": (self.metrics, self.metric_names)}
        problems = [
            f"{name}: found shape {array.shape}, expected ({len(self.weights)}, {len(columns)})."
            for name, (array, columns) in shapes.items()
            if array.shape != (len(self.weights), len(columns))
        ]
        problems += [
            f"{name}: found {len(getattr(self, name))} values for {len(self.weights)} runs."
            for name in FIDELITY
            if len(getattr(self, name)) != len(self.weights)
        ]
        for kind, names in (("domain", self.domain_names), ("metric", self.metric_names)):
            problems += [
                f"{kind} '{name}' is listed twice."
                for name in sorted({n for n in names if names.count(n) > 1})
            ]
        if problems:
            return problems
        keys = [f"run {i}" for i in range(self.n_runs)]
        return [
            *_bad_weights(self.weights, self.domain_names, keys),
            *_missing_metrics(self.metrics, self.metric_names, keys),
            *_repeated_runs(self.weights, {name: getattr(self, name) for name in FIDELITY}, keys),
        ]


def _without_missing(
    weights: pa.Table, metrics: pa.Table, on: str, metrics_csv: str | Path
) -> tuple[pa.Table, pa.Table, tuple[str, ...]]:
    """Both tables, in one order, without the runs that lack a metric, and a note on those."""
    losses = metrics.drop_columns([on, *(name for name in FIDELITY if name in metrics.column_names)])
    whole = np.all(np.isfinite(matrix(losses, f"{metrics_csv}: ")), axis=1)
    lacking = metrics[on].filter(pa.array(~whole)).to_pylist()
    if not lacking:
        return weights, metrics, ()
    shown = ", ".join(map(str, lacking[:5]))
    note = f"{len(lacking)} of {len(whole)} runs lack a metric and were left out: {on} = {shown}."
    return weights.filter(pa.array(whole)), metrics.filter(pa.array(whole)), (note,)


def _bad_weights(weights: Floats, domain_names: tuple[str, ...], keys: Sequence[str]) -> list[str]:
    if not domain_names:
        return ["found no domain; a mixture has one weight or more."]
    sums = weights.sum(axis=1)
    outside = ~np.all((weights >= 0) & (weights <= 1 + SUM_TOLERANCE), axis=1)
    bad = np.flatnonzero(outside | ~(np.abs(sums - 1) <= SUM_TOLERANCE))[:5].tolist()
    problems = [
        f"{keys[run]}: weights sum to {sums[run]:.4g} and lie between {weights[run].min():.4g} and "
        f"{weights[run].max():.4g}; a mixture is not negative and sums to 1 within {SUM_TOLERANCE}."
        for run in bad
    ]
    if problems:
        problems[-1] += (
            f" Divide counts or percentages by their sum; of {', '.join(domain_names)}, leave out what is no "
            "domain."
        )
    return problems


def _missing_metrics(metrics: Floats, metric_names: tuple[str, ...], keys: Sequence[str]) -> list[str]:
    runs, columns = np.nonzero(~np.isfinite(metrics))
    return [
        f"{keys[run]}: metric '{metric_names[column]}' is {metrics[run, column]}; give it, "
        "or leave the run out."
        for run, column in list(zip(runs.tolist(), columns.tolist(), strict=True))[:5]
    ]


def _repeated_runs(
    weights: Floats, fidelity: Mapping[str, NDArray[np.int64]], keys: Sequence[str]
) -> list[str]:
    rows = np.column_stack([weights, *(fidelity[name] for name in FIDELITY)])
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    repeated = [(run, first[group]) for run, group in enumerate(inverse.ravel()) if first[group] != run]
    return [
        f"{keys[run]} has the weights, n_parameters, n_tokens and seed of {keys[earlier]}; "
        "a replicate needs its own seed, in a column of that name."
        for run, earlier in repeated[:5]
    ]

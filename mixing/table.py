"""One table for all results: the mixtures that were tried, how, and the losses they gave."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SUM_TOLERANCE = 0.01  # published tables are rounded: RegMix's rows sum to .996-1.003
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
    ) -> RunTable:
        """Read a pair of files as published with RegMix: one row per run, joined on one column.

        Args:
            weights_csv: the join column and one column per domain.
            metrics_csv: the join column and one column per metric.
            on: name of the join column.
            n_parameters, n_tokens, seed: of all runs.
        Raises:
            ValueError: a file lacks the join column or repeats a key; a key has no partner; see also the
                class.
        """
        weights, metrics = pa.csv.read_csv(weights_csv), pa.csv.read_csv(metrics_csv)
        for path, table in ((weights_csv, weights), (metrics_csv, metrics)):
            _check_key(path, table, on)
        missing = sorted(set(weights[on].to_pylist()) ^ set(metrics[on].to_pylist()), key=str)
        if missing:
            raise ValueError(
                f"{len(missing)} of the runs are in only one of {weights_csv} and {metrics_csv}, {on} = "
                f"{', '.join(map(str, missing[:5]))}. Each run needs its weights and its metrics."
            )
        weights, metrics = weights.sort_by(on).drop_columns(on), metrics.sort_by(on).drop_columns(on)
        return cls(
            weights=_matrix(weights),
            domain_names=tuple(weights.column_names),
            metrics=_matrix(metrics),
            metric_names=tuple(metrics.column_names),
            n_parameters=np.full(len(weights), n_parameters),
            n_tokens=np.full(len(weights), n_tokens),
            seed=np.full(len(weights), seed),
        )

    @classmethod
    def from_arrow(cls, table: pa.Table) -> RunTable:
        """Read columns weight.<domain>, loss.<domain>, n_parameters, n_tokens, seed; the last three may be
        absent.

        Rows with a text in the optional column `failure` are left out, with a note for each.
        """
        notes = []
        if "failure" in table.column_names:
            failed = pc.is_valid(table["failure"])
            notes = [
                f"a run was left out: {reason}." for reason in table.filter(failed)["failure"].to_pylist()
            ]
            table = table.filter(pc.invert(failed))
        domains = [name for name in table.column_names if name.startswith(WEIGHT)]
        losses = [name for name in table.column_names if name.startswith(LOSS)]
        if not domains or not losses:
            raise ValueError(
                f"found the columns {', '.join(table.column_names) or '(none)'}; a run table needs "
                "weight.<domain> and loss.<domain> columns."
            )
        return cls(
            weights=_matrix(table.select(domains)),
            domain_names=tuple(name.removeprefix(WEIGHT) for name in domains),
            metrics=_matrix(table.select(losses)),
            metric_names=tuple(name.removeprefix(LOSS) for name in losses),
            **{name: table[name].to_numpy() for name in FIDELITY if name in table.column_names},
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
        return problems or [*self._bad_weights(), *self._missing_metrics(), *self._repeated_runs()]

    def _bad_weights(self) -> list[str]:
        sums = self.weights.sum(axis=1)
        outside = ~np.all((self.weights >= 0) & (self.weights <= 1 + SUM_TOLERANCE), axis=1)
        bad = np.flatnonzero(outside | ~(np.abs(sums - 1) <= SUM_TOLERANCE))
        return [
            f"run {run}: weights sum to {sums[run]:.4g} and lie between {self.weights[run].min():.4g} and "
            f"{self.weights[run].max():.4g}; a mixture is not negative and sums to 1 within {SUM_TOLERANCE}."
            for run in bad[:5]
        ]

    def _missing_metrics(self) -> list[str]:
        runs, columns = np.nonzero(~np.isfinite(self.metrics))
        return [
            f"run {run}: metric '{self.metric_names[column]}' is {self.metrics[run, column]}; give it, "
            "or leave the run out."
            for run, column in list(zip(runs, columns, strict=True))[:5]
        ]

    def _repeated_runs(self) -> list[str]:
        keys = np.column_stack([self.weights, self.n_parameters, self.n_tokens, self.seed])
        _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        repeated = [(run, first[group]) for run, group in enumerate(inverse.ravel()) if first[group] != run]
        return [
            f"run {run} has the weights, n_parameters, n_tokens and seed of run {earlier}; "
            "a replicate needs its own seed."
            for run, earlier in repeated[:5]
        ]


def _matrix(table: pa.Table) -> Floats:
    """The table's columns side by side: float64, (n_rows, n_columns); null becomes NaN."""
    columns = [pc.cast(column, pa.float64()).to_numpy() for column in table.columns]
    return np.column_stack(columns) if columns else np.zeros((len(table), 0))


def _check_key(path: str | Path, table: pa.Table, on: str) -> None:
    if on not in table.column_names:
        raise ValueError(f"{path}: no column '{on}' to join on; found {', '.join(table.column_names)}.")
    repeated = sorted((key for key, n in Counter(table[on].to_pylist()).items() if n > 1), key=str)
    if repeated:
        raise ValueError(
            f"{path}: {on} = {', '.join(map(str, repeated[:5]))} is listed twice; each run has one row."
        )

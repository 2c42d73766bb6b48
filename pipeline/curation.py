"""Run the stages: shard by shard, resuming what is there, reducing fits, and proving that no row got lost."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from ..operators.base import Fit, UnsuitableDataError, summary_of
from .engines import Engine
from .errors import DamagedRunError, InputError
from .fitting import LookResult, Observed, fit_state
from .plan import Plan, Stage
from .progress import RunProgress
from .recipe import Recipe
from .run_directory import explained, read_json, write_json, write_text
from .shard_work import (
    SHARD_BITS,
    Accounting,
    ShardResult,
    ShardTask,
    read_accounting,
    read_arrow,
    run_shard,
    write_arrow,
)

MANIFEST = "manifest.json"
STATE = "state.arrow"
TIMINGS = "timings.jsonl"
N_SHOWN = 5
PROCESSES_PAY_BYTES = 64 << 20
"""Input from which on two processes, which take two seconds to start, end before two threads that share a
lock."""


class Curation:
    """One run's stages in one run directory.

    Everything on disk below ``stages/`` is a function of the recipe and the inputs alone; what is not (CPU
    seconds) goes to ``timings.jsonl``.
    """

    def __init__(
        self, plan: Plan, recipe: Recipe, run_dir: Path, engine: Engine, progress: RunProgress
    ) -> None:
        self.plan, self.recipe, self.run_dir = plan, recipe, run_dir
        self.engine, self.progress = engine, progress

    def folder(self, stage: Stage) -> Path:
        """The stage's folder in the run directory."""
        return self.run_dir / "stages" / stage.folder

    def state(self, stage: Stage) -> Path:
        """The file with the state of the stage's fit."""
        return self.folder(stage) / "fit" / STATE

    def run(self) -> list[dict[str, Any]]:
        """Run every stage that is not complete; returns the stages' manifests.

        Raises:
            InputError: broken shards, too many unreadable records, or nothing left.
            AccountingError: an operator lost rows.
            DamagedRunError: the run directory does not hold what was written there.
            EnvironmentFailure: the disk is full or cannot be written.
        """
        manifests: list[dict[str, Any]] = []
        for stage in self.plan.stages:
            manifests.append(self.run_stage(stage))
            self.judge_passage(manifests)
            if stage.fit is not None and not self.state(stage).exists():
                self.fit(stage, stage.fit)
        return manifests

    def run_stage(self, stage: Stage) -> dict[str, Any]:
        """Do the stage's missing shards and compile its manifest, or hold it to the one that there is."""
        tasks = self.tasks(stage)
        manifest = self.folder(stage) / MANIFEST
        known = read_json(manifest) if manifest.exists() else None
        broken = {int(part[5:]): error for part, error in known["quarantined"].items()} if known else {}
        missing = [task for task in tasks if task.index not in broken and not self.is_done(stage, task)]
        if missing or known is None:
            broken |= self.do(stage, missing, len(tasks))
        self.judge_broken(tasks, broken)
        compiled = compile_manifest(stage, [task for task in tasks if task.index not in broken], broken)
        if known is not None and compiled != known:
            raise DamagedRunError(
                f"{self.folder(stage)}: the parts hold {compiled['accounting']['rows_kept']} rows of "
                f"{compiled['accounting']['rows_in']}, {MANIFEST} says {known['accounting']['rows_kept']} of "
                f"{known['accounting']['rows_in']}; remove the folder and run again"
            )
        self.judge_rows(stage, compiled, tasks)
        if known is None:
            write_json(manifest, compiled)
        return compiled

    def is_done(self, stage: Stage, task: ShardTask) -> bool:
        """Whether the shard's part is there, and what its stage's fit still needs of it."""
        needs_partial = stage.fit is not None and not self.state(stage).exists()
        is_whole = task.part.exists() and task.dropped.exists()
        return is_whole and (not needs_partial or task.partial.exists())

    def do(self, stage: Stage, missing: Sequence[ShardTask], n_tasks: int) -> dict[int, str]:
        """Do shards; returns why those are broken that are."""
        broken: dict[int, str] = {}
        title = f"{stage.index:02d} {stage.name}"
        with self.progress.stage(title, n_tasks, n_tasks - len(missing)) as bar:

            def on_result(result: ShardResult) -> None:
                if result.broken is not None:
                    broken[result.index] = result.broken
                self.note(stage.folder, result)
                bar.shard(result)

            self.engine.map_shards(
                run_shard, missing, on_result, isolated=self.needs_processes(stage, len(missing))
            )
        for task in missing:
            task.quarantine.unlink(missing_ok=True)
            if task.index in broken:
                write_json(task.quarantine, {"shard": str(task.shard), "error": broken[task.index]})
        return broken

    def needs_processes(self, stage: Stage, n_missing: int) -> bool:
        """Whether the stage's operators would keep threads waiting, and have enough to do that starting
        processes pays."""
        operators = [*stage.operators, *([stage.fit] if stage.fit else [])]
        several = min(n_missing, self.engine.n_workers) > 1
        return (
            several
            and self.plan.n_bytes >= PROCESSES_PAY_BYTES
            and any(operator.holds_gil for operator in operators)
        )

    def tasks(self, stage: Stage) -> list[ShardTask]:
        """One task for each shard that is not in quarantine."""
        folder = self.folder(stage)
        if stage.index == 0:
            return [
                ShardTask(
                    i, stage.operators, stage.fit, folder, None, None, self.plan.readers[s.input_index], s
                )
                for i, s in enumerate(self.plan.shards)
            ]
        before = self.plan.stages[stage.index - 1]
        state = self.state(before) if before.fit is not None else None
        return [
            ShardTask(upstream.index, stage.operators, stage.fit, folder, state, upstream.part)
            for upstream in self.tasks(before)
            if not upstream.quarantine.exists()
        ]

    def fit(self, stage: Stage, fit: Fit) -> None:
        """Bring the state of the stage's fit about.

        Raises:
            InputError: the documents, or an earlier run, are not what the fit's parameters say.
        """
        tasks = [task for task in self.tasks(stage) if not task.quarantine.exists()]
        observed = [Observed(task.index, task.part, task.index << SHARD_BITS, task.partial) for task in tasks]
        looks = 0 if fit.second_key is None else len(tasks)
        with self.progress.stage(f"   {fit.name}: merge", 1 + looks, unit="observations") as bar:

            def on_look(result: LookResult) -> None:
                self.note(stage.folder, result)
                bar.advance(result.rows_in, result.bytes_in)

            try:
                state = fit_state(self.engine, fit, observed, self.state(stage).parent, on_look)
            except UnsuitableDataError as error:
                raise InputError(str(error)) from error
            for name, text in fit.review(state).items():
                write_text(self.state(stage).with_name(name), text)
            write_arrow(self.state(stage), state)
            bar.advance(state.num_rows, state.nbytes)

    def note(self, stage: str, result: ShardResult | LookResult) -> None:
        """Append a shard's CPU seconds to the run's timings."""
        line = {"stage": stage, "shard": result.index, "cpu_seconds": result.cpu_seconds}
        read = result if isinstance(result, LookResult) else result.accounting
        if read is not None:
            line |= {"rows_in": read.rows_in, "bytes_in": read.bytes_in}
        with explained(self.run_dir), (self.run_dir / TIMINGS).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def judge_passage(self, manifests: Sequence[dict[str, Any]]) -> None:
        """Hold the last two stages to each other: what one keeps, the next one reads."""
        if len(manifests) > 1:
            before, after = manifests[-2:]
            n_kept, n_read = before["accounting"]["rows_kept"], after["accounting"]["rows_in"]
            if n_kept != n_read:
                raise DamagedRunError(
                    f"stage {after['stage']} read {n_read} rows, the stage before it kept {n_kept}; "
                    f"remove {self.folder(self.plan.stages[len(manifests) - 1])} and run again"
                )

    def judge_broken(self, tasks: Sequence[ShardTask], broken: dict[int, str]) -> None:
        """Stop at broken shards, unless the recipe says to go on without them."""
        for index in sorted(broken)[:N_SHOWN]:
            self.progress.say(f"broken shard {index}: {broken[index]}")
        if broken and self.recipe.reading.on_bad_shard == "fail":
            listed = "\n  ".join(broken[index] for index in sorted(broken)[:N_SHOWN])
            more = f"\n  and {len(broken) - N_SHOWN} more" if len(broken) > N_SHOWN else ""
            raise InputError(
                f"{len(broken)} of {len(tasks)} shards cannot be read:\n  {listed}{more}\n"
                f"They are listed in {tasks[0].folder / 'quarantine'}; the other shards are done and stay. "
                "Repair or remove the files, or set reading.on_bad_shard: skip to go on without them."
            )
        if len(broken) == len(tasks):
            raise InputError(f"all {len(tasks)} shards are broken; there is nothing to go on with")

    def judge_rows(self, stage: Stage, manifest: dict[str, Any], tasks: Sequence[ShardTask]) -> None:
        """Stop where too many records cannot be read, or where no row is left."""
        found = Accounting(**manifest["accounting"])
        n_unreadable, allowed = sum(found.unreadable.values()), self.recipe.reading.max_unreadable_fraction
        if not found.rows_in:
            limits = f"; the row limits left out {found.over_limit:,}" if found.over_limit else ""
            raise InputError(
                f"the inputs hold no documents: {self.plan.n_bytes:,} bytes were read, no row{limits}"
            )
        if n_unreadable > allowed * found.rows_in:
            raise InputError(
                f"{n_unreadable:,} of {found.rows_in:,} records cannot be read "
                f"({n_unreadable / found.rows_in:.1%}), reading.max_unreadable_fraction is {allowed}:\n  "
                + "\n  ".join(_examples(tasks))
                + "\n"
                "Repair the input, map its columns, or raise the fraction to go on without these records."
            )
        if not found.rows_kept:
            reasons = sorted(found.dropped.items(), key=lambda reason: -reason[1])[:N_SHOWN]
            listed = ", ".join(f"{reason} {n:,}" for reason, n in reasons)
            raise InputError(
                f"stage {stage.name} dropped all {found.rows_in:,} documents: {listed}; "
                f"look at them in {self.folder(stage) / 'dropped'} and move the thresholds"
            )


def _examples(tasks: Sequence[ShardTask]) -> list[str]:
    """The first unreadable records of the stage, as sentences."""
    details: list[str] = []
    for task in tasks:
        if task.dropped.exists() and "read.detail" in pq.read_schema(task.dropped).names:
            column = pq.read_table(task.dropped, columns=["read.detail"])["read.detail"]
            details += column.drop_null().to_pylist()
        if len(details) >= N_SHOWN:
            break
    return details[:N_SHOWN]


def compile_manifest(stage: Stage, tasks: Sequence[ShardTask], broken: dict[int, str]) -> dict[str, Any]:
    """The stage's manifest from its parts' footers.

    Raises:
        DamagedRunError: a part does not hold the rows that its accounting says.
    """
    total = Accounting()
    for task in tasks:
        accounting, n_kept = read_accounting(task.part)
        _, n_left = read_accounting(task.dropped)
        accounting.check(str(task.part))
        n_expected = sum(accounting.dropped.values()) + sum(accounting.unreadable.values())
        if (n_kept, n_left) != (accounting.rows_kept, n_expected):
            raise DamagedRunError(
                f"{task.part}: the footer says {accounting.rows_kept} kept and {n_expected} dropped or "
                f"unreadable rows, the files hold {n_kept} and {n_left}; "
                "remove the stage's folder and run again"
            )
        total += accounting
    return {
        "stage": stage.name,
        "hash": stage.hash,
        "operators": [operator.name for operator in stage.operators],
        "fit": stage.fit.name if stage.fit else None,
        "n_shards": len(tasks),
        "quarantined": {f"part-{index:05d}": error for index, error in sorted(broken.items())},
        "accounting": asdict(total),
        "fit_summary": _fit_summary(tasks),
    }


def _fit_summary(tasks: Sequence[ShardTask]) -> dict[str, int]:
    """What the fit that opens the stage says of itself."""
    state = tasks[0].state if tasks else None
    return {} if state is None else summary_of(read_arrow(state).schema)

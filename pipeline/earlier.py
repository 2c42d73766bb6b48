"""What an earlier run kept, as shards that stand before this run's own."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ..operators.base import ROW, Fit
from .errors import InputError
from .partials import write_partial
from .run_directory import read_json
from .shard_work import SHARD_BITS, part_name, read_arrow

RUN_BITS = 56
"""Earlier run k of n has the rows from (k - n) << 56: below 0, run after run."""


@dataclass(frozen=True)
class EarlierStage:
    """The stage of an earlier run in which the same fit observed documents."""

    folder: Path
    shards: tuple[int, ...]

    @property
    def state(self) -> Path:
        """What the fit found."""
        return self.folder / "fit" / "state.arrow"


@dataclass(frozen=True)
class EarlierPartial:
    """One earlier shard's partial, to be cut down to what the run kept; picklable."""

    stage: EarlierStage
    shard: int
    first_row: int
    target: Path
    key: str

    @property
    def part(self) -> Path:
        """The rows that the fit observed."""
        return self.stage.folder / part_name(self.shard)

    @property
    def source(self) -> Path:
        """What it observed."""
        return self.stage.folder / "fit" / f"part-{self.shard:05d}.arrow"


def earlier_stages(fit: Fit) -> list[EarlierStage]:
    """The stages of the runs that `fit` names, and of those that they ran against, oldest first, each once.

    Raises:
        InputError: a run directory is none, its run is not complete, or its fit had other parameters.
    """
    found: dict[Path, EarlierStage] = {}
    for run in fit.earlier_runs:
        for stage in _stages_of(Path(run), fit):
            found.setdefault(stage.folder.resolve(), stage)
    return list(found.values())


def _stages_of(run: Path, fit: Fit) -> list[EarlierStage]:
    where = f"{fit.name}: earlier run {run}"
    if not (run / "plan.json").exists():
        raise InputError(f"{where}: it holds no plan.json; name the directory of a run")
    plan = read_json(run / "plan.json")
    entries: list[dict[str, Any]] = plan["recipe"]["curate"]
    position = next((i for i, entry in enumerate(entries) if fit.name in entry), None)
    if position is None:
        raise InputError(f"{where}: its recipe has no {fit.name}")
    theirs = type(fit).model_validate_json(json.dumps(entries[position][fit.name]))
    for name, value in fit.scheme.items():
        if theirs.scheme[name] != value:
            raise InputError(
                f"{where}: its {name} is {theirs.scheme[name]}, here it is {value}; "
                "documents are comparable only where these are the same: change one of the recipes"
            )
    stage = _observing_stage(run, plan["stages"], fit, where)
    return [*earlier_stages(theirs), stage]


def _observing_stage(run: Path, folders: Sequence[str], fit: Fit, where: str) -> EarlierStage:
    for name in folders:
        folder = run / "stages" / name
        manifest = read_json(folder / "manifest.json") if (folder / "manifest.json").exists() else {}
        if manifest.get("fit") == fit.name:
            shards = [int(path.stem[5:]) for path in folder.glob("part-*.parquet")]
            stage = EarlierStage(folder, tuple(sorted(shards)))
            if stage.state.exists():
                return stage
    raise InputError(f"{where}: it did not come as far as the end of {fit.name}; run its recipe again first")


def earlier_partials(fit: Fit, folder: Path) -> list[EarlierPartial]:
    """The shards of the runs that `fit` names, their rows numbered below 0; what they kept goes to `folder`.

    Raises:
        InputError: an earlier run cannot serve the fit.
    """
    stages = earlier_stages(fit)
    return [
        EarlierPartial(
            stage,
            shard,
            ((k - len(stages)) << RUN_BITS) + (shard << SHARD_BITS),
            folder / f"earlier-{k:03d}-{shard:05d}.arrow",
            fit.exchange_key or "",
        )
        for k, stage in enumerate(stages)
        for shard in stage.shards
    ]


def keep_survivors(earlier: EarlierPartial) -> None:
    """Write the observations of the documents that the earlier run kept, under their new numbers."""
    partial, state = read_arrow(earlier.source), read_arrow(earlier.stage.state)
    removed = state["row"].to_numpy()[state["rank"].to_numpy() > 0]
    rows = partial[ROW].to_numpy()
    stays = ~np.isin(rows, removed)
    moved = rows[stays] - (earlier.shard << SHARD_BITS) + earlier.first_row
    kept = partial.filter(pa.array(stays))
    kept = kept.set_column(kept.schema.get_field_index(ROW), ROW, pa.array(moved))
    write_partial(earlier.target, kept, earlier.key)

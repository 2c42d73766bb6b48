"""How the report reads a run's stages: part by part, scores without text, text for the rows shown alone."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..kernels.hashing import hash_ranges
from ..operators.base import Decides, Operator, Rule
from ..operators.text_column import text_buffers
from .outcome import Outcome
from .plan import Stage
from .run_directory import damaged
from .shard_work import Accounting

N_EXAMPLES = 5
BATCH_ROWS = 4096
NO_DOMAIN = "(none)"


@dataclass(frozen=True)
class StageFiles:
    """A finished stage: what it did, and where its rows are."""

    stage: Stage
    folder: Path
    manifest: Mapping[str, Any]
    upstream: Path | None
    """The folder of the stage before."""

    @property
    def accounting(self) -> Accounting:
        """Where the stage's rows went."""
        return Accounting(**self.manifest["accounting"])

    @property
    def kept(self) -> list[Path]:
        """The parts of the rows that went on."""
        return sorted(self.folder.glob("part-*.parquet"), key=_shard_index)

    @property
    def dropped(self) -> list[Path]:
        """The parts of the rows that left."""
        return sorted((self.folder / "dropped").glob("part-*.parquet"), key=_shard_index)

    def operator(self, name: str) -> Operator | None:
        """The stage's operator of that name."""
        return next((operator for operator in self.stage.operators if operator.name == name), None)

    def n_seen_by(self, operator: Operator) -> int:
        """How many rows reached an operator: those that no operator before it dropped."""
        found, names = self.accounting, [before.name for before in self.stage.operators]
        before = names[: names.index(operator.name)]
        n_gone = sum(n for reason, n in found.dropped.items() if reason.partition(".")[0] in before)
        return found.rows_in - sum(found.unreadable.values()) - n_gone

    def n_dropped_by(self, operator: Operator) -> int:
        """How many rows an operator dropped."""
        dropped = self.accounting.dropped.items()
        return sum(n for reason, n in dropped if reason.partition(".")[0] == operator.name)

    def rule(self, reason: str) -> Rule | None:
        """The rule behind ``<operator>.<reason>``."""
        name, _, short = reason.partition(".")
        operator = self.operator(name)
        rules = operator.rules() if isinstance(operator, Decides) else ()
        return next((rule for rule in rules if rule.reason == short), None)


def stage_files(outcome: Outcome) -> list[StageFiles]:
    """The run's stages in order."""
    folders = outcome.stage_folders
    return [
        StageFiles(stage, folder, manifest, folders[stage.index - 1] if stage.index else None)
        for stage, folder, manifest in zip(outcome.plan.stages, folders, outcome.manifests, strict=True)
    ]


def _shard_index(path: Path) -> int:
    return int(path.stem.removeprefix("part-"))


@contextmanager
def _part(path: Path) -> Iterator[pq.ParquetFile]:
    """A part to read from.

    Raises:
        DamagedRunError: it is not what was written.
    """
    try:
        with pq.ParquetFile(path) as part:
            yield part
    except (OSError, pa.ArrowException) as error:
        raise damaged(path, error) from error


def read_columns(path: Path, names: Sequence[str]) -> pa.Table:
    """Columns of a part; one that it does not have is null."""
    with _part(path) as part:
        there = _present(part, names)
        return _with_missing(part.read(columns=there), names)


def _present(part: pq.ParquetFile, names: Sequence[str]) -> list[str]:
    there = set(part.schema_arrow.names)
    return [name for name in names if name in there]


def _with_missing(table: pa.Table | pa.RecordBatch, names: Sequence[str]) -> pa.Table:
    missing = {
        name: pa.nulls(table.num_rows, pa.string()) for name in names if name not in table.schema.names
    }
    columns = {name: table[name] for name in table.schema.names}
    return pa.table({**columns, **missing}).select(list(names))


def read_batches(path: Path, names: Sequence[str]) -> Iterator[pa.Table]:
    """Columns of a part, `BATCH_ROWS` rows at a time."""
    with _part(path) as part:
        there = _present(part, names)
        for batch in part.iter_batches(BATCH_ROWS, columns=there):
            yield _with_missing(batch, names)


class Pick(NamedTuple):
    """A row of a part; ordered by the hash of its id, so the smallest are a sample that every run repeats."""

    id_hash: int
    shard: int
    row: int
    path: Path


class Sample:
    """For each group, the `n` rows whose ids have the smallest hashes."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.picks: dict[str, list[Pick]] = {}

    def add(self, path: Path, ids: pa.ChunkedArray, groups: pa.ChunkedArray, first_row: int = 0) -> None:
        """Look at rows of a part; rows of the group null are passed over."""
        hashes = hash_ranges(*text_buffers(ids))
        encoded = groups.combine_chunks().dictionary_encode()
        codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
        order = np.lexsort((hashes, codes))
        _, start, group_of = np.unique(codes[order], return_index=True, return_inverse=True)
        is_picked = (np.arange(len(order)) - start[group_of] < self.n) & (codes[order] >= 0)
        names = encoded.dictionary.to_pylist()
        for row in order[is_picked].tolist():
            pick = Pick(int(hashes[row]), _shard_index(path), first_row + row, path)
            self.picks.setdefault(names[codes[row]], []).append(pick)
        for group, picks in self.picks.items():
            self.picks[group] = sorted(picks)[: self.n]

    def rows(self, columns: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """The rows picked, by group, groups sorted."""
        every = [pick for picks in self.picks.values() for pick in picks]
        found = fetch([(pick.path, pick.row) for pick in every], columns)
        return {
            group: [found[pick.path, pick.row] for pick in picks]
            for group, picks in sorted(self.picks.items())
        }


def fetch(
    places: Iterable[tuple[Path, int]], columns: Sequence[str]
) -> dict[tuple[Path, int], dict[str, Any]]:
    """Single rows of parts, by (part, position): of each part only the row groups that hold them are read."""
    by_path: dict[Path, list[int]] = {}
    for path, row in places:
        by_path.setdefault(path, []).append(row)
    found: dict[tuple[Path, int], dict[str, Any]] = {}
    for path, rows in by_path.items():
        with _part(path) as part:
            there = _present(part, columns)
            first = 0
            for group in range(part.num_row_groups):
                n_rows = part.metadata.row_group(group).num_rows
                wanted = sorted({row for row in rows if first <= row < first + n_rows})
                if wanted:
                    taken = part.read_row_group(group, columns=there).take([row - first for row in wanted])
                    shown = _with_missing(taken, columns).to_pylist()
                    found |= {(path, row): fields for row, fields in zip(wanted, shown, strict=True)}
                first += n_rows
    return found


@dataclass
class Left:
    """The rows that left a stage: how many by domain and by what dropped them, and their bytes."""

    n_rows: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By (domain, reason); a reason is ``<operator>.<reason>``."""
    n_bytes: Counter[str] = field(default_factory=Counter)
    sample: Sample = field(default_factory=lambda: Sample(N_EXAMPLES))


def read_left(files: StageFiles) -> Left:
    """One pass over a stage's dropped rows. It reads their text to weigh it, some thousand rows at a time."""
    left = Left()
    for path in files.dropped:
        first_row = 0
        for rows in read_batches(path, ("id", "text", "domain", "dropped_by", "reason")):
            reason = pc.binary_join_element_wise(
                rows["dropped_by"].cast(pa.string()), rows["reason"].cast(pa.string()), "."
            )
            grouped = pa.table(
                {
                    "domain": pc.fill_null(rows["domain"].cast(pa.string()), NO_DOMAIN),
                    "reason": reason,
                    "n_bytes": pc.fill_null(pc.binary_length(rows["text"]), 0).cast(pa.int64()),
                }
            ).group_by(["domain", "reason"])
            for row in grouped.aggregate([("n_bytes", "sum"), ("n_bytes", "count")]).to_pylist():
                left.n_rows[row["domain"], row["reason"]] += row["n_bytes_count"]
                left.n_bytes[row["reason"]] += row["n_bytes_sum"]
            left.sample.add(path, rows["id"], reason, first_row)
            first_row += rows.num_rows
    return left


def count_domains(files: StageFiles) -> tuple[Counter[str], Sample]:
    """Documents that a stage kept, by domain, and a few of each."""
    n_docs: Counter[str] = Counter()
    sample = Sample(2)
    for path in files.kept:
        rows = read_columns(path, ("id", "domain"))
        domain = pc.fill_null(rows["domain"].cast(pa.string()), NO_DOMAIN)
        n_docs.update({entry["values"]: entry["counts"] for entry in pc.value_counts(domain).to_pylist()})
        sample.add(path, rows["id"], domain)
    return n_docs, sample


@dataclass(frozen=True)
class RunRows:
    """What the stages' rows tell, read once for all sections."""

    stages: Sequence[StageFiles]
    left: Sequence[Left]
    n_kept: Mapping[str, int]
    """By domain, documents that the last stage kept."""
    kept: Sample

    @property
    def n_in(self) -> int:
        """Records that the run found."""
        return self.stages[0].accounting.rows_in

    @property
    def domains(self) -> list[str]:
        """The domains of all documents, dropped ones too."""
        return sorted({*self.n_kept} | {domain for left in self.left for domain, _ in left.n_rows})

    def seen_by_domain(self, index: int, operator: Operator) -> Counter[str]:
        """By domain, documents that reached an operator of a stage."""
        order = [other.name for other in self.stages[index].stage.operators]
        above = {"read", *order[: order.index(operator.name)]}
        seen = Counter(self.n_kept)
        for i, left in enumerate(self.left):
            for (domain, reason), n in left.n_rows.items():
                if i > index or (i == index and reason.partition(".")[0] not in above):
                    seen[domain] += n
        return seen


def read_run(outcome: Outcome) -> RunRows:
    """Everything that the sections on curation need, in one pass over the dropped rows."""
    stages = stage_files(outcome)
    n_kept, kept = count_domains(stages[-1])
    return RunRows(stages, [read_left(files) for files in stages], n_kept, kept)

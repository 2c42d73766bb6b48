"""No row gets lost: what the footers say, what the files hold, and what breaks a run."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from cuvee.operators.base import ROW, Filter, Map, Operator, Rule, Scores, set_columns
from cuvee.operators.exact_dedup import ExactDedup
from cuvee.operators.gopher_quality import GopherQuality
from cuvee.operators.language import Language
from cuvee.operators.minhash_dedup import MinHashDedup
from cuvee.operators.pii import Pii
from cuvee.pipeline import shard_work
from cuvee.pipeline.curation import Curation
from cuvee.pipeline.engines import LocalEngine
from cuvee.pipeline.errors import DamagedRunError
from cuvee.pipeline.listing import list_files, list_shards
from cuvee.pipeline.plan import Plan, group_stages
from cuvee.pipeline.progress import RunProgress
from cuvee.pipeline.reading import Reader
from cuvee.pipeline.recipe import Input, Recipe
from cuvee.pipeline.shard_work import Accounting, AccountingError, read_accounting, read_arrow, write_arrow

from .conftest import curation_of, documents, write_jsonl


class Loses(Map):
    """A map that forgets the last row of a table."""

    name = "loses"

    def apply(self, table: pa.Table) -> pa.Table:
        return table.slice(0, max(0, len(table) - 1))


class Reorders(Map):
    """A map that turns the rows around."""

    name = "reorders"

    def apply(self, table: pa.Table) -> pa.Table:
        return table.take(np.arange(len(table))[::-1])


class Invents(Map):
    """A map that writes a column it does not declare."""

    name = "invents"

    def apply(self, table: pa.Table) -> pa.Table:
        return set_columns(table, {"invents.x": pa.array([1] * len(table))})


class Forgets(Map):
    """A map that declares a column and does not write it."""

    name = "forgets"
    writes = ("forgets.x",)

    def apply(self, table: pa.Table) -> pa.Table:
        return table


class Removes(Map):
    """A map that leaves a column out."""

    name = "removes"

    def apply(self, table: pa.Table) -> pa.Table:
        return table.drop_columns(["url"])


class Rewrites(Map):
    """A map that changes the text without saying so."""

    name = "rewrites"

    def apply(self, table: pa.Table) -> pa.Table:
        return set_columns(table, {"text": pa.array(["x"] * len(table), pa.large_string())})


class Strays(Filter):
    """A filter that writes a column it does not declare."""

    name = "strays"
    writes = ("strays.x",)

    def scores(self, table: pa.Table) -> Scores:
        return {"strays.x": pa.array([1.0] * len(table)), "strays.y": pa.array([1.0] * len(table))}

    def rules(self) -> Sequence[Rule]:
        return ()


class Short(Filter):
    """A filter that scores one row too few."""

    name = "short"
    writes = ("short.x",)

    def scores(self, table: pa.Table) -> Scores:
        return {"short.x": pa.array([1.0] * (len(table) - 1))}

    def rules(self) -> Sequence[Rule]:
        return ()


class Mute(Filter):
    """A filter that decides about one row too few."""

    name = "mute"
    writes = ("mute.x",)

    def scores(self, table: pa.Table) -> Scores:
        return {"mute.x": pa.array([1.0] * len(table))}

    def reasons(self, scores: Scores) -> pa.DictionaryArray:
        return super().reasons({"mute.x": scores["mute.x"].slice(1)})

    def rules(self) -> Sequence[Rule]:
        return (Rule("low", "mute.x", minimum=0),)


def _curation(folder: Path, operators: Sequence[Operator], *, same_ids: bool = False) -> Curation:
    """Two domains in several shards, with broken records and documents of every fate."""
    for domain in ("sea", "code"):
        same = {"id": "same"} if same_ids else {}
        rows = [same | {"text": text} for text in documents(domain, 30)]
        path = write_jsonl(folder / f"{domain}.jsonl", rows)
        path.write_text(path.read_text("utf-8") + 'broken\n{"text": null}\n', "utf-8")
    source = Input(source="web", path=(str(folder / "*.jsonl"),))
    files = list_files(source, "r.yaml:1")
    shards = list_shards(0, source, files, 8_000, "r.yaml:1")
    reader = Reader(source, 10**6)
    plan = Plan((reader,), (tuple(files),), tuple(shards), group_stages(operators, None, "inputs"))
    recipe = Recipe(name="r", inputs=(source,), reading={"max_unreadable_fraction": 0.5})
    return Curation(plan, recipe, folder / "run", LocalEngine(2), RunProgress(Console(quiet=True)))


def _usual() -> list[Operator]:
    return [Language(), GopherQuality(min_words=20), ExactDedup(), MinHashDedup(), Pii()]


def test_in_every_stage_rows_in_are_rows_kept_dropped_and_unreadable(tmp_path: Path) -> None:
    curation = _curation(tmp_path, _usual())
    manifests = curation.run()
    rows_before: list[int] | None = None
    for stage, manifest in zip(curation.plan.stages, manifests, strict=True):
        total, rows_kept = Accounting(), []
        for task in curation.tasks(stage):
            accounting, n_kept = read_accounting(task.part)
            assert read_accounting(task.dropped)[0] == accounting
            left = pq.read_table(task.dropped)
            by_reason = Counter(zip(left["dropped_by"].to_pylist(), left["reason"].to_pylist(), strict=True))
            unreadable = {reason: n for (by, reason), n in by_reason.items() if by == "read"}
            dropped = {f"{by}.{reason}": n for (by, reason), n in by_reason.items() if by != "read"}
            assert n_kept == accounting.rows_kept == pq.read_table(task.part).num_rows
            assert accounting.unreadable == unreadable
            assert accounting.dropped == dropped
            assert accounting.rows_in == n_kept + left.num_rows
            rows_kept.append(n_kept)
            total += accounting
        assert manifest["accounting"] == json.loads(json.dumps(total.__dict__))
        if rows_before is not None:
            assert total.rows_in == sum(rows_before)
        rows_before = rows_kept
    n_lines = sum(len(documents(domain, 30)) + 2 for domain in ("sea", "code"))
    assert manifests[0]["accounting"]["rows_in"] == n_lines
    assert manifests[0]["accounting"]["unreadable"] == {"invalid_json": 2, "no_text": 2}
    assert manifests[0]["accounting"]["dropped"]["gopher_quality.gopher_short_doc"] == 6
    assert manifests[1]["accounting"]["dropped"] == {"exact_dedup.duplicate": 2}
    assert manifests[2]["accounting"]["dropped"]["minhash_dedup.duplicate"] >= 4


def test_every_text_is_found_again_in_exactly_one_place(tmp_path: Path) -> None:
    curation = _curation(tmp_path, _usual()[:-1])
    curation.run()
    ids: Counter[str] = Counter()
    for stage in curation.plan.stages:
        for task in curation.tasks(stage):
            ids.update(pq.read_table(task.dropped, columns=["id"])["id"].to_pylist())
    for task in curation.tasks(curation.plan.stages[-1]):
        ids.update(pq.read_table(task.part, columns=["id"])["id"].to_pylist())
    assert set(ids.values()) == {1}
    assert len(ids) == sum(len(documents(domain, 30)) + 2 for domain in ("sea", "code"))


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (Loses(), r"operator 'loses' must keep every row in order: \d+ rows went in, \d+ came out"),
        (Reorders(), "operator 'reorders' must keep every row in order: row .* is not where it was"),
        (Invents(), r"operator 'invents' writes 'invents\.x', which its writes do not name"),
        (Forgets(), r"operator 'forgets' did not write 'forgets\.x', which its writes name"),
        (Removes(), "operator 'removes' removed the column 'url'"),
        (Rewrites(), "operator 'rewrites' changed the column 'text', which its writes do not name"),
        (
            Strays(),
            r"operator 'strays' must give strays\.x for \d+ rows; it gave strays\.x \(\d+\), strays\.y",
        ),
        (Short(), r"operator 'short' must give short\.x for \d+ rows; it gave short\.x \(\d+\)"),
        (Mute(), r"operator 'mute' must decide about \d+ rows; it decided about \d+"),
    ],
    ids=lambda value: value.name if isinstance(value, Operator) else "",
)
@pytest.mark.parametrize("same_ids", [False, True])
def test_an_operator_that_breaks_its_contract_fails_the_run(
    tmp_path: Path, operator: Operator, message: str, same_ids: bool
) -> None:
    curation = _curation(tmp_path, [operator], same_ids=same_ids)
    with pytest.raises(AccountingError, match=message):
        curation.run()
    assert not list(tmp_path.rglob("manifest.json"))


def _without_a_row(part: Path) -> None:
    table = pq.read_table(part)
    pq.write_table(table.slice(1), part)


def test_a_part_with_fewer_rows_than_its_footer_says_fails_the_run(tmp_path: Path) -> None:
    curation = _curation(tmp_path, _usual())
    curation.run()
    stage = curation.plan.stages[0]
    _without_a_row(curation.tasks(stage)[1].part)
    with pytest.raises(
        DamagedRunError, match=r"part-00001\.parquet: the footer says \d+ kept and \d+ dropped"
    ):
        curation.run()


def test_a_dropped_file_with_fewer_rows_fails_the_run(tmp_path: Path) -> None:
    curation = _curation(tmp_path, _usual())
    curation.run()
    _without_a_row(curation.tasks(curation.plan.stages[0])[-1].dropped)
    with pytest.raises(DamagedRunError, match=r"kept and \d+ dropped or unreadable rows, the files hold"):
        curation.run()


def test_a_part_of_another_file_fails_the_run(tmp_path: Path) -> None:
    curation = _curation(tmp_path, _usual())
    curation.run()
    first, second = curation.tasks(curation.plan.stages[0])[:2]
    second.part.write_bytes(first.part.read_bytes())
    second.dropped.write_bytes(first.dropped.read_bytes())
    with pytest.raises(
        DamagedRunError, match=r"the parts hold \d+ rows of \d+, manifest\.json says \d+ of \d+"
    ):
        curation.run()
    for manifest in tmp_path.rglob("00-*/manifest.json"):
        manifest.unlink()
    with pytest.raises(
        DamagedRunError, match=r"stage exact_dedup read \d+ rows, the stage before it kept \d+"
    ):
        curation.run()


def test_flipped_bits_in_a_part_fail_the_run(tmp_path: Path) -> None:
    curation = _curation(tmp_path, _usual())
    curation.run_stage(curation.plan.stages[0])
    curation.fit(curation.plan.stages[0], ExactDedup())
    part = curation.tasks(curation.plan.stages[0])[0].part
    content = bytearray(part.read_bytes())
    content[200] ^= 0xFF
    part.write_bytes(content)
    with pytest.raises(
        DamagedRunError, match=r"part-00000\.parquet: the file is not what was written: .*remove it"
    ):
        curation.run()


def test_a_part_that_was_removed_is_made_again(tmp_path: Path) -> None:
    curation = _curation(tmp_path, _usual())
    curation.run()
    parts = [task.part for stage in curation.plan.stages for task in curation.tasks(stage)]
    before = {part: part.read_bytes() for part in parts}
    for stage in curation.plan.stages:
        curation.tasks(stage)[2].part.unlink()
    curation.run()
    assert len(parts) == 12
    assert {part: part.read_bytes() for part in parts} == before


def test_mapped_files_outlive_their_closing(tmp_path: Path) -> None:
    write_arrow(tmp_path / "a.arrow", pa.table({"x": np.arange(100_000)}))
    table = read_arrow(tmp_path / "a.arrow")
    (tmp_path / "a.arrow").unlink()
    assert int(table["x"].to_numpy().sum()) == 4_999_950_000


def test_no_part_holds_the_engines_row_numbers(tmp_path: Path) -> None:
    curation = _curation(tmp_path, _usual())
    curation.run()
    for part in tmp_path.rglob("part-*.parquet"):
        assert ROW not in pq.read_schema(part).names


def test_the_size_of_batches_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for n_bytes in (1 << 30, 300):
        monkeypatch.setattr(shard_work, "BATCH_BYTES", n_bytes)
        curation = curation_of(
            tmp_path, [GopherQuality(min_words=60), Pii()], LocalEngine(1), run=str(n_bytes)
        )
        (manifest,) = curation.run()
        (stage,) = (tmp_path / str(n_bytes) / "stages").iterdir()
        kept, dropped = (pq.read_table(folder) for folder in (sorted(stage.glob("part*")), stage / "dropped"))
        found.append((manifest, kept.to_pylist(), dropped.sort_by("id").to_pylist()))
    assert found[0] == found[1]
    assert 0 < len(found[0][1]) < found[0][0]["accounting"]["rows_in"]


@pytest.mark.parametrize("lengths", [[], [0], [5], [3, 3, 3, 3], [0, 100, 0, 1, None, 9, 10]])
def test_batches_are_the_rows_in_order_and_no_larger_than_they_must_be(
    lengths: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shard_work, "BATCH_BYTES", 10)
    texts = [None if length is None else "x" * length for length in lengths]
    batches = shard_work.cut_into_batches(pa.table({"text": pa.array(texts, pa.large_string())}))
    assert [text for batch in batches for text in batch["text"].to_pylist()] == texts
    sizes = [[len(text or "") for text in batch["text"].to_pylist()] for batch in batches]
    assert all(sum(size[1:]) < 10 for size in sizes)

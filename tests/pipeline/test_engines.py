"""One suite over both engines: what they promise, and that their bytes are the same."""

import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from cuvee.operators.base import ROW, Operator
from cuvee.operators.exact_dedup import ExactDedup
from cuvee.operators.gopher_quality import GopherQuality
from cuvee.operators.minhash_dedup import MinHashDedup
from cuvee.operators.pii import Pii
from cuvee.operators.tokenize import Tokenize
from cuvee.pipeline import curation, engines, partials
from cuvee.pipeline.cli import main
from cuvee.pipeline.engines import Engine, LocalEngine, n_exchange_partitions
from cuvee.pipeline.errors import EnvironmentFailure, InputError
from cuvee.pipeline.partials import partitions, rows_of, write_partial

from .conftest import TOKENIZE, TOPICS, curation_of, file_bytes, made

OPERATORS: list[Operator] = [GopherQuality(min_words=20), ExactDedup(keep="longest"), MinHashDedup(), Pii()]


@pytest.fixture(params=["one worker", "three workers", pytest.param("ray", marks=pytest.mark.ray)])
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    if request.param == "ray":
        yield request.getfixturevalue("ray_engine")
        return
    local = LocalEngine(1 if request.param == "one worker" else 3)
    yield local
    local.close()


def test_every_task_has_one_result(engine: Engine) -> None:
    results: list[int] = []
    engine.map_shards(lambda x: x * x, range(20), results.append)
    assert sorted(results) == [x * x for x in range(20)]


def test_no_tasks_are_no_work(engine: Engine) -> None:
    engine.map_shards(lambda x: x, [], pytest.fail)
    engine.map_shards(lambda x: x, [], pytest.fail, isolated=True)


def test_isolated_tasks_run_in_other_processes(engine: Engine) -> None:
    results: list[int] = []
    engine.map_shards(eval, ["__import__('os').getpid()"] * 3, results.append, isolated=True)
    assert len(results) == 3
    assert os.getpid() not in results


@pytest.mark.parametrize("isolated", [False, True])
def test_an_error_arrives_as_itself_and_tells_where_it_was_raised(engine: Engine, isolated: bool) -> None:
    with pytest.raises(ValueError, match=r"math domain error|nonnegative") as caught:
        engine.map_shards(math.sqrt, [-1.0], pytest.fail, isolated=isolated)
    if engine.name == "ray":
        assert "ray_engine.py" in "".join(caught.value.__notes__)


def test_an_error_of_ours_keeps_its_exit_code(engine: Engine) -> None:
    def refuse(task: int) -> None:
        raise InputError("a.jsonl: broken", exit_code=7)

    with pytest.raises(InputError, match="broken") as caught:
        engine.map_shards(refuse, [1], pytest.fail)
    assert caught.value.exit_code == 7


def test_an_error_that_cannot_travel_arrives_by_name(engine: Engine) -> None:
    class Stubborn(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} and {two}")

    def refuse(task: int) -> None:
        raise Stubborn(1, 2)

    with pytest.raises(Exception, match="1 and 2"):
        engine.map_shards(refuse, [1], pytest.fail)


def test_after_an_error_the_engine_works_on(engine: Engine) -> None:
    for isolated in (False, True):
        with pytest.raises(ZeroDivisionError):
            engine.map_shards(eval, ["1 / 0", "1", "1"], lambda _: None, isolated=isolated)
        results: list[int] = []
        engine.map_shards(eval, ["1", "2"], results.append, isolated=isolated)
        assert sorted(results) == [1, 2]


def test_an_error_in_the_callers_function_ends_the_work(engine: Engine) -> None:
    def on_result(result: int) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        engine.map_shards(lambda x: x, [1, 2, 3], on_result)


def test_a_worker_process_that_is_ended_from_outside_is_told_as_such() -> None:
    engine = LocalEngine(1)
    with pytest.raises(EnvironmentFailure, match=r"a worker process was ended from outside, .* memory"):
        engine.map_shards(os._exit, [9], pytest.fail, isolated=True)
    results: list[int] = []
    engine.map_shards(eval, ["7"], results.append, isolated=True)
    assert results == [7]
    engine.close()


@pytest.mark.parametrize("n_partials", [1, 2, 8, 9, 70])
def test_reduce_merges_all_partials(engine: Engine, n_partials: int) -> None:
    def merge(partials: list[pa.Table]) -> pa.Table:
        return pa.table({"sum": [sum(table["sum"].to_numpy().sum() for table in partials)]})

    partials = [pa.table({"sum": [i]}) for i in range(n_partials)]
    assert engine.reduce(partials, merge)["sum"].to_pylist() == [n_partials * (n_partials - 1) // 2]


def _observations(folder: Path, n_files: int, n_keys: int) -> list[Path]:
    random, paths = np.random.default_rng(0), []
    for i in range(n_files):
        n_rows = 300 if n_keys else 0
        columns = {
            "key": random.integers(0, max(1, n_keys), n_rows).astype(np.uint64) << np.uint64(50),
            "check": pa.array(np.zeros(n_rows), pa.uint64()),
            ROW: pa.array(np.arange(n_rows) + i * 300, pa.int64()),
        }
        paths.append(folder / f"part-{i}.arrow")
        write_partial(paths[-1], pa.table(columns), "key")
    return paths


@pytest.mark.parametrize("n_keys", [0, 400])
def test_any_number_of_partitions_gives_the_same_state(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_keys: int
) -> None:
    operator = ExactDedup()
    paths = _observations(tmp_path, 4, n_keys)
    whole = pa.concat_tables([pa.ipc.open_file(path).read_all() for path in paths])
    expected = operator.finish(operator.combine(whole))
    n_bytes = sum(path.stat().st_size for path in paths)
    for partition_bytes in (n_bytes, n_bytes // 8):
        monkeypatch.setattr(engines, "EXCHANGE_BYTES", partition_bytes)
        tables = engine.exchange(paths, "key", operator.combine)
        state = operator.finish(engine.reduce(tables, operator.merge))
        assert state.equals(expected)
        assert state.schema == expected.schema


@pytest.mark.parametrize("batch_bytes", [1, 1 << 20])
def test_partitions_share_no_key_and_lose_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_bytes: int
) -> None:
    keys = np.sort(np.arange(1000) % 37).astype(np.uint64) << np.uint64(58)
    path = tmp_path / "keys.arrow"
    monkeypatch.setattr(partials, "BATCH_BYTES", batch_bytes)
    write_partial(path, pa.table({"key": keys[::-1]}), "key")
    parts = [set(rows_of(path, "key", i, 5)["key"].to_pylist()) for i in range(5)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 37
    assert sum(len(rows_of(path, "key", i, 5)) for i in range(5)) == 1000
    assert [n_exchange_partitions(n, 4) for n in (0, 1, 10 << 30)] == [4, 4, 640]


@pytest.mark.parametrize("keys", ["rows", "first rows of shards", "hashes", "smallest of 70 hashes"])
def test_partitions_are_even_whatever_the_keys_are(keys: str) -> None:
    n, n_partitions = 20_000, 16
    hashes = np.random.default_rng(0).integers(0, 2**64, (n, 70), dtype=np.uint64)
    made = {
        "rows": np.arange(n, dtype=np.uint64),
        "first rows of shards": np.arange(n, dtype=np.uint64) << np.uint64(32),
        "hashes": hashes[:, 0],
        "smallest of 70 hashes": hashes.min(axis=1),
    }
    counts = np.bincount(partitions(made[keys], n_partitions), minlength=n_partitions)
    # 5 standard deviations of a binomial of 20,000 draws.
    assert abs(counts - n / n_partitions).max() < 5 * (n / n_partitions) ** 0.5


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """A corpus and the bytes of its stages, made by one thread."""
    folder = tmp_path_factory.mktemp("engines")
    curation_of(folder, OPERATORS, LocalEngine(1), last_fit=Tokenize(vocab_size=300), run="one").run()
    return folder, file_bytes(folder / "one/stages")


def test_a_curated_corpus_is_the_same_byte_for_byte(
    engine: Engine, undisturbed: tuple[Path, dict[str, bytes]], request: pytest.FixtureRequest
) -> None:
    folder, expected = undisturbed
    run = request.node.callspec.id
    curation_of(folder, OPERATORS, engine, last_fit=Tokenize(vocab_size=300), run=run).run()
    found = file_bytes(folder / run / "stages")
    assert sorted(found) == sorted(expected)
    assert [path for path in found if found[path] != expected[path]] == []
    assert len(expected) > 30


def test_many_partitions_give_the_same_bytes(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Lists of shingles and of band keys pass through the shuffle, too.
    curation_of(tmp_path, [MinHashDedup()], LocalEngine(1), run="one").run()
    fits = [*tmp_path.glob("one/stages/*/fit")]
    looks = [[path for fit in fits for path in fit.glob(name)] for name in ("part-*", "again-part-*")]
    sizes = [sum(path.stat().st_size for path in look) for look in looks]
    # Partitions are tasks, and Ray takes a while for each: more than it has workers, but not many more.
    monkeypatch.setattr(engines, "EXCHANGE_BYTES", min(sizes) // 4)
    assert all(n_exchange_partitions(size, 2) >= 4 for size in sizes)
    curation_of(tmp_path, [MinHashDedup()], engine, run="many").run()
    assert file_bytes(tmp_path / "many/stages") == file_bytes(tmp_path / "one/stages")


def test_clusters_duplicates_and_prunings_are_the_same_byte_for_byte(engine: Engine, tmp_path: Path) -> None:
    curation_of(tmp_path, TOPICS, LocalEngine(1), run="one").run()
    curation_of(tmp_path, TOPICS, engine, run="other").run()
    assert file_bytes(tmp_path / "one") == file_bytes(tmp_path / "other")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_engine")
def test_another_engine_goes_on_in_the_same_directory(tiny_recipe: Path, tmp_path: Path) -> None:
    tiny_recipe.write_text(tiny_recipe.read_text("utf-8") + TOKENIZE, "utf-8")
    stages, command = tmp_path / "run/stages", ["run", str(tiny_recipe), "--run-dir", str(tmp_path / "run")]
    assert main(command) == 0
    expected = file_bytes(tmp_path / "run")
    first = {path: made(path) for path in (*stages.glob("*/part-*"), *stages.glob("*/fit/state.arrow"))}
    gone = {*stages.glob("*/part-0000[13].parquet")}
    for part in gone:
        part.unlink()
    assert main([*command, "--engine", "ray", "--workers", "2"]) == 0
    assert file_bytes(tmp_path / "run") == expected
    assert {path for path, how in first.items() if made(path) != how} == gone != set()


def test_documents_without_a_signature_are_no_problem_for_an_exchange(engine: Engine, tmp_path: Path) -> None:
    curation = curation_of(tmp_path, [MinHashDedup()], engine, texts=["too short"] * 5)
    first, second = curation.run()
    assert second["accounting"]["rows_kept"] == first["accounting"]["rows_kept"] == 5


def test_an_empty_shard_passes_all_stages(engine: Engine, tmp_path: Path) -> None:
    texts = ["too short"] * 60 + ["the cat and the dog of that house have been with us for a long time " * 4]
    curation = curation_of(tmp_path, OPERATORS, engine, last_fit=Tokenize(vocab_size=300), texts=texts)
    *_, last = curation.run()
    assert last["n_shards"] > 1
    assert last["accounting"]["rows_kept"] == 1


@pytest.mark.parametrize(
    ("operator", "pays_from", "n_workers", "in_processes"),
    [
        (Pii(), 0, 2, True),
        (Pii(), 1 << 40, 2, False),
        (Pii(), 0, 1, False),
        (GopherQuality(), 0, 2, False),
    ],
)
def test_operators_that_hold_the_lock_run_in_processes_where_that_pays(
    operator: Operator,
    pays_from: int,
    n_workers: int,
    in_processes: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(curation, "PROCESSES_PAY_BYTES", pays_from)
    stages = curation_of(tmp_path, [operator], LocalEngine(n_workers))
    assert stages.needs_processes(stages.plan.stages[0], len(stages.plan.shards)) == in_processes


def test_a_stage_in_processes_leaves_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    curation_of(tmp_path, [Pii()], LocalEngine(1), run="threads").run()
    monkeypatch.setattr(curation, "PROCESSES_PAY_BYTES", 0)
    engine = LocalEngine(2)
    curation_of(tmp_path, [Pii()], engine, run="processes").run()
    engine.close()
    assert file_bytes(tmp_path / "threads/stages") == file_bytes(tmp_path / "processes/stages")

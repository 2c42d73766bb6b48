"""Bad input through the command line: a message that helps, its exit code, and never a traceback."""

import contextlib
import fcntl
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cuvee.pipeline.cli import main

from .conftest import documents, file_bytes, write_jsonl

Recipe = Callable[..., Path]
Run = Callable[..., tuple[int, str]]
CURATE = "curate: [gopher_quality]\n"
SKIP = "reading: {on_bad_shard: skip}\n"


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a recipe and returns its exit code and the messages, one stage line each left out."""

    def run(recipe: Path, *options: str) -> tuple[int, str]:
        code = main(["run", str(recipe), "--run-dir", str(tmp_path / "run"), *options])
        lines = capsys.readouterr().err.splitlines()
        told = [line for line in lines if " done in " not in line and " done, " not in line]
        return code, "\n".join(told).replace(str(tmp_path), "~")

    return run


def test_a_path_that_is_not_there(recipe_of: Recipe, run: Run, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "web2.jsonl", [{"text": "x"}])
    assert run(recipe_of("path: web.jsonl")) == (
        3,
        "~/recipe.yaml:2: inputs.0.path: no file matches '~/web.jsonl'; in '~' there is 'web2.jsonl': "
        "did you mean that?",
    )


def test_files_that_are_empty(recipe_of: Recipe, run: Run, tmp_path: Path) -> None:
    (tmp_path / "web.jsonl").touch()
    code, told = run(recipe_of())
    assert (code, told) == (
        3,
        "~/recipe.yaml:2: inputs.0.path: all 1 files are empty, the first is ~/web.jsonl",
    )


def test_files_of_blank_lines(recipe_of: Recipe, run: Run, tmp_path: Path) -> None:
    (tmp_path / "web.jsonl").write_bytes(b"\n \r\n\n")
    code, told = run(recipe_of())
    assert (code, told) == (3, "the inputs hold no documents: 5 bytes were read, no row")


def test_a_parquet_file_without_rows(recipe_of: Recipe, run: Run, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "web.parquet")
    code, told = run(recipe_of("path: web.parquet"))
    assert code == 3
    assert "the inputs hold no documents" in told


def _break(path: Path) -> None:
    data = b"".join(json.dumps({"text": text}).encode() + b"\n" for text in documents("sea", 20))
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": documents("sea", 20)}), path)
        content = bytearray(path.read_bytes())
        content[50:90] = b"x" * 40
    elif path.suffix == ".gz":
        content = bytearray(gzip.compress(data)[:-30])
    else:
        content = bytearray(pa.compress(data, codec="zstd", asbytes=True))
        content[4:20] = b"x" * 16
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["b.jsonl.gz", "b.jsonl.zst", "b.parquet"])
def test_a_broken_file(recipe_of: Recipe, run: Run, tmp_path: Path, name: str) -> None:
    _break(tmp_path / name)
    write_jsonl(tmp_path / "a.jsonl", [{"text": text} for text in documents("sea", 20)])
    paths = f'path: ["a.jsonl", "{name}"]'
    code, told = run(recipe_of(paths, CURATE))
    assert code == 3
    assert f"1 of 2 shards cannot be read:\n  ~/{name}: " in told
    assert "; restore or remove the file\nThey are listed in ~/run/stages/00-gopher_quality-" in told
    assert told.endswith("or set reading.on_bad_shard: skip to go on without them.")

    code, told = run(recipe_of(paths, CURATE + SKIP))
    assert code == 0
    assert f"broken shard 1: ~/{name}: " in told
    (quarantine,) = (tmp_path / "run").rglob("quarantine/*.json")
    assert f"{name}: " in json.loads(quarantine.read_text())["error"]
    (manifest,) = (tmp_path / "run").rglob("manifest.json")
    assert json.loads(manifest.read_text())["quarantined"].keys() == {"part-00001"}
    assert run(recipe_of(paths, CURATE + SKIP))[0] == 0
    assert run(recipe_of(paths, CURATE))[0] == 3


def test_files_that_are_all_broken(recipe_of: Recipe, run: Run, tmp_path: Path) -> None:
    _break(tmp_path / "b.jsonl.gz")
    code, told = run(recipe_of("path: b.jsonl.gz", SKIP))
    assert code == 3
    assert told.endswith("all 1 shards are broken; there is nothing to go on with")


@pytest.mark.parametrize(
    ("record", "reason", "detail"),
    [
        (b"{broken", "invalid_json", "; the record begins b'{broken'"),
        (b'{"text": "\xff"}', "invalid_utf8", ""),
        (b'{"text": null}', "no_text", "column 'text' is null"),
        (b'{"text": ["a"]}', "text_not_string", "column 'text' holds list, a string is needed"),
    ],
)
def test_broken_records_are_counted_under_the_fraction_and_refused_above_it(
    recipe_of: Recipe,
    run: Run,
    tmp_path: Path,
    record: bytes,
    reason: str,
    detail: str,
) -> None:
    path = write_jsonl(tmp_path / "web.jsonl", [{"text": text} for text in documents("sea", 20)])
    offset, n_rows = path.stat().st_size, len(documents("sea", 20)) + 1
    path.write_bytes(path.read_bytes() + record + b"\n")
    code, told = run(recipe_of(rest=CURATE))
    assert code == 3
    first, second, third = told.splitlines()
    share = f"{1 / n_rows:.1%}"
    assert first == (
        f"1 of {n_rows} records cannot be read ({share}), reading.max_unreadable_fraction is 0.01:"
    )
    assert second.startswith(f"  ~/web.jsonl: byte {offset}: ")
    assert detail in second
    assert third == "Repair the input, map its columns, or raise the fraction to go on without these records."

    code, told = run(recipe_of(rest=CURATE + "reading: {max_unreadable_fraction: 0.1}\n"))
    assert (code, told) == (0, "")
    (manifest,) = (tmp_path / "run").rglob("manifest.json")
    assert json.loads(manifest.read_text())["accounting"]["unreadable"] == {reason: 1}
    assert run(recipe_of(rest=CURATE))[0] == 3, "a complete stage is judged by the fraction of now"


def test_a_text_file_and_a_parquet_row_that_are_not_utf8(recipe_of: Recipe, run: Run, tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_bytes(b"abc \xff")
    assert run(recipe_of("path: c.txt"))[1].splitlines()[1] == (
        "  ~/c.txt: byte 4: invalid start byte, found b'\\xff'"
    )
    broken = pa.Array.from_buffers(pa.string(), 1, pa.array([b"b\xffd"]).buffers())
    pq.write_table(pa.table({"text": broken}), tmp_path / "c.parquet")
    assert run(recipe_of("path: c.parquet"))[1].splitlines()[1] == (
        "  ~/c.parquet: row 0: column 'text' is not UTF-8"
    )


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_missing_text_column(recipe_of: Recipe, run: Run, tmp_path: Path, kind: str) -> None:
    if kind == "parquet":
        pq.write_table(pa.table({"content": ["x"], "n": [1]}), tmp_path / "web.parquet")
    else:
        write_jsonl(tmp_path / "web.jsonl", [{"content": "x", "n": 1}])
    assert run(recipe_of(f"path: web.{kind}")) == (
        3,
        f"~/recipe.yaml:2: inputs.0.path: ~/web.{kind} has no column 'text' for the document's text; "
        "it has 'content', 'n'; set columns: {text: NAME}",
    )


def test_parquet_text_that_is_no_text(recipe_of: Recipe, run: Run, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "web.parquet")
    assert run(recipe_of("path: web.parquet")) == (
        3,
        "~/recipe.yaml:2: inputs.0.path: column 'text' of ~/web.parquet holds int64, a string column is "
        "needed for text; map another one with columns: {text: NAME}",
    )


@pytest.mark.parametrize(
    ("curate", "told"),
    [
        (
            "[gopher_qualty]",
            "~/recipe.yaml:3: curate.0: unknown operator 'gopher_qualty'; did you mean 'gopher_quality'?\n"
            "    3 | curate: [gopher_qualty]",
        ),
        (
            "[gopher_quality: {min_word: 5}]",
            "~/recipe.yaml:3: curate.0.gopher_quality.min_word: unknown key; did you mean 'min_words'?\n"
            "    3 | curate: [gopher_quality: {min_word: 5}]",
        ),
    ],
)
def test_an_unknown_operator_or_parameter(
    recipe_of: Recipe, run: Run, tmp_path: Path, curate: str, told: str
) -> None:
    write_jsonl(tmp_path / "web.jsonl", [{"text": "x"}])
    assert run(recipe_of(rest=f"curate: {curate}\n")) == (2, told)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("curate", "code", "told"),
    [
        (
            "[where: {keep: stras > 3}]",
            3,
            "where: there is no column 'stras'; did you mean 'stars'?\n  stras",
        ),
        ("[where: {keep: text == 5}]", 3, "where: this does not work on large_string and int64\n  text == 5"),
        ("[where: {keep: stars}]", 3, "where: this column holds int64; compare it with something\n  stars"),
        (f"[where: {{keep: stars > {2**63}}}]", 2, "keep: this number has more than 64 bits"),
        (
            "[random_calibrated: {score_column: stras}]",
            3,
            "there is no column 'stras'; did you mean 'stars'?",
        ),
        ("[random_calibrated: {score_column: text}]", 3, "column 'text' holds large_string, numbers are"),
        (
            "[exact_dedup: {keep: newest, by: text}]",
            3,
            "exact_dedup.by: document 'web/web.jsonl:0' has 'once again', which is no ISO 8601 time",
        ),
        (f"[gopher_quality: {{min_words: {2**70}}}]", 3, "stage gopher_quality dropped all 2 documents"),
        ("[minhash_dedup: {keep: newest, by: text}]", 0, ""),  # two words have no n-gram, so no duplicate
    ],
)
def test_columns_that_do_not_suit_an_operator(
    recipe_of: Recipe, run: Run, tmp_path: Path, curate: str, code: int, told: str
) -> None:
    write_jsonl(tmp_path / "web.jsonl", [{"text": "once again", "stars": 4}] * 2)
    found = run(recipe_of(rest=f"curate: {curate}\n"))
    assert found[0] == code
    assert told in found[1]


def test_a_single_document_of_200_mb(recipe_of: Recipe, tmp_path: Path) -> None:
    # Nulls cost no disk; JSON forbids them in a string, but the length is known before the content is judged.
    with (tmp_path / "web.jsonl").open("wb") as stream:
        for text in documents("sea", 20):
            stream.write(json.dumps({"text": text}).encode() + b"\n")
        stream.truncate(stream.tell() + 200_000_000)
        stream.seek(0, os.SEEK_END)
        stream.write(b"\n" + json.dumps({"text": "the last"}).encode() + b"\n")
    rest = "reading: {max_unreadable_fraction: 0.1}\n" + CURATE
    command = [
        sys.executable,
        "-c",
        f"import sys; sys.argv[1:] = {['run', str(recipe_of(rest=rest))]}\n" + RUNNER,
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    (manifest,) = (tmp_path / "runs/recipe/stages").rglob("manifest.json")
    accounting = json.loads(manifest.read_text())["accounting"]
    assert accounting["unreadable"] == {"too_long": 1}
    assert accounting["rows_in"] == len(documents("sea", 20)) + 2
    grown_mb = float(done.stdout.splitlines()[-1])
    assert grown_mb < 300, "more than a few times max_document_bytes"


RUNNER = """
import resource, sys
from cuvee.pipeline import run as _
from cuvee.pipeline.cli import main
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
code = main(sys.argv[1:])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1000)
sys.exit(code)
"""


def test_a_document_of_60_mb_is_read(recipe_of: Recipe, run: Run, tmp_path: Path) -> None:
    texts = ["word " * 12_000_000, "short"]
    write_jsonl(tmp_path / "web.jsonl", [{"text": text} for text in texts])
    assert run(recipe_of()) == (0, "")
    parts = sorted((tmp_path / "run" / "stages").glob("*/part-*.parquet"))
    assert [text for part in parts for text in pq.read_table(part)["text"].to_pylist()] == texts


def test_every_document_dropped(recipe_of: Recipe, run: Run, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "web.jsonl", [{"text": "too short"}] * 3)
    code, told = run(recipe_of(rest=CURATE))
    assert code == 3
    assert told.startswith(
        "stage gopher_quality dropped all 3 documents: gopher_quality.gopher_short_doc 3; "
        "look at them in ~/run/stages/"
    )
    assert told.endswith("/dropped and move the thresholds")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])


def _flip(path: Path) -> None:
    """Change bytes of the first column's pages."""
    content = bytearray(path.read_bytes())
    content[100:400] = bytes(255 - byte for byte in content[100:400])
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("pattern", "damage"),
    [
        ("00-*/part-00000.parquet", _cut),
        ("00-*/part-00000.parquet", _flip),
        ("01-*/part-00000.parquet", _cut),
        ("00-*/dropped/part-00000.parquet", _cut),
        ("00-*/fit/state.arrow", _cut),
        ("00-*/manifest.json", _cut),
    ],
)
def test_a_damaged_file_of_the_run_is_named_and_made_again_where_it_is_removed(
    recipe_of: Recipe, run: Run, tmp_path: Path, pattern: str, damage: Callable[[Path], None]
) -> None:
    write_jsonl(tmp_path / "web.jsonl", [{"text": text} for text in documents("sea", 20)])
    recipe = recipe_of(rest="curate: [gopher_quality, exact_dedup]\n")
    assert run(recipe)[0] == 0
    undisturbed = file_bytes(tmp_path / "run")
    (path,) = (tmp_path / "run/stages").glob(pattern)
    damage(path)
    code, told = run(recipe)
    assert code == 3
    assert told.startswith(f"{path}: the file is not what was written: ".replace(str(tmp_path), "~"))
    assert told.endswith("; remove it and run again")
    path.unlink()
    assert run(recipe)[0] == 0
    assert file_bytes(tmp_path / "run") == undisturbed


@contextlib.contextmanager
def _tmpfs(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True
        ).returncode
    ):
        pytest.skip("mounting a tmpfs needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk(recipe_of: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = os.urandom(3_000_000).hex()
    texts = documents("sea", 20) + [random[i : i + 20_000] for i in range(0, len(random), 20_000)]
    write_jsonl(tmp_path / "web.jsonl", [{"text": text} for text in texts])
    recipe = recipe_of(rest="reading: {shard_bytes: 500kB}\n")
    with _tmpfs(tmp_path / "small", "size=2m") as small:
        assert main(["run", str(recipe), "--run-dir", str(small / "run"), "--workers", "1"]) == 4
        told = capsys.readouterr().err.splitlines()[-1]
        assert told.startswith(f"{small}/run")
        assert "the disk is full, " in told
        assert told.endswith(
            "MB are free; make room and run the same command again: it continues with what is missing"
        )
        done = {path.name: path.stat().st_mtime_ns for path in small.rglob("stages/*/part-*")}
        assert done
        assert not list(small.rglob(".*.tmp"))
        subprocess.run(["mount", "-o", "remount,size=20m", small], check=True)
        assert main(["run", str(recipe), "--run-dir", str(small / "run")]) == 0
        again = {path.name: path.stat().st_mtime_ns for path in small.rglob("stages/*/part-*")}
        assert len(again) > len(done)
        assert done.items() <= again.items()


def test_a_read_only_disk(recipe_of: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(tmp_path / "web.jsonl", [{"text": "x"}])
    with _tmpfs(tmp_path / "fixed", "ro") as fixed:
        assert main(["run", str(recipe_of()), "--run-dir", str(fixed / "run")]) == 4
    assert capsys.readouterr().err == (
        f"{fixed}/run: cannot be written (Read-only file system); "
        "change its permissions, or choose another folder with --run-dir\n"
    )


def test_a_run_directory_below_a_file(
    recipe_of: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    web = write_jsonl(tmp_path / "web.jsonl", [{"text": "x"}])
    for folder, reason in ((web, "File exists"), (web / "run", "Not a directory")):
        assert main(["run", str(recipe_of()), "--run-dir", str(folder)]) == 4
        assert capsys.readouterr().err == (
            f"{folder}: cannot be a folder ({reason}); choose another one with --run-dir\n"
        )


def test_a_run_directory_in_use(recipe_of: Recipe, run: Run, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "web.jsonl", [{"text": "x"}])
    (tmp_path / "run").mkdir()
    with (tmp_path / "run/run.lock").open("w") as lock:
        lock.write("4711")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert run(recipe_of()) == (
            4,
            "~/run is in use by another run (process 4711); wait for it, or choose another folder with "
            "--run-dir",
        )
    assert run(recipe_of()) == (0, "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file or directory"),
        ("{}", "is no tokenizer.json that can be used: "),
        ('{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}', "has none of the end-of-text tokens"),
    ],
)
def test_a_tokenizer_that_cannot_be_used(
    recipe_of: Recipe, run: Run, tmp_path: Path, content: str | None, message: str
) -> None:
    write_jsonl(tmp_path / "web.jsonl", [{"text": "x"}])
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
    code, told = run(recipe_of(rest="tokenize: {tokenizer: tokenizer.json}\n"))
    assert code == 3
    assert told.startswith("~/recipe.yaml:3: tokenize.tokenizer: ~/tokenizer.json ")
    assert message in told


def test_a_domain_too_small_to_hold_out_anything(recipe_of: Recipe, run: Run, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "web.jsonl", [{"text": "only one document"}])
    code, told = run(recipe_of(rest="tokenize: {vocab_size: 300}\n"))
    assert code == 3
    assert told == (
        "domain 'web' has 1 documents and none of them fell into its validation split; change "
        "tokenize.validation_fraction, give the domain more documents, or merge it into another"
    )


def test_a_domain_name_that_no_folder_takes(recipe_of: Recipe, run: Run, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "web.jsonl", [{"text": "a b c", "domain": "蔵" * 40}] * 4)
    code, told = run(recipe_of(rest="tokenize: {vocab_size: 300}\n"))
    assert code == 3
    assert "its quoted name has 360 bytes; a folder takes 1 to 255; shorten it" in told


def test_ctrl_c_ends_a_run_that_goes_on_when_it_is_started_again(
    recipe_of: Recipe, run: Run, tmp_path: Path
) -> None:
    write_jsonl(tmp_path / "web.jsonl", [{"text": text} for text in documents("sea", 400)])
    recipe = recipe_of(rest="reading: {shard_bytes: 5kB}\n" + CURATE)
    # A shell's background jobs, and all that they start, ignore SIGINT unless they say otherwise.
    program = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program += "from cuvee.pipeline.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "run", str(recipe), "--workers", "1"]
    with subprocess.Popen(
        [*command, "--run-dir", str(tmp_path / "run")], stderr=subprocess.PIPE, text=True
    ) as process:
        while process.poll() is None and not any(tmp_path.glob("run/stages/*/part-*.parquet")):
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate()
    assert process.returncode == 130, told
    assert told.endswith("interrupted; the same command goes on from here\n")
    assert not list((tmp_path / "run").rglob("manifest.json"))
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("stages/*/part-*")}
    assert done
    assert run(recipe)[0] == 0
    assert done == {path: path.stat().st_mtime_ns for path in done}

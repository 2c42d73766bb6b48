"""Files to document tables: nothing is lost at a cut, and what cannot be read is named."""

import gzip
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.pipeline import lines as lines_module
from cuvee.pipeline.listing import list_files, list_shards
from cuvee.pipeline.reading import BrokenShardError, Reader, Reading
from cuvee.pipeline.recipe import Input
from cuvee.pipeline.row_limits import key_limit

WHERE = "web.yaml:3: inputs.0.path"
LONG = 10_000_000
DOCUMENT = ["id", "text", "source", "url", "lang", "domain"]


def _input(*paths: Path, **keys: Any) -> Input:
    return Input(source="web", path=tuple(map(str, paths)), **keys)


def _readings(source: Input, shard_bytes: int = 10**9, max_document_bytes: int = LONG) -> list[Reading]:
    shards = list_shards(0, source, list_files(source, WHERE), shard_bytes, WHERE)
    reader = Reader(source, max_document_bytes, 0, key_limit(source, 0, shards))
    return [reader.read(shard) for shard in shards]


def _rows(readings: Sequence[Reading]) -> list[tuple[str, str]]:
    tables = [one.table() for one in readings]
    return [pair for t in tables for pair in zip(t["id"].to_pylist(), t["text"].to_pylist(), strict=True)]


def _unreadable(readings: Sequence[Reading]) -> list[dict[str, str]]:
    return [row for one in readings for row in one.unreadable.to_pylist()]


def _one(source: Input) -> pa.Table:
    (only,) = _readings(source)
    table = only.table()
    assert table.schema.field("text").type == pa.large_string()
    assert table.column_names[:6] == DOCUMENT
    return table


def _jsonl(folder: Path, *records: Any, name: str = "a.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


LINES = st.one_of(
    st.text(max_size=12).map(lambda text: json.dumps({"text": text}, ensure_ascii=False).encode()),
    st.sampled_from(
        [
            *(b"", b"  ", b"\r", b"{", b"[1]", b"null", b'"text"', b'{"text": null}', b'{"text": 7}', b"{}"),
            b'{"text": "\xff\xfe"}',
            b'{"text": "a"}\r',
            b'{"text": "\\ud800"}',
            b'{"text": "' + b"x" * 50 + b'"}',
        ]
    ),
)


@settings(max_examples=150)
@given(
    lines=st.lists(LINES, min_size=1, max_size=12),
    ends_with_newline=st.booleans(),
    shard_bytes=st.integers(1, 80),
    block_bytes=st.integers(1, 40),
    limits=st.sampled_from([{}, {"max_rows": 3}, {"max_bytes": 60}]),
)
def test_any_cut_gives_the_same_rows_and_unreadable_records(
    lines: list[bytes], ends_with_newline: bool, shard_bytes: int, block_bytes: int, limits: dict[str, int]
) -> None:
    content = b"\n".join(lines) + b"\n" * ends_with_newline
    content = content or b"\n"
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder, "a.jsonl")
        path.write_bytes(content)
        whole = _readings(_input(path, **limits), max_document_bytes=40)
        patch.setattr(lines_module, "BLOCK_BYTES", block_bytes)
        cut = _readings(_input(path, **limits), shard_bytes, max_document_bytes=40)
    assert _rows(cut) == _rows(whole)
    assert _unreadable(cut) == _unreadable(whole)
    assert sum(one.n_over_limit for one in cut) == sum(one.n_over_limit for one in whole)
    if not limits:
        n_records = sum(1 for line in content.split(b"\n") if line.strip())
        assert len(_rows(cut)) + len(_unreadable(cut)) == n_records


def test_every_single_cut_of_a_file_gives_the_same_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "one"}\r\n\n \n{"text": "\xc3\xa9"}\nbroken\n{"text": "last"}')
    source = _input(path)
    whole = _readings(source)
    assert [text for _, text in _rows(whole)] == ["one", "é", "last"]
    for shard_bytes in range(1, path.stat().st_size + 1):
        cut = _readings(source, shard_bytes)
        assert _rows(cut) == _rows(whole)
        assert _unreadable(cut) == _unreadable(whole)


def test_ids_name_source_file_and_byte_offset(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/a.jsonl").write_bytes(b'{"text": "one"}\n\n{"text": "two"}\n')
    assert [row for row, _ in _rows(_readings(_input(tmp_path)))] == [
        "web/sub/a.jsonl:0",
        "web/sub/a.jsonl:17",
    ]


def test_a_line_of_many_blocks_is_read_whole_and_only_by_the_shard_it_begins_in(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    text = "word " * 4_000_000
    path.write_text(json.dumps({"text": "a"}) + "\n" + json.dumps({"text": text}) + "\n" + '{"text": "z"}')
    source = _input(path)
    readings = _readings(source, shard_bytes=2_000_000, max_document_bytes=64_000_000)
    assert len(readings) == 10
    texts = [value for _, value in _rows(readings)]
    assert (texts[0], len(texts[1]), texts[2]) == ("a", 20_000_000, "z")


def test_a_byte_order_mark_is_no_part_of_the_first_record(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "one"}\n{"text": "two"}\n')
    assert _rows(_readings(_input(tmp_path / "a.jsonl"))) == [
        ("web/a.jsonl:0", "one"),
        ("web/a.jsonl:19", "two"),
    ]


@pytest.mark.parametrize("codec", ["gz", "zst"])
def test_compressed_jsonl_gives_the_rows_of_the_plain_file(tmp_path: Path, codec: str) -> None:
    data = b"".join(b'{"text": "row %d"}\n' % i for i in range(50_000))
    members = [data[: len(data) // 2], data[len(data) // 2 :]]
    compress: Callable[[bytes], bytes] = (
        gzip.compress if codec == "gz" else lambda part: pa.compress(part, codec="zstd", asbytes=True)
    )
    (tmp_path / f"a.jsonl.{codec}").write_bytes(b"".join(map(compress, members)))
    (tmp_path / "a.jsonl").write_bytes(data)
    compressed = _rows(_readings(_input(tmp_path / f"a.jsonl.{codec}")))
    plain = _rows(_readings(_input(tmp_path / "a.jsonl")))
    assert [(row.replace(f".{codec}:", ":"), text) for row, text in compressed] == plain


def test_columns_are_mapped_and_the_rest_passes_through(tmp_path: Path) -> None:
    path = _jsonl(
        tmp_path, {"key": 7, "body": "x", "link": "http://a", "stars": 3, "tags": ["a"], "lang": "en"}
    )
    table = _one(_input(path, columns={"text": "body", "id": "key", "url": "link"}))
    assert table.to_pylist() == [
        {"id": "7", "text": "x", "source": "web", "url": "http://a", "lang": "en", "domain": "web"}
        | {"stars": 3, "tags": ["a"]}
    ]


def test_ids_of_mixed_types_are_the_values_themselves(tmp_path: Path) -> None:
    path = _jsonl(tmp_path, *({"id": value, "text": "x"} for value in ("a", 7, None, 1.5, "", True)))
    ids = _one(_input(path))["id"].to_pylist()
    assert [ids[i] for i in (0, 1, 3, 5)] == ["a", "7", "1.5", "true"]
    assert ids[2].startswith("web/a.jsonl:")
    assert ids[4].startswith("web/a.jsonl:")


def test_ids_may_repeat(tmp_path: Path) -> None:
    table = _one(_input(_jsonl(tmp_path, {"id": "same", "text": "a"}, {"id": "same", "text": "b"})))
    assert table["id"].to_pylist() == ["same", "same"]


@pytest.mark.parametrize(
    ("keys", "domains"),
    [
        ({}, ["law", "web", "web", "web"]),
        ({"domain": "all"}, ["all"] * 4),
        ({"columns": {"domain": "topic"}}, ["wine", "web", "sea", "web"]),
    ],
)
def test_the_domain_is_the_constant_or_the_column_or_the_source(
    tmp_path: Path, keys: dict[str, Any], domains: list[str]
) -> None:
    records = [
        {"domain": "law", "topic": "wine"},
        {"domain": None},
        {"topic": "sea"},
        {"domain": "", "topic": ""},
    ]
    path = _jsonl(tmp_path, *({"text": "x"} | record for record in records))
    assert _one(_input(path, **keys))["domain"].to_pylist() == domains


def test_extra_columns_of_mixed_types_are_kept_as_json_text(tmp_path: Path) -> None:
    path = _jsonl(
        tmp_path, {"text": "a", "x": 1}, {"text": "b", "x": "one"}, {"text": "c"}, {"text": "d", "x": [1]}
    )
    assert _one(_input(path))["x"].to_pylist() == ["1", '"one"', None, "[1]"]


def test_extra_columns_that_parquet_cannot_hold_are_kept_as_json_text(tmp_path: Path) -> None:
    path = _jsonl(tmp_path, {"text": "a", "meta": {}, "deep": [{"x": {}}], "big": 2**70, "none": None})
    table = _one(_input(path))
    assert table.select(["meta", "deep", "none"]).to_pylist() == [
        {"meta": "{}", "deep": '[{"x":{}}]', "none": None}
    ]
    pq.write_table(table, tmp_path / "part.parquet")


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "dictionary"])
@pytest.mark.parametrize("limits", [{}, {"max_rows": 2}, {"max_bytes": 4}])
def test_parquet_text_of_any_string_type_is_read(tmp_path: Path, kind: str, limits: dict[str, int]) -> None:
    text = pa.array(["one", "two", None, "one"])
    typed = text.dictionary_encode() if kind == "dictionary" else text.cast(getattr(pa, kind)())
    pq.write_table(pa.table({"text": typed, "stars": [1, 2, 3, 4]}), tmp_path / "a.parquet", row_group_size=2)
    readings = _readings(_input(tmp_path / "a.parquet", **limits), 1)
    n_rows = len(_rows(readings)) + len(_unreadable(readings))
    assert n_rows + sum(one.n_over_limit for one in readings) == 4
    if not limits:
        assert _rows(readings) == [
            ("web/a.parquet:0", "one"),
            ("web/a.parquet:1", "two"),
            ("web/a.parquet:3", "one"),
        ]
        (rejected,) = _unreadable(readings)
        assert (rejected["id"], rejected["reason"]) == ("web/a.parquet:2", "no_text")
        assert rejected["read.detail"] == f"{tmp_path}/a.parquet: row 2: column 'text' is null"


@pytest.mark.parametrize("column", ["text", "id", "url"])
def test_parquet_strings_that_are_not_utf8_make_their_row_unreadable(tmp_path: Path, column: str) -> None:
    broken = pa.Array.from_buffers(pa.string(), 2, pa.array([b"good", b"b\xffd"]).buffers())
    table = pa.table({"text": ["a", "b"]} | {column: broken})
    pq.write_table(table, tmp_path / "a.parquet")
    readings = _readings(_input(tmp_path / "a.parquet"))
    assert len(_rows(readings)) == 1
    (rejected,) = _unreadable(readings)
    assert (rejected["id"], rejected["reason"]) == ("web/a.parquet:1", "invalid_utf8")
    assert f"row 1: column '{column}' is not UTF-8" in rejected["read.detail"]


def test_each_text_file_is_a_document(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbfsecond\r\n")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"first"))
    (tmp_path / "c.txt").write_bytes(b"bad \xff\xfe here")
    readings = _readings(_input(tmp_path))
    assert _rows(readings) == [("web/a.txt.gz", "first"), ("web/b.txt", "second\r\n")]
    (rejected,) = _unreadable(readings)
    assert rejected["read.detail"] == (
        f"{tmp_path}/c.txt: byte 4: invalid start byte, found b'\\xff\\xfe here'"
    )


@pytest.mark.parametrize("suffix", ["txt", "txt.gz", "jsonl", "jsonl.gz", "parquet"])
def test_a_document_that_is_too_long_is_unreadable_in_every_format(tmp_path: Path, suffix: str) -> None:
    path, text = tmp_path / f"a.{suffix}", "x" * 1000
    data = text.encode() if suffix.startswith("txt") else json.dumps({"text": text}).encode()
    if suffix == "parquet":
        pq.write_table(pa.table({"text": [text]}), path)
    else:
        path.write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    readings = _readings(_input(path), max_document_bytes=999)
    (rejected,) = _unreadable(readings)
    assert _rows(readings) == []
    assert rejected["reason"] == "too_long"
    assert "reading.max_document_bytes is 999; raise it to read this document" in rejected["read.detail"]


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b"{broken", "invalid_json", "byte 14: .*; the record begins b'{broken'"),
        (b'{"text": "\xff"}', "invalid_utf8", "byte 14: "),
        (b"[1]", "not_an_object", "found list, a JSON object is needed"),
        (b'{"body": "x"}', "no_text", "column 'text' is missing, there are body"),
        (b'{"text": null}', "no_text", "column 'text' is null"),
        (b'{"text": 7}', "text_not_string", "column 'text' holds int, a string is needed"),
    ],
)
def test_a_broken_record_is_named_with_its_offset(
    tmp_path: Path, line: bytes, reason: str, detail: str
) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n' + line + b'\n{"text": "b"}\n')
    readings = _readings(_input(tmp_path / "a.jsonl"))
    assert [text for _, text in _rows(readings)] == ["a", "b"]
    table = readings[0].unreadable
    assert table["reason"].to_pylist() == [reason]
    assert table["id"].to_pylist() == ["web/a.jsonl:14"]
    assert re.search(detail, table["read.detail"][0].as_py())


def _truncated(path: Path) -> Path:
    data = b'{"text": "some text that goes on"}\n' * 1000
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": [f"row {i}" for i in range(1000)]}), path)
        path.write_bytes(path.read_bytes()[:-20])
    else:
        packed = (
            gzip.compress(data) if path.suffix == ".gz" else pa.compress(data, codec="zstd", asbytes=True)
        )
        path.write_bytes(packed[:-10])
    return path


@pytest.mark.parametrize("limits", [{}, {"max_rows": 3}])
@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst", "a.parquet", "a.txt.gz"])
def test_a_truncated_file_breaks_its_shard(tmp_path: Path, name: str, limits: dict[str, int]) -> None:
    path = _truncated(tmp_path / name)
    with pytest.raises(BrokenShardError, match=f"{path}: .*; restore or remove the file"):
        _readings(_input(path, **limits))


def test_a_shard_without_rows_still_has_the_documents_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"broken\n")
    table = _one(_input(tmp_path / "a.jsonl"))
    assert (table.column_names, table.num_rows) == (DOCUMENT, 0)


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 60), min_size=1, max_size=40),
    max_rows=st.one_of(st.none(), st.integers(1, 45)),
    max_bytes=st.one_of(st.none(), st.integers(1, 1500)),
    shard_bytes=st.integers(20, 600),
)
def test_limits_are_exact_and_independent_of_the_sharding(
    sizes: list[int], max_rows: int | None, max_bytes: int | None, shard_bytes: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = _jsonl(Path(folder), *({"text": "x" * n} for n in sizes))
        source = _input(path, max_rows=max_rows, max_bytes=max_bytes)
        whole, cut = _readings(source), _readings(source, shard_bytes)
    assert _rows(cut) == _rows(whole)
    n_taken, n_bytes = len(_rows(whole)), sum(len(text) + len('{"text": ""}') for _, text in _rows(whole))
    assert n_taken + sum(one.n_over_limit for one in cut) == len(sizes)
    assert n_taken <= (max_rows or n_taken)
    assert n_bytes <= (max_bytes or n_bytes)
    if max_bytes is None:
        assert n_taken == min(len(sizes), max_rows or len(sizes))


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "txt"])
def test_a_larger_limit_takes_what_a_smaller_one_took_and_more(tmp_path: Path, kind: str) -> None:
    texts = [f"document {i} {'x' * (i % 7)}" for i in range(40)]
    if kind == "jsonl":
        _jsonl(tmp_path, *({"text": text} for text in texts))
    elif kind == "parquet":
        pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=7)
    else:
        for i, text in enumerate(texts):
            (tmp_path / f"{i:02d}.txt").write_text(text)
    taken = [set(_rows(_readings(_input(tmp_path, max_rows=n), 100))) for n in range(1, 41)]
    assert [len(rows) for rows in taken] == list(range(1, 41))
    assert all(few < more for few, more in pairwise(taken))
    by_bytes = [_rows(_readings(_input(tmp_path, max_bytes=n), 100)) for n in range(1, 900, 50)]
    assert all(set(few) <= set(more) for few, more in pairwise(by_bytes))


def test_a_limit_counts_the_text_of_a_compressed_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"x" * 1000))
    assert _rows(_readings(_input(tmp_path, max_bytes=999))) == []
    assert len(_rows(_readings(_input(tmp_path, max_bytes=1000)))) == 1

"""Which files an input means, and where they are cut."""

import gzip
import re
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cuvee.pipeline.errors import InputError
from cuvee.pipeline.listing import File, check_first_records, list_files, list_shards
from cuvee.pipeline.recipe import Input

WHERE = "web.yaml:3: inputs.0.path"


def _input(*paths: Path | str, **keys: object) -> Input:
    return Input(source="web", path=tuple(map(str, paths)), **keys)  # type: ignore[arg-type]


def _touch(folder: Path, *names: str, content: bytes = b"x") -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def _names(source: Input) -> list[str]:
    return [file.relative for file in list_files(source, WHERE)]


def test_a_folder_means_all_files_below_it_in_the_order_of_their_paths(tmp_path: Path) -> None:
    _touch(tmp_path, "b.jsonl", "a/z.jsonl", "a/b/c.txt")
    assert _names(_input(tmp_path)) == ["a/b/c.txt", "a/z.jsonl", "b.jsonl"]


def test_a_file_that_two_patterns_match_is_read_once(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jsonl", "b.jsonl")
    assert _names(_input(tmp_path / "*.jsonl", tmp_path / "a.*")) == ["a.jsonl", "b.jsonl"]


def test_names_are_relative_to_the_folder_that_all_patterns_share(tmp_path: Path) -> None:
    _touch(tmp_path, "x/2023/a.jsonl", "x/2024/a.jsonl")
    assert _names(_input(tmp_path / "x/2024/*", tmp_path / "x/2023/*")) == ["2023/a.jsonl", "2024/a.jsonl"]


def test_excluded_files_are_left_out(tmp_path: Path) -> None:
    _touch(tmp_path, "a.py", "test_a.py", "sub/test_b.py")
    assert _names(_input(tmp_path, exclude=("**/test_*",))) == ["a.py"]
    with pytest.raises(InputError, match="all 3 files that match are excluded by"):
        list_files(_input(tmp_path, exclude=("**",)), WHERE)


@pytest.mark.parametrize(
    "name", ["with space.jsonl", "ünïcode/蔵.jsonl", "part[1].jsonl", "100%.jsonl", "a#b.jsonl"]
)
def test_any_name_that_exists_can_be_read(tmp_path: Path, name: str) -> None:
    _touch(tmp_path / "data [raw]", name)
    assert _names(_input(tmp_path / "data [raw]" / name)) == [Path(name).name]
    assert _names(_input(tmp_path / "data [raw]")) == [name]


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    _touch(tmp_path, "real/a.jsonl")
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "real/a.jsonl")
    (tmp_path / "folder").symlink_to(tmp_path / "real")
    (file,) = list_files(_input(tmp_path / "link.jsonl"), WHERE)
    assert (file.relative, file.n_bytes) == ("link.jsonl", 1)
    assert _names(_input(tmp_path / "folder")) == ["a.jsonl"]


def test_a_path_that_is_not_there_gets_a_near_match(tmp_path: Path) -> None:
    _touch(tmp_path, "corpus/wiki.jsonl")
    with pytest.raises(InputError) as caught:
        list_files(_input(tmp_path / "corpus/wikis.jsonl"), WHERE)
    assert str(caught.value) == (
        f"{WHERE}: no file matches '{tmp_path}/corpus/wikis.jsonl'; "
        f"in '{tmp_path}/corpus' there is 'wiki.jsonl': did you mean that?"
    )


def test_a_folder_that_is_not_there_is_told_where_the_path_still_exists(tmp_path: Path) -> None:
    _touch(tmp_path, "corpus/wiki.jsonl")
    with pytest.raises(InputError, match=f"in '{tmp_path}' there is 'corpus': did you mean that"):
        list_files(_input(tmp_path / "corpsu/deep/*.jsonl"), WHERE)
    with pytest.raises(InputError, match=f"'{tmp_path}' exists and holds 1 entries, none like 'nowhere'"):
        list_files(_input(tmp_path / "nowhere/*.jsonl"), WHERE)


def test_files_that_are_all_empty_are_refused(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jsonl", "b.jsonl", content=b"")
    with pytest.raises(InputError, match="all 2 files are empty, the first is "):
        list_files(_input(tmp_path / "*.jsonl"), WHERE)


def test_paths_of_two_file_systems_in_one_input_are_refused(tmp_path: Path) -> None:
    with fsspec.open("memory://bucket/a.jsonl", "wb") as stream:
        stream.write(b"x")
    _touch(tmp_path, "a.jsonl")
    with pytest.raises(InputError, match="one input is of one file system; found 'file' and 'memory'"):
        list_files(_input(tmp_path / "a.jsonl", "memory://bucket/*.jsonl"), WHERE)


@pytest.mark.parametrize(
    ("name", "kind", "codec"),
    [
        ("a.jsonl", "jsonl", None),
        ("a.ndjson.gz", "jsonl", "gzip"),
        ("a.json.zst", "jsonl", "zstd"),
        ("a.pq", "parquet", None),
        ("a.txt.gz", "text", "gzip"),
        ("a.py", "text", None),
        ("LICENSE", "text", None),
    ],
)
def test_suffixes_tell_format_and_compression(
    tmp_path: Path, name: str, kind: str, codec: str | None
) -> None:
    (file,) = list_files(_input(_touch(tmp_path, name) / name), WHERE)
    assert (file.format, file.codec) == (kind, codec)


def test_jsonl_is_cut_into_ranges_that_cover_it_once(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jsonl", content=b'{"text": "x"}\n' * 100)
    source = _input(tmp_path / "a.jsonl")
    shards = list_shards(0, source, list_files(source, WHERE), 100, WHERE)
    edges = [(shard.pieces[0].start, shard.pieces[0].stop) for shard in shards]
    assert len(edges) == 14
    assert [start for start, _ in edges] == [0, *(stop for _, stop in edges[:-1])]
    assert edges[-1][1] == 1400


def test_a_compressed_file_is_one_shard(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jsonl.gz", content=gzip.compress(b'{"text": "x"}\n' * 1000))
    source = _input(tmp_path / "a.jsonl.gz")
    assert len(list_shards(0, source, list_files(source, WHERE), 10, WHERE)) == 1


def test_parquet_is_cut_between_row_groups(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["x"] * 10}), tmp_path / "a.parquet", row_group_size=3)
    source = _input(tmp_path / "a.parquet")
    files = list_files(source, WHERE)
    ranges = [(s.pieces[0].start, s.pieces[0].stop) for s in list_shards(0, source, files, 1, WHERE)]
    assert ranges == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert len(list_shards(0, source, files, 10**9, WHERE)) == 1


def test_small_text_files_share_a_shard(tmp_path: Path) -> None:
    _touch(tmp_path, *[f"{i}.txt" for i in range(10)], content=b"x" * 10)
    source = _input(tmp_path)
    shards = list_shards(0, source, list_files(source, WHERE), 30, WHERE)
    assert [len(shard.pieces) for shard in shards] == [3, 3, 3, 1]


def _look(source: Input, files: list[File]) -> None:
    check_first_records(source, files[0], WHERE)
    list_shards(0, source, files, 10, WHERE)


@pytest.mark.parametrize("name", ["text", "stars"])
def test_a_parquet_file_with_two_columns_of_one_name_is_refused(tmp_path: Path, name: str) -> None:
    names = dict.fromkeys(["text", name])
    table = pa.Table.from_arrays([pa.array(["x"])] * (len(names) + 1), names=[*names, name])
    pq.write_table(table, tmp_path / "a.parquet")
    source = _input(tmp_path / "a.parquet")
    files = list_files(source, WHERE)
    with pytest.raises(InputError, match=rf"a\.parquet has 2 columns {name!r}; rename one of them"):
        _look(source, files)


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet"])
def test_a_missing_column_is_told_with_those_there_are(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"content": ["x"], "stars": [1]}), path)
    else:
        data = b'{"content": "x", "stars": 1}\n'
        path.write_bytes(gzip.compress(data) if kind.endswith("gz") else data)
    source = _input(path, columns={"text": "contents"})
    files = list_files(source, WHERE)
    message = (
        "has no column 'contents' for the document's text; it has 'content', 'stars'; did you mean 'content'?"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        _look(source, files)


def test_one_first_record_without_text_is_no_reason_to_refuse_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'\n{"note": "no text"}\n{"text": "x"}\n')
    source = _input(tmp_path / "a.jsonl")
    check_first_records(source, list_files(source, WHERE)[0], WHERE)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        (
            "text",
            pa.array([1, 2]),
            "column 'text' of .*a.parquet holds int64, a string column is needed for text",
        ),
        ("id", pa.array([[1], [2]]), "column 'id' of .*a.parquet holds list<.*>, .* is needed for id"),
    ],
)
def test_a_parquet_column_of_the_wrong_type_is_refused(
    tmp_path: Path, column: str, values: pa.Array, message: str
) -> None:
    pq.write_table(pa.table({"text": ["a", "b"]} | {column: values}), tmp_path / "a.parquet")
    source = _input(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=message):
        list_shards(0, source, list_files(source, WHERE), 10, WHERE)

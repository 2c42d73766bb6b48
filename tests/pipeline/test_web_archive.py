"""Web archives: every page is read once, and what is broken is named with its offset."""

import gzip
import itertools
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuvee.pipeline.listing import list_files, list_shards
from cuvee.pipeline.plan import make_plan
from cuvee.pipeline.reading import BrokenShardError, Reader, Reading
from cuvee.pipeline.recipe import Input, load_recipe
from cuvee.pipeline.row_limits import key_limit
from cuvee.pipeline.shard_work import ShardTask, run_shard
from cuvee.pipeline.web_archive import decode_page

pytest.importorskip("fastwarc", reason="fastwarc is not installed")
pytest.importorskip("resiliparse", reason="resiliparse is not installed")

WHERE = "web.yaml:3: inputs.0.path"


def record(kind: str, content: bytes, **headers: str) -> bytes:
    """One WARC record."""
    names = {"content_type": "Content-Type", "uri": "WARC-Target-URI", "length": "Content-Length"}
    fields = {"length": str(len(content)), "uri": "http://x.org/", **headers}
    lines = "".join(f"{names.get(name, name)}: {value}\r\n" for name, value in fields.items())
    head = f"WARC/1.0\r\nWARC-Type: {kind}\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
    return (head + lines + "\r\n").encode() + content + b"\r\n\r\n"


def http(body: bytes, status: str = "200 OK", content_type: str = "text/html", *headers: str) -> bytes:
    """The content of a response record."""
    lines = [
        f"HTTP/1.1 {status}",
        *([f"Content-Type: {content_type}"] if content_type else []),
        *headers,
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body


def response(text: str, **headers: str) -> bytes:
    """The record of a page."""
    return record(
        "response",
        http(f"<html>{text}".encode()),
        content_type="application/http; msgtype=response",
        **headers,
    )


def members(records: Sequence[bytes]) -> list[bytes]:
    """One gzip member for each record."""
    return [gzip.compress(one, mtime=0) for one in records]


def readings(
    path: Path, shard_bytes: int = 10**9, max_document_bytes: int = 10**6, **keys: Any
) -> list[Reading]:
    source = Input(source="web", path=(str(path),), **keys)
    shards = list_shards(0, source, list_files(source, WHERE), shard_bytes, WHERE)
    reader = Reader(source, max_document_bytes, 0, key_limit(source, 0, shards))
    return [reader.read(shard) for shard in shards]


def texts(found: Sequence[Reading]) -> list[str]:
    return [text.removeprefix("<html>") for one in found for text in one.table()["text"].to_pylist()]


def ids(found: Sequence[Reading]) -> list[str]:
    return [name for one in found for name in one.table()["id"].to_pylist()]


def damage(found: Sequence[Reading]) -> list[tuple[int, str]]:
    rows = [row for one in found for row in one.unreadable.to_pylist()]
    return [(int(row["id"].rsplit(":")[-1]), row["reason"]) for row in rows]


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def starts(pieces: Sequence[bytes]) -> list[int]:
    return list(itertools.accumulate(map(len, pieces), initial=0))


PAGES = [response(f"page {i} " + "wine " * 40 * i) for i in range(6)]


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz", "a.warc.zst"])
def test_pages_are_rows_with_their_offset_address_and_date(name: str, tmp_path: Path) -> None:
    import pyarrow as pa

    compress = {
        "a.warc": list,
        "a.warc.gz": members,
        "a.warc.zst": lambda records: [bytes(pa.compress(one, "zstd", asbytes=True)) for one in records],
    }[name]
    pieces = compress(
        [record("warcinfo", b"software: x"), *PAGES, record("request", b"GET / HTTP/1.1\r\n\r\n")]
    )
    found = readings(write(tmp_path / name, b"".join(pieces)))
    table = found[0].table()
    assert texts(found) == [f"page {i} " + "wine " * 40 * i for i in range(6)]
    assert ids(found) == [f"web/{name}:{start}" for start in starts(pieces)[1:7]]
    assert set(table["url"].to_pylist()) == {"http://x.org/"}
    assert set(table["warc.date"].to_pylist()) == {"2026-01-01T00:00:00Z"}
    assert set(table["warc.media_type"].to_pylist()) == {"text/html"}
    assert found[0].n_no_page == {"warcinfo": 1, "request": 1}


@pytest.mark.parametrize("name", ["a.wet", "a.warc.wet.gz"])
def test_wet_files_give_their_conversions(name: str, tmp_path: Path) -> None:
    pieces = [
        record("warcinfo", b"x"),
        record(
            "conversion",
            "Käse".encode(),
            content_type="text/plain",
            **{"WARC-Identified-Content-Language": "deu"},
        ),
    ]
    content = b"".join(members(pieces) if name.endswith("gz") else pieces)
    found = readings(write(tmp_path / name, content))
    assert texts(found) == ["Käse"]
    assert found[0].table()["warc.languages"].to_pylist() == ["deu"]


@settings(max_examples=30)
@given(shard_bytes=st.integers(20, 2000), limits=st.sampled_from([{}, {"max_rows": 3}, {"max_bytes": 900}]))
def test_any_cut_of_a_gzip_archive_gives_the_same_rows(
    shard_bytes: int, limits: dict[str, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = write(tmp_path_factory.mktemp("cut") / "a.warc.gz", b"".join(members(PAGES)))
    whole, cut = readings(path, **limits), readings(path, shard_bytes, **limits)
    assert ids(cut) == ids(whole)
    assert len(texts(whole)) == {(): 6, ("max_rows",): 3, ("max_bytes",): 1}[tuple(limits)]
    assert sum(one.n_over_limit for one in cut) == sum(one.n_over_limit for one in whole)


def test_an_archive_that_is_compressed_as_a_whole_is_read_whole_in_any_cut(tmp_path: Path) -> None:
    noise = [response("".join(f"{hash((i, j)):x}" for j in range(3000))) for i in range(9)]
    path = write(tmp_path / "a.warc.gz", gzip.compress(b"".join(noise)))
    whole, cut = readings(path), readings(path, 1000)
    assert len(cut) > 10
    assert ids(cut) == ids(whole)
    assert len(set(ids(whole))) == len(texts(whole)) == 9


@pytest.mark.parametrize("codec", [None, "gzip"])
def test_junk_between_records_costs_no_record(codec: str | None, tmp_path: Path) -> None:
    pieces = members(PAGES) if codec else list(PAGES)
    pieces.insert(3, b"junk\x1f\x8b\x08WARC/junk" * 7)
    found = readings(write(tmp_path / ("a.warc.gz" if codec else "a.warc"), b"".join(pieces)))
    assert [text.split()[1] for text in texts(found)] == list("012345")
    assert damage(found) == [(starts(pieces)[3], "broken_record")]


def test_blank_lines_between_records_are_no_damage(tmp_path: Path) -> None:
    found = readings(write(tmp_path / "a.warc", b"\r\n\n".join(PAGES)))
    assert len(texts(found)) == 6
    assert damage(found) == []


@pytest.mark.parametrize("at", [0, 1, 12, 60])
def test_a_member_whose_bytes_are_destroyed_costs_one_record(at: int, tmp_path: Path) -> None:
    pieces = members(PAGES)
    broken = bytearray(pieces[2])
    broken[at : at + 4] = bytes(byte ^ 0xFF for byte in broken[at : at + 4])
    pieces[2] = bytes(broken)
    found = readings(write(tmp_path / "a.warc.gz", b"".join(pieces)))
    assert [text.split()[1] for text in texts(found)] == list("01345")
    assert damage(found) == [(starts(pieces)[2], "broken_record")]


@pytest.mark.parametrize("codec", [None, "gzip"])
def test_a_truncated_archive_loses_its_last_record_and_says_so(codec: str | None, tmp_path: Path) -> None:
    pieces = members(PAGES) if codec else list(PAGES)
    name = "a.warc.gz" if codec else "a.warc"
    found = readings(write(tmp_path / name, b"".join(pieces)[:-60]))
    assert [text.split()[1] for text in texts(found)] == list("01234")
    assert [offset for offset, _ in damage(found)] == [starts(pieces)[5]]


def test_a_record_whose_length_is_too_large_swallows_no_other(tmp_path: Path) -> None:
    pieces = list(PAGES)
    pieces[1] = response("page 1", length="600")
    found = readings(write(tmp_path / "a.warc", b"".join(pieces)))
    assert [text.split()[1] for text in texts(found)] == list("02345")
    assert damage(found)[0] == (starts(pieces)[1], "broken_record")


@settings(max_examples=60, deadline=None)
@given(
    is_gzip=st.booleans(), holes=st.lists(st.tuples(st.integers(0, 1000), st.binary(min_size=1)), min_size=1)
)
def test_overwritten_bytes_crash_nothing_and_lose_nothing_in_silence(
    is_gzip: bool, holes: list[tuple[int, bytes]], tmp_path_factory: Any
) -> None:
    sound = b"".join(members(PAGES) if is_gzip else PAGES)
    content = bytearray(sound)
    for start, noise in holes:
        content[start : start + len(noise)] = noise
    path = tmp_path_factory.mktemp("damage") / ("a.warc.gz" if is_gzip else "a.warc")
    try:
        found = readings(write(path, bytes(content)))
    except BrokenShardError:
        return
    # Without a checksum, a plain archive can be overwritten into another sound one.
    whole = set(texts(readings(write(path, sound))))
    assert not is_gzip or whole <= set(texts(found)) or damage(found)


def test_a_file_that_is_no_archive_is_a_broken_shard(tmp_path: Path) -> None:
    with pytest.raises(BrokenShardError, match="no WARC record"):
        readings(write(tmp_path / "a.warc", b"filedesc://an.arc 127.0.0.1 20140301000000 text/plain 7\n"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (http(b"<p>gone", "404 Not Found"), "http_404"),
        (http(b"\x89PNG\r\n\x1a\n", content_type="image/png"), "other_media_type"),
        (http(b"\x89PNG\r\n\x1a\n", content_type=""), "other_media_type"),
    ],
)
def test_a_response_that_is_no_page_is_counted_by_what_it_is(
    content: bytes, reason: str, tmp_path: Path
) -> None:
    one = record("response", content, content_type="application/http; msgtype=response")
    found = readings(write(tmp_path / "a.warc", one + PAGES[0]))
    assert found[0].n_no_page == {reason: 1}
    assert len(texts(found)) == 1


DEFLATE = zlib.compressobj(wbits=-15)
RAW = DEFLATE.compress(b"<html>body") + DEFLATE.flush()


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"5\r\n<html\r\n5\r\n>body\r\n0\r\n\r\n", ["Transfer-Encoding: chunked"]),
        (gzip.compress(b"<html>body", mtime=0), ["Content-Encoding: gzip"]),
        (zlib.compress(b"<html>body"), ["Content-Encoding: deflate"]),
        (RAW, ["Content-Encoding: deflate"]),
        (
            b"%x\r\n%s\r\n0\r\n\r\n" % (len(RAW), RAW),
            ["Content-Encoding: deflate", "Transfer-Encoding: chunked"],
        ),
        (b"<html>body", ["Content-Encoding: gzip", "Transfer-Encoding: chunked"]),
        (b"<html>body", ["Content-Encoding: unknown"]),
    ],
)
def test_the_encodings_of_http_are_undone_where_they_are_there(
    body: bytes, headers: list[str], tmp_path: Path
) -> None:
    content = http(body, "200 OK", "text/html", *headers)
    one = record("response", content, content_type="application/http; msgtype=response")
    assert texts(readings(write(tmp_path / "a.warc", one))) == ["body"]


def test_content_that_ends_early_and_bombs_are_named(tmp_path: Path) -> None:
    pressed = gzip.compress(bytes(5_000_000))
    pieces = [
        record(
            "response",
            http(one, "200 OK", "text/html", "Content-Encoding: gzip"),
            content_type="application/http",
        )
        for one in (gzip.compress(b"<html>body" * 99)[:-20], pressed)
    ]
    found = readings(write(tmp_path / "a.warc", b"".join([*pieces, response("x" * 1_200_000)])))
    assert damage(found) == list(zip(starts(pieces), ["broken_http", "too_long", "too_long"], strict=True))


@pytest.mark.parametrize(
    ("content", "declared", "decoded"),
    [
        ("Füße".encode(), "iso-8859-1", ("Füße", "utf-8")),
        ("Füße".encode("latin-1"), "ISO-8859-1", ("Füße", "cp1252")),
        ("\ufeffFüße".encode("utf-16-le"), None, ("Füße", "utf-16-le")),
        ("\ufeffFüße".encode(), "latin1", ("Füße", "utf-8")),
        (
            '<meta charset="windows-1251">Вино'.encode("cp1251"),
            None,
            ('<meta charset="windows-1251">Вино', "cp1251"),
        ),
        ("日本語のワイン".encode("euc-jp") * 9, "euc-jp", ("日本語のワイン" * 9, "euc_jp")),
        ("日本".encode("iso2022_jp"), "iso-2022-jp", ("日本", "iso2022_jp")),
        (b"plain", None, ("plain", "utf-8")),
    ],
)
def test_the_charset_is_found(content: bytes, declared: str | None, decoded: tuple[str, str]) -> None:
    text, charset = decode_page(content, declared)
    assert (text, charset.lower().replace("-", "_")) == (decoded[0], decoded[1].replace("-", "_"))


@given(
    content=st.binary(max_size=200),
    declared=st.sampled_from([None, "utf-8", "gb18030", "nonsense", "utf-7", "big5"]),
)
def test_any_bytes_become_text_that_can_be_stored(content: bytes, declared: str | None) -> None:
    decode_page(content, declared)[0].encode("utf-8")


def test_what_is_no_page_stands_in_the_accounting(tmp_path: Path) -> None:
    write(tmp_path / "a.warc.gz", b"".join(members([record("warcinfo", b"x"), *PAGES])))
    (tmp_path / "r.yaml").write_text("inputs:\n  - {source: web, path: a.warc.gz}\n")
    plan = make_plan(load_recipe(tmp_path / "r.yaml"), tmp_path / "run")
    result = run_shard(ShardTask(0, (), None, tmp_path / "run", None, None, plan.readers[0], plan.shards[0]))
    assert result.accounting is not None
    assert (result.accounting.rows_in, result.accounting.no_page) == (6, {"warcinfo": 1})

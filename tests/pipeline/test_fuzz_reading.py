"""Random bytes as inputs: rows, records that are named as unreadable, or a broken shard; nothing else."""

import gzip
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cuvee.pipeline.errors import InputError
from cuvee.pipeline.listing import list_files, list_shards
from cuvee.pipeline.reading import BrokenShardError, Reader
from cuvee.pipeline.recipe import Input

WHERE = "web.yaml:3: inputs.0.path"
PIECES = (
    b'{"text": "', b'"}', b"\n", b"\r\n", b"\\ud800", b"\\udc00\\ud83d", b"\\u0000", b"\xff", b"\xed\xa0\x80",
    b'{"text": 1e999}\n', b'{"text": {"text": []}}\n', b"[" * 40, b'{"text": "a", "text": "b"}\n', b"null",
    b"WARC/1.0\r\nWARC-Type: response\r\nContent-Length: 4\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n",
    b"Content-Length: -1\r\n", b"Content-Length: 99999999999999999999\r\n", b"WARC-Type: conversion\r\n\r\n",
    b"\xef\xbb\xbf", b"\x1f\x8b\x08", b"PAR1", b"\x00", b"\x28\xb5\x2f\xfd",
)  # fmt: skip
BYTES = st.lists(st.sampled_from(PIECES) | st.binary(max_size=12), max_size=14).map(b"".join)
ESCAPES = ("\\ud800", "\\udfff", "\\ude00\\ud83d", "\\ud83d\\ude00")
SUFFIXES = ("txt", "jsonl", "jsonl.gz", "jsonl.zst", "warc", "warc.gz", "warc.zst", "wet", "parquet")


def _read(content: bytes, suffix: str) -> list[str]:
    """The texts of one file, or why it cannot be read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{suffix}"
        path.write_bytes(content)
        source = Input(source="web", path=(str(path),))
        texts: list[str] = []
        try:
            for shard in list_shards(0, source, list_files(source, WHERE), 64, WHERE):
                reading = Reader(source, 10_000_000, 0).read(shard)
                assert reading.unreadable["reason"].null_count == 0
                texts += reading.table()["text"].to_pylist()
        except (InputError, BrokenShardError):
            pass
        return texts


@pytest.mark.parametrize("suffix", SUFFIXES)
@given(content=BYTES)
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_random_bytes_are_rows_or_named_as_broken(suffix, content):
    for text in _read(content, suffix):
        text.encode()  # valid UTF-8: no lone surrogate came through


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
@given(content=BYTES, cut=st.integers(0, 40), at=st.integers(0, 300), byte=st.integers(0, 255))
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_compressed_files_are_rows_or_named_as_broken(codec, content, cut, at, byte):
    packed = bytearray(
        gzip.compress(content) if codec == "gzip" else pa.Codec("zstd").compress(content, asbytes=True)
    )
    packed[at % len(packed)] = byte
    suffix = "gz" if codec == "gzip" else "zst"
    for kind in ("jsonl", "warc"):
        _read(bytes(packed[: len(packed) - cut % len(packed)]), f"{kind}.{suffix}")


@given(
    text=st.text(max_size=20),
    escape=st.sampled_from(["\\ud800", "\\udfff", "\\ude00\\ud83d", "\\ud83d\\ude00"]),
)
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_escapes_of_lone_surrogates_are_named_and_pairs_are_one_character(text, escape):
    line = f'{{"text": {json.dumps(text)[:-1]}{escape}"}}\n{{"text": "next"}}\n'
    texts = _read(line.encode(), "jsonl")
    assert texts[-1] == "next"
    if escape == "\\ud83d\\ude00":
        assert texts[0] == text + "\U0001f600"

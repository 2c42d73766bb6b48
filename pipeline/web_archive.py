"""Web archives (WARC, WET) -> pages. What is broken is named with its offset, and reading goes on behind it.

A record is named by the offset of its first byte in the stored file. Compressed archives hold one gzip member
or Zstandard frame for each record, so reading can begin at any of them. In an archive that is compressed as a
whole an offset says only how far the file was read, and records of one offset are numbered.
"""

import io
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import groupby
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa

from ..operators.extract import looks_like_html
from .errors import EnvironmentFailure
from .listing import Piece

BLOCK_BYTES = 1 << 20
HEAD_BYTES = 1 << 18
"""Zstandard decompresses blocks of up to 128 KiB: less than two may not give a record's first bytes."""
MAX_RECORDS_AT_OFFSET = 1 << 20
HTTP_HEADER_BYTES = 1 << 16
FIRST_BYTES = {None: b"WARC/", "gzip": b"\x1f\x8b\x08", "zstd": b"\x28\xb5\x2f\xfd"}
PAGE_TYPES = ("text/html", "application/xhtml+xml", "text/plain")
_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")
"""Bytes that no text has. Source: WHATWG MIME Sniffing Standard, section 3 (binary data byte)."""
BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8", b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}


@dataclass(frozen=True)
class Page:
    """A document of an archive: its text, still HTML where it was, and what the archive knows of it."""

    offset: int
    index: int
    """Which of the records that begin at the offset."""
    fields: dict[str, str | None]

    @property
    def position(self) -> int:
        """One number for offset and index."""
        return self.offset * MAX_RECORDS_AT_OFFSET + self.index

    @property
    def label(self) -> str:
        """Offset, and the index where it needs one."""
        return f"{self.offset}+{self.index}" if self.index else str(self.offset)


@dataclass(frozen=True)
class Damage:
    """Bytes of an archive that give no page although they should."""

    offset: int
    reason: str
    detail: str


@dataclass(frozen=True)
class NoPage:
    """A sound record that is no document, and why."""

    reason: str


class NotAnArchiveError(OSError):
    """A file without a single WARC record."""


@dataclass(frozen=True)
class _Raw:
    """One record as stored: `content` is None where it is longer than allowed."""

    offset: int
    index: int
    n_bytes: int
    """Of the content, as the header says; FastWARC's own figure shrinks when HTTP is parsed."""
    record: Any
    content: bytes | None

    @property
    def is_truncated(self) -> bool:
        """FastWARC ends such a record without a word."""
        return self.content is not None and len(self.content) < self.n_bytes

    @property
    def has_swallowed(self) -> bool:
        """Whether other records stand in the content: its length is too large if no record follows."""
        return b"\r\n\r\nWARC/1." in (self.content or b"")


def require_readers() -> None:
    """Raises:
    EnvironmentFailure: the packages that read archives are not installed.
    """
    for package in ("fastwarc", "resiliparse"):
        if find_spec(package) is None:
            raise EnvironmentFailure(
                f"web archives are read by {package!r}, which is not installed: pip install 'cuvee[web]'"
            )


def pages_of(piece: Piece, kind: str, max_bytes: int) -> Iterator[Page | Damage | NoPage]:
    """What the records that begin inside the piece hold, in their order.

    A byte range of a gzip archive begins with the first member in it that holds a record. An archive stored
    inside a record of another one can be taken for such a beginning: its pages are then read too.

    Args:
        kind: ``warc`` (pages are responses and resources) or ``wet`` (pages are conversions).
        max_bytes: a longer page is damage, for reason ``too_long``.
    Raises:
        NotAnArchiveError: there is no record in the whole file.
    """
    has_record = False
    for found in _records(piece, max_bytes):
        has_record |= isinstance(found, _Raw) or found.reason != "broken_record"
        yield _page(found, kind, max_bytes) if isinstance(found, _Raw) else found
    if not has_record and piece.start == 0 and piece.file.n_bytes <= piece.stop:
        raise NotAnArchiveError("this holds no WARC record; other formats (ARC, plain HTML) are not read")


def _records(piece: Piece, max_bytes: int) -> Iterator[_Raw | Damage]:
    """The records that begin in the piece, and the damage between them."""
    with fsspec.open(piece.file.uri) as stream:
        start = 0 if piece.start == 0 else _next_start(stream, piece, piece.start)
        while start is not None and start < piece.stop:
            last: _Raw | None = None
            try:
                for raw in _iterate(stream, start, max_bytes):
                    if last is not None:
                        yield _whole(last)
                    last = raw
                    # Only a record that can be found by its offset is left to the shard of that offset.
                    if raw.offset >= piece.stop and _begins_at(stream, raw.offset, piece.file.codec):
                        return
                if last is not None:
                    yield _whole(last)
                return
            except OSError as error:
                begin = start
                if last is not None and not last.has_swallowed:
                    yield _whole(last)
                    begin = _end(stream, piece.file.codec, last)
                elif last is not None:
                    begin = last.offset
                start = _next_start(stream, piece, begin + 1)
                is_said = last is not None and last.is_truncated and start is None
                if begin < piece.stop and not is_said and not _is_blank(stream, begin, start):
                    yield Damage(begin, "broken_record", f"{error}; {_skipped(begin, start)}")


def _is_blank(stream: BinaryIO, begin: int, start: int | None) -> bool:
    """Whether what is skipped is only more white space between records than there should be."""
    if start is None or start - begin > HTTP_HEADER_BYTES:
        return False
    stream.seek(begin)
    return not stream.read(start - begin).strip()


def _skipped(begin: int, start: int | None) -> str:
    if start is None:
        return "no other begins in this shard"
    return f"the next one begins {start - begin:,} bytes behind it"


def _iterate(stream: BinaryIO, start: int, max_bytes: int) -> Iterator[_Raw]:
    """FastWARC's records from byte `start` on.

    Raises:
        OSError: a record is broken.
    """
    from fastwarc.warc import ArchiveIterator

    stream.seek(start)
    archive = ArchiveIterator(stream, parse_http=False)
    for offset, records in groupby(archive, key=lambda record: int(record.stream_pos)):
        for index, record in enumerate(records):
            n_bytes = int(record.content_length)
            is_long = n_bytes > max_bytes + HTTP_HEADER_BYTES
            yield _Raw(offset, index, n_bytes, record, None if is_long else record.reader.read())


def _whole(raw: _Raw) -> _Raw | Damage:
    """The record, or the damage that it is."""
    if raw.is_truncated:
        detail = f"the record ends after {len(raw.content or b''):,} of {raw.n_bytes:,} bytes"
        return Damage(raw.offset, "truncated_record", detail)
    return raw


def _end(stream: BinaryIO, codec: str | None, last: _Raw) -> int:
    """Where the record behind `last` begins; of Zstandard, where `last` itself does."""
    stream.seek(last.offset)
    if codec is None:
        header = stream.read(HTTP_HEADER_BYTES).find(b"\r\n\r\n") + 4
        return last.offset + header + last.n_bytes + 4
    if codec == "zstd":
        return last.offset
    member = zlib.decompressobj(wbits=31)
    end = last.offset
    try:
        while not member.eof and (block := stream.read(BLOCK_BYTES)):
            member.decompress(block)
            end += len(block) - len(member.unused_data)
    except zlib.error:
        return last.offset
    return end if member.eof else last.offset


def _next_start(stream: BinaryIO, piece: Piece, start: int) -> int | None:
    """The first byte of the piece at or behind `start` where a record begins, or None."""
    codec = piece.file.codec
    first_bytes = FIRST_BYTES[codec]
    while start < piece.stop:
        stream.seek(start)
        block = stream.read(BLOCK_BYTES)
        at = block.find(first_bytes)
        while at >= 0:
            stream.seek(start + at)
            if _begins_record(stream.read(HEAD_BYTES), codec):
                return start + at
            at = block.find(first_bytes, at + 1)
        if len(block) < len(first_bytes):
            return None
        start += len(block) - len(first_bytes) + 1
    return None


def _begins_at(stream: BinaryIO, offset: int, codec: str | None) -> bool:
    """Whether a record begins there; the stream is left where it stands."""
    position = stream.tell()
    stream.seek(offset)
    begins = _begins_record(stream.read(HEAD_BYTES), codec)
    stream.seek(position)
    return begins


def _begins_record(head: bytes, codec: str | None) -> bool:
    try:
        if codec == "gzip":
            head = zlib.decompressobj(wbits=31).decompress(head, 8)
        elif codec == "zstd":
            head = pa.CompressedInputStream(pa.BufferReader(head), codec).read(8)
    except (zlib.error, OSError):
        return False
    return head.startswith((b"WARC/1.", b"WARC/0."))


def _page(raw: _Raw, kind: str, max_bytes: int) -> Page | Damage | NoPage:
    """The page that a record holds, if it does."""
    record = raw.record
    record_type = _type_of(record)
    if record_type not in (("conversion",) if kind == "wet" else ("response", "resource")):
        return NoPage(record_type)
    too_long = f"found {raw.n_bytes:,} bytes or more, reading.max_document_bytes is {max_bytes:,}"
    if raw.content is None:
        return Damage(raw.offset, "too_long", f"{too_long}; raise it to read this page")
    try:
        content, media_type, charset, status = _payload(record, raw.content, max_bytes)
    except (OSError, ValueError) as error:
        return Damage(raw.offset, "broken_http", f"{error}; the record begins {raw.content[:80]!r}")
    if len(content) > max_bytes:
        return Damage(raw.offset, "too_long", f"{too_long}; raise it to read this page")
    if status not in (None, 200):
        return NoPage(f"http_{status}")
    if not media_type and looks_like_html(content[:512].decode("latin-1")):
        media_type = "text/html"
    if media_type not in PAGE_TYPES:
        return NoPage("other_media_type")
    text, used = decode_page(content, charset)
    headers = record.headers
    fields = {
        "text": text,
        "url": (headers.get("WARC-Target-URI") or "").strip("<>") or None,
        "warc.record_id": headers.get("WARC-Record-ID"),
        "warc.date": headers.get("WARC-Date"),
        "warc.media_type": media_type,
        "warc.charset": used,
        "warc.languages": headers.get("WARC-Identified-Content-Language"),
    }
    return Page(raw.offset, raw.index, fields)


def _type_of(record: Any) -> str:
    return (record.headers.get("WARC-Type") or "no type").lower()


def _payload(record: Any, content: bytes, max_bytes: int) -> tuple[bytes, str, str | None, int | None]:
    """(content without HTTP and its encodings, media type, charset, status).

    Raises:
        OSError: the content is not encoded as its headers say, nor is it plain.
    """
    if not (record.is_http and _type_of(record) == "response"):
        media_type, _, parameters = (record.headers.get("Content-Type") or "").partition(";")
        charset = parameters.partition("charset=")[2].strip('" ') or None
        return content, media_type.strip().lower(), charset, None
    record.set_bytes_content(content)
    record.parse_http(auto_decode="none", quirks_mode=True)
    headers, body = record.http_headers, record.reader.read()
    if headers is None:
        raise OSError("a response without HTTP headers")
    media_type = (record.http_content_type or "").strip().lower()
    if headers.status_code != 200 or (media_type and media_type not in PAGE_TYPES):
        return b"", media_type or "none", None, headers.status_code
    encodings = f"{headers.get('Content-Encoding') or ''},{headers.get('Transfer-Encoding') or ''}".lower()
    for encoding in reversed([name.strip() for name in encodings.split(",")]):
        body = _decoded(body, encoding, max_bytes + 1)
    return body, media_type, record.http_charset, headers.status_code


def _decoded(body: bytes, encoding: str, max_bytes: int) -> bytes:
    """The body without one encoding of HTTP, or as it is where it is plain text already.

    Crawlers store decoded content under the headers of the encoded one.

    Raises:
        OSError: the body is neither encoded so nor plain.
    """
    from fastwarc.stream_io import BrotliReader, ChunkedReader, ZstdReader

    readers = {"chunked": ChunkedReader, "br": BrotliReader, "zstd": ZstdReader}
    try:
        if encoding in ("gzip", "x-gzip", "deflate"):
            wbits = 31 if "gzip" in encoding else 15 if body[:1] == b"\x78" else -15  # deflate: zlib or raw
            member = zlib.decompressobj(wbits)
            content = member.decompress(body, max_bytes)
            if not member.eof and len(content) < max_bytes:
                raise OSError(f"{encoding}: the content ends after {len(body):,} compressed bytes")
            return content
        if encoding in readers:
            return bytes(readers[encoding](io.BytesIO(body)).read(max_bytes))
    except (OSError, zlib.error) as error:
        if _CONTROL.search(body[:512]):
            raise OSError(f"{encoding}: {error}") from error
    return body


def decode_page(content: bytes, declared: str | None) -> tuple[str, str]:
    """(text, charset) of a page's bytes; bytes that its charset does not know become U+FFFD.

    A byte order mark decides; then UTF-8, where bytes beyond ASCII are valid UTF-8 (by chance they hardly
    ever are: a sequence of another charset would have to hit the pattern each time); then the charset
    declared in HTTP; then HTML's meta tag; then resiliparse's detection. Labels mean what the WHATWG Encoding
    Standard says: iso-8859-1 is windows-1252.

    >>> decode_page("naïve".encode(), "iso-8859-1")
    ('naïve', 'utf-8')
    """
    for mark, charset in BYTE_ORDER_MARKS.items():
        if content.startswith(mark):
            return content[len(mark) :].decode(charset, "replace"), charset
    utf8 = None
    with suppress(UnicodeDecodeError):
        utf8 = content.decode("utf-8")
        if not utf8.isascii():
            return utf8, "utf-8"
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding, map_encoding_to_html5

    known = map_encoding_to_html5(declared, fallback_utf8=False) if declared else None
    found = str(known or detect_encoding(content, from_html_meta=True))
    text = str(bytes_to_str(content, found, errors="replace"))
    return text, "utf-8" if text == utf8 else found

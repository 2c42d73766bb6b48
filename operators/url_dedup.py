"""Removal of documents that were fetched from the same address."""

import re
from functools import lru_cache
from typing import Literal
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from ..kernels.hashing import hash_ranges
from .base import ROW
from .duplicates import Duplicates, duplicate_columns
from .text_column import one_chunk, text_buffers

Query = Literal["keep", "drop_tracking", "drop"]
Fragment = Literal["keep", "drop"]

# Parameters that say where a visitor came from and change nothing on the page: those of web analytics (utm_),
# and the click identifiers of the large advertisers and senders of mail.
_TRACKING = re.compile(
    r"(?:utm_\w+|[gf]bclid|gclid|gclsrc|dclid|wbraid|gbraid|msclkid|yclid|twclid|ttclid|igshid|mc_[ce]id"
    r"|_ga|_gl|_hsenc|_hsmi|mkt_tok|vero_id|oly_(?:anon|enc)_id)",
    re.IGNORECASE,
)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
)  # RFC 3986, 2.3


class UrlDedup(Duplicates):
    """Keep one of the documents whose URLs name the same page.

    URLs are compared in this form: http and https are one scheme, the host is in lowercase without "www." and
    default port, escapes of letters are undone and the others in capitals, "." and ".." are resolved, a slash
    at the end and empty queries and fragments are gone, and a query's parameters are sorted, those of
    trackers removed (`query`). User names stay, and so do the letters' case in path and query. What is
    neither http nor https, or no URL at all, is compared as it is, without the space around it. A document
    without a URL always stays. The reason to drop a document is `duplicate`. Fragments count: no server sees
    them, so a crawl has none, and where they do occur they name a part of a page that was cut into documents.

    Source: RFC 3986, section 6.2 (Berners-Lee et al. 2005) for what cannot change a page's meaning; schemes,
    "www.", slash, sorting and trackers go beyond it, as in Penedo et al. 2023, "The RefinedWeb Dataset for
    Falcon LLM", section 3, which removes URLs seen before. Cost: a few microseconds per URL; 24 bytes per
    URL to exchange (32 unless `keep` is `first`).
    """

    name = "url_dedup"
    reads = ("url", "text")
    writes = duplicate_columns("url_dedup")

    query: Query = Field(
        "drop_tracking",
        description="what of the part after '?' tells pages apart: all, all but trackers, nothing",
    )

    fragment: Fragment = Field(
        "keep", description="whether the part after '#' tells pages apart; 'drop' where it is only a place"
    )

    @property
    def _keys(self) -> tuple[str, ...]:
        return ("key", "check")

    def observe(self, table: pa.Table) -> pa.Table:
        """One row for each URL: `key` and `check` uint64, `ROW`, `priority` unless `keep` is `first`."""
        urls = pc.utf8_trim_whitespace(one_chunk(table["url"].cast(pa.large_string())))
        has_url = pc.fill_null(pc.greater(pc.binary_length(urls), 0), False)
        forms = [normalise_url(url, self.query, self.fragment) for url in urls.filter(has_url).to_pylist()]
        data, offsets = text_buffers(pa.chunked_array([pa.array(forms, pa.large_string())]))
        priorities = self._priorities(table, text_buffers(table["text"])[1])
        columns = pa.table({ROW: table[ROW], **priorities}).filter(has_url)
        hashes = {"key": hash_ranges(data, offsets, seed=0), "check": hash_ranges(data, offsets, seed=1)}
        return pa.table(hashes | {name: columns[name] for name in columns.column_names})


def normalise_url(url: str, query: Query = "drop_tracking", fragment: Fragment = "keep") -> str:
    """The form in which `UrlDedup` compares `url`: the same string for two addresses of one page.

    >>> normalise_url("HTTPS://www.Example.com:443/a/./b/../%7Eme/?utm_source=x&b=2&a=1#top")
    'example.com/a/~me?a=1&b=2#top'
    >>> normalise_url("http://example.com/?page=2", query="drop")
    'example.com'
    >>> normalise_url(" doi:10.1000/182 ")
    'doi:10.1000/182'
    """
    url = url.strip()
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # brackets that hold no address, a port that is no number
        return url
    if parts.scheme not in _DEFAULT_PORTS or not host:
        return url
    host = host.removesuffix(".").removeprefix("www.")
    host = f"[{host}]" if ":" in host else host
    user, at, _ = parts.netloc.rpartition("@")
    shown_port = "" if port in (None, _DEFAULT_PORTS[parts.scheme]) else f":{port}"
    path = _without_dots(_unescape(parts.path)).rstrip("/")
    parameters = [] if query == "drop" else sorted(filter(None, _unescape(parts.query).split("&")))
    if query == "drop_tracking":
        parameters = [
            parameter for parameter in parameters if not _TRACKING.fullmatch(parameter.partition("=")[0])
        ]
    shown_query = "?" + "&".join(parameters) if parameters else ""
    shown_fragment = f"#{parts.fragment}" if parts.fragment and fragment == "keep" else ""
    return f"{user}{at}{host}{shown_port}{path}{shown_query}{shown_fragment}"


def _unescape(text: str) -> str:
    """Escapes of unreserved characters undone, all others with capital digits (RFC 3986, section 6.2.2)."""
    return _ESCAPE.sub(lambda found: _plain(found[1].upper()), text) if "%" in text else text


@lru_cache(maxsize=256)
def _plain(digits: str) -> str:
    code = int(digits, 16)
    return chr(code) if code in _UNRESERVED else f"%{digits}"


def _without_dots(path: str) -> str:
    """The path with its "." and ".." segments resolved (RFC 3986, section 5.2.4)."""
    if "/." not in path:
        return path
    segments: list[str] = []
    for segment in path.split("/")[1:]:
        if segment == "..":
            segments = segments[:-1]
        elif segment != ".":
            segments.append(segment)
    return "".join(f"/{segment}" for segment in segments)

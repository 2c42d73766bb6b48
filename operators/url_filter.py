"""Filtering by address."""

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
from pydantic import Field, field_validator

from .base import Filter, Rule, Scores
from .files import FilePath, check_readable, content_hash, read_words
from .text_column import one_chunk

_HOST = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//(?:[^/?#@]*@)?(\[[^\]]*\]|[^/?#:]*)", re.IGNORECASE)
_NO_WORD = re.compile(r"[^a-z0-9]+")


class UrlFilter(Filter):
    """Drop documents whose address is on a list or has words of a list in it.

    The lists are text files, one entry a line, ``#`` begins a comment; case does not matter. A listed domain
    stands for itself and all below it: ``example.com`` blocks ``www.example.com``, and ``user.example.com``
    blocks nothing else of ``example.com``. Words are runs of letters and digits of the whole address;
    subwords are looked for in the address without anything else. A document without an address stays.

    Source: FineWeb (Penedo et al. 2024, section 3.1) and RefinedWeb (Penedo et al. 2023, section G.1), in the
    order of datatrove's URLFilter. It departs in needing no list of public suffixes: every domain above the
    host is looked up. Cost: a few look-ups for each address; the text is not read.
    """

    name = "url_filter"
    reads = ("url",)
    writes = tuple(
        f"url_filter.{score}" for score in ("domain", "url", "n_words", "n_soft_words", "n_subwords", "words")
    )

    domains: list[FilePath] = Field([], description="lists of domains to drop")
    urls: list[FilePath] = Field([], description="lists of whole addresses to drop")
    words: list[FilePath] = Field([], description="lists of words of which one is enough")
    soft_words: list[FilePath] = Field([], description="lists of words of which `max_soft_words` may stand")
    subwords: list[FilePath] = Field([], description="lists of strings that may stand nowhere")
    max_soft_words: int = Field(1, ge=0, description="most different soft words")

    @field_validator("domains", "urls", "words", "soft_words", "subwords")
    @classmethod
    def _check_files(cls, paths: list[str]) -> list[str]:
        check_readable(paths)
        return paths

    def identity(self) -> dict[str, Any]:
        """The parameters, with the lists' contents for their paths."""
        paths = {
            field: getattr(self, field) for field in ("domains", "urls", "words", "soft_words", "subwords")
        }
        hashes = {field: [content_hash(path) for path in listed] for field, listed in paths.items()}
        return self.model_dump(mode="json") | hashes

    def scores(self, table: pa.Table) -> Scores:
        """The listed domain and address, null where none is; how many words of each list; and which words."""
        domains, urls, words = read_words(self.domains), read_words(self.urls), read_words(self.words)
        soft_words, subwords = read_words(self.soft_words), _any_of(read_words(self.subwords))
        rows = []
        for url in one_chunk(table["url"]).to_pylist():
            address = (url or "").strip().lower()
            pieces = set(_NO_WORD.split(address))
            found, soft = sorted(pieces & words), sorted(pieces & soft_words)
            inside = sorted(set(subwords.findall(_NO_WORD.sub("", address))) if subwords else ())
            domain = next((parent for parent in _parents(address) if parent in domains), None)
            all_words = " ".join([*found, *soft, *inside]) or None
            listed_url = address if address in urls else None
            rows.append((domain, listed_url, len(found), len(soft), len(inside), all_words))
        types = (pa.string(), pa.string(), pa.int64(), pa.int64(), pa.int64(), pa.string())
        columns = list(zip(*rows, strict=True)) or [()] * len(types)
        arrays = [pa.array(column, kind) for column, kind in zip(columns, types, strict=True)]
        return dict(zip(self.writes, arrays, strict=True))

    def rules(self) -> Sequence[Rule]:
        """Domains and addresses first, then words, soft words and subwords."""
        domain, url, n_words, n_soft_words, n_subwords, _ = self.writes
        return (
            Rule("domain", domain, allowed=()),
            Rule("url", url, allowed=()),
            Rule("word", n_words, maximum=0),
            Rule("soft_words", n_soft_words, maximum=self.max_soft_words),
            Rule("subword", n_subwords, maximum=0),
        )


def _any_of(subwords: frozenset[str]) -> re.Pattern[str] | None:
    longest_first = sorted((_NO_WORD.sub("", word) for word in subwords), key=lambda word: (-len(word), word))
    return re.compile("|".join(longest_first)) if subwords else None


def _parents(address: str) -> list[str]:
    """The host of an address and every domain above it.

    >>> _parents("https://me@www.example.co.uk:8080/path")
    ['www.example.co.uk', 'example.co.uk', 'co.uk', 'uk']
    """
    found = _HOST.match(address)
    host = (found[1] if found else re.split(r"[/?#:]", address, maxsplit=1)[0]).strip(".")
    if host.startswith("[") or host.replace(".", "").isdigit():
        return [host]
    labels = host.split(".")
    return [".".join(labels[i:]) for i in range(len(labels))]

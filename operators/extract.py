"""HTML to text."""

import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from .base import Map, set_columns
from .files import check_installed
from .text_column import one_chunk

MEDIA_TYPE = "warc.media_type"
HTML_TYPES = ("text/html", "application/xhtml+xml")
MAX_DEPTH = 512
"""Browsers nest no deeper; resiliparse takes time in the square of the depth to find main content."""
_TAGS = "html|head|script|iframe|h1|div|font|table|a|style|title|b|body|br|p"
_HTML = re.compile(rf"\s*<(?:\?xml\s|!--|(?:!doctype html|{_TAGS})[\s>])", re.IGNORECASE)


def looks_like_html(text: str) -> bool:
    """Whether a text begins as HTML does: with a tag that opens documents, a comment, or an XML declaration.

    Source: WHATWG MIME Sniffing Standard, section 7.1 (departs in taking XML for XHTML).

    >>> looks_like_html("<!DOCTYPE html><p>One"), looks_like_html("a < b")
    (True, False)
    """
    return _HTML.match(text) is not None


class Extract(Map):
    """Replace each HTML page by its main content; texts that are no HTML stay as they are.

    A row is HTML if its column `warc.media_type` says so or its text begins as HTML does, so web archives
    and plain texts can share a recipe. `resiliparse` (default) takes about two milliseconds for a page;
    `trafilatura` leaves out more of what is no content, and of the content, and takes ten times as long
    (`python -m benchmarks.web`). A page without main content gets the empty text, which any filter by length
    drops. A page whose elements stand more than 512 deep is extracted as a whole.

    Source: resiliparse (Bevendorff et al. 2018; the extractor of DCLM, Li et al. 2024, section 4.2);
    trafilatura (Barbaresi 2021; the extractor of FineWeb, Penedo et al. 2024, with `favor: precision`).
    """

    name = "extract"
    writes = ("text", "extract.n_html_characters")

    extractor: Literal["resiliparse", "trafilatura"] = Field("resiliparse", description="which one extracts")
    main_content: bool = Field(True, description="resiliparse: leave out navigation, headers, footers")
    list_bullets: bool = Field(True, description="resiliparse: write bullets and numbers of lists")
    alt_texts: bool = Field(False, description="resiliparse: write the texts that stand for images")
    links: bool = Field(False, description="write where links lead to")
    form_fields: bool = Field(False, description="resiliparse: write form fields and their values")
    noscript: bool = Field(False, description="resiliparse: write what stands for missing scripts")
    comments: bool = Field(False, description="keep the readers' comments")
    tables: bool = Field(True, description="trafilatura: keep tables")
    favor: Literal["balance", "precision", "recall"] = Field(
        "balance", description="trafilatura: leave out more (precision) or less (recall)"
    )
    skip_elements: list[str] = Field([], description="resiliparse: CSS selectors of elements to leave out")

    @field_validator("extractor")
    @classmethod
    def _check_installed(cls, extractor: str) -> str:
        check_installed(extractor, "web" if extractor == "resiliparse" else extractor)
        return extractor

    @property
    def holds_gil(self) -> bool:
        """Both extractors do."""
        return True

    def apply(self, table: pa.Table) -> pa.Table:
        """`table` with `text` extracted, and how many characters of HTML it was: int64, 0 for no HTML."""
        text = one_chunk(table["text"])
        is_html = np.zeros(len(text), dtype=bool)
        if MEDIA_TYPE in table.column_names:
            media_type = one_chunk(table[MEDIA_TYPE]).cast(pa.string())
            is_html |= np.asarray(pc.is_in(media_type, value_set=pa.array(HTML_TYPES)))
        heads = pc.utf8_slice_codeunits(text, 0, 512).to_pylist()
        is_html |= np.fromiter((looks_like_html(head or "") for head in heads), bool, len(heads))
        is_html &= np.asarray(text.is_valid())
        n_characters = np.where(is_html, pc.fill_null(pc.utf8_length(text), 0), 0).astype(np.int64)
        if is_html.any():
            extract = self._trafilatura() if self.extractor == "trafilatura" else self._resiliparse()
            rows = np.flatnonzero(is_html).tolist()
            extracted = pa.array([extract(text[row].as_py()) for row in rows], text.type)
            text = pc.replace_with_mask(text, pa.array(is_html), extracted)
        columns = (text, pa.array(n_characters))
        return set_columns(table, dict(zip(self.writes, columns, strict=True)))

    def _resiliparse(self) -> Callable[[str], str]:
        from resiliparse.extract.html2text import extract_plain_text

        options: dict[str, Any] = {
            "preserve_formatting": True,
            "main_content": self.main_content,
            "list_bullets": self.list_bullets,
            "alt_texts": self.alt_texts,
            "links": self.links,
            "form_fields": self.form_fields,
            "noscript": self.noscript,
            "comments": self.comments,
            "skip_elements": self.skip_elements,
        }
        whole = options | {"main_content": False}
        return lambda html: str(extract_plain_text(html, **(whole if nests_deeply(html) else options)))

    def _trafilatura(self) -> Callable[[str], str]:
        from trafilatura import extract

        options: dict[str, Any] = {
            "favor_precision": self.favor == "precision",
            "favor_recall": self.favor == "recall",
            "include_comments": self.comments,
            "include_tables": self.tables,
            "include_links": self.links,
            "deduplicate": False,  # its memory of other pages would make the order of rows matter
        }
        return lambda html: extract(html, **options) or ""


def nests_deeply(html: str) -> bool:
    """Whether elements of a page stand more than `MAX_DEPTH` deep.

    >>> nests_deeply("<div>" * 600), nests_deeply("<br>" * 600)
    (True, False)
    """
    from resiliparse.parse.html import DOMContext, HTMLTree, traverse_dom

    data = np.frombuffer(html.encode("utf-8", "replace") + b" ", np.uint8)
    tags = np.flatnonzero(data[:-1] == ord("<"))
    n_open = np.cumsum(np.where(data[tags + 1] == ord("/"), -1, 1))
    n_open -= np.minimum(np.minimum.accumulate(n_open), 0)  # stray closing tags close nothing
    if n_open.max(initial=0) <= MAX_DEPTH:
        return False  # even if no open tag were void
    deepest = 0

    def enter(context: DOMContext) -> None:
        nonlocal deepest
        deepest = max(deepest, context.depth)

    if (document := HTMLTree.parse(html).document) is not None:
        traverse_dom(document, enter)
    return deepest > MAX_DEPTH

"""Removal of documents whose text has been seen."""

from typing import Literal

import pyarrow as pa
from pydantic import Field

from ..kernels.case_folding import casefold
from ..kernels.hashing import hash_ranges
from ..kernels.normal_forms import normalize
from ..kernels.normalise import fold_whitespace_and_case
from .base import ROW
from .duplicates import Duplicates, duplicate_columns
from .text_column import text_buffers


class ExactDedup(Duplicates):
    """Keep one of the documents that have the same text.

    Texts are the same when 128 bits of their hash are (two XXH64 of different seed): among 10**12 different
    documents two agree by chance with probability 10**-15. Equal texts are found however they are sharded;
    the reason to drop a document is `duplicate`, and `exact_dedup.keeper` names the row that stands for it.

    Source: hashing whole documents as in Lee et al. 2022, "Deduplicating Training Data Makes Language Models
    Better", section 4 (without its substrings). Cost: one pass over the text, 24 bytes per document to
    exchange (32 unless `keep` is `first`).
    """

    name = "exact_dedup"
    writes = duplicate_columns("exact_dedup")

    normalise: Literal["none", "whitespace_case", "nfkc_casefold"] = Field(
        "none",
        description="compare texts as they are; in lowercase with each run of white space as one space; or, "
        "beyond that, with Unicode's variants of a letter as one (NFKC, full case folding)",
    )

    @property
    def _keys(self) -> tuple[str, ...]:
        return ("key", "check")

    def observe(self, table: pa.Table) -> pa.Table:
        """One row for each document: `key` and `check` uint64, `ROW`, `priority` unless `keep` is `first`."""
        data, offsets = text_buffers(table["text"])
        priority = self._priorities(table, offsets)
        if self.normalise == "nfkc_casefold":
            data, offsets = normalize(*casefold(*normalize(data, offsets, "NFKC")), "NFKC")
        if self.normalise != "none":
            data, offsets = fold_whitespace_and_case(data, offsets)
        hashes = {"key": hash_ranges(data, offsets, seed=0), "check": hash_ranges(data, offsets, seed=1)}
        return pa.table({**hashes, ROW: table[ROW], **priority})

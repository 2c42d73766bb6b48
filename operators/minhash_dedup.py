"""Removal of documents that are nearly the same as another."""

import numpy as np
import pyarrow as pa
from pydantic import Field

from ..kernels.minhash import band_keys, permutations, signatures
from ..kernels.shingles import shingle_hashes, word_hashes
from .base import ROW
from .duplicates import Duplicates, duplicate_columns, lengths
from .text_column import integers, text_buffers


class MinHashDedup(Duplicates):
    """Keep one of the documents that share most of their word n-grams.

    Two documents are candidates when all values of one band of their MinHash signatures agree, which for
    Jaccard similarity s has probability ``1 - (1 - s**rows_per_band)**n_bands``: with 14 bands of 8, 5 % at s
    = 0.5, 56 % at 0.7, 92 % at 0.8, 99.96 % at 0.9. Candidates are not verified, and clusters are closed
    under "candidate of a candidate", so a cluster may hold documents that are less alike. Words are in
    lowercase, without punctuation; each letter of a script without spaces is a word. A document of fewer than
    `ngram` words has no signature and always stays.

    Source: Broder 1997; parameters of Penedo et al. 2024, "The FineWeb Datasets", section 3.4. It departs in
    the words (no tokenizer of the language), in keeping digits and accents as they are, and in permuting
    32-bit hashes as datasketch 2 does. Cost: one pass over the text; 16 bytes per document and band to
    exchange (24 with `longest`).
    """

    name = "minhash_dedup"
    writes = duplicate_columns("minhash_dedup")

    ngram: int = Field(5, ge=1, description="words in a shingle")
    n_bands: int = Field(
        14, ge=1, le=1024, description="bands of a signature; more find less similar documents"
    )
    rows_per_band: int = Field(
        8, ge=1, le=1024, description="values that must agree in a band; more find fewer"
    )
    seed: int = Field(1, ge=0, lt=1 << 32, description="draws the permutations")

    def observe(self, table: pa.Table) -> pa.Table:
        """One row per document and band: `key` uint64, `ROW`, and `priority` for `longest`."""
        data, offsets = text_buffers(table["text"])
        shingles, shingle_offsets = shingle_hashes(*word_hashes(data, offsets), self.ngram)
        drawn = permutations(self.n_bands * self.rows_per_band, self.seed)
        keys = band_keys(signatures(shingles, shingle_offsets, drawn), self.n_bands)
        has_signature = np.diff(shingle_offsets) > 0
        columns = {ROW: integers(table[ROW])}
        if self.keep == "longest":
            columns["priority"] = lengths(offsets).to_numpy()
        per_band = {name: np.repeat(values[has_signature], self.n_bands) for name, values in columns.items()}
        return pa.table({"key": keys[has_signature].ravel(), **per_band})

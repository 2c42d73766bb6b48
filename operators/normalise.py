"""Unicode normalisation of texts."""

from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from ..kernels.case_folding import casefold
from ..kernels.normal_forms import normalize
from .base import Map, set_columns
from .text_column import large_strings, one_chunk, text_buffers


class Normalise(Map):
    """Write texts in one Unicode normal form, so that what looks the same is the same, and say which changed.

    `NFC` composes letters and their marks and is what the web asks for; `NFKC` also replaces ligatures, full
    and half widths, superscripts and the like, which loses what they mean ("2⁵" becomes "25"). `casefold`
    makes letters equal that differ in case alone ("Straße" becomes "strasse"); text that models shall learn
    from keeps its case.

    Source: Unicode Standard Annex #15; The Unicode Standard, section 3.13, toCasefold; both as Python has
    them.
    Cost: one pass over the text to look, and one over documents that are not in the form.
    """

    name = "normalise"
    writes = ("text", "normalise.changed")

    form: Literal["NFC", "NFD", "NFKC", "NFKD"] | None = Field(
        "NFC", description="normal form; null: as it is"
    )
    casefold: bool = Field(False, description="fold case, before the normal form is made")

    def apply(self, table: pa.Table) -> pa.Table:
        """`table` with `text` in the form, and bool, whether each text is another one now."""
        text = one_chunk(table["text"])
        data, offsets = text_buffers(table["text"])
        if self.casefold:
            data, offsets = casefold(data, offsets)
        if self.form is not None:
            data, offsets = normalize(data, offsets, self.form)
        normal = large_strings(data, offsets).cast(text.type)
        normal = pc.if_else(text.is_valid(), normal, pa.scalar(None, text.type))
        changed = pc.fill_null(pc.not_equal(text, normal), False)
        return set_columns(table, {"text": normal, "normalise.changed": changed})

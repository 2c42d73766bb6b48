"""Removal of lines that hold nothing but symbols: what extraction leaves of tables and rules."""

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from .base import Map, set_columns
from .text_column import one_chunk


class SymbolLines(Map):
    """Remove lines that consist of some symbols and spaces alone, and count them.

    Where such lines stood one blank line stays, so the paragraphs around them stay apart. Blank lines are no
    symbol lines, and lines end at line feeds.

    Source: FineWeb2 (Penedo et al. 2025), whose last step removes lines of "|", left of empty tables
    (datatrove's SymbolLinesFormatter); it departs in one blank line where FineWeb2 writes two.
    Cost: one search by regular expression over texts that have a symbol.
    """

    name = "symbol_lines"
    writes = ("text", "symbol_lines.n_lines")

    symbols: str = Field(
        "|", pattern=r"^[^\n]+$", description="characters of which, and of spaces, the lines consist"
    )
    blank_line: bool = Field(True, description="leave a blank line where lines were removed")

    def apply(self, table: pa.Table) -> pa.Table:
        """`table` with `text` without the lines, and int64, how many of them each text had."""
        text = one_chunk(table["text"])
        symbols = "".join(rf"\x{{{ord(symbol):x}}}" for symbol in self.symbols)
        line = rf"^[ {symbols}]*[{symbols}][ {symbols}]*"
        n_lines = pc.fill_null(pc.count_substring_regex(text, rf"(?m){line}$"), 0).cast(pa.int64())
        left = pc.replace_substring_regex(text, rf"(?m)(?:{line}(?:\n|\z))+", "\n" if self.blank_line else "")
        return set_columns(table, dict(zip(self.writes, (left, n_lines), strict=True)))

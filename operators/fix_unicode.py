"""Repair of text that was decoded wrongly."""

from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from .base import Map, set_columns
from .files import check_installed
from .text_column import one_chunk

# All that ftfy changes in ASCII: entities, and control characters other than tab and line feed.
_MAY_CHANGE_ASCII = r"[&\x00-\x08\x0b-\x1f\x7f]"


class FixUnicode(Map):
    """Repair mojibake (``schÃ¶n`` for ``schön``) and remove control characters, and count the lines changed.

    What is only unusual stays by default: ligatures, fullwidth forms, curly quotes, line breaks and the
    normalisation form. Text in ASCII without entities and control characters is not looked at: nothing can be
    wrong with it.

    Source: ftfy (Speer 2019); the defaults are those with which FineWeb2 (Penedo et al. 2025) uses it. Cost:
    about 2 MB of text per second.
    """

    name = "fix_unicode"
    writes = ("text", "fix_unicode.n_lines")
    holds_gil = True

    unescape_html: bool | Literal["auto"] = Field(
        "auto", description="replace entities; auto: unless the text has tags"
    )
    remove_terminal_escapes: bool = Field(True, description="remove ANSI colours")
    fix_encoding: bool = Field(True, description="undo decoding with a wrong charset")
    restore_byte_a0: bool = Field(True, description="take a space for byte A0 where that repairs the text")
    replace_lossy_sequences: bool = Field(
        True, description="repair sequences in which characters are missing"
    )
    decode_inconsistent_utf8: bool = Field(True, description="repair mojibake inside of sound text")
    fix_c1_controls: bool = Field(True, description="read C1 control characters as windows-1252")
    fix_latin_ligatures: bool = Field(False, description="write ligatures as single letters")
    fix_character_width: bool = Field(
        False, description="write fullwidth and halfwidth forms in normal width"
    )
    uncurl_quotes: bool = Field(False, description="write curly quotes as straight ones")
    fix_line_breaks: bool = Field(False, description="make every line break a line feed")
    fix_surrogates: bool = Field(True, description="join pairs of surrogates")
    remove_control_chars: bool = Field(
        True, description="remove control characters without a meaning in text"
    )
    normalization: Literal["NFC", "NFD", "NFKC", "NFKD"] | None = Field(
        None, description="normalisation form"
    )

    @model_validator(mode="after")
    def _check_installed(self) -> "FixUnicode":
        check_installed("ftfy", "unicode")
        return self

    @cached_property
    def _config(self) -> Any:
        from ftfy import TextFixerConfig

        return TextFixerConfig(**self.model_dump(), explain=False)

    def apply(self, table: pa.Table) -> pa.Table:
        """`table` with `text` repaired, and int64, how many lines of each text were changed."""
        from ftfy import fix_text

        text = one_chunk(table["text"])
        harmless = pc.and_(
            pc.string_is_ascii(text), pc.invert(pc.match_substring_regex(text, _MAY_CHANGE_ASCII))
        )
        n_lines = np.zeros(len(text), np.int64)
        changed: dict[int, str] = {}
        for row in np.flatnonzero(~np.asarray(pc.fill_null(harmless, True))).tolist():
            original = text[row].as_py()
            fixed = fix_text(original, self._config)
            if fixed != original:
                changed[row] = fixed
                n_lines[row] = _lines_changed(original, fixed)
        if changed:
            mask = np.zeros(len(text), dtype=bool)
            mask[list(changed)] = True
            text = pc.replace_with_mask(text, pa.array(mask), pa.array(list(changed.values()), text.type))
        return set_columns(table, dict(zip(self.writes, (text, pa.array(n_lines)), strict=True)))


def _lines_changed(before: str, after: str) -> int:
    """How many lines differ; at least 1 of texts that differ.

    >>> _lines_changed("a\\nb\\nc", "a\\nB\\nc")
    1
    """
    lines, fixed = before.split("\n"), after.split("\n")
    return sum(a != b for a, b in zip(lines, fixed, strict=False)) + abs(len(lines) - len(fixed))

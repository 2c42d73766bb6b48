"""One word pass for all who look at the words of one text, and the named profiles of what a word is."""

import threading
from importlib.util import find_spec
from typing import Annotated, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import AfterValidator

from ..kernels.c4_lines import KeptLines
from ..kernels.gather_words import matching_documents, take_words, words_of_lines
from ..kernels.spans import copy_ranges
from ..kernels.words import Segmentation, Words, words
from . import icu
from .files import check_installed
from .text_column import text_buffers


def _check_icu(profile: str) -> str:
    if profile == "icu":
        check_installed(icu.PACKAGE, icu.EXTRA)
    return profile


Profile = Annotated[Literal["paper", "datatrove", "dclm", "uax29", "icu"], AfterValidator(_check_icu)]
"""What a word is, and which words a rule counts; the same thresholds under another profile drop other
documents.

`paper`: tokens between white space, all of them. `datatrove`: tokens of spaCy's blank English tokenizer,
punctuation marks included, which only lengths leave out. `dclm`: tokens between white space, of which lengths
count those that begin with a letter or number; in n-grams, words of UAX #29. `uax29`: words of UAX #29, each
letter of a script without spaces one. `icu`: words of UAX #29, and of ICU's dictionaries in Chinese,
Japanese, Thai, Lao, Khmer and Burmese (`cuvee[languages]`).
"""

SEGMENTATION: dict[Profile, Segmentation | Literal["icu"]] = {
    "paper": "whitespace",
    "datatrove": "english",
    "dclm": "whitespace",
    "uax29": "uax29",
    "icu": "icu",
}
MAX_SHARED_BYTES = 256 << 20
"""A text column that is larger than this is cut into words anew by each who asks."""


def available_profiles() -> tuple[Profile, ...]:
    """The profiles whose packages are installed."""
    return tuple(p for p in SEGMENTATION if p != "icu" or find_spec(icu.PACKAGE) is not None)


def holds_gil(profile: Profile) -> bool:
    """Whether cutting words of the profile holds Python's global lock."""
    return profile == "icu"


class _Last(threading.local):
    """The last word pass of each segmentation that this thread made: the column's buffers and its words."""

    def __init__(self) -> None:
        self.passes: dict[str, tuple[NDArray[np.uint8], NDArray[np.int64], Words]] = {}


_last = _Last()


def column_words(column: pa.ChunkedArray, segmentation: Segmentation | Literal["icu"]) -> Words:
    """The words of a text column, cut anew only where it differs from the column of the thread's last pass.

    Filters of one stage see the same documents one after another, fewer from filter to filter. A document is
    taken for one of the last pass if its bytes are the same, so what is remembered can make a result neither
    other nor stale; it lives until the thread's next pass of the segmentation or its end.
    """
    data, offsets = text_buffers(column)
    before = _last.passes.get(segmentation)
    if before is not None:
        matches = matching_documents(before[0], before[1], data, offsets)
        if matches is not None:
            return take_words(before[2], before[1], matches, offsets)
    found = icu.icu_words(data, offsets) if segmentation == "icu" else words(data, offsets, segmentation)
    return _remembered(data, offsets, segmentation, found)


def line_words(
    column: pa.ChunkedArray,
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    lines: KeptLines,
    segmentation: Segmentation,
) -> Words:
    """The words of a text of which lines were kept, taken from the words of `column` that they stood in.

    Only lines that have changed are cut into words anew. These words are the last pass from now on.

    Args:
        data, offsets, lines: what stays of `column`, as `c4_lines` gives it.
    """
    is_changed = lines.sources < 0
    lengths = lines.ends - lines.starts
    changed = words(*copy_ranges(data, lines.starts[is_changed], lengths[is_changed]), segmentation)
    found = words_of_lines(column_words(column, segmentation), changed, *lines, offsets)
    return _remembered(data, offsets, segmentation, found)


def _remembered(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    segmentation: Segmentation | Literal["icu"],
    found: Words,
) -> Words:
    if offsets[-1] - offsets[0] <= MAX_SHARED_BYTES:
        _last.passes[segmentation] = (data, offsets, found)
    return found


def forget() -> None:
    """Let this thread's last word passes go."""
    _last.passes.clear()

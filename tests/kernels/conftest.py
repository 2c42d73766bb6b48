"""Documents that find the edges of text kernels."""

from itertools import accumulate

import hypothesis.strategies as st
import numpy as np
import pytest

SPACES = [" ", "\n", "\r\n", "\r", "\x0b", "\x1c", "\x1f", "\x85", "\u2028", "\u3000", "\x00", "\t", "\u200b"]
SYMBOLS = ["...", "..", ".", "\u2026", "#", "\u2022", "-", "😀", "٣", "Ⅷ", "༄༅"]
WORDS = [
    "the",
    "and",
    "The",
    "x_1",
    "don't",
    "a" * 300,
    "é",
    "e\u0301",
    "İ",
    "ẞ",
    "Ⱥ",
    "ΣΑΣ",
    "Привет",
    "नमस्ते",
]
WORDS += ["العربية", "עברית", "한국어", "ไม้", "東京タワー", "ខ្មែរ", "𠀀"]
PIECES = SPACES + SYMBOLS + WORDS
NOT_UTF8 = [
    b"\x80",
    b"\xc3",
    b"\xe6\x9d",
    b"\xf0\x9f\x98",
    b"\xed\xa0\x80",
    b"\xf4\x90\x80\x80",
    b"\xc0\x80",
    b"\xff",
]


@pytest.fixture(scope="session")
def documents():
    """Strategy for (data, offsets) as an Arrow column has them: 0 to 5 documents with bytes around them."""
    text = st.lists(st.sampled_from(PIECES), max_size=30).map("".join) | st.text(max_size=30)
    broken = st.lists(
        st.sampled_from(NOT_UTF8) | st.binary(max_size=4) | st.sampled_from(PIECES).map(str.encode)
    )
    document = text.map(str.encode) | broken.map(b"".join)
    return st.builds(_column, st.lists(document, max_size=5), st.sampled_from([b"", b"\x9d.x"]))


def _column(documents, around):
    data = around + b"".join(documents) + around
    offsets = np.array([*accumulate(map(len, documents), initial=len(around))], np.int64)
    offsets.flags.writeable = False  # as Arrow's are
    return np.frombuffer(data, np.uint8), offsets

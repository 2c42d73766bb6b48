"""What the cutting of words must know of each code point: its Word_Break class and a set of flags.

One table of 16-bit entries, two-level like `unicode_tables` and built once per process: the low four bits are
the Word_Break class of UAX #29, told from the properties that the interpreter's `unicodedata` has, the others
are flags.
"""

import sys
import unicodedata
from bisect import bisect_right
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .table_cache import cached_table
from .unicode_tables import UNSPACED, flags_reference

# Word_Break classes, UAX #29, table 3. `EACH` is a letter of a script without spaces: a word of its own.
# Regional indicators, ZWJ sequences and runs of spaces are not told apart: without a letter they are no word.
OTHER, LETTER, HEBREW, NUMERIC, KATAKANA, EXTEND_NUM_LET = 0, 1, 2, 3, 4, 5
MID_LETTER, MID_NUM, MID_NUM_LET, SINGLE_QUOTE, DOUBLE_QUOTE, IGNORED, EACH = 6, 7, 8, 9, 10, 11, 12
BREAK_CLASS = 15

WHITE = 1 << 4  # str.isspace
ALPHA = 1 << 5  # str.isalpha
ALNUM = 1 << 6  # str.isalnum
PUNCT = 1 << 7  # general category P*
SYMBOL = 1 << 8  # what datatrove calls punctuation, control characters included
TERMINAL = 1 << 9  # ends a sentence: Unicode's Sentence_Terminal
AFFIX = 1 << 10  # spaCy cuts it off at both ends of a token: punctuation, quotes, pictographs
PREFIX = 1 << 11  # ... at the beginning only
ICON = 1 << 12  # ... and in the middle too: general category So
LETTERS = 1 << 13  # spaCy's ALPHA: letters of the scripts that it knows
UPPER = 1 << 14  # those of them that are not lowercase
LOWER = 1 << 15  # those of them that are not uppercase

_BLOCK = 256
_MID_LETTER = frozenset(":\u00b7\u0387\u055f\u05f4\u2027\ufe13\ufe55\uff1a")
_MID_NUM = frozenset(",;\u037e\u0589\u060c\u060d\u066c\u07f8\u2044\ufe10\ufe14\ufe50\ufe54\uff0c\uff1b")
_MID_NUM_LET = frozenset(".\u2018\u2019\u2024\ufe52\uff07\uff0e")
# Ranges of code points, ascending, first and last.
_KATAKANA = (
    (0x3031, 0x3035), (0x309B, 0x309C), (0x30A0, 0x30FA), (0x30FC, 0x30FF), (0x31F0, 0x31FF),
    (0x32D0, 0x32FE), (0x3300, 0x3357), (0xFF66, 0xFF9D), (0x1AFF0, 0x1AFFE), (0x1B000, 0x1B000),
    (0x1B120, 0x1B122), (0x1B164, 0x1B167),
)  # fmt: skip

# Sentence_Terminal of Unicode 15, PropList.txt, and U+17D4 to U+17DA of Khmer, as datatrove lists them.
_TERMINAL = (
    *map(ord, "!.?"), 0x589, *range(0x61D, 0x620), 0x6D4, *range(0x700, 0x703), 0x7F9, 0x837, 0x839,
    0x83D, 0x83E, 0x964, 0x965, 0x104A, 0x104B, 0x1362, 0x1367, 0x1368, 0x166E, 0x1735, 0x1736, 0x17D4,
    0x17D5, 0x17D6, 0x17D9, 0x17DA, 0x1803, 0x1809, 0x1944, 0x1945, *range(0x1AA8, 0x1AAC), 0x1B5A,
    0x1B5B, 0x1B5E, 0x1B5F, 0x1B7D, 0x1B7E, 0x1C3B, 0x1C3C, 0x1C7E, 0x1C7F, 0x203C, 0x203D, 0x2047,
    0x2048, 0x2049, 0x2E2E, 0x2E3C, 0x2E53, 0x2E54, 0x3002, 0xA4FF, 0xA60E, 0xA60F, 0xA6F3, 0xA6F7,
    0xA876, 0xA877, 0xA8CE, 0xA8CF, 0xA92F, 0xA9C8, 0xA9C9, 0xAA5D, 0xAA5E, 0xAA5F, 0xAAF0, 0xAAF1,
    0xABEB, 0xFE52, 0xFE56, 0xFE57, 0xFF01, 0xFF0E, 0xFF1F, 0xFF61, 0x10A56, 0x10A57,
    *range(0x10F55, 0x10F5A), *range(0x10F86, 0x10F8A), 0x11047, 0x11048, 0x110BE, 0x110BF, 0x110C0,
    0x110C1, 0x11141, 0x11142, 0x11143, 0x111C5, 0x111C6, 0x111CD, 0x111DE, 0x111DF, 0x11238, 0x11239,
    0x1123B, 0x1123C, 0x112A9, 0x1144B, 0x1144C, 0x115C2, 0x115C3, *range(0x115C9, 0x115D8), 0x11641,
    0x11642, 0x1173C, 0x1173D, 0x1173E, 0x11944, 0x11946, 0x11A42, 0x11A43, 0x11A9B, 0x11A9C, 0x11C41,
    0x11C42, 0x11EF7, 0x11EF8, 0x11F43, 0x11F44, 0x16A6E, 0x16A6F, 0x16AF5, 0x16B37, 0x16B38, 0x16B44,
    0x16E98, 0x1BC9F, 0x1DA88,
)  # fmt: skip
TERMINAL_PUNCTUATION = frozenset(map(chr, _TERMINAL))
"""The marks that end a sentence; no quotation marks and no brackets."""
SYMBOLS = TERMINAL_PUNCTUATION | frozenset(
    "!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»"
    + "".join(map(chr, (*range(10), *range(11, 32), *range(127, 160))))
)
"""What datatrove does not count as a word when it stands alone, the fullwidth digit one included."""

_PUNCTUATION = frozenset("…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪")
QUOTES = frozenset("'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉〈〉⟦⟧")
_CURRENCY = frozenset("$£€¥฿₽﷼₴₠₡₢₣₤₥₦₧₨₩₪₫₭₮₯₰₱₲₳₵₶₷₸₹₺₻₼₾₿")
_LATIN = (
    (0x41, 0x5A), (0x61, 0x7A), (0xC0, 0xD6), (0xD8, 0xF6), (0xF8, 0x1BF), (0x1C4, 0x2AF), (0x391, 0x3A9),
    (0x3B1, 0x3C9), (0x410, 0x42F), (0x430, 0x44F), (0x1D00, 0x1D25), (0x1D6B, 0x1D77), (0x1D79, 0x1D9A),
    (0x1E00, 0x1EFF), (0x2C60, 0x2C7B), (0x2C7E, 0x2C7F), (0xA722, 0xA76F), (0xA771, 0xA787),
    (0xA78B, 0xA78E), (0xA790, 0xA7B9), (0xA7FA, 0xA7FA), (0xAB30, 0xAB5A), (0xAB60, 0xAB64),
    (0xFF21, 0xFF3A), (0xFF41, 0xFF5A),
)  # fmt: skip
_MORE_CASED = frozenset("άέίόώήύΆΈΊΌΏΉΎёЁәөүҗңһӘӨҮҖҢҺіїєґІЇЄҐѓѕјљњќѐѝЃЅЈЉЊЌЀЍ")
_UNCASED = (
    (0x591, 0x5F4), (0x620, 0x64A), (0x66E, 0x6D5), (0x6E5, 0x6FF), (0x750, 0x77F), (0x8A0, 0x8BD),
    (0x900, 0x97F), (0x980, 0x9FF), (0xB80, 0xBFF), (0xC00, 0xC7F), (0xC80, 0xCFF), (0xD80, 0xDFF),
    (0x1100, 0x11FF), (0x1200, 0x137F), (0x2E80, 0x2FDF), (0x2FF0, 0x303F), (0x3040, 0x30FF),
    (0x31C0, 0x31EF), (0x3200, 0x33FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xAC00, 0xD7AF),
    (0xF900, 0xFAFF), (0xFB1D, 0xFB4F), (0xFB50, 0xFBB1), (0xFBD3, 0xFD3D), (0xFD50, 0xFDC7),
    (0xFDF0, 0xFDFB), (0xFE30, 0xFE4F), (0xFE70, 0xFEFC), (0x1EE00, 0x1EEBB), (0x1F200, 0x1F2FF),
    (0x20000, 0x2A6DF), (0x2A700, 0x2EBEF), (0x2F800, 0x2FA1F),
)  # fmt: skip


class WordClasses(NamedTuple):
    """The class and the flags of every code point.

    page: uint16, (0x1100,), the block of code points c with c >> 8 == i.
    entries: uint16, (n_blocks * 256,), class and flags; those of a byte below 0x80 are at its own place.
    """

    page: NDArray[np.uint16]
    entries: NDArray[np.uint16]


@cached_table
def word_classes() -> WordClasses:
    """The table, built on the first call."""
    blocks: dict[bytes, int] = {}
    page = np.empty((sys.maxunicode + 1) // _BLOCK, np.uint16)
    ends = {edge for ranges in (_KATAKANA, _LATIN, _UNCASED) for pair in ranges for edge in pair}
    special = {edge // _BLOCK for edge in ends} | {code // _BLOCK for code in _TERMINAL}
    for i in range(len(page)):
        characters = list(map(chr, range(i * _BLOCK, (i + 1) * _BLOCK)))
        first, last = word_class_reference(characters[0]), word_class_reference(characters[-1])
        categories = set(map(unicodedata.category, characters))
        # As in unicode_tables: most blocks are of one kind throughout, and one look is enough.
        if (
            first == last
            and len(categories) == 1
            and categories <= {"Cn", "Co", "Cs", "Lo"}
            and i not in special
        ):
            entries = [first] * _BLOCK
        else:
            entries = list(map(word_class_reference, characters))
        page[i] = blocks.setdefault(np.array(entries, np.uint16).tobytes(), len(blocks))
    return WordClasses(page, np.frombuffer(b"".join(blocks), np.uint16))


def word_class_reference(character: str) -> int:
    """The table's entry for one character.

    >>> word_class_reference("7") & BREAK_CLASS == NUMERIC
    True
    """
    category = unicodedata.category(character)
    entry = break_class_reference(character)
    entry |= WHITE if character.isspace() else 0
    entry |= ALPHA if character.isalpha() else 0
    entry |= ALNUM if character.isalnum() else 0
    entry |= PUNCT if category[0] == "P" else 0
    entry |= SYMBOL if character in SYMBOLS else 0
    entry |= TERMINAL if character in TERMINAL_PUNCTUATION else 0
    entry |= ICON if category == "So" else 0
    entry |= AFFIX if character in _PUNCTUATION or character in QUOTES or category == "So" else 0
    entry |= PREFIX if character in "§%=—–" or character in _CURRENCY else 0
    code = ord(character)
    if character in _MORE_CASED or (character.isalpha() and _in(code, _LATIN)):
        entry |= LETTERS | (LOWER if character.islower() else 0) | (UPPER if character.isupper() else 0)
    elif _in(code, _UNCASED):
        entry |= LETTERS | LOWER | UPPER
    return entry


def break_class_reference(character: str) -> int:
    """The Word_Break class of one character."""
    category, code = unicodedata.category(character), ord(character)
    by_character = (
        ("'", SINGLE_QUOTE), ('"', DOUBLE_QUOTE), (_MID_LETTER, MID_LETTER), (_MID_NUM, MID_NUM),
        (_MID_NUM_LET, MID_NUM_LET),
    )  # fmt: skip
    for characters, break_class in by_character:
        if character in characters:
            return break_class
    if category in ("Mn", "Mc", "Me", "Cf") or 0x1F3FB <= code <= 0x1F3FF:
        return OTHER if code == 0x200B else IGNORED
    if _in(code, _KATAKANA):
        return KATAKANA
    if flags_reference(character) & UNSPACED:
        return EACH
    if category == "Nd" or code == 0x066B:
        return NUMERIC
    if category == "Pc" or code == 0x202F:
        return EXTEND_NUM_LET
    if category == "Lo" and (0x5D0 <= code <= 0x5F2 or 0xFB1D <= code <= 0xFB4F):
        return HEBREW
    return LETTER if character.isalpha() or category == "Nl" else OTHER


def _in(code: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    at = bisect_right(ranges, (code, sys.maxunicode)) - 1
    return at >= 0 and code <= ranges[at][1]

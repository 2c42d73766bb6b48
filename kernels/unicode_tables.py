"""What a kernel must know of Unicode: classes and lowercase of each code point, and how UTF-8 is read.

The tables are built once per machine (table_cache.py) from `unicodedata` and Python's own string methods, so
a kernel cuts words where ``str.split`` does. They are two-level: ``page[c >> 8]`` says which block of 256
entries holds code point ``c``, and equal blocks are stored once (36 thousand entries instead of 1.1 million).
Code points below 256 lie in block 0, so ``flags[byte]`` needs no lookup of a page.
"""

import sys
import unicodedata
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .jit import uncounted
from .table_cache import cached_table

SPACE = 1  # str.isspace: where str.split cuts
LINE_BREAK = 2  # where str.splitlines cuts
ALPHABETIC = 4  # str.isalpha
DECIMAL = 8  # str.isdecimal
PUNCTUATION = 16  # general category P*
MARK = 32  # general category M*: belongs to the letter before it
WORD = 64  # str.isalnum, the underscore, or a mark: what `\w` matches, and marks
UNSPACED = 128  # a letter of a script that puts no spaces between words: each is a word of its own

REPLACEMENT = 0xFFFD
_BLOCK = 256

# Unicode 15 blocks (first, last) of the scripts in which a space ends a phrase, not a word (UAX 14 class SA,
# UAX 29 rule WB4 with ideographs and kana). Tibetan is not here: its tsheg, a punctuation mark, ends each
# syllable.
_UNSPACED_BLOCKS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x2E80, 0x2FDF),  # CJK radicals
    (0x3005, 0x3007),  # ideographic iteration mark, closing mark and zero
    (0x3040, 0x312F),  # hiragana, katakana, bopomofo
    (0x31A0, 0x31FF),  # bopomofo and katakana extensions
    (0x3400, 0x4DBF),  # ideographs, extension A
    (0x4E00, 0xA4CF),  # ideographs, Yi
    (0xA9E0, 0xA9FF),  # Myanmar extended B
    (0xAA60, 0xAADF),  # Myanmar extended A, Tai Viet
    (0xF900, 0xFAFF),  # compatibility ideographs
    (0xFF66, 0xFF9F),  # halfwidth katakana
    (0x16FE0, 0x18DFF),  # Tangut, Khitan
    (0x1AFF0, 0x1B2FF),  # kana supplements, Nushu
    (0x20000, 0x3FFFF),  # ideographs, extensions B and later
)


class UnicodeTables(NamedTuple):
    """Classes and lowercase of every code point.

    page: uint16, (0x1100,), the block of code points c with c >> 8 == i.
    flags: uint8, (n_blocks * 256,), the classes above or-ed together.
    lower: int32, (n_blocks * 256,), what to add to a code point to get its simple lowercase mapping.
    """

    page: NDArray[np.uint16]
    flags: NDArray[np.uint8]
    lower: NDArray[np.int32]


def flags_reference(character: str) -> int:
    """The classes of one character.

    >>> flags_reference("é") == ALPHABETIC | WORD
    True
    """
    code = ord(character)
    category = unicodedata.category(character)
    flags = SPACE if character.isspace() else 0
    flags |= LINE_BREAK if len(f"a{character}b".splitlines()) == 2 else 0
    flags |= ALPHABETIC if character.isalpha() else 0
    flags |= DECIMAL if character.isdecimal() else 0
    flags |= PUNCTUATION if category[0] == "P" else 0
    flags |= MARK if category[0] == "M" else 0
    flags |= WORD if character.isalnum() or character == "_" or category[0] == "M" else 0
    if flags & WORD and not flags & (DECIMAL | MARK) and any(a <= code <= b for a, b in _UNSPACED_BLOCKS):
        flags |= UNSPACED
    return flags


def lower_reference(character: str) -> str:
    """The simple lowercase mapping: as ``str.lower``, but "i" for U+0130, whose full mapping is longer."""
    return character.lower()[0]


@cached_table
def unicode_tables() -> UnicodeTables:
    """The tables of `unicodedata.unidata_version`, the interpreter's, built on the first call."""
    blocks: dict[tuple[bytes, bytes], int] = {}
    page = np.empty((sys.maxunicode + 1) // _BLOCK, np.uint16)
    every = np.arange(sys.maxunicode + 1, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    for i in range(len(page)):
        block = _block(every[i * _BLOCK : (i + 1) * _BLOCK])
        page[i] = blocks.setdefault(block, len(blocks))
    return UnicodeTables(
        page=page,
        flags=np.frombuffer(b"".join(flags for flags, _ in blocks), np.uint8),
        lower=np.frombuffer(b"".join(lower for _, lower in blocks), np.int32),
    )


def _block(characters: str) -> tuple[bytes, bytes]:
    first, last = flags_reference(characters[0]), flags_reference(characters[-1])
    # Most blocks are unassigned, private or ideographs throughout: one look is enough.
    if first == last and (_have_no_class(characters) or _are_letters_without_case(characters)):
        return bytes([first]) * _BLOCK, bytes(4 * _BLOCK)
    deltas = [ord(lower_reference(character)) - ord(character) for character in characters]
    return bytes(map(flags_reference, characters)), np.array(deltas, np.int32).tobytes()


def _have_no_class(characters: str) -> bool:
    # repr() escapes what cannot be printed: categories C* and Z*.
    none_prints = repr(characters).count("\\") == len(characters)
    return none_prints and len(characters.split()) == 1 and len(characters.splitlines()) == 1


def _are_letters_without_case(characters: str) -> bool:
    return characters.isalpha() and characters.lower() == characters


@uncounted
def decode(text: NDArray[np.uint8], i: int) -> tuple[int, int]:
    """The code point that starts at byte i of `text`, and where the next one starts; nothing beyond the end
    is read.

    Bytes that are not UTF-8 give U+FFFD, one for each maximal subpart, as ``bytes.decode("utf-8",
    "replace")`` does.
    Source: The Unicode Standard, table 3-7 (well-formed UTF-8 byte sequences) and section 3.9 (U+FFFD
    substitution).
    """
    lead = text[i]
    if lead < 0x80:
        return lead, i + 1
    if lead < 0xC2 or lead > 0xF4:
        return REPLACEMENT, i + 1
    n_bytes = 2 + (lead >= 0xE0) + (lead >= 0xF0)
    code = lead & (0x7F >> n_bytes)
    low = 0xA0 if lead == 0xE0 else 0x90 if lead == 0xF0 else 0x80
    high = 0x9F if lead == 0xED else 0x8F if lead == 0xF4 else 0xBF
    for k in range(i + 1, i + n_bytes):
        if k >= len(text) or text[k] < low or text[k] > high:
            return REPLACEMENT, k
        code = code << 6 | (text[k] & 0x3F)
        low, high = 0x80, 0xBF
    return code, i + n_bytes


@uncounted
def encode(code: int, text: NDArray[np.uint8]) -> int:
    """Writes a code point as UTF-8 and returns how many bytes it took."""
    if code < 0x80:
        text[0] = code
        return 1
    n_bytes = 2 + (code >= 0x800) + (code >= 0x10000)
    for k in range(n_bytes - 1, 0, -1):
        text[k] = 0x80 | (code & 0x3F)
        code >>= 6
    text[0] = (0xF00 >> n_bytes & 0xFF) | code
    return n_bytes


@uncounted
def entry(page: NDArray[np.uint16], code: int) -> int:
    """Where the `flags` and `lower` of the table with this `page` speak of a code point."""
    block: int = page[code >> 8]
    return block << 8 | (code & 0xFF)

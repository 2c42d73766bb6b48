"""Words between the boundaries of UAX #29, the rules for text in any language.

Rules WB3 to WB13 over the classes of `word_classes`; emoji sequences and flags (WB3c, WB15, WB16) are not
told apart, since they are no words. A segment is a word if it holds a letter, a number, kana or an ideograph.
Source: Unicode Standard Annex #29, revision 43.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from .jit import uncounted
from .unicode_tables import decode
from .word_classes import (
    BREAK_CLASS,
    DOUBLE_QUOTE,
    EACH,
    EXTEND_NUM_LET,
    HEBREW,
    IGNORED,
    KATAKANA,
    LETTER,
    MID_LETTER,
    MID_NUM,
    MID_NUM_LET,
    NUMERIC,
    OTHER,
    SINGLE_QUOTE,
    WHITE,
    word_class_reference,
)
from .word_kinds import kinds_of


def uax29_words_reference(text: str) -> list[str]:
    """The segments of a text that are words, by the rules of UAX #29, asked at every position.

    >>> uax29_words_reference("Don't pay 3,14 to snake_case: 東京 カメラ!")
    ["Don't", 'pay', '3,14', 'to', 'snake_case', '東', '京', 'カメラ']
    """
    return [segment for segment in _segments(text) if _is_word(segment)]


def _is_word(segment: str) -> bool:
    classes = {word_class_reference(character) & BREAK_CLASS for character in segment}
    return bool(classes & {LETTER, HEBREW, NUMERIC, KATAKANA, EACH})


def _segments(text: str) -> Iterator[str]:
    start = 0
    classes = [word_class_reference(character) & BREAK_CLASS for character in text]
    for i in range(1, len(text) + 1):
        if i == len(text) or _breaks(text, classes, i):
            yield text[start:i]
            start = i


def _breaks(text: str, classes: list[int], i: int) -> bool:
    """Whether there is a word boundary before character i, 0 < i < len(text): rules WB3 to WB13."""
    line_break = "\n\x0b\x0c\r\x85\u2028\u2029"
    if text[i - 1] in line_break or text[i] in line_break:
        return True  # WB3a, WB3b; CR LF holds no word
    if classes[i] == IGNORED:
        return False  # WB4
    before = [c for j, c in enumerate(classes[:i]) if c != IGNORED or j == 0 or text[j - 1] in line_break]
    after = [c for c in classes[i:] if c != IGNORED]
    one_before, two_before = before[-1], before[-2] if len(before) > 1 else OTHER
    one_after, two_after = after[0], after[1] if len(after) > 1 else OTHER
    letters = (LETTER, HEBREW)
    mid_letter, mid_number = (MID_LETTER, MID_NUM_LET, SINGLE_QUOTE), (MID_NUM, MID_NUM_LET, SINGLE_QUOTE)
    joined = (
        (one_before in letters and one_after in letters)  # WB5
        or (one_before in letters and one_after in mid_letter and two_after in letters)  # WB6
        or (two_before in letters and one_before in mid_letter and one_after in letters)  # WB7
        or (one_before == HEBREW and one_after == SINGLE_QUOTE)  # WB7a
        or (one_before == HEBREW and one_after == DOUBLE_QUOTE and two_after == HEBREW)  # WB7b
        or (two_before == HEBREW and one_before == DOUBLE_QUOTE and one_after == HEBREW)  # WB7c
        or (one_before in (*letters, NUMERIC) and one_after == NUMERIC)  # WB8, WB9
        or (one_before == NUMERIC and one_after in letters)  # WB10
        or (two_before == NUMERIC and one_before in mid_number and one_after == NUMERIC)  # WB11
        or (one_before == NUMERIC and one_after in mid_number and two_after == NUMERIC)  # WB12
        or (one_before == KATAKANA and one_after == KATAKANA)  # WB13
        or (
            one_before in (*letters, NUMERIC, KATAKANA, EXTEND_NUM_LET) and one_after == EXTEND_NUM_LET
        )  # WB13a
        or (one_before == EXTEND_NUM_LET and one_after in (*letters, NUMERIC, KATAKANA))  # WB13b
    )
    return not joined


@uncounted
def uax29_words(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    page: NDArray[np.uint16],
    entries: NDArray[np.uint16],
    starts: NDArray[np.int64],
    n_bytes: NDArray[np.int32],
    n_characters: NDArray[np.int32],
    kinds: NDArray[np.uint8],
    word_offsets: NDArray[np.int64],
) -> None:
    """Fill the columns of `words.Words` with the words of each document."""
    n = 0
    for d in range(len(offsets) - 1):
        text = data[: offsets[d + 1]]
        i, end = offsets[d], offsets[d + 1]
        while i < end:
            # One segment: character after character, as long as no boundary comes before the next.
            start, n_extra = i, 0
            code, i = decode(text, i)
            first = entries[page[code >> 8] << 8 | (code & 0xFF)]
            if first & WHITE:
                continue
            n_extra += i - start - 1
            any_of, all_of = int(first), int(first)
            previous = first & BREAK_CLASS
            is_word = _makes_word(previous)
            wanted = -1  # behind a mark in the middle of a word or number: the class that has to follow
            while i < end:
                if text[i] < 0x80:
                    found, following = entries[text[i]], i + 1
                else:
                    code, following = decode(text, i)
                    found = entries[page[code >> 8] << 8 | (code & 0xFF)]
                this = found & BREAK_CLASS
                if this != IGNORED:
                    if wanted >= 0:
                        joined = _same(wanted, this)
                        wanted = -1
                    elif _joined(previous, this):
                        joined = True
                    else:
                        joined = False
                        if _may_be_inside(previous, this):
                            after = _class_behind(text, following, page, entries)
                            if _same(previous, after) and not (this == DOUBLE_QUOTE and after != HEBREW):
                                joined, wanted = True, previous
                        if previous == HEBREW and this == SINGLE_QUOTE:
                            joined = True
                    if not joined:
                        break
                    previous = this
                    is_word = is_word or _makes_word(this)
                n_extra += following - i - 1
                any_of |= found
                all_of &= found
                i = following
            if is_word:
                starts[n], n_bytes[n], n_characters[n] = start, i - start, i - start - n_extra
                kinds[n] = kinds_of(first, any_of, all_of, i - start - n_extra)
                n += 1
        word_offsets[d + 1] = n


@uncounted
def _makes_word(break_class: int) -> bool:
    return 1 <= break_class <= KATAKANA or break_class == EACH


@uncounted
def _is_letter(break_class: int) -> bool:
    return break_class in (LETTER, HEBREW)


@uncounted
def _same(one: int, other: int) -> bool:
    """Both letters, or both numbers."""
    return (_is_letter(one) and _is_letter(other)) or (one == NUMERIC and other == NUMERIC)


@uncounted
def _joined(one: int, other: int) -> bool:
    """WB5, WB8 to WB10, WB13 to WB13b: no boundary between two classes whatever is around them."""
    if one == EXTEND_NUM_LET or other == EXTEND_NUM_LET:
        return 1 <= one <= EXTEND_NUM_LET and 1 <= other <= EXTEND_NUM_LET
    if one == KATAKANA or other == KATAKANA:
        return one == other
    return 1 <= one <= NUMERIC and 1 <= other <= NUMERIC


@uncounted
def _may_be_inside(one: int, mark: int) -> bool:
    """Whether `mark` behind `one` may stand in the middle of a word or number: WB6, WB7b, WB12."""
    if mark in (MID_NUM_LET, SINGLE_QUOTE):
        return _is_letter(one) or one == NUMERIC
    return (
        (mark == MID_LETTER and _is_letter(one))
        or (mark == MID_NUM and one == NUMERIC)
        or (mark == DOUBLE_QUOTE and one == HEBREW)
    )


@uncounted
def _class_behind(
    text: NDArray[np.uint8], i: int, page: NDArray[np.uint16], entries: NDArray[np.uint16]
) -> int:
    """The class of the first character from byte i on that is not ignored."""
    while i < len(text):
        code, i = decode(text, i)
        found: int = entries[page[code >> 8] << 8 | (code & 0xFF)] & BREAK_CLASS
        if found != IGNORED:
            return found
    return OTHER

"""Words of scripts without spaces, put together from the letters of `uax29` where a dictionary has them.

UAX #29 leaves Thai, Lao, Khmer, Myanmar, Han and kana to a dictionary: `words` makes each letter a word.
Here such letters that stand side by side are a run; whoever has a dictionary says where the words of a run
end, and the letters between two ends become one word. A cut inside a letter (before its marks) is never made,
and a run of katakana stays one word.
"""

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from .jit import kernel
from .uax29_words import uax29_words_reference
from .unicode_tables import decode
from .words import Words

DICTIONARY_RANGES = np.array(
    [
        (0x0E01, 0x0EDF),  # Thai, Lao
        (0x1000, 0x109F),  # Myanmar
        (0x1780, 0x17DD),  # Khmer
        (0x2E80, 0x2FDF),  # CJK radicals
        (0x3005, 0x3007),  # ideographic iteration mark, closing mark and zero
        (0x3041, 0x30FF),  # hiragana, katakana
        (0x31F0, 0x31FF),  # katakana extensions
        (0x3400, 0x4DBF),  # ideographs, extension A
        (0x4E00, 0x9FFF),  # ideographs
        (0xA9E0, 0xA9FF),  # Myanmar extended B
        (0xAA60, 0xAA7F),  # Myanmar extended A
        (0xF900, 0xFAFF),  # compatibility ideographs
        (0xFF66, 0xFF9F),  # halfwidth katakana
        (0x20000, 0x3FFFF),  # ideographs, extensions B and later
    ],
    np.int64,
)
"""Unicode blocks (first, last code point), ascending, of the scripts for which ICU has a dictionary."""
_LF = 10


def dictionary_words_reference(text: str, cut: Callable[[str], Iterable[str]]) -> list[str]:
    """The words of a text, the letters of `uax29` joined where `cut` does not cut their run.

    >>> dictionary_words_reference("ab 東京都に", lambda run: [run[:2], run[2:]])
    ['ab', '東京', '都に']
    """
    words: list[str] = []
    run: list[str] = []
    position = 0
    for word in uax29_words_reference(text):
        start = text.index(word, position)
        in_dictionary = any(a <= ord(word[0]) <= b for a, b in DICTIONARY_RANGES)
        if run and not (in_dictionary and start == position):
            words += _joined_reference(run, cut)
            run = []
        position = start + len(word)
        if in_dictionary:
            run.append(word)
        else:
            words.append(word)
    return words + _joined_reference(run, cut)


def _joined_reference(letters: list[str], cut: Callable[[str], Iterable[str]]) -> list[str]:
    ends, end = {0}, 0
    for piece in cut("".join(letters)):
        end += len(piece)
        ends.add(end)
    words: list[str] = []
    position = 0
    for letter in letters:
        if position in ends:
            words.append("")
        words[-1] += letter
        position += len(letter)
    return words


def run_starts(data: NDArray[np.uint8], words: Words) -> NDArray[np.int8]:
    """int8, (n_words,): 1 where a run of letters of a dictionary begins, 2 where it goes on, 0 elsewhere.

    Args:
        data: uint8, (n_bytes,), UTF-8.
        words: the words of `uax29` of its documents.
    """
    return _run_starts(data, words.starts, words.n_bytes, words.offsets, DICTIONARY_RANGES)


@kernel
def _run_starts(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    n_bytes: NDArray[np.int32],
    offsets: NDArray[np.int64],
    ranges: NDArray[np.int64],
) -> NDArray[np.int8]:
    places = np.zeros(len(starts), np.int8)
    for d in range(len(offsets) - 1):
        end = np.int64(-1)  # of the run's last letter
        for k in range(offsets[d], offsets[d + 1]):
            start = starts[k]
            if data[start] < 0xE0:  # all ranges lie above U+0800
                continue
            code, _ = decode(data, start)
            for r in range(len(ranges)):
                if code <= ranges[r, 1]:
                    if code >= ranges[r, 0]:
                        places[k] = 2 if start == end else 1
                        end = start + n_bytes[k]
                    break
    return places


def runs_text(
    data: NDArray[np.uint8], words: Words, places: NDArray[np.int8], first: int, last: int
) -> NDArray[np.uint8]:
    """uint8: the runs among words first to last, one a line, as `run_starts` gives their `places`."""
    return _runs_text(data, words.starts, words.n_bytes, places, first, last)


@kernel
def _runs_text(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    n_bytes: NDArray[np.int32],
    places: NDArray[np.int8],
    first: int,
    last: int,
) -> NDArray[np.uint8]:
    room = 0
    for k in range(first, last):
        if places[k]:
            room += n_bytes[k] + (places[k] == 1)
    text = np.empty(room, np.uint8)
    n = 0
    for k in range(first, last):
        if places[k] == 1:
            text[n] = _LF
            n += 1
        if places[k]:
            for i in range(n_bytes[k]):
                text[n + i] = data[starts[k] + i]
            n += n_bytes[k]
    return text


def mark_joined(
    text: NDArray[np.uint8],
    ends: NDArray[np.int32],
    n_bytes: NDArray[np.int32],
    places: NDArray[np.int8],
    is_joined: NDArray[np.bool_],
) -> None:
    """Set `is_joined` where a word goes on with the word before it.

    Args:
        text: uint8, the runs of these words, as `runs_text` gives them.
        ends: int32, ascending, where the dictionary ends its pieces of `text`, in UTF-16 code units.
        n_bytes, places, is_joined: (n_words,), of these words.
    """
    _mark_joined(text, ends, n_bytes, places, is_joined)


@kernel
def _mark_joined(
    text: NDArray[np.uint8],
    ends: NDArray[np.int32],
    n_bytes: NDArray[np.int32],
    places: NDArray[np.int8],
    is_joined: NDArray[np.bool_],
) -> None:
    i, n_units, e = 0, 0, 0
    for k in range(len(places)):
        if not places[k]:
            continue
        if places[k] == 1:
            i += 1
            n_units += 1
        while e < len(ends) and ends[e] < n_units:
            e += 1
        is_joined[k] = places[k] == 2 and (e == len(ends) or ends[e] != n_units)
        for _ in range(n_bytes[k]):
            n_units += (text[i] & 0xC0 != 0x80) + (text[i] >= 0xF0)
            i += 1


def join_words(words: Words, is_joined: NDArray[np.bool_]) -> Words:
    """`words` with each one that `is_joined` as a part of the word before it, which it touches."""
    if not is_joined.any():
        return words
    first = np.flatnonzero(~is_joined)
    last = np.append(first[1:], len(is_joined)) - 1
    starts = words.starts[first]
    n_bytes = (words.starts[last] + words.n_bytes[last] - starts).astype(np.int32)
    n_characters = np.add.reduceat(words.n_characters, first, dtype=np.int32)
    # A word that is joined is a letter with its marks: it is alphabetic as its first one is, and no symbol.
    n_before = np.concatenate([[0], np.cumsum(~is_joined)])
    return Words(starts, n_bytes, n_characters, words.kinds[first], n_before[words.offsets])

"""How many sentences the lines of a document have."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .jit import uncounted
from .unicode_tables import decode
from .word_classes import QUOTES, TERMINAL, TERMINAL_PUNCTUATION, word_classes
from .word_kinds import ENDS_SENTENCE, PUNCTUATION
from .words import Words

_LF, _BLANK = 10, 32
CLOSING = QUOTES | frozenset(")]}")
"""What may stand behind the mark that ends a sentence."""
_CLOSING_CODES = np.array(sorted(map(ord, CLOSING)), np.int64)
_LOOK_CLOSER = np.array([byte >= 0x80 or chr(byte) in CLOSING for byte in range(256)])
"""Last bytes of a word that do not tell by themselves whether it ends a sentence."""


def sentences(data: NDArray[np.uint8], words: Words, english: bool) -> NDArray[np.int64]:
    """int64, (n_docs,): the sentences of each document, counted line by line.

    With words of `whitespace`, a sentence ends at a word whose last character, closing quotes and brackets
    aside, ends sentences in some script, or with the line: abbreviations end one too. With those of
    `english`, sentences are those of spaCy's sentencizer: one begins behind a mark that ends sentences at the
    next token that is no punctuation, where a run of white space that is not a single space is such a token.

    Args:
        data: uint8, (n_bytes,), UTF-8; lines end at newlines.
        words: the words of its documents, by `whitespace`, or by `english` if so.
    """
    counts = np.zeros(len(words.offsets) - 1, np.int64)
    starts, n_bytes, _, kinds, offsets = words
    _sentences(data, starts, n_bytes, kinds, offsets, *word_classes(), english, counts)
    return counts


def sentences_reference(data: NDArray[np.uint8], words: Words, english: bool) -> NDArray[np.int64]:
    """`sentences` in plain Python."""
    raw = data.tobytes()
    counts = []
    for first, last in pairwise(words.offsets):
        n_sentences, ended, end = 0, False, None
        for k in range(first, last):
            start, stop = int(words.starts[k]), int(words.starts[k] + words.n_bytes[k])
            word, gap = raw[start:stop].decode("utf-8", "replace"), b"\n" if end is None else raw[end:start]
            end = stop
            if b"\n" in gap or (english and ended and gap not in (b"", b" ")):
                n_sentences, ended = n_sentences + 1, False
            if english:
                if ended and not words.kinds[k] & (PUNCTUATION | ENDS_SENTENCE):
                    n_sentences, ended = n_sentences + 1, False
                ended = ended or bool(words.kinds[k] & ENDS_SENTENCE)
            else:
                n_sentences += ended
                while len(word) > 1 and word[-1] in CLOSING:
                    word = word[:-1]
                ended = word[-1] in TERMINAL_PUNCTUATION
        counts.append(n_sentences)
    return np.array(counts, np.int64)


@uncounted
def _sentences(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    n_bytes: NDArray[np.int32],
    kinds: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    page: NDArray[np.uint16],
    entries: NDArray[np.uint16],
    english: bool,
    counts: NDArray[np.int64],
) -> None:
    for d in range(len(counts)):
        n_sentences, ended = 0, False
        for k in range(offsets[d], offsets[d + 1]):
            new_line = k == offsets[d]
            if not new_line:
                before = starts[k - 1] + n_bytes[k - 1]
                for i in range(before, starts[k]):
                    new_line = new_line or data[i] == _LF
                n_white = starts[k] - before
                white = n_white > 1 or (n_white == 1 and data[before] != _BLANK)
                if english and ended and white and not new_line:
                    n_sentences, ended = n_sentences + 1, False
            if new_line:
                n_sentences, ended = n_sentences + 1, False
            if english:
                if ended and not kinds[k] & (PUNCTUATION | ENDS_SENTENCE):
                    n_sentences, ended = n_sentences + 1, False
                ended = ended or (kinds[k] & ENDS_SENTENCE) != 0
            else:
                n_sentences += ended
                end = starts[k] + n_bytes[k]
                ended = (entries[data[end - 1]] & TERMINAL) != 0
                if _LOOK_CLOSER[data[end - 1]]:
                    ended = _ends_sentence(data[:end], starts[k], page, entries)
        counts[d] = n_sentences


@uncounted
def _ends_sentence(
    text: NDArray[np.uint8], start: int, page: NDArray[np.uint16], entries: NDArray[np.uint16]
) -> bool:
    """Whether the word from `start` to the end of `text` ends in a terminal mark, closing marks aside."""
    end = len(text)
    while True:
        back = end - 1
        while back > start and back > end - 4 and text[back] & 0xC0 == 0x80:
            back -= 1
        code, _ = decode(text[:end], back)
        closing = False
        for mark in _CLOSING_CODES:
            closing = closing or code == mark
        if not closing or back == start:
            return bool(entries[page[code >> 8] << 8 | (code & 0xFF)] & TERMINAL)
        end = back

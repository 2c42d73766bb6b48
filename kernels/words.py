"""Where the words of a document are: one pass over its bytes, for all who look at words.

==============  ==========================================================================================
`whitespace`    what ``str.split`` gives
`uax29`         segments between the word boundaries of UAX #29 that hold a letter, a number, kana or an
                ideograph
`english`       the tokens of spaCy's blank English tokenizer, punctuation marks included (`english_words`)
==============  ==========================================================================================

A script without spaces: `whitespace` and `english` take a whole phrase for one word, as their models do;
`uax29` makes each letter of Thai, Lao, Khmer, Myanmar, Han, hiragana a word of its own, with its marks (UAX
#29 leaves those scripts to a dictionary), and a run of katakana one word.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .byte_masks import wide
from .english_chunks import chunk_room, english_words
from .english_rules import english_words_reference
from .english_words import english_specials
from .jit import read_only
from .uax29_words import uax29_words, uax29_words_reference
from .whitespace_words import whitespace_words
from .word_classes import word_classes
from .word_kinds import ALNUM_FIRST, kinds_reference

Segmentation = Literal["whitespace", "uax29", "english"]


class Words(NamedTuple):
    """The words of all documents one after another.

    starts: int64, (n_words,), the word's first byte in the column's data.
    n_bytes, n_characters: int32, (n_words,), its lengths.
    kinds: uint8, (n_words,), the flags of `word_kinds` or-ed together.
    offsets: int64, (n_docs + 1,), document d has the words offsets[d] to offsets[d + 1].
    """

    starts: NDArray[np.int64]
    n_bytes: NDArray[np.int32]
    n_characters: NDArray[np.int32]
    kinds: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    def alnum_first(self) -> "Words":
        """Those of them that begin with a letter or a number."""
        starts, n_bytes, n_characters, kinds, offsets = self
        chosen = (kinds & ALNUM_FIRST).astype(bool)
        before = np.concatenate([[0], np.cumsum(chosen)])
        return Words(starts[chosen], n_bytes[chosen], n_characters[chosen], kinds[chosen], before[offsets])


def words(data: NDArray[np.uint8], offsets: NDArray[np.int64], segmentation: Segmentation) -> Words:
    """The words of each document.

    Args:
        data: uint8, (n_bytes,), UTF-8; a byte that is not is read as U+FFFD.
        offsets: int64, (n_docs + 1,), document d is data[offsets[d]:offsets[d + 1]].
    """
    data, offsets = read_only(wide(data), offsets)
    page, entries = word_classes()
    n_bytes = int(offsets[-1] - offsets[0])
    # A word of `whitespace` is followed by a space; others may be one byte. Untouched memory costs nothing.
    room = n_bytes if segmentation != "whitespace" else (n_bytes + len(offsets)) // 2 + 1
    starts, kinds = np.empty(room, np.int64), np.empty(room, np.uint8)
    lengths, characters = np.empty(room, np.int32), np.empty(room, np.int32)
    ends = np.zeros(len(offsets), np.int64)
    if segmentation == "english":
        specials = english_specials()
        arrays: tuple[Any, ...] = chunk_room(offsets)
        english_words(
            data, offsets, page, entries, *specials, starts, lengths, characters, kinds, ends, *arrays
        )
    else:
        cut = whitespace_words if segmentation == "whitespace" else uax29_words
        cut(data, offsets, page, entries, starts, lengths, characters, kinds, ends)
    n_words = ends[-1]
    return Words(starts[:n_words], lengths[:n_words], characters[:n_words], kinds[:n_words], ends)


def words_reference(data: NDArray[np.uint8], offsets: NDArray[np.int64], segmentation: Segmentation) -> Words:
    """`words` in plain Python; of invalid UTF-8 it knows only the words, not where they are."""
    cuts: dict[Segmentation, Callable[[str], list[str]]] = {
        "whitespace": str.split,
        "uax29": uax29_words_reference,
        "english": english_words_reference,
    }
    rows, ends = [], [0]
    for start, end in pairwise(offsets):
        text = data[start:end].tobytes().decode("utf-8", "replace")
        position = 0
        for word in cuts[segmentation](text):
            position = text.index(word, position)
            before = len(text[:position].encode())
            rows.append((start + before, len(word.encode()), len(word), kinds_reference(word)))
            position += len(word)
        ends.append(len(rows))
    starts, n_bytes, n_characters, kinds = np.array(rows, np.int64).reshape(-1, 4).T
    return Words(
        starts,
        n_bytes.astype(np.int32),
        n_characters.astype(np.int32),
        kinds.astype(np.uint8),
        np.array(ends, np.int64),
    )

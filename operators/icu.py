"""Words and sentences by ICU, for scripts that put no spaces between words (`cuvee[languages]`).

icu4py is imported where it is used. It holds the GIL while it cuts.
"""

from itertools import chain, pairwise

import numpy as np
from numpy.typing import NDArray

from ..kernels.dictionary_words import join_words, mark_joined, run_starts, runs_text
from ..kernels.words import Words, words

PACKAGE, EXTRA = "icu4py", "languages"
_LOCALE = "root"  # the language is not known, and the dictionaries are told by the script
_MAX_WORDS = 1 << 22
"""Words of `uax29` whose runs are handed to ICU at once: at most 16 MB of letters, and one run at least."""


def icu_words(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> Words:
    """The words of each document: those of UAX #29, and where it leaves letters alone, those of ICU's
    dictionaries of Chinese and Japanese, Thai, Lao, Khmer and Burmese.

    Args:
        data: uint8, (n_bytes,), UTF-8; a byte that is not is read as U+FFFD.
        offsets: int64, (n_docs + 1,), document d is data[offsets[d]:offsets[d + 1]].

    >>> text = "I live in 東京都. ผมชอบกินข้าว".encode()
    >>> found = icu_words(np.frombuffer(text, np.uint8), np.array([0, len(text)]))
    >>> [text[a : a + n].decode() for a, n in zip(found.starts, found.n_bytes)]
    ['I', 'live', 'in', '東京', '都', 'ผม', 'ชอบ', 'กิน', 'ข้าว']
    """
    letters = words(data, offsets, "uax29")
    places = run_starts(data, letters)
    is_joined = np.zeros(len(places), np.bool_)
    runs = np.flatnonzero(places == 1)
    if not len(runs):
        return letters
    # A run is never cut in two: its words depend on each other.
    blocks = runs[np.append(True, np.diff(runs // _MAX_WORDS) > 0)]
    for first, last in pairwise([*blocks.tolist(), len(places)]):
        text = runs_text(data, letters, places, first, last)
        block = slice(first, last)
        mark_joined(text, _ends(text), letters.n_bytes[block], places[block], is_joined[block])
    return join_words(letters, is_joined)


def _ends(text: NDArray[np.uint8]) -> NDArray[np.int32]:
    """int32: where ICU's segments of a text end, in UTF-16 code units."""
    from icu4py.breakers import WordBreaker

    segments = WordBreaker(text.tobytes().decode(), _LOCALE).segments()
    return np.fromiter(chain.from_iterable(segments), np.int32)[1::2]


def icu_sentences(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64, (n_docs,): the sentences of each document by UAX #29; a line break ends one.

    Args: as for `icu_words`.

    >>> text = "他来了。你呢？ Come in.".encode()
    >>> icu_sentences(np.frombuffer(text, np.uint8), np.array([0, len(text)]))
    array([3])
    """
    from icu4py.breakers import SentenceBreaker

    counts = np.zeros(len(offsets) - 1, np.int64)
    for d, (start, end) in enumerate(pairwise(offsets)):
        text = data[start:end].tobytes().decode("utf-8", "replace")
        counts[d] = sum(not sentence.isspace() for sentence in SentenceBreaker(text, _LOCALE))
    return counts

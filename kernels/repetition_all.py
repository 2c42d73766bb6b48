"""DCLM's counting rule for repeated n-grams (`repetition`, `all`)."""

import numpy as np
from numpy.typing import NDArray

from .frequent_ngrams import longer, most_frequent, pairs
from .grouping import group
from .jit import uncounted


@uncounted
def repetition_all(
    data: NDArray[np.uint8],
    starts: NDArray[np.int64],
    n_bytes: NDArray[np.int32],
    n_characters: NDArray[np.int32],
    offsets: NDArray[np.int64],
    characters: NDArray[np.int64],
    hashes: NDArray[np.uint64],
    keys: NDArray[np.uint64],
    places: NDArray[np.int32],
    cells: NDArray[np.uint8],
    top_keys: NDArray[np.uint64],
    top_places: NDArray[np.int32],
    table: NDArray[np.int32],
    first: NDArray[np.int32],
    tally: NDArray[np.int32],
    found: NDArray[np.int64],
    totals: NDArray[np.int64],
) -> None:
    """Fill the columns of `repetition.ngram_repetition`; the other arrays are `repetition.Room`'s."""
    for d in range(len(totals)):
        begin, n_words = offsets[d], offsets[d + 1] - offsets[d]
        n_places, most, shift = pairs(
            data, starts, n_bytes, n_characters, begin, n_words, characters, hashes, keys, places, cells
        )
        totals[d] = characters[n_words]
        for n in range(2, 11):
            if n > 2:
                n_places, most, shift = longer(keys, places, n_places, hashes, n_words, n, cells)
            if not n_places:
                break
            if n < 5:
                times, length = most_frequent(
                    characters, keys, places, n_places, cells, shift, most,
                    top_keys, top_places, table, first, tally, n, True,
                )  # fmt: skip
                found[d, n - 2] = length * times if times > 1 else 0
            else:
                group(keys, n_places, table, first, tally)
                found[d, n - 2] = _covered(characters, places, n_places, first, tally, n)
                n_places = _repeated(keys, places, n_places, first, tally)


@uncounted
def _covered(
    characters: NDArray[np.int64],
    places: NDArray[np.int32],
    n_places: int,
    first: NDArray[np.int32],
    tally: NDArray[np.int32],
    n: int,
) -> int:
    """Characters of the words in any n-gram that comes again, each word once."""
    n_covered, end = 0, 0
    for k in range(n_places):
        if tally[first[k]] > 1:
            n_covered += characters[places[k] + n] - characters[max(end, places[k])]
            end = places[k] + n
    return n_covered


@uncounted
def _repeated(
    keys: NDArray[np.uint64],
    places: NDArray[np.int32],
    n_places: int,
    first: NDArray[np.int32],
    tally: NDArray[np.int32],
) -> int:
    """Keep the n-grams that come again."""
    kept = 0
    for k in range(n_places):
        if tally[first[k]] > 1:
            keys[kept], places[kept] = keys[k], places[k]
            kept += 1
    return kept

"""What passages are counted in: bytes, words between white space, or the tokens of a tokenizer."""

from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer

from ..kernels.hashing import hash_ranges
from ..kernels.spans import copy_ranges
from ..kernels.words import words
from .files import read_bytes
from .text_column import binary_buffers, binary_column, one_chunk, text_buffers

Ints = NDArray[np.int64]


class Units(NamedTuple):
    """Texts as numbers, equal where units are.

    values: uint8 bytes or uint64 tokens, (n_units,).
    offsets: int64, (n_texts + 1,), text i is values[offsets[i]:offsets[i + 1]].
    starts, stops: int64, (n_units,), in bytes of the column; None where units are bytes.
    """

    values: NDArray[np.uint8] | NDArray[np.uint64]
    offsets: Ints
    starts: Ints | None
    stops: Ints | None


def bytes_of(column: pa.ChunkedArray) -> Units:
    """Each byte of UTF-8 is a unit."""
    return Units(*text_buffers(column), None, None)


def words_of(column: pa.ChunkedArray) -> Units:
    """Words between white space are units, by their XXH64: that any two of ten million different words are
    equal has a probability of 3 in a million."""
    data, offsets = text_buffers(column)
    found = words(data, offsets, "whitespace")
    starts, stops = found.starts, found.starts + found.n_bytes
    text, ends = copy_ranges(data, starts, found.n_bytes.astype(np.int64))
    return Units(_read_only(hash_ranges(text, ends)), found.offsets, starts, stops)


def tokens_of(column: pa.ChunkedArray, tokenizer: str) -> Units:
    """The tokens of the tokenizer in a file are units."""
    data, offsets = text_buffers(column)
    texts = [data[a:b].tobytes() for a, b in pairwise(offsets)]
    encodings = _opened(tokenizer).encode_batch([text.decode() for text in texts], add_special_tokens=False)
    starts, stops = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for text, first, encoding in zip(texts, offsets[:-1], encodings, strict=True):
        head = np.frombuffer(text, np.uint8) & 0xC0 != 0x80
        characters = np.append(np.flatnonzero(head), len(text)) + first
        places = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        starts.append(characters[places[:, 0]])
        stops.append(characters[places[:, 1]])
    values = np.array([token for encoding in encodings for token in encoding.ids], np.uint64)
    n_tokens = np.cumsum([0, *map(len, encodings)], dtype=np.int64)
    return Units(_read_only(values), n_tokens, np.concatenate(starts), np.concatenate(stops))


def check_tokenizer(path: str) -> None:
    """Raises:
    ValueError: the file cannot be read, or holds no tokenizer.
    """
    _opened(path)


@lru_cache(maxsize=2)
def _opened(path: str) -> Tokenizer:
    content = read_bytes(path)
    try:
        tokenizer = Tokenizer.from_str(content.decode())
    except Exception as error:
        raise ValueError(f"{path}: {error}; a tokenizer.json as tokenizers saves it is needed") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True
    return tokenizer


def as_column(units: Units, begin: Ints, lengths: Ints) -> pa.Array:
    """Ranges of units as large_binary."""
    size = units.values.itemsize
    return binary_column(*copy_ranges(units.values.view(np.uint8), begin * size, lengths * size))


def from_column(
    array: pa.ChunkedArray, is_bytes: bool
) -> tuple[NDArray[np.uint8] | NDArray[np.uint64], Ints]:
    """(values, offsets) of ranges that `as_column` made."""
    data, offsets = binary_buffers(one_chunk(array))
    if is_bytes:
        return data, offsets
    # Through bytes: what lies in a file need not begin at a multiple of 8.
    first, last = int(offsets[0]), int(offsets[-1])
    return np.frombuffer(data[first:last].tobytes(), np.uint64), (offsets - first) // 8


def as_bytes(
    units: Units, text_offsets: Ints, documents: Ints, starts: Ints, stops: Ints
) -> tuple[Ints, Ints]:
    """Spans of tokens, at least one long, as spans of bytes; both counted from the document's first."""
    assert units.starts is not None
    assert units.stops is not None
    first, first_byte = units.offsets[documents], text_offsets[documents]
    return units.starts[first + starts] - first_byte, units.stops[first + stops - 1] - first_byte


def _read_only(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # As Arrow's buffers are: to numba, an array that can be written is of another type.
    values.setflags(write=False)
    return values

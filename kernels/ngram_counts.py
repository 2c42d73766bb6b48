"""How often known n-grams occur in a stream of tokens, and how many kinds of token follow their contexts."""

from collections import Counter
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .hashing import avalanche
from .jit import kernel

Integers = NDArray[np.int64]
Keys = NDArray[np.uint64]
Bits = NDArray[np.uint64]

MAX_VOCAB_SIZE = 1 << 21  # three tokens in 63 bits: keys are exact
N_WORDS = 8  # of 64 bits: the sketch of a context's continuations
_N_ONES = np.array([bin(byte).count("1") for byte in range(256)])


def ngram_keys(tokens: NDArray[np.integer], positions: Integers, n: int, vocab_size: int) -> Keys:
    """The n tokens up to and with each position as one number, in base `vocab_size`: uint64, (n_positions,).

    Raises:
        ValueError: the vocabulary has more than 2**21 tokens.

    >>> ngram_keys(np.array([1, 2, 3]), np.array([2]), n=2, vocab_size=10)
    array([23], dtype=uint64)
    """
    if vocab_size > MAX_VOCAB_SIZE:
        raise ValueError(
            f"found a vocabulary of {vocab_size:,} tokens; n-grams of at most {MAX_VOCAB_SIZE:,}."
        )
    keys = np.zeros(len(positions), np.uint64)
    for back in range(n - 1, -1, -1):
        keys = keys * np.uint64(vocab_size) + tokens[positions - back].astype(np.uint64)
    return keys


def count_ngrams(
    tokens: NDArray[np.integer], offsets: Integers, n: int, vocab_size: int, contexts: Keys, ngrams: Keys
) -> tuple[Integers, Integers, Bits]:
    """Counts of n-grams and of their contexts, inside documents.

    Args:
        tokens: (n_tokens,), any integers below vocab_size.
        offsets: int64, (n_docs + 1,), document d is tokens[offsets[d]:offsets[d + 1]].
        n: 2 or more.
        contexts: keys of n - 1 tokens, all different.
        ngrams: keys of n tokens, all different.
    Returns:
        int64, (n_ngrams,): how often each stands in a document.
        int64, (n_contexts,): how often each does with a token after it.
        uint64, (n_contexts, 8): bits set at hashes of those tokens; see `n_continuations`. Counts of two
            streams add up, their bits are or-ed: in any order, to the same arrays.
    """
    arrays = (contexts, _table(contexts), ngrams, _table(ngrams))
    return _count_ngrams(tokens, offsets, n, np.uint64(vocab_size), *arrays)


def count_ngrams_reference(
    tokens: NDArray[np.integer], offsets: Integers, n: int, vocab_size: int, contexts: Keys, ngrams: Keys
) -> tuple[Integers, Integers, dict[int, set[int]]]:
    """`count_ngrams` with dictionaries; the tokens after each context themselves instead of bits."""
    found: Counter[int] = Counter()
    after: Counter[int] = Counter()
    follow: dict[int, set[int]] = {int(key): set() for key in contexts}
    for start, end in pairwise(offsets.tolist()):
        document = tokens[start:end].tolist()
        for i in range(n - 1, len(document)):
            context = 0
            for token in document[i - n + 1 : i]:
                context = context * vocab_size + token
            found[context * vocab_size + document[i]] += 1
            after[context] += 1
            if context in follow:
                follow[context].add(document[i])
    return (
        np.array([found[int(key)] for key in ngrams], np.int64),
        np.array([after[int(key)] for key in contexts], np.int64),
        follow,
    )


def n_continuations(bits: Bits) -> NDArray[np.float64]:
    """How many different tokens were hashed to each row of bits, uint64, (n, 8): float64, (n,).

    Linear counting, -m log(share of the m = 512 bits that are 0): for t tokens the standard error is about
    sqrt(m (exp(t / m) - t / m - 1)), 3.3 % of 50 and 3.2 % of 1000; a full row counts as m log m = 3194.

    Source: Whang, Vander-Zanden, Taylor 1990.

    >>> n_continuations(np.array([[3, 0, 0, 0, 0, 0, 0, 0]], np.uint64)).round(3)
    array([2.004])
    """
    m = 64.0 * bits.shape[1]
    n_ones = _N_ONES[bits.view(np.uint8)].sum(axis=1).astype(np.float64)
    return np.asarray(-m * np.log(np.maximum(m - n_ones, 1.0) / m))


def _table(keys: Keys) -> Integers:
    """Open addressing: the row of the key at its slot, -1 where none is; between a quarter and half full."""
    size = 8
    while size < 2 * len(keys):
        size *= 2
    return _fill(keys, size)


@kernel
def _fill(keys: Keys, size: int) -> Integers:
    table = np.full(size, -1, np.int64)
    mask = np.uint64(size - 1)
    for row in range(len(keys)):
        slot = avalanche(keys[row]) & mask
        while table[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        table[slot] = row
    return table


@kernel
def _find(key: np.uint64, keys: Keys, table: Integers) -> int:
    """The row of the key, or -1."""
    mask = np.uint64(len(table) - 1)
    slot = avalanche(key) & mask
    while table[slot] >= 0:
        if keys[table[slot]] == key:
            return int(table[slot])
        slot = (slot + np.uint64(1)) & mask
    return -1


@kernel
def _count_ngrams(
    tokens: NDArray[np.integer],
    offsets: Integers,
    n: int,
    vocab_size: np.uint64,
    contexts: Keys,
    context_table: Integers,
    ngrams: Keys,
    ngram_table: Integers,
) -> tuple[Integers, Integers, Bits]:
    counts = np.zeros(len(ngrams), np.int64)
    context_counts = np.zeros(len(contexts), np.int64)
    bits = np.zeros((len(contexts), N_WORDS), np.uint64)
    for d in range(len(offsets) - 1):
        for i in range(offsets[d] + n - 1, offsets[d + 1]):
            key = np.uint64(0)
            for k in range(i - n + 1, i):
                key = key * vocab_size + np.uint64(tokens[k])
            row = _find(key, contexts, context_table)
            if row < 0:
                continue  # a known n-gram has a known context
            context_counts[row] += 1
            token = np.uint64(tokens[i])
            bit = avalanche(key ^ avalanche(token)) & np.uint64(64 * N_WORDS - 1)
            bits[row, bit >> np.uint64(6)] |= np.uint64(1) << (bit & np.uint64(63))
            at = _find(key * vocab_size + token, ngrams, ngram_table)
            if at >= 0:
                counts[at] += 1
    return counts, context_counts, bits

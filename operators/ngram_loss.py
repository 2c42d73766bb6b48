"""The loss of documents under a model of words and the words before them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ..kernels.hashing import hash_ranges
from ..kernels.shingles import word_hashes
from .base import FitMap, refusal, set_columns
from .files import FilePath, content_hash, read_bytes
from .text_column import integers, one_chunk, text_buffers

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

WORD_BITS = 28
"""Of a word's hash. Of a million distinct words one in 270 shares it with another."""
WORD, PAIR, CONTEXT, LEAST, FOLLOWERS = (kind << 60 for kind in range(5))
"""Kinds of keys in the state: how often a word occurs, a pair of words, anything after a word; how often a
pair must occur to be among the `top` most frequent ones after its first word; distinct words after a word."""
SMOOTHING = 0.5  # Jeffreys' prior


class NgramLoss(FitMap):
    """Each document's mean loss, in nats per word, under a bigram model of the corpus, a domain, or a file.

    With U(b) how often a word occurs in the text that the model learns from, C(a, b) how often b follows a,
    T(a) the distinct words that do, N words in all and V distinct ones, p(b | a) = (C(a, b) + T(a) q(b)) /
    (C(a) + T(a)) and q(b) = (U(b) + 1/2) / (N + V / 2 + 1/2). A document that the model has learnt from is
    left out of the counts for its own loss, though not of T and V.

    Columns, for selection by losses (`difference_sampling`, `salt`, `random_calibrated`) without a neural
    model:

    - `ngram_loss.loss`: the mean of -log p(b | a);
    - `ngram_loss.unigram_loss`: the mean of -log q(b), the loss of a smaller model;
    - `ngram_loss.learnable`: the median loss of those words that are among the `top` most frequent ones after
      the word before (with at least the `top`-th one's count); null if there are none.

    A document without words has nulls. `domain: wiki` beside a corpus of several gives the loss under a
    domain's model: what is like that domain has a low one.

    Source: Witten and Bell 1991, "The zero-frequency problem", method C, interpolated (a constant in place of
    T loses to the unigram on 400 documents); words as in `minhash_dedup`, by their hash. Selection by such
    models: Moore and Lewis 2010; the median of learnable tokens: SALT (Rawat et al. 2024, arXiv 2410.18779).
    Cost: two passes over the text, and 16 bytes for each distinct word and pair of the text that the model
    learns from, in every worker; `fit_fraction` bounds that.
    """

    name = "ngram_loss"
    reads = ("id", "text", "domain")
    writes = ("ngram_loss.loss", "ngram_loss.unigram_loss", "ngram_loss.learnable")

    domain: str | None = Field(None, min_length=1, description="learn from documents of this domain alone")
    file: FilePath | None = Field(None, description="learn from this text file (UTF-8) alone")
    fit_fraction: float = Field(
        1.0, gt=0, le=1, description="share of the documents that the model learns from, by hash of id"
    )
    top: int = Field(10, ge=1, description="words after a word that count as guessed, for `learnable`")
    seed: int = Field(0, ge=0, lt=1 << 32, description="of `fit_fraction`, by (seed, id)")

    @model_validator(mode="after")
    def _one_source(self) -> "NgramLoss":
        if self.domain is not None and self.file is not None:
            raise refusal("domain and file are both given; the model learns from one text: leave one out")
        return self

    def identity(self) -> dict[str, Any]:
        """The parameters, with the file's content for its path."""
        content = {} if self.file is None else {"file": content_hash(self.file)}
        return self.model_dump(mode="json") | content

    def observe(self, table: pa.Table) -> pa.Table:
        """Words and pairs of the documents learnt from: `key`, `n` int64."""
        words, offsets = _words(table["text"].filter(pa.array(self._is_learnt(table))))
        return _counted(words, offsets)

    def merge(self, partials: Sequence[pa.Table]) -> pa.Table:
        """The sums, by `key`."""
        total = pa.concat_tables(partials).group_by("key").aggregate([("n", "sum")])
        return total.select(["key", "n_sum"]).rename_columns(["key", "n"]).sort_by("key").combine_chunks()

    def finish(self, partial: pa.Table) -> pa.Table:
        """With the keys of `CONTEXT`, `LEAST` and `FOLLOWERS`, all by `key`."""
        if self.file is not None:
            data = np.frombuffer(read_bytes(self.file), np.uint8)
            words, offsets = _word_numbers(data, np.array([0, data.size]))
            partial = _counted(words, offsets)
        keys, n = integers(partial["key"]), integers(partial["n"])
        is_pair = keys >= PAIR
        contexts, of_pair = keys[is_pair] - PAIR >> WORD_BITS, n[is_pair]
        order = np.lexsort((-of_pair, contexts))
        known, first, sizes = np.unique(contexts[order], return_index=True, return_counts=True)
        least = of_pair[order][first + np.minimum(self.top, sizes) - 1]
        totals = np.add.reduceat(of_pair[order], first) if known.size else of_pair
        return pa.table(
            {
                "key": np.concatenate([keys, CONTEXT + known, LEAST + known, FOLLOWERS + known]),
                "n": np.concatenate([n, totals, least, sizes]),
            }
        )

    def apply(self, table: pa.Table, state: pa.Table) -> pa.Table:
        """`table` with the columns of `writes`, double."""
        words, offsets = _words(table["text"])
        document = np.repeat(np.arange(len(table)), np.diff(offsets))
        model = _Counts(integers(state["key"]), integers(state["n"]))
        own = self._is_learnt(table)[document] if self.file is None else np.zeros(words.size, bool)
        unigram, bigram, is_guessed = model.losses(words, document, own)
        n_words = np.diff(offsets)
        columns = [
            pa.array(np.bincount(document, losses, len(table)) / np.maximum(n_words, 1), mask=n_words == 0)
            for losses in (bigram, unigram)
        ]
        columns.append(_medians(bigram[is_guessed], document[is_guessed], len(table)))
        return set_columns(table, dict(zip(self.writes, columns, strict=True)))

    def _is_learnt(self, table: pa.Table) -> NDArray[np.bool_]:
        """bool, (n,): documents that the model learns from."""
        if self.file is not None:
            return np.zeros(len(table), bool)
        hashes = hash_ranges(*text_buffers(table["id"]), seed=self.seed) >> np.uint64(11)
        chosen: NDArray[np.bool_] = hashes < self.fit_fraction * 2.0**53
        if self.domain is not None:
            here = pc.fill_null(pc.equal(one_chunk(table["domain"]).cast(pa.string()), self.domain), False)
            chosen &= here.to_numpy(zero_copy_only=False)
        return chosen


class _Counts:
    """The model: how often each key was seen."""

    def __init__(self, keys: Ints, n: Ints) -> None:
        self.keys, self.n = keys, n
        is_word = slice(0, int(np.searchsorted(keys, PAIR)))
        self.n_words, self.n_distinct = int(n[is_word].sum()), is_word.stop

    def of(self, keys: Ints) -> Ints:
        """int64, (n,), 0 of what was not seen."""
        if not self.keys.size:
            return np.zeros(keys.size, np.int64)
        at = np.minimum(np.searchsorted(self.keys, keys), self.keys.size - 1)
        return np.where(self.keys[at] == keys, self.n[at], 0)

    def losses(
        self, words: Ints, document: Ints, own: NDArray[np.bool_]
    ) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Of each word -log q and -log p, nats, and whether it is among the most frequent after its context.

        Args:
            own: of words whose document the model has learnt from; that document's counts do not count.
        """
        has_context = np.concatenate([[False], document[1:] == document[:-1]])[: words.size]
        before = np.concatenate([[0], words[:-1]])[: words.size]
        pairs = PAIR + (before << WORD_BITS) + words
        n_document = np.bincount(document, minlength=1)[document] if words.size else words
        seen = self.of(WORD + words) - own * _repeats(document, words)
        q = (seen + SMOOTHING) / (self.n_words - own * n_document + SMOOTHING * (self.n_distinct + 1))
        pair, context = self.of(pairs), self.of(CONTEXT + before)
        least = self.of(LEAST + before)
        of_own = own & has_context
        # Pairs that begin with no context get numbers of their own, so they are nobody's repeats.
        alone = -1 - np.arange(words.size)
        pair = pair - of_own * _repeats(document, np.where(has_context, pairs, alone))
        context = context - of_own * _repeats(document, np.where(has_context, before, alone))
        followers = self.of(FOLLOWERS + before)
        p = np.where(
            has_context & (followers > 0), (pair + followers * q) / np.maximum(context + followers, 1), q
        )
        return -np.log(q), -np.log(p), has_context & (pair >= np.maximum(least, 1))


def _words(texts: pa.ChunkedArray) -> tuple[Ints, Ints]:
    return _word_numbers(*text_buffers(texts))


def _word_numbers(data: NDArray[np.uint8], offsets: Ints) -> tuple[Ints, Ints]:
    """int64, (n_words,), in [0, 2**WORD_BITS); and where each document's begin and end."""
    hashes, word_offsets = word_hashes(data, offsets)
    return (hashes >> np.uint64(64 - WORD_BITS)).astype(np.int64), word_offsets


def _counted(words: Ints, offsets: Ints) -> pa.Table:
    is_pair = np.ones(max(words.size - 1, 0), bool)
    starts = offsets[1:-1]
    is_pair[starts[(starts > 0) & (starts < words.size)] - 1] = False
    pairs = PAIR + (words[:-1] << WORD_BITS) + words[1:]
    keys, n = np.unique(np.concatenate([WORD + words, pairs[is_pair]]), return_counts=True)
    return pa.table({"key": keys.astype(np.int64), "n": n.astype(np.int64)})


def _repeats(document: Ints, values: Ints) -> Ints:
    """int64, (n,): how often each value stands in its document."""
    if not values.size:
        return np.zeros(0, np.int64)
    order = np.lexsort((values, document))
    is_new = np.ones(values.size, bool)
    is_new[1:] = (np.diff(values[order]) != 0) | (np.diff(document[order]) != 0)
    run = np.cumsum(is_new) - 1
    counts = np.empty(values.size, np.int64)
    counts[order] = np.bincount(run)[run]
    return counts


def _medians(losses: Floats, document: Ints, n_documents: int) -> pa.Array:
    """double, (n_documents,): the lower median of each, null of none."""
    order = np.lexsort((losses, document))
    n = np.bincount(document, minlength=n_documents)
    starts = np.cumsum(n) - n
    found = np.zeros(n_documents)
    has = n > 0
    found[has] = losses[order][(starts + (n - 1) // 2)[has]]
    return pa.array(found, mask=~has)

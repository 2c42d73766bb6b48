"""fastText vectors trained on the corpus itself, with what a word's letters say of words never seen."""

import io
import re
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from ..kernels.embedding import count_features, project, to_unit
from .files import check_installed

MIN_COUNT = 3
NGRAM_CHARACTERS = (3, 6)
_TRAINED_WORDS = 3_000_000
"""Fewest words that training sees, in as many passes as that takes, up to `_MAX_EPOCHS`."""
_MAX_EPOCHS = 20
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


class SubwordVectors:
    """A text is the sum of its words' vectors, by ``(1 + log(count)) * idf``, seen from the corpus' mean.

    A word that the sample does not have is the mean of its n-grams' vectors.

    Attributes:
        words: the vocabulary, each word's row.
        vectors: float32, (n_words, d).
        ngrams: float32, (n_buckets, d), of an n-gram's hash modulo n_buckets.
        idf: float64, (n_words + 1,), the last one of words outside.
        mean: float64, (d,).
    """

    def __init__(
        self,
        words: Sequence[str],
        vectors: NDArray[np.float32],
        ngrams: NDArray[np.float32],
        idf: NDArray[np.float64],
        mean: NDArray[np.float64],
    ) -> None:
        self.words = {word: row for row, word in enumerate(words)}
        self.vectors, self.ngrams, self.idf, self.mean = vectors, ngrams, idf, mean

    @classmethod
    def learn(
        cls, data: NDArray[np.uint8], offsets: NDArray[np.int64], n_buckets: int, dimensions: int, seed: int
    ) -> "SubwordVectors":
        """Skip-gram vectors of the words that occur three times or more, by gensim on one thread.

        Source: Bojanowski et al. 2017, "Enriching Word Vectors with Subword Information", with its n-grams of
        3 to 6 letters and 5 negative samples. It departs in weighing words by TF-IDF for a text's vector, and
        in taking the mean away, as `CorpusWords` does.
        """
        check_installed("gensim", "fasttext")
        from gensim.models import FastText

        documents = [_words(text) for text in _texts(data, offsets)]
        n_words = sum(map(len, documents))
        n_epochs = max(1, min(_MAX_EPOCHS, -(-_TRAINED_WORDS // max(n_words, 1))))
        shortest, longest = NGRAM_CHARACTERS
        model = FastText(
            vector_size=dimensions, sg=1, negative=5, min_count=MIN_COUNT, min_n=shortest, max_n=longest,
            bucket=n_buckets, workers=1, seed=seed, epochs=n_epochs,
        )  # fmt: skip
        model.build_vocab(documents)
        if not len(model.wv):
            nothing = np.zeros((0, dimensions), np.float32)
            return cls((), nothing, nothing, np.ones(1), np.zeros(dimensions))
        model.train(documents, total_examples=len(documents), epochs=n_epochs)
        names = model.wv.index_to_key
        rows = {word: row for row, word in enumerate(names)}
        in_documents = np.bincount(
            [rows[word] for document in documents for word in set(document) if word in rows],
            minlength=len(names),
        )
        idf = np.log((1 + len(documents)) / (1 + np.append(in_documents, 0))) + 1
        found = cls(names, model.wv.vectors, model.wv.vectors_ngrams, idf, np.zeros(dimensions))
        units = found.embed(data, offsets).astype(np.float64)
        # Of vectors of length 1, so that long texts do not outweigh short ones.
        found.mean = units.mean(axis=0)
        return found

    def embed(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.int16]:
        """See `Embedder.embed`."""
        n_words = len(self.words)
        outside: dict[str, int] = {}
        documents = [[self._row(word, outside) for word in _words(text)] for text in _texts(data, offsets)]
        flat = np.array([row for rows in documents for row in rows], np.int64)
        ends = np.cumsum([0, *map(len, documents)], dtype=np.int64)
        features = count_features(flat, ends, n_words + len(outside))
        weights = (1 + np.log(features.counts)) * self.idf[np.minimum(features.ids, n_words)]
        table = np.concatenate([self.vectors, *(self._of_letters(word)[None] for word in outside)])
        return _seen_from(project(features, weights, table), self.mean)

    def _row(self, word: str, outside: dict[str, int]) -> int:
        row = self.words.get(word)
        return outside.setdefault(word, len(self.words) + len(outside)) if row is None else row

    def _of_letters(self, word: str) -> NDArray[np.float32]:
        hashes = _ngram_hashes(word, len(self.ngrams)) if len(self.ngrams) else ()
        if not len(hashes):
            return np.zeros(self.vectors.shape[1], np.float32)
        return self.ngrams[list(hashes)].mean(axis=0)  # type: ignore[no-any-return]

    def to_bytes(self) -> bytes:
        """The arrays as an ``.npz``: the same bytes for the same vectors."""
        out = io.BytesIO()
        names = np.frombuffer("\n".join(self.words).encode(), np.uint8)
        np.savez(out, words=names, vectors=self.vectors, ngrams=self.ngrams, idf=self.idf, mean=self.mean)
        return out.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "SubwordVectors":
        """What `to_bytes` wrote."""
        with np.load(io.BytesIO(content)) as arrays:
            words = arrays["words"].tobytes().decode()
            rest = [arrays[name] for name in ("vectors", "ngrams", "idf", "mean")]
        return cls(words.split("\n") if words else (), *rest)


@lru_cache(maxsize=1)
def opened(content: bytes) -> SubwordVectors:
    """`SubwordVectors.from_bytes`, once for the shards of a stage."""
    return SubwordVectors.from_bytes(content)


@lru_cache(maxsize=1 << 16)
def _ngram_hashes(word: str, n_buckets: int) -> tuple[int, ...]:
    """The buckets of the n-grams of letters of ``<word>``.

    fastText hashes UTF-8 by FNV-1a of 32 bits, each byte as a signed number.
    """
    letters = f"<{word}>"
    shortest, longest = NGRAM_CHARACTERS
    buckets = []
    for start in range(len(letters)):
        for stop in range(start + shortest, min(start + longest, len(letters)) + 1):
            h = 2166136261
            for byte in letters[start:stop].encode():
                h = ((h ^ (byte | 0xFFFFFF00 if byte & 0x80 else byte)) * 16777619) & 0xFFFFFFFF
            buckets.append(h % n_buckets)
    return tuple(buckets)


def _seen_from(vectors: NDArray[np.int16], mean: NDArray[np.float64]) -> NDArray[np.int16]:
    if not mean.any():
        return vectors
    away = np.where(vectors.any(axis=1, keepdims=True), vectors - mean, 0)
    return to_unit(away)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _texts(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> list[str]:
    return [data[a:b].tobytes().decode(errors="ignore") for a, b in pairwise(offsets)]

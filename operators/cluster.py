"""Documents to domains, by what they are about."""

import math
import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csr_array

from ..kernels.embedding import UNIT, Features, nearest, project, word_features
from ..kernels.hashing import hash_ranges
from ..kernels.shingles import word_hashes
from ..kernels.spans import copy_ranges
from .base import FitMap, set_columns
from .text_column import binary_buffers, binary_column, one_chunk, text_buffers

UNCLUSTERED = "unclustered"
_NAME_WORDS = 3
_NAME_SHARE = 16  # of `max_bytes`, the first bytes of each sampled document that names are made of
_WORD = re.compile(r"[^\W\d_]{3,}")


class Cluster(FitMap):
    """Group documents by their words into `n_clusters` domains, and name these.

    A document is its first `max_bytes` bytes; its vector is the sum of its words' vectors, which come from
    the corpus itself: TF-IDF over hashed words of a sample, and the sample's leading singular vectors.
    Clusters are those of spherical k-means on the sample; every document goes to the nearest one. The name of
    a domain is the three words that tell it best from the others. `domain` is replaced, unless
    `set_domain` is false; a document without words gets "unclustered" and no cluster.

    The sample holds the documents of the smallest hash of (seed, id), so the same corpus gives the same
    domains in any sharding and order. `cluster.vector` is of length 16384 in integers, and
    `cluster.similarity` the cosine to the cluster's centre: low ones are its unusual documents.

    Source: Deerwester et al. 1990 (latent semantic analysis), with the range finder of Halko, Martinsson and
    Tropp 2011, algorithm 4.4; Dhillon and Modha 2001 (spherical k-means); Arthur and Vassilvitskii 2007
    (k-means++); Grootendorst 2022, "BERTopic", section 3.3 (class-based TF-IDF, with the square root of the
    counts). It departs in hashing words instead of keeping a vocabulary: words may share a vector.
    Cost: one pass over the first bytes for the sample, one for the vectors; the sample in memory.
    """

    name = "cluster"
    reads = ("id", "text")
    writes = ("domain", "cluster.id", "cluster.similarity", "cluster.vector")

    n_clusters: int = Field(16, ge=1, le=1 << 16, description="domains, fewer where the sample is smaller")
    dimensions: int = Field(64, ge=1, le=1024, description="numbers in a vector")
    n_buckets: int = Field(1 << 16, ge=1, le=1 << 24, description="hashed words that are told apart")
    max_bytes: int = Field(8192, ge=1, description="bytes of a document that are looked at")
    sample_documents: int = Field(20_000, ge=1, description="documents that vectors and clusters come from")
    n_restarts: int = Field(3, ge=1, description="runs of k-means, of which the tightest stays")
    set_domain: bool = Field(True, description="whether `domain` becomes the name of the cluster")
    seed: int = Field(0, ge=0, lt=1 << 32, description="of the sample, the projection and the restarts")

    def observe(self, table: pa.Table) -> pa.Table:
        """The shard's part of the sample: `key` uint64, `text` large_binary."""
        keys = hash_ranges(*text_buffers(table["id"]), seed=self.seed)
        beginnings = binary_column(*self._beginnings(table["text"]))
        return self.merge([pa.table({"key": keys, "text": beginnings})])

    def merge(self, partials: Sequence[pa.Table]) -> pa.Table:
        """The documents of the smallest keys."""
        sample = pa.concat_tables(partials).sort_by([("key", "ascending"), ("text", "ascending")])
        return sample.slice(0, self.sample_documents).combine_chunks()

    def finish(self, partial: pa.Table) -> pa.Table:
        """One row: `projection` float32 and `centroids` int16 as bytes, `names` list<string>."""
        data, offsets = binary_buffers(one_chunk(partial["text"]))
        features = word_features(*word_hashes(data, offsets), self.n_buckets)
        random = np.random.default_rng(self.seed)
        projection = learn_projection(features, self.n_buckets, self.dimensions, random)
        vectors = project(features, projection)
        has_words = vectors.any(axis=1)
        centroids = spherical_kmeans(vectors[has_words], self.n_clusters, self.n_restarts, random)
        names: list[str] = []
        if len(centroids):
            which = nearest(vectors[has_words], centroids)[0]
            texts = partial["text"].filter(pa.array(has_words)).to_pylist()
            beginnings = [text[: self.max_bytes // _NAME_SHARE].decode(errors="ignore") for text in texts]
            names = name_classes(beginnings, which, len(centroids))
        return pa.table(
            {
                "projection": pa.array([projection.tobytes()], pa.large_binary()),
                "centroids": pa.array([centroids.tobytes()], pa.large_binary()),
                "names": pa.array([names], pa.list_(pa.string())),
            }
        )

    def apply(self, table: pa.Table, state: pa.Table) -> pa.Table:
        """`table` with the columns of `writes`: string, int64, double, fixed_size_list<int16>."""
        projection = np.frombuffer(state["projection"][0].as_buffer(), np.float32).reshape(
            -1, self.dimensions
        )
        centroids = np.frombuffer(state["centroids"][0].as_buffer(), np.int16).reshape(-1, self.dimensions)
        features = word_features(*word_hashes(*self._beginnings(table["text"])), self.n_buckets)
        vectors = project(features, projection)
        which, products = nearest(vectors, centroids)
        no_cluster = ~vectors.any(axis=1) | (len(centroids) == 0)
        names = [*state["names"][0].as_py(), UNCLUSTERED]
        which[no_cluster] = -1
        domains = pa.array([names[i] for i in which], pa.string())
        columns = (
            domains if self.set_domain else table["domain"],
            pa.array(which, mask=no_cluster),
            pa.array(products / UNIT**2, mask=no_cluster),
            pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), self.dimensions),
        )
        return set_columns(table, dict(zip(self.writes, columns, strict=True)))

    def _beginnings(self, text: pa.ChunkedArray) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The bytes of each text that are looked at. A character cut in two is no word's."""
        data, offsets = text_buffers(text)
        return copy_ranges(data, offsets[:-1], np.minimum(np.diff(offsets), self.max_bytes))


def learn_projection(
    features: Features, n_buckets: int, dimensions: int, random: np.random.Generator
) -> NDArray[np.float32]:
    """float32, (n_buckets, dimensions): inverse document frequency times the leading right singular vectors
    of the documents' TF-IDF rows of length 1; 0 beyond their rank.

    Source: Halko, Martinsson and Tropp 2011, algorithm 4.4, with 4 iterations and 8 more directions.
    """
    n_docs = len(features.offsets) - 1
    frequency = np.bincount(features.buckets, minlength=n_buckets)
    idf = np.log((1 + n_docs) / (1 + frequency)) + 1
    weights = (np.log1p(features.counts - 1.0) + 1) * idf[features.buckets]
    rows = csr_array((weights, features.buckets, features.offsets), shape=(n_docs, n_buckets))
    lengths = np.sqrt(np.add.reduceat(np.append(weights**2, 0), features.offsets[:-1]))
    lengths[np.diff(features.offsets) == 0] = 1
    rows.data /= np.repeat(lengths, np.diff(features.offsets))
    n_directions = min(dimensions + 8, n_docs, n_buckets)
    projection = np.zeros((n_buckets, dimensions), np.float32)
    if n_directions:
        basis = rows @ random.standard_normal((n_buckets, n_directions))
        for _ in range(4):
            basis = np.linalg.qr(rows.T @ np.linalg.qr(basis).Q).Q
            basis = rows @ basis
        basis = np.linalg.qr(basis).Q
        _, strengths, directions = np.linalg.svd((rows.T @ basis).T, full_matrices=False)
        rank = min(dimensions, int((strengths > 1e-9).sum()))
        projection[:, :rank] = idf[:, None] * directions[:rank].T
    return projection


def spherical_kmeans(
    vectors: NDArray[np.int16], n_clusters: int, n_restarts: int, random: np.random.Generator
) -> NDArray[np.int16]:
    """int16, (at most n_clusters, d): the centroids of the run with the largest sum of cosines, large
    clusters' first."""
    points = vectors / np.maximum(np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True), 1)
    best, best_sum = np.empty((0, vectors.shape[1])), -np.inf
    for _ in range(n_restarts if len(points) else 0):
        centroids = _seeds(points, n_clusters, random)
        which = np.full(len(points), -1)
        for _ in range(100):
            cosines = points @ centroids.T
            moved, which = which, cosines.argmax(axis=1)
            if np.array_equal(moved, which):
                break
            one_hot = csr_array(
                (np.ones(len(points)), which, np.arange(len(points) + 1)), (len(points), len(centroids))
            )
            sums = one_hot.T @ points
            lengths = np.linalg.norm(sums, axis=1, keepdims=True)
            centroids = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), centroids)
        if (total := float(cosines.max(axis=1).sum())) > best_sum:
            sizes = np.bincount(which, minlength=len(centroids))
            best, best_sum = centroids[np.argsort(-sizes, kind="stable")], total
    return np.rint(best * UNIT).astype(np.int16)


def _seeds(points: NDArray[np.float64], n_seeds: int, random: np.random.Generator) -> NDArray[np.float64]:
    """k-means++: each seed with probability proportional to its distance from those before it."""
    seeds = [points[random.integers(len(points))]]
    distance = 1 - points @ seeds[0]
    while len(seeds) < n_seeds and distance.max() > 1e-6:
        chance = np.maximum(distance, 0)
        seeds.append(points[random.choice(len(points), p=chance / chance.sum())])
        distance = np.minimum(distance, 1 - points @ seeds[-1])
    return np.stack(seeds)


def name_classes(texts: Sequence[str], classes: NDArray[np.int64], n_classes: int) -> list[str]:
    """The words of largest class-based TF-IDF of each class, joined; the same name again gets a number.

    >>> name_classes(["wine cellar wine", "loss curve loss", "wine vat"], np.array([0, 1, 0]), 2)
    ['wine-cellar-vat', 'loss-curve']
    """
    counts: list[Counter[str]] = [Counter() for _ in range(n_classes)]
    for text, which in zip(texts, classes.tolist(), strict=True):
        counts[which].update(_WORD.findall(text.lower()))
    overall = sum(counts, Counter())
    mean = overall.total() / n_classes
    names: list[str] = []
    for words in counts:
        scores = {word: n**0.5 * math.log(1 + mean / overall[word]) for word, n in words.items()}
        top = sorted(scores, key=lambda word: (-scores[word], word))[:_NAME_WORDS]
        name = "-".join(top) or "cluster"
        n_taken = sum(other == name or other.startswith(f"{name}-") for other in names)
        names.append(f"{name}-{n_taken + 1}" if n_taken else name)
    return names

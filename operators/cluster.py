"""Documents to domains, by what they are about."""

from collections.abc import Sequence
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator
from threadpoolctl import threadpool_limits

from ..kernels.cluster_quality import adjusted_rand, best_jaccard, contingency, silhouettes
from ..kernels.embedding import MAX_DIMENSIONS, UNIT, nearest
from ..kernels.hashing import hash_ranges
from ..kernels.kmeans import Clustering, spherical_kmeans
from ..kernels.spans import copy_ranges
from .base import ROW, FitMap, refusal, set_columns
from .cluster_names import name_clusters
from .duplicates import positions
from .embedders import CorpusWords, Embedder, check_model, model_hash, open_model
from .fasttext import SubwordVectors, opened
from .files import FilePath, check_installed
from .text_column import binary_buffers, binary_column, integers, one_chunk, text_buffers
from .vector_index import Index, Search, check_index, search_by

NO_CLUSTERS = "unclustered"
N_HALVES = 4
"""Samples of half the documents on which stability is measured."""
_NAME_BYTES = 2048  # of each sampled document, the bytes that names are made of


class Cluster(FitMap):
    """Group documents into `n_clusters` domains by what they are about, and name these.

    A document is its first `max_bytes` bytes. Unless `model` names a folder with a static or
    sentence-transformers model, its vector is the sum of its words' vectors, which come from the corpus
    itself: by latent semantic analysis of a sample, or by fastText skip-gram vectors with subwords trained on
    it (`learn: fasttext`, which needs the package gensim and more time); either seen from the mean. Clusters
    are those of spherical k-means on the sample; every document goes to the nearest one. The name of a domain
    is the three words that tell it best from the others. `domain` becomes that name, unless `set_domain` is
    false, and is what the mixer mixes. A document without words joins the largest domain and has no cluster.

    With `leaves_per_cluster` above 1, each cluster is clustered again, in proportion to its size:
    `cluster.leaf` numbers these finer clusters, among which `semantic_dedup` compares. With `max_imbalance`,
    no domain gets more than that many times the mean number of documents. Nearest centroids are found by a
    kernel of ours or by faiss (`index`), whose answers are the same: faiss pays from a thousand centroids on,
    as in one flat clustering with many, and takes a GPU if it sees one.

    The sample holds the documents of the smallest hash of (seed, id), so the same corpus gives the same
    domains in any sharding and order. `cluster.vector` is of length 4000, in integers; `cluster.similarity`
    is the cosine to the cluster's centre, low for its unusual documents. The report shows a map, and for each
    domain its silhouette and how well other halves of the sample find it again.

    Source: Gururangan et al. 2023, "Scaling Expert Language Models with Unsupervised Domain Discovery",
    section 2 (TF-IDF, singular vectors, balanced k-means); Deerwester et al. 1990; Dhillon and Modha 2001
    (spherical k-means); Grootendorst 2022 (names). It departs in hashing words instead of keeping a
    vocabulary, and in balancing by prices that hold for documents outside the sample, too.
    Cost: one pass over the ids, two over the texts; 24 bytes for each of at most `sample_documents` documents
    of each shard, and the sample itself once, at most `sample_documents` times `max_bytes`.
    """

    name = "cluster"
    version = 2
    reads = ("id", "text")
    writes = ("domain", "cluster.id", "cluster.leaf", "cluster.similarity", "cluster.vector")

    n_clusters: int = Field(16, ge=1, le=1 << 16, description="domains, fewer where the sample is smaller")
    leaves_per_cluster: int = Field(1, ge=1, le=1 << 16, description="finer clusters within each, on average")
    max_imbalance: float | None = Field(
        None, gt=1, description="largest domain by the mean one, in documents; null: as they fall"
    )
    min_documents: int = Field(
        8, ge=1, description="sampled documents below which a cluster is dissolved among the others"
    )
    model: FilePath | None = Field(
        None, description="folder of an embedding model; null: learn the words' vectors from the corpus"
    )
    learn: Literal["lsa", "fasttext"] = Field("lsa", description="how vectors are learned, without `model`")
    dimensions: int = Field(256, ge=1, le=MAX_DIMENSIONS, description="numbers in a vector, without `model`")
    n_buckets: int = Field(
        1 << 16, ge=1, le=1 << 24, description="hashed words, or n-grams of letters, that are told apart"
    )
    max_bytes: int = Field(8192, ge=1, description="bytes of a document that are looked at")
    sample_documents: int = Field(20_000, ge=1, description="documents that vectors and clusters come from")
    n_restarts: int = Field(3, ge=1, description="runs of k-means, of which the tightest stays")
    index: Index = Field("auto", description="what finds centroids; auto: faiss if it is there and pays")
    set_domain: bool = Field(True, description="whether `domain` becomes the name of the cluster")
    seed: int = Field(0, ge=0, lt=1 << 32, description="of the sample, the vectors and the restarts")

    @field_validator("model")
    @classmethod
    def _check_model(cls, model: str | None) -> str | None:
        if model is not None:
            check_model(model)
        return model

    @field_validator("index")
    @classmethod
    def _check_index(cls, index: Index) -> Index:
        check_index(index)
        return index

    @model_validator(mode="after")
    def _vectors_come_from_one_place(self) -> Self:
        if self.learn == "fasttext":
            if self.model is not None:
                raise refusal("model brings vectors that learn would make: leave out one of the two")
            check_installed("gensim", "fasttext")
        return self

    @property
    def second_key(self) -> str | None:
        """See `Fit.second_key`: the second look brings the texts of the sample."""
        return "key"

    @property
    def second_reads(self) -> tuple[str, ...]:
        """See `Fit.second_reads`."""
        return ("text",)

    def identity(self) -> dict[str, Any]:
        """The parameters, the model by what its files hold; not `index`, which changes no answer."""
        identity = {name: value for name, value in super().identity().items() if name != "index"}
        return identity if self.model is None else identity | {"model": model_hash(self.model)}

    def observe(self, table: pa.Table) -> pa.Table:
        """The shard's part of the sample: `key` and `content` uint64, `ROW`."""
        keys = hash_ranges(*text_buffers(table["id"]), seed=self.seed)
        chosen = np.arange(len(keys))
        if len(keys) > self.sample_documents:
            last = np.partition(keys, self.sample_documents - 1)[self.sample_documents - 1]
            chosen = np.flatnonzero(keys <= last)
        # Documents of one id are told apart by what they say, not by where they stand.
        content = hash_ranges(*self._beginnings(table["text"].take(pa.array(chosen))))
        rows = integers(table[ROW])[chosen]
        return self.merge([pa.table({"key": keys[chosen], "content": content, ROW: rows})])

    def merge(self, partials: Sequence[pa.Table]) -> pa.Table:
        """The documents of the smallest keys."""
        sample = pa.concat_tables(partials).sort_by([(name, "ascending") for name in ("key", "content", ROW)])
        return sample.slice(0, self.sample_documents).combine_chunks()

    def finish(self, partial: pa.Table) -> pa.Table:
        """Which documents are the sample, by row."""
        return partial.sort_by(ROW).combine_chunks()

    def observe_again(self, table: pa.Table, found: pa.Table) -> pa.Table:
        """The shard's part of the sample: `key` and `content` uint64, `text` large_binary."""
        known, position = positions(integers(found[ROW]), integers(table[ROW]))
        keys = found.select(["key", "content"]).take(pa.array(position[known]))
        beginnings = binary_column(*self._beginnings(table["text"].filter(pa.array(known))))
        return keys.append_column("text", beginnings)

    def combine_again(self, observations: pa.Table) -> pa.Table:
        """The sample's texts, as they are."""
        return observations

    def finish_again(self, found: pa.Table, partials: Sequence[pa.Table]) -> pa.Table:
        """One row: what `apply` needs, and how good each cluster is.

        `n_sampled`, `silhouette` and `stability` stand for each cluster, in the order of `names`;
        `rand_index` is the agreement of other halves' clusterings with this one.
        """
        # One thread of BLAS: the same bits whatever else runs.
        with threadpool_limits(1, "blas"):
            return self._learned(
                pa.concat_tables(partials).sort_by([("key", "ascending"), ("content", "ascending")])
            )

    def _learned(self, sample: pa.Table) -> pa.Table:
        data, offsets = binary_buffers(one_chunk(sample["text"]))
        learned = self._learned_vectors(data, offsets)
        vectors = (learned or open_model(str(self.model))).embed(data, offsets)
        has_words = vectors.any(axis=1)
        vectors = vectors[has_words]
        random = np.random.default_rng(self.seed)
        found = self._clusters(vectors, random, self.n_restarts, self.min_documents)
        leaves = self._leaves(vectors, found, random)
        texts = sample["text"].filter(pa.array(has_words)).to_pylist()
        beginnings = [text[:_NAME_BYTES].decode(errors="ignore") for text in texts]
        k = len(found.centroids)
        stability, rand_index = self._stability(vectors, found, random)
        quality = silhouettes(vectors, found.which, k)
        sizes = np.bincount(found.which, minlength=k)
        columns: dict[str, Any] = {
            **_stored(learned),
            "centroids": found.centroids.tobytes(),
            "prices": found.prices.tolist(),
            "leaf_centroids": np.concatenate([found.centroids[:0], *leaves]).tobytes(),
            "leaf_offsets": np.cumsum([0, *map(len, leaves)]).tolist(),
            "names": name_clusters(beginnings, found.which, k),
            "n_sampled": sizes.tolist(),
            "silhouette": (np.bincount(found.which, quality, k) / np.maximum(sizes, 1)).tolist(),
            "stability": stability.tolist(),
            "rand_index": rand_index,
        }
        return pa.table([pa.array([columns.get(f.name)], f.type) for f in STATE], schema=STATE)

    def _learned_vectors(
        self, data: NDArray[np.uint8], offsets: NDArray[np.int64]
    ) -> CorpusWords | SubwordVectors | None:
        if self.model is not None:
            return None
        kind = SubwordVectors if self.learn == "fasttext" else CorpusWords
        return kind.learn(data, offsets, self.n_buckets, self.dimensions, self.seed)

    def apply(self, table: pa.Table, state: pa.Table) -> pa.Table:
        """`table` with the columns of `writes`: string, int64, int64, double, fixed_size_list<int16>."""
        vectors = self._embedder(state).embed(*self._beginnings(table["text"]))
        d = vectors.shape[1]
        centroids = _matrix(state["centroids"], np.int16, d)
        names = state["names"][0].as_py() or [NO_CLUSTERS]
        which, leaf = np.zeros((2, len(table)), np.int64)
        products = np.zeros(len(table), np.int64)
        if len(centroids):
            search = search_by(self.index)
            which, products = search(vectors, centroids, np.array(state["prices"][0].as_py()))
            leaf = _nearest_leaf(vectors, which, state, search)
        no_cluster = ~vectors.any(axis=1) | (len(centroids) == 0)
        which[no_cluster] = 0
        columns = {
            "cluster.id": pa.array(which, mask=no_cluster),
            "cluster.leaf": pa.array(leaf, mask=no_cluster),
            "cluster.similarity": pa.array(products / UNIT**2, mask=no_cluster),
            "cluster.vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), d),
        }
        if self.set_domain:
            columns["domain"] = pa.array(names, pa.string()).take(pa.array(which))
        return set_columns(table, columns)

    def _embedder(self, state: pa.Table) -> Embedder:
        if self.model is not None:
            return open_model(self.model)
        if self.learn == "fasttext":
            return opened(state["subwords"][0].as_py())
        idf, mean = (_matrix(state[name], np.float64, 1)[:, 0] for name in ("idf", "mean"))
        return CorpusWords(idf, _matrix(state["directions"], np.float32, self.dimensions), mean)

    def _beginnings(self, text: pa.ChunkedArray) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The bytes of each text that are looked at. A character cut in two is no word's."""
        data, offsets = text_buffers(text)
        return copy_ranges(data, offsets[:-1], np.minimum(np.diff(offsets), self.max_bytes))

    def _clusters(
        self, vectors: NDArray[np.int16], random: np.random.Generator, n_restarts: int, min_size: int
    ) -> Clustering:
        min_size = max(1, min(min_size, len(vectors) // 2))
        search = search_by(self.index)
        return spherical_kmeans(
            vectors, self.n_clusters, random, n_restarts, self.max_imbalance, min_size, search
        )

    def _leaves(
        self, vectors: NDArray[np.int16], found: Clustering, random: np.random.Generator
    ) -> list[NDArray[np.int16]]:
        """The centroids of each cluster's leaves."""
        if self.leaves_per_cluster == 1:
            return [found.centroids[i : i + 1] for i in range(len(found.centroids))]
        leaves = []
        for i in range(len(found.centroids)):
            inside = vectors[found.which == i]
            n_leaves = round(self.leaves_per_cluster * self.n_clusters * len(inside) / len(vectors))
            search = search_by(self.index)
            leaves.append(spherical_kmeans(inside, max(1, n_leaves), random, search=search).centroids)
        return leaves

    def _stability(
        self, vectors: NDArray[np.int16], found: Clustering, random: np.random.Generator
    ) -> tuple[NDArray[np.float64], float]:
        """Of each cluster, how alike the most similar cluster of a half of the sample is, on average; and the
        mean adjusted Rand index of such clusterings with this one."""
        k = len(found.centroids)
        jaccard, rand = [np.zeros((0, k))], []
        for _ in range(N_HALVES if k else 0):
            half = random.permutation(len(vectors))[: -(-len(vectors) // 2)]
            other = self._clusters(vectors[half], random, 1, self.min_documents // 2)
            again = nearest(vectors, other.centroids, other.prices)[0]
            table = contingency(found.which, again, k, len(other.centroids))
            jaccard.append(best_jaccard(table)[None])
            rand.append(adjusted_rand(table))
        return np.concatenate(jaccard).sum(axis=0) / N_HALVES, float(np.sum(rand)) / N_HALVES


STATE = pa.schema(
    [
        ("idf", pa.large_binary()),
        ("directions", pa.large_binary()),
        ("mean", pa.large_binary()),
        ("subwords", pa.large_binary()),
        ("centroids", pa.large_binary()),
        ("prices", pa.list_(pa.int64())),
        ("leaf_centroids", pa.large_binary()),
        ("leaf_offsets", pa.list_(pa.int64())),
        ("names", pa.list_(pa.string())),
        ("n_sampled", pa.list_(pa.int64())),
        ("silhouette", pa.list_(pa.float64())),
        ("stability", pa.list_(pa.float64())),
        ("rand_index", pa.float64()),
    ]
)


def _matrix(column: pa.ChunkedArray, dtype: Any, d: int) -> NDArray[Any]:
    return np.frombuffer(column[0].as_buffer(), dtype).reshape(-1, d)


def _stored(learned: CorpusWords | SubwordVectors | None) -> dict[str, bytes]:
    """The columns of `STATE` that hold how vectors are made."""
    if isinstance(learned, SubwordVectors):
        return {"subwords": learned.to_bytes()}
    if learned is None:
        return {}
    return {name: getattr(learned, name).tobytes() for name in ("idf", "directions", "mean")}


def _nearest_leaf(
    vectors: NDArray[np.int16], which: NDArray[np.int64], state: pa.Table, search: Search
) -> NDArray[np.int64]:
    """int64, (n,): the nearest leaf within each vector's cluster."""
    centroids = _matrix(state["leaf_centroids"], np.int16, vectors.shape[1])
    offsets = state["leaf_offsets"][0].as_py()
    leaf = np.zeros(len(vectors), np.int64)
    for cluster in np.unique(which).tolist():
        inside = which == cluster
        own = centroids[offsets[cluster] : offsets[cluster + 1]]
        leaf[inside] = offsets[cluster] + search(vectors[inside], own)[0]
    return leaf

"""From texts to vectors: learned from the corpus itself, or by a model that a folder holds.

A model is never downloaded. Its folder is one that sentence-transformers or model2vec saved: a static model
(a vector for each token) needs no other package than the tokenizer's.
"""

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from tokenizers import Tokenizer

from ..kernels.embedding import MAX_DIMENSIONS, Features, count_features, project, to_unit
from ..kernels.shingles import word_hashes
from .files import check_installed, content_hash

_NUMBERS = {"F16": np.float16, "F32": np.float32, "F64": np.float64}
_BATCH = 64


class Embedder(Protocol):
    """Texts to vectors of length `UNIT`, 0 for a text without words."""

    def embed(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.int16]:
        """int16, (n_texts, d), of data[offsets[i]:offsets[i + 1]], UTF-8 that may end inside a character."""
        ...


class CorpusWords:
    """Latent semantic analysis: a text's TF-IDF row of length 1 along the corpus' leading directions, seen
    from the corpus' mean.

    Attributes:
        idf: float64, (n_buckets,), of a word's hash modulo n_buckets.
        directions: float32, (n_buckets, d).
        mean: float64, (d,).
    """

    def __init__(
        self, idf: NDArray[np.float64], directions: NDArray[np.float32], mean: NDArray[np.float64]
    ) -> None:
        self.idf, self.directions, self.mean = idf, directions, mean

    def embed(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.int16]:
        """See `Embedder.embed`."""
        features = _word_features(data, offsets, len(self.idf))
        return project(features, _unit_weights(features, self.idf), self.directions, self.mean)

    @classmethod
    def learn(
        cls, data: NDArray[np.uint8], offsets: NDArray[np.int64], n_buckets: int, dimensions: int, seed: int
    ) -> "CorpusWords":
        """The leading right singular vectors of the texts' rows; 0 beyond their rank.

        Source: Deerwester et al. 1990; the range finder is that of Halko, Martinsson and Tropp 2011,
        algorithm 4.4, with 4 iterations and 8 more directions, made orthogonal on the texts' side alone. It
        departs in the origin: with the mean taken away, what all texts share tells no two apart.
        """
        features = _word_features(data, offsets, n_buckets)
        n_docs = len(offsets) - 1
        idf = np.log((1 + n_docs) / (1 + np.bincount(features.ids, minlength=n_buckets))) + 1
        values = (_unit_weights(features, idf), features.ids, features.offsets)
        rows = csr_array(values, shape=(n_docs, n_buckets))
        found = _leading_directions(rows, dimensions, np.random.default_rng(seed))
        directions = np.zeros((n_buckets, dimensions), np.float32)
        directions[:, : len(found)] = found.T
        mean = (rows @ directions).mean(axis=0) if len(found) > 1 else np.zeros(dimensions)
        return cls(idf, directions, mean.astype(np.float64))


def _word_features(data: NDArray[np.uint8], offsets: NDArray[np.int64], n_buckets: int) -> Features:
    words, word_offsets = word_hashes(data, offsets)
    buckets = (words % np.uint64(n_buckets)).astype(np.int64)
    return count_features(buckets, word_offsets, n_buckets)


def _unit_weights(features: Features, idf: NDArray[np.float64]) -> NDArray[np.float64]:
    """float64, (n_features,): ``(1 + log(count)) * idf``, each document's of length 1."""
    weights = (1 + np.log(features.counts)) * idf[features.ids]
    n_docs = len(features.offsets) - 1
    document = np.repeat(np.arange(n_docs), np.diff(features.offsets))
    # bincount adds one after another: a document's sum does not depend on its neighbours.
    lengths = np.sqrt(np.bincount(document, weights * weights, n_docs))
    unit: NDArray[np.float64] = weights / lengths[document]
    return unit


def _leading_directions(rows: csr_array, dimensions: int, random: np.random.Generator) -> NDArray[np.float64]:
    """(at most dimensions, n_columns), the leading right singular vectors, as many as the rank."""
    n_directions = min(dimensions + 8, *rows.shape)
    if not n_directions:
        return np.empty((0, rows.shape[1]))
    basis = np.linalg.qr(rows @ random.standard_normal((rows.shape[1], n_directions))).Q
    for _ in range(4):
        basis = np.linalg.qr(rows @ (rows.T @ basis)).Q
    within = rows.T @ basis  # (n_columns, n_directions)
    strengths, turn = np.linalg.eigh(within.T @ within)
    rank = min(dimensions, int((strengths > 1e-9 * strengths[-1]).sum()))
    leading = slice(None, -rank - 1, -1)
    directions: NDArray[np.float64] = (within @ turn[:, leading]) / np.sqrt(strengths[leading])
    return directions.T


class StaticModel:
    """A vector for each token, averaged: model2vec, or a StaticEmbedding of sentence-transformers.

    Args:
        folder: with ``tokenizer.json`` and ``model.safetensors``, whose tensor is `embedding.weight` or
            `embeddings`, (n_tokens, d); `weights`, (n_tokens,), and `mapping`, (n_tokens,), from a token to
            its row, as newer model2vec writes them.
    Raises:
        ValueError: a file or a tensor is not there.
    """

    def __init__(self, folder: Path) -> None:
        tensors = read_safetensors(folder / "model.safetensors")
        names = [name for name in ("embeddings", "embedding.weight") if name in tensors]
        if not names:
            raise ValueError(
                f"{folder}/model.safetensors holds {', '.join(tensors)}; a static model has 'embeddings' or "
                "'embedding.weight'"
            )
        rows = tensors[names[0]].astype(np.float32)
        rows = rows[tensors["mapping"].astype(np.int64)] if "mapping" in tensors else rows
        self.projection = (
            rows * tensors["weights"].astype(np.float32)[:, None] if "weights" in tensors else rows
        )
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        unknown = getattr(self.tokenizer.model, "unk_token", None)
        self.unknown = -1 if unknown is None else self.tokenizer.token_to_id(unknown)

    def embed(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.int16]:
        """See `Embedder.embed`. Unknown tokens count nothing."""
        found = self.tokenizer.encode_batch_fast(_texts(data, offsets), add_special_tokens=False)
        ids = [[token for token in encoding.ids if token != self.unknown] for encoding in found]
        flat = np.array([token for tokens in ids for token in tokens], np.int64)
        ends = np.cumsum([0, *map(len, ids)], dtype=np.int64)
        features = count_features(flat, ends, len(self.projection))
        return project(features, features.counts.astype(np.float64), self.projection)


class SentenceModel:
    """Any model that sentence-transformers opens, on a GPU where there is one.

    Its floats may differ in their last bits from machine to machine, and with them a coordinate by 1.

    Raises:
        ValueError: the package is not installed.
    """

    def __init__(self, folder: Path) -> None:
        check_installed("sentence_transformers", "embed")
        from sentence_transformers import SentenceTransformer

        self.model = SentenceTransformer(str(folder), local_files_only=True)
        self.dimensions = len(self.model.encode("any", show_progress_bar=False))
        self.lock = Lock()

    def embed(self, data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> NDArray[np.int16]:
        """See `Embedder.embed`."""
        texts = _texts(data, offsets)
        vectors = np.zeros((len(texts), self.dimensions), np.float32)
        some = [i for i, text in enumerate(texts) if text.strip()]
        if some:
            # Its tokenizers change state while they cut: not for two threads at once.
            with self.lock:
                chosen = [texts[i] for i in some]
                vectors[some] = self.model.encode(chosen, batch_size=_BATCH, show_progress_bar=False)
        return to_unit(vectors)


@lru_cache(maxsize=2)
def open_model(folder: str) -> Embedder:
    """The model in `folder`.

    Raises:
        ValueError: `folder` holds no model that can be opened.
    """
    static = static_folder(Path(folder))
    return SentenceModel(Path(folder)) if static is None else StaticModel(static)


def static_folder(folder: Path) -> Path | None:
    """Where the static model in `folder` lies; None if it is one for sentence-transformers.

    Raises:
        ValueError: it is neither.
    """
    modules = folder / "modules.json"
    if modules.exists():
        first, *_ = json.loads(modules.read_text("utf-8"))
        return folder / first["path"] if first["type"].endswith("StaticEmbedding") else None
    if not (folder / "model.safetensors").exists() or not (folder / "tokenizer.json").exists():
        found = ", ".join(sorted(path.name for path in folder.iterdir())) if folder.is_dir() else "no folder"
        raise ValueError(
            f"{folder}: found {found}; a folder saved by sentence-transformers (with modules.json) or by "
            "model2vec (with model.safetensors and tokenizer.json) is needed"
        )
    return folder


def check_model(folder: str) -> None:
    """Raises:
    ValueError: `folder` holds no model, one of more than `MAX_DIMENSIONS`, or a package is not installed.
    """
    static = static_folder(Path(folder))
    if static is None:
        check_installed("sentence_transformers", "embed")
    elif (d := StaticModel(static).projection.shape[1]) > MAX_DIMENSIONS:
        raise ValueError(f"{folder}: its vectors have {d} numbers; at most {MAX_DIMENSIONS} are exact")


def model_hash(folder: str) -> str:
    """SHA-256 of what the files of a model hold, the same wherever it lies."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    named = [(path.relative_to(folder).as_posix(), content_hash(str(path))) for path in files]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """The tensors of a file by name: the length of a JSON header, the header, then the numbers.

    Raises:
        ValueError: the file cannot be read, or holds other numbers than floats or integers.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    start = 8 + int.from_bytes(content[:8], "little")
    tensors = {}
    for name, entry in json.loads(content[8:start]).items():
        if name == "__metadata__":
            continue
        kind = _NUMBERS.get(entry["dtype"]) or {"I32": np.int32, "I64": np.int64}.get(entry["dtype"])
        if kind is None:
            raise ValueError(f"{path}: {name!r} is {entry['dtype']}; save it as F16, F32 or F64")
        begin, end = entry["data_offsets"]
        tensors[name] = np.frombuffer(content[start + begin : start + end], kind).reshape(entry["shape"])
    return tensors


def _texts(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> Sequence[str]:
    return [data[a:b].tobytes().decode(errors="ignore") for a, b in pairwise(offsets)]

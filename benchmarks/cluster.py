"""Domains found in text without labels: agreement with the true ones, stability, speed, and duplicates found.

    python -m benchmarks.cluster [--json] [--quick] [--corpus FOLDER]

Text: the documents of FOLDER/<domain>/*.jsonl.zst (by default ../shared/corpus/dev beside the repository),
whose folders are the true domains, which clustering never sees. Measured are (1) the vectors: how many of the
ten nearest neighbours share the true domain; (2) the clusters: normalised mutual information, adjusted Rand
index and purity against the true domains, the agreement of runs with other seeds, the silhouette; (3)
megabytes per CPU-second; (4) SemDeDup: planted near duplicates found, against all pairs.

Beside it, in an environment of its own below build/: the same documents embedded by fastText skip-gram
vectors trained on them (gensim, one worker) and by a static model that a package ships (wordllama), clustered
by scikit-learn; and faiss' and scikit-learn's k-means on our vectors. Where faiss is installed beside us,
also by how much it is faster than our kernels among many vectors.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from cuvee.kernels.cluster_quality import adjusted_rand, contingency, silhouettes
from cuvee.kernels.embedding import UNIT, near_kept, nearest, to_unit
from cuvee.kernels.kmeans import spherical_kmeans
from cuvee.operators.base import ROW
from cuvee.operators.cluster import Cluster
from cuvee.operators.embedders import CorpusWords
from cuvee.operators.semantic_dedup import SemanticDedup
from cuvee.operators.text_column import text_buffers
from cuvee.operators.vector_index import near_kept_by, nearest_by_faiss

ROOT = Path(__file__).resolve().parent.parent
PEER = ROOT / "build" / "peers" / "cluster"
PEER_PACKAGES = ["faiss-cpu>=1.9", "gensim>=4.3.3", "scikit-learn>=1.5", "threadpoolctl", "wordllama>=0.3"]
SEEDS = (0, 1, 2)
KS = (11, 16, 32)
MAX_BYTES = 8192
N_ASKED = 2000
N_PLANTED = 300
MANY = (64, 256, 1024, 4096, 16384)
LEAVES = (1000, 2000, 4000, 8000)
PEERS = """
import json, logging, os, re, sys, time
logging.disable(logging.WARNING)
import numpy as np
from sklearn.cluster import KMeans
folder, quick = sys.argv[1], sys.argv[2] == "quick"
texts = json.load(open(folder + "/texts.json"))
vectors = np.load(folder + "/vectors.npy").astype(np.float32) / 4000
found = {}
def clocked(name, call):
    start = time.process_time()
    result = call()
    found[name] = time.process_time() - start
    return result
def unit(rows):
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)).astype(np.float32)
def skip_gram():
    from gensim.models import FastText
    words = [re.findall(r"\\w+", text.lower()) for text in texts]
    model = FastText(words, vector_size=64, sg=1, epochs=1, workers=1, min_count=3, bucket=1 << 17, seed=0)
    rows = np.zeros((len(words), 64))
    for i, document in enumerate(words):
        known = [word for word in document if word in model.wv.key_to_index]
        rows[i] = model.wv[known].mean(axis=0) if known else 0
    return unit(rows)
def static():
    import wordllama
    shipped = os.path.dirname(wordllama.__file__)
    model = wordllama.WordLlama.load(cache_dir=shipped, disable_download=True)
    return unit(model.embed([text or " " for text in texts]))
np.save(folder + "/wordllama.npy", clocked("wordllama", static))
if not quick:
    np.save(folder + "/fasttext.npy", clocked("fasttext", skip_gram))
for name in ("vectors", "wordllama", "fasttext"):
    if name == "fasttext" and quick:
        continue
    rows = vectors if name == "vectors" else np.load(folder + f"/{name}.npy")
    for k in (11, 16, 32):
        fit = lambda s: KMeans(k, n_init=3, random_state=s).fit_predict(rows)
        labels = [clocked(f"sklearn_{name}_{k}", lambda: fit(s)) for s in (0, 1, 2)]
        np.save(folder + f"/{name}-{k}.npy", np.array(labels))
import faiss
faiss.omp_set_num_threads(1)
kmeans = faiss.Kmeans(vectors.shape[1], 16, niter=25, nredo=3, spherical=True, seed=1)
clocked("faiss_kmeans_16", lambda: kmeans.train(vectors))
centroids = np.load(folder + "/centroids.npy").astype(np.float32) / 4000
index = faiss.IndexFlatIP(vectors.shape[1])
index.add(centroids)
np.save(folder + "/assigned.npy", clocked("faiss_assign", lambda: index.search(vectors, 1)[1][:, 0]))
print(json.dumps(found))
"""


def read_corpus(folder: Path, fraction: int) -> tuple[list[str], NDArray[np.int64]]:
    """(the beginnings of every `fraction`-th text, the true domain of each)."""
    texts: list[str] = []
    domains: list[str] = []
    for path in sorted(folder.glob("*/*.jsonl.zst")):
        lines = pa.input_stream(str(path)).read().splitlines()[::fraction]
        texts += [orjson.loads(line)["text"].encode()[:MAX_BYTES].decode(errors="ignore") for line in lines]
        domains += [path.parent.name] * len(lines)
    if not texts:
        sys.exit(f"{folder} holds no */*.jsonl.zst; name a corpus with --corpus")
    return texts, np.unique(domains, return_inverse=True)[1].astype(np.int64)


def buffers(texts: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    return text_buffers(pa.chunked_array([pa.array(texts, pa.large_string())]))


def clocked(call: Callable[[], Any]) -> tuple[Any, float]:
    """(what `call` gives, its CPU seconds)."""
    start = time.process_time()
    result = call()
    return result, time.process_time() - start


def mutual_information(table: NDArray[np.int64]) -> float:
    """Normalised by the mean of the two entropies, 0 to 1."""
    joint = table / table.sum()

    def entropy(shares: NDArray[np.float64]) -> float:
        return -float((shares[shares > 0] * np.log(shares[shares > 0])).sum())

    rows, columns = entropy(joint.sum(axis=1)), entropy(joint.sum(axis=0))
    return 2 * (rows + columns - entropy(joint)) / (rows + columns)


def agreement(truth: NDArray[np.int64], labels: Sequence[NDArray[np.int64]], k: int) -> dict[str, float]:
    """NMI, ARI and purity against the truth, mean of the seeds; ARI between seeds."""
    tables = [contingency(truth, found, int(truth.max()) + 1, k) for found in labels]
    pairs = [(a, b) for i, a in enumerate(labels) for b in labels[:i]]
    return {
        "nmi": float(np.mean([mutual_information(table) for table in tables])),
        "ari": float(np.mean([adjusted_rand(table) for table in tables])),
        "purity": float(np.mean([table.max(axis=0).sum() / table.sum() for table in tables])),
        "between_seeds": float(np.mean([adjusted_rand(contingency(a, b, k, k)) for a, b in pairs])),
    }


def neighbours_agree(vectors: NDArray[Any], truth: NDArray[np.int64]) -> float:
    """Share of the ten nearest neighbours of some documents that have the same true domain."""
    asked = np.random.default_rng(0).permutation(len(vectors))[:N_ASKED]
    rows = vectors.astype(np.float32)
    products = rows[asked] @ rows.T
    products[np.arange(len(asked)), asked] = -np.inf
    near = np.argpartition(-products, 10, axis=1)[:, :10]
    return float((truth[near] == truth[asked][:, None]).mean())


def planted(texts: Sequence[str], seed: int = 0) -> dict[str, float]:
    """Near duplicates of some texts, one word in 20 replaced and the halves exchanged: found or not.

    Truth is the cosine of all pairs of the same integer vectors, across all leaves.
    """
    random = np.random.default_rng(seed)
    long = [i for i, text in enumerate(texts) if len(text.split()) > 150]
    originals = random.choice(long, min(N_PLANTED, len(long)), replace=False)
    vocabulary = " ".join(texts[i] for i in originals[:50]).split()
    copies = []
    for i in originals:
        words = np.array(texts[i].split(), object)
        words[random.random(len(words)) < 0.05] = random.choice(vocabulary)
        half = len(words) // 2
        copies.append(" ".join([*words[half:], *words[:half]]))
    every = [*texts, *copies]
    ids = pa.array([f"d{i}" for i in range(len(every))])
    table = pa.table({"id": ids, "text": pa.array(every, pa.large_string()), ROW: np.arange(len(every))})
    clusters = Cluster(n_clusters=16, leaves_per_cluster=4, set_domain=False)
    sample = clusters.finish(clusters.observe(table))
    fitted = clusters.finish_again(sample, [clusters.observe_again(table, sample)])
    clustered = clusters.apply(table, fitted)
    operator = SemanticDedup()
    state, seconds = clocked(lambda: operator.finish(operator.combine(operator.observe(clustered))))
    gone = set(state["row"].to_pylist())
    flat = clustered["cluster.vector"].combine_chunks().flatten().to_numpy()
    rows = flat.reshape(len(every), -1).astype(np.float32)
    limit = operator.max_similarity * UNIT**2
    pairs = [(j, len(texts) + i) for i, j in enumerate(originals)]
    exact = [pair for pair in pairs if float(rows[pair[0]] @ rows[pair[1]]) > limit]
    unexplained = 0
    for a in range(0, len(rows), 1000):
        products = rows[a : a + 1000] @ rows.T
        i, j = np.nonzero(products > limit)
        unexplained += sum(
            x + a < y and x + a not in gone and y not in gone
            for x, y in zip(i.tolist(), j.tolist(), strict=True)
        )
    return {
        "planted_above_threshold": len(exact) / len(pairs),
        "planted_found": sum(bool(gone & set(pair)) for pair in exact) / max(len(exact), 1),
        "pairs_left_across_leaves": unexplained,
        "removed": len(gone),
        "seconds": seconds,
    }


def faiss_pays(vectors: NDArray[np.int16]) -> dict[str, float]:
    """By how much faiss is faster than our kernels, in CPU time, by how many vectors are compared."""
    if find_spec("faiss") is None:
        print("faiss is not installed: pip install 'cuvee[faiss]' to see where it pays", file=sys.stderr)
        return {}
    figures = {}
    random = np.random.default_rng(0)
    nearest_by_faiss(vectors[:2], vectors[:2])
    asked = vectors[:N_ASKED]
    for k in MANY:
        centroids = to_unit(vectors[random.integers(0, len(vectors), k)] + random.normal(0, 50, (k, 1)))
        ours, kernel = clocked(lambda centroids=centroids: nearest(asked, centroids))
        theirs, faiss = clocked(lambda centroids=centroids: nearest_by_faiss(asked, centroids))
        assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
        figures[f"faiss_faster_at_{k}_centroids"] = kernel / faiss
    least = int(SemanticDedup().max_similarity * UNIT**2)
    for n in (n for n in LEAVES if n <= len(vectors)):
        leaf = vectors[random.permutation(len(vectors))[:n]]
        ours, kernel = clocked(lambda leaf=leaf: near_kept(leaf, least)[1] > least)
        theirs, faiss = clocked(lambda leaf=leaf: near_kept_by("faiss", leaf, least)[1] > least)
        assert np.array_equal(ours, theirs)
        figures[f"faiss_faster_in_a_leaf_of_{n}"] = kernel / faiss
    return figures


def run_peers(
    texts: Sequence[str], vectors: NDArray[np.int16], centroids: NDArray[np.int16], quick: bool
) -> Any:
    """(CPU seconds by name, labels by (vectors, k), their vectors, faiss' assignment)."""
    python = PEER / "bin" / "python"
    if not python.exists():
        venv.create(PEER, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PEER_PACKAGES], check=True)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        (path / "texts.json").write_text(json.dumps(list(texts)))
        np.save(path / "vectors.npy", vectors)
        np.save(path / "centroids.npy", centroids)
        one = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
        command = [python, "-c", PEERS, folder, "quick" if quick else "whole"]
        seconds = json.loads(subprocess.check_output(command, env=os.environ | one).splitlines()[-1])
        labels = {
            (name, k): list(np.load(found).astype(np.int64))
            for name in ("vectors", "wordllama", "fasttext")
            for k in KS
            if (found := path / f"{name}-{k}.npy").exists()
        }
        theirs = {
            name: np.load(found)
            for name in ("wordllama", "fasttext")
            if (found := path / f"{name}.npy").exists()
        }
        return seconds, labels, theirs, np.load(path / "assigned.npy")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=__doc__)
    parser.add_argument("--json", action="store_true", help="end with one JSON line of plain figures")
    parser.add_argument("--quick", action="store_true", help="a quarter of the documents, without fastText")
    parser.add_argument("--corpus", type=Path, default=ROOT.parent / "shared" / "corpus" / "dev")
    options = parser.parse_args(arguments)
    with threadpool_limits(1, "blas"):
        measure(options.corpus, options.quick, options.json)


def measure(corpus: Path, quick: bool, as_json: bool) -> None:
    texts, truth = read_corpus(corpus, 4 if quick else 1)
    data, offsets = buffers(texts)
    megabytes = len(data) / 1e6
    defaults = Cluster()
    settings = (defaults.n_buckets, defaults.dimensions)
    CorpusWords.learn(*buffers(texts[:50]), *settings, 0).embed(*buffers(texts[:50]))  # compiles
    learned, learning = clocked(lambda: CorpusWords.learn(data, offsets, *settings, 0))
    vectors, embedding = clocked(lambda: learned.embed(data, offsets))
    vectors = vectors[has_words := vectors.any(axis=1)]
    truth, texts = truth[has_words], [text for text, some in zip(texts, has_words, strict=True) if some]
    ours = {
        k: [spherical_kmeans(vectors, k, np.random.default_rng(s), 3, min_size=8) for s in SEEDS] for k in KS
    }
    _, clustering = clocked(lambda: spherical_kmeans(vectors, 16, np.random.default_rng(0), 3))
    many = spherical_kmeans(vectors, 256, np.random.default_rng(0)).centroids
    nearest(vectors[:1], many)
    (assigned, _), assigning = clocked(lambda: nearest(vectors, many))
    seconds, labels, theirs, by_faiss = run_peers(texts, vectors, many, quick)
    products = np.einsum("nd,nd->n", vectors.astype(np.int64), many[by_faiss].astype(np.int64))
    ties = products == np.einsum("nd,nd->n", vectors.astype(np.int64), many[assigned].astype(np.int64))

    figures: dict[str, float] = {"n_documents": len(texts), "megabytes": megabytes}
    figures["learn_mb_per_cpu_s"] = megabytes / learning
    figures["embed_mb_per_cpu_s"] = megabytes / embedding
    figures["wordllama_embed_mb_per_cpu_s"] = megabytes / seconds["wordllama"]
    if "fasttext" in seconds:
        figures["fasttext_train_and_embed_mb_per_cpu_s"] = megabytes / seconds["fasttext"]
    figures["kmeans_cpu_s"] = clustering
    figures["kmeans_cpu_s_faiss"] = seconds["faiss_kmeans_16"]
    figures["kmeans_cpu_s_sklearn"] = seconds["sklearn_vectors_16"]
    figures["assign_documents_per_cpu_s"] = len(texts) / assigning
    figures["assign_documents_per_cpu_s_faiss"] = len(texts) / seconds["faiss_assign"]
    figures["assign_equal_to_faiss"] = float(ties.mean())
    figures["neighbours_agree"] = neighbours_agree(vectors, truth)
    figures |= {f"neighbours_agree_{name}": neighbours_agree(rows, truth) for name, rows in theirs.items()}
    figures["silhouette_16"] = float(
        silhouettes(vectors, ours[16][0].which, len(ours[16][0].centroids)).mean()
    )
    rows = [("ours", k, agreement(truth, [run.which for run in ours[k]], k)) for k in KS]
    rows += [
        (
            {"vectors": "our vectors, scikit-learn"}.get(name, f"{name}, scikit-learn"),
            k,
            agreement(truth, found, k),
        )
        for (name, k), found in labels.items()
    ]
    for name, k, found in rows:
        key = name.partition(",")[0].replace(" ", "_")
        figures |= {f"{measure}_{k}_{key}": value for measure, value in found.items()}
    figures |= faiss_pays(vectors)
    figures |= {f"semantic_{name}": value for name, value in planted(texts).items()}

    print(f"{len(texts):,} documents, {megabytes:.1f} MB of beginnings, {int(truth.max()) + 1} true domains")
    print(f"{'':28}{'k':>4}{'NMI':>8}{'ARI':>8}{'purity':>8}{'ARI between seeds':>20}")
    for name, k, found in rows:
        print(
            f"{name:28}{k:4}{found['nmi']:8.3f}{found['ari']:8.3f}{found['purity']:8.3f}"
            f"{found['between_seeds']:20.3f}"
        )
    for name, value in figures.items():
        if not any(name.startswith(measure) for measure in ("nmi", "ari", "purity", "between")):
            print(f"{name:44}{value:14,.3f}")
    if as_json:
        print(json.dumps({name: round(value, 4) for name, value in figures.items()}))


if __name__ == "__main__":
    main()

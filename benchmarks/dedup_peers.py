"""One deduplication by a peer, in the peer's own environment: no import from this project.

    python dedup_peers.py (datasketch|rensa|datatrove|text-dedup) INPUT.jsonl FOLDER N_BANDS ROWS_PER_BAND
    python dedup_peers.py signatures (datasketch|rensa) INPUT.jsonl N_PERM

The first form writes FOLDER/kept.txt, the ids of the documents that stay. datasketch and rensa are libraries:
around them stands the shortest script that does the job (words, 5-grams, signatures, an index of
bands, union-find, the first of each cluster stays). The others run as their documentation has it. The second
form prints JSON: MB of text, CPU seconds from text to signatures, and those for shingling alone.
"""

import json
import re
import sys
import time
from pathlib import Path

N = 5
WORD = re.compile(r"\w+")


def read(path):
    with open(path, encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def shingles(text):
    words = WORD.findall(text.lower())
    return [" ".join(words[i : i + N]) for i in range(len(words) - N + 1)]


def rensa_signer(n_perm):
    from rensa import RMinHash

    def sign(found):
        signature = RMinHash(num_perm=n_perm, seed=1)
        signature.update(found)
        signature.digest()
        return signature

    return sign


def datasketch_signer(n_perm):
    from datasketch import MinHash

    def sign(found):
        signature = MinHash(num_perm=n_perm, seed=1, scheme="affine32")
        signature.update_batch([shingle.encode() for shingle in found])
        return signature

    return sign


def by_library(sign, index, path, folder):
    """Union-find over the pairs that the index gives; the first of each cluster stays."""
    parent, ids = [], []

    def find(node):
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for row, document in enumerate(read(path)):
        ids.append(document["id"])
        parent.append(row)
        found = shingles(document["text"])
        if found:
            signature = sign(found)
            for other in index.query(signature):
                a, b = find(row), find(other)
                parent[max(a, b)] = min(a, b)
            index.insert(row, signature)
    with open(folder / "kept.jsonl", "w", encoding="utf-8") as out:
        for row, document in enumerate(read(path)):
            if find(row) == row:
                out.write(json.dumps(document) + "\n")
    write_kept(folder, [name for row, name in enumerate(ids) if find(row) == row])


def write_kept(folder, ids):
    (folder / "kept.txt").write_text("".join(f"{name}\n" for name in ids), "utf-8")


def rensa(path, folder, n_bands, rows):
    from rensa import RMinHashLSH

    n_perm = n_bands * rows
    by_library(
        rensa_signer(n_perm), RMinHashLSH(threshold=0.8, num_perm=n_perm, num_bands=n_bands), path, folder
    )


def datasketch(path, folder, n_bands, rows):
    from datasketch import MinHashLSH

    n_perm = n_bands * rows
    by_library(datasketch_signer(n_perm), MinHashLSH(num_perm=n_perm, params=(n_bands, rows)), path, folder)


def datatrove(path, folder, n_bands, rows):
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
    )
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.hashing import HashConfig

    config = MinhashConfig(
        hash_config=HashConfig(hash_fc="xxhash", precision=64),
        num_buckets=n_bands,
        hashes_per_bucket=rows,
        n_grams=N,
    )
    signed, buckets, removed = (str(folder / name) for name in ("signed", "buckets", "removed"))
    reader = JsonlReader(str(path.parent), glob_pattern=path.name)
    stages = [
        ([reader, MinhashDedupSignature(output_folder=signed, config=config)], 1),
        ([MinhashDedupBuckets(input_folder=signed, output_folder=buckets, config=config)], n_bands),
        ([MinhashDedupCluster(input_folder=buckets, output_folder=removed, config=config)], 1),
        (
            [
                reader,
                MinhashDedupFilter(input_folder=removed),
                JsonlWriter(str(folder / "out"), compression=None),
            ],
            1,
        ),
    ]
    for i, (pipeline, n_tasks) in enumerate(stages):
        LocalPipelineExecutor(pipeline, tasks=n_tasks, workers=1, logging_dir=str(folder / f"log{i}")).run()
    write_kept(folder, [row["id"] for part in sorted((folder / "out").glob("*.jsonl")) for row in read(part)])


def text_dedup(path, folder, n_bands, rows):
    from datasets import load_from_disk
    from text_dedup.minhash import main

    arguments = {
        "path": "json", "data_files": str(path), "split": "train", "cache_dir": str(folder / "cache"),
        "output": str(folder / "out"), "column": "text", "ngram": N, "min_length": N, "seed": 1,
        "num_proc": 1, "num_perm": n_bands * rows, "b": n_bands, "r": rows, "hash_func": "xxh3",
    }  # fmt: skip
    given = [part for name, value in arguments.items() for part in (f"--{name}", str(value))]
    main(given, standalone_mode=False)
    write_kept(folder, load_from_disk(str(folder / "out"))["id"])


def time_signatures(peer, path, n_perm):
    texts = [document["text"] for document in read(path)]
    sign = {"rensa": rensa_signer, "datasketch": datasketch_signer}[peer](n_perm)
    start = time.process_time()
    for text in texts:
        shingles(text)
    shingled = time.process_time()
    for text in texts:
        sign(shingles(text))
    end = time.process_time()
    n_bytes = sum(len(text.encode()) for text in texts)
    print(json.dumps({"mb": n_bytes / 1e6, "cpu_s": end - shingled, "shingling_cpu_s": shingled - start}))


if __name__ == "__main__":
    if sys.argv[1] == "signatures":
        time_signatures(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        job = {"datasketch": datasketch, "rensa": rensa, "datatrove": datatrove, "text-dedup": text_dedup}[
            sys.argv[1]
        ]
        job(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))

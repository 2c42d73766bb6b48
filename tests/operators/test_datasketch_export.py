"""Signatures in datasketch's hands: its own, and its index finds our candidates."""

import random

import datasketch
import numpy as np
import pyarrow as pa

from cuvee.kernels.shingles import shingle_hashes, word_hashes
from cuvee.operators.base import ROW
from cuvee.operators.datasketch_export import lean_minhashes
from cuvee.operators.minhash_dedup import MinHashDedup
from cuvee.operators.text_column import text_buffers


def _table():
    random_ = random.Random(0)
    texts = ["too short"]
    for _ in range(12):
        words = [f"w{random_.randrange(10**6)}" for _ in range(60)]
        texts.append(" ".join(words))
        words[random_.randrange(60)] = "other"
        texts.append(" ".join(words))
    ids = [f"doc-{i}" for i in range(len(texts))]
    return pa.table({"id": ids, "text": pa.array(texts, pa.large_string()), ROW: range(len(texts))})


def test_an_exported_signature_is_the_one_that_datasketch_makes():
    operator, table = MinHashDedup(seed=7), _table()
    exported = dict(lean_minhashes(operator, table))
    assert len(exported) == len(table) - 1, "a document of two words has no signature"
    hashes, offsets = shingle_hashes(*word_hashes(*text_buffers(table["text"])), operator.ngram)
    for i, name in enumerate(table["id"].to_pylist()[1:], start=1):
        theirs = datasketch.MinHash(len(exported[name]), seed=7, hashfunc=int, scheme="affine32")
        theirs.update_batch(hashes[offsets[i] : offsets[i + 1]].tolist())
        assert exported[name] == datasketch.LeanMinHash(theirs)


def test_an_index_of_datasketch_finds_the_candidates_of_the_operator():
    operator, table = MinHashDedup(), _table()
    bands = operator.bands
    lsh = datasketch.MinHashLSH(num_perm=bands.n_bands * bands.rows_per_band, params=tuple(bands))
    exported = dict(lean_minhashes(operator, table))
    for name, minhash in exported.items():
        lsh.insert(name, minhash)
    theirs = {(a, b) for a, minhash in exported.items() for b in lsh.query(minhash) if a < b}
    observed = operator.observe(table)
    keys, rows = observed["key"].to_numpy(), observed[ROW].to_numpy()
    ids = table["id"].to_pylist()
    ours = {
        tuple(sorted((ids[i], ids[j])))
        for key in np.unique(keys)
        for i in rows[keys == key]
        for j in rows[keys == key]
        if i < j
    }
    assert theirs == ours
    assert len(ours) >= 10

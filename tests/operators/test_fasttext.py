"""fastText vectors of the corpus: kept, and what letters say of words outside."""

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from cuvee.kernels.embedding import UNIT
from cuvee.operators import files
from cuvee.operators.cluster import Cluster
from cuvee.operators.fasttext import SubwordVectors
from cuvee.operators.text_column import text_buffers

pytest.importorskip("gensim")

TOPICS = {
    "wine": "cellar barrel grape vintage cork bottle vineyard oak tannin harvest",
    "law": "court statute appeal judge plaintiff clause verdict contract damages counsel",
}


def _buffers(texts):
    return text_buffers(pa.chunked_array([pa.array(texts, pa.large_string())]))


@pytest.fixture(scope="module")
def texts():
    random = np.random.default_rng(0)
    words = [words.split() for words in TOPICS.values()]
    return [" ".join(random.choice(words[i % 2], 20)) for i in range(80)]


@pytest.fixture(scope="module")
def learned(texts):
    return SubwordVectors.learn(*_buffers(texts), 4096, 16, 0)


def _cosine(a, b):
    return float(a.astype(float) @ b.astype(float)) / UNIT**2


def test_words_of_one_topic_are_near_and_unknown_forms_by_their_letters(learned):
    wine, law, forms, nothing = learned.embed(
        *_buffers(["grape oak cork", "judge court clause", "grapes vineyards barrels", ""])
    )
    assert _cosine(wine, forms) > 0.5 > _cosine(law, forms)
    assert not nothing.any()


def test_a_word_outside_has_the_vector_that_gensim_gives_it(texts, monkeypatch):
    import gensim.models

    models = []

    class Kept(gensim.models.FastText):
        def __init__(self, **parameters):
            super().__init__(**parameters)
            models.append(self)

    monkeypatch.setattr(gensim.models, "FastText", Kept)
    learned = SubwordVectors.learn(*_buffers(texts), 4096, 16, 0)
    for word in ("grapes", "überkeller", "東京"):
        np.testing.assert_allclose(learned._of_letters(word), models[0].wv.get_vector(word), rtol=1e-5)


def test_the_stored_vectors_are_those_learned_and_learning_repeats_them(learned, texts):
    again = SubwordVectors.learn(*_buffers(texts), 4096, 16, 0)
    assert again.to_bytes() == learned.to_bytes()
    read = SubwordVectors.from_bytes(learned.to_bytes())
    np.testing.assert_array_equal(read.embed(*_buffers(texts)), learned.embed(*_buffers(texts)))


def test_clusters_of_such_vectors_are_the_topics_in_any_sharding(texts, check_operator):
    table = pa.table(
        {
            "id": [f"doc-{i}" for i in range(len(texts))],
            "text": pa.array(texts, pa.large_string()),
            "domain": pa.array([None] * len(texts), pa.string()),
        }
    )
    operator = Cluster(n_clusters=2, learn="fasttext", dimensions=16, n_buckets=4096)
    which = check_operator(operator, table)["cluster.id"].to_numpy()
    assert set(which[::2]) != set(which[1::2])
    assert len(set(which[::2])) == len(set(which[1::2])) == 1


def test_a_sample_without_a_frequent_word_has_no_vectors():
    learned = SubwordVectors.learn(*_buffers(["one two", "three"]), 4096, 16, 0)
    assert not learned.embed(*_buffers(["one two", ""])).any()
    assert not SubwordVectors.from_bytes(learned.to_bytes()).embed(*_buffers(["three"])).any()


def test_what_contradicts_it_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "find_spec", lambda _: None)
    with pytest.raises(ValidationError, match=r"'gensim' is not installed: pip install 'cuvee\[fasttext\]'"):
        Cluster(learn="fasttext")

"""Vectors of texts: from the corpus, and from models in folders."""

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError
from tokenizers import Tokenizer, models, pre_tokenizers

from cuvee.kernels.embedding import UNIT
from cuvee.operators.cluster import Cluster
from cuvee.operators.embedders import CorpusWords, open_model, read_safetensors
from cuvee.operators.text_column import text_buffers

VOCABULARY = {"[UNK]": 0, "red": 1, "wine": 2, "blue": 3, "sea": 4}
ROWS = np.array([[9, 9], [3, 0], [0, 4], [0, 1], [1, 0]], np.float32)


def write_safetensors(path, tensors):
    header, numbers, start = {}, b"", 0
    for name, values in tensors.items():
        kind = {"float32": "F32", "float16": "F16", "int64": "I64", "uint8": "U8"}[values.dtype.name]
        end = start + values.nbytes
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [start, end]}
        numbers, start = numbers + values.tobytes(), end
    encoded = json.dumps({"__metadata__": {"format": "np"}, **header}).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + numbers)


def write_model(folder, tensors, modules=None):
    """A static model of four words, as model2vec or sentence-transformers would save it."""
    inside = folder / "0_StaticEmbedding" if modules else folder
    inside.mkdir(parents=True)
    tokenizer = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(2)
    tokenizer.save(str(inside / "tokenizer.json"))
    write_safetensors(inside / "model.safetensors", tensors)
    if modules:
        (folder / "modules.json").write_text(json.dumps(modules), "utf-8")
    return folder


STATIC = [{"idx": 0, "path": "0_StaticEmbedding", "type": "sentence_transformers.models.StaticEmbedding"}]


def _embed(folder, *texts):
    return open_model(str(folder)).embed(
        *text_buffers(pa.chunked_array([pa.array(texts, pa.large_string())]))
    )


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize(("name", "modules"), [("embeddings", None), ("embedding.weight", STATIC)])
def test_a_static_model_sums_its_tokens_and_unknown_ones_count_nothing(name, modules, dtype, tmp_path):
    folder = write_model(tmp_path / "model", {name: ROWS.astype(dtype)}, modules)
    vectors = _embed(folder, "red wine", "red red wine wine", "wine of tin", "", "tin")
    np.testing.assert_array_equal(vectors[0], np.rint(np.array([3, 4]) * UNIT / 5))
    np.testing.assert_array_equal(vectors[1], vectors[0])  # beyond the tokenizer's truncation, too
    np.testing.assert_array_equal(vectors[2:], [[0, UNIT], [0, 0], [0, 0]])


def test_weights_and_shared_rows_of_a_static_model_are_obeyed(tmp_path):
    tensors = {
        "embeddings": np.eye(2, dtype=np.float32),
        "weights": np.array([1, 1, 1, 0, 2], np.float32),
        "mapping": np.array([0, 0, 1, 1, 1]),
    }
    folder = write_model(tmp_path / "model", tensors)
    np.testing.assert_array_equal(
        _embed(folder, "red blue", "wine", "red sea"),
        [[UNIT, 0], [0, UNIT], np.rint(np.array([1, 2]) * UNIT / 5**0.5)],
    )


def test_clusters_of_a_models_vectors_are_the_same_in_any_sharding(tmp_path, check_operator):
    folder = write_model(tmp_path / "model", {"embeddings": ROWS})
    texts = ["red sea", "sea red red", "wine", "wine blue", "tin"]
    table = pa.table(
        {
            "id": list("abcde"),
            "text": pa.array(texts, pa.large_string()),
            "domain": pa.nulls(5, pa.string()),
        }
    )
    result = check_operator(Cluster(model=str(folder), n_clusters=2, min_documents=1), table)
    assert result["cluster.id"].to_pylist()[4] is None
    first, second, third, fourth = result["cluster.id"].to_pylist()[:4]
    assert first == second != third == fourth


def test_a_model_is_known_by_what_it_holds(tmp_path):
    one, same, other = (
        Cluster(model=str(write_model(tmp_path / name, {"embeddings": rows}))).identity()
        for name, rows in (("one", ROWS), ("same", ROWS), ("other", 2 * ROWS))
    )
    assert one == same != other


def test_what_is_no_model_is_refused_with_what_was_found(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValidationError, match=r"found notes.txt; a folder saved by sentence-transformers"):
        Cluster(model=str(tmp_path))
    with pytest.raises(ValidationError, match="found no folder"):
        Cluster(model=str(tmp_path / "nowhere"))
    folder = write_model(tmp_path / "deep", {"encoder.layer.0.weight": ROWS})
    with pytest.raises(ValidationError, match=r"holds encoder.layer.0.weight; a static model has"):
        Cluster(model=str(folder))


def test_numbers_that_cannot_be_read_are_refused(tmp_path):
    write_safetensors(tmp_path / "bytes", {"embeddings": ROWS.astype(np.uint8)})
    with pytest.raises(ValueError, match="'embeddings' is U8; save it as F16, F32 or F64"):
        read_safetensors(tmp_path / "bytes")


def test_the_corpus_teaches_that_words_of_one_topic_are_near_without_being_together():
    # red-wine and wine-cellar documents: red and cellar never meet, yet share wine; sea shares nothing.
    texts = ["red wine"] * 5 + ["wine cellar"] * 5 + ["sea ship"] * 5 + ["ship sail"] * 5
    data, offsets = text_buffers(pa.chunked_array([pa.array(texts, pa.large_string())]))
    learned = CorpusWords.learn(data, offsets, 1 << 12, 2, seed=0)
    asked = text_buffers(pa.chunked_array([pa.array(["red", "cellar", "sea", "sail"], pa.large_string())]))
    cosines = learned.embed(*asked).astype(float) @ learned.embed(*asked).T / UNIT**2
    assert cosines[0, 1] > 0.99
    assert cosines[2, 3] > 0.99
    assert cosines[:2, 2:].max() < 0


def test_words_beyond_the_rank_of_a_tiny_corpus_have_no_direction():
    data, offsets = text_buffers(pa.chunked_array([pa.array(["a b c"] * 3, pa.large_string())]))
    learned = CorpusWords.learn(data, offsets, 64, 8, seed=0)
    assert (learned.directions[:, 1:] == 0).all()
    assert (np.abs(np.linalg.norm(learned.embed(data, offsets).astype(float), axis=1) - UNIT) < 2).all()


@pytest.mark.filterwarnings("default")  # of packages that are not ours
def test_a_model_of_sentence_transformers_embeds_texts_from_several_threads_alike(tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "bert"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "wine", "blue", "sea"]
    (folder / "vocab.txt").write_text("\n".join(words), "utf-8")
    transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    transformers.BertModel(transformers.BertConfig(vocab_size=len(words), **shape)).save_pretrained(folder)
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    model.save(str(tmp_path / "model"))

    texts = ["red wine", "", "blue sea", "sea"] * 20
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: _embed(tmp_path / "model", *texts), range(8)))
    expected = np.zeros((80, 8))
    for row, vector in zip([0, 2, 3], model.encode(["red wine", "blue sea", "sea"]), strict=True):
        expected[row::4] = vector / np.linalg.norm(vector) * UNIT
    for vectors in found:
        # Rounding, and batches of other lengths.
        np.testing.assert_allclose(vectors, expected, atol=0.5 + 0.1)

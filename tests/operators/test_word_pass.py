import threading

import numpy as np
import pyarrow as pa
import pytest

from cuvee.kernels import words as words_module
from cuvee.operators import word_pass
from cuvee.operators.gopher_quality import GopherQuality
from cuvee.operators.gopher_repetition import GopherRepetition
from cuvee.operators.word_pass import column_words


@pytest.fixture
def passes(monkeypatch):
    """The documents of every word pass that is made, with nothing remembered from before."""
    seen = []

    def counted(data, offsets, segmentation):
        seen.append(len(offsets) - 1)
        return words_module.words(data, offsets, segmentation)

    monkeypatch.setattr(word_pass, "_last", word_pass._Last())
    monkeypatch.setattr(word_pass, "words", counted)
    return seen


def _column(*texts):
    return pa.chunked_array([pa.array(texts, pa.large_string())])


def test_filters_of_one_profile_share_one_word_pass(passes, documents):
    GopherRepetition().scores(documents)
    GopherQuality().scores(documents.filter(pa.array([i % 3 != 1 for i in range(len(documents))])))
    assert passes == [len(documents)]


def test_another_profile_makes_a_pass_of_its_own(passes, documents):
    GopherRepetition().scores(documents)
    GopherQuality(profile="datatrove").scores(documents)
    assert passes == [len(documents)] * 2


def test_a_changed_text_is_never_taken_for_the_old_one(passes):
    column_words(_column("a b", "c d", "e"), "whitespace")
    found = column_words(_column("a b", "c dd"), "whitespace")
    assert passes == [3, 2]
    assert found.n_bytes.tolist() == [1, 1, 1, 2]


def test_shared_words_lie_where_the_new_column_has_them(passes):
    column_words(_column("a b", "c d", "e"), "whitespace")
    found = column_words(_column("c d", "e"), "whitespace")
    assert passes == [3]
    assert found.starts.tolist() == [0, 2, 3]
    np.testing.assert_array_equal(found.offsets, [0, 2, 3])


def test_threads_share_nothing(passes):
    column_words(_column("a b"), "whitespace")
    thread = threading.Thread(target=column_words, args=(_column("a b"), "whitespace"))
    thread.start()
    thread.join()
    assert passes == [1, 1]

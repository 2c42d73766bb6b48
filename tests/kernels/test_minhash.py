import datasketch
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from cuvee.kernels.minhash import (
    EMPTY,
    band_keys,
    band_keys_reference,
    permutations,
    signatures,
    signatures_reference,
)

SHINGLES = st.lists(st.lists(st.integers(0, 2**32 - 1), max_size=70), max_size=4)


def _packed(documents):
    shingles = np.array([shingle for document in documents for shingle in document], np.uint32)
    return shingles, np.cumsum([0, *map(len, documents)], dtype=np.int64)


@given(SHINGLES, st.sampled_from([1, 7, 112]), st.integers(0, 2**32 - 1))
def test_kernel_and_reference_agree_on_every_signature(documents, n_perm, seed):
    drawn = permutations(n_perm, seed)
    np.testing.assert_array_equal(
        signatures(*_packed(documents), drawn), signatures_reference(*_packed(documents), drawn)
    )


@given(SHINGLES, st.sampled_from([1, 16, 112]), st.integers(0, 2**32 - 1))
def test_signatures_are_those_of_datasketch(documents, n_perm, seed):
    found = signatures(*_packed(documents), permutations(n_perm, seed))
    for document, signature in zip(documents, found, strict=True):
        peer = datasketch.MinHash(n_perm, seed=seed, hashfunc=int, scheme="affine32")
        peer.update_batch(document)
        np.testing.assert_array_equal(signature, peer.hashvalues)


def test_agreement_estimates_jaccard_similarity():
    # Sets of consecutive numbers, the least random of inputs, that share k of 300. The error of a pair has a
    # standard deviation of at most 0.5 / sqrt(112) = 0.047, the mean of 200 of them one of 0.0033 were the
    # pairs independent.
    drawn = permutations(112, seed=1)
    for shared in (30, 150, 270):
        starts = np.arange(200) * 100_000
        union = 600 - shared
        pairs = [list(range(s + side, s + side + 300)) for s in starts for side in (0, 300 - shared)]
        found = signatures(*_packed(pairs), drawn)
        errors = (found[::2] == found[1::2]).mean(axis=1) - shared / union
        assert abs(errors.mean()) < 5 * 0.0033
        assert errors.std() < 1.25 * 0.047  # 5 standard errors of a standard deviation of 200 values


@given(st.sampled_from([(1, 1), (14, 8), (3, 2)]), st.data())
def test_kernel_and_reference_agree_on_every_band_key(shape, data):
    n_bands, rows = shape
    found = data.draw(arrays(np.uint32, st.tuples(st.integers(0, 3), st.just(n_bands * rows))))
    np.testing.assert_array_equal(band_keys(found, n_bands), band_keys_reference(found, n_bands))


def test_documents_share_the_keys_of_the_bands_on_which_they_agree():
    a = np.arange(12, dtype=np.uint32)
    b = a.copy()
    b[5] = 99
    same = np.equal(*band_keys(np.stack([a, b]), 4))
    assert same.tolist() == [True, False, True, True]


def test_equal_values_in_different_bands_have_different_keys():
    keys = band_keys(np.zeros((1, 6), np.uint32), 3)
    assert len(np.unique(keys)) == 3


def test_a_document_without_shingles_has_the_empty_signature():
    assert (signatures(*_packed([[]]), permutations(3, 1)) == EMPTY).all()


def test_bands_that_do_not_divide_a_signature_are_refused():
    with pytest.raises(ValueError, match="n_bands is 5: it must divide the 112 values of a signature"):
        band_keys(np.zeros((1, 112), np.uint32), 5)


def test_a_signature_of_nothing_is_refused():
    with pytest.raises(ValueError, match="n_perm is 0: a signature has at least 1 value"):
        permutations(0, 1)

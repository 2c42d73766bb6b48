from itertools import pairwise

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from cuvee.kernels.shingle_sets import shingle_sets, shingle_sets_reference
from cuvee.kernels.survivors import BUCKET_DEPTH, sketch_similarity, survivors, survivors_reference

N_BANDS, N_PERM = 3, 8


@st.composite
def walks(draw):
    """Arguments of `survivors`: few buckets, small sets over few shingles, so that everything collides."""
    n_docs = draw(st.integers(0, 9))
    members = draw(st.lists(st.sets(st.integers(0, 7), min_size=1), min_size=1, max_size=5))
    with_sets = draw(st.booleans())
    rows = [draw(st.lists(st.integers(-1, 5), min_size=N_BANDS, max_size=N_BANDS)) for _ in range(n_docs)]
    sketches = [draw(st.lists(st.integers(0, 2), min_size=N_PERM, max_size=N_PERM)) for _ in range(n_docs)]
    set_of = draw(st.lists(st.integers(0, len(members) - 1), min_size=n_docs, max_size=n_docs))
    packed = [shingle for found in members for shingle in sorted(found)]
    return (
        np.array(rows, np.int64).reshape(n_docs, N_BANDS),
        np.array(sketches, np.uint8).reshape(n_docs, N_PERM),
        np.array(packed if with_sets else [], np.uint32),
        np.cumsum([0, *(map(len, members) if with_sets else [])], dtype=np.int64),
        np.array(set_of, np.int64) if with_sets else np.arange(n_docs),
        np.array(draw(st.lists(st.booleans(), min_size=n_docs, max_size=n_docs)), bool),
        draw(st.sampled_from([0.25, 0.5, 0.8, 1.0])),
        draw(st.sampled_from([0, 4])),
    )


@given(walks())
def test_kernel_and_reference_agree_on_every_survivor(walk):
    for a, b in zip(survivors(*walk), survivors_reference(*walk), strict=True):
        np.testing.assert_array_equal(a, b)


@given(walks())
def test_whoever_leaves_is_like_a_survivor_and_survivors_of_a_bucket_are_not_alike(walk):
    buckets, _, sets, set_offsets, set_of, is_settled, threshold, _ = walk
    survivor, similarity = survivors(*walk[:-1], 0)
    assert (survivor[survivor] == survivor).all()
    assert (similarity >= threshold).all()
    if len(set_offsets) == 1:
        return
    shingles = [set(sets[a:b].tolist()) for a, b in pairwise(set_offsets)]

    def jaccard(c, d):
        a, b = shingles[set_of[c]], shingles[set_of[d]]
        return len(a & b) / len(a | b)

    for d, c in enumerate(survivor):
        assert similarity[d] == jaccard(c, d)
        for other in np.flatnonzero(survivor[:d] == np.arange(d)):
            shared = set(buckets[other].tolist()) & set(buckets[d].tolist()) - {-1}
            if c == d and shared and not is_settled[d]:
                assert jaccard(other, d) < threshold


def test_a_bucket_that_all_documents_share_takes_linear_time():
    # Nothing is alike: each document is compared with the first BUCKET_DEPTH alone.
    n = BUCKET_DEPTH + 50
    nothing = np.empty(0, np.uint32), np.zeros(1, np.int64)
    sketches = np.random.default_rng(0).integers(0, 256, (n, N_PERM)).astype(np.uint8)
    sketches[-1] = sketches[BUCKET_DEPTH]
    sketches[-2] = sketches[BUCKET_DEPTH - 1]
    walk = (np.zeros((n, 1), np.int64), sketches, *nothing, np.arange(n), np.zeros(n, bool), 1.0, N_PERM)
    survivor, _ = survivors(*walk)
    assert survivor[-1] == n - 1
    assert survivor[-2] == BUCKET_DEPTH - 1
    np.testing.assert_array_equal(survivor, survivors_reference(*walk)[0])


def test_similarity_from_bytes_is_that_of_whole_values_on_average():
    # 112 values of pairs with J = 1/2; bytes agree by chance in 1 of 256. 5 standard errors of 2,000 pairs.
    random = np.random.default_rng(0)
    same = random.random((2000, 112)) < 0.5
    agree = same | (random.integers(0, 256, same.shape) == 0)
    estimates = [sketch_similarity(int(n), 112) for n in agree.sum(axis=1)]
    assert np.mean(estimates) == pytest.approx(0.5, abs=5 * (0.25 / 112 / 2000) ** 0.5)


@given(st.lists(st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 9), max_size=400), max_size=4))
def test_kernel_and_reference_agree_on_every_shingle_set(documents):
    shingles = np.array([shingle for document in documents for shingle in document], np.uint32)
    offsets = np.cumsum([0, *map(len, documents)], dtype=np.int64)
    for a, b in zip(shingle_sets(shingles, offsets), shingle_sets_reference(shingles, offsets), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_long_document_is_sorted_like_a_short_one():
    shingles = np.random.default_rng(0).integers(0, 2**32, 5000, dtype=np.uint32)
    found, offsets = shingle_sets(shingles, np.array([0, 100, 5000]))
    assert found[offsets[1] :].tolist() == sorted(set(shingles[100:].tolist()))

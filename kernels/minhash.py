"""MinHash signatures and the keys of their LSH bands."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .hashing import avalanche, avalanche_reference
from .jit import kernel

EMPTY = np.uint32(0xFFFFFFFF)
"""Every value of the signature of a document without shingles."""

_K = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio
_MASK = (1 << 64) - 1


class Permutations(NamedTuple):
    """h -> (multiplier * h + shift) mod 2**32; both uint32, (n_perm,), the multipliers odd."""

    multiplier: NDArray[np.uint32]
    shift: NDArray[np.uint32]


def permutations(n_perm: int, seed: int) -> Permutations:
    """The n_perm permutations of uint32 that datasketch 2's scheme "affine32" draws from `seed`.

    Raises:
        ValueError: n_perm is less than 1, or the seed is none of NumPy's (0 <= seed < 2**32).
    """
    if n_perm < 1:
        raise ValueError(f"n_perm is {n_perm}: a signature has at least 1 value")
    # RandomState's stream is frozen (NEP 19), and it is the one datasketch draws from.
    random = np.random.RandomState(seed)
    multiplier = random.randint(0, 1 << 31, n_perm, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return Permutations(multiplier, random.randint(0, 1 << 32, n_perm, dtype=np.uint32))


def signatures(
    shingles: NDArray[np.uint32], offsets: NDArray[np.int64], permutations: Permutations
) -> NDArray[np.uint32]:
    """Signatures whose agreement estimates Jaccard similarity.

    Value k of a document is min over its shingles s of ``multiplier[k] * fmix(s) + shift[k] mod 2**32``,
    where fmix is MurmurHash3's finalizer.

    Args:
        shingles: uint32, (n_shingles,), the documents' shingle hashes one after another; repeats change
            nothing.
        offsets: int64, (n_docs + 1,), document d is shingles[offsets[d]:offsets[d + 1]].
        permutations: as `permutations` draws them.
    Returns:
        uint32, (n_docs, n_perm); `EMPTY` throughout for a document without shingles. Standard error of the
        estimate is at most 0.5 / sqrt(n_perm).
    Source: Broder 1997; permutations with odd multipliers modulo 2**32, bit for bit those of datasketch 2.0
        "affine32": not min-wise independent, so the error bound is checked in tests/kernels/test_minhash.py,
        not proven.
    """
    return _signatures(shingles, offsets, *permutations)


def signatures_reference(
    shingles: NDArray[np.uint32], offsets: NDArray[np.int64], permutations: Permutations
) -> NDArray[np.uint32]:
    """`signatures` in numpy."""
    mixed = _fmix_reference(shingles)
    found = np.full((len(offsets) - 1, len(permutations.multiplier)), EMPTY)
    for d in range(len(found)):
        document = mixed[offsets[d] : offsets[d + 1], None]  # (n_shingles, 1)
        if len(document):
            found[d] = (permutations.multiplier * document + permutations.shift).min(axis=0)
    return found


def _fmix_reference(h: NDArray[np.uint32]) -> NDArray[np.uint32]:
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return h ^ (h >> np.uint32(16))


@kernel
def _signatures(
    shingles: NDArray[np.uint32],
    offsets: NDArray[np.int64],
    multiplier: NDArray[np.uint32],
    shift: NDArray[np.uint32],
) -> NDArray[np.uint32]:
    found = np.empty((len(offsets) - 1, len(multiplier)), np.uint32)
    mixed = np.empty(len(shingles), np.uint32)
    for i in range(len(shingles)):
        # numba multiplies uint32 as uint64: each product is cut back by hand.
        h = shingles[i]
        h = np.uint32((h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B))
        h = np.uint32((h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35))
        mixed[i] = h ^ (h >> np.uint32(16))
    for d in range(len(found)):
        document = mixed[offsets[d] : offsets[d + 1]]
        for k in range(len(multiplier)):
            a, b, lowest = multiplier[k], shift[k], EMPTY
            for h in document:
                lowest = min(lowest, np.uint32(a * h + b))
            found[d, k] = lowest
    return found


def band_keys(signatures: NDArray[np.uint32], n_bands: int) -> NDArray[np.uint64]:
    """One key per band: two documents share the key of a band when they agree on all of the band's values.

    The band's number is part of the key, so all bands share one key space. Different values share a key by
    chance with probability 2**-64.

    Args:
        signatures: uint32, (n_docs, n_bands * rows_per_band).
        n_bands: how many equal bands to cut a signature into.
    Returns:
        uint64, (n_docs, n_bands).
    Raises:
        ValueError: the signatures do not divide into n_bands.
    """
    _check_bands(signatures, n_bands)
    return _band_keys(signatures, n_bands)


def band_keys_reference(signatures: NDArray[np.uint32], n_bands: int) -> NDArray[np.uint64]:
    """`band_keys` in plain Python."""
    _check_bands(signatures, n_bands)
    keys = np.empty((len(signatures), n_bands), np.uint64)
    for d, signature in enumerate(signatures):
        for band, values in enumerate(signature.reshape(n_bands, -1)):
            key = band
            for value in values:
                key = avalanche_reference((key * int(_K) + int(value)) & _MASK)
            keys[d, band] = key
    return keys


def _check_bands(signatures: NDArray[np.uint32], n_bands: int) -> None:
    n_perm = signatures.shape[1]
    if n_bands < 1 or n_perm % n_bands:
        raise ValueError(f"n_bands is {n_bands}: it must divide the {n_perm} values of a signature")


@kernel
def _band_keys(signatures: NDArray[np.uint32], n_bands: int) -> NDArray[np.uint64]:
    n_docs, n_perm = signatures.shape
    rows_per_band = n_perm // n_bands
    keys = np.empty((n_docs, n_bands), np.uint64)
    for d in range(n_docs):
        for band in range(n_bands):
            key = np.uint64(band)
            for k in range(band * rows_per_band, (band + 1) * rows_per_band):
                key = avalanche(key * _K + np.uint64(signatures[d, k]))
            keys[d, band] = key
    return keys

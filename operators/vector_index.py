"""Nearest vectors by faiss, an optional package, with the answers of our own kernels.

Vectors are integers whose dot products float32 holds exactly (kernels/embedding.py), so a flat index of faiss
finds the same products in any order of summation; ties are settled here, for the first of equals. faiss pays
where many vectors are compared with many: see "faiss" in README.md for the figures.
"""

from functools import partial
from importlib.util import find_spec
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ..kernels.embedding import near_kept, nearest
from .files import check_installed

Vectors = NDArray[np.int16]
Ints = NDArray[np.int64]
Index = Literal["auto", "exact", "faiss"]

FAISS_PAYS = 1024
"""Vectors to compare with from which `auto` takes faiss: it is twice as fast as the kernel there."""
_BATCH = 1 << 14
_BLOCK = 1024  # vectors that are compared with one another by the kernel


class Search(Protocol):
    """What `nearest` does."""

    def __call__(self, vectors: Vectors, centroids: Vectors, prices: Ints | None = None) -> tuple[Ints, Ints]:
        """See `kernels.embedding.nearest`."""
        ...


def search_by(index: Index) -> Search:
    """`nearest` by the kernel or by faiss, the same answers."""
    return nearest if index == "exact" else partial(_search, index)


def check_index(index: Index) -> None:
    """Raises:
    ValueError: faiss is asked for and not installed.
    """
    if index == "faiss":
        check_installed("faiss", "faiss")


def _search(
    index: Index, vectors: Vectors, centroids: Vectors, prices: Ints | None = None
) -> tuple[Ints, Ints]:
    is_priced = prices is not None and bool(prices.any())  # a product less a price is no dot product
    if is_priced or not _takes_faiss(index, len(centroids)):
        return nearest(vectors, centroids, prices)
    return nearest_by_faiss(vectors, centroids)


def _takes_faiss(index: Index, n: int) -> bool:
    return index == "faiss" or (index == "auto" and n >= FAISS_PAYS and find_spec("faiss") is not None)


def nearest_by_faiss(vectors: Vectors, centroids: Vectors) -> tuple[Ints, Ints]:
    """`nearest` without prices by faiss' flat index, on all its GPUs if it sees any."""
    which, best = np.zeros((2, len(vectors)), np.int64)
    flat = _flat(centroids.shape[1])
    with threadpool_limits(1):
        flat.add(centroids.astype(np.float32))
        for start in range(0, len(vectors), _BATCH):
            batch = slice(start, start + _BATCH)
            which[batch], best[batch] = _first_of_equals(flat, vectors[batch], centroids)
    return which, best


def near_kept_by(index: Index, vectors: Vectors, least: int) -> tuple[Ints, Ints]:
    """`near_kept` by the kernel or by faiss; by faiss, of a vector that is kept the nearest one is not told.

    The kept ones so far lie in a flat index that a block of vectors is looked up in; within the block the
    kernel compares. So n duplicates of one vector take one row of the index, and no list of pairs.
    """
    if not _takes_faiss(index, len(vectors)):
        return near_kept(vectors, least)
    which, best = np.full(len(vectors), -1), np.full(len(vectors), least)
    kept = np.empty(0, np.int64)
    flat = _flat(vectors.shape[1])
    with threadpool_limits(1):
        for start in range(0, len(vectors), _BLOCK):
            block = np.arange(start, min(start + _BLOCK, len(vectors)))
            if len(kept):
                found, product = _first_of_equals(flat, vectors[block], vectors[kept])
                goes = product > least
                which[block[goes]], best[block[goes]] = kept[found[goes]], product[goes]
            new = _kept_in_block(vectors, block, which, best, least)
            flat.add(vectors[new].astype(np.float32))
            kept = np.concatenate([kept, new])
    return which, best


def _kept_in_block(vectors: Vectors, block: Ints, which: Ints, best: Ints, least: int) -> Ints:
    """Compares a block's vectors with one another, in `which` and `best`; returns those that are kept."""
    rest, gone = block[which[block] < 0], block[which[block] >= 0]
    found, product = near_kept(vectors[rest], least)
    above = product > least
    which[rest[above]], best[rest[above]] = rest[found[above]], product[above]
    new = rest[~above]
    if len(new) and len(gone):
        products = (vectors[gone].astype(np.float32) @ vectors[new].astype(np.float32).T).astype(np.int64)
        products[new[None] > gone[:, None]] = least
        nearer = products.argmax(axis=1)
        product = products[np.arange(len(gone)), nearer]
        better = product > best[gone]
        which[gone[better]], best[gone[better]] = new[nearer[better]], product[better]
    return new


def _flat(d: int) -> Any:
    import faiss

    flat = faiss.IndexFlatIP(d)
    n_gpus = faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0
    return faiss.index_cpu_to_all_gpus(flat) if n_gpus else flat


def _first_of_equals(flat: Any, vectors: Vectors, indexed: Vectors) -> tuple[Ints, Ints]:
    products, found = flat.search(vectors.astype(np.float32), min(2, len(indexed)))
    which, best = found[:, 0].astype(np.int64), products[:, 0].astype(np.int64)
    tied = np.flatnonzero(products[:, 0] == products[:, -1]) if len(indexed) > 1 else which[:0]
    if len(tied):
        which[tied], best[tied] = nearest(vectors[tied], indexed)
    return which, best

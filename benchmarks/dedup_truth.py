"""Every pair of documents with its true Jaccard similarity, by brute force, as judge of removals."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

LEAST = 0.3
"""Pairs below this similarity are not listed."""


@dataclass(frozen=True)
class Pairs:
    """Documents a < b and their similarity, each (n_pairs,)."""

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    similarity: NDArray[np.float64]

    def at(self, threshold: float) -> "Pairs":
        """The pairs at `threshold` or more."""
        similar = self.similarity >= threshold
        return Pairs(self.a[similar], self.b[similar], self.similarity[similar])

    def disjoint(self) -> "Pairs":
        """Pairs of which no two share a document, taken in a random order: independent, or nearly so."""
        order = np.random.default_rng(0).permutation(len(self.a))
        taken: set[int] = set()
        chosen = []
        for i in order.tolist():
            pair = {int(self.a[i]), int(self.b[i])}
            if not pair & taken:
                taken |= pair
                chosen.append(i)
        return Pairs(self.a[chosen], self.b[chosen], self.similarity[chosen])


def true_pairs(texts: Sequence[str], n: int = 5) -> Pairs:
    """All pairs of texts by the sets of their n-grams of words (``\\w+`` of the text in lowercase)."""
    numbers: dict[tuple[str, ...], int] = {}
    columns: list[int] = []
    bounds = [0]
    for text in texts:
        words = re.findall(r"\w+", text.lower())
        shingles = {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}
        columns += [numbers.setdefault(shingle, len(numbers)) for shingle in shingles]
        bounds.append(len(columns))
    return pairs_of_sets(np.array(columns), np.array(bounds))


def pairs_of_sets(columns: NDArray[np.int64], bounds: NDArray[np.int64], block: int = 512) -> Pairs:
    """All pairs of sets: set d holds the numbers columns[bounds[d]:bounds[d + 1]], each once."""
    n_sets = len(bounds) - 1
    ones = np.ones(len(columns), dtype=np.int32)
    sets = scipy.sparse.csr_matrix((ones, columns, bounds), shape=(n_sets, int(columns.max()) + 1))
    sizes = np.diff(bounds)
    found = []
    for start in range(0, n_sets, block):
        shared = (sets[start : start + block] @ sets.T).tocoo()
        left = shared.row + start
        similarity = shared.data / (sizes[left] + sizes[shared.col] - shared.data)
        listed = (similarity >= LEAST) & (left < shared.col)
        found.append((left[listed], shared.col[listed], similarity[listed]))
    a, b, similarity = map(np.concatenate, zip(*found, strict=True))
    order = np.lexsort((b, a))
    return Pairs(a[order], b[order], similarity[order])


def judge(pairs: Pairs, kept: NDArray[np.bool_], threshold: float) -> dict[str, float]:
    """What a removal is worth at a threshold.

    recall: share of the true pairs of which at least one document is gone. precision: share of the removed
    documents that have a kept one at the threshold.
    """
    true = pairs.at(threshold)
    n_both_kept = int((kept[true.a] & kept[true.b]).sum())
    justified = np.zeros(len(kept), dtype=bool)
    justified[true.b[kept[true.a]]] = True
    justified[true.a[kept[true.b]]] = True
    n_removed, n_justified = int((~kept).sum()), int((justified & ~kept).sum())
    return {
        "recall": round(1 - n_both_kept / max(1, len(true.a)), 5),
        "precision": round(n_justified / max(1, n_removed), 5),
        "n_pairs": len(true.a),
        "n_both_kept": n_both_kept,
        "n_removed": n_removed,
        "n_justified": n_justified,
    }

"""Batches of few topics: rows that are like each other, chosen together."""

from typing import Literal, get_args

import numpy as np

from ..kernels.embedding import to_unit
from ..kernels.kmeans import spherical_kmeans
from .selection import Candidates, Floats, Ints, Selector

Form = Literal["tas", "ngame"]
MAX_ROUNDS = 20
"""Of a balanced split in two; it settles in a few."""


class Topic(Selector):
    """Rows of a few topics of the super-batch, so that what is alike is learnt side by side.

    Topics are clusters of the features by cosine. "tas" makes n / `rows` of them, draws topics by chance (a
    larger one the rather) and takes `rows` rows of each by chance until k are found. "ngame" splits the
    candidates in two equal halves, each of these again, and so on down to `rows` rows, and takes whole
    clusters by chance; the last is cut.

    One topic for a whole batch makes its gradients say the same: keep `rows` well below k.

    Args:
        form: "tas" or "ngame".
        rows: of a topic in the batch.
        double_every: "ngame" begins with rows of 1, any rows at all, and doubles them every so many
            selections up to `rows`; 0 begins with `rows`.
    Source: Hofstätter et al. 2021, "Efficiently teaching an effective dense retriever with balanced topic
        aware sampling" (arXiv 2104.06967), section 3.2, without its balance over margins, which language
        modelling has none of; Dahiya et al. 2023, "NGAME: negative mining-aware mini-batching for extreme
        classification" (arXiv 2207.04452), section 3, with its schedule of cluster sizes. Both cluster the
        data set; here each super-batch is, by features that are never out of date.
    """

    needs = frozenset({"features"})

    def __init__(self, *, form: Form = "tas", rows: int = 8, double_every: int = 0) -> None:
        super().__init__()
        if form not in get_args(Form) or rows < 1 or double_every < 0:
            raise ValueError(
                f"form, rows and double_every are {form!r}, {rows}, {double_every}; allowed are "
                f"{get_args(Form)}, 1 or more, 0 or more"
            )
        self.form, self.rows, self.double_every = form, rows, double_every

    def _select(self, candidates: Candidates, k: int, random: np.random.Generator) -> tuple[Ints, Floats]:
        assert candidates.features is not None
        rows = self.rows
        if self.form == "ngame":
            if self.double_every:
                rows = min(rows, 1 << min(self.n_selections // self.double_every, 62))
            which = halved(candidates.features.astype(np.float64), rows, random)
        else:
            n_clusters = max(1, candidates.sources.size // rows)
            which = spherical_kmeans(to_unit(candidates.features), n_clusters, random).which
        # Rows in random order; a topic's turns, of `rows` rows each, come in random order as well. So a
        # topic of many rows has more turns, and each row the same chance.
        shuffled = random.permutation(which.size)
        of = which[shuffled]
        by_topic = np.argsort(of, kind="stable")
        starts = np.searchsorted(of[by_topic], of[by_topic])
        turn = (np.arange(which.size) - starts) // rows
        names, turns = np.unique(np.stack([of[by_topic], turn]), axis=1, return_inverse=True)
        rank = random.permutation(names.shape[1])[turns.ravel()]
        return shuffled[by_topic[np.argsort(rank, kind="stable")[:k]]], np.ones(k)


def halved(features: Floats, rows: int, random: np.random.Generator) -> Ints:
    """int64, (n,): the cluster of each row, of `rows` rows at most, by halving along the line of two means.

    The two halves differ by one row at most. Rows of zeros are anyone's.
    """
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.where(lengths > 0, lengths, 1)
    which, n_clusters = np.zeros(len(unit), np.int64), 0
    waiting = [np.arange(len(unit))]
    while waiting:
        own = waiting.pop()
        if own.size <= rows:
            which[own], n_clusters = n_clusters, n_clusters + 1
            continue
        waiting += _halves(unit, own, random)
    return which


def _halves(unit: Floats, own: Ints, random: np.random.Generator) -> list[Ints]:
    half = own.size // 2
    a, b = random.choice(own, 2, replace=False)
    towards = unit[a] - unit[b]
    before = np.empty(0, np.int64)
    for _ in range(MAX_ROUNDS):
        first = np.sort(own[np.argsort(-(unit[own] @ towards), kind="stable")[:half]])
        if np.array_equal(first, before):
            break
        before, second = first, np.setdiff1d(own, first, assume_unique=True)
        towards = unit[first].mean(axis=0) - unit[second].mean(axis=0)
    return [before, np.setdiff1d(own, before, assume_unique=True)]

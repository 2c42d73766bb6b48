"""Selectors that remember rows from epoch to epoch, or change with the run."""

import numpy as np

from ..kernels.line_medoids import line_medoids
from .selection import Candidates, Floats, Ints, RowTable, Selector, filled

FULL_AT_END = 0.125
"""Share of a run, its last, in which InfoBatch and SeTa leave nothing out by loss (both papers' delta)."""


class Rs2(Selector):
    """The rows that were chosen least often so far, by chance among equals.

    So a super-batch that comes again is used up before any of its rows is used twice: repeated sampling
    without replacement, across epochs.

    Args:
        table_size: rows whose number of choices is remembered; a row that is forgotten counts as new.
    Source: Okanovic et al. 2023, "Repeated random sampling for minimizing the time-to-accuracy of learning"
        (arXiv 2305.18424), section 3, RS2 without replacement. There the whole data set is dealt out; here
        each super-batch is, as it comes: the two are the same where super-batches are the same every epoch.
        Its learning-rate schedule is the trainer's.
    """

    needs = frozenset({"row_ids"})
    state = ("n_chosen",)

    def __init__(self, *, table_size: int = 1 << 16) -> None:
        super().__init__()
        self.n_chosen = RowTable(table_size)

    def _select(self, candidates: Candidates, k: int, random: np.random.Generator) -> tuple[Ints, Floats]:
        assert candidates.row_ids is not None
        times = np.nan_to_num(self.n_chosen.get(candidates.row_ids), nan=0.0)
        rows = np.lexsort((random.random(times.size), times))[:k]
        self.n_chosen.put(candidates.row_ids[rows], times[rows] + 1)
        return rows, np.ones(k)


class InfoBatch(Selector):
    """Rows below the mean loss come less often, and weigh the more: in expectation nothing is left out.

    A row's loss is the last one that is known of it: of this step if the candidates have losses, else from
    when it was trained on (`observe`), else its source's mean. Rows below the candidates' mean are chosen
    with (1 - ratio) of the others' probability, or less where k asks for it; within a side all alike. A row
    that is chosen with probability p weighs k / (n p), so that the weighted mean over the k rows is unbiased
    for the mean over the n; weights have mean one in expectation.

    Args:
        ratio: r, in [0, 1).
        n_total: selections of the run, in whose last eighth all rows come alike; 0: of a run without an end.
        table_size: rows whose loss is remembered.
    Source: Qin et al. 2023, "InfoBatch" (arXiv 2303.04947), section 3.2: prune below the mean with r, rescale
        by 1 / (1 - r), all data from 0.875 of the run on. It departs in choosing a fixed k of each
        super-batch (the paper's epochs have no fixed size) with probabilities that are exact for it, in the
        mean over the candidates, and in rows without a loss, which the code gives a loss of 3.
    """

    needs = frozenset({"row_ids"})
    state = ("losses",)

    def __init__(self, *, ratio: float = 0.5, n_total: int = 0, table_size: int = 1 << 16) -> None:
        super().__init__()
        if not 0 <= ratio < 1 or n_total < 0:
            raise ValueError(f"ratio and n_total are {ratio}, {n_total}; they lie in [0, 1) and [0, inf)")
        self.ratio, self.n_total, self.losses = ratio, n_total, RowTable(table_size)

    def observe(self, trained: Candidates) -> None:
        if trained.losses is not None and trained.row_ids is not None:
            losses = np.where(np.isfinite(trained.losses), trained.losses, np.nan)
            self.losses.put(trained.row_ids, losses)

    def _select(self, candidates: Candidates, k: int, random: np.random.Generator) -> tuple[Ints, Floats]:
        assert candidates.row_ids is not None
        self.observe(candidates)
        losses = self.losses.get(candidates.row_ids).astype(np.float64)
        chances = self._chances(filled(losses, candidates.sources), k)
        rows = exact_draw(chances, random)
        return rows, k / (losses.size * chances[rows])

    def _chances(self, losses: Floats, k: int) -> Floats:
        """float64, (n,), summing to k: one for the rows below the mean, one for the others."""
        n, is_low = losses.size, losses < losses.mean()
        n_low = int(is_low.sum())
        if is_at_end(self.n_selections, self.n_total) or not n_low:
            return np.full(n, k / n)
        high = min(1.0, k / (n - n_low + (1 - self.ratio) * n_low))
        return np.where(is_low, (k - (n - n_low) * high) / n_low, high)


class SeTa(Selector):
    """Rows whose loss lies in a window that slides from the easy to the hard, again and again.

    A share of the candidates is left out by chance; the others fall into groups by loss, as k-medoids on a
    line, the easiest first; rows come by chance from the groups of the window, and from the nearest groups
    beside it where the window has fewer than k. The window begins at the easiest group and moves up one group
    every `period` selections, then begins again.

    Args:
        ratio: of candidates left out by chance, in [0, 1); no more than leave k.
        n_groups: G.
        scale: of the groups, the share in the window, in (0, 1].
        period: selections between two moves; 0 moves at each.
        n_total: selections of the run, in whose last eighth the window is everything; 0: no end.
    Source: Zhou et al. 2025, "Scale efficient training for large datasets" (SeTa, arXiv 2503.13385), section
        3, and its released code. It departs in choosing k of each super-batch where the code prunes an epoch,
        so the window moves by selections instead of epochs; and in exact medoids for k-means. Not unbiased,
        as there.
    """

    needs = frozenset({"losses"})

    def __init__(
        self,
        *,
        ratio: float = 0.1,
        n_groups: int = 5,
        scale: float = 0.6,
        period: int = 100,
        n_total: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= ratio < 1 or n_groups < 1 or not 0 < scale <= 1 or period < 0 or n_total < 0:
            raise ValueError(
                f"ratio, n_groups, scale, period and n_total are {ratio}, {n_groups}, {scale}, {period}, "
                f"{n_total}; they lie in [0, 1), [1, inf), (0, 1], [0, inf) and [0, inf)"
            )
        self.ratio, self.n_groups, self.scale, self.period = ratio, n_groups, scale, period
        self.n_total = n_total

    def _select(self, candidates: Candidates, k: int, random: np.random.Generator) -> tuple[Ints, Floats]:
        assert candidates.losses is not None
        losses = filled(candidates.losses, candidates.sources)
        n_kept = max(k, losses.size - int(self.ratio * losses.size))
        rows = random.choice(losses.size, n_kept, replace=False)
        if is_at_end(self.n_selections, self.n_total):
            return rows[:k], np.ones(k)
        groups = grouped(losses[rows], self.n_groups)
        first, width = self.window(int(groups.max()) + 1)
        beyond = np.maximum(np.maximum(first - groups, groups - (first + width - 1)), 0)
        return rows[np.lexsort((random.random(n_kept), beyond))[:k]], np.ones(k)

    def window(self, n_groups: int) -> tuple[int, int]:
        """First group and number of groups of the window at this selection."""
        width = min(max(round(n_groups * self.scale), 1), n_groups)
        return self.n_selections // max(self.period, 1) % (n_groups - width + 1), width


def is_at_end(n_selections: int, n_total: int) -> bool:
    """Whether a run of `n_total` selections (0: without an end) is in its last eighth."""
    return bool(n_total) and n_selections >= (1 - FULL_AT_END) * n_total


def grouped(values: Floats, n_groups: int) -> Ints:
    """int64, (n,): which of at most n_groups runs by rising value each is in, the runs of `line_medoids`."""
    n_groups = min(n_groups, values.size)
    _, sizes = line_medoids(values, n_groups)
    groups = np.empty(values.size, np.int64)
    groups[np.argsort(values, kind="stable")] = np.repeat(np.arange(n_groups), sizes)
    return groups


def exact_draw(chances: Floats, random: np.random.Generator) -> Ints:
    """Rows drawn each with its chance, as many as the chances sum to (a whole number).

    Rows in random order lie end to end on a line, each as long as its chance; one random point in each unit
    of length, at the same place in all, hits the rows.

    Source: Madow 1949, "On the theory of systematic sampling".
    """
    order = random.permutation(chances.size)
    ends = np.cumsum(chances[order])
    n_drawn = round(float(ends[-1]))
    ends *= n_drawn / ends[-1]
    points = np.arange(n_drawn) + random.random()
    return order[np.minimum(np.searchsorted(ends, points, side="right"), chances.size - 1)]

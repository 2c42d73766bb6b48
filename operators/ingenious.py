"""Documents that stand for many, drawn by how many."""

import numpy as np
from numpy.typing import NDArray

from ..kernels.facility_location import facility_location
from .partitioned import Float32s, Floats, PartitionedFilter, needed


class Ingenious(PartitionedFilter):
    """Keep a share of the documents, drawn with odds by what each adds to a selection that stands for all.

    Reads `cluster.vector`, so `cluster` stands above it. The corpus falls into random parts; in each,
    documents are chosen one after another so that the sum of every document's cosine to the nearest chosen
    one grows most (facility location). What a document added when its turn came, `ingenious.gain`, beside the
    part's greatest, x in [0, 1], gives its odds 1 + x + x**2 / 2, and documents are drawn by them without
    replacement: few that are like nothing chosen before, but not those alone. `ingenious.needs` is the
    smallest `keep_fraction` with which a document stays. A document without a vector stays.

    Source: Renduchintala et al. 2023, "INGENIOUS: using informative data subsets for efficient pre-training
    of language models" (arXiv 2305.06677), section 3 and algorithm 1, whose subset is a quarter. It departs
    in gains by the exact greedy choice for a sampled one (`part_documents` are few enough), in gains beside
    their greatest, since facility location's gains have the unit of a part's size, and in one choice before
    training, with vectors of the corpus instead of the model's in training.
    Cost: 2 bytes per dimension and 24 for each document to exchange; a part's documents squared to compare
    them.
    """

    name = "ingenious"
    reads = ("id", "cluster.vector")
    writes = ("ingenious.gain", "ingenious.needs")

    def choose(self, similarity: Float32s, luck: Floats) -> dict[str, NDArray[np.generic]]:
        """`gain` in documents, and `needs`."""
        n = len(similarity)
        chosen = facility_location(similarity, n)
        gains = np.empty(n)
        gains[chosen.indices] = chosen.gains
        x = gains / max(float(gains.max()), 1e-300)
        # The least of exponential waiting times comes first with odds by rate (Efraimidis and Spirakis 2006).
        waits = -np.log1p(-luck) / (1 + x + x**2 / 2)
        return {"gain": gains, "needs": needed(np.argsort(waits, kind="stable"))}

"""Bins of documents, each of which stands for what is left, and a sample of each bin."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from ..kernels.facility_location import facility_location
from .partitioned import Float32s, Floats, PartitionedFilter


class DatasetQuantization(PartitionedFilter):
    """Keep a share of each of some bins of documents: from those that stand for many to the odd ones out.

    Reads `cluster.vector`, so `cluster` stands above it. The corpus falls into random parts. Of each part a
    bin of 1 / `bins` of the documents is chosen that covers the part best (the sum of every document's cosine
    to the nearest chosen one, greedily), then a bin of the rest that covers the rest best, and so on; then
    the share `keep_fraction` of each bin is drawn. A choice of what covers best would be the first bin alone,
    which is of little variety. `dataset_quantization.bin` counts from 0; `dataset_quantization.needs` is the
    smallest `keep_fraction` with which a document stays. A document without a vector stays.

    Source: Zhou et al. 2023, "Dataset quantization" (arXiv 2308.10524), section 3.2, with 10 bins. It departs
    in facility location for the gain, which there is a graph cut (near the chosen, far from the rest), in
    random parts, and in leaving documents whole, where there parts of images are dropped.
    Cost: 2 bytes per dimension and 24 for each document to exchange; `bins` choices in each part, whose
    documents squared are compared.
    """

    name = "dataset_quantization"
    reads = ("id", "cluster.vector")
    writes = ("dataset_quantization.bin", "dataset_quantization.needs")
    types = {"bin": pa.int64()}

    bins: int = Field(10, ge=1, le=1000, description="of each part, of the same number of documents")

    def choose(self, similarity: Float32s, luck: Floats) -> dict[str, NDArray[np.generic]]:
        """`bin`, int64, and `needs`."""
        n = len(similarity)
        left, which, needs = np.arange(n), np.zeros(n, np.int64), np.empty(n)
        ends = (np.arange(1, self.bins + 1) * n) // self.bins
        for number, size in enumerate(np.diff(ends, prepend=0)):
            if not size:
                continue
            chosen = left[facility_location(similarity[np.ix_(left, left)], int(size)).indices]
            which[chosen] = number
            # Evenly within the bin from a random place on: so small bins keep their share on average.
            order = chosen[np.argsort(luck[chosen], kind="stable")]
            needs[order] = (np.arange(size) + luck[chosen].sum() % 1) / size
            left = np.setdiff1d(left, chosen, assume_unique=True)
        return {"bin": which, "needs": needs}

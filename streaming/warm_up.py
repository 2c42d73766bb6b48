"""The loader's kernels, loaded in the background: until then numpy does their work, to the same batches."""

from typing import Any

import numpy as np

from ..kernels.apportion import ROW, apportion
from ..kernels.bin_packing import best_fit_decreasing
from ..kernels.domain_sums import domain_sums
from ..kernels.gather import RowArrays, gather
from ..kernels.jit import InBackground
from ..kernels.permutation import permute
from ..kernels.segments import document_spans, split
from ..kernels.token_stream import TokenStream


def _load() -> None:
    """Call each kernel with the types that the loader calls it with."""
    one = np.zeros(1, np.int64)
    permute(one, 1, 0)
    apportion(np.array([ROW]), one, 1, one + 1)
    best_fit_decreasing(one + 1, 1)
    split(one, one + 1, 1)
    domain_sums(one, np.zeros(1), one + 1, 1, unit=1, largest=1.0)
    dtypes: tuple[Any, ...] = (np.uint16, np.uint32)
    for dtype in dtypes:
        stream = TokenStream([np.frombuffer(bytes(8), dtype)])
        document_spans(stream, one)
        for wanted in (True, False):
            positions = np.zeros((1, 1) if wanted else (0, 0), np.int64)
            rows = RowArrays(
                np.zeros((1, 1), np.int64), np.zeros((1, 1), np.int64), positions, np.zeros(2, np.int32)
            )
            gather(stream, one, one, one + 1, rows, pad_id=0, mask_boundaries=wanted)
        rows = rows._replace(cu_seqlens=np.zeros(0, np.int32))
        gather(TokenStream([np.zeros(2, dtype)]), one, one, one + 1, rows, pad_id=0, mask_boundaries=True)


kernels = InBackground(_load)

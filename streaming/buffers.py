"""Memory for batches, used again when the trainer has let go of it."""

import math
import weakref

import numpy as np
from numpy.typing import NDArray


class Buffers:
    """int64 arrays of one shape; memory is lent again only when nothing made of it is left.

    Fresh memory costs a page fault for every 4 KiB: from a few MiB on that is more than the gathering itself.

    Args:
        shape: of the arrays.
        n_kept: arrays whose memory is kept for lending again.
        pinned: take page-locked memory. torch lends it, and lends it again only when the copies to a device
            that read it are done, which a weak reference here could not know.

    >>> buffers = Buffers((2, 3), n_kept=6)
    >>> first, second = buffers.take(), buffers.take()
    >>> address, row = first.ctypes.data, first[1]
    >>> del first
    >>> buffers.take().ctypes.data == address  # the row still holds it
    False
    >>> del row
    >>> buffers.take().ctypes.data == address
    True
    """

    def __init__(self, shape: tuple[int, ...], n_kept: int, *, pinned: bool = False) -> None:
        self._shape, self._n_kept, self._pinned = shape, n_kept, pinned
        self._memory: list[bytearray] = []
        self._borrowers: list[weakref.ref[NDArray[np.int64]]] = []

    def take(self) -> NDArray[np.int64]:
        """An array with any contents: int64, of the shape."""
        if self._pinned:
            import torch

            pinned: NDArray[np.int64] = torch.empty(self._shape, dtype=torch.int64, pin_memory=True).numpy()
            return pinned
        for k, borrower in enumerate(self._borrowers):
            if borrower() is None:
                array = self._over(self._memory[k])
                self._borrowers[k] = weakref.ref(array)
                return array
        memory = bytearray(8 * math.prod(self._shape))
        array = self._over(memory)
        if len(self._memory) < self._n_kept:
            self._memory.append(memory)
            self._borrowers.append(weakref.ref(array))
        return array

    def _over(self, memory: bytearray) -> NDArray[np.int64]:
        # Views of views refer to the first array over memory that is not numpy's own: it lives as long as any
        # slice of it, or any tensor that was made of one.
        return np.ndarray(self._shape, np.int64, memory)

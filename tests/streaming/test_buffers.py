import numpy as np
import torch

from cuvee.streaming.buffers import Buffers

N_KEPT = 6


def test_arrays_that_are_held_are_never_lent_twice() -> None:
    buffers = Buffers((2, 3), N_KEPT)
    held = [buffers.take() for _ in range(3 * N_KEPT)]
    for value, array in enumerate(held):
        array[:] = value
    assert [int(array[1, 2]) for array in held] == list(range(3 * N_KEPT))


def test_a_slice_of_a_tensor_holds_its_memory_and_lets_go_of_it() -> None:
    buffers = Buffers((2, 3), N_KEPT)
    array = buffers.take()
    address = array.ctypes.data
    row = torch.from_numpy(array)[1].numpy()[1:]
    del array
    others = [buffers.take() for _ in range(N_KEPT)]
    assert not any(np.shares_memory(row, other) for other in others)
    del row, others
    assert address in [array.ctypes.data for array in [buffers.take() for _ in range(N_KEPT)]]

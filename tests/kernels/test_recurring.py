import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from cuvee.kernels.recurring import recurring, recurring_reference

KEYS = st.lists(st.integers(0, 5) | st.integers(0, 2**64 - 1) | st.integers(0, 5).map(lambda i: i << 60))


@given(keys=KEYS)
def test_keys_that_recur_agree_with_sorting(keys):
    keys = np.array(keys, np.uint64)
    np.testing.assert_array_equal(recurring(keys), recurring_reference(keys))

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from cuvee.kernels.hashing import avalanche, avalanche_reference, hash_ranges, hash_ranges_reference

SEEDS = st.sampled_from([0, 1, 2**63, 2**64 - 1])


@given(st.lists(st.binary(max_size=100), max_size=5), SEEDS)
def test_kernel_and_reference_agree_on_every_range(ranges, seed):
    data = np.frombuffer(b"".join(ranges), np.uint8)
    offsets = np.cumsum([0, *map(len, ranges)], dtype=np.int64)
    np.testing.assert_array_equal(
        hash_ranges(data, offsets, seed), hash_ranges_reference(data, offsets, seed)
    )


def test_hashes_are_those_that_the_authors_of_xxh64_publish():
    # xxHash's self-test: bytes of a generator with PRIME32 2654435761, seeds 0 and PRIME32.
    state, sanity = 2654435761, []
    for _ in range(222):
        sanity.append(state >> 56)
        state = state * 11400714785074694797 % 2**64
    expected = {
        (0, 0): 0xEF46DB3751D8E999,
        (0, 2654435761): 0xAC75FDA2929B17EF,
        (1, 0): 0xE934A84ADB052768,
        (1, 2654435761): 0x5014607643A9B4C3,
        (4, 0): 0x9136A0DCA57457EE,
        (14, 0): 0x8282DCC4994E35C8,
        (14, 2654435761): 0xC3BD6BF63DEB6DF0,
        (222, 0): 0xB641AE8CB691C174,
        (222, 2654435761): 0x20CB8AB7AE10C14A,
    }
    data = np.array(sanity, np.uint8)
    for (length, seed), value in expected.items():
        assert int(hash_ranges(data, np.array([0, length]), seed)[0]) == value


@given(st.integers(0, 2**64 - 1), st.integers(0, 63))
def test_one_bit_of_input_flips_about_half_of_the_output(value, bit):
    a, b = avalanche_reference(value), avalanche_reference(value ^ 1 << bit)
    assert a == int(avalanche(np.uint64(value)))
    assert 4 <= (a ^ b).bit_count() <= 60  # 7 standard deviations of Binomial(64, 1/2)


def test_an_empty_column_has_no_hashes():
    assert len(hash_ranges(np.empty(0, np.uint8), np.zeros(1, np.int64))) == 0

import sys
import unicodedata

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from cuvee.kernels.unicode_tables import (
    MARK,
    SPACE,
    UNSPACED,
    WORD,
    decode,
    entry,
    flags_reference,
    lower_reference,
    unicode_tables,
)

TABLES = unicode_tables()


def test_the_tables_hold_what_python_says_of_every_assigned_character():
    codes = [
        code
        for code in range(sys.maxunicode + 1)
        if unicodedata.category(chr(code)) not in {"Cn", "Co", "Cs"}
    ]
    at = np.array([entry(TABLES.page, code) for code in codes])
    letters = list(map(chr, codes))
    np.testing.assert_array_equal(TABLES.flags[at], list(map(flags_reference, letters)))
    np.testing.assert_array_equal(
        codes + TABLES.lower[at], [ord(lower_reference(letter)) for letter in letters]
    )


def test_unassigned_characters_have_no_class_outside_the_blocks_of_mixed_ones():
    assert not any(flags_reference(chr(code)) & (SPACE | WORD) for code in range(0x40000, 0xE0000, 251))
    assert TABLES.flags[entry(TABLES.page, 0x50000)] == 0


def test_the_first_block_can_be_read_by_byte():
    assert [entry(TABLES.page, code) for code in range(256)] == list(range(256))


def test_every_code_point_survives_utf8():
    for code in [*range(0xD800), *range(0xE000, sys.maxunicode + 1, 13)]:
        text = np.frombuffer(chr(code).encode(), np.uint8)
        assert decode(text, 0) == (code, len(text))


@given(
    st.lists(
        st.sampled_from(
            [
                0x00,
                0x41,
                0x80,
                0x8F,
                0x90,
                0x9F,
                0xA0,
                0xBF,
                0xC0,
                0xC2,
                0xE0,
                0xE1,
                0xED,
                0xF0,
                0xF1,
                0xF4,
                0xF5,
            ]
        )
    )
)
def test_broken_utf8_reads_as_python_replaces_it(values):
    text = np.array(values, np.uint8)
    codes, i = [], 0
    while i < len(text):
        code, i = decode(text, i)
        codes.append(chr(code))
    assert "".join(codes) == bytes(values).decode("utf-8", "replace")


def test_letters_of_unspaced_scripts_stand_alone_and_their_marks_do_not():
    kinds = {character: flags_reference(character) for character in "東ตกa한ā้\u0301٣๓"}
    assert [character for character, flags in kinds.items() if flags & UNSPACED] == ["東", "ต", "ก"]
    assert [character for character, flags in kinds.items() if flags & MARK] == ["้", "\u0301"]

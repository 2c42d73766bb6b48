"""What the counting rules must know of a word without looking at its characters again: flags."""

from .jit import inlined
from .word_classes import ALNUM, ALPHA, PUNCT, SYMBOL, TERMINAL, word_class_reference

ALPHABETIC = 1  # at least one code point is alphabetic
SYMBOLIC = 2  # every code point is punctuation or control, as datatrove lists them
ALNUM_FIRST = 4  # begins with a letter or a number
PUNCTUATION = 8  # every code point is of general category P
ENDS_SENTENCE = 16  # is one mark that ends sentences


def kinds_reference(word: str) -> int:
    """The flags of one word.

    >>> kinds_reference("...") == SYMBOLIC | PUNCTUATION
    True
    """
    entries = list(map(word_class_reference, word))
    kinds = ALPHABETIC if any(e & ALPHA for e in entries) else 0
    kinds |= SYMBOLIC if all(e & SYMBOL for e in entries) else 0
    kinds |= ALNUM_FIRST if entries[0] & ALNUM else 0
    kinds |= PUNCTUATION if all(e & PUNCT for e in entries) else 0
    return kinds | (ENDS_SENTENCE if len(word) == 1 and entries[0] & TERMINAL else 0)


@inlined
def kinds_of(first: int, any_of: int, all_of: int, n_characters: int) -> int:
    """The flags of a word: of its first entry in the table, of all or-ed, all and-ed, and of its length."""
    kinds = ALPHABETIC if any_of & ALPHA else 0
    kinds |= SYMBOLIC if all_of & SYMBOL else 0
    kinds |= ALNUM_FIRST if first & ALNUM else 0
    kinds |= PUNCTUATION if all_of & PUNCT else 0
    return kinds | (ENDS_SENTENCE if n_characters == 1 and first & TERMINAL else 0)

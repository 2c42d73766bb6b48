"""Cutting passages out of a text, with what stands around them."""

from collections.abc import Iterable
from typing import NamedTuple


class CutText(NamedTuple):
    """What is left of a text: its pieces, joined by newlines."""

    text: str
    n_cuts: int
    n_pieces: int


def cut_windows(
    text: str, spans: Iterable[tuple[int, int]], n_around: int, min_piece_characters: int
) -> CutText:
    """`text` without `spans` (begin, end) and up to `n_around` characters on either side of each.

    Windows that overlap or touch are one cut. Pieces between cuts of fewer than `min_piece_characters` go,
    too. A text without spans is one piece, whatever its length.

    >>> cut_windows("abcdefghij", [(4, 5)], n_around=1, min_piece_characters=2)
    CutText(text='abc\\nghij', n_cuts=1, n_pieces=2)
    """
    cuts: list[list[int]] = []
    for begin, end in sorted(spans):
        begin, end = max(0, begin - n_around), min(len(text), end + n_around)
        if cuts and begin <= cuts[-1][1]:
            cuts[-1][1] = max(cuts[-1][1], end)
        else:
            cuts.append([begin, end])
    if not cuts:
        return CutText(text, 0, 1)
    begins, ends = [0, *(end for _, end in cuts)], [*(begin for begin, _ in cuts), len(text)]
    pieces = [
        text[begin:end]
        for begin, end in zip(begins, ends, strict=True)
        if end - begin >= max(1, min_piece_characters)
    ]
    return CutText("\n".join(pieces), len(cuts), len(pieces))

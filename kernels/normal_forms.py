"""Unicode's normal forms: ``unicodedata.normalize``, bit for bit.

A code point is *inert* in a form if it stays as it is and nothing before it can change it or reach past it.
Runs of inert code points are copied. Others are taken together with the inert one before them, up to the next
inert one: decomposed by a table, ordered by combining class, and composed by a table of pairs.
"""

import sys
import unicodedata
from functools import cache
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .jit import inlined, kernel, read_only
from .unicode_tables import REPLACEMENT, decode, encode, entry

Form = Literal["NFC", "NFD", "NFKC", "NFKD"]

_BLOCK = 256
_L, _V, _T, _S = 0x1100, 0x1161, 0x11A7, 0xAC00  # Hangul: leading, vowel, trailing (less one), syllable
_N_L, _N_V, _N_T = 19, 21, 28
_SHORT = 32  # runs of marks up to this length are ordered by insertion, longer ones by counting


class FormTables(NamedTuple):
    """What a normal form does to each code point c, which stands at ``page[c >> 8] << 8 | c & 255``.

    page: uint16, (0x1100,).
    inert: bool, (n_entries,).
    combining: uint8, (n_entries,), the canonical combining class.
    places: int32, (n_entries,), 32 times the place in `decomposed` plus the number of code points; 0: itself.
    room: uint8, (n_entries,), bytes of its decomposition as UTF-8.
    decomposed: int32, code points; Hangul syllables are not among them.
    firsts, seconds: int16, (n_entries,), row and column in `composed`, or 0.
    composed: int32, (n_firsts, n_seconds), what two code points compose to, or 0; all 0 in NFD and NFKD.
    """

    page: NDArray[np.uint16]
    inert: NDArray[np.bool_]
    combining: NDArray[np.uint8]
    places: NDArray[np.int32]
    room: NDArray[np.uint8]
    decomposed: NDArray[np.int32]
    firsts: NDArray[np.int16]
    seconds: NDArray[np.int16]
    composed: NDArray[np.int32]


def normalize(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], form: Form
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Each document in a normal form, as ``unicodedata.normalize`` gives it.

    Args:
        data: uint8, (n_bytes,), UTF-8; a byte that is not becomes U+FFFD.
        offsets: int64, (n_docs + 1,), document d is data[offsets[d]:offsets[d + 1]].
    Returns:
        data: uint8, (n_normal_bytes,), UTF-8, and offsets: int64, (n_docs + 1,); the arguments themselves
        where all is inert.
    Source: Unicode Standard Annex #15, and The Unicode Standard, section 3.11. Linear in the text, also for
        long runs of combining marks, where the interpreter's is quadratic.
    """
    tables = form_tables(form)
    inert_docs = np.ones(len(offsets) - 1, np.bool_)
    text, ends = read_only(data, offsets)
    room, longest = _measure(text, ends, tables.page, tables.inert, tables.room, inert_docs)
    if inert_docs.all():
        return data, offsets
    return _normalize(text, ends, inert_docs, *tables, form in ("NFC", "NFKC"), room, longest)


def normalize_reference(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], form: Form
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """`normalize` with Python's strings."""
    texts = [data[a:b].tobytes().decode("utf-8", "replace") for a, b in pairwise(offsets)]
    normal = [unicodedata.normalize(form, text).encode() for text in texts]
    return np.frombuffer(b"".join(normal), np.uint8), np.cumsum([0, *map(len, normal)], dtype=np.int64)


@cache
def form_tables(form: Form) -> FormTables:
    """The tables of the interpreter's Unicode version, built on the first call."""
    decomposing: Form = "NFKD" if form in ("NFKC", "NFKD") else "NFD"
    pairs = _pairs() if form in ("NFC", "NFKC") else {}
    rows = {first: i for i, first in enumerate(sorted({first for first, _ in pairs}), start=1)}
    columns = {second: i for i, second in enumerate(sorted({second for _, second in pairs}), start=1)}
    joining = {*columns, *range(_V, _V + _N_V), *range(_T + 1, _T + _N_T)} if pairs else set()
    composed = np.zeros((len(rows) + 1, len(columns) + 1), np.int32)
    for (first, second), composite in pairs.items():
        composed[rows[first], columns[second]] = composite

    page = np.zeros((sys.maxunicode + 1) // _BLOCK, np.uint16)
    pool: list[int] = []
    entries: list[tuple[bool, int, int, int, int, int]] = []
    plain: dict[int, int] = {}  # blocks in which nothing happens, by the bytes of their code points
    for i in range(len(page)):
        codes = range(i * _BLOCK, (i + 1) * _BLOCK)
        n_bytes = len(chr(codes[-1]).encode("utf-8", "surrogatepass"))
        if i and _is_plain("".join(map(chr, codes)), decomposing) and joining.isdisjoint(codes):
            if n_bytes not in plain:
                plain[n_bytes] = len(entries) // _BLOCK
                entries += [(True, 0, 0, n_bytes, 0, 0)] * _BLOCK
            page[i] = plain[n_bytes]
            continue
        page[i] = len(entries) // _BLOCK
        for code in codes:
            parts = unicodedata.normalize(decomposing, chr(code))
            changes = parts != chr(code)
            is_stable = unicodedata.normalize(form, chr(code)) == chr(code)
            inert = is_stable and not unicodedata.combining(parts[0]) and ord(parts[0]) not in joining
            place = 0
            if changes and not _S <= code < _S + _N_L * _N_V * _N_T:
                place = len(pool) << 5 | len(parts)
                pool += map(ord, parts)
            room = len(parts.encode("utf-8", "surrogatepass"))
            combining = unicodedata.combining(chr(code))
            entries.append((inert, combining, place, room, rows.get(code, 0), columns.get(code, 0)))
    inerts, combinings, places, rooms, firsts, seconds = zip(*entries, strict=True)
    return FormTables(
        page, np.array(inerts), np.array(combinings, np.uint8), np.array(places, np.int32),
        np.array(rooms, np.uint8), np.array(pool, np.int32), np.array(firsts, np.int16),
        np.array(seconds, np.int16), composed,
    )  # fmt: skip


def _is_plain(block: str, decomposing: Form) -> bool:
    """Whether no code point of a block decomposes or has a combining class."""
    return unicodedata.normalize(decomposing, block) == block and not any(map(unicodedata.combining, block))


def _pairs() -> dict[tuple[int, int], int]:
    """(first, second) -> what they compose to, Hangul aside."""
    pairs = {}
    for code in range(sys.maxunicode + 1):
        parts = unicodedata.decomposition(chr(code))
        if parts and parts[0] != "<" and " " in parts:
            first, second = (int(part, 16) for part in parts.split())
            if unicodedata.normalize("NFC", chr(first) + chr(second)) == chr(code):
                pairs[first, second] = code
    return pairs


@kernel
def _measure(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    page: NDArray[np.uint16],
    inert: NDArray[np.bool_],
    room: NDArray[np.uint8],
    inert_docs: NDArray[np.bool_],
) -> tuple[int, int]:
    """(bytes of all decompositions, most bytes of the decomposition of one document that is not inert)."""
    total, longest = 0, 0
    for d in range(len(offsets) - 1):
        i, end = offsets[d], offsets[d + 1]
        text = data[:end]
        n, is_inert = 0, True
        while i < end:
            first = i
            while i < end and text[i] < 0x80:
                i += 1
            n += i - first
            if i < end:
                code, following = decode(text, i)
                at = entry(page, code)
                n += room[at]
                # Bytes that are not UTF-8 read as U+FFFD, which is inert, but has to be written.
                is_utf8 = code != REPLACEMENT or (text[i] == 0xEF and following - i == 3)
                is_inert = is_inert and inert[at] and is_utf8
                i = following
        total += n
        inert_docs[d] = is_inert
        if not is_inert:
            longest = max(longest, n)
    return total, longest


@kernel
def _normalize(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    inert_docs: NDArray[np.bool_],
    page: NDArray[np.uint16],
    inert: NDArray[np.bool_],
    combining: NDArray[np.uint8],
    places: NDArray[np.int32],
    _room: NDArray[np.uint8],
    decomposed: NDArray[np.int32],
    firsts: NDArray[np.int16],
    seconds: NDArray[np.int16],
    composed: NDArray[np.int32],
    composes: bool,
    room: int,
    longest: int,
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    normal, normal_offsets = np.empty(room, np.uint8), np.zeros(len(offsets), np.int64)
    codes, classes = np.empty(longest, np.int32), np.empty(longest, np.uint8)
    spare = np.empty(longest, np.int32)
    n = 0
    for d in range(len(offsets) - 1):
        i, end = offsets[d], offsets[d + 1]
        text = data[:end]
        if inert_docs[d]:
            for j in range(end - i):
                normal[n + j] = text[i + j]
            n += end - i
            normal_offsets[d + 1] = n
            continue
        last = n  # where the last inert code point was written, if one was
        while i < end:
            if text[i] < 0x80:
                last = n
                normal[n] = text[i]
                n += 1
                i += 1
                continue
            code, following = decode(text, i)
            if inert[entry(page, code)]:
                last = n
                n += encode(code, normal[n:])
                i = following
                continue
            # Take the last inert code point back, and all that follows up to the next one.
            k = 0
            if last < n:
                k += _decompose(decode(normal[:n], last)[0], page, places, decomposed, codes)
                n = last
            while i < end:
                code, following = decode(text, i)
                if inert[entry(page, code)]:
                    break
                k += _decompose(code, page, places, decomposed, codes[k:])
                i = following
            for j in range(k):
                classes[j] = combining[entry(page, codes[j])]
            _order(codes[:k], classes, spare)
            if composes:
                k = _compose(codes[:k], classes, page, firsts, seconds, composed)
            for j in range(k):
                n += encode(codes[j], normal[n:])
            last = n
        normal_offsets[d + 1] = n
    return normal[:n], normal_offsets


@kernel
def _decompose(
    code: int,
    page: NDArray[np.uint16],
    places: NDArray[np.int32],
    decomposed: NDArray[np.int32],
    codes: NDArray[np.int32],
) -> int:
    """Writes the decomposition of a code point and returns its length."""
    if _S <= code < _S + _N_L * _N_V * _N_T:
        syllable = code - _S
        codes[0] = _L + syllable // (_N_V * _N_T)
        codes[1] = _V + syllable % (_N_V * _N_T) // _N_T
        if syllable % _N_T == 0:
            return 2
        codes[2] = _T + syllable % _N_T
        return 3
    place = places[entry(page, code)]
    if place == 0:
        codes[0] = code
        return 1
    first, length = place >> 5, place & 31
    for k in range(length):
        codes[k] = decomposed[first + k]
    return int(length)


@kernel
def _order(codes: NDArray[np.int32], classes: NDArray[np.uint8], spare: NDArray[np.int32]) -> None:
    """Puts each run of marks into the order of their combining classes, equal ones as they come."""
    start = 0
    while start < len(codes):
        if classes[start] == 0:
            start += 1
            continue
        end = start
        while end < len(codes) and classes[end]:
            end += 1
        if end - start <= _SHORT:
            for j in range(start + 1, end):
                code, order = codes[j], classes[j]
                i = j
                while i > start and classes[i - 1] > order:
                    codes[i], classes[i] = codes[i - 1], classes[i - 1]
                    i -= 1
                codes[i], classes[i] = code, order
        else:
            ends = np.zeros(257, np.int64)
            for j in range(start, end):
                ends[classes[j] + 1] += 1
            ends[0] = start
            for c in range(256):
                ends[c + 1] += ends[c]
            for j in range(start, end):
                spare[ends[classes[j]]] = codes[j]
                ends[classes[j]] += 1
            first = start
            for c in range(256):
                for j in range(first, ends[c]):
                    codes[j], classes[j] = spare[j], c
                first = ends[c]
        start = end


@kernel
def _compose(
    codes: NDArray[np.int32],
    classes: NDArray[np.uint8],
    page: NDArray[np.uint16],
    firsts: NDArray[np.int16],
    seconds: NDArray[np.int16],
    composed: NDArray[np.int32],
) -> int:
    """Composes in place and returns the new length."""
    starter, before, n = -1, 0, 0  # before: the class of the last code point written
    for k in range(len(codes)):
        code, order = codes[k], classes[k]
        if starter >= 0 and (starter == n - 1 or before < order):
            composite = _composite(codes[starter], code, page, firsts, seconds, composed)
            if composite:
                codes[starter] = composite
                continue
        if order == 0:
            starter = n
        codes[n], before = code, order
        n += 1
    return n


@inlined
def _composite(
    first: int,
    second: int,
    page: NDArray[np.uint16],
    firsts: NDArray[np.int16],
    seconds: NDArray[np.int16],
    composed: NDArray[np.int32],
) -> int:
    if _L <= first < _L + _N_L and _V <= second < _V + _N_V:
        return _S + ((first - _L) * _N_V + second - _V) * _N_T
    is_open = _S <= first < _S + _N_L * _N_V * _N_T and (first - _S) % _N_T == 0
    if is_open and _T < second < _T + _N_T:
        return first + second - _T
    composite: int = composed[firsts[entry(page, first)], seconds[entry(page, second)]]
    return composite

"""The tokens of spaCy's blank English tokenizer, which datatrove takes for words.

White space cuts a text into chunks. A chunk that is on the list of special cases gives the tokens that the
list says. Otherwise punctuation, quotes, pictographs and a few endings (``'s``, units after a number) are cut
off at both ends, one on each side at a time, until nothing is left to cut or the rest is special; what
remains is whole if it looks like an internet address, and else cut at its infixes (``word-word``, ``a,b``,
``a=b``, ...).

Source: spaCy 3.8 (MIT), `tokenizer.pyx` and `lang/punctuation.py`; the rules are restated, no code is taken.
It departs: special cases are not looked for again among the finished tokens (emoticons glued to a word), a
number with dots is no address, and letters are those of the code points listed in `word_classes`.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .english_rules import UNITS, english_special_tokens
from .jit import inlined, uncounted
from .short_hash import SEED, load_few, short_hash
from .word_classes import AFFIX, ICON, LETTERS, LOWER, PREFIX, QUOTES, UPPER

_DOT, _PLUS, _U, _S, _s, _C, _A, _F, _K, _DOLLAR = map(ord, ".+USsCAFK$")
_EM_DASH, _EN_DASH, _APOSTROPHE, _CURLY, _ELLIPSIS, _PERCENT, _SQUARED, _MINUS, _BAR, _DEGREE = map(
    ord, "—–'’…%²-|°"
)
_COMMA, _STAR, _CARET, _TILDE, _COLON, _LESS, _GREATER, _EQUAL, _SLASH, _AT = map(ord, ",*^~:<>=/@")
_QUESTION, _HASH, _UNDERSCORE = map(ord, "?#_")
_QUOTE_CODES = np.array(sorted(map(ord, QUOTES)), np.int32)
_N_SLOTS = 4096
_LONGEST = 48  # bytes of a special case, at most
_N_GLANCES = 1 << 16
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class Specials(NamedTuple):
    """The special cases and the units as one hash table for the kernel.

    hashes: uint64, (n_slots,), an entry's `short_hash`, or its complement for a unit, at its place modulo
    n_slots or
        behind it; 0 is empty.
    splits: int64, (n_slots,), characters of the first token | of the second << 8 | number of tokens << 16.
    glances: uint64, (1024,), the bit `glance` of each special case is set.
    """

    hashes: NDArray[np.uint64]
    splits: NDArray[np.int64]
    glances: NDArray[np.uint64]


@cache
def english_specials() -> Specials:
    """The table, built on the first call."""
    entries = [(unit, True, 0) for unit in UNITS]
    for text, tokens in english_special_tokens().items():
        second = len(tokens[1]) if len(tokens) > 1 else 0
        entries.append((text, False, len(tokens[0]) | second << 8 | len(tokens) << 16))
    hashes, splits = np.zeros(_N_SLOTS, np.uint64), np.zeros(_N_SLOTS, np.int64)
    glances = np.zeros(_N_GLANCES // 64, np.uint64)
    for text, is_unit, split in entries:
        encoded = np.frombuffer(text.encode(), np.uint8)
        h = np.uint64(short_hash(encoded, 0, len(encoded)))
        h = ~h if is_unit else h
        slot = int(h) % _N_SLOTS
        while hashes[slot] not in (0, h):
            slot = (slot + 1) % _N_SLOTS
        hashes[slot], splits[slot] = h, split
        at = glance(encoded, 0, len(encoded))
        glances[at >> 6] |= np.uint64(0 if is_unit else 1 << (at & 63))
    assert max(len(text.encode()) for text, _, _ in entries) <= _LONGEST
    return Specials(hashes, splits, glances)


@inlined
def glance(data: NDArray[np.uint8], start: int, n_bytes: int) -> int:
    """A number below `_N_GLANCES` that few words share with a special case: of the first eight bytes and the
    length.

    The bits of all special cases fit into the nearest cache, and few of them are set.
    """
    first = load_few(data, start, min(n_bytes, 8)) ^ np.uint64(n_bytes) * SEED
    return np.int64((first * _GOLDEN) >> np.uint64(48))  # type: ignore[return-value]


@inlined
def special(
    data: NDArray[np.uint8],
    start: int,
    n_bytes: int,
    hashes: NDArray[np.uint64],
    splits: NDArray[np.int64],
    glances: NDArray[np.uint64],
) -> int:
    """The split of data[start:start + n_bytes] if it is a special case, else -1."""
    if n_bytes == 0 or n_bytes > _LONGEST:
        return -1
    at = glance(data, start, n_bytes)
    if not glances[at >> 6] >> np.uint64(at & 63) & np.uint64(1):
        return -1
    return _find(data, start, n_bytes, False, hashes, splits)


@uncounted
def _special(
    data: NDArray[np.uint8],
    start: int,
    n_bytes: int,
    hashes: NDArray[np.uint64],
    splits: NDArray[np.int64],
    glances: NDArray[np.uint64],
) -> int:
    """`special` by a call: few chunks are asked so, and each copy of it costs compilation."""
    return special(data, start, n_bytes, hashes, splits, glances)


@uncounted
def _find(
    data: NDArray[np.uint8],
    start: int,
    n_bytes: int,
    is_unit: bool,
    hashes: NDArray[np.uint64],
    splits: NDArray[np.int64],
) -> int:
    h = short_hash(data, start, n_bytes)
    if is_unit:
        h = ~h
    slot = np.int64(h & np.uint64(_N_SLOTS - 1))
    while hashes[slot]:
        if hashes[slot] == h:
            split: int = splits[slot]
            return split
        slot = (slot + 1) & (_N_SLOTS - 1)
    return -1


@inlined
def tokenize_chunk(
    data: NDArray[np.uint8],
    positions: NDArray[np.int64],
    codes: NDArray[np.int32],
    classes: NDArray[np.uint16],
    n: int,
    has_digits: bool,
    hashes: NDArray[np.uint64],
    splits: NDArray[np.int64],
    glances: NDArray[np.uint64],
    cuts: NDArray[np.int64],
) -> int:
    """The number of tokens of one chunk of n characters; cuts[k] becomes the character at which token k
    starts.

    Args:
        positions: int64, (n + 1,), where each character begins in `data`, and where the last one ends.
        codes, classes: the characters and their entries in the table of `word_classes`.
        has_digits: whether one of them is a digit.
        cuts: int64, at least (n,).
    """
    low, high, n_cuts, n_tail, size = 0, n, 0, 0, -1
    split = _special(data, positions[0], positions[n] - positions[0], hashes, splits, glances)
    while split < 0 and low < high and high - low != size:
        size = high - low
        prefix = _prefix(codes, classes, low, high)
        if prefix:
            middle = positions[low + prefix]
            split = _special(data, middle, positions[high] - middle, hashes, splits, glances)
            if split >= 0:
                cuts[n_cuts] = low
                n_cuts, low = n_cuts + 1, low + prefix
                break
        suffix = _suffix(
            data, positions, codes, classes, low + prefix, high, has_digits, hashes, splits, glances
        )
        if suffix:
            kept = positions[high - suffix] - positions[low]
            split = _special(data, positions[low], kept, hashes, splits, glances)
            if split >= 0:
                n_tail, high = n_tail + 1, high - suffix
                cuts[n - n_tail] = high
                break
        if prefix:
            cuts[n_cuts] = low
            n_cuts, low = n_cuts + 1, low + prefix
        if suffix:
            n_tail, high = n_tail + 1, high - suffix
            cuts[n - n_tail] = high
        split = _special(data, positions[low], positions[high] - positions[low], hashes, splits, glances)
    if split >= 0:
        cuts[n_cuts] = low
        if split >> 16 > 1:
            cuts[n_cuts + 1] = low + (split & 0xFF)
        if split >> 16 > 2:
            cuts[n_cuts + 2] = low + (split & 0xFF) + (split >> 8 & 0xFF)
        n_cuts += split >> 16
    elif low < high:
        if is_address(codes, classes, low, high):
            cuts[n_cuts] = low
            n_cuts += 1
        else:
            n_cuts = _cut_infixes(codes, classes, low, high, cuts, n_cuts)
    for k in range(n_tail):
        cuts[n_cuts + k] = cuts[n - n_tail + k]
    return n_cuts + n_tail


@inlined
def _prefix(codes: NDArray[np.int32], classes: NDArray[np.uint16], low: int, high: int) -> int:
    """How many characters are cut off at the beginning."""
    code = codes[low]
    if code == _DOT:
        end = low
        while end < high and codes[end] == _DOT:
            end += 1
        return end - low if end - low > 1 else 0
    if code == _PLUS:
        return 0 if low + 1 < high and _is_digit(codes[low + 1]) else 1
    if classes[low] & (AFFIX | PREFIX):
        return 1
    if code == _U and high - low > 2 and codes[low + 1] == _S and codes[low + 2] == _DOLLAR:
        return 3
    return 2 if (code in (_C, _A)) and high - low > 1 and codes[low + 1] == _DOLLAR else 0


@inlined
def _suffix(
    data: NDArray[np.uint8],
    positions: NDArray[np.int64],
    codes: NDArray[np.int32],
    classes: NDArray[np.uint16],
    low: int,
    high: int,
    has_digits: bool,
    hashes: NDArray[np.uint64],
    splits: NDArray[np.int64],
    glances: NDArray[np.uint64],
) -> int:
    """How many characters are cut off at the end: of all endings that fit, the longest."""
    if low >= high:
        return 0
    last, before = codes[high - 1], codes[high - 2] if high - low > 1 else 0
    if last == _DOT:
        start = high - 1
        while start > low and codes[start - 1] == _DOT:
            start -= 1
        if high - start > 1:
            return high - start
        return 1 if high - low > 1 and _full_stop(codes, classes, low, high) else 0
    found = 1 if classes[high - 1] & AFFIX or last in (_EM_DASH, _EN_DASH) else 0
    if (last in (_s, _S)) and (before in (_APOSTROPHE, _CURLY)):
        found = 2
    if last == _ELLIPSIS and before == _ELLIPSIS:
        found = 2
    digit = high - 1 if has_digits else low - 1
    while digit >= low and digit > high - 8 and not _is_digit(codes[digit]):
        digit -= 1
    if low <= digit < high - 1 and _is_digit(codes[digit]):
        start = positions[digit + 1]
        n_bytes = positions[high] - start
        if n_bytes <= _LONGEST and _find(data, start, n_bytes, True, hashes, splits) >= 0:
            found = max(found, high - 1 - digit)
    return found


@uncounted
def _full_stop(codes: NDArray[np.int32], classes: NDArray[np.uint16], low: int, high: int) -> bool:
    """Whether the full stop at the end is a token of its own, by what stands before it."""
    before, entry = codes[high - 2], classes[high - 2]
    if _is_digit(before) or entry & LOWER or (entry & AFFIX and not entry & ICON):
        return True
    if before in (_PERCENT, _SQUARED, _MINUS, _PLUS, _BAR):
        return True
    if high - low < 3:
        return False
    if codes[high - 3] == _DEGREE and (before in (_F, _C, _K)):
        return True
    return bool(entry & classes[high - 3] & UPPER)


@inlined
def _cut_infixes(
    codes: NDArray[np.int32],
    classes: NDArray[np.uint16],
    low: int,
    high: int,
    cuts: NDArray[np.int64],
    n_cuts: int,
) -> int:
    cuts[n_cuts] = low
    n_cuts += 1
    start, i = low, low
    while i < high:
        length = _infix(codes, classes, low, high, i)
        if length and i > low:
            if i > start:
                cuts[n_cuts] = i
                n_cuts += 1
            start = i + length
            if start < high:
                cuts[n_cuts] = start
                n_cuts += 1
        i += max(length, 1)
    return n_cuts


@inlined
def _infix(codes: NDArray[np.int32], classes: NDArray[np.uint16], low: int, high: int, i: int) -> int:
    """The length of the infix at character i, or 0."""
    code = codes[i]
    if classes[i] & (LETTERS | UPPER) and not classes[i] & ICON:
        return 0
    if code == _ELLIPSIS or classes[i] & ICON:
        return 1
    end = i + 1
    if code == _DOT:
        while end < high and codes[end] == _DOT:
            end += 1
        if end - i > 1:
            return end - i
    if i == low:
        return 0
    before = classes[i - 1]
    after = classes[end] if end < high else 0
    if code == _DOT:
        return 1 if _is(before, codes[i - 1], LOWER) and end < high and _is(after, codes[end], UPPER) else 0
    if code == _COMMA:
        return 1 if before & LETTERS and after & LETTERS else 0
    numeric = _is_digit(codes[i - 1]) and end < high and (_is_digit(codes[end]) or codes[end] == _MINUS)
    if numeric and code in (_PLUS, _MINUS, _STAR, _CARET):
        return 1
    if not before & LETTERS and not _is_digit(codes[i - 1]):
        return 0
    if code in (_MINUS, _EM_DASH):
        while end < high and codes[end] == code:
            end += 1
        allowed = end - i <= 3 if code == _MINUS else end - i <= 2
        return end - i if allowed and end < high and classes[end] & LETTERS else 0
    if code in (_EN_DASH, _TILDE, _COLON, _LESS, _GREATER):
        return 1 if after & LETTERS else 0
    return 1 if (code in (_EQUAL, _SLASH)) and after & LETTERS else 0


@uncounted
def _is(entry: int, code: int, case: int) -> bool:
    """A letter of this case, or a quotation mark."""
    return (entry & case) != 0 or _is_quote(code)


@uncounted
def _is_quote(code: int) -> bool:
    for quote in _QUOTE_CODES:  # noqa: SIM110, numba compiles no any()
        if code == quote:
            return True
    return False


@uncounted
def _is_digit(code: int) -> bool:
    return 0x30 <= code <= 0x39


@uncounted
def is_address(codes: NDArray[np.int32], classes: NDArray[np.uint16], low: int, high: int) -> bool:
    """Whether the characters look like an internet address: [scheme://][user@]name.name.tld[:port][/path].

    The name may begin at the start, behind the first "://", or behind any "@".
    """
    dotted = False
    for i in range(low + 1, high):
        dotted = dotted or codes[i] == _DOT
    if not dotted:
        return False
    if _is_host(codes, classes, low, high):
        return True
    scheme = True  # all characters so far are a scheme's
    for i in range(low + 1, high):
        scheme = scheme and (_is_label(codes[i - 1]) or codes[i - 1] in (_PLUS, _MINUS, _DOT))
        starts = scheme and i >= low + 2 and codes[i] == _COLON
        starts = starts and i + 3 < high and codes[i + 1] == _SLASH and codes[i + 2] == _SLASH
        if starts and _is_host(codes, classes, i + 3, high):
            return True
        if codes[i] == _AT and i + 1 < high and _is_host(codes, classes, i + 1, high):
            return True
    return False


@uncounted
def _is_host(codes: NDArray[np.int32], classes: NDArray[np.uint16], low: int, high: int) -> bool:
    end, label, n_labels, lower = (
        low,
        low,
        0,
        True,
    )  # lower: the label so far is letters that are not uppercase
    while end < high:
        code = codes[end]
        if code == _DOT:
            is_label = _is_alnum(codes[label]) and _is_alnum(codes[end - 1]) and end - label <= 64
            if end == label or not is_label:
                return False
            n_labels, label, lower = n_labels + 1, end + 1, True
        elif not (_is_label(code) or code == _MINUS):
            break
        else:
            lower = lower and (classes[end] & LOWER) != 0
        end += 1
    if n_labels == 0 or not lower or not 2 <= end - label <= 63:
        return False
    if end < high and codes[end] == _COLON:
        port = end + 1
        end = port
        while end < high and _is_digit(codes[end]):
            end += 1
        if not 2 <= end - port <= 5:
            return False
    return end == high or codes[end] == _SLASH or codes[end] == _QUESTION or codes[end] == _HASH


@uncounted
def _is_alnum(code: int) -> bool:
    ascii_alnum = _is_digit(code) or 0x41 <= code <= 0x5A or 0x61 <= code <= 0x7A
    return ascii_alnum or 0xA1 <= code <= 0xFFFF


@uncounted
def _is_label(code: int) -> bool:
    return _is_alnum(code) or code == _UNDERSCORE

"""The report's building blocks: whatever is not markup already is made harmless on its way into the page."""

import difflib
import html
import re
from collections.abc import Iterable, Sequence

EXCERPT_CHARS = 400
_TAIL_CHARS = 80
_WORDS = re.compile(r"\w+|\s+|[^\w\s]")
# Control characters, and those that turn the direction of text: shown as Unicode's pictures or by number.
_VISIBLE = (
    {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n"}
    | {0x7F: "\u2421"}
    | {
        code: f"[U+{code:04X}]"
        for start, stop in (
            (0x80, 0xA0),
            (0x61C, 0x61D),
            (0x200E, 0x2010),
            (0x2028, 0x202F),
            (0x2066, 0x206A),
        )
        for code in range(start, stop)
    }
    | dict.fromkeys(range(0xD800, 0xE000), "\ufffd")
)


class Html(str):
    """Markup. Any other text is escaped by `element`, so none can be forgotten."""

    __slots__ = ()


def escape(text: str) -> Html:
    """`text` as markup that shows it, control characters and changes of direction made visible.

    >>> escape("<b> \\x00 \\u202e")
    '&lt;b&gt; ␀ [U+202E]'
    """
    return text if isinstance(text, Html) else Html(html.escape(text.translate(_VISIBLE)))


def breakable(name: str) -> Html:
    """A long name, which a narrow column may break behind its underscores.

    >>> breakable("top_2_gram")
    'top_<wbr>2_<wbr>gram'
    """
    return Html(escape(name).replace("_", "_<wbr>"))


def join(parts: Iterable[str], separator: str = "\n") -> Html:
    """Parts of a page, one after another."""
    return Html(separator.join(escape(part) for part in parts))


def element(tag: str, *children: str, **attributes: str | bool) -> Html:
    """An element; an underscore at the end of an attribute's name falls off, one inside becomes a hyphen.

    >>> element("td", "a < b", element("i", "c"), class_="number")
    '<td class="number">a &lt; b<i>c</i></td>'
    """
    written = "".join(
        f" {name.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{escape(str(value))}"')
        for name, value in attributes.items()
        if value is not False
    )
    return Html(f"<{tag}{written}>{join(children, '')}</{tag}>")


def paragraph(*children: str, class_: str = "text") -> Html:
    """A paragraph of prose."""
    return element("p", *children, class_=class_)


def code(text: str) -> Html:
    """A name as the recipe or a column has it."""
    return element("code", text)


def folded(summary: str, *children: str, is_open: bool = False) -> Html:
    """Something to unfold."""
    return element("details", element("summary", summary), *children, open=is_open)


def table(
    align: str, header: Sequence[str], rows: Iterable[Sequence[str | int | None]], n_totals: int = 0
) -> Html:
    """A table that scrolls sideways where it is wider than the page.

    Args:
        align: one letter for each column: l for text, r for numbers.
        rows: integers get thousands separators, None stays empty.
        n_totals: how many of the last rows are sums of the others.
    """
    classes = [{"l": "left", "r": "number"}[letter] for letter in align]

    def line(tag: str, cells: Sequence[str | int | None], class_: str = "") -> Html:
        shown = ("" if cell is None else count(cell) if isinstance(cell, int) else cell for cell in cells)
        columns = (element(tag, cell, class_=name) for cell, name in zip(shown, classes, strict=True))
        return element("tr", *columns, class_=class_) if class_ else element("tr", *columns)

    rows = list(rows)
    body = [line("td", row, "total" if i >= len(rows) - n_totals else "") for i, row in enumerate(rows)]
    head = element("thead", line("th", header))
    return element("div", element("table", head, element("tbody", *body)), class_="scroll")


def count(n: int) -> str:
    """A number with thousands separators."""
    return f"{n:,}"


def counted(n: int, singular: str, plural: str = "") -> str:
    """A number with its noun.

    >>> counted(1, "row"), counted(2000, "row")
    ('1 row', '2,000 rows')
    """
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def share(part: float, whole: float = 1.0) -> str:
    """`part` of `whole` in percent.

    >>> share(1, 3), share(0, 3), share(1, 10_000), share(9_999, 10_000), share(0, 0)
    ('33.3\xa0%', '0\xa0%', '<\xa00.1\xa0%', '>\xa099.9\xa0%', '')
    """
    if not whole:
        return ""
    fraction = part / whole
    if 0 < fraction < 0.0005:
        text = "< 0.1 %"
    elif 0.9995 <= fraction < 1:
        text = "> 99.9 %"
    else:
        text = f"{100 * fraction:.1f} %" if 0 < fraction < 1 else f"{100 * fraction:.0f} %"
    return text.replace(" ", "\u00a0")


def megabytes(n_bytes: float) -> str:
    """MB with two decimals below 10, one above.

    >>> megabytes(1_234_567), megabytes(41_700_000)
    ('1.23', '41.7')
    """
    size = n_bytes / 1e6
    return f"{size:,.2f}" if size < 10 else f"{size:,.1f}"


def number(value: object) -> str:
    """A score or a threshold for a person.

    >>> number(12), number(0.123456), number(None), number("en"), number(1234567.0)
    ('12', '0.1235', 'null', 'en', '1,234,567')
    """
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    return "null" if value is None else count(value) if isinstance(value, int) else str(value)


def decimal(value: float, sign: str = "-") -> str:
    """Three decimals; with `sign` "+", a sign in any case.

    >>> decimal(-0.12345), decimal(0.5, "+")
    ('−0.123', '+0.500')
    """
    return f"{value:{sign}.3f}".replace("-", "\u2212")


def excerpt(text: str | None, n_chars: int = EXCERPT_CHARS) -> Html:
    """A document shortened to about `n_chars` characters, its begin and its end."""
    if text is None:
        return element("p", "no text", class_="note")
    if len(text) <= n_chars + _TAIL_CHARS:
        return element("pre", text, class_="document")
    head, tail = text[: n_chars - _TAIL_CHARS], text[-_TAIL_CHARS:]
    return element("pre", head, _gap(len(text) - n_chars), tail, class_="document")


def excerpt_around(text: str, start: int, stop: int, n_chars: int = EXCERPT_CHARS) -> Html:
    """A document shortened to what stands at [start, stop), marked, and around it."""
    shown = min(stop, start + n_chars // 2)
    begin, end = max(0, start - n_chars // 4), min(len(text), stop + n_chars // 4)
    parts = [
        _gap(begin) if begin else Html(),
        text[begin:start],
        element("mark", text[start:shown], *([_gap(stop - shown)] if stop > shown else [])),
        text[stop:end],
        _gap(len(text) - end) if end < len(text) else Html(),
    ]
    return element("pre", *parts, class_="document")


def side_by_side(left: str, right: str) -> tuple[Html, Html]:
    """Two texts shortened around the first place where they differ, words that only one has marked."""
    start = _first_difference(left, right)
    start = (
        0 if start < EXCERPT_CHARS // 2 or start == len(left) == len(right) else start - EXCERPT_CHARS // 4
    )
    windows = [text[start : start + EXCERPT_CHARS] for text in (left, right)]
    words: list[list[str]] = [_WORDS.findall(window) for window in windows]
    same = difflib.SequenceMatcher(None, words[0], words[1], autojunk=False).get_matching_blocks()
    shown = []
    for text, tokens, starts in (
        (left, words[0], [m.a for m in same]),
        (right, words[1], [m.b for m in same]),
    ):
        is_shared = [False] * len(tokens)
        for begin, match in zip(starts, same, strict=True):
            is_shared[begin : begin + match.size] = [True] * match.size
        marked = [
            escape(word) if shared or word.isspace() else element("mark", word)
            for word, shared in zip(tokens, is_shared, strict=True)
        ]
        n_after = max(0, len(text) - start - EXCERPT_CHARS)
        gaps = [_gap(n) if n else Html() for n in (start, n_after)]
        shown.append(element("pre", gaps[0], *marked, gaps[1], class_="document"))
    return shown[0], shown[1]


def _first_difference(left: str, right: str) -> int:
    """Where one text has other words; another kind of white space is no such difference."""
    length = min(len(left), len(right))
    pairs = enumerate(zip(left, right, strict=False))
    return next((i for i, (a, b) in pairs if a != b and not (a.isspace() and b.isspace())), length)


def _gap(n_chars: int) -> Html:
    return element("span", f" \u2026 {counted(n_chars, 'character')} left out \u2026 ", class_="gap")

"""The rules of `english_words`: special cases, units, and the tokenizer written with regular expressions.

The special cases are contractions, abbreviations that keep their full stop, and emoticons: facts of spaCy
3.8 (MIT), `lang/en/tokenizer_exceptions.py` and `lang/tokenizer_exceptions.py`, generated here from the
paradigms behind them.
"""

import re
from collections.abc import Iterator
from functools import cache

from .word_classes import AFFIX, ICON, LETTERS, LOWER, PREFIX, QUOTES, UPPER, word_class_reference

Tokens = tuple[str, ...]

_PRONOUNS = "i you he she it we they"
_WH_WORDS = "who what when where why how there that this these those"
_MODALS = "ca could do does did had may might must need ought sha should wo would"
_NEGATED = "ai are is was were have has dare"
_WITH_HAVE = "could might must should would"
_NO_CONTRACTIONS = "Ill ill Its its Hell hell Shell shell Shed shed were Were Well well Whore whore"
_WHOLE = """
'S 's \u2018S \u2018s and/or w/o 're 'Cause 'cause 'cos 'Cos 'coz 'Coz 'cuz 'Cuz 'bout ma'am Ma'am o'clock
O'clock lovin lovin' Lovin Lovin' havin havin' Havin Havin' doin doin' Doin Doin' goin goin' Goin Goin'
nothin nothin' Nothin Nothin' nuthin nuthin' Nuthin Nuthin' ol ol' Ol Ol' somethin somethin' Somethin
Somethin' em 'em ll 'll nuff 'nuff Mt. Ak. Ala. Apr. Ariz. Ark. Aug. Calif. Colo. Conn. Dec. Del. Feb. Fla.
Ga. Ia. Id. Ill. Ind. Jan. Jul. Jun. Kan. Kans. Ky. La. Mar. Mass. Mich. Minn. Miss. Mo. Mont. N.C. N.D.
N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Nov. Oct. Okla. Ore. Pa. S.C. Sep. Sept. Tenn. Va. Wash. Wis. 'd a.m.
Adm. Bros. co. Co. Corp. D.C. Dr. e.g. E.g. E.G. Gen. Gov. i.e. I.e. I.E. Inc. Jr. Ltd. Md. Messrs. Mo.
Mont. Mr. Mrs. Ms. p.m. Ph.D. Prof. Rep. Rev. Sen. St. vs. v.s. ' '' \\") <space> \u2014 C++ \\n \\t \u00e4.
\u00f6. \u00fc. :) :-) :)) :-)) :))) :-))) (: (-: =) (= :] :-] [: [-: [= =] :o) (o: :} :-} 8) 8-) (-8 ;) ;-)
(; (-; :( :-( :(( :-(( :((( :-((( ): )-: =( >:( :') :'-) :'( :'-( :/ :-/ =/ =| :| :-| ]= =[ :1 :P :-P :p :-p
:O :-O :o :-o :0 :-0 :() >:o :* :-* :3 :-3 =3 :> :-> :X :-X :x :-x :D :-D ;D ;-D =D xD XD xDD XDD 8D 8-D ^_^
^__^ ^___^ >.< >.> <.< ._. ;_; -_- -__- v.v V.V v_v V_V o_o o_O O_o O_O 0_o o_0 0_0 o.O O.o O.O o.o 0.0 o.0
0.o @_@ <3 <33 <333 </3 (^_^) (-_-) (._.) (>_<) (*_*) (\u00ac_\u00ac) \u0ca0_\u0ca0 \u0ca0\ufe35\u0ca0
(\u0ca0_\u0ca0) \u00af\\(\u30c4)/\u00af (\u256f\u00b0\u25a1\u00b0\uff09\u256f\ufe35\u253b\u2501\u253b
><(((*>
"""
_IN_PARTS = """
y'+all y+all how+'d+'y How+'d+'y not+'ve not+ve Not+'ve Not+ve can+not Can+not gon+na Gon+na got+ta Got+ta
let+'s Let+'s c'm+on C'm+on i+'m i+m i+'m+a i+m+a
"""

_UNITS = """
km km² km³ m m² m³ dm dm² dm³ cm cm² cm³ mm mm² mm³ ha µm nm yd in ft kg g mg µg t lb oz m/s km/h kmh mph
hPa Pa mbar mb MB kb KB gb GB tb TB T G M K % км км² км³ м м² м³ дм дм² дм³ см см² см³ мм мм² мм³ нм кг г мг
м/с км/ч кПа Па мбар Кб КБ кб Мб МБ мб Гб ГБ гб Тб ТБ тбكم كم² كم³ م م² م³ سم سم² سم³ مم مم² مم³ كم غرام
جرام جم كغ ملغ كوب اكواب $ £ € ¥ ฿ US$ C$ A$ ₽ ﷼ ₴ ₠ ₡ ₢ ₣ ₤ ₥ ₦ ₧ ₨ ₩ ₪ ₫ ₭ ₮ ₯ ₰ ₱ ₲ ₳ ₴ ₵ ₶ ₷ ₸ ₹ ₺ ₻ ₼ ₾
₿ +
"""
UNITS = tuple(_UNITS.split())
"""What is cut off behind a digit ("тбكم" is one unit, as in the original)."""


@cache
def english_special_tokens() -> dict[str, Tokens]:
    """Each special string with the tokens that it is cut into.

    >>> english_special_tokens()["Shouldn't"]
    ('Should', "n't")
    """
    specials: dict[str, Tokens] = {}
    for tokens in _contractions():
        for cased in (tokens, (tokens[0].title(), *tokens[1:])):
            for written in (cased, tuple(token.replace("'", "") for token in cased)):
                specials["".join(written)] = written
    specials |= {"".join(parts := tuple(entry.split("+"))): parts for entry in _IN_PARTS.split()}
    specials |= {"I" + "".join(rest): ("I", *rest) for rest in (("'m",), ("m",), ("'m", "a"), ("m", "a"))}
    specials |= {
        f"{hour}{period}": (str(hour), period)
        for hour in range(1, 13)
        for period in ("a.m.", "am", "p.m.", "pm")
    }
    specials |= {
        text: (text,)
        for text in (*_WHOLE.split(), *(f"{letter}." for letter in "abcdefghijklmnopqrstuvwxyz"))
    }
    specials |= {f"°{scale}.": ("°", scale, ".") for scale in "CFKcfk"}
    for text in _NO_CONTRACTIONS.split():
        specials.pop(text, None)
    curly = {
        text.replace("'", "\u2019"): tuple(token.replace("'", "\u2019") for token in tokens)
        for text, tokens in specials.items()
    }
    return curly | specials


def _contractions() -> Iterator[Tokens]:
    """Contractions in lowercase, with their apostrophes."""
    for word in _PRONOUNS.split():
        yield from ((word, "'ll"), (word, "'ll", "'ve"), (word, "'d"), (word, "'d", "'ve"))
    yield from ((word, "'ve") for word in ("i", "you", "we", "they"))
    yield from ((word, "'re") for word in ("you", "we", "they"))
    yield from ((word, "'s") for word in ("he", "she", "it"))
    for word in _WH_WORDS.split():
        plural, singular = word in ("these", "those"), word in ("that", "this")
        yield from ((word, "'ll"), (word, "'ll", "'ve"), (word, "'d"), (word, "'d", "'ve"))
        yield from () if plural else ((word, "'s"),)
        yield from () if singular else ((word, "'re"), (word, "'ve"))
    for word in _MODALS.split():
        yield from ((word, "n't"), (word, "n't", "'ve"))
    yield from ((word, "'ve") for word in _WITH_HAVE.split())
    yield from ((word, "n't") for word in _NEGATED.split())


def english_words_reference(text: str) -> list[str]:
    """The tokens of a text, with regular expressions over character classes, one letter for each class.

    >>> english_words_reference("(They don't.) See www.example.com, x=y, 5km...")
    ['(', 'They', 'do', "n't", '.', ')', 'See', 'www.example.com', ',', 'x', '=', 'y', ',', '5', 'km', '...']
    """
    return [token for chunk in text.split() for token in _tokens(chunk)]


def _tokens(chunk: str) -> Iterator[str]:
    specials, tail = english_special_tokens(), []
    size = -1
    while chunk and chunk not in specials and len(chunk) != size:
        size = len(chunk)
        prefix = _length(_PREFIX.match(chunk, 0), chunk, _AFFIX_OR_PREFIX)
        if chunk[prefix:] in specials and prefix:
            yield chunk[:prefix]
            chunk = chunk[prefix:]
            break
        suffix = _suffix_length(chunk[prefix:])
        if suffix and chunk[:-suffix] in specials:
            tail.append(chunk[-suffix:])
            chunk = chunk[:-suffix]
            break
        if prefix:
            yield chunk[:prefix]
        if suffix:
            tail.append(chunk[-suffix:])
        chunk = chunk[prefix : len(chunk) - suffix]
    if chunk in specials:
        yield from specials[chunk]
    elif chunk:
        yield from [chunk] if _address().match(chunk) else _at_infixes(chunk)
    yield from reversed(tail)


def _has(character: str, flags: int) -> bool:
    return bool(word_class_reference(character) & flags)


_PREFIX = re.compile(r"\.\.+|\+(?![0-9])|US\$|[CA]\$")
_AFFIX_OR_PREFIX = AFFIX | PREFIX
_UNIT_BEHIND_DIGIT = re.compile(
    f"(?<=[0-9])(?:{'|'.join(map(re.escape, sorted(UNITS, key=len, reverse=True)))})\\Z"
)
_ENDING = re.compile(r"(?:……|\.\.+|['’][sS]|—|–)\Z")
_ALNUM = "A-Za-z0-9\u00a1-\uffff"


@cache
def _address() -> re.Pattern[str]:
    lowercase = "".join(
        c for c in map(chr, range(0x10000)) if not 0xD800 <= ord(c) < 0xE000 and _has(c, LOWER)
    )
    return re.compile(
        rf"(?:[{_ALNUM}_+.-]{{2,}}://|.+@)?"
        rf"(?:(?:[{_ALNUM}][{_ALNUM}_-]{{0,62}})?[{_ALNUM}]\.)+[{re.escape(lowercase)}]{{2,63}}(?::[0-9]{{2,5}})?(?:[/?#].*)?\Z",
        re.DOTALL,
    )


def _length(match: re.Match[str] | None, chunk: str, single: int) -> int:
    if match is not None:
        return match.end()
    return int(_has(chunk[0], single))


def _suffix_length(chunk: str) -> int:
    """How much is cut off at the end: of all endings that fit, the longest."""
    if not chunk:
        return 0
    found = [found for found in (_ENDING.search(chunk), _UNIT_BEHIND_DIGIT.search(chunk)) if found]
    longest = max((found.end() - found.start() for found in found), default=0)
    if chunk[-1] == "." and len(chunk) > 1:
        before = chunk[-2]
        single = before in "0123456789%²-+|" or _has(before, LOWER)
        single |= _has(before, AFFIX) and not _has(before, ICON)
        single |= re.search(r"°[FfCcKk]\.\Z", chunk) is not None
        single |= len(chunk) > 2 and _has(before, UPPER) and _has(chunk[-3], UPPER)
    else:
        single = _has(chunk[-1], AFFIX)
    return max(longest, int(single))


def _at_infixes(chunk: str) -> list[str]:
    """The pieces between infixes, and the infixes, which may not stand at the beginning."""
    kinds = "".join(_kind(character) for character in chunk)
    pieces, start = [], 0
    for infix in _INFIX.finditer(kinds):
        if infix.start():
            pieces += [chunk[start : infix.start()], infix[0] and chunk[infix.start() : infix.end()]]
            start = infix.end()
    return [piece for piece in (*pieces, chunk[start:]) if piece]


# a letter of both cases, u uppercase, l lowercase, c neither; i pictograph, q quotation mark, 0 digit; others
# stand for themselves.
_INFIX = re.compile(
    r"\.\.+|…|i|(?<=0)[+\-*^](?=[0\-])|(?<=[alq,])\.(?=[auq,])|(?<=[aulc]),(?=[aulc])"
    r"|(?<=[aulc0])(?:--?-?|–|——?|~)(?=[aulc])|(?<=[aulc0])[:<>=/](?=[aulc])"
)


def _kind(character: str) -> str:
    entry = word_class_reference(character)
    if entry & ICON:
        return "i"
    if entry & LETTERS:
        return {0: "c", UPPER: "u", LOWER: "l", UPPER | LOWER: "a"}[entry & (UPPER | LOWER)]
    if character in QUOTES and character != ",":
        return "q"
    return "0" if character in "0123456789" else character if character in "….+-*^,–—~:<>=/" else " "

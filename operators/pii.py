"""Replacement of personal data."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from ipaddress import AddressValueError, IPv4Address, IPv6Address

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field

from .base import Map, set_columns
from .text_column import one_chunk

# An address is found by its "@" and read to both sides: a pattern that begins with the local part would be
# tried at every letter. Local parts are those in use, not RFC 5322's, whose "*" and "`" in text are mark-up.
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_AT_DOMAIN = re.compile(rf"@((?:{_LABEL}\.){{1,8}}[A-Za-z]{{2,24}})(?![\w-])", re.ASCII)
_LOCAL_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_%+-]*(?:\.[A-Za-z0-9_%+-]+)*\Z")
_MAX_LOCAL_PART = 64  # RFC 5321, section 4.5.3.1.1
_RESERVED_DOMAIN = re.compile(
    r"(?:^|\.)(?:example(?:\.(?:com|net|org))?|invalid|localhost|test)\Z", re.IGNORECASE
)

# What may not precede an address is asked after its first digit: re then skips from digit to digit.
_IPV4 = re.compile(r"\d(?<![\w.].)\d{0,2}(?:\.\d{1,3}){3}(?!\w|\.\d)", re.ASCII)
_IPV6 = re.compile(
    r"[23](?<![\w:.].)[0-9A-Fa-f]{3}:[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{0,4}){1,6}(?![\w:])", re.ASCII
)
_SECTION_NUMBERS_END = 64

# A number in international form (ITU-T E.164: "+", country code, at most 15 digits in all), or one of the
# North American plan whose parts are separated: area codes and exchanges there begin with 2 to 9.
_SEPARATOR = r"[ .\-/\u00a0]"
_PHONE = re.compile(
    rf"\+(?<![\w+)\]].)[1-9]\d{{0,2}}(?:{_SEPARATOR}?\(\d{{1,5}}\)|{_SEPARATOR}?\d{{1,5}}){{1,6}}"
    r"(?!\w|[.,:-]?\d)"
    r"|(?<![\w.+/\-])(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[.-])[2-9]\d\d[.-]\d{4}(?!\w|[.-]?\d)",
    re.ASCII,
)
_PHONE_DIGITS = range(8, 16)
_FICTIONAL = re.compile(r"1?\d{3}55501\d\d")  # reserved for it in every area of the plan

# What RE2 finds quickly in every text that one of the above can match.
_MAY_HAVE_IPV4 = r"\d\.\d{1,3}\.\d{1,3}\.\d"
_MAY_HAVE_PHONE = r"\+[1-9]\d|\d{3}[.)-] ?\d{3}[.-]\d{4}"
_MAY_HAVE_IPV6 = r"[23][0-9A-Fa-f]{3}:[0-9A-Fa-f]{1,4}:"

Span = tuple[int, int]


class Pii(Map):
    """Replace e-mail addresses, public IP addresses and phone numbers by ones that belong to nobody.

    Left as they are: addresses at domains reserved for examples (RFC 2606), so a second pass changes nothing;
    private, reserved and multicast IP addresses; and four numbers that are all below 64, which in text are
    section and version numbers (and 0.4 % of the public addresses, well-known resolvers such as 8.8.8.8 among
    them). IPv6 means 2000::/3, all that is allocated. Phone numbers are those in international form (``+49 30
    901820``) and North American ones with separators (``(212) 736-5000``, ``212-736-5000``); what else may be
    one is too often an order, a date or a product number. Numbers reserved for fiction (555-01xx) stay.

    Source: FineWeb (Penedo et al. 2024, section 3.6), which replaces e-mail and public IPv4 addresses; it
    departs in the reserved domains, the section numbers, IPv6, phone numbers, and in replacements from RFC
    2606, 5737 and 3849 and the numbers of fiction, which nobody can own.
    Cost: a search for "@", digits, dots and "+"; Python looks only at the documents that have them.
    """

    name = "pii"
    version = 2
    writes = ("text", "pii.n_emails", "pii.n_ips", "pii.n_phones")

    replace_email: str = Field("email@example.com", description="what stands for an e-mail address")
    replace_ip: str = Field("192.0.2.1", description="what stands for a public IPv4 address")
    replace_ipv6: str = Field("2001:db8::1", description="what stands for a public IPv6 address")
    replace_phone: str | None = Field(
        "+1 202-555-0100", description="what stands for a phone number; null leaves them as they are"
    )

    @property
    def holds_gil(self) -> bool:
        """Addresses are looked for in Python."""
        return True

    def apply(self, table: pa.Table) -> pa.Table:
        """`table` with `text` rewritten and three counts, int64, of what was replaced; null stays null."""
        text = one_chunk(table["text"])
        text, n_emails = _replace(text, pc.match_substring(text, "@"), _emails, self.replace_email)
        with_ipv4 = pc.match_substring_regex(text, _MAY_HAVE_IPV4)
        text, n_ipv4 = _replace(text, with_ipv4, _public_ipv4, self.replace_ip)
        with_ipv6 = pc.match_substring_regex(text, _MAY_HAVE_IPV6)
        text, n_ipv6 = _replace(text, with_ipv6, _public_ipv6, self.replace_ipv6)
        n_phones = np.zeros(len(text), np.int64)
        if self.replace_phone is not None:
            with_phone = pc.match_substring_regex(text, _MAY_HAVE_PHONE)
            text, n_phones = _replace(text, with_phone, _phones, self.replace_phone)
        columns = (text, pa.array(n_emails), pa.array(n_ipv4 + n_ipv6), pa.array(n_phones))
        return set_columns(table, dict(zip(self.writes, columns, strict=True)))


def _replace(
    text: pa.Array, candidates: pa.Array, find: Callable[[str], Iterable[Span]], replacement: str
) -> tuple[pa.Array, NDArray[np.int64]]:
    """`text` with what `find` finds in the rows of `candidates` replaced, and how often in each row."""
    n_replaced = np.zeros(len(text), np.int64)
    changed: dict[int, str] = {}
    for row in np.flatnonzero(pc.fill_null(candidates, False)).tolist():
        original = text[row].as_py()
        parts, end = [], 0
        for start, stop in find(original):
            parts += [original[end:start], replacement]
            end = stop
        if parts:
            n_replaced[row] = len(parts) // 2
            changed[row] = "".join([*parts, original[end:]])
    if changed:
        mask = np.zeros(len(text), dtype=bool)
        mask[list(changed)] = True
        text = pc.replace_with_mask(text, mask, pa.array(list(changed.values()), text.type))
    return text, n_replaced


def _emails(text: str) -> Iterator[Span]:
    """Where the e-mail addresses of somebody stand."""
    end = 0
    for domain in _AT_DOMAIN.finditer(text):
        at = domain.start()
        local = _LOCAL_PART.search(text, max(end, at - _MAX_LOCAL_PART), at)
        if local and not _RESERVED_DOMAIN.search(domain[1]):
            end = domain.end()
            yield local.start(), end


def _public_ipv4(text: str) -> Iterator[Span]:
    """Where public IPv4 addresses stand that are no section numbers."""
    for found in _IPV4.finditer(text):
        with suppress(AddressValueError):
            address = IPv4Address(found[0])
            if address.is_global and not address.is_multicast and max(address.packed) >= _SECTION_NUMBERS_END:
                yield found.span()


def _public_ipv6(text: str) -> Iterator[Span]:
    """Where public IPv6 addresses stand."""
    for found in _IPV6.finditer(text):
        with suppress(AddressValueError):
            if IPv6Address(found[0]).is_global:
                yield found.span()


def _phones(text: str) -> Iterator[Span]:
    """Where phone numbers stand that somebody can have."""
    for found in _PHONE.finditer(text):
        digits = re.sub(r"\D", "", found[0])
        if len(digits) in _PHONE_DIGITS and not _FICTIONAL.fullmatch(digits):
            yield found.span()

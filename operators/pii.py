"""Replacement of personal data."""

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from .base import Map, set_columns
from .text_column import one_chunk

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]{1,64}"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(
    rf"(?<![A-Za-z0-9._+-]){_ATOM}(?:\.{_ATOM}){{0,8}}@((?:{_LABEL}\.){{1,8}}[A-Za-z]{{2,24}})(?![\w-])"
)
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = re.compile(rf"(?<![\w.-])(?:{_OCTET}\.){{3}}{_OCTET}(?![\w-]|\.\d)", re.ASCII)
_IPV6 = re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{3}(?::[0-9A-Fa-f]{0,4}){2,7}(?![\w:])", re.ASCII)

# What RE2 finds quickly in every text that one of the above can match.
_MAY_HAVE_IPV4 = r"\d\.\d{1,3}\.\d{1,3}\.\d"
_MAY_HAVE_IPV6 = r"[23][0-9A-Fa-f]{3}:[0-9A-Fa-f]{0,4}:"

_RESERVED_DOMAIN = re.compile(
    r"(?:^|\.)(?:example(?:\.(?:com|net|org))?|invalid|localhost|test)$", re.IGNORECASE
)


class Pii(Map):
    """Replace e-mail addresses and public IP addresses by ones that belong to nobody, and count them.

    Left as they are: addresses at domains reserved for examples (RFC 2606), so a second pass changes nothing;
    private, reserved and multicast IP addresses; and four numbers that are all below 64, which in text are
    section and version numbers (and 0.4 % of the public addresses, well-known resolvers such as 8.8.8.8 among
    them). IPv6 means 2000::/3, all that is allocated.

    Source: FineWeb (Penedo et al. 2024, section 3.6), which replaces e-mail and public IPv4 addresses; it
    departs in the reserved domains, the section numbers, IPv6, and in replacements from RFC 2606, 5737 and
    3849, which nobody can own.
    Cost: one search for "@", digits and dots; Python looks only at the documents that have them.
    """

    name = "pii"
    writes = ("text", "pii.n_emails", "pii.n_ips")

    replace_email: str = Field("email@example.com", description="what stands for an e-mail address")
    replace_ip: str = Field("192.0.2.1", description="what stands for a public IPv4 address")
    replace_ipv6: str = Field("2001:db8::1", description="what stands for a public IPv6 address")

    def apply(self, table: pa.Table) -> pa.Table:
        """`table` with `text` rewritten and two counts, int64, of what was replaced; null stays null."""
        text = one_chunk(table["text"])
        text, n_emails = _replace(
            text, pc.match_substring(text, "@"), _EMAIL, _is_personal, self.replace_email
        )
        may_have = pc.match_substring_regex(text, _MAY_HAVE_IPV4)
        text, n_ipv4 = _replace(text, may_have, _IPV4, _is_public_ipv4, self.replace_ip)
        may_have = pc.match_substring_regex(text, _MAY_HAVE_IPV6)
        text, n_ipv6 = _replace(text, may_have, _IPV6, _is_public_ipv6, self.replace_ipv6)
        columns = (text, pa.array(n_emails), pa.array(n_ipv4 + n_ipv6))
        return set_columns(table, dict(zip(self.writes, columns, strict=True)))


def _replace(
    text: pa.Array,
    candidates: pa.Array,
    pattern: re.Pattern[str],
    is_wanted: Callable[[re.Match[str]], bool],
    replacement: str,
) -> tuple[pa.Array, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """`text` with each wanted match in the rows of `candidates` replaced, and how many in each row."""
    n_replaced = np.zeros(len(text), np.int64)
    rows = np.flatnonzero(pc.fill_null(candidates, False).to_numpy(zero_copy_only=False))
    changed: dict[int, str] = {}
    for row in rows.tolist():
        parts, end = [], 0
        original = text[row].as_py()
        for match in filter(is_wanted, pattern.finditer(original)):
            parts += [original[end : match.start()], replacement]
            end = match.end()
        if parts:
            n_replaced[row] = len(parts) // 2
            changed[row] = "".join([*parts, original[end:]])
    if changed:
        mask = np.zeros(len(text), dtype=bool)
        mask[list(changed)] = True
        text = pc.replace_with_mask(text, mask, pa.array(list(changed.values()), text.type))
    return text, n_replaced


def _is_personal(email: re.Match[str]) -> bool:
    return not _RESERVED_DOMAIN.search(email[1])


def _is_public_ipv4(found: re.Match[str]) -> bool:
    address = IPv4Address(found[0])
    return address.is_global and not address.is_multicast and max(address.packed) >= 64


def _is_public_ipv6(found: re.Match[str]) -> bool:
    try:
        return IPv6Address(found[0]).is_global
    except ValueError:
        return False

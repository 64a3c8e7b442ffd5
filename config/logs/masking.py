"""Mask personal data in the log: text that looks like an e-mail address or a phone number.

Ids stay readable: digits without separators count as an id unless they begin with 0.
Each pattern takes time in proportion to the length of the text.
"""

import re
from collections.abc import Mapping, Set
from typing import Any

from config.text.json_input import well_formed

_MASK = "***"
_DEEPEST = 6

# Addresses. Every character but delimiters belongs to the local part (RFC 5321, RFC 6531).
_AT = r"(?:@|%40|\uff20)"
_DOTS = r".\u3002\uff0e\uff61"  # IDNA treats the other three as dots
_LABEL = rf"""[^\s@<>()\[\]{{}},;:"'`\\/?#&=|!{_DOTS}]{{1,63}}"""
_DOMAIN = rf"(?:{_LABEL}(?:[{_DOTS}]{_LABEL}){{1,10}}|\[[^\]\s]{{1,60}}\])"
_QUOTED = rf'"(?:[^"\\\r\n]|\\.){{1,128}}"{_AT}{_DOMAIN}'


def _address(delimiters: str) -> str:
    part = rf'[^\s@<>()\[\],;:"\\{delimiters}]'
    return rf"(?<!{part}){part}+{_AT}{_DOMAIN}"


# Phone numbers: digits with up to three separators between two of them. Several numbers with only
# blanks between them look like one number, so they are masked together.
_GAP = r"[ \u00a0\u2000-\u200a\u202f.\-\u2010-\u2013/()]"
_MORE = rf"(?:{_GAP}{{0,3}}\d)"
_NOT_WITHIN_ID = r"(?<!\w)(?<!\w[-.])(?<!\d:)"
_ENDS = r"(?![-.]?\w)"
_NO_DATE = r"(?!\d\d[./-]\d\d[./-]\d{4}\b)"
_PHONES = "|".join(
    (
        # +44 7700 900123, +44 (0)7700 900123, %2B447700900123
        rf"(?:\+|%2[Bb])[ (]{{0,2}}[1-9]{_MORE}{{6,}}",
        # 07700900123, 0770 090.0123, (0770) 090-0123, 0044 7700 900123; no fraction
        rf"{_NOT_WITHIN_ID}{_NO_DATE}\(?0[ )/\-]{{0,2}}\d{_MORE}{{7,}}{_ENDS}",
        # (555) 010-9999
        rf"{_NOT_WITHIN_ID}\(\d{{2,5}}\){_MORE}{{6,}}{_ENDS}",
        # 555-010-9999
        rf"{_NOT_WITHIN_ID}(?:1[-. ])?\d{{3}}[-. ]\d{{3}}[-. ]\d{{4}}{_ENDS}",
        rf"(?i:(?<=\bwhatsapp:)|(?<=\btel:)|(?<=\bsms:))\d{_MORE}{{6,}}",
    )
)
_ANYWHERE = re.compile(
    rf"""(?P<url>\b[A-Za-z][A-Za-z0-9+.\-]{{0,20}}://[^\s"'<>]*)"""
    rf"|{_QUOTED}|(?P<address>{_address('')})|{_PHONES}"
)
_IN_URL = re.compile(rf"{_address('/?&=')}|{_PHONES}")
# The user and host of a URL are not an address.
_USER = re.compile(r"(?P<user>\w[^/@]*://[^/?#@,;=]*)(?P<host>@[^/?#]*)?(?P<rest>.*)", re.DOTALL)
# Prefixes that may directly precede an address; they are not masked.
_LABELLED = re.compile(
    r"['`{|*]*(?:(?:to|from|cc|bcc|e?mail|address|recipient|sender|user)=)?", re.IGNORECASE
)
# A number in a field with such a name is not an id.
_PERSONAL = frozenset(
    ("address", "email", "from", "mobile", "phone", "phone_number", "recipient", "sender", "to")
)


def mask(text: str) -> str:
    """The text without addresses and phone numbers, and without invalid surrogates."""
    return _ANYWHERE.sub(_masked, well_formed(text))


def plain(fields: Mapping[Any, Any]) -> dict[str, Any]:
    """Convert the fields of a log line to JSON values, with all texts masked, nested ones too.

    A value that JSON cannot represent becomes the name of its type.
    """
    return {mask(str(name)): _field(name, value) for name, value in fields.items()}


def _field(name: object, value: Any) -> Any:
    try:
        return _of(name, value, _DEEPEST)
    except Exception:
        return f"<{type(value).__name__}>"


def _masked(found: re.Match[str]) -> str:
    if url := found["url"]:
        parts = _USER.fullmatch(url)
        assert parts
        user, host, rest = (parts[name] or "" for name in ("user", "host", "rest"))
        return _IN_URL.sub(_MASK, user) + host + _IN_URL.sub(_MASK, rest)
    if address := found["address"]:
        label = _LABELLED.match(address)
        assert label
        return label[0] + _MASK
    return _MASK


def _of(name: object, value: Any, depth: int) -> Any:
    return _MASK if str(name).lower() in _PERSONAL else _plain(value, depth)


def _plain(value: Any, depth: int) -> Any:
    if depth == 0:
        return "…"
    match value:
        case None | bool():
            return value
        case float():
            return float(value)
        case int() if -(2**63) <= value < 2**64:
            return int(value)
        case Mapping():
            return {mask(str(key)): _of(key, one, depth - 1) for key, one in value.items()}
        case list() | tuple() | Set():
            return [_plain(one, depth - 1) for one in value]
        case _:
            return mask(str(value))

"""What a message says once it is rendered, by channel, and how many SMS segments a text takes."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EmailContent:
    subject: str
    html: str
    text: str


@dataclass(frozen=True, slots=True)
class SMSContent:
    body: str


@dataclass(frozen=True, slots=True)
class PushContent:
    title: str
    body: str
    link: str | None = None
    image: str | None = None


Content = EmailContent | SMSContent | PushContent

# The GSM 03.38 alphabet (3GPP TS 23.038, 6.2.1), and those of its extension table, which take an
# escape and so two septets.
_EXTENDED = frozenset("\f^{}\\[~]|€")
_GSM7 = _EXTENDED | frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)


def segments(body: str) -> int:
    """How many SMS segments Twilio bills for `body`.

    One character outside GSM-7 turns the whole message into UCS-2. A single segment holds 160
    septets or 70 UTF-16 units, each of several 153 or 67. A character of two units is never torn
    apart between two segments, so a segment may stay one short.
    """
    if _GSM7.issuperset(body):
        units, alone, joined = [2 if char in _EXTENDED else 1 for char in body], 160, 153
    else:
        units, alone, joined = [2 if char > "\uffff" else 1 for char in body], 70, 67
    return 1 if sum(units) <= alone else sum(1 for _ in _filled(units, joined))


def _filled(units: list[int], size: int) -> Iterator[int]:
    """Pack units greedily into segments of `size`; yields how full each is."""
    used = 0
    for unit in units:
        if used + unit > size:
            yield used
            used = 0
        used += unit
    yield used

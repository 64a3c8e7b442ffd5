"""What a message says once it is rendered, by channel, and how much a channel takes."""

from collections.abc import Iterator
from dataclasses import dataclass

import orjson


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
    silent: bool = False


Content = EmailContent | SMSContent | PushContent

# FCM takes 4096 bytes for the notification and its data (Firebase, "About FCM messages"), and APNs
# as much. Some are left for the names of the fields and the message's id.
PUSH_BYTES = 3800
# A request to SendGrid stays under 30 MB, where what is not ASCII may take several bytes more.
EMAIL_BYTES = 20_000_000


def excess(content: Content, sms_segments: int) -> str | None:
    """How far a message exceeds what its channel takes; None if it fits.

    sms_segments: how many segments a text may have.
    """
    if isinstance(content, SMSContent):
        size, limit, unit = segments(content.body), sms_segments, "segments"
    elif isinstance(content, PushContent):
        said = [content.title, content.body, content.link or "", content.image or ""]
        size, limit, unit = len(orjson.dumps(said)), PUSH_BYTES, "bytes"
    else:
        said = [content.subject, content.html, content.text]
        size, limit, unit = sum(len(part.encode()) for part in said), EMAIL_BYTES, "bytes"
    return f"{size} {unit}, and {limit} fit" if size > limit else None


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

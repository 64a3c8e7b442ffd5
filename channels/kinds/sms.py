"""SMS and the number of billed segments."""

from collections.abc import Iterator
from dataclasses import dataclass

from typing_extensions import override

from config.channels import Channel, Content, masked_number
from config.settings import Settings


@dataclass(frozen=True, slots=True)
class SMSContent(Content):
    """The content of an SMS."""

    body: str

    @override
    def excess(self, settings: Settings) -> str | None:
        size, most = segments(self.body), settings.sms_segments
        return f"{size} segments; the limit is {most}" if size > most else None

    @property
    def billed_segments(self) -> int | None:
        return segments(self.body)


# The GSM 03.38 alphabet (3GPP TS 23.038, 6.2.1). Its extension table takes two septets each.
_EXTENDED = frozenset("\f^{}\\[~]|€")
_GSM7 = _EXTENDED | frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?"
    "¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà"
)


def segments(body: str) -> int:
    """The number of SMS segments that Twilio bills for `body`.

    One character outside GSM-7 makes the whole message UCS-2. A single segment holds 160 septets or
    70 UTF-16 units; each of several segments holds 153 or 67. A character of two units is not split
    between segments.
    """
    if _GSM7.issuperset(body):
        units, alone, joined = [2 if char in _EXTENDED else 1 for char in body], 160, 153
    else:
        units, alone, joined = [2 if char > "\uffff" else 1 for char in body], 70, 67
    return 1 if sum(units) <= alone else sum(1 for _ in _filled(units, joined))


def _filled(units: list[int], size: int) -> Iterator[int]:
    """Fill segments of `size` with units in order; yields the used size of each segment."""
    used = 0
    for unit in units:
        if used + unit > size:
            yield used
            used = 0
        used += unit
    yield used


CHANNEL = Channel(
    name="sms",
    step="SMS",
    order=2,
    title="Text messages",
    plural="text messages",
    short="SMS",
    icon="M4 5.500h16v10.500h-9l-4.500 3.500v-3.500H4z M8 9.500h8 M8 12.500h5",
    address_kind="phone",
    address="phone number",
    no_address="We have no phone number of yours.",
    masked=masked_number,
    consent="opt-in",
    consent_fixed=True,
    has_stop=True,
    stop_label="No texts at all, not even about an order",
    content=SMSContent,
    formats=("txt",),
    # There are no read receipts for SMS.
    evidence={
        "delivered": "the provider",
        "clicked": "your own links, as `sms_clicked`",
        "replied": "the provider",
    },
)

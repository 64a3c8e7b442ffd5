"""WhatsApp messages: approved templates, and free text within 24 hours of a customer's message."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from typing_extensions import override

from config.channels import LANGUAGE, Channel, Content, Header, masked_number
from config.clock.times import HOUR
from config.settings import Settings

# The most characters of free text (Twilio's Messages resource, "Body").
MOST_CHARACTERS = 1600
_VARIABLE = "variable-"


@dataclass(frozen=True, slots=True)
class WhatsAppContent(Content):
    """Free text, or an approved template with the values of its variables.

    template: Twilio's Content SID; None: free text. variables: (number in the template, value).
    """

    body: str = ""
    template: str | None = None
    variables: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, parts: Mapping[str, str], options: Mapping[str, str]) -> Self:
        variables = {
            name.removeprefix(_VARIABLE): value
            for name, value in parts.items()
            if name.startswith(_VARIABLE)
        }
        ordered = sorted(variables.items(), key=lambda one: int(one[0]))
        return cls(parts.get("body", ""), options.get("content-sid"), tuple(ordered))

    @override
    def excess(self, settings: Settings) -> str | None:
        size = len(self.body)
        if size <= MOST_CHARACTERS:
            return None
        return f"{size} characters; the limit is {MOST_CHARACTERS}"


CHANNEL = Channel(
    name="whatsapp",
    step="WhatsApp",
    order=4,
    title="WhatsApp",
    plural="WhatsApp messages",
    short="WhatsApp",
    icon="M4.500 19.500l1.200-3.800a7.500 7.500 0 1 1 2.700 2.600z M9.500 9.500c0 3 2 5 5 5",
    address_kind="phone",
    address="phone number",
    no_address="We have no phone number of yours.",
    masked=masked_number,
    consent="opt-in",
    consent_fixed=True,
    has_stop=True,
    stop_label="No WhatsApp messages at all, not even about an order",
    optional=True,
    content=WhatsAppContent,
    formats=("txt",),
    headers=(
        Header(
            "Content-SID",
            fixed=re.compile("HX[0-9a-fA-F]{32}"),
            expects="the SID of a Content template: HX and 32 hexadecimal digits",
            replaces_body=True,
        ),
        Header("Variable", one_line=True, numbered=True),
        LANGUAGE,
    ),
    evidence={
        "delivered": "the provider",
        "opened": "the provider, as `read`",
        "clicked": "your own links, as `whatsapp_clicked`",
        "replied": "the provider",
    },
    # WhatsApp's customer service window.
    session=24 * HOUR,
)

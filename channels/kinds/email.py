"""E-mail."""

from dataclasses import dataclass

from typing_extensions import override

from config.channels import LANGUAGE, Channel, Content, Header, Masked
from config.settings import Settings

# Bytes. SendGrid's limit for a request is 30 MB; the difference allows for escapes in JSON.
MOST_BYTES = 20_000_000


@dataclass(frozen=True, slots=True)
class EmailContent(Content):
    """The content of an e-mail."""

    subject: str
    html: str
    text: str

    @override
    def excess(self, settings: Settings) -> str | None:
        size = sum(len(part.encode()) for part in (self.subject, self.html, self.text))
        return f"{size} bytes; the limit is {MOST_BYTES}" if size > MOST_BYTES else None


def _masked(address: str) -> Masked:
    name, _, host = address.rpartition("@")
    return Masked("to {shown}", f"{name[:1]}…\N{WORD JOINER}@{host}")


CHANNEL = Channel(
    name="email",
    step="Email",
    order=1,
    title="E-mail",
    plural="e-mail",
    short="e-mail",
    icon="M3 6.5h18v11H3z M3.5 7l8.5 6.5L20.500 7",
    address_kind="email",
    address="e-mail address",
    no_address="We have no working e-mail address of yours.",
    masked=_masked,
    double_opt_in=True,
    unsubscribe_link=True,
    watch_bounces=True,
    content=EmailContent,
    formats=("mjml", "html"),
    headers=(
        Header("Subject", required=True, one_line=True),
        Header("Preheader"),
        LANGUAGE,
    ),
    evidence={
        "delivered": "the provider",
        "opened": "the provider",
        "clicked": "the provider",
    },
)

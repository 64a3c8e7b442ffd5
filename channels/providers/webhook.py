"""What providers post back: the request, and what it says as `Feedback`.

A provider's file checks a request and reads it as a list of Feedback, without any I/O;
`channels/outbox/feedback.py` writes what it says.
"""

import hashlib
import hmac
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from channels.providers.sending import Suppress
from config.channels import ChannelName
from config.clock.times import Instant

# Journeys see each but `sent` as an event: `email_opened`, ...
FeedbackKind = Literal[
    "sent",  # the provider accepted it
    "delivered",
    "opened",
    "machine_opened",  # fetched by a program, without a person
    "clicked",
    "failed",  # it did not arrive
    "bounced",  # the recipient's mail server refused it
    "complained",  # reported as spam
    "unsubscribed",  # no more of the message's topic, or of the whole channel
    "resubscribed",
    "stopped",  # a STOP by text message
    "started",  # a START: revokes a STOP
    "replied",  # any other text message
]


@dataclass(frozen=True, slots=True)
class Feedback:
    """One event that a provider reports.

    id: the provider's event id, after the provider's name. The same id is the same event.
    source: who said what, as the consent record names it: "twilio STOP".
    at: by the provider's clock; None: now.
    address: where the message went, in normal form.
    suppress: the state that the address gets; `opted_out` withdraws consent to the whole channel.
    """

    id: str
    source: str
    channel: ChannelName
    kind: FeedbackKind
    at: Instant | None = None
    message_id: int | None = None
    address: str | None = None
    provider_id: str | None = None
    reason: str | None = None
    suppress: Suppress | None = None
    whole_channel: bool = False
    properties: Mapping[str, Any] = field(default_factory=dict)


class Refused(Exception):
    """The request is not proven to be the provider's, or it is too old. The text is for the log."""


class Unreadable(Exception):
    """The request is the provider's, but is malformed. The text says how."""


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """A request as it arrived.

    url: the address that the provider posted to, with its query.
    headers: by lower-case name.
    now: None under a simulated clock, when no request can be too old.
    """

    url: str
    headers: Mapping[str, str]
    body: bytes
    now: Instant | None


@dataclass(frozen=True, slots=True)
class Webhook:
    """One address that a provider posts to.

    path: begins with /hooks/ and the provider's name.
    admit: checks the headers before the body is read. Raises Refused if the signature or secret is
        missing or cannot be right.
    read: checks the request and reads it. Raises Refused, Unreadable and nothing else.
    limit: the largest body, in bytes.
    """

    path: str
    about: str
    admit: Callable[[Mapping[str, str]], object]
    read: Callable[[WebhookRequest], list[Feedback]]
    limit: int
    answer: bytes = b""
    answer_type: str | None = None


def check_basic_auth(login: str, headers: Mapping[str, str]) -> None:
    """Raises Refused unless the request has the login (`user:password`) by HTTP basic auth (RFC
    7617). Compared in constant time.
    """
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        raise Refused("it has no login (HTTP basic auth)")
    if not hmac.compare_digest(given.strip().encode(), b64encode(login.encode())):
        raise Refused("its login is wrong")


def text_of(event: Mapping[str, Any], name: str) -> str:
    """A field of an event; empty if it is missing or not text."""
    value = event.get(name)
    return value if isinstance(value, str) else ""


def without_address(words: str, *spellings: str) -> str:
    """A mail server's words without the address: reasons hold no personal data."""
    for address in filter(None, spellings):
        words = re.sub(re.escape(address), "…", words, flags=re.IGNORECASE)
    return words


def digest(event: Mapping[str, Any]) -> str:
    """Instead of an id that an event does not have: equal events have equal digests."""
    packed = orjson.dumps(event, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(packed).hexdigest()[:32]


def our_id(text: object) -> int | None:
    """Our message id as a provider returns it; None for anything else."""
    if isinstance(text, str) and len(text) < 19 and text.isascii() and text.isdecimal():
        return int(text)
    return None

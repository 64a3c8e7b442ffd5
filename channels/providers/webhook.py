"""Webhook requests of providers, and the reports in them as `Feedback`.

A provider's module verifies and parses a request, without I/O; `channels/feedback/apply.py`
applies the reports.
"""

import hashlib
import hmac
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

import orjson

from channels.providers.sending import Suppress
from config.channels import ChannelName
from config.clock.times import Instant

# Each kind except `sent` is recorded as an event for journeys: `email_opened`, ...
FeedbackKind = Literal[
    "sent",  # the provider accepted it
    "delivered",
    "opened",
    "machine_opened",  # fetched by a program, not opened by a person
    "clicked",
    "failed",  # it did not arrive
    "bounced",  # the recipient's mail server refused it
    "complained",  # reported as spam
    "unsubscribed",  # from the message's topic, or from the whole channel
    "resubscribed",
    "stopped",  # a STOP by text message
    "started",  # a START: revokes a STOP
    "replied",  # any other text message
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """One event that a provider reports.

    id: provider name and event id. Reports with the same id are the same event.
    source: provider and kind of statement, for the consent record: "twilio STOP".
    at: by the provider's clock; None: now.
    address: the address of the message, normalized.
    suppress: why the address is suppressed; `opted_out` withdraws consent to the whole channel.
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
    """The request is not authenticated or is too old. The text is for the log."""


class Unreadable(Exception):
    """The request is authenticated but malformed. The text names the error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookRequest:
    """A webhook request.

    url: the full URL that the provider posted to, with its query.
    headers: by lower-case name.
    now: None under a simulated clock; then no request is too old.
    """

    url: str
    headers: Mapping[str, str]
    body: bytes
    now: Instant | None


@dataclass(frozen=True, slots=True)
class Webhook:
    """One endpoint that a provider posts to.

    path: begins with /hooks/ and the provider's name.
    about: description for the API documentation.
    admit: checks the headers before the body is read. Raises Refused if the signature or secret is
        missing or invalid.
    read: authenticates and parses the request. Raises only Refused and Unreadable.
    limit: the largest body, in bytes.
    answer, answer_type: body and content type of the response.
    """

    path: str
    _: KW_ONLY
    about: str
    admit: Callable[[Mapping[str, str]], object]
    read: Callable[[WebhookRequest], list[Feedback]]
    limit: int
    answer: bytes = b""
    answer_type: str | None = None


def check_basic_auth(login: str, headers: Mapping[str, str]) -> None:
    """Check the login (`user:password`) of HTTP basic auth (RFC 7617), in constant time.

    Raises Refused.
    """
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        raise Refused("the request has no HTTP basic auth")
    if not hmac.compare_digest(given.strip().encode(), b64encode(login.encode())):
        raise Refused("the login of HTTP basic auth is wrong")


def text_of(event: Mapping[str, Any], name: str) -> str:
    """A field of an event; empty if it is missing or not text."""
    value = event.get(name)
    return value if isinstance(value, str) else ""


def without_address(words: str, *spellings: str) -> str:
    """A provider's text without the address, because reasons must hold no personal data."""
    for address in filter(None, spellings):
        words = re.sub(re.escape(address), "…", words, flags=re.IGNORECASE)
    return words


def digest(event: Mapping[str, Any]) -> str:
    """A substitute for a missing event id: equal events have equal digests."""
    packed = orjson.dumps(event, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(packed).hexdigest()[:32]


def our_id(text: object) -> int | None:
    """Our message id from a provider's text; None if it is not one."""
    if isinstance(text, str) and len(text) < 19 and text.isascii() and text.isdecimal():
        return int(text)
    return None

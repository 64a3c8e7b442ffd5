"""What is handed to a provider, and what its answer means for each message.

A sender turns a batch of messages into one HTTP request and reads the answer. It does no I/O:
channels/providers/transport.py posts, and the outbox decides what happens next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Literal, NamedTuple, Protocol

import httpx
import orjson

from config.channels import Content
from config.clock.times import HOUR, Instant, Seconds

SendResult = Literal[
    "sent",  # accepted
    "retry",  # not accepted, may be accepted later
    "failed",  # not accepted, and never will be
    "stopped",  # our account or settings are wrong: the provider would accept no message of ours
    "unknown",  # perhaps accepted: never sent again
]
# The state that an address gets. `opted_out` is not a state of the address: the provider knows of
# a STOP, and consent is withdrawn.
Suppress = Literal["bounced", "unregistered", "complained", "opted_out"]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One rendered message to one address. A push has one for each device.

    unsubscribe_url: set on marketing e-mail only.
    ttl: seconds after `now`, the moment of the hand-over, during which delivery makes sense.
    """

    message_id: int
    to: str
    content: Content
    platform: str | None
    unsubscribe_url: str | None
    topic: str
    kind: str
    journey: str
    step: str
    ttl: Seconds | None
    now: Instant | None = None

    def __post_init__(self) -> None:
        if self.ttl is not None and self.now is None:
            raise ValueError("a ttl needs `now`: Apple wants the moment at which a message ends")


@dataclass(frozen=True, slots=True)
class ProviderRequest:
    """One HTTP request to a provider."""

    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class SendOutcome:
    """What a provider's answer means for one message.

    retry_after: seconds, if the answer names them.
    first_wait: seconds before the first retry by the provider's rules, if the answer names none.
    """

    message_id: int
    result: SendResult
    reason: str | None = None
    provider_id: str | None = None
    retry_after: Seconds | None = None
    first_wait: Seconds | None = None
    suppress: Suppress | None = None


class ErrorMeaning(NamedTuple):
    """What an error code of a provider means for the message, and for its address.

    words: for the message's reason; empty: the provider's own words.
    """

    result: SendResult
    words: str = ""
    suppress: Suppress | None = None


class DoesNotFit(Exception):
    """This batch does not fit into one request; a smaller one does. Not raised for one message."""


class SignInFailed(Exception):
    """Raised by `auth` before anything is sent: the provider refuses our account.

    The text is the reason.
    """


class Sender(Protocol):
    """A provider's API, for one account.

    batch_size: the most messages that fit into one request. A batch has each message once.
    auth: signs requests, where that takes more than a header known beforehand (a token that
        expires); otherwise None.
    """

    @property
    def batch_size(self) -> int: ...

    @property
    def auth(self) -> httpx.Auth | None: ...

    def prepare(self, batch: Sequence[Outgoing]) -> ProviderRequest:
        """The request that hands over the whole batch. Pure. Raises DoesNotFit."""

    def read(
        self, status: int, headers: Mapping[str, str], body: bytes, batch: Sequence[Outgoing]
    ) -> list[SendOutcome]:
        """One outcome for each message of the batch. Pure; accepts any answer without raising.

        headers: by lower-case name.
        """


def result_of(status: int) -> SendResult:
    """What an HTTP status means, if the body has no error code that we know.

    Only 429 and 503 say that the request was not accepted. A 500 may follow acceptance; 408, 502
    and 504 often come from a proxy that does not know. No provider has an idempotency key, so a
    repeat could send a message twice.
    """
    if 200 <= status < 300:
        return "sent"
    if status in (429, 503):
        return "retry"
    if status == 408 or status >= 500:
        return "unknown"
    # Wrong credentials, URL or rights: every other message would be refused too.
    if status < 400 or status in (401, 403, 404, 405):
        return "stopped"
    return "failed"


LONGEST_WAIT: Seconds = HOUR


def retry_after(headers: Mapping[str, str]) -> Seconds | None:
    """Retry-After (RFC 9110, 10.2.3) in seconds, from 1 to LONGEST_WAIT; None without one.

    A date is compared with the Date of the same answer, so the clock of this machine has no effect.
    """
    value = headers.get("retry-after", "").strip()
    if value.isdecimal():
        return bounded(int(value[:9]))
    until, now = _http_date(value), server_time(headers)
    return bounded(until - now) if until is not None and now is not None else None


def server_time(headers: Mapping[str, str]) -> Instant | None:
    """When the provider answered, by its own clock; None without a Date header."""
    return _http_date(headers.get("date", ""))


def bounded(wait: Seconds) -> Seconds:
    """A wait that a provider names, from 1 to LONGEST_WAIT seconds."""
    return max(1, min(wait, LONGEST_WAIT))


def _http_date(value: str) -> Instant | None:
    try:
        moment = parsedate_to_datetime(value)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, TypeError, OverflowError):
        return None


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in a body; empty if the body is anything else."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}


def outcomes(
    batch: Sequence[Outgoing], result: SendResult, reason: str | None, wait: Seconds | None = None
) -> list[SendOutcome]:
    """The same outcome for every message of a batch."""
    return [
        SendOutcome(message_id=one.message_id, result=result, reason=reason, retry_after=wait)
        for one in batch
    ]

"""Requests to providers and the outcomes of their answers.

A sender turns a batch of messages into one HTTP request and reads the answer. It does no I/O:
channels/providers/transport.py posts, and the outbox decides what happens next.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Literal, NamedTuple, Protocol

import orjson

from config.channels import Content
from config.clock.times import HOUR, Instant, Seconds

SendResult = Literal[
    "sent",  # accepted
    "retry",  # not accepted; may be accepted later
    "failed",  # permanently refused
    "stopped",  # our account or settings are wrong; the provider would refuse every message
    "unknown",  # perhaps accepted; never sent again
]
# Why an address is suppressed. `opted_out` does not suppress it: the provider reports a STOP, which
# withdraws consent.
Suppress = Literal["bounced", "unregistered", "complained", "opted_out"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One rendered message to one address. A push has one for each device.

    unsubscribe_url: set for marketing e-mail only.
    ttl: seconds after `now` (the hand-over) after which the provider must not deliver it.
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
            raise ValueError(
                "ttl needs `now`: Apple requires the instant at which a message expires"
            )


@dataclass(frozen=True, slots=True)
class ProviderRequest:
    """One HTTP request to a provider."""

    method: str
    url: str
    _: KW_ONLY
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class SendOutcome:
    """The outcome of a hand-over for one message.

    retry_after: seconds, if the answer has them.
    first_wait: seconds before the first retry by the provider's rules, if the answer has none.
    """

    message_id: int
    result: SendResult
    _: KW_ONLY
    reason: str | None = None
    provider_id: str | None = None
    retry_after: Seconds | None = None
    first_wait: Seconds | None = None
    suppress: Suppress | None = None


class ErrorMeaning(NamedTuple):
    """The meaning of a provider's error code for the message and its address.

    words: text for the message's reason; empty: the provider's text is used.
    """

    result: SendResult
    words: str = ""
    suppress: Suppress | None = None


class DoesNotFit(Exception):
    """The batch does not fit into one request. Never raised for a single message."""


class SignInFailed(Exception):
    """The provider refuses our credentials. Raised by `auth` before the request is sent.

    The text is the reason.
    """


# Gives the value of the Authorization header, from a token that expires. Raises SignInFailed if the
# provider refuses the account, httpx.ConnectError if it is unreachable.
Authorize = Callable[[], Awaitable[str]]


class Sender(Protocol):
    """A provider's API, for one account.

    batch_size: the most messages that fit into one request. A batch has each message once.
    auth: gives the token that authenticates requests; None if fixed headers are enough.
    """

    @property
    def batch_size(self) -> int: ...

    @property
    def auth(self) -> Authorize | None: ...

    def prepare(self, batch: Sequence[Outgoing]) -> ProviderRequest:
        """The request that hands over the whole batch. Pure. Raises DoesNotFit."""

    def read(
        self, status: int, headers: Mapping[str, str], body: bytes, batch: Sequence[Outgoing]
    ) -> list[SendOutcome]:
        """One outcome for each message of the batch. Pure; never raises, whatever the answer is.

        headers: by lower-case name.
        """


def result_of(status: int) -> SendResult:
    """The result for an HTTP status, if the body has no known error code.

    Only 429 and 503 mean that the request was not accepted. A 500 may follow acceptance; 408, 502
    and 504 may come from a proxy. No provider has an idempotency key, so a retry could send a
    message twice.
    """
    if 200 <= status < 300:
        return "sent"
    if status in (429, 503):
        return "retry"
    if status == 408 or status >= 500:
        return "unknown"
    # Wrong credentials, URL or permissions: all messages would be refused.
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
    """The time of the answer by the provider's clock; None without a Date header."""
    return _http_date(headers.get("date", ""))


def bounded(wait: Seconds) -> Seconds:
    """A provider's wait, limited to 1 to LONGEST_WAIT seconds."""
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

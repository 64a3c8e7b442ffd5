"""The seam between the outbox and the providers: one file in channels/providers/ for each.

A provider turns a batch of messages into one HTTP request and reads the answer. It does no I/O
itself: channels/providers/transport.py posts, and the outbox decides what happens next.
"""

import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from importlib import import_module
from types import ModuleType
from typing import Any, Literal, Protocol, runtime_checkable

import httpx
import orjson

import channels.providers
from channels.templates.content import Content
from config.errors import SegueError
from config.policy import CHANNELS, Channel
from config.required import refuse_unmet_needs
from config.settings import Settings
from config.times import HOUR, Instant, Seconds

Result = Literal[
    "sent",  # accepted
    "retry",  # surely not accepted: try later
    "failed",  # never
    "stopped",  # it is us and not the message: nothing on this channel would get through
    "unknown",  # perhaps accepted: never to be sent again
]
# What an address becomes; `opted_out` is no state of it but a STOP that the provider knew of.
Suppress = Literal["bounced", "unregistered", "complained", "opted_out"]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One rendered message on its way out to one address; a push has one for each device.

    `unsubscribe_url` is there on marketing mail only. `ttl` says for how many seconds after `now`,
    the moment of the hand-over, the message is worth delivering.
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
class Request:
    """One HTTP request."""

    method: str
    url: str
    headers: Mapping[str, str]
    content: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one message.

    `retry_after`: seconds, where the answer named them. `first_wait`: what the provider's rules ask
    for at the first try where an answer names none.
    """

    message_id: int
    result: Result
    reason: str | None = None
    provider_id: str | None = None
    retry_after: Seconds | None = None
    first_wait: Seconds | None = None
    suppress: Suppress | None = None


class DoesNotFit(Exception):
    """This batch can't go in one request; a smaller one can. Never raised for a single message."""


class ChannelDown(Exception):
    """Raised by `auth` before anything left: we can't sign in. Its text is the reason."""


@runtime_checkable
class Provider(Protocol):
    """What a module in channels/providers/ gives back from `connect(settings)`.

    `batch_size` messages at most go into one request, none of them twice. `auth` signs requests
    where that takes more than a header known beforehand (a token that expires); else it is None.
    """

    channel: Channel
    batch_size: int
    auth: httpx.Auth | None

    def prepare(self, batch: Sequence[Outgoing]) -> Request:
        """The request that hands over the whole batch. Pure. Raises DoesNotFit."""

    def read(
        self, status: int, headers: Mapping[str, str], body: bytes, batch: Sequence[Outgoing]
    ) -> list[Outcome]:
        """One outcome for each message of the batch. Pure; takes any answer without raising.

        `headers` are looked up by their names in lower case.
        """


def provider_names(package: ModuleType = channels.providers) -> list[str]:
    """The modules in channels/providers/."""
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    return [
        name for name in names if name not in ("base", "transport", "webhook") and "_" not in name
    ]


def providers(
    settings: Settings, package: ModuleType = channels.providers
) -> dict[Channel, Provider]:
    """Every provider in channels/providers/, by its channel. Raises SegueError."""
    names = provider_names(package)
    refuse_unmet_needs(settings, names)
    found: dict[Channel, Provider] = {}
    for module in names:
        name = f"{package.__name__}.{module}"
        provider = _connect(name, settings)
        if provider.channel in found:
            other = type(found[provider.channel]).__module__
            raise SegueError(
                f"{other} and {name} both send {provider.channel}; keep one of the two"
            )
        found[provider.channel] = provider
    return found


def _connect(name: str, settings: Settings) -> Provider:
    try:
        provider = import_module(name).connect(settings)
    except SegueError:
        raise
    except Exception as error:
        raise SegueError(
            f"the provider {name} does not start: {type(error).__name__}: {error}. It needs a "
            "function connect(settings) that gives a Provider (docs/channels.md)"
        ) from error
    if not isinstance(provider, Provider) or provider.channel not in CHANNELS:
        raise SegueError(
            f"the provider {name} gives no Provider from connect(settings): it needs a channel "
            f"({', '.join(CHANNELS)}), batch_size, auth, prepare and read (docs/channels.md)"
        )
    return provider


def result_of(status: int) -> Result:
    """What an HTTP status says where the body does not say it better.

    Only 429 and 503 say that the request was not taken on. A provider that failed at it (500) may
    have done so after it was accepted; a time-out (408, 504) and a bad gateway (502) are often told
    by somebody in between who lost sight of it. No provider knows an idempotency key, so to try
    these again might be to send twice.
    """
    if 200 <= status < 300:
        return "sent"
    if status in (429, 503):
        return "retry"
    if status == 408 or status >= 500:
        return "unknown"
    # Our credentials, our address of the provider, our rights: no message would fare better.
    if status < 400 or status in (401, 403, 404, 405):
        return "stopped"
    return "failed"


LONGEST_WAIT: Seconds = HOUR


def retry_after(headers: Mapping[str, str]) -> Seconds | None:
    """Retry-After (RFC 9110, 10.2.3) in seconds, from 1 to LONGEST_WAIT; None without one.

    A date is read against the Date of the same answer, so that a wrong clock here does no harm.
    """
    value = headers.get("retry-after", "").strip()
    if value.isdecimal():
        return bounded(int(value[:9]))
    until, now = _http_date(value), server_time(headers)
    return bounded(until - now) if until is not None and now is not None else None


def server_time(headers: Mapping[str, str]) -> Instant | None:
    """When the provider answered, by its own clock."""
    return _http_date(headers.get("date", ""))


def bounded(wait: Seconds) -> Seconds:
    """A wait named by a provider, kept within reason."""
    return max(1, min(wait, LONGEST_WAIT))


def _http_date(value: str) -> Instant | None:
    try:
        moment = parsedate_to_datetime(value)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, TypeError, OverflowError):
        return None


def json_object(body: bytes) -> dict[str, Any]:
    """The JSON object in an answer; empty when it holds none."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return answer if isinstance(answer, dict) else {}


def outcomes(
    batch: Sequence[Outgoing], result: Result, reason: str | None, wait: Seconds | None = None
) -> list[Outcome]:
    """The same outcome for every message of a batch."""
    return [
        Outcome(message_id=one.message_id, result=result, reason=reason, retry_after=wait)
        for one in batch
    ]

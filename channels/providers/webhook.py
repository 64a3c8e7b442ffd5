"""The seam between what providers post back and our rows: one file in channels/providers/ for each.

A module there checks a request and reads it as a list of Feedback, without any I/O;
`channels/outbox/feedback.py` writes what it says.
"""

import pkgutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

import channels.providers
from channels.providers.base import Suppress
from config.policy import Channel, Policy
from config.settings import Settings
from config.times import Instant

# What journeys see as an event, `email_opened` ...; `sent` alone is none.
Kind = Literal[
    "sent",  # the provider has it
    "delivered",
    "opened",
    "machine_opened",  # fetched by a program, with nobody looking
    "clicked",
    "failed",  # it did not arrive
    "bounced",  # it did not arrive, says the recipient's mail server
    "complained",  # called spam
    "unsubscribed",  # no more of the message's topic, or of the whole channel
    "resubscribed",
    "stopped",  # a STOP by text message
    "started",  # a START: takes a STOP back
    "replied",  # a text message that says something else
]


@dataclass(frozen=True, slots=True)
class Feedback:
    """One thing that a provider says.

    id: the provider's own of it, with the provider's name: the same id is the same event.
    source: whose word for what, as it stands in the record of consent: "twilio STOP".
    at: by the provider's clock; None: now. address: whose message it was, in normal form.
    suppress: what the address becomes by it; `opted_out` is a no to the whole channel.
    """

    id: str
    source: str
    channel: Channel
    kind: Kind
    at: Instant | None = None
    message_id: int | None = None
    address: str | None = None
    provider_id: str | None = None
    reason: str | None = None
    suppress: Suppress | None = None
    whole_channel: bool = False
    properties: Mapping[str, Any] = field(default_factory=dict)


class Refused(Exception):
    """It is not the provider's, or too old, or we can't tell. The text says which, for the log."""


class Unreadable(Exception):
    """It is the provider's, but makes no sense. The text says why."""


@dataclass(frozen=True, slots=True)
class Posted:
    """A request as it came.

    url: the address that the provider posted to, with its query. headers: looked up by their names
    in lower case. now: None where the clock is simulated, for then nothing can be told to be stale.
    """

    url: str
    headers: Mapping[str, str]
    body: bytes
    now: Instant | None


@dataclass(frozen=True, slots=True)
class Hook:
    """One address that a provider posts to.

    admit: looks at the headers before the body is read. Raises Refused when the signature is
    missing or can't be one. read: what the request says, checked first. Raises Refused, Unreadable
    and nothing else. limit: the largest body, in bytes.
    """

    path: str
    about: str
    admit: Callable[[Mapping[str, str]], object]
    read: Callable[[Posted], list[Feedback]]
    limit: int
    answer: bytes = b""
    answer_type: str | None = None


def hooks(settings: Settings, policy: Policy) -> list[Hook]:
    """The hooks of every module in channels/providers/. Raises SegueError for an unusable key."""
    found: list[Hook] = []
    for module in pkgutil.iter_modules(channels.providers.__path__, "channels.providers."):
        made = import_module(module.name)
        if made is not sys.modules[__name__] and hasattr(made, "hooks"):
            found += made.hooks(settings, policy)
    return found


def our_id(text: object) -> int | None:
    """A message id of ours as it comes back; None for anything else."""
    if isinstance(text, str) and len(text) < 19 and text.isascii() and text.isdecimal():
        return int(text)
    return None

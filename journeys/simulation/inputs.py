"""What comes from outside in a simulation, each with the time at which it is worked."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from channels.providers.sending import Suppress
from channels.providers.webhook import FeedbackKind
from config.channels import ChannelName
from config.clock.times import Instant, Seconds


class ShopEvent(NamedTuple):
    """An event of a profile.

    occurred_at: None: when it is worked. waited: seconds from its receipt until then.
    """

    profile_id: int
    name: str
    properties: dict[str, Any]
    dedupe_key: str
    occurred_at: Instant | None = None
    waited: Seconds = 0


class MessageKey(NamedTuple):
    """A message without its row number, which differs between databases.

    entered_at: of its enrollment.
    """

    profile_id: int
    journey: str
    entered_at: Instant
    entry_key: str
    step: str
    member: str


class AnswerInput(NamedTuple):
    """What happened to a message: delivered, opened, clicked, unsubscribed ...

    message: the message, or its id in the copy; None: a report about an address alone.
    """

    id: str
    channel: ChannelName
    kind: FeedbackKind
    message: MessageKey | int | None
    address: str | None = None
    at: Instant | None = None
    reason: str | None = None
    suppress: Suppress | None = None
    properties: dict[str, Any] | None = None


class Purchase(NamedTuple):
    """The event that a customer causes who got a message.

    same: the property that equals the one of the entry, such as a cart id; None: none does.
    """

    message: int
    name: str
    properties: dict[str, Any]
    same: str | None


class ConsentInput(NamedTuple):
    """A statement of consent that is no answer to a message."""

    profile_id: int
    channel: ChannelName
    topic: str
    granted: bool | None
    occurred_at: Instant
    source: str


class LaunchOf(NamedTuple):
    """A launch. people: the most profiles that enter; None: no limit."""

    id: str
    journey: str
    audience: str
    people: int | None = None


class StartOf(NamedTuple):
    """A start of a journey for listed profiles, each with its context."""

    id: str
    journey: str
    each: tuple[tuple[int, dict[str, Any]], ...]


class NewProfile(NamedTuple):
    """A profile comes into being. row: of its table."""

    row: dict[str, Any]


class Examination(NamedTuple):
    """A worker looks for profiles that joined an entry's segment because time has passed."""

    journey: str


Input = (
    ShopEvent
    | AnswerInput
    | Purchase
    | ConsentInput
    | LaunchOf
    | StartOf
    | NewProfile
    | Examination
)


@dataclass(slots=True)
class Inputs:
    """Inputs by the time at which they are worked."""

    at: dict[Instant, list[Input]] = field(default_factory=dict)

    def add(self, at: Instant, inputs: Sequence[Input]) -> None:
        """Add inputs that are worked at this time, after those that are there."""
        self.at.setdefault(at, []).extend(inputs)

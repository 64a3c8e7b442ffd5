"""What a claim is, and what claiming needs from journeys. claim.py takes claims."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from channels.outbox.rows import MessageRow
from channels.rules.loaders import Marks
from channels.rules.recipient import Kind, Recipient, Target
from channels.templates.compile import Template
from config.channels import ChannelName
from config.clock.times import Instant
from config.database.engine import Tx


class Journeys(Protocol):
    """What the outbox needs from journeys; channels do not import them."""

    def held(self, tx: Tx) -> Collection[str]:
        """The paused journeys; their messages are not claimed."""

    def unwanted(self, tx: Tx, rows: Sequence[MessageRow]) -> Mapping[int, str]:
        """The messages to cancel, by id, each with the reason."""

    def contexts(self, tx: Tx, enrollment_ids: Sequence[int]) -> Mapping[int, Mapping[str, Any]]:
        """The template variables of each enrollment, by id."""

    def settled(self, tx: Tx, enrollment_ids: Sequence[int]) -> None:
        """Make the enrollments due whose messages were sent or refused.

        The caller holds profiles or messages, so this does not wait for locked enrollments.
        """

    def following(
        self, tx: Tx, enrollment_ids: Collection[int], profile_ids: Collection[int], *, move: bool
    ) -> AbstractContextManager["Following"]:
        """Lock the enrollments that wait for messages, and the profiles, for a block that records
        the outcomes. At its end the enrollments are moved on or, without `move`, made due.
        """

    def template(self, journey: str, version: str, step: str, member: str) -> Template:
        """The compiled template of a message."""


class Following(Protocol):
    """The enrollments whose messages are being recorded."""

    @property
    def more(self) -> bool:
        """After the block: whether enrollments or messages are due now."""


class ClaimFailed(Exception):
    """The evaluation of these messages failed, and the database is not the reason.

    `__cause__` is the error.
    """

    def __init__(self, message_ids: Sequence[int]) -> None:
        super().__init__(f"{len(message_ids)} messages can't be claimed")
        self.message_ids = message_ids


class Claim(NamedTuple):
    """A message that only this process may hand over, until `not_after`.

    targets: one address, or for a push all devices.
    """

    message_id: int
    profile_id: int
    enrollment_id: int
    journey: str
    version: str
    step: str
    member: str
    channel: ChannelName
    kind: Kind
    topic: str
    attempts: int
    send_at: Instant
    not_after: Instant
    closes: Instant | None  # when the channel's window or the session ends; None: never
    targets: Sequence[Target]
    context: Mapping[str, Any]
    marks: Marks


class Claimed(NamedTuple):
    """The result of claiming a batch.

    more: whether more messages may be due that can be claimed now.
    refused: messages that were refused or cancelled, by journey, channel and reason.
    """

    claims: list[Claim]
    more: bool
    refused: Counter[tuple[str, ChannelName, str]]


# The recipients of messages that a transaction planned for now, by enrollment and step.
PlannedNow = Mapping[tuple[int, str], Recipient]

"""What the outbox reads of a message to decide it, as one type for planning and claiming."""

from typing import NamedTuple

from channels.messages import messages
from channels.rules.planner import Mode, OnCap
from channels.rules.recipient import Kind
from config.channels import ChannelName
from config.clock.times import Instant, Seconds


class MessageRow(NamedTuple):
    """A row of `messages` without the decision, which takes longer to read than all the rest.

    Made of a row of `select(*MESSAGE_COLUMNS)`.
    """

    id: int
    profile_id: int
    enrollment_id: int
    journey: str
    version: str
    step: str
    member: str
    channel: ChannelName
    kind: Kind
    topic: str
    priority: int
    mode: Mode
    after: Seconds
    on_cap: OnCap
    latest_anchor: Instant
    send_at: Instant
    attempts: int


MESSAGE_COLUMNS = [messages.c[name] for name in MessageRow._fields]


class RefusedMessage(NamedTuple):
    """A message that was planned and does not go; why: a Reason, or what the claim found."""

    message: MessageRow
    why: str

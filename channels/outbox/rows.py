"""The columns of a message that planning and claiming read, as one type."""

from typing import NamedTuple

from channels.messages import messages
from channels.rules.planner import Mode, OnCap
from channels.rules.recipient import Kind
from config.channels import ChannelName
from config.clock.times import Instant, Seconds


class MessageRow(NamedTuple):
    """A row of `select(*MESSAGE_COLUMNS)`.

    `decision` is left out: parsing its JSON takes longer than reading all other columns.
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
    """A planned message that was refused. why: a Reason, or the state that the claim gave it."""

    message: MessageRow
    why: str

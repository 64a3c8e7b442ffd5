"""The outbox: one row for each message wanted, refusals included, with its decision in it."""

from typing import Any, ClassVar, Literal

from sqlalchemy import BigInteger, Column, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from config.database import table_of
from config.times import Instant
from profiles.tables import JSON_COLUMN, id_column

MessageState = Literal[
    "planned",  # waits for its send_at, and holds its place in the caps
    "sending",  # claimed by a process that is about to hand it over
    "sent",  # the provider accepted it; a push: for one device at least
    "delivered",  # the provider says that it arrived
    "unknown",  # handed over, perhaps: never sent again on its own
    "skipped",  # refused before it was ever handed over; `reason` says why
    "cancelled",  # no longer wanted
    "failed",  # the provider refused it for good
]
# What became of a push on one device.
DeviceState = Literal[
    "sending",  # claimed by a process that is about to hand it over
    "sent",
    "delivered",
    "unknown",  # handed over, perhaps: never sent to this device again
    "later",  # not handed over: tried again with the message
    "dropped",  # not handed over, and not tried again
    "failed",
]
# What holds a place in the caps.
COUNTING_STATES: tuple[MessageState, ...] = ("planned", "sending", "sent", "delivered", "unknown")


class Message(SQLModel, table=True):
    """One communication to one profile on one channel."""

    __tablename__: ClassVar[str] = "message"
    __table_args__ = (
        UniqueConstraint(
            "enrollment_id", "step", "member", "profile_id", name="uq_message_wanted_once"
        ),
        Index("ix_message_history", "profile_id", "send_at"),
        Index(
            "ix_message_due",
            "channel",
            "send_at",
            sqlite_where=text("state = 'planned'"),
            postgresql_where=text("state = 'planned'"),
        ),
        Index(
            "ix_message_in_flight",
            "not_after",
            sqlite_where=text("state = 'sending'"),
            postgresql_where=text("state = 'sending'"),
        ),
        Index("ix_message_report", "journey", "channel", "state"),
    )

    id: int = Field(sa_column=id_column())
    profile_id: int = Field(sa_type=BigInteger)
    enrollment_id: int = Field(sa_type=BigInteger)
    journey: str
    version: str
    step: str
    member: str = Field(description="the member of the step's group; unique within the step")
    channel: str
    kind: str = Field(description="marketing or transactional")
    topic: str
    priority: int
    # how it was wanted, so that it can be decided again
    mode: str
    after: int = Field(description="offset from the group's anchor, seconds")
    on_cap: str
    wanted_at: Instant = Field(sa_type=BigInteger)
    deadline: Instant = Field(sa_type=BigInteger, description="the latest anchor: + max_delay")
    send_at: Instant = Field(
        sa_type=BigInteger, description="planned for; from the hand-over on, when it went"
    )
    state: str = Field(description="MessageState")
    reason: str | None = Field(default=None, description="why it does not go: decide.Reason, ...")
    decision: dict[str, Any] = Field(sa_column=Column(JSON_COLUMN, nullable=False))
    attempts: int = Field(default=0, description="hand-overs tried")
    not_after: Instant | None = Field(
        default=None, sa_type=BigInteger, description="a claim that was not used by then is void"
    )
    claimed_by: str | None = None
    provider_id: str | None = Field(default=None, description="the provider's id of it")
    segments: int | None = Field(default=None, description="of a text message")


class MessageDevice(SQLModel, table=True):
    """What became of a push on one of the person's devices; written in the claim.

    Pushes that an earlier release handed over have no such rows.
    """

    __tablename__: ClassVar[str] = "message_device"
    __table_args__ = (
        Index("ix_message_device_profile", "profile_id"),
        Index(
            "ix_message_device_in_flight",
            "not_after",
            sqlite_where=text("state = 'sending'"),
            postgresql_where=text("state = 'sending'"),
        ),
    )

    message_id: int = Field(sa_type=BigInteger, primary_key=True)
    token: str = Field(primary_key=True, description="the device's, as it was in the claim")
    profile_id: int = Field(sa_type=BigInteger)
    state: str = Field(description="DeviceState")
    reason: str | None = None
    attempts: int = Field(description="the message's hand-overs, up to the last to this device")
    not_after: Instant | None = Field(
        default=None, sa_type=BigInteger, description="of the claim, while it is `sending`"
    )
    retry_at: Instant | None = Field(
        default=None, sa_type=BigInteger, description="not again before, where the provider said so"
    )
    provider_id: str | None = Field(default=None, description="the provider's id of it")


class ChannelPace(SQLModel, table=True):
    """How much all processes together handed over on a channel in its latest second.

    Counted are messages, of a push each device.
    """

    __tablename__: ClassVar[str] = "channel_pace"

    channel: str = Field(primary_key=True)
    second: Instant = Field(sa_type=BigInteger)
    used: int = Field(description="more than the rate: it is taken off the seconds that follow")


messages = table_of(Message)
message_devices = table_of(MessageDevice)
channel_paces = table_of(ChannelPace)

"""The outbox: one row for each message wanted, refusals included, with its decision in it.

Everybody may read these tables; only transitions.py and device_transitions.py write them.
"""

from typing import Any, ClassVar

from sqlalchemy import BigInteger, Column, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from config.clock.times import Instant
from config.database.engine import table_of
from profiles.tables import JSON_COLUMN, bucket_column, id_column


class Message(SQLModel, table=True):
    """One communication to one profile on one channel."""

    __tablename__: ClassVar[str] = "message"
    __table_args__ = (
        UniqueConstraint(
            "enrollment_id", "step", "member", "profile_id", "bucket", name="uq_message_wanted_once"
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
    latest_anchor: Instant = Field(
        sa_type=BigInteger, description="of its group: wanted_at + max_delay"
    )
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
    address: str | None = Field(
        default=None,
        description="what it was handed over to, written in the claim; a push: `message_device` "
        "has the tokens. Empty: never claimed, or before the schema 0014",
    )
    bucket: int = Field(sa_column=bucket_column())


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
    bucket: int = Field(sa_column=bucket_column(primary_key=True))
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


messages = table_of(Message)
message_devices = table_of(MessageDevice)

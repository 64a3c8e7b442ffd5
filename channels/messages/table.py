"""The tables of the outbox: one row for each wanted message, also if it was refused.

Any module may read these tables; only transitions.py, device_transitions.py, past.py
and nameless.py write them.
"""

from typing import Any, ClassVar

from sqlalchemy import BigInteger, Column, Index, UniqueConstraint, text
from sqlmodel import Field, SQLModel

from config.clock.times import Instant
from config.database.engine import ON_POSTGRESQL, table_of
from profiles.tables import JSON_COLUMN, bucket_column, id_column


class Message(SQLModel, table=True):
    """One planned, sent or refused message to one profile on one channel."""

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
        # Reports on a period read it. Rows come in the order of these times, so a summary of each
        # block is enough; SQLite has no such index.
        Index("ix_message_at", "send_at", "wanted_at", postgresql_using="brin", info=ON_POSTGRESQL),
        # Reports read it alone. Reasons have at most some hundred characters.
        Index("ix_message_report", "journey", "channel", "state", postgresql_include=["reason"]),
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
    # mode, after, on_cap and latest_anchor are kept so that the message can be decided again
    mode: str
    after: int = Field(description="offset from the group's anchor, seconds")
    on_cap: str
    wanted_at: Instant = Field(sa_type=BigInteger)
    latest_anchor: Instant = Field(
        sa_type=BigInteger, description="the latest anchor of its group: wanted_at + max_delay"
    )
    send_at: Instant = Field(
        sa_type=BigInteger, description="the planned time; from the claim on, the time of the claim"
    )
    state: str = Field(description="MessageState")
    reason: str | None = Field(default=None, description="why it was not sent: planner.Reason, ...")
    decision: dict[str, Any] = Field(sa_column=Column(JSON_COLUMN, nullable=False))
    attempts: int = Field(default=0, description="number of hand-overs")
    not_after: Instant | None = Field(
        default=None, sa_type=BigInteger, description="when the claim expires"
    )
    claimed_by: str | None = None
    provider_id: str | None = Field(default=None, description="the provider's id of the message")
    segments: int | None = Field(default=None, description="billed segments of an SMS")
    address: str | None = Field(
        default=None,
        description="the address, set by the claim; for a push see `message_device`. Empty: never "
        "claimed, or claimed before schema 0014",
    )
    bucket: int = Field(sa_column=bucket_column())


class MessageDevice(SQLModel, table=True):
    """A push on one device; the row is written with the claim.

    Pushes from before schema 0013 have no such rows.
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
    token: str = Field(primary_key=True, description="the device token at the time of the claim")
    bucket: int = Field(sa_column=bucket_column(primary_key=True))
    profile_id: int = Field(sa_type=BigInteger)
    state: str = Field(description="DeviceState")
    reason: str | None = None
    attempts: int = Field(
        description="`attempts` of the message at the last hand-over to this device"
    )
    not_after: Instant | None = Field(
        default=None, sa_type=BigInteger, description="when the claim expires; set in `sending`"
    )
    retry_at: Instant | None = Field(
        default=None,
        sa_type=BigInteger,
        description="the earliest retry, if the provider named one",
    )
    provider_id: str | None = Field(default=None, description="the provider's id of the message")


class PastMessage(SQLModel, table=True):
    """What remains of a message that a process has claimed at least once, after its retention.

    Provider reports and goals still need it. Its state does not change any more.
    """

    __tablename__: ClassVar[str] = "past_message"
    __table_args__ = (Index("ix_past_message_profile", "profile_id"),)

    id: int = Field(
        sa_column=Column(BigInteger, primary_key=True, autoincrement=False, nullable=False)
    )
    bucket: int = Field(sa_column=bucket_column(primary_key=True))
    profile_id: int = Field(sa_type=BigInteger)
    enrollment_id: int = Field(sa_type=BigInteger)
    journey: str
    step: str
    channel: str
    kind: str | None = Field(
        default=None, description="as in `message`; empty: removed before schema 0020"
    )
    topic: str
    wanted_at: Instant = Field(sa_type=BigInteger)
    send_at: Instant = Field(sa_type=BigInteger)
    state: str = Field(description="MessageState")
    address: str | None = None


messages = table_of(Message)
past_messages = table_of(PastMessage)
message_devices = table_of(MessageDevice)

"""The table of enrollments: one row for each passage of a profile through a journey.

Any module may read this table; only transitions.py and nameless.py write it.
"""

from typing import Any, ClassVar

from sqlalchemy import BigInteger, CheckConstraint, Column, Index, text
from sqlmodel import Field, SQLModel

from config.clock.times import Instant
from config.database.engine import table_of
from profiles.tables import JSON_COLUMN, bucket_column, id_column


class Enrollment(SQLModel, table=True):
    """One passage of a profile through a journey version.

    A CHECK constraint ensures that an enrollment either has a due time or has ended, so none can
    get stuck.
    """

    __tablename__: ClassVar[str] = "enrollment"
    __table_args__ = (
        CheckConstraint(
            "(due_at IS NULL) <> (ended_at IS NULL)", name="ck_enrollment_due_or_ended"
        ),
        # at most one current enrollment for each entry key
        Index(
            "uq_enrollment_current",
            "profile_id",
            "journey",
            "entry_key",
            "bucket",
            unique=True,
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
        Index("ix_enrollment_profile", "profile_id", "journey"),
        # at most one enrollment for each launch
        Index(
            "uq_enrollment_launch",
            "profile_id",
            "journey",
            "launch_id",
            "bucket",
            unique=True,
            sqlite_where=text("launch_id IS NOT NULL"),
            postgresql_where=text("launch_id IS NOT NULL"),
        ),
        Index(
            "ix_enrollment_due",
            "journey",
            "version",
            "step",
            "due_at",
            sqlite_where=text("ended_at IS NULL"),
            postgresql_where=text("ended_at IS NULL"),
        ),
    )

    id: int = Field(sa_column=id_column())
    profile_id: int = Field(sa_type=BigInteger)
    journey: str
    version: str
    entry_key: str = Field(default="", description="the value of the entry key, such as a cart id")
    launch_id: str | None = None
    context: dict[str, Any] = Field(
        sa_column=Column(JSON_COLUMN, nullable=False), description="the entry event's properties"
    )
    entry_event_id: int | None = Field(default=None, sa_type=BigInteger)
    entered_at: Instant = Field(sa_type=BigInteger)
    since: Instant = Field(
        sa_type=BigInteger,
        description="the entry event's time, else entered_at; did() counts events from then on",
    )
    step: str = Field(description="the current step")
    arrived_at: Instant = Field(sa_type=BigInteger, description="when the previous step ended")
    phase: int = Field(default=0, description="progress within the step; the handler defines it")
    due_at: Instant | None = Field(default=None, sa_type=BigInteger)
    attempts: int = Field(default=0, description="failed attempts of this step")
    ended_at: Instant | None = Field(default=None, sa_type=BigInteger)
    end_reason: str | None = Field(default=None, description="completed, exited: ..., failed: ...")
    converted_at: Instant | None = Field(
        default=None,
        sa_type=BigInteger,
        description="the time of the event that reached the goal. Before schema 0025: when it was "
        "counted, if the goal has conditions on properties or counts from a message",
    )
    bucket: int = Field(sa_column=bucket_column())


enrollments = table_of(Enrollment)

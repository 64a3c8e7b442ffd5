"""The tables of journeys except enrollments: versions, controls, launches, logs."""

from typing import Any, ClassVar

from sqlalchemy import BigInteger, Column, Index, SmallInteger
from sqlmodel import Field, SQLModel

from config.clock.times import Instant, Seconds
from config.database.engine import table_of
from profiles.tables import JSON_COLUMN, bucket_column


class JourneyVersion(SQLModel, table=True):
    """A journey with its templates, as stored for its enrollments. Rows are never changed."""

    __tablename__: ClassVar[str] = "journey_version"

    journey: str = Field(primary_key=True)
    version: str = Field(primary_key=True, description="digest of the definition")
    definition: dict[str, Any] = Field(sa_column=Column(JSON_COLUMN, nullable=False))
    created_at: Instant = Field(sa_type=BigInteger)


class JourneyControl(SQLModel, table=True):
    """A paused or stopped journey. A running journey has no row."""

    __tablename__: ClassVar[str] = "journey_control"

    journey: str = Field(primary_key=True)
    state: str = Field(description="paused: nothing moves; stopped: entries are refused")
    changed_at: Instant = Field(sa_type=BigInteger)


class Launch(SQLModel, table=True):
    """One start of a journey for an audience. A profile enters at most once per launch."""

    __tablename__: ClassVar[str] = "launch"

    id: str = Field(primary_key=True)
    journey: str
    version: str
    audience: str
    people: int | None = Field(
        default=None, description="the most profiles that enter; NULL: no limit; 0: it was undone"
    )
    started_at: Instant = Field(sa_type=BigInteger)


class Approval(SQLModel, table=True):
    """A launch that asked for an approval: docs/decisions/0036-approvals-are-rows.md."""

    __tablename__: ClassVar[str] = "approval"

    launch_id: str = Field(primary_key=True)
    journey: str
    version: str = Field(description="the version that the summary is of, and that is launched")
    audience: str
    people: int | None = Field(default=None, description="as of a launch")
    why: str = Field(description="the rule of the policy that asks for it")
    size: int = Field(sa_type=BigInteger, description="of the audience when the summary was made")
    summary: dict[str, Any] = Field(
        sa_column=Column(JSON_COLUMN, nullable=False), description="the result of a dry run"
    )
    asked_at: Instant = Field(sa_type=BigInteger)
    lapses_at: Instant = Field(
        sa_type=BigInteger, description="no decision and no start is possible from then on"
    )
    state: str = Field(description="waiting, approved, rejected, outdated")
    decided_at: Instant | None = Field(default=None, sa_type=BigInteger)
    decided_by: str | None = None
    note: str | None = Field(default=None, description="why it is rejected or outdated")
    finished_at: Instant | None = Field(
        default=None, sa_type=BigInteger, description="when the whole audience had entered"
    )


class SignedCall(SQLModel, table=True):
    """A signed API call that was accepted. While its signature is valid, a repeat is refused."""

    __tablename__: ClassVar[str] = "signed_call"

    signature: str = Field(primary_key=True)
    received_at: Instant = Field(sa_type=BigInteger, index=True)


class Heartbeat(SQLModel, table=True):
    """The heartbeat of a worker."""

    __tablename__: ClassVar[str] = "attendance"

    worker: str = Field(primary_key=True, description="host and process id")
    seen_at: Instant = Field(sa_type=BigInteger)


class BucketHolder(SQLModel, table=True):
    """A process that works on buckets, on PostgreSQL. Without renewal its leases end."""

    __tablename__: ClassVar[str] = "bucket_holder"

    journey: str = Field(
        primary_key=True, description="the journey that a run works on; empty: a worker, all"
    )
    holder: str = Field(primary_key=True, description="host and process id")
    until: Instant = Field(sa_type=BigInteger)


class BucketLease(SQLModel, table=True):
    """A bucket in which one process looks for due work, while it is a `bucket_holder`."""

    __tablename__: ClassVar[str] = "bucket_lease"

    journey: str = Field(primary_key=True)
    bucket: int = Field(sa_type=SmallInteger, primary_key=True)
    holder: str


class SegmentMember(SQLModel, table=True):
    """A profile that is in the segment of a journey's entry; it enters when its row is added."""

    __tablename__: ClassVar[str] = "segment_member"

    journey: str = Field(primary_key=True)
    profile_id: int = Field(sa_type=BigInteger, primary_key=True)
    bucket: int = Field(sa_column=bucket_column(primary_key=True))
    since: Instant = Field(sa_type=BigInteger)


class SegmentCount(SQLModel, table=True):
    """The number of people in a segment on a day."""

    __tablename__: ClassVar[str] = "segment_count"

    segment: str = Field(primary_key=True)
    day: str = Field(primary_key=True, description="ISO 8601, in the brand's time zone")
    people: int = Field(sa_type=BigInteger)
    counted_at: Instant = Field(sa_type=BigInteger)


class PersonaMove(SQLModel, table=True):
    """How many people moved from a persona to another one in a month."""

    __tablename__: ClassVar[str] = "persona_move"

    month: str = Field(primary_key=True, description="2026-03, in the brand's time zone")
    from_persona: str = Field(primary_key=True)
    to_persona: str = Field(primary_key=True)
    people: int = Field(sa_type=BigInteger)


class Passage(SQLModel, table=True):
    """A log row: one enrollment left one step with one outcome. Reports and graphs read it."""

    __tablename__: ClassVar[str] = "passage"
    __table_args__ = (
        Index("ix_passage_edge", "journey", "step", "outcome"),
        # Rows come in the order of this time, so a summary of each block is enough.
        Index("ix_passage_at", "at", postgresql_using="brin"),
    )

    profile_id: int = Field(sa_type=BigInteger, primary_key=True)
    enrollment_id: int = Field(sa_type=BigInteger, primary_key=True)
    step: str = Field(primary_key=True)
    bucket: int = Field(sa_column=bucket_column(primary_key=True))
    journey: str
    version: str
    outcome: str = Field(description="the edge taken: next, a branch's or arm's name, timeout ...")
    at: Instant = Field(sa_type=BigInteger)


class PassageTotal(SQLModel, table=True):
    """The number of passages that were removed when their retention ended."""

    __tablename__: ClassVar[str] = "passage_total"

    journey: str = Field(primary_key=True)
    step: str = Field(primary_key=True)
    outcome: str = Field(primary_key=True)
    since: Instant = Field(
        sa_type=BigInteger,
        primary_key=True,
        description="`step_shown.until` at the removal if they are from then on; else 0",
    )
    number: int = Field(sa_type=BigInteger)


class MessageTotal(SQLModel, table=True):
    """The number of messages that were removed when their retention ended."""

    __tablename__: ClassVar[str] = "message_total"

    journey: str = Field(primary_key=True)
    launch_id: str = Field(primary_key=True, description="empty: no launch")
    step: str = Field(primary_key=True)
    channel: str = Field(primary_key=True)
    state: str = Field(primary_key=True, description="as counted in reports")
    reason: str = Field(primary_key=True, description="as counted in reports; empty: none")
    since: Instant = Field(
        sa_type=BigInteger, primary_key=True, description="as in `passage_total`"
    )
    number: int = Field(sa_type=BigInteger)


class KeptReport(SQLModel, table=True):
    """What a worker counted for the report of a large journey (decision 0037)."""

    __tablename__: ClassVar[str] = "kept_report"

    journey: str = Field(primary_key=True)
    question: str = Field(description="digest of the settings and definitions that it depends on")
    counted_at: Instant = Field(sa_type=BigInteger)
    took: Seconds = Field(sa_type=BigInteger, description="how long the count took, rounded up")
    rows: dict[str, Any] = Field(
        sa_column=Column(JSON_COLUMN, nullable=False),
        description="the rows of each statement, by the digest of its text",
    )


class ExperimentArm(SQLModel, table=True):
    """The first passage of a profile by an arm of an experiment, after its retention.

    A profile keeps its arm, so experiments read these rows and the passages.
    """

    __tablename__: ClassVar[str] = "experiment_arm"

    profile_id: int = Field(sa_type=BigInteger, primary_key=True)
    enrollment_id: int = Field(sa_type=BigInteger, primary_key=True)
    step: str = Field(primary_key=True)
    bucket: int = Field(sa_column=bucket_column(primary_key=True))
    journey: str
    outcome: str = Field(description="the name of the arm")
    at: Instant = Field(sa_type=BigInteger)


class Promotion(SQLModel, table=True):
    """An arm that everybody takes who enters from now on (decision 0035)."""

    __tablename__: ClassVar[str] = "promotion"

    journey: str = Field(primary_key=True)
    step: str = Field(primary_key=True)
    arm: str = Field(description="an outcome of the experiment: an arm's name, or holdout")
    promoted_at: Instant = Field(sa_type=BigInteger)


class RetentionPosition(SQLModel, table=True):
    """Up to which row number the worker has applied the retention of a table."""

    __tablename__: ClassVar[str] = "retention_position"

    name: str = Field(primary_key=True, description="of the table")
    position: int = Field(sa_type=BigInteger)


class StepShown(SQLModel, table=True):
    """Up to when flow runs in Prefect have shown a step's passages; the next run starts there."""

    __tablename__: ClassVar[str] = "step_shown"

    journey: str = Field(primary_key=True)
    step: str = Field(primary_key=True)
    until: Instant = Field(sa_type=BigInteger)


class LiveCount(SQLModel, table=True):
    """Counts of live activity in a journey, from all workers, that are not yet sent to Prefect."""

    __tablename__: ClassVar[str] = "journey_news"

    journey: str = Field(primary_key=True)
    counts: list[Any] = Field(
        sa_column=Column(JSON_COLUMN, nullable=False),
        description="lists of the parts of a path, then the number",
    )
    told_at: Instant = Field(
        sa_type=BigInteger, description="when they were last reported; 0: never"
    )


journey_versions = table_of(JourneyVersion)
journey_controls = table_of(JourneyControl)
launches = table_of(Launch)
approvals = table_of(Approval)
signed_calls = table_of(SignedCall)
heartbeats = table_of(Heartbeat)
bucket_holders = table_of(BucketHolder)
bucket_leases = table_of(BucketLease)
segment_members = table_of(SegmentMember)
segment_counts = table_of(SegmentCount)
persona_moves = table_of(PersonaMove)
passages = table_of(Passage)
passage_totals = table_of(PassageTotal)
message_totals = table_of(MessageTotal)
kept_reports = table_of(KeptReport)
experiment_arms = table_of(ExperimentArm)
promotions = table_of(Promotion)
retention_positions = table_of(RetentionPosition)
steps_shown = table_of(StepShown)
journey_news = table_of(LiveCount)

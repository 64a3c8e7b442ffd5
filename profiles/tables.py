"""The tables of profiles, their identifiers, consent and events.

Each table that grows with the number of customers has the column `bucket`, and each of its unique
keys contains it, so that PostgreSQL can partition and Citus distribute the tables by it
(docs/decisions/0024-buckets.md). Where the primary key is a row number, PostgreSQL's also contains
the bucket, which the models do not show: SQLite numbers rows only in a key of one column.

The SQLModel classes only declare tables, types and indexes. Nothing loads or saves their
instances: every statement is SQLAlchemy Core's, on the tables named at the end of this module.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Identity,
    Index,
    Integer,
    SmallInteger,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlmodel import Field, SQLModel

from config.channels import AddressKind, ChannelName, channels
from config.clock.times import Instant
from config.database.engine import table_of
from profiles.bucketing import bucket_of, identifier_bucket

# What a message on a channel is addressed to.
IdentifierKind = Literal["user_id", "anonymous_id", "email", "phone", "push_token"]
ADDRESS_KIND: Mapping[ChannelName, AddressKind] = {
    name: one.address_kind for name, one in channels().items()
}

# Why nothing is sent to an address.
SuppressionState = Literal["bounced", "unregistered", "complained"]

# SQLite numbers rows only in an INTEGER column; elsewhere 64 bits.
BIG = BigInteger().with_variant(Integer, "sqlite")
JSON_COLUMN = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")


def id_column() -> Column[int]:
    """A row number that the database generates."""
    return Column(BIG, Identity(), primary_key=True)


def _from(compute: Callable[..., int], *columns: str) -> Callable[[Any], int]:
    """Compute the bucket of a row that is inserted from these of its columns."""

    def default(context: Any) -> int:  # SQLAlchemy's ExecutionContext
        row = context.get_current_parameters()
        return compute(*(row[name] for name in columns))

    return default


def bucket_column(whose: str = "profile_id", *, primary_key: bool = False) -> Column[int]:
    """The bucket of the profile whose id is in the column `whose`; INSERT computes it.

    An INSERT from a SELECT and an UPDATE of that column have to set it.
    """
    default = _from(bucket_of, whose)
    return Column(SmallInteger, default=default, primary_key=primary_key, nullable=False)


class Profile(SQLModel, table=True):
    """One customer."""

    __tablename__: ClassVar[str] = "profile"
    # Links and `merge` refer to numbers of merged profiles, so a number is never used again.
    __table_args__: ClassVar[dict[str, Any]] = {"sqlite_autoincrement": True}

    id: int = Field(sa_column=id_column())
    timezone: str | None = Field(default=None, description="IANA name as given, perhaps invalid")
    country: str | None = Field(default=None, description="ISO 3166 alpha-2", index=True)
    language: str | None = None
    attributes: dict[str, Any] = Field(sa_column=Column(JSON_COLUMN, nullable=False))
    created_at: Instant = Field(sa_type=BigInteger)
    updated_at: Instant = Field(sa_type=BigInteger)
    attribute_times: dict[str, Instant] | None = Field(
        default=None,
        sa_column=Column(JSON_COLUMN),
        description="when each value was said; profiles/attributes/latest.py has the keys",
    )
    attribute_identifiers: list[Any] | None = Field(
        default=None,
        sa_column=Column(JSON_COLUMN),
        description="what each value was said of: [kind, value, [the same keys]] of identifiers",
    )
    bucket: int = Field(sa_column=bucket_column("id"))


class Identifier(SQLModel, table=True):
    """What a profile is known by. Those of the kinds in ADDRESS_KIND are addresses as well."""

    __tablename__: ClassVar[str] = "identifier"
    __table_args__ = (Index("ix_identifier_profile", "profile_id", "kind"),)

    kind: str = Field(primary_key=True, description="IdentifierKind")
    value: str = Field(primary_key=True, description="normalised: lower-case e-mail, E.164 phone")
    profile_id: int = Field(sa_type=BigInteger)
    bucket: int = Field(
        sa_column=Column(
            SmallInteger,
            default=_from(identifier_bucket, "kind", "value"),
            primary_key=True,
            nullable=False,
        ),
        description="of kind and value: it is looked up before its profile is known",
    )
    # Addresses only:
    country: str | None = Field(default=None, description="of a phone number, ISO alpha-2")
    platform: str | None = Field(default=None, description="of a push token: ios, android, web")
    seen_at: Instant = Field(sa_type=BigInteger)
    retired_at: Instant | None = Field(
        default=None,
        sa_type=BigInteger,
        description="replaced or taken away at that time; never sent to. Empty: in use",
    )
    # Anonymous ids only:
    unverified_from: int | None = Field(
        default=None,
        sa_type=BigInteger,
        description="it came by an unverified address and adds events only; the profile that it "
        "came from, 0: none. Empty: it speaks for its profile",
    )


class Suppression(SQLModel, table=True):
    """An address to which nothing is sent on a channel, whoever has it."""

    __tablename__: ClassVar[str] = "suppression"

    address: str = Field(primary_key=True, description="as in `identifier.value`")
    channel: str = Field(primary_key=True)
    bucket: int = Field(
        sa_column=Column(SmallInteger, primary_key=True, nullable=False),
        description="that of the identifier",
    )
    state: str = Field(description="SuppressionState")
    since: Instant | None = Field(
        default=None, sa_type=BigInteger, description="empty: before the schema 0014"
    )


class Consent(SQLModel, table=True):
    """The current consent of a profile for a channel (topic `*`) or a topic on it."""

    __tablename__: ClassVar[str] = "consent"

    profile_id: int = Field(sa_type=BigInteger, primary_key=True)
    channel: str = Field(primary_key=True)
    topic: str = Field(primary_key=True)
    bucket: int = Field(sa_column=bucket_column(primary_key=True))
    granted: bool
    changed_at: Instant = Field(sa_type=BigInteger)


class ConsentRecord(SQLModel, table=True):
    """Append-only record of every statement of consent: what, when, from which source."""

    __tablename__: ClassVar[str] = "consent_record"

    id: int = Field(sa_column=id_column())
    profile_id: int = Field(sa_type=BigInteger, index=True)
    channel: str
    topic: str
    granted: bool | None = Field(description="empty: nothing is said of it any more")
    occurred_at: Instant = Field(sa_type=BigInteger)
    recorded_at: Instant = Field(sa_type=BigInteger)
    source: str = Field(description="import customers.csv, preference page, STOP ...")
    wording: str | None = Field(default=None, description="the words that were shown")
    evidence: Any = Field(
        default=None,
        sa_column=Column(JSON_COLUMN),
        description="proof as the sender gave it: form, IP address ...",
    )
    identifier_kind: str | None = Field(
        default=None, description="of the identifier that it was said of; empty: not known"
    )
    identifier_value: str | None = None
    bucket: int = Field(sa_column=bucket_column())


class EmailConfirmation(SQLModel, table=True):
    """A yes to a topic on e-mail that counts once the owner of the address confirms it.

    By address, so that nobody is asked more than once a day about the same topic.
    """

    __tablename__: ClassVar[str] = "email_confirmation"

    address: str = Field(primary_key=True, description="normalised")
    topic: str = Field(primary_key=True)
    profile_id: int = Field(
        sa_type=BigInteger, description="who said yes; it may have merged since"
    )
    said_at: Instant | None = Field(
        sa_type=BigInteger, description="when they said yes; empty: nothing waits any more"
    )
    asked_at: Instant = Field(sa_type=BigInteger, description="when a mail was last asked for")
    source: str
    wording: str | None = None
    evidence: Any = Field(default=None, sa_column=Column(JSON_COLUMN))


class Preference(SQLModel, table=True):
    """A customer's choices in the preference center, beside consent, for every journey."""

    __tablename__: ClassVar[str] = "preference"

    profile_id: int = Field(sa_type=BigInteger, primary_key=True)
    bucket: int = Field(sa_column=bucket_column(primary_key=True))
    per_week: int | None = Field(default=None, description="at most so many messages a week")
    opens: int | None = Field(default=None, description="not before this local time, seconds")
    closes: int | None = Field(default=None, description="not from this local time on, seconds")
    timezone: str | None = Field(default=None, description="IANA name; before the profile's own")
    language: str | None = Field(default=None, description="before the profile's own")
    changed_at: Instant = Field(sa_type=BigInteger)


class Event(SQLModel, table=True):
    """An event of a profile, with its own time and the time of its receipt."""

    __tablename__: ClassVar[str] = "event"
    __table_args__ = (
        UniqueConstraint("profile_id", "dedupe_key", "bucket", name="uq_event_dedupe_key"),
        Index("ix_event_did", "profile_id", "name", "occurred_at"),
        Index(
            "ix_event_to_work",
            "id",
            sqlite_where=text("worked_at IS NULL"),
            postgresql_where=text("worked_at IS NULL"),
        ),
    )

    id: int = Field(sa_column=id_column())
    profile_id: int = Field(sa_type=BigInteger)
    name: str
    occurred_at: Instant = Field(sa_type=BigInteger)
    received_at: Instant = Field(sa_type=BigInteger)
    properties: dict[str, Any] = Field(sa_column=Column(JSON_COLUMN, nullable=False))
    dedupe_key: str = Field(description="the sender's id of it; the same key is the same event")
    worked_at: Instant | None = Field(
        default=None, sa_type=BigInteger, description="empty: journeys have not reacted to it yet"
    )
    identifier_kind: str | None = Field(
        default=None, description="of the identifier that it was said of; empty: not known"
    )
    identifier_value: str | None = None
    bucket: int = Field(sa_column=bucket_column())


class Merge(SQLModel, table=True):
    """A profile that was merged into another one, with all that undoing it needs."""

    __tablename__: ClassVar[str] = "merge"

    from_id: int = Field(sa_type=BigInteger, primary_key=True, description="the profile that went")
    into_id: int = Field(sa_type=BigInteger, index=True)
    merged_at: Instant = Field(sa_type=BigInteger)
    why: str = Field(description="the kind of call that said so: identify, alias ...")
    moved: dict[str, Any] = Field(
        sa_column=Column(JSON_COLUMN, nullable=False),
        description="what was moved and what it was before: see profiles/identity/merge.py",
    )


class Upgrade(SQLModel, table=True):
    """When this database got a schema from which on a rule changed."""

    __tablename__: ClassVar[str] = "upgrade"

    revision: str = Field(primary_key=True, description="of the migration")
    at: Instant = Field(sa_type=BigInteger)


profiles = table_of(Profile)
identifiers = table_of(Identifier)
suppressions = table_of(Suppression)
consents = table_of(Consent)
consent_records = table_of(ConsentRecord)
email_confirmations = table_of(EmailConfirmation)
preferences = table_of(Preference)
events = table_of(Event)
merges = table_of(Merge)
upgrades = table_of(Upgrade)

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
from config.database.engine import ON_POSTGRESQL, table_of
from profiles.bucketing import bucket_of, identifier_bucket

# The kind of identifier that messages on each channel are sent to, in ADDRESS_KIND.
IdentifierKind = Literal["user_id", "anonymous_id", "email", "phone", "push_token"]
ADDRESS_KIND: Mapping[ChannelName, AddressKind] = {
    name: one.address_kind for name, one in channels().items()
}

# Why nothing is sent to an address.
SuppressionState = Literal["bounced", "unregistered", "complained"]
# The state of an address whose owner was erased, until somebody opts in on the channel.
ERASED = "erased"

# SQLite generates row numbers only in an INTEGER column; 64 bits elsewhere.
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
    timezone: str | None = Field(default=None, description="IANA name as stated; may be invalid")
    country: str | None = Field(default=None, description="ISO 3166 alpha-2", index=True)
    language: str | None = None
    attributes: dict[str, Any] = Field(sa_column=Column(JSON_COLUMN, nullable=False))
    created_at: Instant = Field(sa_type=BigInteger)
    updated_at: Instant = Field(sa_type=BigInteger)
    attribute_times: dict[str, Instant] | None = Field(
        default=None,
        sa_column=Column(JSON_COLUMN),
        description="the time of each value's statement; keys: profiles/attributes/latest.py",
    )
    attribute_identifiers: list[Any] | None = Field(
        default=None,
        sa_column=Column(JSON_COLUMN),
        description="the identifier of each value's statement: [kind, value, [the same keys]]",
    )
    bucket: int = Field(sa_column=bucket_column("id"))
    computed: dict[str, Any] | None = Field(
        default=None,
        sa_column=Column(JSON_COLUMN),
        description="computed traits: profiles/computed/update.py",
    )
    persona: str | None = Field(default=None, description="as of the last nightly pass")


class Identifier(SQLModel, table=True):
    """An identifier of a profile. The kinds in ADDRESS_KIND are addresses too."""

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
        description="from kind and value, because it is looked up before its profile is known",
    )
    added_at: Instant | None = Field(
        default=None,
        sa_type=BigInteger,
        description="when the customer got it; limits of joins count it. Empty: before schema 0028",
    )
    origin_id: int | None = Field(
        default=None,
        sa_type=BigInteger,
        description="the profile that would have it without any join. Empty: `profile_id`",
    )
    # Addresses only:
    country: str | None = Field(default=None, description="of a phone number, ISO alpha-2")
    platform: str | None = Field(default=None, description="of a push token: ios, android, web")
    seen_at: Instant = Field(sa_type=BigInteger)
    retired_at: Instant | None = Field(
        default=None,
        sa_type=BigInteger,
        description="when it was replaced or removed; not sent to any more. Empty: in use",
    )
    # Anonymous ids only:
    unverified_from: int | None = Field(
        default=None,
        sa_type=BigInteger,
        description="set if an unverified address joined it: its calls only add events. The "
        "profile that it came from; 0: none. Empty: verified",
    )


class Suppression(SQLModel, table=True):
    """An address to which nothing is sent on a channel, whichever profile has it."""

    __tablename__: ClassVar[str] = "suppression"

    address: str = Field(primary_key=True, description="as in `identifier.value`")
    channel: str = Field(primary_key=True)
    bucket: int = Field(
        sa_column=Column(SmallInteger, primary_key=True, nullable=False),
        description="the bucket of the identifier",
    )
    state: str = Field(description="SuppressionState, or ERASED")
    since: Instant | None = Field(
        default=None, sa_type=BigInteger, description="empty: from before schema 0014"
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
    """Append-only record of all statements of consent."""

    __tablename__: ClassVar[str] = "consent_record"

    id: int = Field(sa_column=id_column())
    profile_id: int = Field(sa_type=BigInteger, index=True)
    channel: str
    topic: str
    granted: bool | None = Field(description="empty: returned to unset")
    occurred_at: Instant = Field(sa_type=BigInteger)
    recorded_at: Instant = Field(sa_type=BigInteger)
    source: str = Field(description="import customers.csv, preference page, STOP ...")
    wording: str | None = Field(default=None, description="the text that was shown")
    evidence: Any = Field(
        default=None,
        sa_column=Column(JSON_COLUMN),
        description="proof as JSON from the sender: form, IP address ...",
    )
    identifier_kind: str | None = Field(
        default=None, description="the identifier that it is about; empty: unknown"
    )
    identifier_value: str | None = None
    bucket: int = Field(sa_column=bucket_column())


class EmailConfirmation(SQLModel, table=True):
    """A pending yes to a topic on e-mail, until the owner of the address confirms it.

    The key is the address, so that it gets at most one mail a day about a topic.
    """

    __tablename__: ClassVar[str] = "email_confirmation"

    address: str = Field(primary_key=True, description="normalised")
    topic: str = Field(primary_key=True)
    profile_id: int = Field(
        sa_type=BigInteger, description="the profile that said yes; it may have been merged since"
    )
    said_at: Instant | None = Field(
        sa_type=BigInteger, description="the time of the yes; empty: not pending any more"
    )
    asked_at: Instant = Field(sa_type=BigInteger, description="when a mail was last requested")
    source: str
    wording: str | None = None
    evidence: Any = Field(default=None, sa_column=Column(JSON_COLUMN))


class Preference(SQLModel, table=True):
    """A customer's choices in the preference center, except consent."""

    __tablename__: ClassVar[str] = "preference"

    profile_id: int = Field(sa_type=BigInteger, primary_key=True)
    bucket: int = Field(sa_column=bucket_column(primary_key=True))
    per_week: int | None = Field(default=None, description="cap on messages a week")
    opens: int | None = Field(
        default=None, description="start of the chosen hours, seconds of the local day"
    )
    closes: int | None = Field(
        default=None, description="end of the chosen hours, seconds of the local day"
    )
    timezone: str | None = Field(default=None, description="IANA name; overrides the profile's")
    language: str | None = Field(default=None, description="overrides the profile's")
    changed_at: Instant = Field(sa_type=BigInteger)


class Event(SQLModel, table=True):
    """An event of a profile, with its own time and the time of its receipt."""

    __tablename__: ClassVar[str] = "event"
    __table_args__ = (
        UniqueConstraint("profile_id", "dedupe_key", "bucket", name="uq_event_dedupe_key"),
        # The name first: the events of one name of all profiles are read without the table.
        Index("ix_event_name", "name", "profile_id", "bucket", "occurred_at"),
        # As ix_message_at.
        Index("ix_event_at", "occurred_at", postgresql_using="brin", info=ON_POSTGRESQL),
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
    dedupe_key: str = Field(description="the sender's id of the event; unique for a profile")
    worked_at: Instant | None = Field(
        default=None, sa_type=BigInteger, description="when journeys reacted to it; empty: not yet"
    )
    identifier_kind: str | None = Field(
        default=None, description="the identifier that it is about; empty: unknown"
    )
    identifier_value: str | None = None
    bucket: int = Field(sa_column=bucket_column())


class Merge(SQLModel, table=True):
    """A profile that was merged into another one, with the data to undo it."""

    __tablename__: ClassVar[str] = "merge"

    from_id: int = Field(
        sa_type=BigInteger, primary_key=True, description="the profile that was removed"
    )
    into_id: int = Field(sa_type=BigInteger, index=True)
    merged_at: Instant = Field(sa_type=BigInteger)
    why: str = Field(description="the kind of call that joined them: identify, alias ...")
    moved: dict[str, Any] = Field(
        sa_column=Column(JSON_COLUMN, nullable=False),
        description="moved rows and previous values: profiles/identity/merge.py",
    )


class Duplicate(SQLModel, table=True):
    """Two profiles that are probably one person, as matching found them, and what was decided.

    It has no personal data: `bars` says how columns compare, not what they contain.
    """

    __tablename__: ClassVar[str] = "duplicate"

    left_id: int = Field(
        sa_column=Column(BigInteger, primary_key=True, autoincrement=False, nullable=False),
        description="the older profile",
    )
    right_id: int = Field(
        sa_column=Column(BigInteger, primary_key=True, autoincrement=False, nullable=False)
    )
    bucket: int = Field(sa_column=bucket_column("left_id", primary_key=True))
    weight: float = Field(description="the binary logarithm of the odds that they are one person")
    bars: list[Any] = Field(
        sa_column=Column(JSON_COLUMN, nullable=False),
        description="[column, level, weight] in order; the first is two random profiles",
    )
    found_at: Instant = Field(sa_type=BigInteger)
    state: str = Field(description="suggested, accepted, refused")
    decided_at: Instant | None = Field(default=None, sa_type=BigInteger)
    decided_by: str | None = None


class IdentityRecord(SQLModel, table=True):
    """The history of a profile from its first join on: profiles/identity/history.py."""

    __tablename__: ClassVar[str] = "identity_record"

    id: int = Field(sa_column=id_column())
    profile_id: int = Field(
        sa_type=BigInteger, index=True, description="the profile that has the history now"
    )
    kind: str = Field(description="RecordKind: start, join or said")
    at: Instant = Field(sa_type=BigInteger)
    origin_id: int | None = Field(
        default=None, sa_type=BigInteger, description="whom a start or a statement is about"
    )
    # Joins only:
    from_id: int | None = Field(default=None, sa_type=BigInteger, description="who was removed")
    into_id: int | None = Field(default=None, sa_type=BigInteger, description="who stayed")
    from_origin: int | None = Field(
        default=None, sa_type=BigInteger, description="the origin of the identifier that joined it"
    )
    into_origin: int | None = Field(default=None, sa_type=BigInteger)
    why: str | None = Field(default=None, description="the kind of call, or another reason")
    source: str | None = Field(default=None, description="calls, or who joined them")
    undone_at: Instant | None = Field(default=None, sa_type=BigInteger)
    undone_by: str | None = None
    data: dict[str, Any] = Field(
        sa_column=Column(JSON_COLUMN, nullable=False),
        description="what it takes to undo joins: profiles/identity/history.py",
    )
    bucket: int = Field(sa_column=bucket_column())


class KeptApart(SQLModel, table=True):
    """Two profiles whose join was undone: calls do not join them again."""

    __tablename__: ClassVar[str] = "kept_apart"

    join_id: int = Field(
        sa_column=Column(BigInteger, primary_key=True, autoincrement=False, nullable=False)
    )
    one_origin: int = Field(sa_type=BigInteger)
    other_origin: int = Field(sa_type=BigInteger)
    profile_id: int = Field(
        sa_type=BigInteger, index=True, description="the profile that has `one_origin` now"
    )
    other_id: int = Field(sa_type=BigInteger, index=True)


class JoinLimitHit(SQLModel, table=True):
    """An identifier that a limit of joins kept out of a profile, or that an alias joined beyond
    it."""

    __tablename__: ClassVar[str] = "join_limit_hit"

    profile_id: int = Field(
        sa_column=Column(BigInteger, primary_key=True, autoincrement=False, nullable=False),
        description="whom the call was about; a join does not change it",
    )
    at: Instant = Field(
        sa_column=Column(BigInteger, primary_key=True, autoincrement=False, nullable=False)
    )
    kind: str = Field(primary_key=True, description="of the identifier: IdentifierKind")
    value: str = Field(primary_key=True)
    limited_kind: str = Field(primary_key=True, description="the kind that has the limit")
    bucket: int = Field(sa_column=bucket_column(primary_key=True))
    limited_to: str = Field(description="the limit, in words")
    why: str = Field(description="the kind of call: identify, alias ...")
    exempt: bool = Field(description="an alias joined it nevertheless")


class HeldOut(SQLModel, table=True):
    """A profile in the global holdout, for good. While the policy has a holdout, it gets no
    marketing."""

    __tablename__: ClassVar[str] = "held_out"

    profile_id: int = Field(
        sa_column=Column(BigInteger, primary_key=True, autoincrement=False, nullable=False)
    )
    bucket: int = Field(sa_column=bucket_column(primary_key=True))
    since: Instant = Field(sa_type=BigInteger)


class HeldOutAddress(SQLModel, table=True):
    """An address of a held-out profile, as a keyed hash. Whoever has it later is held out too.

    The hash stays when the address is removed.
    """

    __tablename__: ClassVar[str] = "held_out_address"

    hash: str = Field(primary_key=True, description="profiles/identity/holdout.py")
    bucket: int = Field(
        sa_column=Column(SmallInteger, primary_key=True, nullable=False),
        description="the first byte of the hash",
    )
    since: Instant = Field(sa_type=BigInteger)


class ErasedAddress(SQLModel, table=True):
    """An address of an erased person on a channel, as a keyed hash. Whoever has it later gets
    nothing there until an opt-in that is newer.
    """

    __tablename__: ClassVar[str] = "erased_address"

    hash: str = Field(primary_key=True, description="profiles/identity/erased.py")
    channel: str = Field(primary_key=True)
    bucket: int = Field(
        sa_column=Column(SmallInteger, primary_key=True, nullable=False),
        description="the first byte of the hash",
    )
    since: Instant = Field(sa_type=BigInteger, description="when the person was erased")


class PrivacyRequest(SQLModel, table=True):
    """Who exported or erased a person, and when. It names the person by keyed hashes only."""

    __tablename__: ClassVar[str] = "privacy_request"

    id: int = Field(sa_column=id_column())
    at: Instant = Field(sa_type=BigInteger)
    act: str = Field(description="erase or export")
    asked_by: str = Field(description="a user of the staff site, or the command line")
    hashes: list[Any] = Field(
        sa_column=Column(JSON_COLUMN, nullable=False),
        description="of each identifier: profiles/identity/erased.py",
    )
    counts: dict[str, Any] = Field(
        sa_column=Column(JSON_COLUMN, nullable=False), description="rows by table"
    )


class Company(SQLModel, table=True):
    """A company, which `group` calls describe. A profile belongs to the one that its attribute
    `group_id` names.

    It has no bucket: there are few companies, and profiles of all buckets read them.
    """

    __tablename__: ClassVar[str] = "company"

    id: str = Field(primary_key=True, description="the groupId, normalised as other ids")
    traits: dict[str, Any] = Field(sa_column=Column(JSON_COLUMN, nullable=False))
    trait_times: dict[str, Instant] = Field(
        sa_column=Column(JSON_COLUMN, nullable=False),
        description="the time of each trait's statement",
    )
    updated_at: Instant = Field(sa_type=BigInteger)


class TraitState(SQLModel, table=True):
    """A computed trait, as it was last computed for all profiles."""

    __tablename__: ClassVar[str] = "trait_state"

    trait: str = Field(primary_key=True)
    digest: str = Field(description="of its definition")
    day: str = Field(description="ISO 8601, in the brand's time zone; empty: not finished")
    cuts: list[float] | None = Field(
        default=None,
        sa_column=Column(JSON_COLUMN),
        description="of a quantile: the values that separate the groups",
    )


class Upgrade(SQLModel, table=True):
    """When this database got a schema that changed a rule."""

    __tablename__: ClassVar[str] = "upgrade"

    revision: str = Field(primary_key=True, description="the revision of the migration")
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
identity_records = table_of(IdentityRecord)
kept_apart = table_of(KeptApart)
join_limit_hits = table_of(JoinLimitHit)
duplicates = table_of(Duplicate)
held_out = table_of(HeldOut)
held_out_addresses = table_of(HeldOutAddress)
erased_addresses = table_of(ErasedAddress)
privacy_requests = table_of(PrivacyRequest)
companies = table_of(Company)
trait_states = table_of(TraitState)
upgrades = table_of(Upgrade)

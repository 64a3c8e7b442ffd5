"""Enter profiles by audience, event, Enter step or API call; the re-entry rule always applies.

One INSERT ... SELECT enters all profiles of a chunk.
"""

from collections.abc import Collection, Sequence
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Select,
    and_,
    case,
    cast,
    func,
    literal,
    or_,
    select,
    union_all,
)
from sqlalchemy import null as sql_null
from sqlalchemy.types import BigInteger, SmallInteger, Text

from config.clock.times import Seconds
from config.database.engine import Tx
from journeys.definition.journey import After, EventEntry, Version
from journeys.engine.due import DUE_COLUMNS, DueEnrollment
from journeys.enrollments import enrollments, transitions
from journeys.operations.control import STOPPED, held
from profiles.bucketing import bucket_of
from profiles.bulk import among, in_slices, lock_profiles
from profiles.conditions.language import Condition, Scope
from profiles.tables import JSON_COLUMN, events, profiles

# Entry keys are cut to this many characters: a PostgreSQL btree index row holds 2,704 bytes.
_KEY = 255
# Profiles in one UNION ALL; SQLite allows 500 terms (SQLITE_MAX_COMPOUND_SELECT).
_SELECTS = 200


def audience_after(tx: Tx, condition: Condition, after: int, limit: int) -> Sequence[int]:
    """The ids of at most `limit` profiles of a segment with an id above `after`, in order."""
    found = (
        select(profiles.c.id)
        .where(profiles.c.id > after, condition.sql(of_profiles(tx)))
        .order_by(profiles.c.id)
        .limit(limit)
    )
    return tx.conn.execute(found).scalars().all()


def audience_size(tx: Tx, condition: Condition) -> int:
    """The number of profiles in a segment."""
    found = select(func.count()).select_from(profiles).where(condition.sql(of_profiles(tx)))
    return tx.conn.execute(found).scalar_one()


def of_profiles(tx: Tx) -> Scope:
    """The scope of conditions on rows of the profile table."""
    return Scope(sqlite=tx.conn.dialect.name == "sqlite", now=tx.now, profile_id=profiles.c.id)


def enter_people(
    tx: Tx,
    version: Version,
    profile_ids: Collection[int],
    launch_id: str | None,
    *,
    pause: Seconds = 0,
) -> list[DueEnrollment]:
    """Enter the profiles that the re-entry rule allows; returns their enrollments.

    Locks the profiles, so that it sees concurrent entries and exits of other processes.
    pause: the fewest seconds between the profile's previous entry and the due time of this one.
    """
    lock_profiles(tx, profile_ids)
    source = select(
        profiles.c.id.label("profile_id"),
        profiles.c.bucket,
        literal("").label("entry_key"),
        literal({}, JSON_COLUMN).label("context"),
        cast(sql_null(), BigInteger).label("entry_event_id"),
        literal(tx.now, BigInteger).label("since"),
    ).where(among(tx, profiles.c.id, profile_ids))
    return _enter(tx, version, source, launch_id, pause=pause)


def enter_each(
    tx: Tx, version: Version, people: Sequence[tuple[int, dict[str, Any]]], launch_id: str
) -> list[DueEnrollment]:
    """Enter profiles, each with its own context, that the re-entry rule allows.

    Returns their enrollments. The context has the role of the entry event's properties; it also
    contains the entry key.
    """
    entry = version.journey.entry
    key = entry.key if isinstance(entry, EventEntry) else None
    entered: list[DueEnrollment] = []
    for some in in_slices(people, _SELECTS):
        each = [
            select(
                literal(profile_id, BigInteger).label("profile_id"),
                literal(bucket_of(profile_id), SmallInteger).label("bucket"),
                literal("" if key is None else _text(context.get(key))[:_KEY]).label("entry_key"),
                literal(context, JSON_COLUMN).label("context"),
                cast(sql_null(), BigInteger).label("entry_event_id"),
                literal(tx.now, BigInteger).label("since"),
            )
            for profile_id, context in some
        ]
        entered += _enter(tx, version, union_all(*each), launch_id)
    return entered


def _text(value: Any) -> str:
    """A JSON value as the text of an entry key; None gives the empty string."""
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def enter_by_events(tx: Tx, version: Version, event_ids: Collection[int]) -> list[DueEnrollment]:
    """Enter the profiles of those events that match the journey's entry.

    Returns their enrollments. Events that were `max_age` old or older when they were received enter
    nobody.
    """
    entry = version.journey.entry
    assert isinstance(entry, EventEntry)
    is_sqlite = tx.conn.dialect.name == "sqlite"
    scope = Scope(sqlite=is_sqlite, now=tx.now, profile_id=events.c.profile_id)
    key: ColumnElement[Any] = literal("")
    if entry.key is not None:
        value = events.c.properties[entry.key].as_string()
        key = func.substr(func.coalesce(value, ""), 1, _KEY)
    source = select(
        events.c.profile_id.label("profile_id"),
        events.c.bucket,
        key.label("entry_key"),
        events.c.properties.label("context"),
        events.c.id.label("entry_event_id"),
        events.c.occurred_at.label("since"),
    ).where(
        among(tx, events.c.id, event_ids),
        events.c.name == entry.event,
        events.c.received_at - events.c.occurred_at < entry.max_age,
        *(test.on(events.c.properties, scope) for test in entry.where),
    )
    return _enter(tx, version, source, None)


def _enter(
    tx: Tx,
    version: Version,
    source: Select[Any] | CompoundSelect[Any],
    launch_id: str | None,
    *,
    pause: Seconds = 0,
) -> list[DueEnrollment]:
    journey = version.journey
    if held(tx).get(journey.name) == STOPPED:
        return []
    who = source.subquery("who")
    before = enrollments.alias("before")
    same = and_(
        before.c.profile_id == who.c.profile_id,
        before.c.journey == journey.name,
        before.c.entry_key == who.c.entry_key,
    )
    refused: ColumnElement[bool] = before.c.ended_at.is_(None)  # a current enrollment
    if journey.entry.again == "once":
        refused = or_(refused, before.c.id.is_not(None))
    elif isinstance(journey.entry.again, After):
        refused = or_(refused, before.c.entered_at > tx.now - journey.entry.again.after)
    # OFFSET keeps PostgreSQL from turning the subquery into a join. While the table grows and has
    # no statistics yet, the join would read the whole table for every chunk.
    entered_before = select(literal(1)).select_from(before).where(same, refused).offset(0).exists()
    due_at: ColumnElement[Any] = literal(tx.now, BigInteger)
    if pause:
        latest = select(func.max(before.c.entered_at)).where(same).scalar_subquery()
        due_at = case((latest > tx.now - pause, latest + pause), else_=due_at)
    rows = select(
        who.c.profile_id,
        who.c.bucket,
        who.c.entry_key,
        who.c.context,
        who.c.entry_event_id,
        who.c.since,
        literal(journey.name).label("journey"),
        literal(version.digest).label("version"),
        literal(launch_id, Text).label("launch_id"),
        literal(tx.now, BigInteger).label("entered_at"),
        literal(journey.first_step).label("step"),
        # Waits count from the time of the entry event, not from its processing.
        case((who.c.since < tx.now, who.c.since), else_=literal(tx.now, BigInteger)).label(
            "arrived_at"
        ),
        due_at.label("due_at"),
    ).where(~entered_before)
    if launch_id is None:
        # Of two entry events in a batch, the earlier one enters the profile.
        rows = rows.order_by(who.c.since, who.c.entry_event_id)
    return [DueEnrollment(*row) for row in transitions.enter(tx, rows, DUE_COLUMNS)]

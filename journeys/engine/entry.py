"""Enter profiles by audience, event, Enter step or API call; the re-entry rule always applies.

One INSERT ... SELECT enters all profiles of a chunk.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    and_,
    bindparam,
    case,
    cast,
    func,
    literal,
    null,
    or_,
    select,
    text,
)
from sqlalchemy.types import BigInteger, Text

from config.clock.times import Seconds
from config.database.arrays import STATEMENTS, any_of, rows_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from journeys.definition.journey import After, EventEntry, Journey, Version
from journeys.engine.due import DueEnrollment
from journeys.enrollments import enrollments, transitions
from journeys.enrollments.states import UNDONE
from journeys.operations.control import STOPPED, held
from profiles.bucketing import bucket_of
from profiles.bulk import lock_profiles
from profiles.conditions.language import Condition
from profiles.conditions.sql import NOW, Scope, condition_holds, property_holds
from profiles.tables import JSON_COLUMN, events, profiles

# Entry keys are cut to this many characters: a PostgreSQL btree index row holds 2,704 bytes.
_KEY = 255


def audience_after(tx: Tx, condition: Condition, after: int, limit: int) -> Sequence[int]:
    """The ids of at most `limit` profiles of a segment with an id above `after`, in order."""
    given = {"after": after, "most": limit, "now": tx.now}
    return tx.conn.execute(_audience_after(condition, tx.is_sqlite), given).scalars().all()


@lru_cache(maxsize=STATEMENTS)
def _audience_after(condition: Condition, sqlite: bool) -> Select[tuple[int]]:
    return (
        select(profiles.c.id)
        .where(
            profiles.c.id > bindparam("after"),
            condition_holds(condition, Scope(sqlite=sqlite, profile_id=profiles.c.id)),
        )
        .order_by(profiles.c.id)
        .limit(bindparam("most", type_=BigInteger))
    )


def audience_size(tx: Tx, condition: Condition) -> int:
    """The number of profiles in a segment."""
    size, given = _audience_size(condition, tx.is_sqlite), {"now": tx.now}
    if tx.is_sqlite:
        return tx.conn.execute(size, given).scalar_one()
    with tx.conn.begin_nested() as setting:
        tx.conn.execute(_FOR_ALL)
        number = tx.conn.execute(size, given).scalar_one()
        setting.rollback()  # takes the settings back
    return number


# Most conditions compare all profiles with all rows of other tables, in the order of an index. Each
# of several processes would read all of the latter. PostgreSQL expects too few rows, since it takes
# profile and bucket for independent, and would look each profile up.
_FOR_ALL = text(
    "SELECT set_config('max_parallel_workers_per_gather', '0', true), "
    "set_config('enable_nestloop', 'off', true)"
)


@lru_cache(maxsize=STATEMENTS)
def _audience_size(condition: Condition, sqlite: bool) -> Select[tuple[int]]:
    everybody = Scope(sqlite=sqlite, profile_id=profiles.c.id, everybody=True)
    holds = condition_holds(condition, everybody)
    return select(func.count()).select_from(profiles).where(holds)


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
    given = {"profiles": profile_ids, "launch": launch_id, "pause": pause}
    return _enter(tx, version, _listed, given, pauses=pause > 0)


def _listed(_version: Version, _sqlite: bool) -> Select[Any]:
    return select(
        profiles.c.id.label("profile_id"),
        profiles.c.bucket,
        literal("").label("entry_key"),
        literal({}, JSON_COLUMN).label("context"),
        cast(null(), BigInteger).label("entry_event_id"),
        NOW.label("since"),
    ).where(any_of(profiles.c.id, "profiles"), in_buckets(profiles.c.bucket))


def enter_each(
    tx: Tx, version: Version, people: Sequence[tuple[int, dict[str, Any]]], launch_id: str
) -> list[DueEnrollment]:
    """Enter profiles, each with its own context, that the re-entry rule allows.

    Returns their enrollments. The context has the role of the entry event's properties; it also
    contains the entry key.
    """
    entry = version.journey.entry
    key = entry.key if isinstance(entry, EventEntry) else None
    rows = [
        (
            profile_id,
            bucket_of(profile_id),
            "" if key is None else _text(context.get(key))[:_KEY],
            context,
        )
        for profile_id, context in people
    ]
    return _enter(tx, version, _with_context, {"people": rows, "launch": launch_id})


_c = enrollments.c
_PEOPLE = rows_of("people", _c.profile_id, _c.bucket, _c.entry_key, _c.context)


def _with_context(_version: Version, _sqlite: bool) -> Select[Any]:
    none = cast(null(), BigInteger)
    return select(*_PEOPLE.c, none.label("entry_event_id"), NOW.label("since"))


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
    return _enter(tx, version, _of_events, {"events": event_ids, "launch": None})


def _of_events(version: Version, sqlite: bool) -> Select[Any]:
    entry = version.journey.entry
    assert isinstance(entry, EventEntry)
    scope = Scope(sqlite=sqlite, profile_id=events.c.profile_id)
    return select(
        events.c.profile_id.label("profile_id"),
        events.c.bucket,
        event_key(entry).label("entry_key"),
        events.c.properties.label("context"),
        events.c.id.label("entry_event_id"),
        events.c.occurred_at.label("since"),
    ).where(
        any_of(events.c.id, "events"),
        in_buckets(events.c.bucket),
        events.c.name == entry.event,
        event_is_young(entry),
        *(property_holds(test, events.c.properties, scope) for test in entry.where),
    )


def event_key(entry: EventEntry) -> ColumnElement[Any]:
    """The entry key of an event, a row of the enclosing statement."""
    if entry.key is None:
        return literal("")
    value = events.c.properties[entry.key].as_string()
    return func.substr(func.coalesce(value, ""), 1, _KEY)


def event_is_young(entry: EventEntry) -> ColumnElement[bool]:
    """Whether an event, a row of the enclosing statement, was younger than `max_age` when it was
    received.
    """
    return events.c.received_at - events.c.occurred_at < entry.max_age


# Who may enter a version, by columns of the enrollment. Its parameters are the caller's.
_Source = Callable[[Version, bool], Select[Any]]


def _enter(
    tx: Tx,
    version: Version,
    source: _Source,
    given: Mapping[str, Any],
    *,
    pauses: bool = False,
) -> list[DueEnrollment]:
    if held(tx).get(version.journey.name) == STOPPED:
        return []
    people = _allowed(version, source, tx.is_sqlite, pauses=pauses)
    entered = transitions.enter(tx, people, {**given, "now": tx.now, "buckets": tx.buckets})
    # What is equal for all is not read from the rows.
    return [
        DueEnrollment(
            enrollment_id=enrollment_id,
            profile_id=profile_id,
            arrived_at=arrived_at,
            phase=0,
            attempts=0,
            due_at=due_at,
            journey=version.journey.name,
            version=version.digest,
            step=version.journey.first_step,
        )
        for enrollment_id, profile_id, arrived_at, due_at in entered
    ]


@lru_cache(maxsize=STATEMENTS)
def _allowed(version: Version, source: _Source, sqlite: bool, *, pauses: bool) -> Select[Any]:
    """The new enrollments of those whom the re-entry rule allows to enter."""
    journey = version.journey
    who = source(version, sqlite).subquery("who")
    before = enrollments.alias("before")
    same = and_(
        before.c.profile_id == who.c.profile_id,
        before.c.bucket == who.c.bucket,
        in_buckets(before.c.bucket),
        before.c.journey == journey.name,
        before.c.entry_key == who.c.entry_key,
    )
    refused = reentry_refused(journey, before)
    # OFFSET keeps PostgreSQL from turning the subquery into a join. While the table grows and has
    # no statistics yet, the join would read the whole table for every chunk.
    entered_before = select(literal(1)).select_from(before).where(same, refused).offset(0).exists()
    due_at: ColumnElement[Any] = NOW
    if pauses:
        pause = bindparam("pause", type_=BigInteger)
        latest = select(func.max(before.c.entered_at)).where(same).scalar_subquery()
        due_at = case((latest > NOW - pause, latest + pause), else_=NOW)
    return (
        select(
            who.c.profile_id,
            who.c.bucket,
            who.c.entry_key,
            who.c.context,
            who.c.entry_event_id,
            who.c.since,
            literal(journey.name).label("journey"),
            literal(version.digest).label("version"),
            bindparam("launch", type_=Text).label("launch_id"),
            NOW.label("entered_at"),
            literal(journey.first_step).label("step"),
            # Waits count from the time of the entry event, not from its processing.
            case((who.c.since < NOW, who.c.since), else_=NOW).label("arrived_at"),
            due_at.label("due_at"),
        )
        .where(~entered_before)
        # Of two entry events in a batch, the earlier one enters the profile.
        .order_by(who.c.since, who.c.entry_event_id, who.c.profile_id)
    )


def reentry_refused(journey: Journey, before: FromClause) -> ColumnElement[bool]:
    """Whether an enrollment of the same profile, journey and entry key refuses another entry now.

    One that a launch made and that was undone before anything was sent refuses nothing.

    before: the table of enrollments, or an alias.
    """
    refused: ColumnElement[bool] = before.c.ended_at.is_(None)  # a current enrollment
    if journey.entry.again == "once":
        refused = or_(refused, _counts(before))
    elif isinstance(journey.entry.again, After):
        recent = before.c.entered_at > NOW - journey.entry.again.after
        refused = or_(refused, and_(recent, _counts(before)))
    return refused


def _counts(before: FromClause) -> ColumnElement[bool]:
    return or_(before.c.end_reason.is_(None), before.c.end_reason != UNDONE)

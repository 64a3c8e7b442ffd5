"""Why a profile is not in a journey, in words for staff.

The rules of entry are evaluated with the SQL of journeys/engine/entry.py.
"""

from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from cronsim import CronSim
from sqlalchemy import (
    BigInteger,
    Select,
    and_,
    bindparam,
    case,
    desc,
    exists,
    func,
    select,
    true,
)

from config.clock.times import Instant, format_duration
from config.clock.zones import zone
from config.database.arrays import STATEMENTS
from config.database.buckets import in_buckets
from config.database.engine import Tx
from journeys.definition.catalog import Catalog
from journeys.definition.journey import (
    After,
    EventEntry,
    LaunchEntry,
    ScheduleEntry,
    SegmentEntry,
    Version,
)
from journeys.definition.steps import EnterStep
from journeys.engine.entry import event_is_young, event_key, reentry_refused
from journeys.enrollments import enrollments
from journeys.explain.waiting_for import Local
from journeys.launches.approvals import WAITING
from journeys.operations.control import PAUSED, STOPPED, held
from journeys.tables import approvals, journey_versions, launches, segment_members
from profiles.bucketing import bucket_of
from profiles.conditions.failing import failing_parts
from profiles.conditions.sql import NOW, Scope, property_holds
from profiles.conditions.words import in_words
from profiles.tables import events

_PROFILE = bindparam("profile", type_=BigInteger)
_before = enrollments.alias("before")
_e = _before.c
_DEPLOYED = select(func.min(journey_versions.c.created_at)).where(
    journey_versions.c.journey == bindparam("of_journey")
)
_MEMBER_SINCE = select(segment_members.c.since).where(
    segment_members.c.journey == bindparam("of_journey"),
    segment_members.c.profile_id == _PROFILE,
    in_buckets(segment_members.c.bucket),
)
_LAST_LAUNCH = (
    select(launches.c.audience, launches.c.started_at)
    .where(launches.c.journey == bindparam("of_journey"))
    .order_by(launches.c.started_at.desc())
    .limit(1)
)
_WAITING = (
    select(approvals.c.launch_id, approvals.c.audience)
    .where(
        approvals.c.journey == bindparam("of_journey"),
        approvals.c.state == WAITING,
        approvals.c.lapses_at > NOW,
    )
    .order_by(approvals.c.asked_at)
)


class NotEntered(NamedTuple):
    """The reason as a code, and in words. until: when the reason ends, if that is known."""

    reason: str
    why: str
    until: Instant | None = None


def not_entered(
    tx: Tx, catalog: Catalog, version: Version, profile_id: int, local: Local
) -> NotEntered:
    """Why a profile has no current enrollment in the current version of a journey.

    The codes: `stopped`, `entered_before`, `entered_recently`, `no_event`, `event_not_matching`,
    `event_too_old`, `event_not_processed`, `event_before_journey`, `event_entered_nobody`,
    `not_in_segment`, `in_segment_before`, `waits_for_worker`, `waits_for_schedule`,
    `waits_for_launch`.
    """
    journey = version.journey
    state = held(tx).get(journey.name)
    if state == STOPPED:
        return NotEntered("stopped", "The journey is stopped: nobody enters until it is resumed.")
    asked = _Asked(tx=tx, catalog=catalog, version=version, profile_id=profile_id, local=local)
    match journey.entry:
        case EventEntry() as entry:
            found = (_refused(asked) if entry.key is None else None) or _by_event(asked, entry)
        case SegmentEntry() as entry:
            found = _refused(asked) or _by_segment(asked, entry)
        case ScheduleEntry() as entry:
            found = _refused(asked) or _by_schedule(asked, entry)
        case LaunchEntry():
            found = _refused(asked) or _by_launch(asked)
    waiting = tx.conn.execute(_WAITING, asked.given).all()
    for launch in waiting:
        asks = f"The launch {launch.launch_id} for {launch.audience} waits for approval."
        found = found._replace(why=f"{found.why} {asks}")
    if state == PAUSED:
        paused = "The journey is paused: who enters it waits at its first step."
        found = found._replace(why=f"{found.why} {paused}")
    return found


class _Asked(NamedTuple):
    """Of whom and of which journey it is asked."""

    tx: Tx
    catalog: Catalog
    version: Version
    profile_id: int
    local: Local

    @property
    def given(self) -> dict[str, Any]:
        """The parameters of the statements."""
        return {
            "profile": self.profile_id,
            "of_journey": self.version.journey.name,
            "now": self.tx.now,
            "buckets": [bucket_of(self.profile_id)],
        }


# Re-entry -----------------------------------------------------------------------------------------


def _refused(asked: _Asked) -> NotEntered | None:
    """The refusal of the re-entry rule, for entries without a key; None: it allows an entry."""
    entered_at = asked.tx.conn.scalar(_refusing(asked.version), asked.given)
    return None if entered_at is None else _again(asked, entered_at)


@lru_cache(maxsize=STATEMENTS)
def _refusing(version: Version) -> Select[tuple[Instant]]:
    return select(func.max(_e.entered_at)).where(
        _e.profile_id == _PROFILE,
        in_buckets(_e.bucket),
        _e.journey == version.journey.name,
        _e.entry_key == "",
        reentry_refused(version.journey, _before),
    )


def _again(asked: _Asked, entered_at: Instant) -> NotEntered:
    entry = asked.version.journey.entry
    entered = f"The customer entered on {asked.local(entered_at)}"
    key = entry.key if isinstance(entry, EventEntry) else None
    same = "" if key is None else f" with the same {key}"
    if not isinstance(entry.again, After):
        return NotEntered("entered_before", f"{entered}, and nobody enters twice{same}.")
    until = entered_at + entry.again.after
    every = format_duration(entry.again.after)
    why = f"{entered}; another entry{same} is possible {every} later, from {asked.local(until)} on."
    return NotEntered("entered_recently", why, until)


# Events -------------------------------------------------------------------------------------------


def _by_event(asked: _Asked, entry: EventEntry) -> NotEntered:
    found = asked.tx.conn.execute(
        _last_event(asked.version, asked.tx.is_sqlite), asked.given
    ).first()
    if found is None:
        return NotEntered("no_event", f"No {entry.event} of the customer is on record.")
    row = _EntryEvent._make(found[: len(_EntryEvent._fields)])
    event = f"The last {entry.event}, of {asked.local(row.occurred_at)},"
    tested = zip(entry.where, found[len(row) :], strict=True)
    if failing := [in_words(test) for test, holds in tested if not holds]:
        parts = " and ".join(failing)
        return NotEntered("event_not_matching", f"{event} does not match: {parts}.")
    if not row.young:
        received, age = asked.local(row.received_at), format_duration(entry.max_age)
        return NotEntered(
            "event_too_old", f"{event} was received on {received}, when it was {age} old or older."
        )
    if row.worked_at is None:
        return NotEntered("event_not_processed", f"{event} is not processed yet: a worker does it.")
    if row.entered:
        return NotEntered("no_event", f"{event} was the last entry; there is no later one.")
    if row.refused_since is not None:
        return _again(asked, row.refused_since)
    return _without_entry(asked, event, row)


class _EntryEvent(NamedTuple):
    """The columns of `_last_event` before those of the tests.

    young: whether it was young enough when it was received. entered: whether it entered the
    profile. refused_since, earlier: the latest entry with its key that refuses another one now, and
    the latest one before the event was processed.
    """

    occurred_at: Instant
    received_at: Instant
    worked_at: Instant | None
    young: bool
    entered: bool
    refused_since: Instant | None
    earlier: Instant | None


@lru_cache(maxsize=STATEMENTS)
def _last_event(version: Version, sqlite: bool) -> Select[Any]:
    """The last entry event of a profile: of those that pass every test, else of all.

    The columns of its facts, then whether it passes each test of the entry.
    """
    journey = version.journey
    entry = journey.entry
    assert isinstance(entry, EventEntry)
    scope = Scope(sqlite=sqlite, profile_id=events.c.profile_id)
    passed = [property_holds(test, events.c.properties, scope) for test in entry.where]
    theirs = [_e.profile_id == _PROFILE, in_buckets(_e.bucket), _e.journey == journey.name]
    same_key = [*theirs, _e.entry_key == event_key(entry)]
    earlier = select(func.max(_e.entered_at)).where(*same_key, _e.entered_at <= events.c.worked_at)
    refused_since = select(func.max(_e.entered_at)).where(
        *same_key, reentry_refused(journey, _before)
    )
    facts = [
        events.c.occurred_at,
        events.c.received_at,
        events.c.worked_at,
        event_is_young(entry).label("young"),
        exists().where(*theirs, _e.entry_event_id == events.c.id).label("entered"),
        refused_since.scalar_subquery().label("refused_since"),
        earlier.scalar_subquery().label("earlier"),
    ]
    all_passed = case((and_(true(), *passed), 1), else_=0)
    return (
        select(*facts, *(holds.label(f"test_{place}") for place, holds in enumerate(passed)))
        .where(
            events.c.profile_id == _PROFILE,
            in_buckets(events.c.bucket),
            events.c.name == entry.event,
        )
        .order_by(desc(all_passed), desc(events.c.occurred_at), desc(events.c.id))
        .limit(1)
    )


def _without_entry(asked: _Asked, event: str, row: _EntryEvent) -> NotEntered:
    """Why an event that could enter the profile now did not when it was processed."""
    if row.earlier is not None:
        why = f"{event} came when the entry of {asked.local(row.earlier)} allowed no other."
        return NotEntered("event_entered_nobody", why)
    deployed = asked.tx.conn.scalar(_DEPLOYED, asked.given)
    if deployed is not None and (row.worked_at or 0) < deployed:
        why = f"{event} came before the journey was deployed, on {asked.local(deployed)}."
        return NotEntered("event_before_journey", why)
    return NotEntered(
        "event_entered_nobody",
        f"{event} matches, but was imported as history, or came while the journey was stopped.",
    )


# Segments -----------------------------------------------------------------------------------------


def _not_in(asked: _Asked, segment: str) -> str | None:
    """Which parts of a segment do not hold for the profile; None: it is in the segment."""
    condition = asked.catalog.segment(segment).condition
    failing = failing_parts(asked.tx, condition, asked.profile_id)
    if not failing:
        return None
    parts = "; ".join(map(in_words, failing))
    return f"The customer is not in the segment {segment}. What does not hold: {parts}."


def _by_segment(asked: _Asked, entry: SegmentEntry) -> NotEntered:
    if why := _not_in(asked, entry.segment):
        return NotEntered("not_in_segment", why)
    since = asked.tx.conn.scalar(_MEMBER_SINCE, asked.given)
    if since is None:
        return NotEntered(
            "waits_for_worker",
            f"The customer is in the segment {entry.segment}, and enters when a worker next looks.",
        )
    return NotEntered(
        "in_segment_before",
        f"The customer is in the segment {entry.segment} since {asked.local(since)} and has "
        "entered for it; the next entry is possible when they join it again.",
    )


def _by_schedule(asked: _Asked, entry: ScheduleEntry) -> NotEntered:
    now = datetime.fromtimestamp(asked.tx.now, zone(entry.timezone))
    until = int(next(CronSim(entry.cron, now)).timestamp())
    run = f"The next scheduled start is on {asked.local(until)}."
    if why := _not_in(asked, entry.segment):
        return NotEntered("not_in_segment", f"{why} {run}", until)
    why = f"The customer is in the segment {entry.segment}, and enters at the next start. {run}"
    return NotEntered("waits_for_schedule", why, until)


def _by_launch(asked: _Asked) -> NotEntered:
    name = asked.version.journey.name
    also = [
        f"{other} / {step}"
        for other, version in asked.catalog.current.items()
        for step, node in version.journey.graph.items()
        if isinstance(node.step, EnterStep) and node.step.journey == name
    ]
    others = f" Customers also enter it at {', '.join(also)}." if also else ""
    launch = asked.tx.conn.execute(_LAST_LAUNCH, asked.given).first()
    if launch is None:
        why = "Customers enter only by a launch, and there was none."
        return NotEntered("waits_for_launch", why + others)
    why = (
        f"Customers enter only by a launch. The last one, on {asked.local(launch.started_at)}, was "
        f"for {launch.audience}"
    )
    if launch.audience not in asked.catalog.segments:
        return NotEntered("waits_for_launch", f"{why}, without this customer.{others}")
    if not_in := _not_in(asked, launch.audience):
        return NotEntered("not_in_segment", f"{why}. {not_in}{others}")
    return NotEntered(
        "waits_for_launch",
        f"{why}; the customer is in it now, and was not then, or the launch had a limit.{others}",
    )

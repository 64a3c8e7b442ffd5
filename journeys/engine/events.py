"""React to new events: enter profiles, wake waits, apply exit rules, count goals.

Unprocessed events are marked in the database (`worked_at` is NULL), so that none is lost. One
transaction processes a batch. It locks rows in the order events, enrollments, profiles, messages.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlalchemy import BigInteger, bindparam, literal, or_, select, update

from config.clock.times import Instant, Seconds
from config.database.arrays import any_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from config.database.failures import of_the_database
from config.database.locking import lock_rows
from config.policy import CHANNELS
from journeys.definition.catalog import Catalog
from journeys.definition.journey import EventEntry, Journey, Version
from journeys.definition.steps import SendStep, Step, WaitUntilStep
from journeys.engine.due import DUE_COLUMNS, DueEnrollment
from journeys.engine.entry import enter_by_events
from journeys.engine.exits import EXITED, end, exiting, goal_reached
from journeys.engine.segment_entry import enter_newcomers
from journeys.enrollments import enrollments, transitions
from profiles.bucketing import buckets_of
from profiles.bulk import lock_profiles
from profiles.computed.update import update_after_events
from profiles.events import PROFILE_CHANGED
from profiles.tables import events

# The name of an event about a message begins with its channel: email_opened, sms_clicked ...
_BY_CHANNEL = tuple(f"{channel}_" for channel in CHANNELS)

# The id of no event.
_NO_EVENT = 0

ByName = dict[str, list[tuple[int, int]]]  # event id and profile id, by the event's name


@dataclass(slots=True, kw_only=True)
class Reaction:
    """The result of a batch of events, by journey.

    events: the number of events in the batch. causes: the names of events that entered profiles or
    woke enrollments. waited: seconds since the oldest event with such a name was received, by the
    database's clock.
    """

    events: int = 0
    causes: set[str] = field(default_factory=set)
    waited: Seconds = 0
    entered: Counter[str] = field(default_factory=Counter)
    exited: Counter[str] = field(default_factory=Counter)
    woken: Counter[str] = field(default_factory=Counter)
    converted: Counter[str] = field(default_factory=Counter)
    # events about a journey's messages, by journey and name such as "email_opened"
    about_messages: Counter[tuple[str, str]] = field(default_factory=Counter)
    # entry events that were older than `max_age` when they were received
    too_old: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Reaction") -> None:
        """Add the result of another batch."""
        self.events += other.events
        self.causes |= other.causes
        self.waited = max(self.waited, other.waited)
        for name in ("entered", "exited", "woken", "converted", "about_messages", "too_old"):
            getattr(self, name).update(getattr(other, name))


class EventsFailed(Exception):
    """Processing a batch of events failed, for another reason than a database error.

    `__cause__` is the error.
    """

    def __init__(self, event_ids: Sequence[int]) -> None:
        super().__init__(f"processing {len(event_ids)} events failed")
        self.event_ids = event_ids


class Reacted(NamedTuple):
    """A batch of events, and the enrollments that are due by them or were due before.

    The enrollments are locked.
    """

    reaction: Reaction
    due: list[DueEnrollment]


# Events are marked in the statement that reads them. If the transaction fails, they are unmarked.
_c = events.c
_BATCH = (
    select(_c.id)
    .where(_c.worked_at.is_(None), ~any_of(_c.id, "without"), in_buckets(_c.bucket))
    .order_by(_c.id)
    .limit(bindparam("most", type_=BigInteger))
    .with_for_update(skip_locked=True)
    .cte("batch")
    .prefix_with("MATERIALIZED", dialect="postgresql")
)
_TAKE = (
    update(events)
    .where(_c.id.in_(select(_BATCH.c.id)), in_buckets(_c.bucket))
    .values(worked_at=bindparam("now"))
    .returning(
        _c.id,
        _c.profile_id,
        _c.name,
        _c.received_at,
        (_c.received_at - _c.occurred_at).label("age"),
        _c.properties["journey"].as_string().label("journey"),
    )
)
_TO_WORK = select(
    select(_c.bucket)
    .where(_c.worked_at.is_(None), ~any_of(_c.id, "without"), in_buckets(_c.bucket))
    .order_by(_c.id)
    .limit(bindparam("most", type_=BigInteger))
    .subquery()
    .c.bucket
).distinct()
_ANY = (
    select(literal(1))
    .where(_c.worked_at.is_(None), ~any_of(_c.id, "without"), in_buckets(_c.bucket))
    .limit(1)
)
# Ended enrollments can still convert.
_e = enrollments.c
_OF_PEOPLE = (
    select(*DUE_COLUMNS, _e.ended_at)
    .where(
        any_of(_e.profile_id, "people"),
        in_buckets(_e.bucket),
        or_(_e.ended_at.is_(None), _e.converted_at.is_(None)),
    )
    .order_by(_e.id)
    .with_for_update()
)


def anything_to_work(tx: Tx, without: Collection[int] = ()) -> bool:
    """Whether the transaction's buckets have an unprocessed event other than `without`.

    Takes no lock.
    """
    given = {"without": without, "buckets": tx.buckets}
    return bool(tx.rows(_ANY, given))


def react(tx: Tx, catalog: Catalog, limit: int, without: Collection[int] = ()) -> Reacted:
    """Process the oldest `limit` unprocessed events of the transaction's buckets, except `without`
    and those locked by others.

    Raises EventsFailed.
    """
    given = {"without": without, "now": tx.now}
    batch = [_Event(*row) for row in lock_rows(tx, _TAKE, given, most=limit, find=_TO_WORK)]
    if not batch:
        return Reacted(Reaction(), [])
    batch.sort()
    try:
        return _react(tx, catalog, batch)
    except Exception as error:
        if of_the_database(error):
            raise
        raise EventsFailed([one.id for one in batch]) from error


class _Event(NamedTuple):
    """A row of `_TAKE`. age: seconds from its own time to its receipt."""

    id: int
    profile_id: int
    name: str
    received_at: Instant
    age: Seconds
    journey: str | None


@dataclass(slots=True)
class _Standing:
    """The enrollments of a version of which profiles have events, current and ended ones."""

    current: dict[int, DueEnrollment] = field(default_factory=dict)
    ended: list[int] = field(default_factory=list)  # profile ids


def _react(tx: Tx, catalog: Catalog, batch: Sequence[_Event]) -> Reacted:
    reaction = Reaction(events=len(batch))
    by_name: ByName = defaultdict(list)
    for one in batch:
        by_name[one.name].append((one.id, one.profile_id))
        if one.name.startswith(_BY_CHANNEL) and one.journey in catalog.current:
            reaction.about_messages[one.journey, one.name] += 1
    # Waits for a transaction that moves one of them. Otherwise that transaction would not see the
    # event, and this one would not see the wait at which the enrollment arrives.
    people = {one.profile_id for one in batch}
    # The events are locked, so these profiles stay in their buckets.
    tx.buckets = buckets_of(people)
    enrolled: dict[tuple[str, str], _Standing] = defaultdict(_Standing)
    for *columns, ended_at in lock_rows(tx, _OF_PEOPLE, {"people": people}):
        enrollment = DueEnrollment(*columns)
        theirs = enrolled[enrollment.journey, enrollment.version]
        if ended_at is None:
            theirs.current[enrollment.enrollment_id] = enrollment
        else:
            theirs.ended.append(enrollment.profile_id)
    lock_profiles(tx, people)
    if catalog.traits.of_events:
        _compute_traits(tx, catalog, by_name)
    for new in _enter(tx, catalog, by_name, reaction):
        enrolled[new.journey, new.version].current[new.enrollment_id] = new
    reaction.too_old = _too_old(catalog, batch)
    catalog.learn(tx, list(enrolled))
    due: list[DueEnrollment] = []
    for (journey, digest), theirs in enrolled.items():
        due += _wake(tx, catalog.version(journey, digest), theirs, by_name, reaction)
    reaction.waited = max(
        (tx.now - one.received_at for one in batch if one.name in reaction.causes), default=0
    )
    return Reacted(reaction, due)


def _compute_traits(tx: Tx, catalog: Catalog, by_name: ByName) -> None:
    """Compute the traits that the events change; journeys react to that as to other changes."""
    people = {name: {person for _, person in found} for name, found in by_name.items()}
    changed = update_after_events(tx, catalog.traits, people, PROFILE_CHANGED)
    if changed:
        by_name[PROFILE_CHANGED] += [(_NO_EVENT, person) for person in changed]


def _enter(
    tx: Tx, catalog: Catalog, by_name: ByName, reaction: Reaction
) -> Iterator[DueEnrollment]:
    for name, version in catalog.current.items():
        entry = version.journey.entry
        entered: Sequence[DueEnrollment] = ()
        causes = set[str]()
        if isinstance(entry, EventEntry) and entry.event in by_name:
            causes = {entry.event}
            entered = enter_by_events(tx, version, [one for one, _ in by_name[entry.event]])
        elif (condition := catalog.entry_segment(version)) is not None:
            causes = {*condition.event_names(), PROFILE_CHANGED} & by_name.keys()
            if people := {person for one in causes for _, person in by_name[one]}:
                entered = enter_newcomers(tx, version, condition, sorted(people))
        if entered:
            reaction.entered[name] += len(entered)
            reaction.causes |= causes
            yield from entered


def _too_old(catalog: Catalog, batch: Sequence[_Event]) -> Counter[str]:
    """The number of entry events that were too old when received, by journey."""
    found: Counter[str] = Counter()
    for name, version in catalog.current.items():
        entry = version.journey.entry
        if isinstance(entry, EventEntry):
            found[name] = sum(
                1 for row in batch if row.name == entry.event and row.age >= entry.max_age
            )
    return +found


def _wake(
    tx: Tx, version: Version, theirs: _Standing, by_name: ByName, reaction: Reaction
) -> list[DueEnrollment]:
    """Apply the goal, the exit rule and the waits of one version to the profiles of the batch.

    Returns the enrollments that are due.
    """
    journey = version.journey

    def of(names: Iterable[str]) -> set[int]:
        return {person for name in names for _, person in by_name.get(name, ())}

    goal = journey.goal
    if goal is not None and (people := of([goal.did.event])):
        enrolled = {one.profile_id for one in theirs.current.values()} | set(theirs.ended)
        if concerned := people & enrolled:
            reaction.converted[journey.name] += goal_reached(tx, version, sorted(concerned))
    rule = journey.exit_when
    if rule is not None and (people := of([*rule.event_names(), PROFILE_CHANGED])):
        ids = [key for key, one in theirs.current.items() if one.profile_id in people]
        if leaving := exiting(tx, version, ids):
            end(tx, leaving, EXITED)
            reaction.exited[journey.name] += len(leaving)
            for one in leaving:
                del theirs.current[one]
    woken: list[int] = []
    for name, node in journey.graph.items():
        causes = set(wakes(journey, node.step))
        people = of(causes)
        here = [
            key
            for key, one in theirs.current.items()
            if one.step == name and one.profile_id in people and one.due_at > tx.now
        ]
        if here:
            woken += here
            reaction.causes |= causes
    if woken:
        transitions.wake(tx, woken)
        reaction.woken[journey.name] += len(woken)
        for key in woken:
            theirs.current[key] = theirs.current[key]._replace(due_at=tx.now)
    return [one for one in theirs.current.values() if one.due_at <= tx.now]


def wakes(journey: Journey, step: Step) -> Iterator[str]:
    """The names of events that make enrollments at a step due."""
    if isinstance(step, WaitUntilStep):
        yield from step.condition.event_names()
        yield PROFILE_CHANGED
    if isinstance(step, SendStep):
        kinds: set[str] = {kind for kind in (step.unless, step.stop_on) if kind}
        if step.fallback_after is not None:
            kinds |= {"failed", "bounced"}  # they trigger the fallback
        for message in step.messages:
            yield from (f"{message.channel}_{kind}" for kind in kinds)
        if "converted" in kinds and journey.goal is not None:
            yield journey.goal.did.event

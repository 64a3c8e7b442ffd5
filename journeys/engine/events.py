"""React to new events: enter profiles, wake waits, apply exit rules, count goals.

Unprocessed events are marked in the database (`worked_at` is NULL), so that none is lost. One
transaction processes a batch. It locks rows in the order events, enrollments, messages.
"""

import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, not_, select, update

from config.batches import Halving
from config.clock.times import Seconds
from config.database.engine import Database, Tx
from config.database.failures import of_the_database, reason_of
from config.policy import CHANNELS
from journeys.definition.catalog import Catalog
from journeys.definition.journey import EventEntry, Journey, Version
from journeys.definition.steps import SendStep, Step, WaitUntilStep
from journeys.engine.entry import enter_by_events
from journeys.engine.exits import EXITED, end, exiting, goal_reached
from journeys.engine.segment_entry import enter_newcomers
from journeys.enrollments import enrollments, transitions
from profiles.bulk import among
from profiles.events import PROFILE_CHANGED
from profiles.tables import events

log = logging.getLogger(__name__)

# The most events in one transaction.
BATCH = 500

# The name of an event about a message begins with its channel: email_opened, sms_clicked ...
_BY_CHANNEL = tuple(f"{channel}_" for channel in CHANNELS)

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


class EventsFailed(Exception):
    """Processing a batch of events failed, for another reason than a database error.

    `__cause__` is the error.
    """

    def __init__(self, event_ids: Sequence[int]) -> None:
        super().__init__(f"processing {len(event_ids)} events failed")
        self.event_ids = event_ids


class Reactor:
    """Processes new events batch by batch. A failing event does not block the others.

    This process skips a failing event until `try_again`; it stays marked as unprocessed.
    """

    def __init__(self, db: Database, catalog: Catalog) -> None:
        self._db = db
        self._catalog = catalog
        self._skipped: set[int] = set()
        self._halving = Halving(BATCH)

    def work(self, *, sure: bool = False) -> Reaction:
        """Process one batch. A result with 0 events means that no event is left.

        sure: an event has just arrived, so skip the query that checks for one.
        """
        while True:
            if not sure:
                with self._db.transaction(write=False) as tx:
                    if not has_unprocessed(tx, self._skipped):
                        return Reaction()
            try:
                with self._db.transaction() as tx:
                    reaction = react(tx, self._catalog, self._halving.size, self._skipped)
            except EventsFailed as failure:
                if self._halving.failed(len(failure.event_ids)):
                    self._skip(failure)
                continue
            self._halving.worked()
            return reaction

    def try_again(self) -> None:
        """Process the skipped events again."""
        self._skipped = set()

    def _skip(self, failure: EventsFailed) -> None:
        [event_id] = failure.event_ids
        self._skipped.add(event_id)
        why = reason_of(failure.__cause__ or failure)
        log.error(
            "event %d failed and will be retried: %s",
            event_id,
            why,
            extra={"event_id": event_id},
        )


def has_unprocessed(tx: Tx, without: Collection[int] = ()) -> bool:
    """Whether there is an unprocessed event that is not in `without`. Takes no lock."""
    waiting = select(events.c.id).where(events.c.worked_at.is_(None), *_not_among(tx, without))
    return tx.conn.execute(waiting.limit(1)).first() is not None


def react(tx: Tx, catalog: Catalog, limit: int, without: Collection[int] = ()) -> Reaction:
    """Process the oldest `limit` unprocessed events, without `without` and those that others lock.

    Raises EventsFailed.
    """
    found = (
        select(
            events.c.id,
            events.c.profile_id,
            events.c.name,
            events.c.received_at,
            (events.c.received_at - events.c.occurred_at).label("age"),
            events.c.properties["journey"].as_string().label("journey"),
        )
        .where(events.c.worked_at.is_(None), *_not_among(tx, without))
        .order_by(events.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    batch = tx.conn.execute(found).all()
    if not batch:
        return Reaction()
    try:
        return _work(tx, catalog, batch)
    except Exception as error:
        if of_the_database(error):
            raise
        raise EventsFailed([row.id for row in batch]) from error


def _not_among(tx: Tx, ids: Collection[int]) -> list[ColumnElement[bool]]:
    return [not_(among(tx, events.c.id, ids))] if ids else []


def _work(tx: Tx, catalog: Catalog, batch: Sequence[Any]) -> Reaction:
    reaction = Reaction(events=len(batch))
    by_name: ByName = defaultdict(list)
    for row in batch:
        by_name[row.name].append((row.id, row.profile_id))
        if row.name.startswith(_BY_CHANNEL) and row.journey in catalog.current:
            reaction.about_messages[row.journey, row.name] += 1
    people = {row.profile_id for row in batch}
    _lock(tx, people)
    _enter(tx, catalog, by_name, reaction)
    reaction.too_old = _too_old(catalog, batch)
    for version in _with_people(tx, catalog, people):
        _wake_waiting(tx, version, by_name, reaction)
    reaction.waited = max(
        (tx.now - row.received_at for row in batch if row.name in reaction.causes), default=0
    )
    tx.conn.execute(
        update(events).where(events.c.id.in_([row.id for row in batch])).values(worked_at=tx.now)
    )
    return reaction


def _lock(tx: Tx, people: Collection[int]) -> None:
    """Lock the current enrollments of these profiles, in id order to avoid deadlocks.

    Waits for a chunk that moves one of them. Without the lock the chunk would not see the event,
    and this transaction would not see the wait at which the enrollment arrives. SQLite has one
    writer at a time and needs no row locks.
    """
    c = enrollments.c
    current = select(c.id).where(among(tx, c.profile_id, people), c.ended_at.is_(None))
    if tx.conn.dialect.name != "sqlite":
        tx.conn.execute(current.order_by(c.id).with_for_update())


def _enter(
    tx: Tx,
    catalog: Catalog,
    by_name: ByName,
    reaction: Reaction,
) -> None:
    for name, version in catalog.current.items():
        entry = version.journey.entry
        entered, causes = 0, set[str]()
        if isinstance(entry, EventEntry) and entry.event in by_name:
            causes = {entry.event}
            entered = len(enter_by_events(tx, version, [one for one, _ in by_name[entry.event]]))
        elif (condition := catalog.entry_segment(version)) is not None:
            causes = {*condition.event_names(), PROFILE_CHANGED} & by_name.keys()
            if people := {person for one in causes for _, person in by_name[one]}:
                entered = len(enter_newcomers(tx, version, condition, sorted(people)))
        if entered:
            reaction.entered[name] += entered
            reaction.causes |= causes


def _too_old(catalog: Catalog, batch: Sequence[Any]) -> Counter[str]:
    """The number of entry events that were too old when received, by journey."""
    found: Counter[str] = Counter()
    for name, version in catalog.current.items():
        entry = version.journey.entry
        if isinstance(entry, EventEntry):
            found[name] = sum(
                1 for row in batch if row.name == entry.event and row.age >= entry.max_age
            )
    return +found


def _with_people(tx: Tx, catalog: Catalog, people: Collection[int]) -> Iterator[Version]:
    """The versions of these profiles' enrollments, ended ones included: they may still convert."""
    found = select(enrollments.c.journey, enrollments.c.version).where(
        enrollments.c.profile_id.in_(people)
    )
    versions = [(row.journey, row.version) for row in tx.conn.execute(found.distinct())]
    catalog.learn(tx, versions)
    for journey, digest in versions:
        yield catalog.version(journey, digest)


def _wake_waiting(
    tx: Tx,
    version: Version,
    by_name: ByName,
    reaction: Reaction,
) -> None:
    """Apply the goal, the exit rule and the waits of one version to the profiles of the batch."""
    journey = version.journey

    def of(names: Collection[str]) -> list[int]:
        return sorted({person for name in names for _, person in by_name.get(name, ())})

    goal = journey.goal
    if goal is not None and (people := of([goal.did.event])):
        reaction.converted[journey.name] += goal_reached(tx, version, people)
    rule = journey.exit_when
    if rule is not None and (people := of([*rule.event_names(), PROFILE_CHANGED])):
        inside = select(enrollments.c.id).where(
            enrollments.c.journey == journey.name,
            enrollments.c.version == version.digest,
            enrollments.c.ended_at.is_(None),
            among(tx, enrollments.c.profile_id, people),
        )
        ids = exiting(tx, version, list(tx.conn.execute(inside).scalars()))
        if ids:
            end(tx, ids, EXITED)
            reaction.exited[journey.name] += len(ids)
    for name, node in journey.graph.items():
        causes = set(_wakes(journey, node.step))
        people = of(causes)
        if people and (
            woken := transitions.wake_at(tx, journey.name, version.digest, name, people)
        ):
            reaction.woken[journey.name] += woken
            reaction.causes |= causes


def _wakes(journey: Journey, step: Step) -> Iterator[str]:
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

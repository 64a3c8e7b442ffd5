"""What events do the moment they come: people enter, waits end, exit rules fire, goals count.

Events wait in the database, marked as not yet worked, so that none is lost; a batch of them is
worked in one transaction. Rows are locked in the order events, enrollments, messages.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from sqlalchemy import select, update

from config.database import Tx
from journeys.catalog import Catalog
from journeys.engine import EXITED, end, exit_rule, goal_reached
from journeys.entry import enter_by_events
from journeys.journey import EventEntry, Version
from journeys.steps import SendStep, Step, WaitUntilStep
from journeys.tables import enrollments
from profiles.events import PROFILE_CHANGED
from profiles.tables import events

ByName = dict[str, list[tuple[int, int]]]  # event id and profile id, by the event's name


@dataclass(slots=True)
class Reaction:
    """What a batch of events did, by journey."""

    events: int = 0
    entered: Counter[str] = field(default_factory=Counter)
    exited: Counter[str] = field(default_factory=Counter)
    woken: Counter[str] = field(default_factory=Counter)
    converted: Counter[str] = field(default_factory=Counter)


def anything_to_work(tx: Tx) -> bool:
    """Whether an event waits: a look that takes no lock."""
    waiting = select(events.c.id).where(events.c.worked_at.is_(None)).limit(1)
    return tx.conn.execute(waiting).first() is not None


def react(tx: Tx, catalog: Catalog, limit: int) -> Reaction:
    """Work the oldest `limit` events that nobody has worked or is working."""
    found = (
        select(events.c.id, events.c.profile_id, events.c.name)
        .where(events.c.worked_at.is_(None))
        .order_by(events.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    batch = tx.conn.execute(found).all()
    reaction = Reaction(events=len(batch))
    if not batch:
        return reaction
    by_name: ByName = defaultdict(list)
    for event_id, profile_id, name in batch:
        by_name[name].append((event_id, profile_id))
    people = {row.profile_id for row in batch}
    _enter(tx, catalog, by_name, reaction)
    for version in _with_people(tx, catalog, people):
        _stir(tx, version, by_name, reaction)
    tx.conn.execute(
        update(events).where(events.c.id.in_([row.id for row in batch])).values(worked_at=tx.now)
    )
    return reaction


def _enter(
    tx: Tx,
    catalog: Catalog,
    by_name: ByName,
    reaction: Reaction,
) -> None:
    for name, version in catalog.current.items():
        entry = version.journey.entry
        if isinstance(entry, EventEntry) and entry.event in by_name:
            ids = [event_id for event_id, _ in by_name[entry.event]]
            if entered := enter_by_events(tx, version, ids):
                reaction.entered[name] += entered


def _with_people(tx: Tx, catalog: Catalog, people: Collection[int]) -> Iterator[Version]:
    """The versions that some of these people are in, or were in and may still convert."""
    found = select(enrollments.c.journey, enrollments.c.version).where(
        enrollments.c.profile_id.in_(people)
    )
    versions = [(row.journey, row.version) for row in tx.conn.execute(found.distinct())]
    catalog.learn(tx, versions)
    for journey, digest in versions:
        yield catalog.version(journey, digest)


def _stir(
    tx: Tx,
    version: Version,
    by_name: ByName,
    reaction: Reaction,
) -> None:
    """Exit rule, waits and goal of one version for the people of the batch."""
    journey = version.journey
    theirs = [
        enrollments.c.journey == journey.name,
        enrollments.c.version == version.digest,
    ]
    now_in = [*theirs, enrollments.c.ended_at.is_(None)]

    def of(names: Collection[str]) -> list[int]:
        return sorted({person for name in names for _, person in by_name.get(name, ())})

    goal = journey.goal
    if goal is not None and (people := of([goal.did.event])):
        reaction.converted[journey.name] += goal_reached(
            tx, version, enrollments.c.profile_id.in_(people)
        )
    rule = journey.exit_when
    if rule is not None and (people := of([*rule.event_names(), PROFILE_CHANGED])):
        leaving = (
            select(enrollments.c.id)
            .where(*now_in, enrollments.c.profile_id.in_(people), exit_rule(tx, version))
            .order_by(enrollments.c.id)
            .with_for_update()
        )
        ids = list(tx.conn.execute(leaving).scalars())
        if ids:
            end(tx, ids, EXITED)
            reaction.exited[journey.name] += len(ids)
    for name, node in journey.graph.items():
        if people := of(list(_wakes(node.step))):
            waking = (
                update(enrollments)
                .where(
                    *now_in,
                    enrollments.c.profile_id.in_(people),
                    enrollments.c.step == name,
                    enrollments.c.due_at > tx.now,
                )
                .values(due_at=tx.now)
            )
            reaction.woken[journey.name] += tx.conn.execute(waking).rowcount


def _wakes(step: Step) -> Iterator[str]:
    """The events at which a person who stands at a step is looked at again."""
    if isinstance(step, WaitUntilStep):
        yield from step.condition.event_names()
        yield PROFILE_CHANGED
    if isinstance(step, SendStep) and step.unless is not None:
        for message in step.messages:
            yield f"{message.channel}_{step.unless}"

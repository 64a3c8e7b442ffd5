"""Moving people from older versions of a journey to the current one: shown first, then done."""

from dataclasses import dataclass

from sqlalchemy import func, select, update

from config.database import Tx
from journeys.catalog import Catalog
from journeys.journey import Version
from journeys.tables import enrollments


@dataclass(frozen=True, slots=True)
class Passenger:
    """People who stand at one step of an older version, and where they would go on.

    to_step: the step of the current version; None: they stay on their version, and `why` says why.
    """

    version: str
    step: str
    people: int
    to_step: str | None
    why: str


def plan_migration(tx: Tx, catalog: Catalog, journey: str) -> list[Passenger]:
    """Who would go where, step by step. Raises SegueError for an unknown journey."""
    current = catalog.journey(journey)
    standing = tx.conn.execute(
        select(enrollments.c.version, enrollments.c.step, func.count())
        .where(
            enrollments.c.journey == journey,
            enrollments.c.version != current.digest,
            enrollments.c.ended_at.is_(None),
        )
        .group_by(enrollments.c.version, enrollments.c.step)
        .order_by(enrollments.c.version, enrollments.c.step)
    ).all()
    catalog.learn(tx, {(journey, row.version) for row in standing})
    return [
        _passenger(catalog.version(journey, version), current, step, people)
        for version, step, people in standing
    ]


def migrate_people(tx: Tx, catalog: Catalog, journey: str) -> list[Passenger]:
    """Do what `plan_migration` shows. People keep their due times and what is planned for them."""
    current = catalog.journey(journey)
    plan = plan_migration(tx, catalog, journey)
    c = enrollments.c
    for passenger in plan:
        if passenger.to_step is not None:
            there = select(c.id).where(
                c.journey == journey,
                c.version == passenger.version,
                c.step == passenger.step,
                c.ended_at.is_(None),
            )
            # locked in id order, as everywhere
            moving = update(enrollments).where(c.id.in_(there.order_by(c.id).with_for_update()))
            tx.conn.execute(moving.values(version=current.digest))
    return plan


def _passenger(old: Version, current: Version, step: str, people: int) -> Passenger:
    then = old.journey.graph[step].step
    node = current.journey.graph.get(step)
    if node is None:
        return Passenger(old.digest, step, people, None, "the current version has no such step")
    if node.step.type != then.type:
        why = f"the step was a {then.type} and is now a {node.step.type}"
        return Passenger(old.digest, step, people, None, why)
    why = "the step is the same" if node.step == then else "the step has changed"
    return Passenger(old.digest, step, people, step, why)

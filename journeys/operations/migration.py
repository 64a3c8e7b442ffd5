"""Migrate enrollments from older versions of a journey to the current one, or preview that."""

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import bindparam, case, func, select

from config.database.buckets import in_buckets
from config.database.engine import Tx
from journeys.definition.catalog import Catalog
from journeys.definition.journey import Version
from journeys.definition.steps import SendStep
from journeys.enrollments import enrollments, transitions

_c = enrollments.c
# Locks in id order, as everywhere, to avoid deadlocks.
_AT_STEP = (
    select(_c.id)
    .where(
        _c.journey == bindparam("of_journey"),
        _c.version == bindparam("of_version"),
        _c.step == bindparam("at_step"),
        _c.ended_at.is_(None),
        in_buckets(_c.bucket),
    )
    .order_by(_c.id)
    .with_for_update()
)
_ARRIVING = _AT_STEP.where(_c.phase == 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationCandidate:
    """The enrollments at one step of an older version, and where they would continue.

    to_step: the step in the current version; None: they stay on their version. why: the reason.
    """

    version: str
    step: str
    people: int
    to_step: str | None
    why: str


def plan_migration(tx: Tx, catalog: Catalog, journey: str) -> list[MigrationCandidate]:
    """Plan the migration of a journey, step by step. Raises SegueError for an unknown journey."""
    current = catalog.journey(journey)
    c = enrollments.c
    groups = tx.conn.execute(
        select(c.version, c.step, func.count(), func.count(case((c.phase > 0, 1))))
        .where(c.journey == journey, c.version != current.digest, c.ended_at.is_(None))
        .group_by(c.version, c.step)
        .order_by(c.version, c.step)
    ).all()
    catalog.learn(tx, {(journey, row.version) for row in groups})
    return [
        candidate
        for version, step, people, within in groups
        for candidate in _candidates(
            catalog.version(journey, version), current, step, people, within
        )
    ]


def migrate_people(tx: Tx, catalog: Catalog, journey: str) -> list[MigrationCandidate]:
    """Apply the plan of `plan_migration`. Enrollments keep due times and planned messages."""
    current = catalog.journey(journey)
    plan = plan_migration(tx, catalog, journey)
    for candidate in plan:
        if candidate.to_step is not None:
            old = catalog.version(journey, candidate.version)
            arriving = _has_other_fallbacks(old, current, candidate.step)
            moving = _ARRIVING if arriving else _AT_STEP
            given = {
                "of_journey": journey,
                "of_version": candidate.version,
                "at_step": candidate.step,
            }
            transitions.migrate(tx, moving, given, current.digest)
    return plan


def _candidates(
    old: Version, current: Version, step: str, people: int, within: int
) -> Iterator[MigrationCandidate]:
    """within: how many of the enrollments have a phase above 0."""
    if within and _has_other_fallbacks(old, current, step):
        why = "they wait within the send, whose fallbacks have changed"
        yield MigrationCandidate(
            version=old.digest, step=step, people=within, to_step=None, why=why
        )
        people -= within
    if people:
        yield _candidate(old, current, step, people)


def _has_other_fallbacks(old: Version, current: Version, step: str) -> bool:
    """Whether the step is a send with other fallbacks in the current version, or another order.

    The phase counts the messages tried so far. With other messages, an enrollment that waits within
    the step would get a message twice or miss one.
    """
    then, node = old.journey.graph[step].step, current.journey.graph.get(step)
    if not isinstance(then, SendStep) or node is None or not isinstance(node.step, SendStep):
        return False
    if node.step.fallback_after is None:
        return False
    members, now = ([one.member for one in each.messages] for each in (then, node.step))
    return then.fallback_after is None or members != now


def _candidate(old: Version, current: Version, step: str, people: int) -> MigrationCandidate:
    then = old.journey.graph[step].step
    node = current.journey.graph.get(step)
    if node is None:
        return MigrationCandidate(
            version=old.digest,
            step=step,
            people=people,
            to_step=None,
            why="the current version has no such step",
        )
    if node.step.type != then.type:
        why = f"the step was a {then.type} and is now a {node.step.type}"
        return MigrationCandidate(
            version=old.digest, step=step, people=people, to_step=None, why=why
        )
    why = "the step is the same" if node.step == then else "the step has changed"
    return MigrationCandidate(version=old.digest, step=step, people=people, to_step=step, why=why)

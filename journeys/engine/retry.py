"""A step that fails: whom it fails on is found, tried again later, and in the end goes on without.

A chunk is one transaction, so one person whom a step can't bear would hold up all the others. The
engine halves a chunk that failed until that person is alone (config/batches.py).
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import select

from config.database import Tx
from config.failures import of_the_database, told
from config.times import MINUTE, Seconds
from journeys.definition.journey import Version
from journeys.definition.steps import FAILED, CallStep, Step
from journeys.engine.due import Standing
from journeys.engine.handlers import Move
from journeys.enrollments import enrollments, transitions

log = logging.getLogger(__name__)

# So often a step is tried on somebody, with pauses that double.
TRIES = 5
FIRST_RETRY: Seconds = MINUTE


class StepFailed(Exception):
    """A step failed on these people, and it is not the database that is in trouble.

    What went wrong is the cause.
    """

    def __init__(self, step: Step, people: Sequence[Standing]) -> None:
        super().__init__(f"step {step.name!r} fails")
        self.step = step
        self.people = people


@contextmanager
def blaming(step: Step, people: Sequence[Standing]) -> Iterator[None]:
    """Raise StepFailed for what goes wrong with a step and the people at it."""
    try:
        yield
    except Exception as error:
        if of_the_database(error):
            raise
        raise StepFailed(step, people) from error


def try_later(tx: Tx, version: Version, failure: StepFailed) -> dict[int, Move]:
    """What becomes of the one person whom a step failed on: where they go, by enrollment id.

    Nothing: they are tried again later, or have moved meanwhile, to another step or version.
    """
    [person] = failure.people
    step = failure.step
    journey = version.journey.name
    here = select(enrollments.c.attempts).where(
        enrollments.c.id == person.enrollment_id,
        enrollments.c.version == version.digest,
        enrollments.c.step == step.name,
        enrollments.c.ended_at.is_(None),
    )
    before = tx.conn.execute(here.with_for_update()).scalar_one_or_none()
    if before is None:
        return {}
    tried = before + 1
    log.error(
        "journey %s, step %r fails on enrollment %d, try %d of %d: %s",
        journey,
        step.name,
        person.enrollment_id,
        tried,
        TRIES,
        told(failure.__cause__ or failure),
        extra={"journey": journey, "step": step.name, "enrollment_id": person.enrollment_id},
    )
    if tried >= TRIES:
        exits = isinstance(step, CallStep) and step.on_error == "exit"
        return {person.enrollment_id: Move("exit: the step failed" if exits else FAILED)}
    due_at = tx.now + FIRST_RETRY * 2**before
    transitions.retry(tx, person.enrollment_id, attempts=tried, due_at=due_at)
    return {}

"""Retries of failed steps: isolate the failing enrollment, retry it, then move it on.

A chunk is one transaction, so one failing enrollment would block the whole chunk. The engine halves
a failed chunk until that enrollment is alone (config/batches.py).
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import bindparam, select

from config.clock.times import MINUTE, Seconds
from config.database.buckets import in_buckets
from config.database.engine import Tx
from config.database.failures import of_the_database, reason_of
from journeys.definition.journey import Version
from journeys.definition.steps import FAILED, CallStep, Step
from journeys.engine.due import DueEnrollment
from journeys.engine.handlers import Move
from journeys.enrollments import enrollments, transitions
from profiles.bucketing import bucket_of

log = logging.getLogger(__name__)

# The most attempts of a step for one enrollment. The pauses start at FIRST_RETRY and double, so the
# last attempt is 1 + 2 + 4 + 8 = 15 minutes after the first.
TRIES = 5
FIRST_RETRY: Seconds = MINUTE


_c = enrollments.c
_ATTEMPTS = (
    select(_c.attempts)
    .where(
        _c.id == bindparam("enrollment"),
        in_buckets(_c.bucket),
        _c.version == bindparam("of_version"),
        _c.step == bindparam("at_step"),
        _c.ended_at.is_(None),
    )
    .with_for_update()
)


class StepFailed(Exception):
    """A step failed for these enrollments, for another reason than a database error.

    `__cause__` is the error.
    """

    def __init__(self, step: Step, people: Sequence[DueEnrollment]) -> None:
        super().__init__(f"step {step.name!r} failed")
        self.step = step
        self.people = people


@contextmanager
def raising_step_failed(step: Step, people: Sequence[DueEnrollment]) -> Iterator[None]:
    """Raise StepFailed for an error in the block, except for a database error."""
    try:
        yield
    except Exception as error:
        if of_the_database(error):
            raise
        raise StepFailed(step, people) from error


def retry_or_move_on(tx: Tx, version: Version, failure: StepFailed) -> dict[int, Move]:
    """Schedule a retry for the single enrollment that failed or, after TRIES attempts, move it on.

    Returns the move by enrollment id; empty if a retry is scheduled, or if the enrollment has moved
    to another step or version meanwhile.
    """
    [person] = failure.people
    step = failure.step
    journey = version.journey.name
    here = {
        "enrollment": person.enrollment_id,
        "of_version": version.digest,
        "at_step": step.name,
        "buckets": [bucket_of(person.profile_id)],
    }
    before = tx.conn.execute(_ATTEMPTS, here).scalar_one_or_none()
    if before is None:
        return {}
    tried = before + 1
    log.error(
        "journey %s, step %r failed for enrollment %d, attempt %d of %d: %s",
        journey,
        step.name,
        person.enrollment_id,
        tried,
        TRIES,
        reason_of(failure.__cause__ or failure),
        extra={"journey": journey, "step": step.name, "enrollment_id": person.enrollment_id},
    )
    if tried >= TRIES:
        exits = isinstance(step, CallStep) and step.on_error == "exit"
        return {person.enrollment_id: Move("exit: the step failed" if exits else FAILED)}
    due_at = tx.now + FIRST_RETRY * 2**before
    transitions.retry(tx, person.enrollment_id, attempts=tried, due_at=due_at)
    return {}

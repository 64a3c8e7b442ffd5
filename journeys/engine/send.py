"""The handler of Send steps: plan a group's messages, wait until they are sent, fall back."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, cast, get_args

from sqlalchemy import ColumnElement, bindparam, case, exists, func, literal, or_, select
from sqlalchemy import cast as sql_cast
from sqlalchemy.types import Text

from channels.messages import messages
from channels.messages.transitions import Addressee, cancel_of
from channels.outbox.plan import PlannedSend, plan, refuse
from channels.rules.planner import Decision, Wanted
from config.clock.times import Instant, Seconds
from config.database.arrays import any_of, one_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from config.database.locking import lock_rows
from config.policy import Policy
from journeys.definition.journey import Version
from journeys.definition.steps import NEXT, AwaitedEvidence, SendStep
from journeys.engine.due import DUE_COLUMNS, DueEnrollment
from journeys.engine.exits import goal_moments
from journeys.engine.handlers import Cohort, Move, Moves
from journeys.enrollments import enrollments, transitions
from journeys.operations.counts import SENT
from profiles.conditions.sql import NOW
from profiles.tables import events

# The messages of enrollments at a step.
_OF_STEP = select(messages.c.enrollment_id, messages.c.state, messages.c.send_at).where(
    any_of(messages.c.profile_id, "profiles"),
    any_of(messages.c.enrollment_id, "enrollments"),
    in_buckets(messages.c.bucket),
    messages.c.step == bindparam("of_step"),
)
# Locks the enrollments that have a message of the step at which they are.
_AT_A_MESSAGE = (
    select(*DUE_COLUMNS)
    .where(
        any_of(enrollments.c.id, "enrollments"),
        in_buckets(enrollments.c.bucket),
        enrollments.c.ended_at.is_(None),
        exists().where(
            messages.c.enrollment_id == enrollments.c.id,
            messages.c.bucket == enrollments.c.bucket,
            in_buckets(messages.c.bucket),
            messages.c.step == enrollments.c.step,
        ),
    )
    .order_by(enrollments.c.id)
    .with_for_update()
)
_FREE = _AT_A_MESSAGE.with_for_update(skip_locked=True)


def send(cohort: Cohort, step: SendStep) -> Moves:
    """Phase 0 plans the group; phase n waits until the first n messages are sent or refused.

    The step ends when the group's last message was sent, and the next step counts from there: a
    two-day wait after a message sent on Thursday ends on Saturday.
    """
    arriving = [person for person in cohort.people if person.phase == 0]
    waiting = [person for person in cohort.people if person.phase > 0]
    since = {person.enrollment_id: person.arrived_at for person in arriving}
    moves = _plan_from(cohort, step, arriving, 0, since)
    if waiting:
        moves |= _after_planning(cohort, step, waiting)
    return moves


def _plan_from(
    cohort: Cohort,
    step: SendStep,
    people: Sequence[DueEnrollment],
    first: int,
    since: Mapping[int, Instant | None],
) -> Moves:
    """Plan the members from `first` on.

    since: when the step ended if none of these members is planned, by enrollment id.
    """
    if not people:
        return {}
    members = step.messages[first:]
    planned, recipients = plan(
        cohort.tx,
        cohort.planner,
        planned_send(cohort.planner.policy, cohort.version, step, first),
        _addressees(people),
        settled=wake_unlocked,
    )
    moves: Moves = {}
    now, again = cohort.tx.now, cohort.tx.timing.send_again
    for decisions, alike in planned:
        for message, decision in zip(members, decisions, strict=True):
            if decision.reason != "not_chosen" or step.fallback_after is None:
                cohort.messages[message.channel, decision.reason or "planned"] += len(alike)
        wait = _wait(decisions, first, again)
        for profile_id, enrollment_id in alike:
            if wait is None:
                moves[enrollment_id] = Move(NEXT, ended_at=since.get(enrollment_id))
                continue
            moves[enrollment_id] = wait.move
            if wait.since <= now:
                cohort.planned_now[enrollment_id, step.name] = recipients[profile_id]
    return moves


class _Wait(NamedTuple):
    """The wait for a group's messages. since: when the first of them is to be sent."""

    since: Instant
    move: Move


def _wait(decisions: Sequence[Decision], first: int, again: Seconds) -> _Wait | None:
    """The wait until the last of the messages is sent; None: none is planned.

    first: the place of the first member in the step's group. again: see `Timing.send_again`.
    """
    planned = [
        (decision.send_at, place)
        for place, decision in enumerate(decisions)
        if decision.send_at is not None
    ]
    if not planned:
        return None
    last, place = max(planned)
    # `wake` makes the enrollment due as soon as the message is sent.
    return _Wait(min(planned)[0], Move(None, due_at=last + again, phase=first + place + 1))


def planned_send(policy: Policy, version: Version, step: SendStep, first: int = 0) -> PlannedSend:
    """The step's members from index `first` on, as the outbox plans them."""
    journey = version.journey
    default = policy.max_delay
    return PlannedSend(
        journey=journey.name,
        version=version.digest,
        step=step.name,
        priority=journey.priority,
        mode=step.mode,
        members=tuple(
            (
                message.member,
                Wanted(
                    channel=message.channel,
                    kind=step.kind,
                    topic=step.topic or journey.topic,
                    offset=message.after,
                    on_cap=message.on_cap,
                    max_delay=default if message.max_delay is None else message.max_delay,
                ),
            )
            for message in step.messages[first:]
        ),
        may_fall_back=step.fallback_after is not None,
    )


def _addressees(people: Sequence[DueEnrollment]) -> list[Addressee]:
    return [Addressee(person.profile_id, person.enrollment_id) for person in people]


def _after_planning(cohort: Cohort, step: SendStep, people: Sequence[DueEnrollment]) -> Moves:
    tx = cohort.tx
    rows: dict[int, list[Any]] = defaultdict(list)
    given = {
        "profiles": {person.profile_id for person in people},
        "enrollments": [person.enrollment_id for person in people],
        "of_step": step.name,
        "buckets": tx.buckets,
    }
    for row in tx.rows(_OF_STEP, given):
        rows[row.enrollment_id].append(row)
    moves: Moves = {}
    settled: list[DueEnrollment] = []
    answers = answers_to(tx, cohort.version, step, [person.enrollment_id for person in people])
    _withdraw(tx, step, answers)
    for person in people:
        pending = ["sending"] if person.enrollment_id in answers else ["planned", "sending"]
        waiting = [row.send_at for row in rows[person.enrollment_id] if row.state in pending]
        if waiting:
            again = max(*waiting, tx.now) + tx.timing.send_again
            moves[person.enrollment_id] = Move(None, due_at=again, phase=person.phase)
        else:
            settled.append(person)
    falling_back: dict[int, list[DueEnrollment]] = defaultdict(list)
    answered: list[DueEnrollment] = []
    for person in settled:
        last_sent = max(
            (row.send_at for row in rows[person.enrollment_id] if row.state in SENT), default=None
        )
        if answer := answers.get(person.enrollment_id):
            answered.append(person)
            moves[person.enrollment_id] = Move(NEXT, ended_at=max(last_sent or 0, answer.at))
        elif step.fallback_after is None or person.phase >= len(step.messages):
            moves[person.enrollment_id] = Move(NEXT, ended_at=last_sent)
        elif last_sent is not None and last_sent + step.fallback_after > tx.now:
            moves[person.enrollment_id] = Move(
                None, due_at=last_sent + step.fallback_after, phase=person.phase
            )
        else:
            falling_back[person.phase].append(person)
    for phase, some in falling_back.items():
        moves |= _plan_from(cohort, step, some, phase, {})
    if step.fallback_after is not None:
        _refuse_unused(cohort, step, answered)
    return moves


def _withdraw(tx: Tx, step: SendStep, answers: Mapping[int, "GroupAnswer"]) -> None:
    """Cancel the planned messages of the groups that were answered."""
    for reason in {answer.reason for answer in answers.values()}:
        ids = [one for one, answer in answers.items() if answer.reason == reason]
        cancel_of(tx, ids, reason, step=step.name)


def _refuse_unused(cohort: Cohort, step: SendStep, people: Sequence[DueEnrollment]) -> None:
    """Record the unused fallbacks of answered groups as refused, with the reason `not_chosen`."""
    for phase in {person.phase for person in people if person.phase < len(step.messages)}:
        addressees = _addressees([person for person in people if person.phase == phase])
        left = planned_send(cohort.planner.policy, cohort.version, step, phase)
        refuse(cohort.tx, cohort.planner, left, addressees, "not_chosen")
        for message in step.messages[phase:]:
            cohort.messages[message.channel, "not_chosen"] += len(addressees)


def wake_unlocked(tx: Tx, enrollment_ids: Sequence[int]) -> None:
    """Make enrollments due that wait for a message of their step which was sent or refused.

    Skips those that another process locks, because that process moves them.
    """
    waiting = lock_waiting(tx, enrollment_ids, skip_locked=True)
    if waiting:
        transitions.wake(tx, [one.enrollment_id for one in waiting])


def lock_waiting(
    tx: Tx, enrollment_ids: Collection[int], *, skip_locked: bool = False
) -> list[DueEnrollment]:
    """Lock and read the enrollments that wait for a message of their step, in id order.

    An enrollment that has moved on to another step is not among them: the outcome of a message may
    be recorded late.
    """
    if not enrollment_ids:
        return []
    locked = _FREE if skip_locked else _AT_A_MESSAGE
    found = lock_rows(tx, locked, {"enrollments": enrollment_ids})
    # Not in the WHERE, which on PostgreSQL reads the phase before the wait for the lock and would
    # miss an enrollment whose phase another process has raised meanwhile.
    return [one for one in map(DueEnrollment._make, found) if one.phase > 0]


# Answers ------------------------------------------------------------------------------------------


class GroupAnswer(NamedTuple):
    """Why the rest of a group is no longer needed, and since when."""

    reason: str
    at: Instant


def answers_to(
    tx: Tx, version: Version, step: SendStep, enrollment_ids: Collection[int]
) -> dict[int, GroupAnswer]:
    """The first answer, by enrollment id, that the step's `unless` or `stop_on` waits for."""
    answers: dict[int, GroupAnswer] = {}
    for kind in {step.unless, step.stop_on} - {None}:
        if kind == "converted":
            moments = goal_moments(tx, version, enrollment_ids)
        else:
            moments = _answered_in(tx, step, cast(AwaitedEvidence, kind), enrollment_ids)
        for enrollment_id, at in moments.items():
            answer = GroupAnswer(f"stopped: {kind}", at)
            answers[enrollment_id] = min(answer, answers.get(enrollment_id, answer), key=_moment)
    return answers


def _moment(answer: GroupAnswer) -> Instant:
    return answer.at


def _answered_in(
    tx: Tx, step: SendStep, kind: AwaitedEvidence, enrollment_ids: Collection[int]
) -> dict[int, Instant]:
    """When the first message of the step was delivered, opened or clicked, by enrollment id."""
    given = {
        "enrollments": enrollment_ids,
        "of_step": step.name,
        "now": tx.now,
        "buckets": tx.buckets,
    }
    rows = tx.rows(_ANSWERED[kind], given)
    return {row.enrollment_id: row.at for row in rows if row.at is not None}


def _answered_at(kind: AwaitedEvidence) -> ColumnElement[Any]:
    """When a message (the row of the enclosing statement) was delivered, opened or clicked.

    NULL: it was not. `now` for a message in the state `delivered` without a delivery event, such as
    one that the customer replied to.
    """
    own_id = sql_cast(messages.c.id, Text)
    about = sql_cast(events.c.properties["message_id"].as_string(), Text)
    # An event without a message id, as apps send it, counts for the last message before it.
    later = messages.alias("later")
    was_later = exists().where(
        later.c.profile_id == messages.c.profile_id,
        later.c.bucket == messages.c.bucket,
        in_buckets(later.c.bucket),
        later.c.channel == messages.c.channel,
        one_of(later.c.state, SENT),
        later.c.send_at > messages.c.send_at,
        later.c.send_at <= events.c.occurred_at,
    )
    last = ~was_later.correlate(messages, events)
    # email_opened, push_opened, sms_clicked ...: from the provider or the app
    reported = select(func.min(events.c.occurred_at)).where(
        events.c.profile_id == messages.c.profile_id,
        events.c.bucket == messages.c.bucket,
        in_buckets(events.c.bucket),
        events.c.name == messages.c.channel + literal(f"_{kind}"),
        events.c.occurred_at >= messages.c.send_at,
        events.c.occurred_at <= NOW,
        or_(about == own_id, about.is_(None) & last),
    )
    first = reported.scalar_subquery()
    if kind == "delivered":
        return case((messages.c.state == "delivered", func.coalesce(first, NOW)))
    return first


_ANSWERED = {
    kind: select(messages.c.enrollment_id, func.min(_answered_at(kind)).label("at"))
    .where(
        any_of(messages.c.enrollment_id, "enrollments"),
        in_buckets(messages.c.bucket),
        messages.c.step == bindparam("of_step"),
        one_of(messages.c.state, SENT),
    )
    .group_by(messages.c.enrollment_id)
    for kind in get_args(AwaitedEvidence)
}

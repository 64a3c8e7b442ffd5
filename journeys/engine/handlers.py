"""What each step does to the people who stand at it: one function a step, over a whole cohort.

A function reads what it needs with set-based SQL and says of each person either by which edge they
leave, or until when they stay and in which phase. It writes only what is the step's own (messages,
attributes, entries); `engine.py` writes where people go.
"""

import logging
from calendar import isleap
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, bindparam, case, func, literal, select, update

from channels.messages import messages
from channels.rules.loaders import load_recipients
from channels.rules.planner import Planner
from channels.rules.windows import resolve
from config.database import Tx
from config.times import DAY, MINUTE, Instant, add_days, parse_date
from config.zones import zone
from journeys.definition.catalog import Catalog
from journeys.definition.journey import Version
from journeys.definition.steps import (
    HOLDOUT,
    MISSING,
    NEXT,
    NO_DATE,
    OTHERWISE,
    TIMEOUT,
    EnterStep,
    ExitStep,
    ExperimentStep,
    SendStep,
    SplitStep,
    Step,
    UpdateStep,
    WaitStep,
    WaitUntilStep,
)
from journeys.engine.due import Standing
from journeys.engine.entry import enter_people
from journeys.enrollments import enrollments
from journeys.operations.report import SENT
from journeys.tables import passages
from profiles.attributes.latest import set_attributes
from profiles.bucketing import draw
from profiles.bulk import among, lock_profiles
from profiles.conditions.language import Scope
from profiles.events import PROFILE_CHANGED, NewEvent, record_events
from profiles.tables import profiles

log = logging.getLogger(__name__)


# Whom a step brings back to a journey that they entered less than this ago begins after it.
_PAUSE = MINUTE


class Move(NamedTuple):
    """Leaving by an edge (`outcome`), or staying until `due_at` in a phase.

    over: of a step that was left, when it was over; None: now. What follows counts from there.
    """

    outcome: str | None
    due_at: Instant | None = None
    phase: int = 0
    over: Instant | None = None


Moves = dict[int, Move]  # by enrollment id


@dataclass(frozen=True, slots=True)
class Cohort:
    """People due at one step of one version, in one transaction."""

    tx: Tx
    version: Version
    step: Step
    people: Sequence[Standing]
    planner: Planner
    catalog: Catalog
    # (channel, "planned" or the reason), filled by sends
    messages: Counter[tuple[str, str]] = field(default_factory=Counter)

    def scope(self, **more: Any) -> Scope:
        """Where conditions are asked: of the enrollments' profiles, now."""
        sqlite = self.tx.conn.dialect.name == "sqlite"
        c = enrollments.c
        return Scope(sqlite, self.tx.now, c.profile_id, context=c.context, **more)

    def asked(self, question: ColumnElement[Any]) -> dict[int, Any]:
        """The answer for each enrollment; no entry: NULL."""
        ids = [person.enrollment_id for person in self.people]
        asked = select(enrollments.c.id, question).where(among(self.tx, enrollments.c.id, ids))
        rows = self.tx.conn.execute(asked)
        return {enrollment_id: answer for enrollment_id, answer in rows if answer is not None}


def wait(cohort: Cohort, step: WaitStep) -> Moves:
    """Duration, local time and weekday, or a date on the profile."""
    arriving = [person for person in cohort.people if person.phase == 0]
    moves: Moves = {
        person.enrollment_id: Move(NEXT, over=person.due_at)
        for person in cohort.people
        if person.phase > 0
    }
    if step.duration is not None:
        ends = {person.enrollment_id: person.arrived_at + step.duration for person in arriving}
    else:
        ends = _ends(cohort, step, arriving)
    for person in arriving:
        end = ends.get(person.enrollment_id)
        if end is None:
            moves[person.enrollment_id] = _at_once(person, _without_date(step))
        elif end <= cohort.tx.now:
            moves[person.enrollment_id] = Move(NEXT, over=end)
        else:
            moves[person.enrollment_id] = Move(None, end, 1)
    return moves


def _without_date(step: WaitStep) -> str:
    """The outcome for people without a readable date: a branch, or the reason why they leave."""
    return NO_DATE if step.missing is None else MISSING


def _ends(cohort: Cohort, step: WaitStep, people: Sequence[Standing]) -> dict[int, Instant]:
    """When a wait that goes by the customer's own time is over, by enrollment id.

    People who lack a readable date are left out.
    """
    ids = {person.profile_id for person in people}
    recipients = load_recipients(cohort.tx, cohort.planner.policy, ids)
    dates = None if step.date is None else _dates(cohort.tx, ids, step.date)
    return {
        person.enrollment_id: _resumes_in_all(
            step,
            recipients[person.profile_id].zones.names,
            person.arrived_at,
            None if dates is None else dates[person.profile_id],
        )
        for person in people
        if dates is None or person.profile_id in dates
    }


def _resumes_in_all(step: WaitStep, zones: Sequence[str], now: Instant, on: date | None) -> Instant:
    """Where several zones may hold, the moment has to have come in all of them."""
    until = max(_resumes(step, name, now, on) for name in zones)
    if step.days is None or step.time is not None or until == now:
        return until
    # When the day has come in the last of them it may be over in the first.
    return _resumes_in_all(step, zones, until, on)


def _dates(tx: Tx, profile_ids: set[int], attribute: str) -> dict[int, date]:
    """The profiles' dates by profile id; without those that are missing or unreadable."""
    rows = tx.conn.execute(
        select(profiles.c.id, profiles.c.attributes).where(among(tx, profiles.c.id, profile_ids))
    )
    read = {profile_id: parse_date(attributes.get(attribute)) for profile_id, attributes in rows}
    return {profile_id: found for profile_id, found in read.items() if found is not None}


def _resumes(step: WaitStep, zone_name: str, now: Instant, on: date | None) -> Instant:
    """The first instant at or after `now` that the step waits for, in one zone."""
    tz = zone(zone_name)
    today = datetime.fromtimestamp(now, tz).date()
    time = step.time or 0
    if on is not None:
        if not step.yearly:
            return _beside(step, on, tz)
        for year in range(today.year - 1, today.year + 3):
            moment = _beside(step, _anniversary(on, year), tz)
            if moment >= now:
                return moment
    days = step.days if step.days is not None else tuple(range(7))
    if step.time is None and today.weekday() in days:
        return now
    for ahead in range(9):
        day = today + timedelta(days=ahead)
        if day.weekday() in days:
            # When the clocks are put back a time comes twice.
            for second in (False, True):
                moment = resolve(day, time, tz, second=second)
                if moment >= now:
                    return moment
    return now


def _beside(step: WaitStep, on: date, tz: ZoneInfo) -> Instant:
    """So long before or after the date; whole days at the same local time, come what may."""
    days_before, rest_before = divmod(step.before, DAY)
    days_after, rest_after = divmod(step.after, DAY)
    day = add_days(on, days_after - days_before)
    return resolve(day, step.time or 0, tz) + rest_after - rest_before


def _anniversary(on: date, year: int) -> date:
    if (on.month, on.day) == (2, 29) and not isleap(year):
        return date(year, 2, 28)
    return on.replace(year=year)


def wait_until(cohort: Cohort, step: WaitUntilStep) -> Moves:
    """The condition, looked back to the start of the wait; else the timeout.

    Whatever comes first, not whatever is seen first: an event after the timeout is too late.
    """
    columns = enrollments.c
    scope = cohort.scope(
        since=_looks_back_to(cohort),
        except_event=columns.entry_event_id,
        once=_ended_earlier_waits(cohort),
    )
    ends_at = columns.arrived_at + step.timeout
    # What holds on arrival held then; later, what no event tells of may have come in time.
    untold = case(
        (columns.phase == 0, columns.arrived_at), (ends_at < cohort.tx.now, ends_at),
        else_=cohort.tx.now,
    )  # fmt: skip
    began = cohort.asked(step.condition.began(scope, untold))
    moves: Moves = {}
    for person in cohort.people:
        ends = person.arrived_at + step.timeout
        moment = began.get(person.enrollment_id)
        if moment is not None and moment <= ends:
            moves[person.enrollment_id] = Move(NEXT, over=moment)
        elif cohort.tx.now >= ends:
            moves[person.enrollment_id] = Move(TIMEOUT, over=ends)
        else:
            moves[person.enrollment_id] = Move(None, ends, 1)
    return moves


def _looks_back_to(cohort: Cohort) -> ColumnElement[Any]:
    """The arrival; right behind a send the moment at which its last message had gone.

    The send itself is over later where it waits for an answer, and people may come back meanwhile.
    """
    graph = cohort.version.journey.graph
    sends = [
        name
        for name, node in graph.items()
        if isinstance(node.step, SendStep) and cohort.step.name in node.edges.values()
    ]
    if not sends:
        return enrollments.c.arrived_at
    gone = select(func.max(messages.c.send_at)).where(
        messages.c.enrollment_id == enrollments.c.id,
        messages.c.step.in_(sends),
        messages.c.state.in_(SENT),
        messages.c.send_at <= enrollments.c.arrived_at,
    )
    return func.coalesce(gone.scalar_subquery(), enrollments.c.arrived_at)


def _ended_earlier_waits(cohort: Cohort) -> frozenset[str]:
    """The events for which an earlier wait looked: the same one must not end this wait too."""
    names: set[str] = set()
    for name, node in cohort.version.journey.graph.items():
        if name == cohort.step.name:
            break
        if isinstance(node.step, WaitUntilStep):
            names.update(node.step.condition.event_names())
    return frozenset(names)


def split(cohort: Cohort, step: SplitStep) -> Moves:
    """The first branch whose condition holds."""
    scope = cohort.scope()
    first = case(*((way.condition.sql(scope), literal(way.name)) for way in step.ways))
    chosen = cohort.asked(first)
    return {
        person.enrollment_id: _at_once(person, chosen.get(person.enrollment_id, OTHERWISE))
        for person in cohort.people
    }


def experiment(cohort: Cohort, step: ExperimentStep) -> Moves:
    """A draw that is the same for the same person every time.

    Who has been here before keeps their arm even where the weights have changed since, or where two
    profiles have become one.
    """
    before = _drawn_before(cohort, step)
    salt = f"{cohort.version.journey.name}/{step.name}"
    weights = sum(arm.weight for arm in step.arms)

    def arm_of(profile_id: int) -> str:
        if draw(profile_id, f"{salt}/holdout") * 100 < step.holdout:
            return HOLDOUT
        left = draw(profile_id, salt) * weights
        for arm in step.arms:
            left -= arm.weight
            if left < 0:
                return arm.name
        return step.arms[-1].name

    return {
        person.enrollment_id: _at_once(
            person, before.get(person.profile_id) or arm_of(person.profile_id)
        )
        for person in cohort.people
    }


def _drawn_before(cohort: Cohort, step: ExperimentStep) -> dict[int, str]:
    """The arm that each of these people was in the first time, if there still is such an arm."""
    c = passages.c
    drawn = (
        select(c.profile_id, c.outcome)
        .where(
            among(cohort.tx, c.profile_id, {person.profile_id for person in cohort.people}),
            c.journey == cohort.version.journey.name,
            c.step == step.name,
            c.outcome.in_(step.outcomes()),
        )
        # the latest first, so that the first is what remains
        .order_by(c.at.desc(), c.enrollment_id.desc())
    )
    return {row.profile_id: row.outcome for row in cohort.tx.conn.execute(drawn)}


def update_profile(cohort: Cohort, step: UpdateStep) -> Moves:
    """Set attributes of the profiles; null takes one away. It is said now."""
    tx = cohort.tx
    ids = {person.profile_id for person in cohort.people}
    lock_profiles(tx, ids)
    p = profiles.c
    columns = (p.attributes, p.attribute_times, p.attribute_identifiers)
    found = select(p.id, *columns).where(among(tx, p.id, ids))
    rows = [dict(row) for row in tx.conn.execute(found).mappings()]
    after = {row["id"]: set_attributes(row, step.attributes, tx.now) for row in rows}
    tx.conn.execute(
        update(profiles)
        .where(p.id == bindparam("row"))
        .values({column: bindparam(f"new_{column.name}", type_=column.type) for column in columns})
        .values(updated_at=tx.now),
        [
            {"row": profile_id, **{f"new_{name}": value for name, value in new.items()}}
            for profile_id, new in after.items()
        ],
    )
    if cohort.catalog.awaited_traits() & set(step.attributes):
        changed = {row["id"] for row in rows if after[row["id"]]["attributes"] != row["attributes"]}
        _tell_of_change(cohort, changed)
    return _all_next(cohort)


def _tell_of_change(cohort: Cohort, profile_ids: Collection[int]) -> None:
    """Whoever waits for an attribute, or leaves by it, is looked at again, in every journey."""
    tx, step = cohort.tx, cohort.step.name
    told = [
        NewEvent(
            person.profile_id,
            PROFILE_CHANGED,
            tx.now,
            f"update {person.enrollment_id} {step}",
            {},
        )
        for person in cohort.people
        if person.profile_id in profile_ids
    ]
    record_events(tx, told, worked=False)


def enter_other(cohort: Cohort, step: EnterStep) -> Moves:
    """Enter the people into another journey, by its own re-entry rule.

    No library may say that journeys enter each other for ever, but of two versions one may be old.
    """
    other = cohort.catalog.current.get(step.journey)
    if other is None:  # it was there when this version was loaded
        log.warning(
            "nobody enters %s: there is no such journey any more",
            step.journey,
            extra={"journey": cohort.version.journey.name, "step": step.name},
        )
    else:
        people = {person.profile_id for person in cohort.people}
        enter_people(cohort.tx, other, people, None, pause=_PAUSE)
    return _all_next(cohort)


def leave(cohort: Cohort, step: ExitStep) -> Moves:
    """End here."""
    return {person.enrollment_id: Move(f"exit: {step.reason}") for person in cohort.people}


def _all_next(cohort: Cohort) -> Moves:
    return {person.enrollment_id: _at_once(person, NEXT) for person in cohort.people}


def _at_once(person: Standing, outcome: str) -> Move:
    """Of a step that takes no time: over when it began."""
    return Move(outcome, over=person.arrived_at)

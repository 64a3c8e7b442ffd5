"""The handlers: one function per step type, each for a whole cohort.

A handler reads with set-based SQL and returns a Move for each enrollment. It writes the effects of
the step (messages, attributes, entries); `advance.py` writes the enrollments.
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
from config.clock.times import DAY, MINUTE, Instant, add_days, parse_date
from config.clock.zones import zone
from config.database.engine import Tx
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
from journeys.engine.due import DueEnrollment
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


# After an entry by an Enter step, the first step is due at least this long after the profile's
# previous entry into the same journey. This slows down journeys that enter each other.
_PAUSE = MINUTE


class Move(NamedTuple):
    """Leave by an outcome or, if `outcome` is None, stay until `due_at` in a phase.

    ended_at: when the step ended; None: now. The next step counts its time from there.
    """

    outcome: str | None
    due_at: Instant | None = None
    phase: int = 0
    ended_at: Instant | None = None


Moves = dict[int, Move]  # by enrollment id


@dataclass(frozen=True, slots=True)
class Cohort:
    """The enrollments due at one step of one version, in one transaction."""

    tx: Tx
    version: Version
    step: Step
    people: Sequence[DueEnrollment]
    planner: Planner
    catalog: Catalog
    # (channel, "planned" or the reason), filled by the handler of Send steps
    messages: Counter[tuple[str, str]] = field(default_factory=Counter)

    def scope(self, **more: Any) -> Scope:
        """The scope of conditions: the enrollments' profiles, now."""
        sqlite = self.tx.conn.dialect.name == "sqlite"
        c = enrollments.c
        return Scope(sqlite, self.tx.now, c.profile_id, context=c.context, **more)

    def evaluate(self, expression: ColumnElement[Any]) -> dict[int, Any]:
        """Evaluate an expression on enrollments; results by enrollment id, without NULLs."""
        ids = [person.enrollment_id for person in self.people]
        found = select(enrollments.c.id, expression).where(among(self.tx, enrollments.c.id, ids))
        rows = self.tx.conn.execute(found)
        return {enrollment_id: value for enrollment_id, value in rows if value is not None}


def wait(cohort: Cohort, step: WaitStep) -> Moves:
    """Wait for a duration, or until a local time, a weekday or a date. Phase 1 waits."""
    arriving = [person for person in cohort.people if person.phase == 0]
    moves: Moves = {
        person.enrollment_id: Move(NEXT, ended_at=person.due_at)
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
            moves[person.enrollment_id] = Move(NEXT, ended_at=end)
        else:
            moves[person.enrollment_id] = Move(None, end, 1)
    return moves


def _without_date(step: WaitStep) -> str:
    """The outcome without a readable date: the `missing` branch, or the reason of the exit."""
    return NO_DATE if step.missing is None else MISSING


def _ends(cohort: Cohort, step: WaitStep, people: Sequence[DueEnrollment]) -> dict[int, Instant]:
    """When a wait in the profile's local time ends, by enrollment id.

    Without the enrollments whose profile has no readable date.
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
    """The first instant at which the wait has ended in every zone that the profile may be in."""
    until = max(_resumes(step, name, now, on) for name in zones)
    if step.days is None or step.time is not None or until == now:
        return until
    # When the weekday begins in the last zone, it may have ended in the first.
    return _resumes_in_all(step, zones, until, on)


def _dates(tx: Tx, profile_ids: set[int], attribute: str) -> dict[int, date]:
    """The dates in an attribute, by profile id, without missing and unreadable ones."""
    rows = tx.conn.execute(
        select(profiles.c.id, profiles.c.attributes).where(among(tx, profiles.c.id, profile_ids))
    )
    read = {profile_id: parse_date(attributes.get(attribute)) for profile_id, attributes in rows}
    return {profile_id: found for profile_id, found in read.items() if found is not None}


def _resumes(step: WaitStep, zone_name: str, now: Instant, on: date | None) -> Instant:
    """The first instant at or after `now` at which the step's wait ends, in one zone.

    on: the profile's date. A date that is not yearly may give an instant before `now`.
    """
    tz = zone(zone_name)
    today = datetime.fromtimestamp(now, tz).date()
    time = step.time or 0
    if on is not None:
        if not step.yearly:
            return _shifted(step, on, tz)
        for year in range(today.year - 1, today.year + 3):
            moment = _shifted(step, _anniversary(on, year), tz)
            if moment >= now:
                return moment
    days = step.days if step.days is not None else tuple(range(7))
    if step.time is None and today.weekday() in days:
        return now
    for ahead in range(9):
        day = today + timedelta(days=ahead)
        if day.weekday() in days:
            # A local time occurs twice when clocks are set back.
            for second in (False, True):
                moment = resolve(day, time, tz, second=second)
                if moment >= now:
                    return moment
    return now


def _shifted(step: WaitStep, on: date, tz: ZoneInfo) -> Instant:
    """The instant `before` or `after` a date. Whole days keep the local time at clock changes."""
    days_before, rest_before = divmod(step.before, DAY)
    days_after, rest_after = divmod(step.after, DAY)
    day = add_days(on, days_after - days_before)
    return resolve(day, step.time or 0, tz) + rest_after - rest_before


def _anniversary(on: date, year: int) -> date:
    if (on.month, on.day) == (2, 29) and not isleap(year):
        return date(year, 2, 28)
    return on.replace(year=year)


def wait_until(cohort: Cohort, step: WaitUntilStep) -> Moves:
    """Leave when the condition becomes true after the start of the wait, or at the timeout.

    The earlier of the two counts, not the one seen first: a late event has no effect.
    """
    columns = enrollments.c
    scope = cohort.scope(
        since=_wait_began_at(cohort),
        except_event=columns.entry_event_id,
        once=_ended_earlier_waits(cohort),
    )
    ends_at = columns.arrived_at + step.timeout
    # When a part of the condition without an event, such as an attribute, became true: at the
    # arrival if it holds on arrival; else now, but at most at the timeout.
    without_event = case(
        (columns.phase == 0, columns.arrived_at), (ends_at < cohort.tx.now, ends_at),
        else_=cohort.tx.now,
    )  # fmt: skip
    began = cohort.evaluate(step.condition.began(scope, without_event))
    moves: Moves = {}
    for person in cohort.people:
        ends = person.arrived_at + step.timeout
        moment = began.get(person.enrollment_id)
        if moment is not None and moment <= ends:
            moves[person.enrollment_id] = Move(NEXT, ended_at=moment)
        elif cohort.tx.now >= ends:
            moves[person.enrollment_id] = Move(TIMEOUT, ended_at=ends)
        else:
            moves[person.enrollment_id] = Move(None, ends, 1)
    return moves


def _wait_began_at(cohort: Cohort) -> ColumnElement[Any]:
    """The arrival or, directly after a Send step, when its last message was sent.

    A send that waits for evidence ends later, and the awaited event may happen meanwhile.
    """
    graph = cohort.version.journey.graph
    sends = [
        name
        for name, node in graph.items()
        if isinstance(node.step, SendStep) and cohort.step.name in node.edges.values()
    ]
    if not sends:
        return enrollments.c.arrived_at
    last_sent = select(func.max(messages.c.send_at)).where(
        messages.c.enrollment_id == enrollments.c.id,
        messages.c.step.in_(sends),
        messages.c.state.in_(SENT),
        messages.c.send_at <= enrollments.c.arrived_at,
    )
    return func.coalesce(last_sent.scalar_subquery(), enrollments.c.arrived_at)


def _ended_earlier_waits(cohort: Cohort) -> frozenset[str]:
    """The event names of the earlier WaitUntil steps: one event must not end two waits."""
    names: set[str] = set()
    for name, node in cohort.version.journey.graph.items():
        if name == cohort.step.name:
            break
        if isinstance(node.step, WaitUntilStep):
            names.update(node.step.condition.event_names())
    return frozenset(names)


def split(cohort: Cohort, step: SplitStep) -> Moves:
    """Leave by the first branch whose condition holds, else by `otherwise`."""
    scope = cohort.scope()
    first = case(*((way.condition.sql(scope), literal(way.name)) for way in step.ways))
    chosen = cohort.evaluate(first)
    return {
        person.enrollment_id: _at_once(person, chosen.get(person.enrollment_id, OTHERWISE))
        for person in cohort.people
    }


def experiment(cohort: Cohort, step: ExperimentStep) -> Moves:
    """Leave by the arm of the profile's draw, which is the same every time.

    A profile keeps the arm of its first passage, even after a change of weights or a merge.
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
    """The arm of each profile's first passage, by profile id, if that arm still exists."""
    c = passages.c
    drawn = (
        select(c.profile_id, c.outcome)
        .where(
            among(cohort.tx, c.profile_id, {person.profile_id for person in cohort.people}),
            c.journey == cohort.version.journey.name,
            c.step == step.name,
            c.outcome.in_(step.outcomes()),
        )
        # Latest first: in the dict below the earliest row overwrites the others.
        .order_by(c.at.desc(), c.enrollment_id.desc())
    )
    return {row.profile_id: row.outcome for row in cohort.tx.conn.execute(drawn)}


def update_profile(cohort: Cohort, step: UpdateStep) -> Moves:
    """Set attributes of the profiles with the time `now`; None removes an attribute."""
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
        _record_change(cohort, changed)
    return _all_next(cohort)


def _record_change(cohort: Cohort, profile_ids: Collection[int]) -> None:
    """Record an event for the changed profiles: it makes every journey evaluate its waits and exit
    rules again.
    """
    tx, step = cohort.tx, cohort.step.name
    changes = [
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
    record_events(tx, changes, worked=False)


def enter_other(cohort: Cohort, step: EnterStep) -> Moves:
    """Enter the profiles into another journey, by its re-entry rule.

    Validation refuses a library whose journeys enter each other in a loop. An old version and a
    current one can still form a loop, so the entries are at least `_PAUSE` apart.
    """
    other = cohort.catalog.current.get(step.journey)
    if other is None:  # it was removed after this version was validated
        log.warning(
            "step %r enters no profiles: the journey %s was removed from the library",
            step.name,
            step.journey,
            extra={"journey": cohort.version.journey.name, "step": step.name},
        )
    else:
        people = {person.profile_id for person in cohort.people}
        enter_people(cohort.tx, other, people, None, pause=_PAUSE)
    return _all_next(cohort)


def leave(cohort: Cohort, step: ExitStep) -> Moves:
    """End the enrollments with the step's reason."""
    return {person.enrollment_id: Move(f"exit: {step.reason}") for person in cohort.people}


def _all_next(cohort: Cohort) -> Moves:
    return {person.enrollment_id: _at_once(person, NEXT) for person in cohort.people}


def _at_once(person: DueEnrollment, outcome: str) -> Move:
    """Leave a step that takes no time, so it ends at the arrival."""
    return Move(outcome, ended_at=person.arrived_at)

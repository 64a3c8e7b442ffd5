"""The handlers: one function per step type, each for a whole cohort.

A handler reads with set-based SQL and returns a Move for each enrollment. It writes the effects of
the step (messages, attributes, entries); `advance.py` writes the enrollments.
"""

import logging
from calendar import isleap
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import (
    ColumnElement,
    Select,
    bindparam,
    case,
    desc,
    func,
    literal,
    select,
    union_all,
    update,
)

from channels.messages import messages
from channels.rules.loaders import load_recipients
from channels.rules.planner import Planner
from channels.rules.recipient import Recipient
from channels.rules.windows import resolve
from config.clock.times import DAY, MINUTE, Instant, add_days, parse_date
from config.clock.zones import zone
from config.database.arrays import STATEMENTS, any_of, one_of
from config.database.buckets import in_buckets
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
from journeys.operations.counts import SENT
from journeys.tables import experiment_arms, passages
from profiles.attributes.latest import set_attributes
from profiles.bucketing import draw, narrowest
from profiles.bulk import lock_profiles
from profiles.conditions.sql import NOW, Scope, condition_holds, condition_holds_since
from profiles.events import PROFILE_CHANGED, NewEvent, record_events
from profiles.tables import profiles

log = logging.getLogger(__name__)


_c, _p = enrollments.c, profiles.c
_these = (any_of(_p.id, "profiles"), in_buckets(_p.bucket))
_ATTRIBUTES = select(_p.id, _p.attributes).where(*_these)
_DRAWN = union_all(
    *(
        select(*(table.c[name] for name in ("profile_id", "outcome", "at", "enrollment_id"))).where(
            any_of(table.c.profile_id, "profiles"),
            in_buckets(table.c.bucket),
            table.c.journey == bindparam("of_journey"),
            table.c.step == bindparam("at_step"),
        )
        for table in (passages, experiment_arms)
    )
    # Latest first: `_drawn_before` keeps the last row of a profile.
).order_by(desc("at"), desc("enrollment_id"))
_SETTABLE = (_p.attributes, _p.attribute_times, _p.attribute_identifiers)
_CURRENT = select(_p.id, *_SETTABLE).where(*_these)
_SET = (
    update(profiles)
    .where(_p.id == bindparam("row"), in_buckets(_p.bucket))
    .values({column: bindparam(f"new_{column.name}") for column in _SETTABLE})
    .values(updated_at=bindparam("now"))
)

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


@dataclass(frozen=True, slots=True, kw_only=True)
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
    # the recipients of messages planned for now, by enrollment and step
    planned_now: dict[tuple[int, str], Recipient] = field(default_factory=dict)
    # enrollments in other journeys, filled by the handler of Enter steps
    entered: list[DueEnrollment] = field(default_factory=list)

    def evaluate(self, expression: "Expression") -> dict[int, Any]:
        """Evaluate an expression on enrollments; results by enrollment id, without NULLs."""
        given = {
            "enrollments": [person.enrollment_id for person in self.people],
            "now": self.tx.now,
            "buckets": self.tx.buckets,
        }
        found = _evaluating(expression, self.version, self.step.name, self.tx.is_sqlite)
        rows = self.tx.rows(found, given)
        return {enrollment_id: value for enrollment_id, value in rows if value is not None}


# An expression on enrollments, by version, name of the step, and whether the database is SQLite.
Expression = Callable[[Version, str, bool], ColumnElement[Any]]


@lru_cache(maxsize=STATEMENTS)
def _evaluating(
    expression: Expression, version: Version, step: str, sqlite: bool
) -> Select[tuple[int, Any]]:
    found = select(_c.id, expression(version, step, sqlite))
    return found.where(any_of(_c.id, "enrollments"), in_buckets(_c.bucket))


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
            moves[person.enrollment_id] = Move(None, due_at=end, phase=1)
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
            recipients[person.profile_id].situation.zones.names,
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
    rows = tx.rows(_ATTRIBUTES, {"profiles": profile_ids, "buckets": tx.buckets})
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
    began = cohort.evaluate(_began)
    moves: Moves = {}
    for person in cohort.people:
        ends = person.arrived_at + step.timeout
        moment = began.get(person.enrollment_id)
        if moment is not None and moment <= ends:
            moves[person.enrollment_id] = Move(NEXT, ended_at=moment)
        elif cohort.tx.now >= ends:
            moves[person.enrollment_id] = Move(TIMEOUT, ended_at=ends)
        else:
            moves[person.enrollment_id] = Move(None, due_at=ends, phase=1)
    return moves


def _began(version: Version, step_name: str, sqlite: bool) -> ColumnElement[Any]:
    """When the condition of a WaitUntil step came to hold for an enrollment; NULL: it does not."""
    step = version.journey.graph[step_name].step
    assert isinstance(step, WaitUntilStep)
    scope = Scope(
        sqlite=sqlite,
        profile_id=_c.profile_id,
        since=_looks_back_to(version, step_name),
        except_event=_c.entry_event_id,
        once=_ended_earlier_waits(version, step_name),
        context=_c.context,
    )
    ends_at = _c.arrived_at + step.timeout
    # The time for a part of the condition that holds but has no event, such as an attribute: the
    # arrival if it holds on arrival; later now, but at most the timeout.
    untold = case((_c.phase == 0, _c.arrived_at), (ends_at < NOW, ends_at), else_=NOW)
    return condition_holds_since(step.condition, scope, untold)


def _looks_back_to(version: Version, step: str) -> ColumnElement[Any]:
    """The arrival or, directly after a Send step, when its last message was sent.

    A send that waits for evidence ends later, and the awaited event may happen meanwhile.
    """
    sends = [
        name
        for name, node in version.journey.graph.items()
        if isinstance(node.step, SendStep) and step in node.edges.values()
    ]
    if not sends:
        return _c.arrived_at
    last_sent = (
        select(func.max(messages.c.send_at))
        .where(
            messages.c.enrollment_id == _c.id,
            messages.c.bucket == _c.bucket,
            in_buckets(messages.c.bucket),
            one_of(messages.c.step, sends),
            one_of(messages.c.state, SENT),
            messages.c.send_at <= _c.arrived_at,
        )
        # It stands in a subquery on events; SQLAlchemy correlates to the next statement only.
        .correlate(enrollments)
    )
    return func.coalesce(last_sent.scalar_subquery(), _c.arrived_at)


def _ended_earlier_waits(version: Version, step: str) -> frozenset[str]:
    """The event names of the earlier WaitUntil steps: one event must not end two waits."""
    names: set[str] = set()
    for name, node in version.journey.graph.items():
        if name == step:
            break
        if isinstance(node.step, WaitUntilStep):
            names.update(node.step.condition.event_names())
    return frozenset(names)


def split(cohort: Cohort) -> Moves:
    """Leave by the first branch whose condition holds, else by `otherwise`."""
    chosen = cohort.evaluate(_first_branch)
    return {
        person.enrollment_id: _at_once(person, chosen.get(person.enrollment_id, OTHERWISE))
        for person in cohort.people
    }


def _first_branch(version: Version, step_name: str, sqlite: bool) -> ColumnElement[Any]:
    """The name of the first branch of a Split step whose condition holds for an enrollment."""
    step = version.journey.graph[step_name].step
    assert isinstance(step, SplitStep)
    scope = Scope(sqlite=sqlite, profile_id=_c.profile_id, context=_c.context)
    return case(*((condition_holds(way.condition, scope), literal(way.name)) for way in step.ways))


def experiment(cohort: Cohort, step: ExperimentStep) -> Moves:
    """Leave by the arm of the profile's draw, which is the same every time.

    A profile keeps the arm of its first passage, even after a change of weights or a merge. In a
    version with a promoted arm, everybody takes that one.
    """
    if step.promoted is not None:
        return {person.enrollment_id: _at_once(person, step.promoted) for person in cohort.people}
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
    given = {
        "profiles": {person.profile_id for person in cohort.people},
        "of_journey": cohort.version.journey.name,
        "at_step": step.name,
        "buckets": cohort.tx.buckets,
    }
    arms = step.outcomes()
    drawn = cohort.tx.rows(_DRAWN, given)
    return {row.profile_id: row.outcome for row in drawn if row.outcome in arms}


def update_profile(cohort: Cohort, step: UpdateStep) -> Moves:
    """Set attributes of the profiles with the time `now`; None removes an attribute."""
    tx = cohort.tx
    ids = {person.profile_id for person in cohort.people}
    lock_profiles(tx, ids)
    given = {"profiles": ids, "buckets": tx.buckets}
    rows = [row._asdict() for row in tx.rows(_CURRENT, given)]
    after = {row["id"]: set_attributes(row, step.attributes, tx.now) for row in rows}
    tx.write(
        _SET,
        *(
            {
                "row": profile_id,
                "now": tx.now,
                "buckets": narrowest(profile_id, tx.buckets),
                **{f"new_{name}": value for name, value in new.items()},
            }
            for profile_id, new in after.items()
        ),
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
            profile_id=person.profile_id,
            name=PROFILE_CHANGED,
            occurred_at=tx.now,
            dedupe_key=f"update {person.enrollment_id} {step}",
            properties={},
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
        cohort.entered.extend(enter_people(cohort.tx, other, people, None, pause=_PAUSE))
    return _all_next(cohort)


def leave(cohort: Cohort, step: ExitStep) -> Moves:
    """End the enrollments with the step's reason."""
    return {person.enrollment_id: Move(f"exit: {step.reason}") for person in cohort.people}


def _all_next(cohort: Cohort) -> Moves:
    return {person.enrollment_id: _at_once(person, NEXT) for person in cohort.people}


def _at_once(person: DueEnrollment, outcome: str) -> Move:
    """Leave a step that takes no time, so it ends at the arrival."""
    return Move(outcome, ended_at=person.arrived_at)

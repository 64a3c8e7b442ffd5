"""What each step does to the people who stand at it: one function a step, over a whole cohort.

A function reads what it needs with set-based SQL and says of each person either by which edge they
leave, or until when they stay and in which phase. It writes only what is the step's own (messages,
attributes, entries); `engine.py` writes where people go.
"""

import logging
from calendar import isleap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import bindparam, case, literal, null, select, update

from channels.decide import Planner
from channels.facts import load_recipients
from channels.windows import resolve
from config.database import Tx
from config.times import DAY, Instant
from config.zones import zone
from journeys.catalog import Catalog
from journeys.entry import enter_people
from journeys.journey import Version
from journeys.steps import (
    HOLDOUT,
    NEXT,
    OTHERWISE,
    TIMEOUT,
    EnterStep,
    ExitStep,
    ExperimentStep,
    SplitStep,
    Step,
    UpdateStep,
    WaitStep,
    WaitUntilStep,
)
from journeys.tables import enrollments
from profiles.bulk import among, lock_profiles
from profiles.conditions import Condition, Scope
from profiles.sticky import draw
from profiles.tables import profiles

log = logging.getLogger(__name__)


class Standing(NamedTuple):
    """One person at a step."""

    enrollment_id: int
    profile_id: int
    arrived_at: Instant
    phase: int
    attempts: int


class Move(NamedTuple):
    """Leaving by an edge (`outcome`), or staying until `due_at` in a phase."""

    outcome: str | None
    due_at: Instant | None = None
    phase: int = 0


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

    def matching(self, conditions: Mapping[str, Condition], *, since: Any) -> dict[int, str]:
        """The name of the first condition that holds for each enrollment; no entry: none does."""
        tx = self.tx
        scope = Scope(
            sqlite=tx.conn.dialect.name == "sqlite",
            now=tx.now,
            profile_id=enrollments.c.profile_id,
            since=since,
            except_event=None if since is None else enrollments.c.entry_event_id,
        )
        first = case(
            *((condition.sql(scope), literal(name)) for name, condition in conditions.items()),
            else_=null(),
        )
        ids = [person.enrollment_id for person in self.people]
        asked = select(enrollments.c.id, first).where(among(tx, enrollments.c.id, ids))
        rows = tx.conn.execute(asked)
        return {enrollment_id: name for enrollment_id, name in rows if name is not None}


def wait(cohort: Cohort, step: WaitStep) -> Moves:
    """Duration, local time and weekday, or a date on the profile."""
    arriving = [person for person in cohort.people if person.phase == 0]
    moves: Moves = {
        person.enrollment_id: Move(NEXT) for person in cohort.people if person.phase > 0
    }
    if step.duration is not None:
        for person in arriving:
            moves[person.enrollment_id] = Move(None, person.arrived_at + step.duration, 1)
        return moves
    ids = {person.profile_id for person in arriving}
    recipients = load_recipients(cohort.tx, cohort.planner.policy, ids)
    dates = _dates(cohort.tx, ids, step.date) if step.date is not None else {}
    for person in arriving:
        # Where several zones may hold, the moment has to have come in all of them.
        until = max(
            _resumes(step, name, person.arrived_at, dates.get(person.profile_id))
            for name in recipients[person.profile_id].zones.names
        )
        past = until <= cohort.tx.now
        moves[person.enrollment_id] = Move(NEXT) if past else Move(None, until, 1)
    return moves


def _dates(tx: Tx, profile_ids: set[int], attribute: str) -> dict[int, date]:
    """The profiles' dates; a missing or unreadable one is left out, and nobody waits for it."""
    found: dict[int, date] = {}
    for profile_id, attributes in tx.conn.execute(
        select(profiles.c.id, profiles.c.attributes).where(among(tx, profiles.c.id, profile_ids))
    ):
        try:
            found[profile_id] = date.fromisoformat(str(attributes.get(attribute))[:10])
        except ValueError:
            continue
    return found


def _resumes(step: WaitStep, zone_name: str, now: Instant, on: date | None) -> Instant:
    """The first instant at or after `now` that the step waits for, in one zone."""
    tz = zone(zone_name)
    today = datetime.fromtimestamp(now, tz).date()
    time = step.time or 0
    if step.date is not None:
        if on is None:
            return now
        if not step.yearly:
            return _before(step, on, tz)
        for year in range(today.year, today.year + 3):
            moment = _before(step, _anniversary(on, year), tz)
            if moment >= now:
                return moment
    days = step.days if step.days is not None else tuple(range(7))
    if step.time is None and today.weekday() in days:
        return now
    for ahead in range(9):
        day = today + timedelta(days=ahead)
        moment = resolve(day, time, tz)
        if day.weekday() in days and moment >= now:
            return moment
    return now


def _before(step: WaitStep, on: date, tz: ZoneInfo) -> Instant:
    """So long before the date; whole days at the same local time, whatever the clocks do."""
    days_before, rest = divmod(step.before, DAY)
    return resolve(on - timedelta(days=days_before), step.time or 0, tz) - rest


def _anniversary(on: date, year: int) -> date:
    if (on.month, on.day) == (2, 29) and not isleap(year):
        return date(year, 2, 28)
    return on.replace(year=year)


def wait_until(cohort: Cohort, step: WaitUntilStep) -> Moves:
    """The condition, looked back to the start of the wait; else the timeout."""
    holds = cohort.matching({NEXT: step.condition}, since=enrollments.c.arrived_at)
    moves: Moves = {}
    for person in cohort.people:
        ends = person.arrived_at + step.timeout
        if person.enrollment_id in holds:
            moves[person.enrollment_id] = Move(NEXT)
        elif cohort.tx.now >= ends:
            moves[person.enrollment_id] = Move(TIMEOUT)
        else:
            moves[person.enrollment_id] = Move(None, ends, 1)
    return moves


def split(cohort: Cohort, step: SplitStep) -> Moves:
    """The first branch whose condition holds."""
    chosen = cohort.matching({way.name: way.condition for way in step.ways}, since=None)
    return {
        person.enrollment_id: Move(chosen.get(person.enrollment_id, OTHERWISE))
        for person in cohort.people
    }


def experiment(cohort: Cohort, step: ExperimentStep) -> Moves:
    """A draw that is the same for the same person every time."""
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

    return {person.enrollment_id: Move(arm_of(person.profile_id)) for person in cohort.people}


def update_profile(cohort: Cohort, step: UpdateStep) -> Moves:
    """Merge attributes into the profiles; null takes one away."""
    tx = cohort.tx
    ids = {person.profile_id for person in cohort.people}
    lock_profiles(tx, ids)
    rows = tx.conn.execute(
        select(profiles.c.id, profiles.c.attributes).where(among(tx, profiles.c.id, ids))
    ).all()
    merged = [
        {
            "row": profile_id,
            "merged": {
                name: value
                for name, value in {**attributes, **step.attributes}.items()
                if value is not None
            },
        }
        for profile_id, attributes in rows
    ]
    tx.conn.execute(
        update(profiles)
        .where(profiles.c.id == bindparam("row"))
        .values(
            attributes=bindparam("merged", type_=profiles.c.attributes.type), updated_at=tx.now
        ),
        merged,
    )
    return _all_next(cohort)


def enter_other(cohort: Cohort, step: EnterStep) -> Moves:
    """Enter the people into another journey, by its own re-entry rule."""
    other = cohort.catalog.current.get(step.journey)
    if other is None:  # it was there when this version was loaded
        log.warning("nobody enters %s: there is no such journey any more", step.journey)
    else:
        enter_people(cohort.tx, other, {person.profile_id for person in cohort.people}, None)
    return _all_next(cohort)


def leave(cohort: Cohort, step: ExitStep) -> Moves:
    """End here."""
    return {person.enrollment_id: Move(f"exit: {step.reason}") for person in cohort.people}


def _all_next(cohort: Cohort) -> Moves:
    return {person.enrollment_id: Move(NEXT) for person in cohort.people}

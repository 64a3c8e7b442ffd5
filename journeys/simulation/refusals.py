"""Why profiles of an audience do not enter a journey."""

from collections import Counter
from collections.abc import Collection

from sqlalchemy import ColumnElement, and_, case, func, or_, select

from config.database.arrays import one_of
from config.database.engine import Tx
from journeys.definition.journey import After, Version
from journeys.enrollments import enrollments
from journeys.operations.control import STOPPED, held
from profiles.conditions.language import Condition
from profiles.conditions.sql import NOW, Scope, condition_holds
from profiles.tables import profiles

ALREADY_IN = "already in it"
ENTERED_BEFORE = "entered before"
NOBODY = "nobody is in the segment"
_MAY_ENTER = "may enter"


def refusals(tx: Tx, version: Version, condition: Condition) -> Counter[str]:
    """How many profiles do not enter by a launch for a segment now, by reason."""
    e = enrollments.c
    theirs = and_(
        e.profile_id == profiles.c.id, e.journey == version.journey.name, e.entry_key == ""
    )
    again = version.journey.entry.again
    barred: ColumnElement[bool] = e.id.is_(None)
    if again == "once":
        barred = e.id.is_not(None)
    elif isinstance(again, After):
        barred = e.entered_at > NOW - again.after
    reason = case(
        (select(e.id).where(theirs, e.ended_at.is_(None)).exists(), ALREADY_IN),
        (select(e.id).where(theirs, or_(barred)).exists(), ENTERED_BEFORE),
        else_=_MAY_ENTER,
    ).label("reason")
    holds = condition_holds(condition, Scope(sqlite=tx.is_sqlite, profile_id=profiles.c.id))
    found = select(reason, func.count()).select_from(profiles).where(holds).group_by("reason")
    counts = Counter(dict(tx.conn.execute(found, {"now": tx.now}).tuples().all()))
    if not counts:
        return Counter({NOBODY: 1})
    may_enter = counts.pop(_MAY_ENTER, 0)
    if held(tx).get(version.journey.name) == STOPPED:
        counts = Counter({"the journey is stopped": counts.total() + may_enter})
    return +counts


def still_waiting(tx: Tx, journeys: Collection[str]) -> dict[str, Counter[str]]:
    """How many enrollments of these journeys wait at each step."""
    e = enrollments.c
    found = (
        select(e.journey, e.step, func.count())
        .where(e.ended_at.is_(None), one_of(e.journey, sorted(journeys)))
        .group_by(e.journey, e.step)
    )
    waiting: dict[str, Counter[str]] = {name: Counter() for name in journeys}
    for journey, step, number in tx.conn.execute(found):
        waiting[journey][f"waiting at {step!r}"] += number
    return waiting

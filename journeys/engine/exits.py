"""Exit rules and goals as SQL conditions on enrollments."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, exists, false, func, literal, null, select

from channels.messages import messages
from channels.messages.transitions import cancel_of
from config.clock.times import Seconds
from config.database.engine import Tx
from journeys.definition.journey import Version
from journeys.enrollments import enrollments, transitions
from journeys.operations.report import SENT
from profiles.conditions.language import Scope

EXITED = "exited: exit rule"


def exit_rule(tx: Tx, version: Version) -> ColumnElement[bool]:
    """Whether the version's exit rule holds for an enrollment of the enclosing statement."""
    rule = version.journey.exit_when
    return false() if rule is None else rule.sql(_since_entry(tx))


def goal_rule(tx: Tx, version: Version) -> ColumnElement[bool]:
    """Whether an enrollment of the enclosing statement has reached the version's goal."""
    goal = version.journey.goal
    if goal is None:
        return false()
    if goal.after == "entry":
        return goal.did.sql(_since_entry(tx, until=enrollments.c.since + goal.within))
    return exists().where(*_sent_messages, goal.did.sql(_since_message(tx, goal.within)))


def goal_reached_at(tx: Tx, version: Version) -> ColumnElement[Any]:
    """When an enrollment of the enclosing statement reached the goal; NULL: not yet."""
    goal, now = version.journey.goal, literal(tx.now)
    if goal is None:
        return null()
    if goal.after == "entry":
        first = goal.did.began(_since_entry(tx, until=enrollments.c.since + goal.within), now)
    else:
        began = goal.did.began(_since_message(tx, goal.within), now)
        first = select(func.min(began)).where(*_sent_messages).scalar_subquery()
    return func.coalesce(first, enrollments.c.converted_at)


# The sent messages of an enrollment of the enclosing statement.
_sent_messages = (messages.c.enrollment_id == enrollments.c.id, messages.c.state.in_(SENT))


def goal_reached(tx: Tx, version: Version, whose: ColumnElement[bool]) -> int:
    """Mark the enrollments of a version that reached its goal, once each; returns how many.

    whose: a condition on enrollments. Those that another process locks are left for the next call.
    """
    reached = (
        select(enrollments.c.id)
        .where(
            enrollments.c.journey == version.journey.name,
            enrollments.c.version == version.digest,
            enrollments.c.converted_at.is_(None),
            whose,
            goal_rule(tx, version),
        )
        .with_for_update(skip_locked=True)
    )
    return transitions.convert(tx, reached)


def _since_entry(tx: Tx, until: ColumnElement[int] | None = None) -> Scope:
    return Scope(
        sqlite=tx.conn.dialect.name == "sqlite",
        now=tx.now,
        profile_id=enrollments.c.profile_id,
        since=enrollments.c.since,
        until=until,
        except_event=enrollments.c.entry_event_id,
        context=enrollments.c.context,
    )


def _since_message(tx: Tx, within: Seconds) -> Scope:
    """The events of a message's profile, for `within` seconds from its hand-over."""
    return Scope(
        sqlite=tx.conn.dialect.name == "sqlite",
        now=tx.now,
        profile_id=messages.c.profile_id,
        since=messages.c.send_at,
        until=messages.c.send_at + within,
        context=enrollments.c.context,
    )


def end(tx: Tx, enrollment_ids: Collection[int], reason: str) -> None:
    """End enrollments. Unless the reason is `completed`, cancel their planned messages."""
    transitions.end(tx, enrollment_ids, reason)
    if reason != "completed":
        cancel_of(tx, enrollment_ids, reason)

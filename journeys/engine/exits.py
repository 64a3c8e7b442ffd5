"""Exit rules and goals, evaluated on enrollments."""

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, func, or_, select
from sqlalchemy.sql.base import ReadOnlyColumnCollection

from channels.messages import messages, past_messages
from channels.messages.transitions import cancel_of
from config.clock.times import Instant, Seconds
from config.database.arrays import STATEMENTS, any_of, one_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from journeys.definition.journey import Version
from journeys.enrollments import enrollments, transitions
from journeys.operations.counts import SENT
from profiles.conditions.sql import NOW, Scope, condition_holds, condition_holds_since

EXITED = "exited: exit rule"

_c = enrollments.c


# Columns of `messages`, or of `past_messages`, which has those of enrollments that ended long ago.
_Columns = ReadOnlyColumnCollection[str, Any]


def _sent_in(columns: _Columns) -> Sequence[ColumnElement[bool]]:
    """The conditions for the sent messages of an enrollment of the enclosing statement."""
    return (
        columns.enrollment_id == _c.id,
        columns.profile_id == _c.profile_id,  # past messages have an index by it
        columns.bucket == _c.bucket,
        in_buckets(columns.bucket),
        one_of(columns.state, SENT),
    )


def exiting(tx: Tx, version: Version, enrollment_ids: Collection[int]) -> set[int]:
    """Those of a version's enrollments whose exit rule holds now."""
    rule = version.journey.exit_when
    if rule is None or not enrollment_ids:
        return set()
    given = {"enrollments": enrollment_ids, "now": tx.now, "buckets": tx.buckets}
    return {row.id for row in tx.rows(_exiting(version, tx.is_sqlite), given)}


def goal_reached(tx: Tx, version: Version, profile_ids: Collection[int] | None = None) -> int:
    """Mark the enrollments of a version that reached its goal, once each; returns how many.

    The conversion has the time of the event that reached the goal, also if it came late.
    Those that another process locks are left for the next call.

    Parameters
    ----------
    profile_ids: whose enrollments; None: all.
    """
    if version.journey.goal is None:
        return 0
    given: dict[str, Any] = {} if profile_ids is None else {"profiles": profile_ids}
    reached = _reached(version, tx.is_sqlite, everybody=profile_ids is None)
    return transitions.convert(tx, reached, _moment(version, tx.is_sqlite), given)


def goal_moments(tx: Tx, version: Version, enrollment_ids: Collection[int]) -> dict[int, Instant]:
    """When each of these enrollments of a version reached its goal, without those that did not.

    The enrollments are current.
    """
    if version.journey.goal is None:
        return {}
    given = {"enrollments": enrollment_ids, "now": tx.now, "buckets": tx.buckets}
    rows = tx.rows(_moments(version, tx.is_sqlite), given)
    return {row.id: row.at for row in rows if row.at is not None}


@lru_cache(maxsize=STATEMENTS)
def _exiting(version: Version, sqlite: bool) -> Select[tuple[int]]:
    rule = version.journey.exit_when
    assert rule is not None
    return select(_c.id).where(
        any_of(_c.id, "enrollments"),
        in_buckets(_c.bucket),
        condition_holds(rule, _since_entry(sqlite)),
    )


@lru_cache(maxsize=STATEMENTS)
def _reached(version: Version, sqlite: bool, *, everybody: bool) -> Select[tuple[int]]:
    goal = version.journey.goal
    assert goal is not None
    if goal.after == "entry":
        rule = condition_holds(goal.did, _since_entry(sqlite, until=_c.since + goal.within))
    else:
        rule = or_(
            *(
                exists().where(
                    *_sent_in(columns),
                    condition_holds(goal.did, _since_message(columns, sqlite, goal.within)),
                )
                for columns in (messages.c, past_messages.c)
            )
        )
    return (
        select(_c.id)
        .where(
            _c.journey == version.journey.name,
            _c.version == version.digest,
            _c.converted_at.is_(None),
            in_buckets(_c.bucket),
            *([] if everybody else [any_of(_c.profile_id, "profiles")]),
            rule,
        )
        .with_for_update(skip_locked=True)
    )


@lru_cache(maxsize=STATEMENTS)
def _moments(version: Version, sqlite: bool) -> Select[tuple[int, Instant]]:
    at = func.coalesce(_moment(version, sqlite), _c.converted_at).label("at")
    return select(_c.id, at).where(any_of(_c.id, "enrollments"), in_buckets(_c.bucket))


@lru_cache(maxsize=STATEMENTS)
def _moment(version: Version, sqlite: bool) -> ColumnElement[Any]:
    """When an enrollment of the enclosing statement reached the goal; NULL: not yet."""
    goal = version.journey.goal
    assert goal is not None
    if goal.after == "entry":
        return condition_holds_since(
            goal.did, _since_entry(sqlite, until=_c.since + goal.within), NOW
        )
    # Past messages are older than the others of their enrollment.
    return func.coalesce(
        *(
            select(
                func.min(
                    condition_holds_since(
                        goal.did, _since_message(columns, sqlite, goal.within), NOW
                    )
                )
            )
            .where(*_sent_in(columns))
            .scalar_subquery()
            for columns in (past_messages.c, messages.c)
        )
    )


def _since_entry(sqlite: bool, until: ColumnElement[int] | None = None) -> Scope:
    return Scope(
        sqlite=sqlite,
        profile_id=_c.profile_id,
        since=_c.since,
        until=until,
        except_event=_c.entry_event_id,
        context=_c.context,
    )


def _since_message(columns: _Columns, sqlite: bool, within: Seconds) -> Scope:
    """The events of a message's profile, for `within` seconds from its hand-over."""
    return Scope(
        sqlite=sqlite,
        profile_id=columns.profile_id,
        since=columns.send_at,
        until=columns.send_at + within,
        context=_c.context,
    )


def end(tx: Tx, enrollment_ids: Collection[int], reason: str) -> None:
    """End enrollments. Unless the reason is `completed`, cancel their planned messages."""
    transitions.end(tx, enrollment_ids, reason)
    if reason != "completed":
        cancel_of(tx, enrollment_ids, reason)

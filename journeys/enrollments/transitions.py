"""Every statement that writes enrollments: one function per transition, each for many rows.

A transition changes only enrollments in a state from which it is `ALLOWED` (`waiting`, for `undo`
any) and returns how many rows it changed; `enter` returns the new rows. The functions decide
nothing; callers lock the enrollments on which they decide.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, Update, bindparam, func, insert, literal, update
from sqlalchemy.sql.dml import ReturningInsert

from config.clock.times import Instant
from config.database.arrays import STATEMENTS, any_of, rows_of
from config.database.buckets import in_buckets
from config.database.engine import Tx
from config.database.locking import bucket_turns
from journeys.enrollments.table import enrollments
from profiles.identity.mergers import Merger, move_rows, repoint

_c = enrollments.c
_waiting = update(enrollments).where(_c.ended_at.is_(None), in_buckets(_c.bucket))
_these = any_of(_c.id, "enrollments")
_each = _c.id == bindparam("enrollment")


class Stay(NamedTuple):
    """Wait at the same step until `due_at`. phase: the progress within the step."""

    due_at: Instant
    phase: int


class Arrival(NamedTuple):
    """Arrive at a step, in phase 0. arrived_at: when the previous step ended."""

    step: str
    arrived_at: Instant
    due_at: Instant


class _Placing(NamedTuple):
    """The same update as two statements: to one place, and to a place for each enrollment."""

    together: Update
    each: Update


def _placing(place: type[Stay | Arrival], **values: Any) -> _Placing:
    rows = rows_of("places", _c.id, *(_c[name] for name in place._fields))
    placing = _waiting.values(values) if values else _waiting
    return _Placing(
        placing.where(_these).values({name: bindparam(name) for name in place._fields}),
        placing.where(_c.id == rows.c.id).values({name: rows.c[name] for name in place._fields}),
    )


_STAY = _placing(Stay)
_ARRIVE = _placing(Arrival, phase=0, attempts=0)
_RETRY = _waiting.where(_each).values(due_at=bindparam("until"), attempts=bindparam("tried"))
_LEASE = _waiting.where(_these).values(due_at=bindparam("until"), attempts=_c.attempts + 1)
_WAKE = _waiting.where(_these, _c.due_at > bindparam("now")).values(due_at=bindparam("now"))
_END = _waiting.where(_these).values(
    ended_at=bindparam("now"), end_reason=bindparam("why"), due_at=None
)
_UNDO = (
    update(enrollments)
    .where(_these, in_buckets(_c.bucket))
    .values(
        ended_at=func.coalesce(_c.ended_at, bindparam("now")),
        end_reason=bindparam("why"),
        due_at=None,
    )
)
_LEAVE_LAUNCHES = update(enrollments).where(_these).values(launch_id=None)
_LAUNCHED = rows_of("launched", _c.id, _c.launch_id)
_RETURN = update(enrollments).where(_c.id == _LAUNCHED.c.id).values(launch_id=_LAUNCHED.c.launch_id)
_ENTRIES = rows_of("entries", _c.id, _c.entry_event_id)
_RESTORE_ENTRIES = (
    update(enrollments)
    .where(_c.id == _ENTRIES.c.id)
    .values(entry_event_id=_ENTRIES.c.entry_event_id)
)
_REPLACE_ENTRY_EVENTS = (
    update(enrollments)
    .where(_c.entry_event_id == bindparam("dropped"))
    .values(entry_event_id=bindparam("twin"))
)


def enter(
    tx: Tx,
    people: Select[Any],
    given: Mapping[str, Any],
) -> Sequence[tuple[int, int, Instant, Instant]]:
    """Insert enrollments; skip profiles with a current enrollment for the same entry key.

    Returns the id, `profile_id`, `arrived_at` and `due_at` of each new row.

    Parameters
    ----------
    people: a SELECT whose columns are named like the table's, without `phase` and `attempts`. It
        needs a WHERE; without one SQLite parses `ON CONFLICT` as the `ON` of a join.
    given: its parameters.
    """
    return tx.rows(_entering(people), given)


@lru_cache(maxsize=STATEMENTS)
def _entering(people: Select[Any]) -> ReturningInsert[tuple[int, int, Instant, Instant]]:
    rows = people.add_columns(literal(0).label("phase"), literal(0).label("attempts"))
    # SQLAlchemy does not cache a statement with its own ON CONFLICT, and compiling it takes ten
    # times as long as running it.
    rows = rows.suffix_with("ON CONFLICT DO NOTHING")
    entering = insert(enrollments).from_select(rows.selected_columns.keys(), rows)
    return entering.returning(_c.id, _c.profile_id, _c.arrived_at, _c.due_at)


def stay(tx: Tx, places: Mapping[Stay, Sequence[int]]) -> int:
    """Keep enrollments at their step until a new due time."""
    return _place(tx, _STAY, places)


def arrive(tx: Tx, places: Mapping[Arrival, Sequence[int]]) -> int:
    """Move enrollments to another step."""
    return _place(tx, _ARRIVE, places)


def _place(tx: Tx, placing: _Placing, places: Mapping[Any, Sequence[int]]) -> int:
    if not places:
        return 0
    if len(places) == 1:
        [(place, ids)] = places.items()
        given = {**place._asdict(), "enrollments": ids, "buckets": tx.buckets}
        return tx.write(placing.together, given)
    rows = [(one, *place) for place, ids in places.items() for one in ids]
    return tx.write(placing.each, {"places": rows, "buckets": tx.buckets})


def retry(tx: Tx, enrollment_id: int, *, attempts: int, due_at: Instant) -> int:
    """Schedule a retry of a failed step at `due_at`. attempts: the failed attempts so far."""
    given = {
        "enrollment": enrollment_id,
        "until": due_at,
        "tried": attempts,
        "buckets": tx.buckets,
    }
    return tx.write(_RETRY, given)


def lease(tx: Tx, enrollment_ids: Collection[int], until: Instant) -> int:
    """Reserve enrollments for this process until then. The lease counts as an attempt."""
    given = {"enrollments": enrollment_ids, "until": until, "buckets": tx.buckets}
    return tx.write(_LEASE, given)


def wake(tx: Tx, enrollment_ids: Collection[int]) -> int:
    """Make enrollments due now if they are due later."""
    given = {"enrollments": enrollment_ids, "now": tx.now, "buckets": tx.buckets}
    return tx.write(_WAKE, given)


def migrate(tx: Tx, people: Select[tuple[int]], given: Mapping[str, Any], version: str) -> int:
    """Move enrollments to another version of their journey.

    people: a SELECT of ids, with the parameters `given`.
    """
    return _in_turns(tx, _migrating(people), {**given, "to_version": version})


def _in_turns(tx: Tx, changing: Update, given: Mapping[str, Any]) -> int:
    """Execute a statement with a subquery that locks enrollments; returns how many it changed."""
    return sum(tx.write(changing, {**given, "buckets": buckets}) for buckets in bucket_turns(tx))


@lru_cache(maxsize=STATEMENTS)
def _migrating(people: Select[tuple[int]]) -> Update:
    return _waiting.where(_c.id.in_(people)).values(version=bindparam("to_version"))


def end(tx: Tx, enrollment_ids: Collection[int], reason: str) -> int:
    """End enrollments now. reason: stored in `end_reason`."""
    given = {
        "enrollments": enrollment_ids,
        "now": tx.now,
        "why": reason,
        "buckets": tx.buckets,
    }
    return tx.write(_END, given)


def undo(tx: Tx, enrollment_ids: Collection[int], reason: str) -> int:
    """End enrollments of a launch that is undone, and replace the reason of those that have ended.

    reason: stored in `end_reason`.
    """
    given = {
        "enrollments": enrollment_ids,
        "now": tx.now,
        "why": reason,
        "buckets": tx.buckets,
    }
    return tx.write(_UNDO, given)


# Changes without a change of state ---------------------------------------------------------------


def convert(
    tx: Tx,
    reached: Select[tuple[int]],
    moment: ColumnElement[Instant | None],
    given: Mapping[str, Any],
) -> int:
    """Mark enrollments as converted, also ended ones, but each only once.

    reached: a SELECT of ids. moment: when the enrollment of the enclosing statement converted; NULL
    counts as now. Both have the parameters `given` and `now`.
    """
    return _in_turns(tx, _converting(reached, moment), {**given, "now": tx.now})


@lru_cache(maxsize=STATEMENTS)
def _converting(reached: Select[tuple[int]], moment: ColumnElement[Instant | None]) -> Update:
    marking = update(enrollments).where(
        _c.id.in_(reached), _c.converted_at.is_(None), in_buckets(_c.bucket)
    )
    return marking.values(converted_at=func.coalesce(moment, bindparam("now")))


def give_to(tx: Tx, mergers: Sequence[Merger]) -> dict[int, list[int]]:
    """Move enrollments to the surviving profiles. Returns their ids by the merged profile's id."""
    return repoint(tx, enrollments, mergers)


def give_back(tx: Tx, enrollment_ids: Collection[int], from_id: int, to: int) -> None:
    """Give enrollments to the profile that an undone join separates."""
    move_rows(tx, enrollments, "id", enrollment_ids, from_id, to)


def return_to_launches(tx: Tx, launches: Collection[Sequence[Any]]) -> None:
    """Restore the launches that a merge cleared: ids of enrollments, each with its launch."""
    if launches:
        tx.conn.execute(_RETURN, {"launched": [tuple(one) for one in launches]})


def restore_entry_events(tx: Tx, entries: Collection[tuple[int, int]]) -> None:
    """Restore entry events that a merge replaced: ids of enrollments, each with its event."""
    if entries:
        tx.conn.execute(_RESTORE_ENTRIES, {"entries": list(entries)})


def leave_launches(tx: Tx, enrollment_ids: Collection[int]) -> int:
    """Clear the launch of enrollments if the surviving profile entered by the same launch."""
    return tx.write(_LEAVE_LAUNCHES, {"enrollments": enrollment_ids})


def replace_entry_events(tx: Tx, twins: Mapping[int, int]) -> int:
    """Replace entry events that a merge deleted as duplicates. twins: deleted id to kept id."""
    rows = [{"dropped": event_id, "twin": twin_id} for event_id, twin_id in twins.items()]
    return tx.write(_REPLACE_ENTRY_EVENTS, *rows)

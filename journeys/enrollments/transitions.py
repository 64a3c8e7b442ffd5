"""Every statement that writes an enrollment: one function a transition, many at a time.

Each transition changes only enrollments that still wait (see `ALLOWED`), and returns how many it
changed. The functions decide nothing; whoever calls them holds the enrollments it has read.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Select, Update, bindparam, insert, literal, update

from config.database import Tx
from config.times import Instant
from journeys.enrollments.table import enrollments
from profiles.bulk import among_bound
from profiles.identity.merge import Merger, repoint

# At most so many places get a statement of their own.
_STATEMENTS = 10

_c = enrollments.c
_waiting = update(enrollments).where(_c.ended_at.is_(None))
_these = among_bound(_c.id, "enrollments")
_each = _c.id == bindparam("enrollment")


class Stay(NamedTuple):
    """Waiting at the same step. phase: how far into it."""

    due_at: Instant
    phase: int


class Arrival(NamedTuple):
    """Coming to a step, from its beginning. arrived_at: when the step before was over."""

    step: str
    arrived_at: Instant
    due_at: Instant


class _Placing(NamedTuple):
    """The same statement for all who go to a place, and for one at a time."""

    together: Update
    each: Update


def _placing(place: type[Stay | Arrival], **values: Any) -> _Placing:
    placing = _waiting.values({**values, **{name: bindparam(name) for name in place._fields}})
    return _Placing(placing.where(_these), placing.where(_each))


_STAY = _placing(Stay)
_ARRIVE = _placing(Arrival, phase=0, attempts=0)
_RETRY = _waiting.where(_each).values(due_at=bindparam("until"), attempts=bindparam("tried"))
_LEASE = _waiting.where(_these).values(due_at=bindparam("until"), attempts=_c.attempts + 1)
_WAKE = _waiting.where(_these, _c.due_at > bindparam("now")).values(due_at=bindparam("now"))
_WAKE_AT = _waiting.where(
    _c.journey == bindparam("of_journey"),
    # Not a plain comparison: SQLite would take the index on due times and read all who wait at the
    # step.
    _c.version.concat("") == bindparam("of_version"),
    _c.step == bindparam("at_step"),
    among_bound(_c.profile_id, "profiles"),
    _c.due_at > bindparam("now"),
).values(due_at=bindparam("now"))
_END = _waiting.where(_these).values(
    ended_at=bindparam("now"), end_reason=bindparam("why"), due_at=None
)
_LEAVE_LAUNCHES = update(enrollments).where(_these).values(launch_id=None)
_REPLACE_ENTRY_EVENTS = (
    update(enrollments)
    .where(_c.entry_event_id == bindparam("dropped"))
    .values(entry_event_id=bindparam("twin"))
)


def enter(tx: Tx, people: Select[Any]) -> int:
    """Write new enrollments, except for profiles that are in the journey with the same entry key.

    people: columns named as the table's, without `phase` and `attempts`; with a WHERE, since SQLite
    would take `ON CONFLICT` for a join's `ON`.
    """
    rows = people.add_columns(literal(0).label("phase"), literal(0).label("attempts"))
    # SQLAlchemy would put its own ON CONFLICT together anew each time, which takes ten times as
    # long as the database does.
    rows = rows.suffix_with("ON CONFLICT DO NOTHING")
    entered = tx.conn.execute(
        insert(enrollments).from_select(rows.selected_columns.keys(), rows),
        # else SQLAlchemy forgets it after an INSERT on PostgreSQL
        execution_options={"preserve_rowcount": True},
    )
    return entered.rowcount


def stay(tx: Tx, places: Mapping[Stay, Sequence[int]]) -> int:
    """Let enrollments wait at the step where they are."""
    return _place(tx, _STAY, places)


def arrive(tx: Tx, places: Mapping[Arrival, Sequence[int]]) -> int:
    """Move enrollments to other steps."""
    return _place(tx, _ARRIVE, places)


def _place(tx: Tx, placing: _Placing, places: Mapping[Any, Sequence[int]]) -> int:
    """One statement for each place. Many places, as with a due time for each person: one statement
    with a row of parameters for each enrollment.
    """
    if len(places) <= _STATEMENTS:
        return sum(
            tx.conn.execute(placing.together, {**place._asdict(), "enrollments": ids}).rowcount
            for place, ids in places.items()
        )
    rows = [{**place._asdict(), "enrollment": one} for place, ids in places.items() for one in ids]
    return tx.conn.execute(placing.each, rows).rowcount


def retry(tx: Tx, enrollment_id: int, *, attempts: int, due_at: Instant) -> int:
    """Try a step that failed again at `due_at`. attempts: the failed ones so far."""
    given = {"enrollment": enrollment_id, "until": due_at, "tried": attempts}
    return tx.conn.execute(_RETRY, given).rowcount


def lease(tx: Tx, enrollment_ids: Collection[int], until: Instant) -> int:
    """Keep other processes away from these enrollments until then. It counts as an attempt."""
    return tx.conn.execute(_LEASE, {"enrollments": enrollment_ids, "until": until}).rowcount


def wake(tx: Tx, enrollment_ids: Collection[int]) -> int:
    """Make enrollments due now that are due later."""
    return tx.conn.execute(_WAKE, {"enrollments": enrollment_ids, "now": tx.now}).rowcount


def wake_at(tx: Tx, journey: str, version: str, step: str, profile_ids: Collection[int]) -> int:
    """Make the enrollments of these profiles at a step due now, if they are due later."""
    given = {
        "of_journey": journey,
        "of_version": version,
        "at_step": step,
        "profiles": profile_ids,
        "now": tx.now,
    }
    return tx.conn.execute(_WAKE_AT, given).rowcount


def migrate(tx: Tx, people: Select[tuple[int]], version: str) -> int:
    """Let these enrollments (a SELECT of ids) continue on another version of their journey."""
    return tx.conn.execute(_waiting.where(_c.id.in_(people)).values(version=version)).rowcount


def end(tx: Tx, enrollment_ids: Collection[int], reason: str) -> int:
    """End enrollments."""
    given = {"enrollments": enrollment_ids, "now": tx.now, "why": reason}
    return tx.conn.execute(_END, given).rowcount


# What changes no state ---------------------------------------------------------------------------


def convert(tx: Tx, reached: Select[tuple[int]]) -> int:
    """Mark these enrollments (a SELECT of ids) as converted, once; they may have ended."""
    marking = update(enrollments).where(_c.id.in_(reached), _c.converted_at.is_(None))
    return tx.conn.execute(marking.values(converted_at=tx.now)).rowcount


def give_to(tx: Tx, mergers: Sequence[Merger]) -> dict[int, list[int]]:
    """Move enrollments to the profiles that stay. Returns their ids, by the profile that goes."""
    return repoint(tx, enrollments, mergers)


def leave_launches(tx: Tx, enrollment_ids: Collection[int]) -> int:
    """Clear the launch of enrollments whose surviving profile entered by the same launch."""
    return tx.conn.execute(_LEAVE_LAUNCHES, {"enrollments": enrollment_ids}).rowcount


def replace_entry_events(tx: Tx, twins: Mapping[int, int]) -> int:
    """Point enrollments from entry events that a merge dropped to their twins, which stay."""
    rows = [{"dropped": event_id, "twin": twin_id} for event_id, twin_id in twins.items()]
    return tx.conn.execute(_REPLACE_ENTRY_EVENTS, rows).rowcount if rows else 0

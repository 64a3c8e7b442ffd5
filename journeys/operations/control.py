"""Pause, stop and resume a journey.

A paused journey moves and sends nothing. Profiles still enter and wait at the first step. After a
resume, each planned message is checked again before it is sent, as at every hand-over.
"""

from sqlalchemy import BigInteger, bindparam, delete, select

from channels.messages import messages, transitions
from config.database.arrays import any_of, insert_or_update, one_of
from config.database.buckets import in_buckets
from config.database.change_counter import count_change
from config.database.engine import Database, Tx
from config.database.locking import lock_rows
from config.policy import CHANNELS
from journeys.engine.chunks import Chunk, Chunks
from journeys.engine.exits import end
from journeys.enrollments import enrollments
from journeys.tables import journey_controls
from profiles.bucketing import buckets_of
from profiles.bulk import lock_profiles

PAUSED = "paused"
STOPPED = "stopped"
HELD_MEANS = {
    PAUSED: "nothing moves and nothing is sent",
    STOPPED: "nobody enters and nothing is sent",
}
STOPPED_REASON = "the journey was stopped"

_HELD = select(journey_controls.c.journey, journey_controls.c.state)
_of_journey = journey_controls.c.journey == bindparam("of_journey")
_STOPPED = (
    select(journey_controls)
    .where(_of_journey, journey_controls.c.state == STOPPED)
    .with_for_update()
)
_PUT = insert_or_update(
    journey_controls.c.journey, journey_controls.c.state, journey_controls.c.changed_at
)
_RESUME = delete(journey_controls).where(_of_journey)
_MOST = bindparam("most", type_=BigInteger)
_CURRENT = (
    select(enrollments.c.id, enrollments.c.profile_id)
    .where(enrollments.c.journey == bindparam("of_journey"), enrollments.c.ended_at.is_(None))
    .limit(_MOST)
)
_LOCKED = (
    select(enrollments.c.id, enrollments.c.profile_id)
    .where(
        any_of(enrollments.c.id, "enrollments"),
        in_buckets(enrollments.c.bucket),
        enrollments.c.ended_at.is_(None),
    )
    .order_by(enrollments.c.id)
    .with_for_update()
)
_PLANNED = (
    select(messages.c.id, messages.c.profile_id)
    .where(
        messages.c.journey == bindparam("of_journey"),
        # It lets ix_message_report (journey, channel, state) be used, so that the time does not
        # depend on how many messages the journey has sent.
        one_of(messages.c.channel, CHANNELS),
        messages.c.state == "planned",
    )
    .limit(_MOST)
)


def pause(db: Database, journey: str) -> None:
    """Move and send nothing of this journey until it is resumed."""
    _hold(db, journey, PAUSED)


def stop(db: Database, journey: str) -> int:
    """Stop entries and sends, then end all enrollments; returns how many it ended.

    The state `stopped` is committed first; then enrollments end chunk by chunk. If the process
    dies in between, the next stop or any worker (`finish_stops`) ends the rest.
    """
    _hold(db, journey, STOPPED)
    return _end_all(db, journey)


def finish_stops(db: Database) -> None:
    """End the remaining enrollments of stopped journeys: those that an interrupted stop left, and
    those that entered at the same moment as the stop.
    """
    with db.transaction(write=False) as tx:
        holding = held(tx)
    for journey, state in holding.items():
        if state == STOPPED:
            _end_all(db, journey)


def resume(db: Database, journey: str) -> None:
    """Run a journey again. Ends the remaining enrollments first if the journey is stopped."""
    chunks = Chunks(db)
    while True:
        with chunks.transaction("stop") as chunk:
            if _end_some(chunk, journey) is None:
                chunk.tx.conn.execute(_RESUME, {"of_journey": journey})
                count_change(chunk.tx)
                return


def _end_all(db: Database, journey: str) -> int:
    chunks = Chunks(db)
    ended = 0
    while True:
        with chunks.transaction("stop") as chunk:
            some = _end_some(chunk, journey)
        if some is None:
            return ended
        ended += some


def _end_some(chunk: Chunk, journey: str) -> int | None:
    """End a chunk of enrollments of a stopped journey or, if there are none, cancel a chunk of its
    planned messages. Returns how many enrollments it ended; None: nothing is left to do, or the
    journey is not stopped.

    Locks in the common order: enrollments, profiles, messages. The control row is locked before
    them, so that a concurrent resume can't let in enrollments which this would end.
    """
    tx = chunk.tx
    given = {"of_journey": journey, "most": chunk.size}
    if tx.conn.execute(_STOPPED, given).first() is None:
        return None
    if current := tx.conn.execute(_CURRENT, given).all():
        tx.buckets = buckets_of(row.profile_id for row in current)
        people = lock_rows(tx, _LOCKED, {"enrollments": [row.id for row in current]})
        lock_profiles(tx, {person.profile_id for person in people})
        end(tx, [person.id for person in people], STOPPED_REASON)
        chunk.people = len(people)
        return len(people)
    rows = tx.conn.execute(_PLANNED, given).all()
    if not rows:
        return None
    tx.buckets = buckets_of(row.profile_id for row in rows)
    lock_profiles(tx, {row.profile_id for row in rows})
    transitions.cancel(tx, {row.id: STOPPED_REASON for row in rows})
    chunk.people = len(rows)
    return 0


def held(tx: Tx) -> dict[str, str]:
    """The state, `paused` or `stopped`, of each journey that is not running, by name."""
    return tx.cached("journey_control", _read_held)


def held_note(journey: str, state: str) -> str:
    """That a journey is paused or stopped, and how it goes on, as a sentence.

    state: as `held` returns it.
    """
    return f"{journey} is {state}: {HELD_MEANS[state]}. To go on: segue resume {journey}"


def _read_held(tx: Tx) -> dict[str, str]:
    return {row.journey: row.state for row in tx.conn.execute(_HELD)}


def _hold(db: Database, journey: str, state: str) -> None:
    """Set the state. Of two concurrent calls the later one wins."""
    with db.transaction() as tx:
        _PUT(tx.conn, [(journey, state, tx.now)])
        count_change(tx)

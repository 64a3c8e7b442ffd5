"""Holding a journey: pause, resume, stop.

A paused journey sends nothing and loses nobody: people still enter, and stand where they are. On
resume everything planned is looked at again before it goes, as at every hand-over.
"""

from sqlalchemy import and_, delete, select

from channels.messages import messages, transitions
from config.database import Database, Tx, put
from config.policy import CHANNELS
from journeys.engine.chunks import Chunk, Chunks
from journeys.engine.exits import end
from journeys.enrollments import enrollments
from journeys.tables import journey_controls
from profiles.bulk import among, lock_profiles

PAUSED = "paused"
STOPPED = "stopped"
_STOPPED_REASON = "the journey was stopped"


def pause(db: Database, journey: str) -> None:
    """Nothing of this journey is moved or sent until it is resumed."""
    _hold(db, journey, PAUSED)


def stop(db: Database, journey: str) -> int:
    """Let nobody in and send nothing more, then end everybody's way through this journey.

    Says how many it ended. The first is committed before anybody is ended, chunk by chunk: if it
    dies half-way, the next stop or any worker (`finish_stops`) ends the others.
    """
    _hold(db, journey, STOPPED)
    return _end_all(db, journey)


def finish_stops(db: Database) -> None:
    """End those who are still in a stopped journey: its stop died half-way, or they came in at the
    very moment at which it was stopped.
    """
    with db.transaction(write=False) as tx:
        holding = held(tx)
    for journey, state in holding.items():
        if state == STOPPED:
            _end_all(db, journey)


def resume(db: Database, journey: str) -> None:
    """Run again. Who is still in a stopped journey is ended first."""
    chunks = Chunks(db)
    while True:
        with chunks.transaction("stop") as chunk:
            if _end_some(chunk, journey) is None:
                there = journey_controls.c.journey == journey
                chunk.tx.conn.execute(delete(journey_controls).where(there))
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
    """End a chunk of those who are in a stopped journey, and then cancel a chunk of what is still
    planned; says how many were ended. None: nothing is left, or the journey is not stopped.

    Locks as everybody does: enrollments, then profiles, then messages. Before them, the row that
    says that it is stopped: whoever enters once it runs again is let be.
    """
    tx = chunk.tx
    stopped = select(journey_controls).where(
        journey_controls.c.journey == journey, journey_controls.c.state == STOPPED
    )
    if tx.conn.execute(stopped.with_for_update()).first() is None:
        return None
    c, m = enrollments.c, messages.c
    in_it = select(c.id).where(c.journey == journey, c.ended_at.is_(None)).limit(chunk.size)
    if ids := tx.conn.execute(in_it).scalars().all():
        still = select(c.id, c.profile_id).where(among(tx, c.id, ids), c.ended_at.is_(None))
        people = tx.conn.execute(still.order_by(c.id).with_for_update()).all()
        lock_profiles(tx, {person.profile_id for person in people})
        end(tx, [person.id for person in people], _STOPPED_REASON)
        chunk.people = len(people)
        return len(people)
    # With its channels the index has it, however many the journey has sent.
    planned = and_(m.journey == journey, m.channel.in_(CHANNELS), m.state == "planned")
    rows = tx.conn.execute(select(m.id, m.profile_id).where(planned).limit(chunk.size)).all()
    if not rows:
        return None
    lock_profiles(tx, {row.profile_id for row in rows})
    transitions.cancel(tx, {row.id: _STOPPED_REASON for row in rows})
    chunk.people = len(rows)
    return 0


def held(tx: Tx) -> dict[str, str]:
    """The journeys that are paused or stopped, by name."""
    found = tx.conn.execute(select(journey_controls.c.journey, journey_controls.c.state))
    return {row.journey: row.state for row in found}


def _hold(db: Database, journey: str, state: str) -> None:
    """Two people may hold it at the same moment: the later word counts."""
    with db.transaction() as tx:
        row = {"journey": journey, "state": state, "changed_at": tx.now}
        put(tx.conn, journey_controls, row)

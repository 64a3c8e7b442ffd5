"""Holding a journey: pause, resume, stop.

A paused journey sends nothing and loses nobody: people still enter, and stand where they are. On
resume everything planned is looked at again before it goes, as at every hand-over.
"""

from sqlalchemy import delete, select, update

from channels.tables import messages
from config.database import Tx, put
from journeys.tables import enrollments, journey_controls

PAUSED = "paused"
STOPPED = "stopped"
_STOPPED_REASON = "the journey was stopped"


def pause(tx: Tx, journey: str) -> None:
    """Nothing of this journey is moved or sent until it is resumed."""
    _hold(tx, journey, PAUSED)


def stop(tx: Tx, journey: str) -> int:
    """End everybody's way through this journey and let nobody in; says how many were in it."""
    _hold(tx, journey, STOPPED)
    return _end_all(tx, journey)


def resume(tx: Tx, journey: str) -> None:
    """Run again."""
    if held(tx).get(journey) == STOPPED:
        # Some may have come in at the very moment at which it was stopped.
        _end_all(tx, journey)
    tx.conn.execute(delete(journey_controls).where(journey_controls.c.journey == journey))


def _end_all(tx: Tx, journey: str) -> int:
    c = enrollments.c
    in_it = select(c.id).where(c.journey == journey, c.ended_at.is_(None))
    # locked in id order, as everywhere
    ended = tx.conn.execute(
        update(enrollments)
        .where(c.id.in_(in_it.order_by(c.id).with_for_update()))
        .values(ended_at=tx.now, end_reason=_STOPPED_REASON, due_at=None)
    ).rowcount
    tx.conn.execute(
        update(messages)
        .where(messages.c.journey == journey, messages.c.state == "planned")
        .values(state="cancelled", reason=_STOPPED_REASON)
    )
    return ended


def held(tx: Tx) -> dict[str, str]:
    """The journeys that are paused or stopped, by name."""
    found = tx.conn.execute(select(journey_controls.c.journey, journey_controls.c.state))
    return {row.journey: row.state for row in found}


def _hold(tx: Tx, journey: str, state: str) -> None:
    """Two people may hold it at the same moment: the later word counts."""
    row = {"journey": journey, "state": state, "changed_at": tx.now}
    put(tx.conn, journey_controls, row)

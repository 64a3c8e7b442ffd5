"""Holding a journey: pause, resume, stop.

A paused journey sends nothing and loses nobody: people still enter, and stand where they are. On
resume everything planned is looked at again before it goes, as at every hand-over.
"""

from sqlalchemy import delete, select, update

from channels.tables import messages
from config.database import Tx
from journeys.tables import enrollments, journey_controls

PAUSED = "paused"
STOPPED = "stopped"


def pause(tx: Tx, journey: str) -> None:
    """Nothing of this journey is moved or sent until it is resumed."""
    _hold(tx, journey, PAUSED)


def stop(tx: Tx, journey: str) -> int:
    """End everybody's way through this journey and let nobody in; says how many were in it."""
    _hold(tx, journey, STOPPED)
    in_it = (enrollments.c.journey == journey) & enrollments.c.ended_at.is_(None)
    ended = tx.conn.execute(
        update(enrollments)
        .where(in_it)
        .values(ended_at=tx.now, end_reason="the journey was stopped", due_at=None)
    ).rowcount
    tx.conn.execute(
        update(messages)
        .where(messages.c.journey == journey, messages.c.state == "planned")
        .values(state="cancelled", reason="the journey was stopped")
    )
    return ended


def resume(tx: Tx, journey: str) -> None:
    """Run again."""
    tx.conn.execute(delete(journey_controls).where(journey_controls.c.journey == journey))


def held(tx: Tx) -> dict[str, str]:
    """The journeys that are paused or stopped, by name."""
    found = tx.conn.execute(select(journey_controls.c.journey, journey_controls.c.state))
    return {row.journey: row.state for row in found}


def _hold(tx: Tx, journey: str, state: str) -> None:
    resume(tx, journey)
    tx.conn.execute(
        journey_controls.insert().values(journey=journey, state=state, changed_at=tx.now)
    )

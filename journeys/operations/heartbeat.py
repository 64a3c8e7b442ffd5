"""Heartbeats of workers. A worker cannot report that no worker is running; their age shows it."""

from sqlalchemy import delete, func, select

from config.clock.times import DAY, Instant
from config.database.engine import Tx, put
from journeys.tables import heartbeats


def record_heartbeat(tx: Tx, worker: str) -> None:
    """Record a heartbeat of this worker; delete those of workers not seen for a day."""
    put(tx.conn, heartbeats, {"worker": worker, "seen_at": tx.now})
    tx.conn.execute(delete(heartbeats).where(heartbeats.c.seen_at < tx.now - DAY))


def last_seen(tx: Tx) -> Instant | None:
    """The time of the latest heartbeat of any worker; None: there is none on record."""
    seen: Instant | None = tx.conn.execute(select(func.max(heartbeats.c.seen_at))).scalar_one()
    return seen

"""Heartbeats of workers. A worker cannot report that no worker is running; their age shows it."""

from sqlalchemy import bindparam, delete, func, select

from config.clock.times import DAY, Instant
from config.database.arrays import insert_or_update
from config.database.engine import Tx
from journeys.tables import heartbeats

_PUT = insert_or_update(heartbeats.c.worker, heartbeats.c.seen_at)
_FORGET = delete(heartbeats).where(heartbeats.c.seen_at < bindparam("before"))
_LAST_SEEN = select(func.max(heartbeats.c.seen_at))


def record_heartbeat(tx: Tx, worker: str) -> None:
    """Record a heartbeat of this worker; delete those of workers not seen for a day."""
    _PUT(tx.conn, [(worker, tx.now)])
    tx.conn.execute(_FORGET, {"before": tx.now - DAY})


def last_seen(tx: Tx) -> Instant | None:
    """The time of the latest heartbeat of any worker; None: there is none on record."""
    seen: Instant | None = tx.conn.execute(_LAST_SEEN).scalar_one()
    return seen

"""Which workers are on: each says so every now and then, so that it is noticed when none is."""

from sqlalchemy import delete, func, select

from config.database import Tx, put
from config.times import DAY, Instant
from journeys.tables import attendances


def sign_in(tx: Tx, worker: str) -> None:
    """This worker is on; those that have not been for a day are forgotten."""
    put(tx.conn, attendances, {"worker": worker, "seen_at": tx.now})
    tx.conn.execute(delete(attendances).where(attendances.c.seen_at < tx.now - DAY))


def last_seen(tx: Tx) -> Instant | None:
    """When a worker was last on; None: none that anybody remembers."""
    seen: Instant | None = tx.conn.execute(select(func.max(attendances.c.seen_at))).scalar_one()
    return seen

"""How many events wait to be worked, so that a flood is slowed before it does harm."""

import asyncio
import time
from collections.abc import Callable

from sqlalchemy import func, literal, select

from config.database import Database
from config.times import Seconds
from flows.receiver.answers import Refusal
from profiles.tables import events

_LOOK_AGAIN: Seconds = 1
_RETRY_AFTER: Seconds = 5


class Backlog:
    """Counted at most once a second.

    limit: above so many waiting events nothing more is taken.
    arriving: how many are in this process's hands and not in the database yet.
    """

    def __init__(self, db: Database, limit: int, arriving: Callable[[], int]) -> None:
        self._db = db
        self._limit = limit
        self._arriving = arriving
        self._waiting = 0
        self._looked_at = -float(_LOOK_AGAIN)

    async def check(self) -> None:
        """Raises Refusal (429) when too much waits."""
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_AGAIN:
            self._looked_at = now
            self._waiting = await asyncio.to_thread(self._count)
        if self._waiting + self._arriving() > self._limit:
            raise Refusal(
                429,
                "too_many",
                "too many events wait to be worked; send this again later",
                headers={"Retry-After": str(_RETRY_AFTER)},
            )

    def _count(self) -> int:
        """No further than the limit: that is all we need to know."""
        waiting = (
            select(literal(1)).where(events.c.worked_at.is_(None)).limit(self._limit + 1).subquery()
        )
        with self._db.transaction(write=False) as tx:
            return tx.conn.execute(select(func.count()).select_from(waiting)).scalar_one()

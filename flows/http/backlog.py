"""How much waits to be worked, so that a flood is slowed before it does harm."""

import asyncio
import time
from collections.abc import Callable

from config.database import Database, Tx
from flows.http.errors import Refusal


class Backlog:
    """Counted at most once a second.

    limit: while more than that waits nothing more is taken.
    waiting: how much waits in the database, counted no further than to the number it is given.
    arriving: how much is in this process's hands and not in the database yet.
    """

    def __init__(
        self,
        db: Database,
        limit: int,
        waiting: Callable[[Tx, int], int],
        arriving: Callable[[], int] = lambda: 0,
    ) -> None:
        self._db = db
        self._limit = limit
        self._count = waiting
        self._arriving = arriving
        self._waiting = 0
        self._looked_at = -db.timing.backlog_every

    async def check(self) -> None:
        """Raises Refusal (429) when too much waits."""
        now = time.monotonic()
        if now - self._looked_at >= self._db.timing.backlog_every:
            self._looked_at = now
            self._waiting = await asyncio.to_thread(self._look)
        if self._waiting + self._arriving() > self._limit:
            raise Refusal(
                429,
                "too_many",
                "too much waits to be worked; send this again later",
                headers={"Retry-After": str(self._db.timing.backlog_retry)},
            )

    def _look(self) -> int:
        with self._db.transaction(write=False) as tx:
            return self._count(tx, self._limit + 1)

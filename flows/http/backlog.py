"""Refuse requests while too much work waits."""

import asyncio
import time
from collections.abc import Callable

from config.database.engine import Database, Tx
from flows.http.errors import Refusal


class Backlog:
    """A limit on waiting work. It counts rows of the database at most once a second.

    limit: the most work that may wait.
    waiting: counts the work that waits in the database, up to the given number.
    arriving: counts the work that this process has received and not yet committed.
    """

    def __init__(
        self,
        db: Database,
        limit: int,
        *,
        waiting: Callable[[Tx, int], int],
        arriving: Callable[[], int] = lambda: 0,
    ) -> None:
        self._db = db
        self._limit = limit
        self._count = waiting
        self._arriving = arriving
        self._waiting = 0
        self._counted_at = -db.timing.backlog_every

    async def check(self) -> None:
        """Raise Refusal (429, with Retry-After) if more than the limit waits."""
        now = time.monotonic()
        if now - self._counted_at >= self._db.timing.backlog_every:
            self._counted_at = now
            self._waiting = await asyncio.to_thread(self._count_rows)
        if self._waiting + self._arriving() > self._limit:
            raise Refusal(
                429,
                "too_many",
                "too much work is waiting; send the request again later",
                headers={"Retry-After": str(self._db.timing.backlog_retry)},
            )

    def _count_rows(self) -> int:
        with self._db.transaction(write=False) as tx:
            return self._count(tx, self._limit + 1)

"""Group commit: calls that arrive together are written in one transaction.

A commit takes far longer than a row. Requests that arrive during a transaction share the next one.
No request waits for others to arrive, or for all of another client's large batch.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from config.batches import Halving, TimedSize
from config.database.failures import of_the_database
from profiles.calls.record_calls import Outcome
from profiles.calls.segment_calls import SegmentCall

# Takes the calls, and for each the time at which it arrived (monotonic clock, seconds).
Write = Callable[[Sequence[SegmentCall], Sequence[float]], Sequence[Outcome]]

# A transaction costs as much processor time as 17 events on SQLite and 66 on PostgreSQL, so smaller
# ones would mostly pay for that.
_FEWEST = 200
_MOST = 2000


@dataclass(eq=False, slots=True, kw_only=True)
class _Request:
    """The calls of one HTTP request, and the outcomes of those already written."""

    calls: Sequence[SegmentCall]
    done: asyncio.Future[list[Outcome]]
    arrived_at: float
    outcomes: list[Outcome] = field(default_factory=list)
    started: int = 0  # calls that were given to a transaction

    @property
    def left(self) -> int:
        """The number of calls that still wait for a transaction."""
        return len(self.calls) - self.started


class Intake:
    """Writes the calls of each request in order; the requests share the transactions.

    Parameters
    ----------
    write: writes calls in one transaction. It runs in a thread.
    aim: the target duration of a transaction, in seconds. On SQLite it blocks other writers.
    """

    def __init__(self, write: Write, aim: float) -> None:
        self._write = write
        self._size = TimedSize(aim, first=_FEWEST, smallest=_FEWEST, largest=_MOST)
        self._queue: deque[_Request] = deque()
        self._writing: asyncio.Task[None] | None = None
        self.waiting = 0  # calls that are not committed yet

    async def take(self, calls: Sequence[SegmentCall]) -> list[Outcome]:
        """Write the calls. Returns their outcomes once all are committed.

        Raises what `write` raises, such as errors of the database.
        """
        if not calls:
            return []
        done = asyncio.get_running_loop().create_future()
        request = _Request(calls=calls, done=done, arrived_at=time.monotonic())
        self._queue.append(request)
        self.waiting += len(calls)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        try:
            return await request.done
        finally:
            self.waiting -= len(calls)

    async def _write_all(self) -> None:
        try:
            while portion := self._portion():
                started = time.monotonic()
                await self._write_halving(portion)
                number = sum(len(calls) for _, calls in portion)
                self._size.note(number, time.monotonic() - started)
        finally:
            self._writing = None

    def _portion(self) -> list[tuple[_Request, Sequence[SegmentCall]]]:
        """The calls of the next transaction: an equal share for each waiting request.

        Larger requests use the unused shares of smaller ones. Requests without a share now are
        first in the next transaction.
        """
        turn = [self._queue.popleft() for _ in range(min(self._size.size, len(self._queue)))]
        room = self._size.size
        shares: dict[_Request, int] = {}
        for served, request in enumerate(sorted(turn, key=lambda one: one.left)):
            shares[request] = min(request.left, room // (len(turn) - served))
            room -= shares[request]
        portion: list[tuple[_Request, Sequence[SegmentCall]]] = []
        for request in turn:
            start, request.started = request.started, request.started + shares[request]
            portion.append((request, request.calls[start : request.started]))
        self._queue.extend(request for request in turn if request.left)
        return portion

    async def _write_portion(
        self, portion: Sequence[tuple[_Request, Sequence[SegmentCall]]]
    ) -> None:
        together = [call for _, calls in portion for call in calls]
        arrived_at = [request.arrived_at for request, calls in portion for _ in calls]
        outcomes = iter(await asyncio.to_thread(self._write, together, arrived_at))
        for request, calls in portion:
            request.outcomes += [next(outcomes) for _ in calls]
            if len(request.outcomes) == len(request.calls) and not request.done.done():
                request.done.set_result(request.outcomes)

    async def _write_halving(
        self, portion: Sequence[tuple[_Request, Sequence[SegmentCall]]]
    ) -> None:
        """Write a portion; a request that fails does not affect the others.

        A database error may be a deadlock, so the portion is written a second time. If that fails
        with a database error too, all its requests fail.
        """
        halving, tries = Halving(len(portion)), 2
        while portion:
            some = portion[: halving.size]
            try:
                await self._write_portion(some)
            except Exception as error:
                if of_the_database(error):
                    tries -= 1
                    if tries:
                        continue
                    some = portion
                elif not halving.failed(len(some)):
                    continue
                for request, _ in some:
                    self._fail(request, error)
            else:
                halving.worked()
            portion = portion[len(some) :]

    def _fail(self, request: _Request, error: Exception) -> None:
        if request in self._queue:
            self._queue.remove(request)
        if not request.done.done():
            request.done.set_exception(error)

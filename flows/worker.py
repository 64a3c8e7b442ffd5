"""The worker: always on. It receives what comes, moves whoever is due and sends what is due.

It needs no Prefect: journeys go on when Prefect's server is down.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from sqlalchemy.exc import DBAPIError

from channels.claiming import settle_lost
from channels.dispatch import Dispatcher
from channels.metrics import EVENTS, REACTION_SECONDS
from config.errors import SegueError
from flows.app import Segue
from flows.receiver.app import create_app
from journeys.reactions import Reaction, anything_to_work, react

log = logging.getLogger(__name__)

# How long to sleep when nothing is due: what another process plans is seen then at the latest.
_IDLE = 0.5
_AFTER_TROUBLE = 5.0
# Goals and lost claims are looked at this often, in seconds.
_HOUSEKEEPING = 30.0
# Events worked in one transaction.
_EVENTS = 500


class Worker:
    """One worker process."""

    def __init__(self, segue: Segue) -> None:
        self.segue = segue
        self._arrived = asyncio.Event()
        self._arrived_at: float | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Receive, react, move and send until `stop` is set; trouble is logged and tried again."""
        async with self._receiving(), self.segue.dispatcher() as dispatcher:
            housekeeping = asyncio.create_task(self._keep_house(stop))
            stopping = asyncio.create_task(_when(stop, dispatcher.stop))
            while not stop.is_set():
                self._arrived.clear()
                try:
                    busy = await self._once(dispatcher)
                except (DBAPIError, SegueError) as error:
                    log.error("the database is in trouble, trying again: %s", error)
                    await _first(stop, within=_AFTER_TROUBLE)
                    continue
                if not busy:
                    await _first(stop, self._arrived, within=_IDLE)
            await asyncio.gather(housekeeping, stopping)

    async def _once(self, dispatcher: Dispatcher) -> bool:
        """Work what came, move everybody who is due, send; whether there was anything to do."""
        started = self._arrived_at or time.monotonic()
        self._arrived_at = None
        reaction = await asyncio.to_thread(self._react)
        moved = await asyncio.to_thread(self.segue.engine.advance_due)
        sent = await dispatcher.run()
        if moved or sent:
            counts = ", ".join(
                f"{count} {channel} {what}" for (channel, what), count in sent.items()
            )
            log.info("%d moves; %s", moved, counts or "nothing to send")
        if reaction.events:
            EVENTS.inc(reaction.events)
            REACTION_SECONDS.observe(time.monotonic() - started)
        return bool(reaction.events or moved or sent)

    def _react(self) -> Reaction:
        with self.segue.db.transaction(write=False) as tx:
            if not anything_to_work(tx):
                return Reaction()
        with self.segue.db.transaction() as tx:
            return react(tx, self.segue.catalog, _EVENTS)

    @asynccontextmanager
    async def _receiving(self) -> AsyncIterator[None]:
        """The receiver, on this event loop: what it commits is worked at once."""
        settings = self.segue.settings
        loop = asyncio.get_running_loop()
        app = create_app(self.segue, lambda: loop.call_soon_threadsafe(self._wake))
        server = _Server(
            uvicorn.Config(
                app,
                host=settings.host,
                port=settings.receiver_port,
                access_log=False,
                log_level="warning",
                lifespan="off",
            )
        )
        serving = asyncio.create_task(server.serve())
        try:
            yield
        finally:
            server.should_exit = True
            await serving

    def _wake(self) -> None:
        if self._arrived_at is None:
            self._arrived_at = time.monotonic()
        self._arrived.set()

    async def _keep_house(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                await asyncio.to_thread(self._count_and_settle)
            except (DBAPIError, SegueError) as error:
                log.error("housekeeping failed, trying again: %s", error)
            await _first(stop, within=_HOUSEKEEPING)

    def _count_and_settle(self) -> None:
        for journey in self.segue.catalog.journeys():
            self.segue.engine.count_goals(journey)
        with self.segue.db.transaction() as tx:
            lost = settle_lost(tx)
        if lost:
            log.warning("%d messages are of unknown fate: a process died at the hand-over", lost)


class _Server(uvicorn.Server):
    """uvicorn within our loop: signals are the worker's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave them."""
        yield


async def _when(happened: asyncio.Event, act: Callable[[], None]) -> None:
    await happened.wait()
    act()


async def _first(*happened: asyncio.Event, within: float) -> None:
    """Return when one of the events is set, or after so many seconds."""
    waiting = [asyncio.create_task(event.wait()) for event in happened]
    await asyncio.wait(waiting, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()

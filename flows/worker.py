"""The worker: always on, moves whoever is due and sends what is due, within a second.

It needs no Prefect: journeys go on when Prefect's server is down.
"""

import asyncio
import logging

from sqlalchemy.exc import DBAPIError

from channels.claiming import settle_lost
from channels.dispatch import Dispatcher
from config.errors import SegueError
from flows.app import Segue

log = logging.getLogger(__name__)

# How long to sleep when nothing is due: what another process plans is seen after that at the latest.
_IDLE = 0.5
_AFTER_TROUBLE = 5.0
# Goals and lost claims are looked at this often, in seconds.
_HOUSEKEEPING = 30.0


async def work(segue: Segue, stop: asyncio.Event) -> None:
    """Work until `stop` is set. Trouble with the database is logged and tried again."""
    async with segue.dispatcher() as dispatcher:
        housekeeping = asyncio.create_task(_keep_house(segue, stop))
        while not stop.is_set():
            try:
                busy = await _once(segue, dispatcher)
            except (DBAPIError, SegueError) as error:
                log.error("the database is in trouble, trying again: %s", error)
                await _sleep(stop, _AFTER_TROUBLE)
                continue
            if not busy:
                await _sleep(stop, _IDLE)
        await housekeeping


async def _once(segue: Segue, dispatcher: Dispatcher) -> bool:
    """Move everybody who is due, then send; whether there was anything to do."""
    moved = await asyncio.to_thread(segue.engine.advance_due)
    sent = await dispatcher.run()
    if moved or sent:
        counts = ", ".join(f"{count} {channel} {what}" for (channel, what), count in sent.items())
        log.info("%d moves; %s", moved, counts or "nothing to send")
    return bool(moved or sent)


async def _keep_house(segue: Segue, stop: asyncio.Event) -> None:
    while not stop.is_set():
        try:
            await asyncio.to_thread(_count_and_settle, segue)
        except (DBAPIError, SegueError) as error:
            log.error("housekeeping failed, trying again: %s", error)
        await _sleep(stop, _HOUSEKEEPING)


def _count_and_settle(segue: Segue) -> None:
    for journey in segue.catalog.journeys():
        segue.engine.count_goals(journey)
    with segue.db.transaction() as tx:
        lost = settle_lost(tx)
    if lost:
        log.warning("%d messages are of unknown fate: their process died at the hand-over", lost)


async def _sleep(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        pass

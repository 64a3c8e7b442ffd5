"""Keep leases of buckets while a process works."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from config.database.failures import reason_of
from flows.app import Segue
from flows.worker.waiting import first_of
from journeys.operations.leases import WORKERS, Leases

log = logging.getLogger(__name__)


@asynccontextmanager
async def leasing(segue: Segue, journey: str = WORKERS) -> AsyncIterator[Leases]:
    """Lease buckets until the block ends.

    A run of a journey begins with its whole share: it works once through what is due, so it would
    leave out what it leases later. After a crash that takes as long as the lost leases last.

    journey: the journey that a run works on; WORKERS for a worker.
    """
    leases = Leases(segue.db, segue.process, journey)
    if segue.db.is_sqlite:
        yield leases
        return
    await _renew(leases)
    while journey != WORKERS and not leases.is_complete:
        await asyncio.sleep(segue.db.timing.renew_every)
        await asyncio.to_thread(leases.renew)
    stop = asyncio.Event()
    renewing = asyncio.create_task(_keep(leases, segue.db.timing.renew_every, stop))
    try:
        yield leases
    finally:
        stop.set()
        await renewing
        try:
            await asyncio.to_thread(leases.release)
        except Exception as error:
            log.warning("the leases of buckets end by themselves: %s", reason_of(error))


async def _keep(leases: Leases, every: float, stop: asyncio.Event) -> None:
    while not stop.is_set():
        await first_of(stop, within=every)
        await _renew(leases)


async def _renew(leases: Leases) -> None:
    try:
        await asyncio.to_thread(leases.renew)
    except Exception as error:
        log.error("the leases of buckets can't be renewed: %s", reason_of(error))

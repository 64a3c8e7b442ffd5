"""The worker: a process that receives events, moves due enrollments and sends due messages.

It does not need Prefect: journeys continue while Prefect's server is down.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count

from channels.metrics import EVENTS
from channels.outbox.outcomes import Tally
from config.database.buckets import Leased
from config.database.failures import of_the_database, reason_of
from flows.app import Segue
from flows.http.serving import serving
from flows.orchestration.api.form_updates import FormUpdates
from flows.orchestration.api.prefect_events import Reporter
from flows.worker.leasing import leasing
from flows.worker.library_changes import LibraryChanges
from flows.worker.waiting import first_of
from journeys.engine.reactor import Reactor
from journeys.engine.turn import Turn, TurnReport
from journeys.launches.launching import continue_approved
from journeys.operations.counts import is_large
from journeys.operations.housekeeping import Housekeeping
from journeys.operations.nightly import Nightly

log = logging.getLogger(__name__)


class Worker:
    """One worker process."""

    def __init__(self, segue: Segue) -> None:
        self.segue = segue
        self._reporter = Reporter(segue.db, segue.settings)
        self._woken = asyncio.Event()
        self._arrived_at: float | None = None
        self._arrived_in: set[int] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Receive, react, move and send until `stop` is set; errors are logged and retried.

        Raises SegueError if the receiver can't start.
        """
        wait = self.segue.db.timing.after_trouble
        async with (
            self._receiving(stop),
            self.segue.dispatcher() as dispatcher,
            leasing(self.segue) as leases,
        ):
            turn = Turn(self.segue.engine, dispatcher, leased=leases.held, woken=self._woken.set)
            housekeeping = asyncio.create_task(self._housekeep(turn.reactor, leases.held, stop))
            continuing = asyncio.create_task(self._continue_launches(stop))
            counting = asyncio.create_task(self._count_reports(leases.held, stop))
            nightly = asyncio.create_task(self._nightly(leases.held, stop))
            reporting = asyncio.create_task(self._reporter.run(stop))
            describing = asyncio.create_task(FormUpdates(self.segue).run(leases.held, stop))
            stopping = asyncio.create_task(_when(stop, dispatcher.stop))
            while not stop.is_set():
                self._woken.clear()
                arrived_at, self._arrived_at = self._arrived_at, None
                arrived_in, self._arrived_in = self._arrived_in, set()
                report = await turn.work(arrived_at, arrived_in)
                self._note(report)
                if report.errors:
                    log.error("retrying in %d s: %s", wait, _texts(report.errors))
                    await first_of(stop, within=wait)
                elif not report.more:
                    await first_of(stop, self._woken, within=self.segue.db.timing.idle)
            # It may wait for Prefect, and another worker does what it has left.
            describing.cancel()
            await asyncio.gather(housekeeping, continuing, counting, nightly, stopping, reporting)
            rest = await turn.finish()
            self._reporter.note(rest.reaction, rest.moved, rest.sent)
            await self._reporter.keep()

    def _note(self, report: TurnReport) -> None:
        """Log and count the result of a turn, and add it to the counts for Prefect."""
        reaction, moved, sent = report.reaction, report.moved, report.sent
        self._reporter.note(reaction, +moved, sent)
        if moved.total() or sent or +reaction.exited or +reaction.converted or reaction.too_old:
            counts = ", ".join(
                f"{count} {channel} {what}" for (_, channel, what), count in sent.items()
            )
            log.info(
                "%d moves; %s",
                moved.total(),
                counts or "nothing to send",
                extra={
                    "entered": +reaction.entered,
                    "exited": +reaction.exited,
                    "converted": +reaction.converted,
                    "too_old": reaction.too_old,
                    "moved": moved,
                    "messages": _by_journey(sent),
                },
            )
        EVENTS.inc(reaction.events)

    @asynccontextmanager
    async def _receiving(self, stop: asyncio.Event) -> AsyncIterator[None]:
        """Run the receiver on this event loop, so that its events start a turn at once.

        If the receiver ends, the worker ends too, so that its supervisor can restart it.
        """
        async with serving(self.segue, self._wake) as receiver:
            receiver.add_done_callback(lambda _: stop.set())
            yield

    def _wake(self, buckets: Collection[int]) -> None:
        self._arrived_in.update(buckets)
        if self._arrived_at is None:
            self._arrived_at = time.monotonic()
        self._woken.set()

    async def _housekeep(self, reactor: Reactor, leased: Leased, stop: asyncio.Event) -> None:
        housekeeping = Housekeeping(
            self.segue.engine, self.segue.process, self.segue.settings, leased=leased
        )
        timing = self.segue.db.timing
        changes = LibraryChanges(self.segue.settings)
        for number in count(1):
            if stop.is_set():
                return
            await self._tidy([*housekeeping.often(), changes.warn])
            if number % timing.large_round == 1 % timing.large_round:
                await self._tidy(housekeeping.newcomers())
            if number % timing.large_round == 0:
                reactor.try_again()
                await self._tidy(housekeeping.seldom())
            await first_of(stop, within=timing.housekeeping)

    async def _continue_launches(self, stop: asyncio.Event) -> None:
        """Continue approved launches. A large one takes longer than a round of housekeeping may."""
        while not stop.is_set():
            await self._tidy([partial(continue_approved, self.segue.engine, stop.is_set)])
            await first_of(stop, within=self.segue.db.timing.housekeeping)

    async def _nightly(self, leased: Leased, stop: asyncio.Event) -> None:
        """Compute once a day what concerns everybody, which takes long; one worker does it."""
        timing = self.segue.db.timing
        nightly = Nightly(self.segue.engine)
        await first_of(stop, within=timing.housekeeping)
        while not stop.is_set():
            if 0 in leased():
                await self._tidy([partial(nightly.work, stop.is_set)])
            await first_of(stop, within=timing.housekeeping * timing.large_round)

    async def _count_reports(self, leased: Leased, stop: asyncio.Event) -> None:
        """Count the reports of large journeys, which takes long; one of all workers does it."""
        timing = self.segue.db.timing
        while True:
            await first_of(stop, within=timing.housekeeping * timing.large_round)
            if stop.is_set():
                return
            if 0 in leased():
                journeys = self.segue.catalog.journeys()
                await self._tidy([partial(self._count, one, stop.is_set) for one in journeys])

    def _count(self, journey: str, stopped: Callable[[], bool]) -> None:
        with self.segue.db.transaction(write=False) as tx:
            if stopped() or not is_large(tx, journey):
                return
        # They load numpy, which a worker without large journeys does not need.
        from journeys.analytics.reports.kept import keep_report
        from journeys.analytics.reports.period import ever
        from journeys.analytics.revenue import RevenueMapping

        segue = self.segue
        mapping = RevenueMapping.of(segue.settings)
        period = ever(segue.policy.timezone)
        keep_report(segue.db, segue.catalog, journey, mapping, period, stopped)

    async def _tidy(self, tasks: Iterable[Callable[[], object]]) -> None:
        for task in tasks:
            try:
                await asyncio.to_thread(task)
            except Exception as error:
                log.error("housekeeping failed and will be retried: %s", reason_of(error))


def _texts(errors: Iterable[Exception]) -> str:
    """The distinct error texts; the parts of a turn often fail for the same reason."""
    return "; ".join(
        sorted(
            {
                ("database error: " if of_the_database(error) else "") + reason_of(error)
                for error in errors
            }
        )
    )


def _by_journey(sent: Tally) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (journey, channel, outcome), number in sent.items():
        found.setdefault(journey, {})[f"{channel} {outcome}"] = number
    return found


async def _when(happened: asyncio.Event, act: Callable[[], None]) -> None:
    await happened.wait()
    act()

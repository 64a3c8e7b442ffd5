"""The worker: always on. It receives what comes, moves whoever is due and sends what is due.

It needs no Prefect: journeys go on when Prefect's server is down.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import NamedTuple, TypeVar

from channels.metrics import EVENTS, REACTION_SECONDS
from channels.outbox.claim import settle_lost
from channels.outbox.dispatch import Dispatcher
from channels.outbox.outcomes import Tally
from channels.outbox.unknown import close_unsettled
from config.channels import ChannelName
from config.failures import of_the_database, told
from config.policy import CHANNELS
from config.schema import newer_revision
from flows.app import Segue
from flows.http.serving import serving
from flows.orchestration.prefect_events import Teller
from flows.worker.waiting import first_of
from journeys.definition.journey import Version
from journeys.engine.events import Reaction, Reactor
from journeys.operations.control import finish_stops
from journeys.operations.doctor import examine
from journeys.operations.heartbeat import sign_in

log = logging.getLogger(__name__)

# How long to sleep when nothing is due: what another process plans is seen then at the latest.
_IDLE = 0.5
_AFTER_TROUBLE = 5.0
# Goals, lost claims, stops and what other processes brought are looked at this often, in seconds;
# everything else that may be wrong, and the events that could not be worked, every so many times.
_HOUSEKEEPING = 30.0
_LARGE_ROUND = 20

T = TypeVar("T")


class _Sending(NamedTuple):
    """What is under way on a channel.

    since: when the first of the events came that may have led to it, by the monotonic clock.
    """

    task: asyncio.Task[Tally]
    since: float | None


class Worker:
    """One worker process."""

    def __init__(self, segue: Segue) -> None:
        self.segue = segue
        self._reactor = Reactor(segue.db, segue.catalog)
        self._teller = Teller(segue.db, segue.settings)
        self._sending: dict[ChannelName, _Sending] = {}
        self._since: dict[ChannelName, float] = {}
        self._to_call: Sequence[tuple[Version, str]] = ()
        self._calling: asyncio.Task[Counter[str]] | None = None
        self._woken = asyncio.Event()
        self._arrived_at: float | None = None
        self._troubles: set[str] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Receive, react, move and send until `stop` is set; trouble is logged and tried again.

        Raises SegueError when there can be no receiver.
        """
        async with self._receiving(stop), self.segue.dispatcher() as dispatcher:
            housekeeping = asyncio.create_task(self._keep_house(stop))
            telling = asyncio.create_task(self._teller.run(stop))
            stopping = asyncio.create_task(_when(stop, dispatcher.stop))
            while not stop.is_set():
                self._woken.clear()
                busy = await self._once(dispatcher)
                if self._troubles:
                    log.error("trying again in %d s: %s", _AFTER_TROUBLE, self._say_troubles())
                    await first_of(stop, within=_AFTER_TROUBLE)
                elif not busy:
                    await first_of(stop, self._woken, within=_IDLE)
            await asyncio.gather(housekeeping, stopping, telling)
            sending = [one.task for one in self._sending.values()]
            calling = [] if self._calling is None else [self._calling]
            await asyncio.gather(*sending, *calling, return_exceptions=True)
            self._teller.note(Reaction(), await self._called(), await self._sent())
            await self._teller.keep()

    async def _once(self, dispatcher: Dispatcher) -> bool:
        """Work what came, move a round of who is due, have the due sent; whether there was any.

        What goes wrong with one of them does not keep the others from their turn. Nobody waits for
        a provider: a channel sends by itself, while people move and other channels send. Nor for
        whom a Call step calls: those steps wait for one another only.
        """
        began = time.monotonic()
        arrived_at, self._arrived_at = self._arrived_at, None
        react = partial(self._reactor.work, sure=arrived_at is not None)
        reaction = await self._try(asyncio.to_thread(react), Reaction())
        # What another process received, or what has waited: by the database's whole seconds.
        if arrived_at is None or began - arrived_at < reaction.waited - 1:
            arrived_at = began - reaction.waited
        moved = await self._try(asyncio.to_thread(self._advance), Counter[str]())
        moved.update(await self._called())
        if self._to_call and self._calling is None:
            self._calling = asyncio.create_task(self._call(self._to_call))
        due = await self._try(dispatcher.due(), [])
        sent = await self._sent()
        for channel in CHANNELS:
            if reaction.entered.total() or reaction.woken.total():
                self._since.setdefault(channel, arrived_at)
            if channel not in self._sending:
                since = self._since.pop(channel, None)
                if channel in due:
                    await self._try(self._send(dispatcher, channel, since), None)
        self._teller.note(reaction, +moved, sent)
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
        return bool(reaction.events or moved or sent)

    def _advance(self) -> Counter[str]:
        """Move a round of who is due, and note the Call steps at which somebody is."""
        steps, self._to_call = self.segue.engine.due_steps()
        return self.segue.engine.advance_round(steps)

    async def _call(self, steps: Sequence[tuple[Version, str]]) -> Counter[str]:
        try:
            return await asyncio.to_thread(self.segue.engine.advance_round, steps)
        finally:
            self._woken.set()

    async def _called(self) -> Counter[str]:
        """The moves by Call steps, once these are through."""
        if self._calling is None or not self._calling.done():
            return Counter()
        calling, self._calling = self._calling, None
        return await self._try(calling, Counter[str]())

    async def _send(
        self, dispatcher: Dispatcher, channel: ChannelName, since: float | None
    ) -> None:
        """Returns with the first claims taken: another round beside them would only delay them."""
        taken = await dispatcher.take(channel=channel)

        async def send() -> Tally:
            tally = await dispatcher.send(taken)
            # Who stands behind what went is due now. If nothing could be sent there is no hurry.
            if tally:
                self._woken.set()
            return tally

        self._sending[channel] = _Sending(asyncio.create_task(send()), since)

    async def _sent(self) -> Tally:
        """What the channels that are ready have sent."""
        sent = Tally()
        for channel, (task, since) in list(self._sending.items()):
            if task.done():
                del self._sending[channel]
                done = await self._try(task, Tally())
                sent += done
                if done and since is not None:
                    REACTION_SECONDS.observe(time.monotonic() - since)
        return sent

    async def _try(self, work: Awaitable[T], otherwise: T) -> T:
        try:
            return await work
        except Exception as error:
            what = "the database is in trouble: " if of_the_database(error) else ""
            self._troubles.add(what + told(error))
            return otherwise

    def _say_troubles(self) -> str:
        troubles = "; ".join(sorted(self._troubles))
        self._troubles.clear()
        return troubles

    @asynccontextmanager
    async def _receiving(self, stop: asyncio.Event) -> AsyncIterator[None]:
        """The receiver, on this event loop: what it commits is worked at once.

        Should it end by itself, the worker ends too, so that whoever watches over it sees that.
        """
        async with serving(self.segue, self._wake) as receiver:
            receiver.add_done_callback(lambda _: stop.set())
            yield

    def _wake(self) -> None:
        if self._arrived_at is None:
            self._arrived_at = time.monotonic()
        self._woken.set()

    async def _keep_house(self, stop: asyncio.Event) -> None:
        for number in count(1):
            if stop.is_set():
                return
            await self._tidy(self._sign_in)
            await self._tidy(self._catch_up)
            await self._tidy(self._settle)
            await self._tidy(finish_stops, self.segue.db)
            for journey in self.segue.catalog.journeys():
                await self._tidy(self.segue.engine.count_goals, journey)
            if number % _LARGE_ROUND == 1:
                for journey in list(self.segue.catalog.current):
                    await self._tidy(self.segue.engine.enter_newcomers, journey)
            if number % _LARGE_ROUND == 0:
                self._reactor.try_again()
                await self._tidy(self._close)
                await self._tidy(self._complain)
            await first_of(stop, within=_HOUSEKEEPING)

    async def _tidy(self, work: Callable[..., object], *given: object) -> None:
        try:
            await asyncio.to_thread(work, *given)
        except Exception as error:
            log.error("housekeeping failed, to be tried again: %s", told(error))

    def _sign_in(self) -> None:
        with self.segue.db.transaction() as tx:
            sign_in(tx, self.segue.process)

    def _catch_up(self) -> None:
        """Somebody may have entered on a version that came after we had started."""
        with self.segue.db.transaction(write=False) as tx:
            self.segue.catalog.catch_up(tx)

    def _settle(self) -> None:
        with self.segue.db.transaction() as tx:
            lost = settle_lost(tx)
        if lost:
            log.warning("%d messages are of unknown fate: a process died at the hand-over", lost)

    def _close(self) -> None:
        with self.segue.db.transaction() as tx:
            closed = close_unsettled(tx)
        if closed:
            log.warning("%d messages are closed as unknown: no word of them came", closed)

    def _complain(self) -> None:
        with self.segue.db.transaction(write=False) as tx:
            complaints = examine(tx)
            newer = newer_revision(tx.conn)
        if newer:
            log.warning(
                "a newer Segue has upgraded the database (schema %s); this worker goes on, but "
                "does not heed what only that one knows: restart it with the new version",
                newer,
            )
        for one in complaints:
            log.warning(
                "%s: %d (%s); %s",
                one.what,
                one.number,
                one.where,
                one.mend,
                extra={"what": one.what, "where": one.where, "number": one.number},
            )


def _by_journey(sent: Tally) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for (journey, channel, outcome), number in sent.items():
        found.setdefault(journey, {})[f"{channel} {outcome}"] = number
    return found


async def _when(happened: asyncio.Event, act: Callable[[], None]) -> None:
    await happened.wait()
    act()

"""One turn: react to events, move one chunk at each due step, claim and send due messages.

The worker, flow runs, launches, the demo and the tests all use it.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, TypeVar

from channels.metrics import REACTION_SECONDS
from channels.outbox.dispatch import Dispatcher
from channels.outbox.outcomes import Tally
from config.channels import ChannelName
from config.policy import CHANNELS
from journeys.definition.journey import Version
from journeys.engine.advance import Engine
from journeys.engine.events import Reaction, Reactor

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class TurnReport:
    """The result of one turn.

    moved: enrollments by journey; 0 if all due enrollments stay. errors: those of the parts of the
    turn that failed; the other parts ran.
    """

    reaction: Reaction = field(default_factory=Reaction)
    moved: Counter[str] = field(default_factory=Counter)
    sent: Tally = field(default_factory=Counter)
    errors: list[Exception] = field(default_factory=list)

    @property
    def busy(self) -> bool:
        """Whether the turn found work, so that more may be due now."""
        return bool(self.reaction.events or self.moved or self.sent)


class _Sending(NamedTuple):
    """The send task of a channel.

    since: when the earliest event that may have caused it was received, on the monotonic clock.
    """

    task: asyncio.Task[Tally]
    since: float | None


class Turn:
    """Runs turns. A turn waits neither for providers nor for the URLs of Call steps.

    Each channel sends in its own task, while enrollments move and other channels send; all Call
    steps share one more task.

    Parameters
    ----------
    journey: work on this journey only, and leave events to other processes.
    step: advance this step only.
    woken: called when a task has ended and more work may be due.
    """

    def __init__(
        self,
        engine: Engine,
        dispatcher: Dispatcher,
        *,
        journey: str | None = None,
        step: str | None = None,
        woken: Callable[[], None] = lambda: None,
    ) -> None:
        self.reactor = Reactor(engine.db, engine.catalog)
        self._engine = engine
        self._dispatcher = dispatcher
        self._journey = journey
        self._step = step
        self._woken = woken
        self._sending: dict[ChannelName, _Sending] = {}
        self._since: dict[ChannelName, float] = {}
        self._to_call: Sequence[tuple[Version, str]] = ()
        self._calling: asyncio.Task[Counter[str]] | None = None
        self._errors: list[Exception] = []

    async def work(self, arrived_at: float | None = None) -> TurnReport:
        """Run one turn. Does not raise: the report has the errors.

        Parameters
        ----------
        arrived_at: when this process received its oldest unprocessed event, on the monotonic clock;
            None: it has received none.
        """
        began = time.monotonic()
        reaction = Reaction()
        if self._journey is None:
            react = partial(self.reactor.work, sure=arrived_at is not None)
            reaction = await self._try(asyncio.to_thread(react), reaction)
            # Another process received the events, or they have waited. The tolerance is 1 because
            # the database stores whole seconds.
            if arrived_at is None or began - arrived_at < reaction.waited - 1:
                arrived_at = began - reaction.waited
            if reaction.entered.total() or reaction.woken.total():
                for channel in CHANNELS:
                    self._since.setdefault(channel, arrived_at)
        moved = await self._try(asyncio.to_thread(self._advance), Counter[str]())
        moved.update(await self._called())
        if self._to_call and self._calling is None:
            self._calling = asyncio.create_task(self._call(self._to_call))
        due = await self._try(self._dispatcher.due(), [])
        sent = await self._sent()
        for channel in CHANNELS:
            if channel not in self._sending:
                since = self._since.pop(channel, None)
                if channel in due:
                    await self._try(self._send(channel, since), None)
        return self._report(reaction, moved, sent)

    async def finish(self) -> TurnReport:
        """Wait for the running tasks, and report their results."""
        tasks = [one.task for one in self._sending.values()]
        calls = [] if self._calling is None else [self._calling]
        await asyncio.gather(*tasks, *calls, return_exceptions=True)
        moved = await self._called()
        return self._report(Reaction(), moved, await self._sent())

    async def until_idle(self) -> Tally:
        """Run turns until nothing is due; returns the outcomes of the messages.

        Raises the first error.
        """
        sent: Tally = Counter()
        while True:
            report, rest = await self.work(), await self.finish()
            for error in [*report.errors, *rest.errors]:
                raise error
            sent += report.sent + rest.sent
            if not (report.busy or rest.busy):
                return sent

    def _report(self, reaction: Reaction, moved: Counter[str], sent: Tally) -> TurnReport:
        errors, self._errors = self._errors, []
        return TurnReport(reaction=reaction, moved=moved, sent=sent, errors=errors)

    def _advance(self) -> Counter[str]:
        """Move one chunk at each due step, and note the due Call steps."""
        steps, self._to_call = self._engine.due_steps(self._journey, self._step)
        return self._engine.advance_round(steps)

    async def _call(self, steps: Sequence[tuple[Version, str]]) -> Counter[str]:
        try:
            return await asyncio.to_thread(self._engine.advance_round, steps)
        finally:
            self._woken()

    async def _called(self) -> Counter[str]:
        """The moves of the Call steps if their task has ended, else none."""
        if self._calling is None or not self._calling.done():
            return Counter()
        calling, self._calling = self._calling, None
        return await self._try(calling, Counter[str]())

    async def _send(self, channel: ChannelName, since: float | None) -> None:
        """Take the first claims, then send them and later ones in a task.

        Waiting for the first claims keeps other database work of the turn from delaying them.
        """
        taken = await self._dispatcher.take(journey=self._journey, channel=channel)

        async def send() -> Tally:
            tally = await self._dispatcher.send(taken)
            # The enrollments of the sent messages are due now.
            if tally:
                self._woken()
            return tally

        self._sending[channel] = _Sending(asyncio.create_task(send()), since)

    async def _sent(self) -> Tally:
        """The outcomes of the channels whose tasks have ended."""
        sent: Tally = Counter()
        for channel, (task, since) in list(self._sending.items()):
            if task.done():
                del self._sending[channel]
                done = await self._try(task, Counter())
                sent += done
                if done and since is not None:
                    REACTION_SECONDS.observe(time.monotonic() - since)
        return sent

    async def _try(self, work: Awaitable[T], otherwise: T) -> T:
        try:
            return await work
        except Exception as error:
            self._errors.append(error)
            return otherwise

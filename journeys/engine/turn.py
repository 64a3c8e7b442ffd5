"""One turn: react to events, move one chunk at each due step, claim and send due messages.

The worker, flow runs, launches, the demo and the tests all use it.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from channels.metrics import REACTION_SECONDS
from channels.outbox.claims import Claim
from channels.outbox.dispatch import Dispatcher, SendReport
from channels.outbox.outcomes import Tally
from config.channels import ChannelName
from config.database.buckets import ALL_BUCKETS, Leased, all_buckets
from config.policy import CHANNELS
from journeys.definition.journey import Version
from journeys.engine.advance import DueSteps, Engine, Round
from journeys.engine.events import Reaction, anything_to_work
from journeys.engine.reactor import Reactor

T = TypeVar("T")


@dataclass(slots=True, kw_only=True)
class TurnReport:
    """The result of one turn.

    moved: enrollments by journey; 0 if enrollments were due and all stay. more: whether more may
    be due now. errors: what failed; the other parts of the turn still ran.
    """

    reaction: Reaction = field(default_factory=Reaction)
    moved: Counter[str] = field(default_factory=Counter)
    sent: Tally = field(default_factory=Counter)
    more: bool = False
    errors: list[Exception] = field(default_factory=list)


class Due(NamedTuple):
    """What was due when it was read, in one transaction."""

    events: bool
    steps: DueSteps
    channels: list[ChannelName]


class _Sending(NamedTuple):
    """A send task.

    channel: the channel whose due messages the task claims; None: it sends what was claimed before.
    since: when the earliest event that may have caused it was received, by the monotonic clock.
    """

    task: asyncio.Task[SendReport]
    channel: ChannelName | None
    since: float | None


class Turn:
    """Runs turns. A turn waits neither for providers nor for the URLs of Call steps.

    Messages are sent in tasks, while enrollments move; all Call steps share one more task.

    Parameters
    ----------
    journey: work on this journey only, and leave events to other processes.
    step: advance this step only.
    leased: the buckets in which to look for due work; called whenever it looks.
    woken: called when a task has ended and more work may be due.
    """

    def __init__(
        self,
        engine: Engine,
        dispatcher: Dispatcher,
        *,
        journey: str | None = None,
        step: str | None = None,
        leased: Leased = all_buckets,
        woken: Callable[[], None] = lambda: None,
    ) -> None:
        self.reactor = Reactor(engine, dispatcher.claim_planned)
        self._engine = engine
        self._dispatcher = dispatcher
        self._journey = journey
        self._step = step
        self._leased = leased
        self._woken = woken
        self._idle = engine.db.timing.idle
        self._looked_at = 0.0
        self._sending: list[_Sending] = []
        # Of events whose messages may not be claimed yet, by channel: when they were received.
        self._since: dict[ChannelName, float] = {}
        self._calling: asyncio.Task[Round] | None = None
        self._errors: list[Exception] = []

    async def work(
        self, arrived_at: float | None = None, arrived_in: Collection[int] = ALL_BUCKETS
    ) -> TurnReport:
        """Run one turn. Does not raise: the report has the errors.

        An event that has just arrived is processed at once. The rest of the turn, which first reads
        what else is due, follows when as much time has passed as an idle worker sleeps.

        Parameters
        ----------
        arrived_at: when this process received its oldest unprocessed event, on the monotonic clock;
            None: it has received none.
        arrived_in: the buckets of the events that it has received. It processes these events
            itself, whoever leases the buckets.
        """
        report = TurnReport()
        if arrived_at is not None:
            await self._react(arrived_at, report, arrived_in)
        if arrived_at is None or time.monotonic() - self._looked_at > self._idle:
            self._looked_at = time.monotonic()
            await self._work_due(report)
        await self._finished(report)
        return report

    async def _work_due(self, report: TurnReport) -> None:
        """Do what is due: process events, move enrollments, claim messages."""
        buckets = self._leased()
        if not buckets:
            return
        due = await self._try(asyncio.to_thread(self._look, buckets), None)
        if due is None:
            return
        if due.events:
            await self._react(None, report, buckets)
        moved = await self._try(self._advance(due.steps.steps), None)
        if moved is not None:
            report.moved.update(moved.moves)
            report.more |= bool(moved.moves)
        if due.steps.calls and self._calling is None:
            self._calling = asyncio.create_task(self._call(due.steps.calls))
        claiming = {one.channel for one in self._sending}
        for channel in CHANNELS:
            if channel in claiming:
                continue
            since = self._since.pop(channel, None)
            if channel in due.channels:
                report.more |= await self._try(self._claim(channel, since), otherwise=False)

    async def finish(self) -> TurnReport:
        """Wait for the running tasks, and report their results."""
        tasks = [one.task for one in self._sending]
        calls = [] if self._calling is None else [self._calling]
        await asyncio.gather(*tasks, *calls, return_exceptions=True)
        report = TurnReport()
        await self._finished(report)
        return report

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
            if not (report.more or rest.more):
                return sent

    def _look(self, buckets: Collection[int]) -> Due:
        """Read what is due in these buckets, without a lock."""
        with self._engine.db.transaction(write=False) as tx:
            tx.buckets = buckets
            return Due(
                self._journey is None and anything_to_work(tx, self.reactor.aside),
                self._engine.steps_due(tx, self._journey, self._step),
                self._dispatcher.due_channels(tx),
            )

    async def _react(
        self, arrived_at: float | None, report: TurnReport, buckets: Collection[int]
    ) -> None:
        began = time.monotonic()
        await self._try(self._dispatcher.lease_ahead(), None)
        done = await self._try(asyncio.to_thread(self.reactor.work, buckets), None)
        if done is None:
            return
        reaction, moved, claims, more = done
        # The events came from another process or have waited. The database stores whole seconds,
        # hence the tolerance of 1.
        if arrived_at is None or began - arrived_at < reaction.waited - 1:
            arrived_at = began - reaction.waited
        if reaction.causes:
            for channel in CHANNELS:
                self._since.setdefault(channel, arrived_at)
        self._send(claims, began, arrived_at if reaction.causes else None)
        report.reaction.add(reaction)
        report.moved.update(moved.by_journey)
        report.more |= more

    async def _advance(self, steps: Sequence[tuple[Version, str]]) -> Round:
        """Move one chunk at each due step."""
        if not steps:
            return Round(Counter(), [])
        began = time.monotonic()
        moved = await asyncio.to_thread(
            self._engine.advance_round,
            steps,
            self._dispatcher.claim_planned,
            leased=self._leased,
            through=self._step is None,
        )
        self._send(moved.claims, began, None)
        return moved

    async def _call(self, steps: Sequence[tuple[Version, str]]) -> Round:
        try:
            return await asyncio.to_thread(self._engine.advance_round, steps, leased=self._leased)
        finally:
            self._woken()

    def _send(self, claims: Sequence[Claim], claimed_at: float, since: float | None) -> None:
        """Send claimed messages in a task."""
        if claims:
            self._start(self._dispatcher.send_claimed(claims, claimed_at), None, since)

    async def _claim(self, channel: ChannelName, since: float | None) -> bool:
        """Claim the first due messages of a channel, then send them and later ones in a task.

        Waiting for the first claims keeps other database work of the turn from delaying them.
        Returns whether there was anything to claim or to refuse.
        """
        taken = await self._dispatcher.take(
            journey=self._journey, channel=channel, leased=self._leased
        )
        self._start(self._dispatcher.send(taken), channel, since)
        return bool(taken.claimed.claims or taken.claimed.refused)

    def _start(
        self, sending: Awaitable[SendReport], channel: ChannelName | None, since: float | None
    ) -> None:
        async def send() -> SendReport:
            report = await sending
            if report.more:
                self._woken()
            return report

        self._sending.append(_Sending(asyncio.create_task(send()), channel, since))

    async def _finished(self, report: TurnReport) -> None:
        """Add the results of the tasks that have ended."""
        for one in [one for one in self._sending if one.task.done()]:
            self._sending.remove(one)
            sent = await self._try(one.task, SendReport(Counter(), more=False))
            report.sent += sent.outcomes
            report.more |= sent.more
            if sent.outcomes and one.since is not None:
                REACTION_SECONDS.observe(time.monotonic() - one.since)
        if self._calling is not None and self._calling.done():
            calling, self._calling = self._calling, None
            called = await self._try(calling, Round(Counter(), []))
            report.moved.update(called.moves)
            report.more |= bool(called.moves)
        errors, self._errors = self._errors, []
        report.errors += errors

    async def _try(self, work: Awaitable[T], otherwise: T) -> T:
        try:
            return await work
        except Exception as error:
            self._errors.append(error)
            return otherwise

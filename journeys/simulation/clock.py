"""Run a simulation: set the clock to the next due time, apply inputs, and let the engine work.

The engine, the rules, the templates and the outbox are those of a worker. Nothing waits: what is
due next is a query, and an input of a later time is not seen before.
"""

import asyncio
import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import insert

from channels.feedback.apply import apply
from channels.outbox.dispatch import Dispatcher
from channels.providers.sending import Outgoing
from channels.providers.webhook import Feedback
from channels.rules.planner import Planner
from config.clock.times import Instant, format_instant
from config.database.engine import Database, Tx
from config.errors import SegueError
from config.policy import Policy
from config.settings import Settings
from journeys.definition.catalog import Catalog
from journeys.definition.journey import EventEntry
from journeys.engine.advance import Engine
from journeys.engine.entry import enter_each
from journeys.engine.hand_over import CatalogJourneys
from journeys.engine.turn import Turn
from journeys.launches.api_start import API_AUDIENCE
from journeys.launches.launching import enter_all_newcomers, enter_audience, record_launch
from journeys.simulation.inputs import (
    AnswerInput,
    ConsentInput,
    Examination,
    Input,
    Inputs,
    LaunchOf,
    MessageKey,
    NewProfile,
    Purchase,
    ShopEvent,
    StartOf,
)
from journeys.simulation.messages import enrolled_or_unconverted, message_ids, purchase_events
from journeys.simulation.providers import AcceptingProviders, simulated_providers
from journeys.simulation.refusals import refusals
from journeys.simulation.rendering import RememberingRenderer
from profiles.consent.changes import ConsentChange, change_consent
from profiles.events import PROFILE_CHANGED, NewEvent, record_events
from profiles.tables import profiles

T = TypeVar("T")
# What customers answer to messages that were just accepted: inputs with their times.
Behave = Callable[[Sequence[Outgoing], Instant], Iterable[tuple[Instant, Input]]]
# More turns than this at one time are an error: something stays due.
_TURNS = 50
_NAME = "simulation"


def nobody_answers(_batch: Sequence[Outgoing], _now: Instant) -> Iterable[tuple[Instant, Input]]:
    """Customers who do nothing."""
    return ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedShop:
    """The rules of the installation that is simulated."""

    catalog: Catalog
    policy: Policy
    settings: Settings


class Simulation:
    """One run on a copy, which it changes.

    Parameters
    ----------
    db: the copy; only the calling thread can use it.
    inputs: what comes from outside, apart from answers to the messages of the run.
    behave: what customers answer.
    """

    def __init__(
        self,
        db: Database,
        shop: SimulatedShop,
        *,
        inputs: Inputs,
        behave: Behave = nobody_answers,
    ) -> None:
        self.db = db
        self.engine = Engine(db, shop.catalog, Planner(shop.policy), post_calls=_calls_succeed)
        # Why profiles did not enter by launches, by journey.
        self.refused: dict[str, Counter[str]] = {}
        self._settings = shop.settings
        self._policy = shop.policy
        self._inputs = inputs
        self._behave = behave
        self._entries = _entry_events(shop.catalog)
        self._moments = list(inputs.at)
        heapq.heapify(self._moments)

    def run(self, until: Instant) -> None:
        """Simulate from the time of the copy to `until`, which is not part of it."""
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            with _Inline() as inline:
                loop.set_default_executor(inline)
                runner.run(self._run(until))
        self.db.now = until

    async def _run(self, until: Instant) -> None:
        dispatcher = Dispatcher(
            db=self.db,
            planner=self.engine.planner,
            journeys=CatalogJourneys(self.engine.mover),
            providers=simulated_providers(self._settings),
            transport=AcceptingProviders(self._accepted),
            settings=self._settings,
            name=_NAME,
            clock=_stopped_clock,
            renderer=RememberingRenderer(self._settings),
        )
        turn = Turn(self.engine, dispatcher)
        assert self.db.now is not None
        now = before = self.db.now
        turns = 0
        while (due := self._next()) is not None and due < until:
            turns = 0 if due > before else turns + 1
            if turns > _TURNS:
                raise SegueError(f"something is due since {format_instant(due)} and does not move")
            self.db.now = now = before = max(now, due)
            self._apply_inputs(now)
            await turn.until_idle()

    def _next(self) -> Instant | None:
        """The next time at which something is due."""
        due = self.engine.next_due()
        if not self._moments:
            return due
        return self._moments[0] if due is None else min(due, self._moments[0])

    def _accepted(self, batch: Sequence[Outgoing]) -> None:
        now = self.db.now
        assert now is not None
        for at, one in self._behave(batch, now):
            self.add(max(at, now + 1), one)

    def add(self, at: Instant, one: Input) -> None:
        """Add an input of the future."""
        if at not in self._inputs.at:
            heapq.heappush(self._moments, at)
        self._inputs.add(at, [one])

    # Inputs -------------------------------------------------------------------------------------

    def _apply_inputs(self, now: Instant) -> None:
        while self._moments and self._moments[0] <= now:
            inputs = self._inputs.at.pop(heapq.heappop(self._moments))
            with self.db.transaction() as tx:
                self._record(tx, inputs)
            for one in inputs:
                if isinstance(one, LaunchOf):
                    self._launch(one)
                elif isinstance(one, StartOf):
                    self._start(one)
                elif isinstance(one, Examination):
                    enter_all_newcomers(self.engine, one.journey)

    def _record(self, tx: Tx, inputs: Sequence[Input]) -> None:
        if arrivals := [one.row for one in inputs if isinstance(one, NewProfile)]:
            tx.conn.execute(insert(profiles), arrivals)
        events = [one for one in inputs if isinstance(one, ShopEvent)]
        if purchases := [one for one in inputs if isinstance(one, Purchase)]:
            events += purchase_events(tx, purchases)
        # Nothing reacts to the events of those who are in no journey and enter none now.
        enters = any(isinstance(one, LaunchOf | StartOf | Examination) for one in inputs)
        reacting = {one.profile_id for one in events if enters or one.name in self._entries}
        reacting |= enrolled_or_unconverted(tx, {one.profile_id for one in events})
        for worked in (True, False):
            some = [one for one in events if (one.profile_id not in reacting) == worked]
            record_events(tx, [_new_event(tx, one) for one in some], worked=worked)
        for said in (one for one in inputs if isinstance(one, ConsentInput)):
            change = ConsentChange(
                profile_id=said.profile_id,
                channel=said.channel,
                topic=said.topic,
                granted=said.granted,
                occurred_at=said.occurred_at,
            )
            change_consent(tx, [change], said.source)
        if answers := [one for one in inputs if isinstance(one, AnswerInput)]:
            apply(tx, self._feedback(tx, answers), self._policy.double_opt_in)

    def _feedback(self, tx: Tx, answers: Sequence[AnswerInput]) -> list[Feedback]:
        keys = [one.message for one in answers if isinstance(one.message, MessageKey)]
        known = message_ids(tx, keys)
        return [
            Feedback(
                id=one.id,
                source=_NAME,
                channel=one.channel,
                kind=one.kind,
                at=one.at,
                message_id=known.get(one.message)
                if isinstance(one.message, MessageKey)
                else one.message,
                address=one.address,
                reason=one.reason,
                suppress=one.suppress,
                properties=one.properties or {},
            )
            for one in answers
        ]

    def _launch(self, one: LaunchOf) -> None:
        with self.db.transaction() as tx:  # without asking for an approval
            version = record_launch(
                tx,
                self.engine.catalog,
                launch_id=one.id,
                journey=one.journey,
                audience=one.audience,
                people=one.people,
            )
        condition = self.engine.catalog.segment(one.audience).condition
        with self.db.transaction(write=False) as tx:
            self.refused.setdefault(one.journey, Counter()).update(refusals(tx, version, condition))
        for _ in enter_audience(self.engine, version, one.audience, one.id, one.people):
            pass

    def _start(self, one: StartOf) -> None:
        """The profiles take their first steps in the turn that follows."""
        with self.db.transaction() as tx:
            version = record_launch(
                tx,
                self.engine.catalog,
                launch_id=one.id,
                journey=one.journey,
                audience=API_AUDIENCE,
            )
            enter_each(tx, version, one.each, one.id)


def _entry_events(catalog: Catalog) -> set[str]:
    """The names of the events that can enter profiles."""
    names = {PROFILE_CHANGED}
    for version in catalog.current.values():
        if isinstance(version.journey.entry, EventEntry):
            names.add(version.journey.entry.event)
        elif (condition := catalog.entry_segment(version)) is not None:
            names.update(condition.event_names())
    return names


def _new_event(tx: Tx, one: ShopEvent) -> NewEvent:
    return NewEvent(
        profile_id=one.profile_id,
        name=one.name,
        occurred_at=tx.now if one.occurred_at is None else one.occurred_at,
        dedupe_key=one.dedupe_key,
        properties=one.properties,
        waited=one.waited,
    )


def _stopped_clock() -> float:
    return 0.0


def _calls_succeed(*_: object) -> dict[int, str]:
    """The errors of Call steps: nothing is posted, as if every server accepted."""
    return {}


class _Inline(ThreadPoolExecutor):
    """An executor that runs each call at once, in the caller's thread.

    A simulation waits for nothing, so threads would only add work, and an order of their own.
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future

"""Simulate journeys on a copy of the shop: what goes in, and what comes out for each seed."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NamedTuple

from cronsim import CronSim
from sqlalchemy import insert

from channels.rules.planner import Planner
from config.clock.times import DAY, Instant
from config.clock.zones import zone
from config.database.change_counter import count_change
from config.database.engine import Database, Tx
from config.garbage import without_collections
from journeys.definition.catalog import Catalog
from journeys.definition.journey import EventEntry, ScheduleEntry, SegmentEntry
from journeys.engine.entry import audience_after
from journeys.operations.control import PAUSED, STOPPED, held
from journeys.simulation.behaviour import AnsweringPeople
from journeys.simulation.clock import SimulatedShop, Simulation, nobody_answers
from journeys.simulation.copy import CopyScope, copy, copy_again
from journeys.simulation.inputs import Examination, Input, Inputs, LaunchOf, ShopEvent, StartOf
from journeys.simulation.past import PastPeriod, RememberingPeople, recall
from journeys.simulation.providers import simulated_providers
from journeys.simulation.rates import AnswerKind, AnswerRates, learn_rates
from journeys.simulation.refusals import still_waiting
from journeys.simulation.rendering import refuse_unrenderable
from journeys.simulation.results import Results, read_results, under_way
from journeys.simulation.rewind import rewind
from journeys.simulation.stream import shop_events
from journeys.tables import journey_controls

_LAUNCH = "simulated launch"
_EVERYBODY = 1 << 40
# A launch for a limited number looks at so many more.
_SPARE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What to simulate.

    journeys: those that move; the messages that others have planned count against caps.
    audience: the segment that the only journey is launched for; None: entries are those of the
        journeys themselves, by schedule, segment and event.
    people: the most that enter by the launch; None: no limit.
    given: shares of answers that replace those of the shop's history.
    seeds: how many runs, each with other draws.
    customers: whether customers do anything: answer messages, and cause events.
    since: replay what happened from then on, instead of looking ahead (past.py).
    """

    journeys: tuple[str, ...]
    audience: str | None
    days: int
    people: int | None = None
    given: Mapping[AnswerKind, float] = field(default_factory=dict)
    seeds: int = 1
    customers: bool = True
    since: Instant | None = None

    def segments(self, catalog: Catalog) -> dict[str, str]:
        """The segment that each journey is launched for, by journey."""
        if self.audience is not None:
            return dict.fromkeys(self.journeys, self.audience)
        entries = {name: catalog.journey(name).journey.entry for name in self.journeys}
        return {
            name: entry.segment
            for name, entry in entries.items()
            if isinstance(entry, ScheduleEntry | SegmentEntry)
        }


class Prepared(NamedTuple):
    """What a run needs from the shop. db: the copy. past: what it replays, if anything."""

    db: Database
    rates: AnswerRates
    past: PastPeriod | None


def simulate(tx: Tx, shop: SimulatedShop, question: Question) -> list[Results]:
    """The results for each seed. Only reads the database of the transaction.

    Raises SegueError for an unknown journey or segment.
    """
    with without_collections():
        base = prepare(tx, shop, question)
    results = []
    for seed in range(question.seeds):
        last = seed == question.seeds - 1
        prepared = base if last else base._replace(db=copy_again(base.db))
        with without_collections():
            results.append(run(prepared, shop, question, seed))
        prepared.db.close()
    return results


def prepare(tx: Tx, shop: SimulatedShop, question: Question) -> Prepared:
    """The copy and the rates for a question."""
    for journey in question.journeys:
        shop.catalog.journey(journey)
    start = tx.now if question.since is None else question.since
    scope = CopyScope(
        catalog=shop.catalog,
        policy=shop.policy,
        now=start,
        people=_audience(tx, shop.catalog, question),
    )
    db = copy(tx, scope)
    past = None
    with db.transaction() as copied:
        if question.since is not None:
            until = start + question.days * DAY
            past = recall(tx, question.journeys, start, until)
            rewind(copied, tx, question.journeys, past.inputs, since=start, until=until)
        shop.catalog.register(copied)
        _hold_others(copied, shop.catalog, question.journeys)
    return Prepared(db, learn_rates(tx, tx.now, question.given), past)


def _audience(tx: Tx, catalog: Catalog, question: Question) -> Sequence[int] | None:
    """The profiles that a launch concerns; None: all."""
    if question.audience is None:
        return None
    # The re-entry rule may refuse some of the first.
    most = _EVERYBODY if question.people is None else _SPARE + 2 * question.people
    return audience_after(tx, catalog.segment(question.audience).condition, 0, most)


def _hold_others(tx: Tx, catalog: Catalog, journeys: Sequence[str]) -> None:
    """Stop the journeys that are not asked about, in the copy."""
    already = held(tx)
    others = [
        {"journey": name, "state": STOPPED, "changed_at": tx.now}
        for name in catalog.journeys()
        if name not in journeys and name not in already
    ]
    if others:
        tx.conn.execute(insert(journey_controls), others)
        count_change(tx)


def run(
    prepared: Prepared,
    shop: SimulatedShop,
    question: Question,
    seed: int,
    *,
    of_launch: bool = False,
) -> Results:
    """Simulate on the copy, which this changes; returns the results of one seed.

    It begins in the second after the copy, so that its rows differ in time from those before; a
    replay begins at its first input.

    of_launch: count only the messages to those who enter, not to those who are in a journey before.
    """
    db, _, past = prepared
    assert db.now is not None
    start = db.now + 1 if past is None else db.now
    end = start + question.days * DAY
    with db.transaction(write=False) as tx:
        inputs = _inputs(tx, shop.catalog, question, past, start, end, seed)
        why = _why_nobody(tx, shop.catalog, question, inputs, past)
        before = under_way(tx)
    people = AnsweringPeople(
        db,
        shop.catalog,
        rates=prepared.rates,
        segments=question.segments(shop.catalog),
        seed=seed,
        buys=past is None,
    )
    remembering = None if past is None else RememberingPeople(db, past, people)
    behave = people.answer if question.customers else nobody_answers
    if remembering is not None:
        behave = remembering.answer
    simulation = Simulation(db, shop, inputs=inputs, behave=behave)
    simulation.run(end)
    providers = simulated_providers(shop.settings)
    with db.transaction() as tx:
        if not question.customers:
            refuse_unrenderable(tx, simulation.engine, shop.settings)
        results = read_results(
            tx,
            Planner(shop.policy),
            providers,
            question.journeys,
            start,
            before,
            of_launch=of_launch,
        )
        if not (results.sent or results.planned or results.not_sent):
            for journey, waiting in still_waiting(tx, question.journeys).items():
                why[journey] += waiting
    for journey, refused in simulation.refused.items():
        why[journey] += refused
    return replace(
        results,
        why={journey: reasons for journey, reasons in why.items() if reasons},
        answers=people.answers,
        rates=people.used,
        delays=people.delays,
        replayed=None if remembering is None else (remembering.known, remembering.unknown),
    )


def _inputs(
    tx: Tx,
    catalog: Catalog,
    question: Question,
    past: PastPeriod | None,
    start: Instant,
    end: Instant,
    seed: int,
) -> Inputs:
    if past is not None:
        return _replayed(catalog, question, past.inputs, start, end)
    entries = {name: catalog.journey(name).journey.entry for name in question.journeys}
    # A launch for an audience is looked at alone, without those who enter by events.
    without = {
        entry.event
        for entry in entries.values()
        if question.audience is not None and isinstance(entry, EventEntry)
    }
    inputs = Inputs()
    if question.customers:
        inputs = shop_events(
            tx, catalog, start=start, days=question.days, seed=seed, without=without
        )
    if question.audience is not None:
        [journey] = question.journeys
        launch = LaunchOf(
            id=_LAUNCH, journey=journey, audience=question.audience, people=question.people
        )
        inputs.add(start, [launch])
        return inputs
    for name, entry in entries.items():
        if isinstance(entry, ScheduleEntry):
            for at in _times(entry, start, end):
                inputs.add(at, [LaunchOf(f"{name} {at}", name, entry.segment)])
        elif isinstance(entry, SegmentEntry):
            for at in range(start, end, DAY):
                inputs.add(at, [Examination(name)])
    return inputs


def _replayed(
    catalog: Catalog, question: Question, inputs: Inputs, start: Instant, end: Instant
) -> Inputs:
    """The inputs of the past, with the examinations that workers make. The run consumes them.

    Launches for segments that do not exist any more are left out (_why_nobody).
    """
    found = Inputs()
    for at, together in inputs.at.items():
        found.add(at, [one for one in together if not _for_lost_segment(catalog, one)])
    for name in question.journeys:
        if isinstance(catalog.journey(name).journey.entry, SegmentEntry):
            for at in range(start, end, DAY):
                found.add(at, [Examination(name)])
    return found


def _for_lost_segment(catalog: Catalog, one: Input) -> bool:
    return isinstance(one, LaunchOf) and one.audience not in catalog.segments


def _times(entry: ScheduleEntry, start: Instant, end: Instant) -> Iterator[Instant]:
    """The times of a schedule from `start` on, before `end`."""
    # CronSim begins behind the given minute.
    before = datetime.fromtimestamp(start - 1, zone(entry.timezone))
    for moment in CronSim(entry.cron.upper(), before):
        at = int(moment.timestamp())
        if at >= end:
            return
        if at >= start:
            yield at


def _why_nobody(
    tx: Tx, catalog: Catalog, question: Question, inputs: Inputs, past: PastPeriod | None
) -> dict[str, Counter[str]]:
    """What keeps people from entering journeys or from moving in them, apart from launches."""
    why: dict[str, Counter[str]] = {name: Counter() for name in question.journeys}
    if past is not None:
        for one in (one for together in past.inputs.at.values() for one in together):
            if isinstance(one, LaunchOf) and _for_lost_segment(catalog, one):
                why[one.journey][f"launch for {one.audience}, a segment that is no more"] += 1
    holding = held(tx)
    every = [one for together in inputs.at.values() for one in together]
    there = {one.name for one in every if isinstance(one, ShopEvent)}
    launched = {one.journey for one in every if isinstance(one, LaunchOf | StartOf)}
    for name in question.journeys:
        entry = catalog.journey(name).journey.entry
        if holding.get(name) == PAUSED:
            why[name]["the journey is paused: whoever enters waits at the first step"] += 1
        if name in launched or isinstance(entry, SegmentEntry):
            continue
        if holding.get(name) == STOPPED:
            why[name]["the journey is stopped"] += 1
        elif isinstance(entry, EventEntry):
            if entry.event not in there:
                why[name][f"no event to enter with: {entry.event}"] += 1
        elif past is not None:
            why[name]["it was not launched in these days"] += 1
        elif isinstance(entry, ScheduleEntry):
            why[name]["no time of its schedule is in these days"] += 1
        else:
            why[name]["it is entered by a launch: choose an audience"] += 1
    return why
